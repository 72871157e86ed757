"""Evaluate a synthetic set: train networks on it and score them by bias group."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
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
    """Test images, their labels and, if known, their bias groups. Build it with `task`.

    It is a pytree, so it can be an argument of compiled functions. The numbers of classes and
    attributes and the augmentation are static. The fields are the arguments of `task`.
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
    """Return a task of test images, on the device.

    Args:
        images: `[n, h, w, c]`, uint8.
        labels: `[n]` integers in [0, num_classes).
        attributes: `[n]` integers in [0, num_attributes). Scores by group need them.
        aligned: `[k]` integers in [0, num_attributes), the majority attribute of each class.
        num_classes: number of classes k.
        num_attributes: number of bias attributes a.
        mean: per channel, on the scale [0, 1].
        std: per channel, on the scale [0, 1], positive.
        strategy: augmentation for training. Leave out operations that change the class, such as
            "flip" for digits.
    """
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise TypeError(f"test images must be uint8, got {images.dtype}")
    images = _checks.pixels("test images", images)
    mean, std = _checks.moments(mean, std, images.shape[3])
    has_attributes = attributes is not None or aligned is not None
    num_attributes = _checks.count("num_attributes", num_attributes, minimum=int(has_attributes))
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
    """Accuracies in [0, 1]. Scores by group are nan without attributes.

    Those of aligned and conflicting samples are also nan without the majority attributes.

    Attributes:
        accuracy: over all test samples.
        aligned: over bias-aligned samples, which have the majority attribute of their class.
        conflicting: over bias-conflicting samples.
        worst_group: minimum over groups, pairs of class and attribute that occur.
        deo_max: largest gap between the groups of a class, maximum over the classes that have at
            least two groups (equalised odds as in FairDD); nan if no class has.
        deo_mean: the mean of these gaps over the same classes.
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
    """Predict classes `[n]`, one batch in memory at a time.

    Args:
        network: a `networks.Network`.
        params: parameters of the network.
        images: `[n, h, w, c]`, uint8 or floating in [0, 1], as in a pool.
        mean: per channel, on the scale [0, 1].
        std: per channel, on the scale [0, 1], positive.
        batch_size: maximum number of images per batch.
    """
    images = _checks.pixels("images", images)
    mean, std = _checks.moments(mean, std, images.shape[3])
    batch_size = _checks.count("batch_size", batch_size)

    def classes(images):
        normalised = sampling.normalise(images, mean, std)
        return jnp.argmax(networks.outputs(network, params, normalised).logits, -1)

    # Each CPU core may evaluate a network of its own, so batches must fit the cache of one core.
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
    """Score predictions overall and by bias group.

    Args:
        predictions: `[n]` integers in [0, k).
        labels: `[n]` integers in [0, k).
        attributes: `[n]` integers in [0, a), or None.
        aligned: `[k]` majority attribute of each class, or None.
        num_classes: k.
        num_attributes: a.
    """
    labels = _checks.integers("labels", labels, num_classes)
    n = _checks.count("the number of labels", len(labels))
    predictions = _checks.integers("predictions", predictions, num_classes, length=n)
    if attributes is not None:
        attributes = _checks.integers("attributes", attributes, num_attributes, length=n)
    if aligned is not None:
        aligned = _checks.integers("aligned", aligned, num_attributes, length=num_classes)
    correct = (predictions == labels).astype(jnp.float32)
    classes = _accuracies(correct, labels, num_classes)
    if attributes is None:
        nan = jnp.full((), jnp.nan)
        groups = jnp.full((num_classes, num_attributes), jnp.nan)
        return Scores(correct.mean(), nan, nan, nan, nan, nan, groups, classes)
    by_alignment = jnp.full(2, jnp.nan)
    if aligned is not None:
        conflicting = (attributes != aligned[labels]).astype(jnp.int32)
        by_alignment = _accuracies(correct, conflicting, 2)
    # Groups are numbered class by class, so that one segment sum counts all of them. Empty groups
    # are 0 / 0 = nan, which the minimum and the gaps skip. A class with a single group has no gap.
    group = labels * num_attributes + attributes
    groups = _accuracies(correct, group, num_classes * num_attributes)
    groups = groups.reshape(num_classes, num_attributes)
    gaps = jnp.nanmax(groups, axis=1) - jnp.nanmin(groups, axis=1)
    gaps = jnp.where(jnp.sum(~jnp.isnan(groups), axis=1) > 1, gaps, jnp.nan)
    return Scores(
        correct.mean(),
        by_alignment[0],
        by_alignment[1],
        jnp.nanmin(groups),
        jnp.nanmax(gaps),
        jnp.nanmean(gaps),
        groups,
        classes,
    )


def _accuracies(correct, codes, count):
    """Return the accuracy `[count]` over the samples of each code, nan without samples."""
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
    arrays: Mapping[str, Any] | None = None,
    **options: Any,
) -> Scores:
    """Train one fresh network per key on a labelled set and score it on a task.

    This is one program, compiled once for equal networks, shapes and options. If it is called in a
    function that is compiled itself, pass the task to that function as an argument: XLA treats test
    images in a closure as constants, which it stores and folds slowly.

    Args:
        keys: `[s]`, one per network.
        network: a hashable `networks.Network` with one logit per class of the task.
        images: `[k, ipc, h, w, c]`, class by class, or `[m, h, w, c]` with `labels`; normalised.
        task: from `task`, or `jaxdd.data.datasets.task`.
        labels: `[m]` or `[k, ipc]`. By default the images are sorted by class.
        train: `training.train`, or a function with the same arguments, such as those of
            `jaxdd.training.debiased`.
        arrays: keyword arguments of `train` that are arrays or trees of arrays, such as a teacher.
            They are traced, so other values of the same shapes do not compile again.
        **options: keyword arguments of `train` that are numbers or other hashable values, such as
            `epochs`. The default of `strategy` is that of the task.

    Returns:
        `Scores` with a leading axis `[s]`.
    """
    keys, images = _checks.keys("keys", keys), jnp.asarray(images)
    if labels is None:
        if images.ndim != 5 or len(images) != task.num_classes:
            raise ValueError(
                f"images must be [k, ipc, h, w, c] for k = {task.num_classes} classes, or come "
                f"with labels, got shape {images.shape}"
            )
        labels = jnp.arange(len(images)).repeat(images.shape[1])
    images = images.reshape(-1, *images.shape[-3:])
    if images.shape[1:] != task.images.shape[1:]:
        raise ValueError(
            f"images must have the shape {task.images.shape[1:]} of the test images, "
            f"got {images.shape[1:]}"
        )
    flat: Any = np.reshape(labels, -1)
    images, labels = training.check_labelled(images, flat, num_classes=task.num_classes)
    networks.check_classes(network, images[:1], task.num_classes)
    options["strategy"] = augment.as_strategy(options.get("strategy", task.strategy))
    static = tuple((name, _as_static(name, option)) for name, option in options.items())
    return _train_and_score(keys, images, labels, task, dict(arrays or {}), network, train, static)


def _as_static(name, option):
    """Return an option as a hashable value; NumPy scalars become numbers."""
    if isinstance(option, (np.ndarray, np.generic)) and option.ndim == 0:
        return option.item()
    if any(isinstance(leaf, (np.ndarray, jax.Array)) for leaf in jax.tree.leaves(option)):
        raise TypeError(
            f"{name} must be a number or another hashable value, got {type(option).__name__}; "
            f"pass arrays as arrays={{{name!r}: ...}}"
        )
    return option


# Networks are trained one after another (`lax.map`). A vmap over parameters would turn each
# convolution into a grouped one, which is slower on CPU and GPU.
@functools.partial(jax.jit, static_argnames=("network", "train", "options"))
def _train_and_score(keys, images, labels, task, arrays, network, train, options):
    def train_one(key):
        params = train(key, network, images, labels, **dict(options), **arrays)
        predictions = predict(network, params, task.images, mean=task.mean, std=task.std)
        return score(
            predictions,
            task.labels,
            task.attributes,
            task.aligned,
            num_classes=task.num_classes,
            num_attributes=task.num_attributes,
        )

    return jax.lax.map(train_one, keys)


def summary(scores: Scores) -> dict[str, dict[str, Any]]:
    """Return mean, standard deviation (n − 1), number of networks and single values per score.

    This function runs on the host and cannot be transformed by JAX.

    The standard deviation is over networks trained on one synthetic set. It does not include the
    variation between sets that were distilled with different seeds.
    """
    _checks.concrete("evaluate.summary", scores)

    def summarise(values):
        values = np.asarray(values, float)
        std = values.std(ddof=1) if len(values) > 1 else 0.0
        statistics = {"mean": float(values.mean()), "std": float(std), "n": len(values)}
        return {**statistics, "each": values.tolist()}

    names = ("accuracy", "aligned", "conflicting", "worst_group", "deo_max", "deo_mean")
    return {name: summarise(getattr(scores, name)) for name in names}
