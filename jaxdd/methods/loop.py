"""The loop that compiles the steps of a distillation method."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxdd import _checks, sampling
from jaxdd.methods.protocol import Method


def steps(
    key: jax.Array,
    state: Any,
    pool: Any,
    first: jax.Array | int,
    *,
    method: Method,
    sampler: Callable[[jax.Array, Any], Any],
    length: int,
) -> tuple[Any, dict[str, jax.Array]]:
    """Runs `length` steps as one loop: draw a batch, apply the method's step.

    Step i uses `fold_in(key, i)`, so (key, i) alone says what happens next. This is a pure function
    to `jit`, `vmap` or differentiate; `chunk` is it compiled.

    Args:
        key: of the whole run.
        state: from `method.init` or earlier steps.
        pool: the real data, on the device.
        first: number of the first step.
        method: what a step is.
        sampler: `sampler(key, pool) -> batch`.
        length: number of steps, static.

    Returns:
        The state, and the info of every step as `[length]` arrays.

    Raises:
        TypeError: for a step that does not return a state like the one it got and a dict of scalars
            with "loss".
    """

    def body(state, i):
        key_draw, key_step = jax.random.split(jax.random.fold_in(key, i))
        found = method.step(key_step, state, sampler(key_draw, pool))
        _check_step(found, state)
        return found

    return jax.lax.scan(body, state, first + jnp.arange(length))


def _check_step(found, state):
    """Refuses, by shapes alone, what the protocol of a method does not allow."""
    shapes = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
    if not (isinstance(found, tuple) and len(found) == 2):
        raise TypeError(f"a step must return the pair (state, info), found {shapes(found)}")
    after, info = found
    if jax.tree.structure(after) != jax.tree.structure(state) or shapes(after) != shapes(state):
        raise TypeError(
            "a step must return a state of the structure, shapes and dtypes that it got, found "
            f"{shapes(after)} for {shapes(state)}"
        )
    if not isinstance(info, dict) or "loss" not in info or any(map(jnp.shape, info.values())):
        raise TypeError(
            f'a step must report a dict of scalars, "loss" among them, found {shapes(info)}'
        )


chunk = jax.jit(steps, static_argnames=("method", "sampler", "length"), donate_argnames=("state",))
"""`steps` compiled, its state donated.

Method and sampler are compared by identity: make them once, since another `functools.partial` of
the same function compiles the steps again.
"""


def run(
    key: jax.Array,
    state: Any,
    pool: sampling.Pool,
    *,
    method: Method,
    sampler: sampling.Sampler,
    steps: int,
    first: int = 0,
    chunk_length: int = 10,
) -> Iterator[tuple[int, Any, dict[str, jax.Array]]]:
    """Yields `(step, state, info)` after each compiled chunk until `steps` steps are done.

    `info` holds an array `[steps of the chunk]` for each scalar of the method. The yielded state is
    given up to the next chunk: save or copy what you want to keep before you ask for more; the
    state that was handed in stays. A run begun again with `first` = a yielded step and its state
    goes on to the same bits, since chunks start at the same steps.

    Raises:
        ValueError: for a loss that is not finite, a chunk of no steps, a negative number of them,
            or a first step beyond the last.
    """
    chunk_length = _checks.count("chunk_length", chunk_length)
    steps, first = (_checks.count(n, x, minimum=0) for n, x in (("steps", steps), ("first", first)))
    if first > steps:
        raise ValueError(f"first must not be beyond the {steps} steps, found {first}")
    state = jax.tree.map(jnp.copy, state)
    for start in range(first, steps, chunk_length):
        length = min(chunk_length, steps - start)
        state, info = chunk(
            key, state, pool, jnp.asarray(start), method=method, sampler=sampler, length=length
        )
        if not jnp.isfinite(info["loss"]).all():
            step = start + int(jnp.argmin(jnp.isfinite(info["loss"])))
            raise ValueError(f"the loss is not finite at step {step}; try a smaller learning rate")
        yield start + length, state, info
