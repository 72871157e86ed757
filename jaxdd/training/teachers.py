"""Teachers: networks trained on the real data, and the trainings on a small set that ask them.

What a network learns from a teacher is not the set's own. Every score of these trainings needs that
of the plain one, and the same training on real images or noise, beside it.

| training | loss on a view x of a sample | source |
| --- | --- | --- |
| `train_on_logits` | cross-entropy + T² KL(teacher(x), student(x)), T = 4 | Hinton et al., 2015 |
| `train_on_soft_labels` | KL(teacher(x), student(x)) at T = 20, x mixed by CutMix; no labels | Bo et al., 2025 |

Both take what `training.train` takes, besides the teacher, and stand in for it.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, networks, sampling, training


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("params",), meta_fields=("network",)
)
@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network, as one tree of arrays.

    Attributes:
        params: of the network, with its statistics where it has any.
        network: a hashable `networks.Network`.
    """

    params: Any
    network: networks.Network


def train_teacher(
    key: jax.Array,
    network: networks.Network,
    pool: sampling.Pool,
    *,
    sampler: sampling.Sampler,
    steps: int,
    strategy: augment.Strategy = augment.OPERATIONS,
    **schedule: float,
) -> Teacher:
    """Trains a teacher on the real data, class by class in equal shares.

    `sampling.weighted_batch` follows the pool's weights; on data that are biased and weighed by
    nothing the teacher learns the bias.

    Args:
        key: initialisation, batches and augmentation.
        network: of the teacher.
        pool: the real data.
        sampler: class-balanced batches with weights, which the cross-entropy is weighed by.
        steps: updates; the learning rate is divided by ten halfway.
        strategy: of augmentation, drawn for each image; () for none.
        **schedule: learning rate, momentum and weight decay of `training.sgd`.

    Raises:
        ValueError: less than one step, or a network of other classes.
    """
    steps = _checks.count("steps", steps)
    optimizer = training.sgd(1, epochs=steps, batch_size=1, **schedule)
    key_network, key_train = jax.random.split(key)
    first = sampling.take(pool, jnp.zeros(1, int))
    networks.check_classes(network, first, pool.num_classes)
    advance = batch_update(network, optimizer, strategy)

    def update(descent, key):
        key_draw, key_augment = jax.random.split(key)
        return advance(key_augment, descent, sampler(key_draw, pool))[0], None

    descent = training.init_state(networks.init_params(key_network, network, first), optimizer)
    descent, _ = jax.lax.scan(update, descent, jax.random.split(key_train, steps))
    return Teacher(training.merge_params(descent), network)


def batch_update(network, optimizer, strategy, loss=training.cross_entropies):
    """One update on a batch of real images, and the loss before it."""

    def update(key, descent, batch):
        k, b = batch.weights.shape
        images = batch.images.reshape(k * b, *batch.images.shape[2:])
        views = augment.per_image(key, images, strategy=strategy)

        def mean(params):
            found, params = networks.apply_in_training(network, params, views)
            each = loss(found.logits, jnp.arange(k).repeat(b))
            return training.weighted_mean(each, batch.weights.ravel()), params

        return training.update_state(descent, mean, optimizer)

    return update


def num_bytes(teacher: Teacher) -> int:
    """Returns the bytes of a teacher's parameters and statistics."""
    leaves = jax.tree.leaves(teacher)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def kl_divergences(teacher: jax.Array, student: jax.Array, *, temperature: float) -> jax.Array:
    """Returns `Σ_k p_k (log p_k − log q_k)` of each sample, `[n]`.

    Args:
        teacher: logits `[n, k]`, p being their softmax at the temperature.
        student: logits `[n, k]` likewise of q.
        temperature: that logits are divided by.

    Raises:
        ValueError: shapes that differ, or a temperature that is not positive.

    >>> same = jnp.ones((2, 3))
    >>> kl_divergences(same, same, temperature=4.0).tolist()
    [0.0, 0.0]
    """
    if teacher.shape != student.shape:
        raise ValueError(
            f"teacher and student must have the same logits, found {teacher.shape} and "
            f"{student.shape}"
        )
    temperature = _checks.positive("temperature", temperature)
    p, q = (jax.nn.log_softmax(logits / temperature) for logits in (teacher, student))
    return jnp.sum(jnp.exp(p) * (p - q), -1)


