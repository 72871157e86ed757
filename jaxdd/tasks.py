"""What networks are scored on: test images, their classes and, where known, their bias groups."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdd import _checks, augment


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("images", "labels", "attributes", "aligned", "mean", "std"),
    meta_fields=("num_classes", "num_attributes", "strategy"),
)
@dataclasses.dataclass(frozen=True)
class Task:
    """What networks are scored on, and how they train for it; build it with `task`.

    It is a tree of arrays, so that it is an argument of compiled functions; the number of classes
    and attributes and the strategy are static. `dataclasses.replace` changes one of its fields.

    Attributes:
        images: test images `[n, h, w, c]`, uint8.
        labels: `[n]` classes.
        attributes: `[n]` bias attributes, or None where they are not known.
        aligned: `[k]` the attribute that each class is aligned with, or None.
        mean: `[c]` of the training pixels, on the scale [0, 1].
        std: `[c]` likewise.
        num_classes: k.
        num_attributes: a, 0 where none are known.
        strategy: augmentation that leaves the class alone, names or a function.
    """

    images: jax.Array
    labels: jax.Array
    attributes: jax.Array | None
    aligned: jax.Array | None
    mean: jax.Array
    std: jax.Array
    num_classes: int
    num_attributes: int = 0
    strategy: augment.Strategy = augment.OPERATIONS


def task(
    images: ArrayLike,
    labels: ArrayLike,
    attributes: ArrayLike | None = None,
    aligned: ArrayLike | Sequence[int] | None = None,
    *,
    num_classes: int,
    num_attributes: int = 0,
    mean: ArrayLike | Sequence[float],
    std: ArrayLike | Sequence[float],
    strategy: augment.Strategy = augment.OPERATIONS,
) -> Task:
    """Makes a task of test images, on the device.

    Args:
        images: `[n, h, w, c]`, uint8.
        labels: `[n]` integers in [0, num_classes).
        attributes: `[n]` integers in [0, num_attributes), or None; scores by group need them.
        aligned: `[k]` integers in [0, num_attributes), or None.
        num_classes: number of classes k.
        num_attributes: number of bias attributes a.
        mean: per channel, on the scale [0, 1].
        std: per channel, on the scale [0, 1], positive.
        strategy: augmentation of the networks' training; digits must not be flipped.

    Raises:
        ValueError: for shapes that disagree or values out of range.
        TypeError: for images that are not uint8, or codes that are not integers.
    """
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise TypeError(f"test images must be uint8, 0..255, found {images.dtype}")
    images = _checks.pixels("test images", images)
    mean, std = _checks.moments(mean, std, images.shape[3])
    known = attributes is not None or aligned is not None
    num_attributes = _checks.count("num_attributes", num_attributes, least=int(known))
    strategy, n = augment.as_strategy(strategy), len(images)
    labels = _checks.integers("test labels", labels, num_classes, length=n)
    if attributes is not None:
        attributes = _checks.integers("test attributes", attributes, num_attributes, length=n)
    if aligned is not None:
        aligned = _checks.integers("aligned", aligned, num_attributes, length=num_classes)
    return Task(
        images, labels, attributes, aligned, mean, std, num_classes, num_attributes, strategy
    )
