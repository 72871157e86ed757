"""The protocol of a distillation method, and functions that the methods of this package share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxdd import _checks

Decode = Callable[[jax.Array], jax.Array]
"""A map from stored images `[k, ipc, h, w, c]` to those that networks see, `[k, m, h, w, c]`."""


class Method(NamedTuple):
    """A distillation method: two pure functions.

    Attributes:
        init: `init(images) -> state`, from initial images `[k, ipc, h, w, c]`.
        step: `step(key, state, batch) -> (state, info)`. `info` is a dict of scalars that contains
            "loss". The batch is whatever the sampler of `methods.run` returns.
    """

    init: Callable[[jax.Array], Any]
    step: Callable[[jax.Array, Any, Any], tuple[Any, dict[str, jax.Array]]]


def identity(images: jax.Array) -> jax.Array:
    """Return the images unchanged, the default decoding."""
    return images


def check_images(images: jax.Array) -> None:
    """Reject initial images that are not normalised or not `[k, ipc, h, w, c]`."""
    if images.ndim != 5 or 0 in images.shape:
        raise ValueError(f"Expected images of shape [k, ipc, h, w, c], got {images.shape}.")
    _checks.normalised("images", images)
