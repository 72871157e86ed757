"""What arrays must be: dtypes always, values where they are known.

Under jit, vmap and grad there are no values to see, and only shapes and dtypes are checked.
"""

import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

T = TypeVar("T")


def values(array: Any) -> np.ndarray | None:
    """Returns the values as a NumPy array, or None where an array is traced."""
    # On the host, because under a trace even an operation on known values gives a tracer.
    return None if isinstance(array, Tracer) else np.asarray(jax.device_get(array))


def count(name: str, number: Any, *, least: int = 1) -> int:
    """Returns a whole number that sizes are made of.

    Raises:
        TypeError: it is no integer.
        ValueError: it is less than the least.
    """
    try:
        found = operator.index(number)
    except TypeError:
        raise TypeError(f"{name} must be an integer, found {number!r}") from None
    if found < least:
        raise ValueError(f"{name} must be at least {least}, found {found}")
    return found


def keys(name: str, keys: jax.Array) -> jax.Array:
    """Returns random keys `[s]`, typed or raw, as they are.

    Raises:
        ValueError: a single key, or none.
    """
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if keys.ndim != (1 if typed else 2) or not len(keys):
        raise ValueError(
            f"{name} must be [s] with s ≥ 1, as jax.random.split gives them, found shape "
            f"{keys.shape}"
        )
    return keys


def floating(name: str, array: ArrayLike) -> jax.Array:
    """Returns an array in float32 or wider.

    Raises:
        TypeError: it is not floating.
    """
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, found {array.dtype}")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def finite(name: str, array: T) -> T:
    """Returns an array as it is.

    Raises:
        ValueError: a value is nan or infinite.
    """
    found = values(array)
    if found is not None and not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite, found nan or infinite ones")
    return array


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
    size = count(f"the number of different {name}", size)
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


def kept(name: str, images: jax.Array) -> jax.Array:
    """Returns images as they are, in a type that pixels are kept in.

    Raises:
        TypeError: they are neither uint8 nor floating.
    """
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"{name} must be uint8 or floating, found {images.dtype}")
    return images


def pixels(name: str, images: ArrayLike) -> jax.Array:
    """Returns images as they are kept, `[n, h, w, c]`, uint8 or floating in [0, 1].

    Raises:
        TypeError: they are neither uint8 nor floating.
        ValueError: another shape, no image, or floating values that are no share of 255.
    """
    images = kept(name, jnp.asarray(images))
    if images.ndim != 4 or not images.size:
        raise ValueError(f"{name} must be [n, h, w, c] with n ≥ 1, found {images.shape}")
    found = None if images.dtype == jnp.uint8 else values(images)
    if found is not None and not 0 <= found.min() <= found.max() <= 1:
        raise ValueError(
            f"{name} must be finite and lie in [0, 1] where they are floating, "
            f"found {found.min()}..{found.max()}"
        )
    return images


def normalised(name: str, images: ArrayLike) -> jax.Array:
    """Returns images as networks see them, of any shape.

    Raises:
        TypeError: they are not floating.
        ValueError: a value or its square is not finite, or all are whole numbers up to those of
            bytes.
    """
    images = jnp.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating, as sampling.normalise makes them, found {images.dtype}"
        )
    found = values(finite(name, images))
    if found is not None and found.max(initial=0) > 16 and (found == np.rint(found)).all():
        raise ValueError(
            f"{name} must be normalised, as sampling.normalise does, found the whole numbers "
            f"{found.min()}..{found.max()}"
        )
    if found is not None and np.abs(found).max(initial=0) > 1e19:
        raise ValueError(
            f"{name} must be normalised, with finite squares, found {found.min()}..{found.max()}"
        )
    return images


def moments(mean: Any, std: Any, channels: int) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the standard deviation of each channel in float32, `[c]`.

    Raises:
        ValueError: another number of channels, or values that are not on the scale [0, 1] of
            pixels, the deviations positive.
    """
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    if mean.shape != (channels,) or std.shape != (channels,):
        raise ValueError(
            f"mean and std must have one entry for each of the {channels} channels, "
            f"found shapes {mean.shape} and {std.shape}"
        )
    for name, array in (("mean", finite("mean", mean)), ("std", positive("std", std))):
        found = values(array)
        if found is not None and not 0 <= found.min() <= found.max() <= 1:
            raise ValueError(f"{name} must be that of pixels on the scale [0, 1], found {found}")
    return mean, std


def positive(name: str, array: T) -> T:
    """Returns a floating array, or a number, as it is.

    Raises:
        ValueError: a value is not positive and finite in float32, or too small to divide by.
    """
    found, float32 = values(array), np.finfo(np.float32)
    if found is not None and not ((found >= float32.tiny) & (found <= float32.max)).all():
        raise ValueError(f"{name} must be positive and finite, found {found}")
    return array


def nonnegative(name: str, array: T) -> T:
    """Returns an array, or a number, as it is.

    Raises:
        ValueError: a value is negative, or the sum is not finite in float32.
    """
    found = values(array)
    if found is None or not found.size:
        return array
    if not (found >= 0).all():
        raise ValueError(f"{name} must be at least 0 and finite, found {found.min()}")
    if not float(found.max()) * found.size <= float(np.finfo(np.float32).max):
        raise ValueError(f"{name} must be finite, and so must their sum, found {found.max()}")
    return array


def class_weights(weights: ArrayLike, labels: ArrayLike, num_classes: int) -> None:
    """Refuses weights `[n]` that cannot be brought to sum one in each class with samples.

    Raises:
        ValueError: a weight is negative or not finite, or a class weighs nothing.
    """
    found, of = values(weights), values(labels)
    if found is None or of is None:
        return
    float32 = np.finfo(np.float32)
    felt = np.where(found >= float32.tiny, found, 0)  # XLA takes what is smaller for 0
    total = np.bincount(of, felt, num_classes)[np.bincount(of, minlength=num_classes) > 0]
    if not ((found >= 0).all() and (total > 0).all() and (total <= float32.max).all()):
        raise ValueError(
            "weights must be finite and non-negative with a positive sum in each class, found "
            f"{found.min()}..{found.max()} and class sums down to {total.min()}"
        )
