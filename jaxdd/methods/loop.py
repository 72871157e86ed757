"""The loop that runs a distillation method in compiled chunks of steps."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import _checks
from jaxdd.methods.protocol import Method


class Batches(NamedTuple):
    """Batches of successive steps, computed ahead by `batch`, to pass instead of a pool.

    Attributes:
        first: number of the first step.
        batches: tree of arrays `[steps, …]`.
    """

    first: jax.Array | int
    batches: Any


@functools.partial(jax.jit, static_argnames=("sampler", "prepare"))
def batch(
    key: jax.Array,
    pool: Any,
    i: jax.Array | int,
    *,
    sampler: Callable[[jax.Array, Any], Any],
    prepare: Callable[[jax.Array, Any], Any],
) -> Any:
    """Compute what a step needs of its batch before the step, for example for several runs.

    Args:
        key: random key of the whole run.
        pool: real data on the device.
        i: number of the step.
        sampler: `sampler(key, pool) -> batch`.
        prepare: function of the key of the step, as `method.step` gets it, and of the batch.
    """
    key_batch, key_step = _keys(key, i)
    return prepare(key_step, sampler(key_batch, pool))


def steps(
    key: jax.Array,
    state: Any,
    pool: Any,
    first: jax.Array | int,
    *,
    method: Method,
    sampler: Callable[[jax.Array, Any], Any] | None,
    length: int,
) -> tuple[Any, dict[str, jax.Array]]:
    """Run `length` steps of a method as one loop.

    This is a pure function to `jit`, `vmap` over seeds or differentiate. Step i uses
    `fold_in(key, i)`, so its randomness depends on the key and i alone.

    Args:
        key: random key of the whole run.
        state: from `method.init` or earlier steps.
        pool: real data on the device, or the `Batches` of these steps.
        first: number of the first step.
        method: see `Method`.
        sampler: `sampler(key, pool) -> batch`; None for `Batches`.
        length: number of steps, static.

    Returns:
        The state, and the info of every step as `[length]` arrays.

    Raises:
        TypeError: `method.step` does not return a state of the same type and a dict of scalars
            that contains "loss".
    """
    step = _step(key, pool, method, sampler)
    return jax.lax.scan(step, state, first + jnp.arange(length))


def _step(key, pool, method, sampler):
    """Return the function from state and number of a step to the next state and the info."""

    def step(state, i):
        key_batch, key_step = _keys(key, i)
        if isinstance(pool, Batches):
            batch = jax.tree.map(lambda x: x[i - pool.first], pool.batches)
        else:
            batch = sampler(key_batch, pool)
        result = method.step(key_step, state, batch)
        _check_step(result, state)
        return result

    return step


def _keys(key, i):
    """Return the keys of the batch and of the method for a step."""
    return jax.random.split(jax.random.fold_in(key, i))


def _check_step(result, state):
    """Reject, by shapes alone, a step that does not follow the protocol."""
    shapes = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"A step must return the pair (state, info), got {shapes(result)}.")
    after, info = result
    if jax.tree.structure(after) != jax.tree.structure(state) or shapes(after) != shapes(state):
        raise TypeError(
            "A step must return a state of the structure, shapes and dtypes of its argument "
            f"{shapes(state)}, got {shapes(after)}."
        )
    if not isinstance(info, dict) or "loss" not in info or any(map(jnp.shape, info.values())):
        raise TypeError(
            f'The info of a step must be a dict of scalars with "loss", got {shapes(info)}.'
        )


@functools.partial(
    jax.jit, static_argnames=("method", "sampler", "length"), donate_argnames="state"
)
def chunk(
    key: jax.Array,
    state: Any,
    pool: Any,
    first: jax.Array | int,
    count: jax.Array | int,
    *,
    method: Method,
    sampler: Callable[[jax.Array, Any], Any] | None,
    length: int,
) -> tuple[Any, dict[str, jax.Array]]:
    """Run `count` of at most `length` steps by one compiled program, with the state donated.

    Returns what `steps` does; entries of the info after `count` are 0. Programs are cached by the
    identity of method and sampler, so create these once: a new `functools.partial` of the same
    function compiles the steps again.
    """
    # XLA inlines a loop that is known to have one step, and then rounds differently. With the
    # number of steps as an argument, all chunks of a run compute the same, whatever their length.
    step = jax.jit(_step(key, pool, method, sampler))  # so that both calls below trace it once
    _, info = jax.eval_shape(step, state, jnp.asarray(first))
    infos = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), info)

    def body(i, carry):
        state, infos = carry
        state, info = step(state, first + i)
        return state, jax.tree.map(lambda rows, x: rows.at[i].set(x), infos, info)

    return jax.lax.fori_loop(0, count, body, (state, infos))


def run(
    key: jax.Array,
    state: Any,
    pool: Any,
    *,
    method: Method,
    sampler: Callable[[jax.Array, Any], Any] | None,
    steps: int,
    first: int = 0,
    chunk_length: int = 10,
) -> Iterator[tuple[int, Any, dict[str, jax.Array]]]:
    """Yield `(step, state, info)` after each compiled chunk until `steps` steps are done.

    This function runs on the host and cannot be transformed by JAX.

    A run that is restarted from a yielded step and state, with `first` set to that step, is
    bit-identical to an uninterrupted one, because its chunks begin at the same steps.

    Args:
        key: random key of the whole run.
        state: from `method.init` or an earlier run; it stays valid.
        pool: real data on the device, or the `Batches` of these steps.
        method: see `Method`.
        sampler: such as `functools.partial(sampling.weighted_batch, size=64)`; None for `Batches`.
        steps: number of the last step.
        first: steps already done.
        chunk_length: steps between two yields, which one program runs.

    Yields:
        The number of steps done, the state, and an array `[steps of the chunk]` for each scalar of
        the method. The next chunk overwrites the yielded state: copy what you want to keep.

    Raises:
        ValueError: the loss is not finite, or a number of steps is out of range.
    """
    _checks.concrete("methods.run", key, state, pool)
    chunk_length = _checks.count("chunk_length", chunk_length)
    steps = _checks.count("steps", steps, minimum=0)
    first = _checks.count("first", first, minimum=0)
    if first > steps:
        raise ValueError(f"first must not exceed steps = {steps}, got {first}.")
    # `chunk` donates its state. The copy keeps the caller's arrays alive.
    state = jax.tree.map(jnp.copy, state)
    for start in range(first, steps, chunk_length):
        count = min(chunk_length, steps - start)
        numbers = jax.device_put((np.int32(start), np.int32(count)))
        state, info = chunk(
            key, state, pool, *numbers, method=method, sampler=sampler, length=chunk_length
        )
        info = {name: values[:count] for name, values in info.items()}
        finite = np.isfinite(jax.device_get(info["loss"]))
        if not finite.all():
            step = start + int(np.argmin(finite))
            raise ValueError(f"The loss is not finite at step {step}; lower the learning rate.")
        yield start + count, state, info
