"""Evaluation with distillation features (ELF): train other networks with a teacher's features.

A set works best for the network that it was distilled with. ELF shows the features z of the
un-augmented images to other networks as well. With a network cut into a front f and a rear h, the
augmentation A, labels y and cross-entropy CE, it minimises

    CE_c(f(A(x)), z) + CE(h(z), y) + CE(h(f(A(x))), y)        front + rear + task

where CE_c is over the channels of every pixel. Prediction is `h(f(x))`, without a teacher.

The features come from a ConvNet that was trained on *all* real data. They carry information in
addition to the set, usually more than the set itself. Report `extra_bytes` with every score,
together with the scores of real images and noise with the same features, and those of
`teachers.train_on_logits`.

Source: Zhao et al., arXiv 2312.05598.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdd import _checks, augment, networks, training
from jaxdd.training import teachers

TERMS = {
    "task": ("task",),
    "front-task": ("front", "task"),
    "rear-task": ("rear", "task"),
    "front-rear": ("front", "rear"),
    "front-rear-task": ("front", "rear", "task"),
}
"""Combinations of loss terms. The last one is the method, the first one is standard training."""


def split_point(network: networks.Network) -> int:
    """Return the number of `networks.count_parts` that the literature assigns to the front.

    A ConvNet is split before its head, ResNet18 between the blocks of its last stage, and VGG11
    between the convolutions of its fourth stage.

    >>> split_point(networks.ConvNet(10)), split_point(networks.VGG11(10))
    (3, 5)
    """
    match network:
        case networks.ConvNet():
            return network.depth
        case networks.ResNet18():
            return networks.count_parts(network) - 1
        case networks.VGG11():
            return sum(map(len, network.stages[:3])) + 1
    raise ValueError(
        f"{type(network).__name__} has no default split; "
        f"set split to one of 1..{networks.count_parts(network)}"
    )


def front_shape(network: Any, images: jax.Array, *, split: int | None = None) -> tuple[int, ...]:
    """Return the shape `(h, w, c)` of the front's output, without computing it.

    Args:
        network: the network to split.
        images: `[n, h, w, c]`.
        split: number of parts in the front. Defaults to `split_point`.
    """
    split = _check_split(network, split)
    front = lambda params, images: network.apply(params, images, stop=split)
    params = jax.eval_shape(network.init, jax.random.key(0), images[:1])
    return jax.eval_shape(front, params, images[:1]).shape[1:]


def _check_split(network, split):
    last = networks.count_parts(network)
    split = split_point(network) if split is None else _checks.count("split", split, minimum=0)
    if not 1 <= split <= last:
        raise ValueError(f"split must be in 1..{last} for {type(network).__name__}, got {split}")
    return split


def teacher_features(
    teacher: teachers.Teacher, images: jax.Array, *, split: int | None = None
) -> jax.Array:
    """Return the teacher's features `[m, h, w, c]` of images without augmentation.

    Args:
        teacher: a ConvNet, or another network with parts.
        images: `[m, h, w, c]`, normalised.
        split: number of the teacher's parts to apply. Defaults to all but the head.
    """
    split = networks.count_parts(teacher.network) if split is None else split
    split = _check_split(teacher.network, split)
    images, network = _checks.normalised("images", images), cast(Any, teacher.network)
    return network.apply(teacher.params, images, stop=split)


def _channel_entropies(features, target):
    """Return `−Σ_c z_c log softmax_c(f)` per image, the mean over its pixels, `[n]`."""
    # The target z is not normalised: a feature that is twice as large counts twice.
    return -jnp.sum(target * jax.nn.log_softmax(features, axis=-1), -1).mean((1, 2))


def train(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    *,
    features: ArrayLike,
    split: int | None = None,
    terms: tuple[str, ...] = TERMS["front-rear-task"],
    matching: Callable[[jax.Array, jax.Array], jax.Array] = _channel_entropies,
    strategy: augment.Strategy = augment.OPERATIONS,
    **options: Any,
) -> Any:
    """Train a network on a set and its features. It can replace `training.train`.

    Args:
        key: random key for initialisation, order and augmentation.
        network: a network with parts, see `networks.count_parts`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]` classes.
        features: `[m, h', w', c']` of these images in this order, from `teacher_features`.
        split: number of parts in the front. Defaults to `split_point`.
        terms: terms of the loss: some of front, rear and task.
        matching: distance `[n]` between the front's output and the features of each image.
        strategy: augmentation; () for none.
        **options: `epochs`, `batch_size`, `learning_rate`, `momentum` and `weight_decay`, with the
            defaults of `training.train`.
    """
    images, labels = training.check_labelled(images, labels, network=network)
    split = _check_split(network, split)
    if not terms or set(terms) - set(TERMS["front-rear-task"]):
        raise ValueError(f"terms must be some of front, rear and task, got {terms}")
    features = _checks.finite("features", _checks.floating("features", features))
    expected = (len(images), *front_shape(network, images, split=split))
    if features.shape != expected:
        raise ValueError(
            f"features must have the shape {expected} of the network's front, got {features.shape}"
        )

    def sum_of_losses(params, key, indices):
        views = augment.per_image(key, images[indices], strategy=strategy)
        arguments = network, params, views, labels[indices], features[indices]
        values, params = _losses(*arguments, split=split, terms=terms, matching=matching)
        return jnp.stack([*values.values()]).sum(0), params

    return training.train_with_loss(key, network, images, sum_of_losses, **options)


def _losses(
    network,
    params,
    views,
    labels,
    features,
    *,
    split,
    terms=TERMS["front-rear-task"],
    matching=_channel_entropies,
) -> tuple[dict[str, jax.Array], Any]:
    """Return every term per image `[n]`, and the parameters with updated batch-norm statistics."""
    # Order matters for batch norm: the running statistics move in each pass through a part. As in
    # the authors' code, the rear first runs on the output of the front, then on the teacher's
    # features.
    values: dict[str, jax.Array] = {}
    front: Any = None
    if {"front", "task"} & set(terms):
        front, params = networks.apply_in_training(network, params, views, stop=split)
    if "front" in terms:
        values["front"] = matching(front, features)
    for name, rear_input in (("task", front), ("rear", features)):
        if name in terms:
            output, params = networks.apply_in_training(network, params, rear_input, start=split)
            values[name] = training.cross_entropies(output.logits, labels)
    return values, params


def extra_bytes(features: jax.Array, teacher: teachers.Teacher) -> dict[str, int]:
    """Return the bytes that ELF needs in addition to a set, for either way to publish them.

    Either the features or the teacher that computes them is sufficient.

    >>> network = networks.ConvNet(2, width=1, depth=1, norm=None)
    >>> params = network.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))
    >>> teacher = teachers.Teacher(params, network)
    >>> extra_bytes(jnp.zeros((3, 1, 1, 1)), teacher)  # 3 floats; 9 + 1 and 2 + 2 weights
    {'features': 12, 'feature_model': 56}
    """
    size = features.size * features.dtype.itemsize
    return {"features": size, "feature_model": teachers.num_bytes(teacher)}
