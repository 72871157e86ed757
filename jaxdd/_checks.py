"""Checks of arguments at the public boundary: dtypes always, values where they are concrete.

Under jit, vmap and grad an array has no values, so only its shape and dtype are checked. A check
returns its argument. It raises TypeError for a wrong dtype and ValueError for wrong shapes and
values; the message states the name, the requirement and the value.
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

_FLOAT32 = np.finfo(np.float32)


def values(array: Any) -> np.ndarray | None:
    """Return the values as a NumPy array, or None for a traced array."""
    # Read on the host: under a trace, even an operation on concrete values returns a tracer.
    return None if isinstance(array, Tracer) else np.asarray(jax.device_get(array))


def concrete(function: str, *trees: Any) -> None:
    """Raise TypeError if an array is traced, in a function that computes on the host."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees)):
        raise TypeError(
            f"{function} computes on the host, got traced arrays; call it outside of jit and vmap."
        )


def count(name: str, number: Any, *, minimum: int = 1) -> int:
    """Return an integer that is at least `minimum`."""
    required = {0: "a non-negative integer", 1: "a positive integer"}
    message = (
        f"{name} must be {required.get(minimum, f'an integer of at least {minimum}')}, "
        f"got {number!r}."
    )
    try:
        integer = operator.index(number)
    except TypeError:
        raise TypeError(message) from None
    if integer < minimum:
        raise ValueError(message)
    return integer


def keys(name: str, keys: jax.Array) -> jax.Array:
    """Return a non-empty array of random keys `[s]`, typed or raw."""
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if keys.ndim != (1 if typed else 2) or not len(keys):
        raise ValueError(
            f"{name} must be an array [s] of random keys, got shape {keys.shape}; "
            "make one with jax.random.split(key, s)."
        )
    return keys


def floating(name: str, array: ArrayLike) -> jax.Array:
    """Return a floating array in float32 or wider."""
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {array.dtype}.")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def finite(name: str, array: T) -> T:
    """Return an array without nan and infinity."""
    known = values(array)
    if known is not None and not np.isfinite(known).all():
        raise ValueError(f"{name} must be finite, got {known[~np.isfinite(known)].flat[0]}.")
    return array


def integers(
    name: str, array: ArrayLike | Sequence[int], size: int, *, length: int | None = None
) -> jax.Array:
    """Return a vector of integers in [0, size) as int32.

    Args:
        name: name of the argument, for the message.
        array: `[n]` integers.
        size: number of codes, at least 1.
        length: required n. Defaults to any.
    """
    size = count(f"the number of different {name}", size)
    # JAX would cut 64-bit integers to 32 bits before they are checked.
    array = array if isinstance(array, jax.Array) else np.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {array.dtype}.")
    if array.ndim != 1 or length not in (None, len(array)):
        required = "[n]" if length is None else f"({length},)"
        raise ValueError(f"{name} must have shape {required}, got {array.shape}.")
    known = values(array)
    if known is not None and known.size and not 0 <= known.min() <= known.max() < size:
        raise ValueError(f"{name} must lie in 0..{size - 1}, got {known.min()}..{known.max()}.")
    return jnp.asarray(array, jnp.int32)


def pixel_dtype(name: str, images: jax.Array) -> jax.Array:
    """Return images that are uint8 or floating."""
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"{name} must be uint8 or floating, got {images.dtype}.")
    return images


def pixels(name: str, images: ArrayLike) -> jax.Array:
    """Return non-empty images `[n, h, w, c]`, uint8 or floating in [0, 1]."""
    images = pixel_dtype(name, jnp.asarray(images))
    if images.ndim != 4 or not images.size:
        raise ValueError(
            f"Expected {name} of shape [n, h, w, c] with n of at least 1, got {images.shape}."
        )
    known = None if images.dtype == jnp.uint8 else values(images)
    if known is not None and not 0 <= known.min() <= known.max() <= 1:
        raise ValueError(
            f"Floating {name} must lie in [0, 1], got {known.min()}..{known.max()}; "
            "divide by 255 or pass uint8."
        )
    return images


def normalised(name: str, images: ArrayLike) -> jax.Array:
    """Return floating images whose values look normalised, of any shape.

    Whole numbers above 16 are taken for bytes that were not normalised. Values above 1e19 are
    rejected because their squares overflow float32.
    """
    images = jnp.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {images.dtype}; use sampling.normalise.")
    known = values(finite(name, images))
    if known is not None and known.size:
        bytes_like = known.max() > 16 and (known == np.rint(known)).all()
        if bytes_like or np.abs(known).max() > 1e19:
            raise ValueError(
                f"{name} must be normalised, got values in {known.min()}..{known.max()}; "
                "use sampling.normalise."
            )
    return images


def moments(mean: Any, std: Any, channels: int) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation `[c]` of pixels on the scale [0, 1], in float32."""
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    if mean.shape != (channels,) or std.shape != (channels,):
        raise ValueError(
            f"mean and std must have shape ({channels},), one entry per channel, "
            f"got {mean.shape} and {std.shape}."
        )
    for name, array in (("mean", finite("mean", mean)), ("std", positive("std", std))):
        known = values(array)
        if known is not None and not 0 <= known.min() <= known.max() <= 1:
            raise ValueError(f"{name} must lie in [0, 1], the scale of pixels, got {known}.")
    return mean, std


def positive(name: str, array: T) -> T:
    """Return a floating array, or a number, that is a positive normal number in float32."""
    known = values(array)
    if known is not None and not ((known >= _FLOAT32.tiny) & (known <= _FLOAT32.max)).all():
        raise ValueError(f"{name} must be positive and finite, got {known}.")
    return array


def nonnegative(name: str, array: T) -> T:
    """Return an array, or a number, that is at least 0 and whose sum is finite in float32."""
    known = values(array)
    if known is None or not known.size:
        return array
    if not (known >= 0).all():
        raise ValueError(f"{name} must be at least 0 and finite, got {known.min()}.")
    if not float(known.max()) * known.size <= float(_FLOAT32.max):
        raise ValueError(f"{name} and their sum must be finite, got {known.max()}.")
    return array


def class_weights(weights: ArrayLike, labels: ArrayLike, num_classes: int) -> None:
    """Raise ValueError for weights `[n]` that cannot be scaled to sum to one in each class."""
    known, classes = values(weights), values(labels)
    if known is None or classes is None:
        return
    flushed = np.where(known >= _FLOAT32.tiny, known, 0)  # XLA flushes subnormal numbers to 0.
    total = np.bincount(classes, flushed, num_classes)
    total = total[np.bincount(classes, minlength=num_classes) > 0]
    if not ((known >= 0).all() and (total > 0).all() and (total <= _FLOAT32.max).all()):
        raise ValueError(
            "weights must be finite and non-negative with a positive sum in each class, "
            f"got {known.min()}..{known.max()} and a class sum of {total.min()}."
        )
