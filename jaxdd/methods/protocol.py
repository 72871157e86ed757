"""What a distillation method is, and what the steps of all methods do."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks

Decode = Callable[[jax.Array], jax.Array]
"""From the images of a state to those that networks see, `[k, m, h, w, c]` both."""


def identity(images: jax.Array) -> jax.Array:
    """The decoding of images that are stored as networks see them: none."""
    return images


class Method(NamedTuple):
    """`init(images) -> state` and `step(key, state, batch) -> (state, info)`, both pure.

    `info` is a dict of scalars, always with "loss".
    """

    init: Callable[[jax.Array], Any]
    step: Callable[[jax.Array, Any, Any], tuple[Any, dict[str, jax.Array]]]


def check_images(images: jax.Array) -> None:
    """Refuses what a set cannot start from.

    Raises:
        TypeError: images that are not floating.
        ValueError: another shape than `[k, ipc, h, w, c]`, or images that are not normalised.
    """
    if images.ndim != 5 or 0 in images.shape:
        raise ValueError(f"images must be [k, ipc, h, w, c], found shape {images.shape}")
    _checks.normalised("images", images)


def descend(
    optimizer: optax.GradientTransformation, slope: Any, state: Any, values: Any
) -> tuple[Any, Any]:
    """Returns values and the optimizer's state after one update."""
    update, state = optimizer.update(slope, state, values)
    return optax.apply_updates(values, update), state


def labelled(images):
    """Flattens `[k, m, h, w, c]` to images `[k·m, h, w, c]` and their classes."""
    return images.reshape(-1, *images.shape[2:]), jnp.arange(len(images)).repeat(images.shape[1])
