"""What arrays must be: dtypes always, values where they are known.

Under jit, vmap and grad there are no values to see, and only shapes and dtypes are checked.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike


def values(array: jax.Array | np.ndarray) -> np.ndarray | None:
    """Returns the values as a NumPy array, or None where an array is traced."""
    # On the host, because under a trace even an operation on known values gives a tracer.
    return None if isinstance(array, Tracer) else jax.device_get(array)


def floating(name: str, array: ArrayLike) -> jax.Array:
    """Returns an array in float32 or wider.

    Raises:
        TypeError: it is not floating.
    """
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, found {array.dtype}")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def integers(
    name: str, array: ArrayLike | Sequence[int], size: int, *, length: int | None = None
) -> jax.Array:
    """Returns integers in [0, size) as int32 `[n]`.

    Args:
        name: what the message calls them.
        array: `[n]`.
        size: number of codes.
        length: n, where it must be a certain one.

    Raises:
        TypeError: they are not integers.
        ValueError: another shape, or an integer out of range.
    """
    # Not by JAX, which would cut 64 bits to 32 before they are looked at.
    array = array if isinstance(array, jax.Array) else np.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, found {array.dtype}")
    if array.ndim != 1 or length not in (None, len(array)):
        expected = "[n]" if length is None else f"({length},)"
        raise ValueError(f"{name} must have the shape {expected}, found {array.shape}")
    found = values(array)
    if found is not None and found.size and not 0 <= found.min() <= found.max() < size:
        raise ValueError(f"{name} must lie in 0..{size - 1}, found {found.min()}..{found.max()}")
    return jnp.asarray(array, jnp.int32)


def moments(mean: Any, std: Any, channels: int) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the standard deviation of each channel in float32, `[c]`.

    Raises:
        ValueError: another number of channels, or values that are not finite or positive.
    """
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    if mean.shape != (channels,) or std.shape != (channels,):
        raise ValueError(
            f"mean and std must have one entry for each of the {channels} channels, "
            f"found shapes {mean.shape} and {std.shape}"
        )
    if (found := values(mean)) is not None and not np.isfinite(found).all():
        raise ValueError(f"mean must be finite, found {found}")
    return mean, positive("std", std)


def positive(name: str, array: jax.Array) -> jax.Array:
    """Returns an array as it is.

    Raises:
        ValueError: a value is not positive and finite.
    """
    found = values(array)
    if found is not None and not ((found > 0) & (found < jnp.inf)).all():
        raise ValueError(f"{name} must be positive and finite, found {found}")
    return array


def nonnegative(name: str, array: jax.Array) -> jax.Array:
    """Returns an array as it is.

    Raises:
        ValueError: a value is negative or not finite.
    """
    found = values(array)
    if found is not None and not ((found >= 0) & (found < jnp.inf)).all():
        raise ValueError(f"{name} must be at least 0 and finite, found {found.min()}")
    return array
