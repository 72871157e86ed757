"""What arrays must be: dtypes always, values where they are known.

Under jit, vmap and grad there are no values to see, and only shapes and dtypes are checked.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike


def values(array: jax.Array) -> np.ndarray | None:
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


def integers(name: str, array: ArrayLike, size: int) -> jax.Array:
    """Returns a non-empty array of integers in [0, size), in int32 or wider.

    Raises:
        TypeError: it is not of integers.
        ValueError: an integer is out of range.
    """
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, found {array.dtype}")
    found = values(array)
    if found is not None and not 0 <= found.min() <= found.max() < size:
        raise ValueError(f"{name} must lie in [0, {size}), found {found.min()} to {found.max()}")
    return array.astype(jnp.promote_types(array.dtype, jnp.int32))


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
