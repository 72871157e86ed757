"""Micro-batches: a large batch is processed a few images at a time, with the same result.

`apply` maps a function over the images of a batch; `total` sums a function, such as a gradient,
over them. How many images are processed at a time is derived from the function itself: its largest
array must fit a number of bytes on CPUs, and 2,048 images bound the memory of other devices.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxdd import _axes

# On a CPU, layers are fast if the activations of one layer are still in the cache when the next
# layer reads them. So the size of a micro-batch is limited by a budget for its largest array:
#
#     size = budget / (bytes of the largest array per image)
# Larger micro-batches are slower because of the cache, smaller ones because of the overhead of each
# operation. The budgets below were measured with ConvNets of width 32 and 128 on images of 32×32×3,
# on two cores:
#
# budget           size at width 32, 128   time of one step, and with other sizes
# _FORWARD_BYTES   128, 32 images          DM, 10 × 128 real images: 0.13 s (0.17 with 32 or 4);
#                                          width 128, 10 × 256: 1.5 s (1.7 with 8, 2.4 with 1)
# CORE_BYTES       4, 1 images             two such steps at once: each 0.16 s (0.20 with 32, 0.24
#                                          with 128); width 128: 2.4 s (2.4 with 8, 2.8 with 32)
# GRADIENT_BYTES   32, 8 images            evaluation of five networks: 0.37 s (0.45 with 16); width
#                                          128: 2.9 s (2.9 with 4, 3.2 with 2)

_FORWARD_BYTES = 16 * 2**20  # For forward passes, if all cores work on this program.
_WHOLE_BYTES = 2**20  # Sums of gradients with larger arrays have two parts or more on CPUs.
_LARGE = 2048  # Maximum number of images at a time on other devices.

CORE_BYTES = 2**19
"""Budget of forward passes on a CPU whose cores each work on a program of their own."""

GRADIENT_BYTES = 4 * 2**20
"""Budget of sums of gradients, and of forward passes whose activations are kept for gradients."""


def apply(
    function: Callable[[jax.Array], Any],
    images: jax.Array,
    *,
    activation_bytes: int | None = None,
    max_images: int = _LARGE,
) -> Any:
    """Apply a function that treats images independently, `[n, …]` to arrays `[n, …]`.

    Args:
        function: function of arrays `[m, …]`, for any m; it may close over traced values.
        images: `[n, …]`.
        activation_bytes: budget for the largest array on a CPU; 16 MiB by default.
        max_images: maximum number of images at a time on any device.

    >>> apply(lambda x: 2 * x, jnp.arange(3.0)).tolist()
    [0.0, 2.0, 4.0]
    """

    def by_parts(size):
        parts = jax.lax.map(function, _cut(images, size))
        join = lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[: len(images)]
        return jax.tree.map(join, parts)

    size = max(1, (activation_bytes or _FORWARD_BYTES) // bytes_per_row(function, images))
    return _choose(by_parts, len(images), size, lambda: function(images), max_images)


def total(function: Callable[..., Any], *arrays: jax.Array) -> Any:
    """Sum a function of samples over micro-batches.

    The last micro-batch is filled up with copies of the last row, except for the last array, which
    is filled with zeros. So the function must be zero for samples whose last array is zero, such as
    their weight. (Rows of zeros everywhere would give NaN gradients for functions that are not
    differentiable at 0, such as features divided by their norm.)

    Args:
        function: function of the arrays, cut to the same samples; a sum over samples.
        *arrays: `[n, …]` each, the last one being weights or another factor.

    >>> int(total(jnp.sum, jnp.arange(100)))
    4950
    """

    def by_parts(size):
        def add(partial, batch):
            return jax.tree.map(jnp.add, partial, function(*batch)), None

        *inputs, factor = arrays
        batches = (*(_cut(x, size) for x in inputs), _cut(factor, size, mode="constant"))
        shapes = jax.eval_shape(function, *(batch[0] for batch in batches))
        zero = jax.tree.map(jnp.zeros_like, shapes)
        return jax.lax.scan(add, zero, batches)[0]

    n, row_bytes = len(arrays[0]), bytes_per_row(function, *arrays)
    size = max(1, GRADIENT_BYTES // row_bytes)
    # XLA fuses a function outside of a loop with its surroundings, such as an augmentation, which
    # is slower: an update of a ConvNet of width 32 by 100 images of 16×16×3 takes 15.2 ms of CPU
    # time as a whole, and 11.9 ms in two or in four parts.
    if n * row_bytes > _WHOLE_BYTES:
        size = min(size, -(-n // 2))
    return _choose(by_parts, n, size, lambda: function(*arrays), _LARGE)


_ROWS = 13  # a number of rows that no other axis is likely to have


def bytes_per_row(function: Callable[..., Any], *arrays: Any) -> int:
    """Return the bytes per row of the largest array that a function of `[n, …]` computes.

    Args:
        function: function of the arrays, for any n; it may close over traced values.
        *arrays: `[n, …]` each, of which only shapes and dtypes are used.

    >>> bytes_per_row(lambda x: jnp.outer(x, jnp.ones(10)), jnp.ones(5))
    40
    """
    inputs: list[Any] = [jax.ShapeDtypeStruct((_ROWS, *x.shape[1:]), x.dtype) for x in arrays]
    if _axes.is_mapped():
        inputs = [_axes.match(jnp.zeros(x.shape, x.dtype), arrays) for x in inputs]
    intermediates = _intermediates(jax.make_jaxpr(function)(*inputs).jaxpr)
    by_rows = [array for array in (*inputs, *intermediates) if _ROWS in array.shape]
    return max(1, *(array.size * array.dtype.itemsize // _ROWS for array in by_rows))


def _intermediates(jaxpr) -> Iterator[Any]:
    """Yield the shapes of all results, including those inside jitted functions."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        if equation.primitive.name in ("jit", "pjit"):
            yield from _intermediates(equation.params["jaxpr"].jaxpr)


def _choose(by_parts, n, size_on_cpu, whole, max_images):
    """Process n images at once if they fit the device, otherwise in parts that fit."""
    if n <= min(size_on_cpu, max_images):
        return whole()
    elsewhere = whole if n <= max_images else lambda: by_parts(max_images)
    on_cpu = lambda: by_parts(min(size_on_cpu, max_images))
    return jax.lax.platform_dependent(cpu=on_cpu, default=elsewhere)


def _cut(array, max_rows, mode="edge"):
    """Cut `[n, …]` into the fewest parts of at most `max_rows` rows, `[parts, rows, …]`."""
    # Part i takes the rows i, i + parts, i + 2 parts and so on. If the array is split over devices,
    # every part then has rows of every device, so all devices work all the time.
    parts = -(-len(array) // max_rows)
    padding = [(0, -len(array) % parts)] + [(0, 0)] * (array.ndim - 1)
    array = jnp.pad(array, padding, mode=mode) if padding[0][1] else array
    return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)
