"""ELF: networks of another kind that learn from a set with the features of a teacher.

A set that was distilled with one network serves that network best. Evaluation with distillation
features (ELF) hands the features z of the un-augmented images to the others: with a network cut
into a front f and a rear h, A the augmentation, y the labels and CE the cross-entropy, it descends

    CE_c(f(A(x)), z) + CE(h(z), y) + CE(h(f(A(x))), y)

where CE_c is over the channels of every pixel. The test is `h(f(x))`, without a teacher.

The features come from a ConvNet that saw *all* real data. They are information beside the set,
usually more than it: `extra_bytes` counts it, and belongs next to every score, with the scores that
the same features give with real images or noise in the place of the set, and those of
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
"""The combinations of losses; the last is the method, the first no ELF at all."""


def split_point(network: networks.Network) -> int:
    """Returns after how many of its `networks.count_parts` the literature splits a network.

    A ConvNet before its head, ResNet18 between the blocks of its last stage, VGG11 between the
    convolutions of its fourth, where all have few pixels.

    Raises:
        ValueError: the network is of one piece, or of another kind.

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
        f"split must be given, 1 to {networks.count_parts(network)}, for {type(network).__name__}"
    )


def front_shape(network: Any, images: jax.Array, *, split: int | None = None) -> tuple[int, ...]:
    """Returns the shape `(h, w, c)` that a network's front gives, without computing anything.

    Args:
        network: that is split.
        images: `[n, h, w, c]` like those to come.
        split: parts of the front; `split_point` by default.

    Raises:
        ValueError: a split that the network does not have.
    """
    split = _checked_split(network, split)
    front = lambda params, images: network.apply(params, images, stop=split)
    params = jax.eval_shape(network.init, jax.random.key(0), images[:1])
    return jax.eval_shape(front, params, images[:1]).shape[1:]


def _checked_split(network, split):
    last = networks.count_parts(network)
    split = split_point(network) if split is None else _checks.count("split", split, minimum=0)
    if not 1 <= split <= last:
        raise ValueError(f"split must lie in 1..{last} for {type(network).__name__}, found {split}")
    return split


def teacher_features(
    teacher: teachers.Teacher, images: jax.Array, *, split: int | None = None
) -> jax.Array:
    """Returns the teacher's features `[m, h, w, c]` of images as they are, not augmented.

    Args:
        teacher: a ConvNet, or another whose network has parts.
        images: `[m, h, w, c]`, normalised.
        split: parts of the teacher before them; all but its head by default.

    Raises:
        ValueError: a split that the teacher does not have.
    """
    split = networks.count_parts(teacher.network) if split is None else split
    split = _checked_split(teacher.network, split)
    images, network = _checks.normalised("images", images), cast(Any, teacher.network)
    return network.apply(teacher.params, images, stop=split)


def channel_entropies(found: jax.Array, target: jax.Array) -> jax.Array:
    """Returns for each image `−Σ_c z_c log softmax_c(f)`, the mean over its pixels, `[n]`.

    The target is not normalised: a feature that is twice as large counts twice.

    Args:
        found: f, `[n, h, w, c]`.
        target: z likewise, non-negative.
    """
    return -jnp.sum(target * jax.nn.log_softmax(found, axis=-1), -1).mean((1, 2))


def train(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    *,
    features: ArrayLike,
    split: int | None = None,
    terms: tuple[str, ...] = TERMS["front-rear-task"],
    matching: Callable[[jax.Array, jax.Array], jax.Array] = channel_entropies,
    epochs: int = 1000,
    batch_size: int = 256,
    strategy: augment.Strategy = augment.OPERATIONS,
    **schedule: float,
) -> Any:
    """Trains a network on a set and its features, by the plain schedule; see the module.

    It takes what `training.train` takes and stands in for it.

    Args:
        key: initialisation, order and augmentation.
        network: that can be applied in `networks.count_parts`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`.
        features: `[m, h', w', c']` of the same images in the same order, from `teacher_features`.
        split: parts of the front; `split_point` by default.
        terms: of the loss, out of front, rear and task.
        matching: distance of the front to the features, of each image.
        epochs: as in `training.train`.
        batch_size: as in `training.train`.
        strategy: of augmentation; () for none.
        **schedule: of `training.sgd`.

    Raises:
        TypeError: as in `training.train`.
        ValueError: as in `training.train`; a split or terms that there are not; features of
            another number of images, another shape than that of the front, or (where they are
            concrete) not finite.
    """
    images, labels = training.check_labelled(images, labels, network=network)
    split = _checked_split(network, split)
    if not terms or set(terms) - set(TERMS["front-rear-task"]):
        raise ValueError(f"terms must be some of front, rear and task, found {terms}")
    features = _checks.finite("features", _checks.floating("features", features))
    expected = (len(images), *front_shape(network, images, split=split))
    if features.shape != expected:
        raise ValueError(
            f"features must be {expected}, those of this set as the network's front gives them, "
            f"found {features.shape}"
        )

    def loss(params, key, indices, present):
        views = augment.per_image(key, images[indices], strategy=strategy)
        each, params = losses(
            network, params, views, labels[indices], features[indices], split=split,
            terms=terms, matching=matching,
        )  # fmt: skip
        return training.weighted_mean(jnp.stack([*each.values()]).sum(0), present), params

    size: dict[str, Any] = dict(epochs=epochs, batch_size=batch_size)
    descent = training.sgd(len(labels), epochs=epochs, batch_size=batch_size, **schedule)
    key_init, key_train = jax.random.split(key)
    params = networks.init_params(key_init, network, images[:1])
    size |= dict(num_samples=len(labels))
    return training.minimize(key_train, params, loss, optimizer=descent, **size)


def losses(
    network: networks.Network,
    params: Any,
    views: jax.Array,
    labels: jax.Array,
    features: jax.Array,
    *,
    split: int,
    terms: tuple[str, ...] = TERMS["front-rear-task"],
    matching: Callable[[jax.Array, jax.Array], jax.Array] = channel_entropies,
) -> tuple[dict[str, jax.Array], Any]:
    """Returns each term for each image `[n]` by name, and the parameters with statistics moved.

    Args:
        network: that is split.
        params: of it.
        views: augmented images `[n, h, w, c]`.
        labels: `[n]`.
        features: `[n, h', w', c']` of the images without augmentation.
        split: parts of the front.
        terms: that are computed.
        matching: as in `train`.
    """
    found = {}
    if {"front", "task"} & set(terms):
        seen, params = networks.apply_in_training(network, params, views, stop=split)
    if "front" in terms:
        found["front"] = matching(seen, features)
    for name, entering in (("rear", lambda: features), ("task", lambda: seen)):
        if name in terms:
            output, params = networks.apply_in_training(network, params, entering(), start=split)
            found[name] = training.cross_entropies(output.logits, labels)
    return found, params


def extra_bytes(features: jax.Array, teacher: teachers.Teacher) -> dict[str, int]:
    """Returns the bytes that ELF needs beside a set: of its features, or of the feature model.

    Either is enough to repeat it; publish the smaller one, and count it.

    >>> network = networks.ConvNet(2, width=1, depth=1, norm=None)
    >>> params = network.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))
    >>> teacher = teachers.Teacher(params, network)
    >>> extra_bytes(jnp.zeros((3, 1, 1, 1)), teacher)  # 3 floats; 9 + 1 and 2 + 2 weights
    {'features': 12, 'feature_model': 56}
    """
    size = features.size * features.dtype.itemsize
    return {"features": size, "feature_model": teachers.num_bytes(teacher)}
