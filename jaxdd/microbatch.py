"""Micro-batches: as many images at a time as suit the device, with the same result.

On a CPU a few images at a time keep a layer's activations in the cache until the next layer reads
them. In processor seconds, with a ConvNet of width 128 and images of 32×32×3: forward 1280 images
2.3 (32 at a time) instead of 3.3, a DM step of 10 × 256 real ones 5.1 instead of 6.9, a DSA match step
17.7 instead of 30.8. Elsewhere `LARGE` images bound the memory, whatever a batch holds.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

CPU = 32
"""Most images at a time on the CPU."""

LARGE = 2048
"""Most images at a time on other devices."""


def apply(function: Callable[[jax.Array], Any], images: jax.Array) -> Any:
    """Applies a function that treats images one by one, `[n, …]` to arrays `[n, …]`.

    Args:
        function: of `[m, …]` for any m; may close over traced values.
        images: `[n, …]`.

    >>> apply(lambda x: 2 * x, jnp.arange(3.0)).tolist()
    [0.0, 2.0, 4.0]
    """

    def joined(size):
        parts = jax.lax.map(function, _split(images, size))
        flat = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[: len(images)]
        return jax.tree.map(flat, parts)

    return _per_device(joined, len(images), lambda: function(images))


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
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        return jax.lax.scan(add, zero, batches)[0]

    return _per_device(added, len(arrays[0]), lambda: function(*arrays))


def _per_device(cut, n, whole):
    """Runs `cut(size)` where `n` exceeds the device's size, otherwise `whole()`."""
    if n <= CPU:
        return whole()
    large = whole if n <= LARGE else lambda: cut(LARGE)
    return jax.lax.platform_dependent(cpu=lambda: cut(CPU), default=large)


def _split(array, most):
    """Cuts `[n, …]` into the fewest parts of at most `most` rows, `[parts, size, …]`, zeros last.

    Part i takes every parts-th row from the i-th on: of an array that is split over devices, each
    part is split likewise.
    """
    parts = -(-len(array) // most)
    array = jnp.pad(array, [(0, -len(array) % parts)] + [(0, 0)] * (array.ndim - 1))
    return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)