def train_on_logits(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    *,
    teacher: Teacher,
    temperature: float = 4.0,
    epochs: int = 1000,
    batch_size: int = 256,
    strategy: augment.Strategy = augment.OPERATIONS,
    **schedule: float,
) -> Any:
    """Trains a network on a set and on the teacher's logits of its views, by the plain schedule.

    Args:
        key: initialisation, order and augmentation.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`.
        teacher: of the same classes.
        temperature: T.
        epochs: as in `training.train`.
        batch_size: as in `training.train`.
        strategy: of augmentation; () for none.
        **schedule: of `training.sgd`.

    Raises:
        TypeError: as in `training.train`.
        ValueError: as in `training.train`, or a teacher of other classes.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    images, labels = training.check_labelled(images, labels, network=network)
    check_teacher(teacher, network, images)

    def loss(params, key, indices, present):
        views = augment.per_image(key, images[indices], strategy=strategy)
        found, params = networks.apply_in_training(network, params, views)
        told = networks.outputs(teacher.network, teacher.params, views).logits
        each = training.cross_entropies(found.logits, labels[indices])
        each += temperature**2 * kl_divergences(told, found.logits, temperature=temperature)
        return training.weighted_mean(each, present), params

    size: dict[str, Any] = dict(epochs=epochs, batch_size=batch_size)
    descent = training.sgd(len(labels), epochs=epochs, batch_size=batch_size, **schedule)
    return _trained(key, network, images, loss, optimizer=descent, **size)


def train_on_soft_labels(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    *,
    teacher: Teacher,
    temperature: float = 20.0,
    epochs: int = 1000,
    batch_size: int = 50,
    strategy: augment.Strategy = augment.OPERATIONS,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
) -> Any:
    """Trains a network on the teacher's opinion of mixed images alone.

    Each batch is mixed by CutMix, and the teacher is asked about the mixture. The learning rate
    falls by half of a cosine to a half, by AdamW; what counts is the last epoch.

    Args:
        key: initialisation, order, augmentation and mixtures.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`; not used.
        teacher: of the same classes.
        temperature: of both softmaxes; no factor T² makes up for it.
        epochs: passes over the set.
        batch_size: as in `training.fit`; 50 is that of ten images of each of ten classes.
        strategy: of augmentation; () for none.
        learning_rate: at the start.
        weight_decay: of AdamW.

    Raises:
        TypeError: as in `training.train`.
        ValueError: as in `training.train`, or a teacher of other classes.

    Source: Bo, Liu and Wang (arXiv 2503.01212), whose code reports the best of several epochs by
    the test set, and crops at random where this augments by the strategy.
    """
    images, labels = training.check_labelled(images, labels, network=network)
    check_teacher(teacher, network, images)
    _checks.nonnegative("learning_rate", learning_rate)
    _checks.nonnegative("weight_decay", weight_decay)

    def loss(params, key, indices, present):
        key_augment, key_mix = jax.random.split(key)
        views = augment.per_image(key_augment, images[indices], strategy=strategy)
        views = cutmix(key_mix, views)
        found, params = networks.apply_in_training(network, params, views)
        told = networks.outputs(teacher.network, teacher.params, views).logits
        each = kl_divergences(told, found.logits, temperature=temperature)
        return training.weighted_mean(each, present), params

    size: dict[str, Any] = dict(epochs=epochs, batch_size=batch_size)
    total = epochs * training.num_updates(len(labels), batch_size)
    rate = lambda step: learning_rate * 0.5 * (1 + jnp.cos(math.pi * step / (2 * total)))
    descent = optax.adamw(rate, weight_decay=weight_decay)
    return _trained(key, network, images, loss, optimizer=descent, **size)


def cutmix(key: jax.Array, images: jax.Array) -> jax.Array:
    """Replaces one box of all images `[n, h, w, c]` by that of other images of the batch.

    The box keeps a share of the pixels that is uniform in [0, 1], about a centre anywhere, and is
    cut at the border.

    Source: Yun et al., "CutMix" (ICCV 2019), with Beta(1, 1).
    """
    key_share, key_centre, key_order = jax.random.split(key, 3)
    side = jnp.sqrt(jax.random.uniform(key_share))
    centres = jax.random.uniform(key_centre, (2,))
    rows, columns = (
        jnp.abs((jnp.arange(n) + 0.5) / n - centre) < side / 2
        for n, centre in zip(images.shape[1:3], centres, strict=True)
    )
    box = (rows[:, None] & columns)[:, :, None]
    return jnp.where(box, images[jax.random.permutation(key_order, len(images))], images)


def check_teacher(teacher: Teacher, network: networks.Network, images: jax.Array) -> None:
    """Refuses a teacher of other classes than the network that it teaches, by shapes alone.

    Args:
        teacher: whose parameters must fit its network and the images.
        network: that learns.
        images: `[m, h, w, c]`.

    Raises:
        ValueError: names both numbers of classes.
    """
    asked = functools.partial(networks.outputs, teacher.network)
    found = jax.eval_shape(asked, teacher.params, images[:1]).logits.shape[1]
    expected = networks.count_classes(network, images[:1])
    if found != expected:
        raise ValueError(f"the network has {expected} classes, found a teacher of {found}")


def _trained(key, network, images, loss, **descent):
    key_init, key_train = jax.random.split(key)
    params = networks.init_params(key_init, network, images[:1])
    return training.minimize(key_train, params, loss, num_samples=len(images), **descent)
