"""Micro-batches: as many images at a time as suit the device, with the same result.

On a CPU a few images at a time keep a layer's activations in the cache until the next layer reads
them. Forward, where one program has all the cores, as many as have `FORWARD_BYTES`:
with a ConvNet and images of 32×32×3, 128 at width 32 (a DM step of 10 × 128 real ones takes 0.13 s,
0.17 with 32 and with 4) and 32 at width 128 (10 × 256: 1.5 s, 1.7 with 8, and 2.4 with 1, on two
cores). Where each core has a program of its own, as many as have `CORE_BYTES` bytes, 4 and 1: of two such
steps at once each takes 0.16 s, 0.20 with 32 and 0.24 with 128 (2.4 s, 2.4 with 8, 2.8 with 32).
With gradients of the weights, as many as have `BACKWARD_BYTES` bytes, 32 and 8: an evaluation of five
networks takes 0.37 s at width 32, 0.45 with half as many, and at width 128 2.9 s, with half as
many, too, and 3.2 with half as many again. Elsewhere `LARGE` images bound the memory, whatever a
batch holds.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

FORWARD_BYTES = 16 * 2**20
"""Bytes of the largest array on the way forward on the CPU, where one image has no larger one."""

CORE_BYTES = 2**19
"""Likewise where the program has one core, and others have theirs."""

BACKWARD_BYTES = 4 * 2**20
"""Bytes of the largest array on the CPU where gradients are summed, likewise."""

LARGE = 2048
"""Most images at a time on other devices."""


def apply(
    function: Callable[[jax.Array], Any],
    images: jax.Array,
    *,
    activation_bytes: int | None = None,
    max_images: int = LARGE,
) -> Any:
    """Applies a function that treats images one by one, `[n, …]` to arrays `[n, …]`.

    Args:
        function: of `[m, …]` for any m; may close over traced values.
        images: `[n, …]`.
        activation_bytes: bytes of the largest array on the CPU, `FORWARD_BYTES` where omitted.
        max_images: images at a time on any device.

    >>> apply(lambda x: 2 * x, jnp.arange(3.0)).tolist()
    [0.0, 2.0, 4.0]
    """

    def joined(size):
        parts = jax.lax.map(function, _split(images, size))
        flat = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[: len(images)]
        return jax.tree.map(flat, parts)

    fitting = max(1, (activation_bytes or FORWARD_BYTES) // _largest(function, images))
    return _per_device(joined, len(images), fitting, lambda: function(images), max_images)


def total(function: Callable[..., Any], *arrays: jax.Array) -> Any:
    """Sums a function of samples over micro-batches.

    Args:
        function: of the arrays, cut to the same samples; its value must be a sum over samples to
            which rows of zeros contribute zero, since they fill up the last micro-batch.
        *arrays: each `[n, …]`.

    >>> int(total(jnp.sum, jnp.arange(100)))
    4950
    """

    def added(size):
        def add(partial, batch):
            return jax.tree.map(jnp.add, partial, function(*batch)), None

        batches = tuple(_split(array, size) for array in arrays)
        like = jax.eval_shape(function, *(batch[0] for batch in batches))
        zero = jax.tree.map(jnp.zeros_like, like)
        return jax.lax.scan(add, zero, batches)[0]

    fitting = max(1, BACKWARD_BYTES // _largest(function, *arrays))
    return _per_device(added, len(arrays[0]), fitting, lambda: function(*arrays), LARGE)


_ROWS = 13  # a size that no other axis is likely to have


def _largest(function, *arrays):
    """Bytes for each row of the largest array that a function makes of rows."""
    given = [jax.ShapeDtypeStruct((_ROWS, *x.shape[1:]), x.dtype) for x in arrays]
    equations = jax.make_jaxpr(function)(*given).eqns
    made = [variable.aval for equation in equations for variable in equation.outvars]
    by_rows = [array for array in (*given, *made) if _ROWS in array.shape]
    return max(1, *(array.size * array.dtype.itemsize // _ROWS for array in by_rows))


def _per_device(cut, n, fitting, whole, most):
    """Runs `cut(size)` where n exceeds the size of the device, which on the CPU is `fitting`."""
    if n <= min(fitting, most):
        return whole()
    large = whole if n <= most else lambda: cut(most)
    return jax.lax.platform_dependent(cpu=lambda: cut(min(fitting, most)), default=large)


def _split(array, most):
    """Cuts `[n, …]` into the fewest parts of at most `most` rows, `[parts, size, …]`, zeros last.

    Part i takes every parts-th row from the i-th on: of an array that is split over devices, each
    part is split likewise.
    """
    parts = -(-len(array) // most)
    array = jnp.pad(array, [(0, -len(array) % parts)] + [(0, 0)] * (array.ndim - 1))
    return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)
