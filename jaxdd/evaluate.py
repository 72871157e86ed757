"""How good a synthetic set is: networks trained on it from scratch, scored by bias group."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import _checks, augment, networks, sampling, training
from jaxdd.devices import microbatch


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
    num_attributes = _checks.count("num_attributes", num_attributes, minimum=int(known))
    strategy, n = augment.as_strategy(strategy), len(images)
    labels = _checks.integers("test labels", labels, num_classes, length=n)
    if attributes is not None:
        attributes = _checks.integers("test attributes", attributes, num_attributes, length=n)
    if aligned is not None:
        aligned = _checks.integers("aligned", aligned, num_attributes, length=num_classes)
    return Task(
        images, labels, attributes, aligned, mean, std, num_classes, num_attributes, strategy
    )


class Scores(NamedTuple):
    """Shares of correct predictions in [0, 1]; what needs attributes is nan without them.

    Attributes:
        accuracy: over all test samples.
        aligned: over those whose attribute is the aligned one of their class.
        conflicting: over the others.
        worst_group: the smallest over the (class, attribute) groups present.
        deo_max: the largest gap, over classes, between the best and the worst group of a class
            (equalised odds, as FairDD reports it).
        deo_mean: the mean of that gap over classes.
        groups: `[k, a]`, nan for an empty group.
        classes: `[k]`, nan for a class without samples.
    """

    accuracy: jax.Array
    aligned: jax.Array
    conflicting: jax.Array
    worst_group: jax.Array
    deo_max: jax.Array
    deo_mean: jax.Array
    groups: jax.Array
    classes: jax.Array


def predict(
    network: networks.Network,
    params: Any,
    images: jax.Array,
    *,
    mean: jax.Array,
    std: jax.Array,
    batch_size: int = 500,
) -> jax.Array:
    """Predicts classes `[n]`, one batch in memory at a time.

    Args:
        network: a `networks.Network`.
        params: of the network.
        images: `[n, h, w, c]`, uint8 or floating in [0, 1], as a pool holds them.
        mean: per channel, on the scale [0, 1].
        std: per channel, on the scale [0, 1], positive.
        batch_size: images at a time, at most.

    Raises:
        TypeError: for images that are neither uint8 nor floating.
        ValueError: for another number of channels, an empty batch, or (where they are concrete)
            values out of range.
    """
    images = _checks.pixels("images", images)
    mean, std = _checks.moments(mean, std, images.shape[3])
    batch_size = _checks.count("batch_size", batch_size)

    def classes(images):
        normalised = sampling.normalise(images, mean, std)
        return jnp.argmax(networks.outputs(network, params, normalised).logits, -1)

    # As in training, each core may have a network of its own.
    return microbatch.apply(
        classes, images, activation_bytes=microbatch.CORE_BYTES, max_images=batch_size
    )


def score(
    predictions: jax.Array,
    labels: jax.Array,
    attributes: jax.Array | None = None,
    aligned: jax.Array | None = None,
    *,
    num_classes: int,
    num_attributes: int = 0,
) -> Scores:
    """Scores predictions overall and by bias group.

    Args:
        predictions: `[n]` integers in [0, k).
        labels: `[n]` integers in [0, k).
        attributes: `[n]` integers in [0, a), or None.
        aligned: `[k]`, the aligned attribute of each class; None without attributes.
        num_classes: k.
        num_attributes: a.

    Raises:
        TypeError: for codes that are not integers.
        ValueError: for shapes that disagree, no samples, or (where they are concrete) codes out of
            range.
    """
    labels = _checks.integers("labels", labels, num_classes)
    n = _checks.count("the number of labels", len(labels))
    predictions = _checks.integers("predictions", predictions, num_classes, length=n)
    if attributes is not None:
        attributes = _checks.integers("attributes", attributes, num_attributes, length=n)
    if aligned is not None:
        aligned = _checks.integers("aligned", aligned, num_attributes, length=num_classes)
    correct = (predictions == labels).astype(jnp.float32)
    nan = jnp.full((), jnp.nan)
    classes = _shares(correct, labels, num_classes)
    if attributes is None or aligned is None:
        groups = jnp.full((num_classes, num_attributes), jnp.nan)
        return Scores(correct.mean(), nan, nan, nan, nan, nan, groups, classes)

    def share(where):
        return jnp.sum(correct * where) / jnp.sum(where)

    conflicting = attributes != aligned[labels]
    group = labels * num_attributes + attributes
    groups = _shares(correct, group, num_classes * num_attributes)
    groups = groups.reshape(num_classes, num_attributes)
    gaps = jnp.nanmax(groups, axis=1) - jnp.nanmin(groups, axis=1)
    return Scores(
        correct.mean(),
        share(~conflicting),
        share(conflicting),
        jnp.nanmin(groups),
        jnp.nanmax(gaps),
        jnp.nanmean(gaps),
        groups,
        classes,
    )


def _shares(correct, codes, count):
    """The share of correct predictions among the samples of each code."""
    hits = jax.ops.segment_sum(correct, codes, count)
    return hits / jax.ops.segment_sum(jnp.ones_like(correct), codes, count)


def evaluate(
    keys: jax.Array,
    network: networks.Network,
    images: jax.Array,
    task: Task,
    *,
    labels: jax.Array | None = None,
    train: Callable[..., Any] = training.train,
    **protocol: Any,
) -> Scores:
    """Trains one fresh network for each key on a labelled set and scores it on a task.

    Networks come one after another (`lax.map`): a vmap over weights would turn every convolution
    into a grouped one, which is slower on CPU and GPU alike. It is one program, compiled once for
    equal networks, shapes and options.

    Args:
        keys: `[s]`, one per network.
        network: a hashable `networks.Network` with the logits of the task's classes.
        images: `[k, ipc, h, w, c]`, class by class, or `[m, h, w, c]` with `labels`; normalised.
        task: from `task`, or `jaxdd.data.datasets.task`.
        labels: `[m]`, or `[k, ipc]` if they are not 0, 1, … class by class.
        train: `training.train`, or what stands in for it, such as those of `debiased`.
        **protocol: its options, arrays, trees of them, or hashable; the strategy is the task's
            unless it is among them.

    Returns:
        `Scores` with a leading axis `[s]`.

    Raises:
        TypeError: for images that are not floating, or labels that are not integers.
        ValueError: for keys that are not `[s]`, labels that are missing or (where they are
            concrete) of no class, images of another shape than the task's or (where they are
            concrete) that are not finite or not normalised, or a network of another number of
            classes.
    """
    keys, images = _checks.keys("keys", keys), jnp.asarray(images)
    if labels is None:
        if images.ndim != 5 or len(images) != task.num_classes:
            raise ValueError(
                f"images must be [k, ipc, h, w, c] for k = {task.num_classes} classes, or come "
                f"with labels, found shape {images.shape}"
            )
        labels = jnp.arange(len(images)).repeat(images.shape[1])
    images = images.reshape(-1, *images.shape[-3:])
    if images.shape[1:] != task.images.shape[1:]:
        raise ValueError(
            f"images must be of the task's shape {task.images.shape[1:]}, found {images.shape[1:]}"
        )
    codes: Any = np.reshape(labels, -1)  # of JAX's, too
    images, labels = training.check_labelled(images, codes, num_classes=task.num_classes)
    networks.check_classes(network, images[:1], task.num_classes)
    protocol = {"strategy": task.strategy, **protocol}
    protocol["strategy"] = augment.as_strategy(protocol["strategy"])
    values = {name: option for name, option in protocol.items() if _is_arrays(option)}
    options = tuple((name, option) for name, option in protocol.items() if name not in values)
    return _evaluated(keys, images, labels, task, values, network, train, options)


def _is_arrays(option):
    leaves = jax.tree.leaves(option)
    return bool(leaves) and all(isinstance(leaf, jax.Array) for leaf in leaves)


@functools.partial(jax.jit, static_argnames=("network", "train", "options"))
def _evaluated(keys, images, labels, task, values, network, train, options):
    def one(key):
        params = train(key, network, images, labels, **dict(options), **values)
        predictions = predict(network, params, task.images, mean=task.mean, std=task.std)
        return score(
            predictions,
            task.labels,
            task.attributes,
            task.aligned,
            num_classes=task.num_classes,
            num_attributes=task.num_attributes,
        )

    return jax.lax.map(one, keys)


def summary(scores: Scores) -> dict[str, dict[str, Any]]:
    """Returns mean, standard deviation (n − 1) and number of networks of each score, and "each".

    The deviation is that of networks trained on one set. What another distillation would have
    given, it does not tell; `intervals.bootstrap` does, from "each" of several sets.
    """

    def one(values):
        values = np.asarray(values, float)
        std = values.std(ddof=1) if len(values) > 1 else 0.0
        found = {"mean": float(values.mean()), "std": float(std), "n": len(values)}
        return {**found, "each": values.tolist()}

    names = ("accuracy", "aligned", "conflicting", "worst_group", "deo_max", "deo_mean")
    return {name: one(getattr(scores, name)) for name in names}
