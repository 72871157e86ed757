"""Train networks on the real data (teachers), and train others with their predictions.

A score with a teacher does not measure the set alone. Report such a score together with that of
standard training, and with those of real images and noise under the same training.

| training | loss on an augmented image x | source |
| --- | --- | --- |
| `train_on_logits` | cross-entropy + T² KL(teacher(x), student(x)), T = 4 | Hinton et al., 2015 |
| `train_on_soft_labels` | KL(teacher(x), student(x)), T = 20, x mixed by CutMix | Bo et al., 2025 |

Both take the arguments of `training.train` and a teacher, and can replace it in an evaluation.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
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
        params: parameters of the network, with its batch-norm statistics if it has any.
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
    """Train a teacher on class-balanced batches of real images.

    On biased data a teacher learns the bias, unless the sampler or the pool has weights against it.

    Args:
        key: random key for initialisation, batches and augmentation.
        network: teacher network.
        pool: the real data.
        sampler: draws batches, whose weights multiply the cross-entropy.
        steps: number of updates; the learning rate is divided by ten halfway.
        strategy: augmentation, drawn per image; () for none.
        **schedule: `learning_rate`, `momentum` and `weight_decay` of `training.sgd`.
    """
    steps = _checks.count("steps", steps)
    optimizer = training.sgd(1, epochs=steps, batch_size=1, **schedule)
    key_network, key_train = jax.random.split(key)
    example = sampling.take(pool, jnp.zeros(1, int))
    networks.check_classes(network, example, pool.num_classes)
    update = batch_update(network, optimizer, strategy)

    def step(state, key):
        key_batch, key_augment = jax.random.split(key)
        return update(key_augment, state, sampler(key_batch, pool))[0], None

    state = training.init_state(networks.init_params(key_network, network, example), optimizer)
    state, _ = jax.lax.scan(step, state, jax.random.split(key_train, steps))
    return Teacher(training.merge_params(state), network)


def batch_update(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    strategy: augment.Strategy,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = training.cross_entropies,
) -> Callable[..., tuple[training.TrainState, jax.Array]]:
    """Return an update `update(key, state, batch) -> (state, loss)` on a batch of real images.

    Args:
        network: teacher network.
        optimizer: an optax optimizer.
        strategy: augmentation, drawn per image; () for none.
        loss: loss of each sample `[n]`, from logits `[n, k]` and labels `[n]`.
    """

    def update(key, state, batch):
        images, labels = sampling.flatten(batch.images)
        views = augment.per_image(key, images, strategy=strategy)

        def mean_loss(params):
            output, params = networks.apply_in_training(network, params, views)
            losses = loss(output.logits, labels)
            return training.weighted_mean(losses, batch.weights.ravel()), params

        return training.update_state(state, mean_loss, optimizer)

    return update


def num_bytes(teacher: Teacher) -> int:
    """Return the size of a teacher's parameters and statistics in bytes."""
    leaves = jax.tree.leaves(teacher)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _kl_divergences(teacher, student, *, temperature):
    """Return `Σ_k p_k (log p_k − log q_k)` per sample `[n]`, of the softmaxes of logits / T."""
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
    strategy: augment.Strategy = augment.OPERATIONS,
    **options: Any,
) -> Any:
    """Train a network on labels and on the teacher's logits of the augmented images.

    Args:
        key: random key for initialisation, order and augmentation.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]` classes.
        teacher: teacher with the same number of classes.
        temperature: T.
        strategy: augmentation; () for none.
        **options: `epochs`, `batch_size`, `learning_rate`, `momentum` and `weight_decay`, with the
            defaults of `training.train`.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    images, labels = training.check_labelled(images, labels, network=network)
    _check_teacher(teacher, network, images)

    def losses(params, key, indices):
        views = augment.per_image(key, images[indices], strategy=strategy)
        output, params = networks.apply_in_training(network, params, views)
        logits = networks.outputs(teacher.network, teacher.params, views).logits
        divergences = _kl_divergences(logits, output.logits, temperature=temperature)
        # The gradient of the divergence falls with 1 / T². The factor T² keeps it at the scale of
        # the cross-entropy.
        values = training.cross_entropies(output.logits, labels[indices])
        return values + temperature**2 * divergences, params

    return training.train_with_loss(key, network, images, losses, **options)


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
    """Train a network on the teacher's predictions for mixed images, without labels.

    Each batch is mixed by CutMix and then shown to teacher and student. The optimizer is AdamW,
    whose learning rate falls to zero along half a cosine in twice the number of epochs.

    Args:
        key: random key for initialisation, order, augmentation and mixtures.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]` classes, which are not used.
        teacher: teacher with the same number of classes.
        temperature: temperature of both softmaxes. There is no factor T².
        epochs: passes over the set.
        batch_size: maximum number of samples per update, see `training.train`. The default is that
            of the source for ten images of each of ten classes.
        strategy: augmentation; () for none.
        learning_rate: initial learning rate.
        weight_decay: weight decay of AdamW.

    Source: Bo, Liu and Wang (arXiv 2503.01212). Their code reports the best of several epochs on
    the test set, crops at random, lowers the learning rate once per epoch, and has other batch
    sizes for other sets; this trains to the last epoch, with augmentation `strategy`.
    """
    images, labels = training.check_labelled(images, labels, network=network)
    _check_teacher(teacher, network, images)
    _checks.nonnegative("learning_rate", learning_rate)
    _checks.nonnegative("weight_decay", weight_decay)

    def losses(params, key, indices):
        key_augment, key_mix = jax.random.split(key)
        views = augment.per_image(key_augment, images[indices], strategy=strategy)
        views = _cutmix(key_mix, views)
        output, params = networks.apply_in_training(network, params, views)
        logits = networks.outputs(teacher.network, teacher.params, views).logits
        return _kl_divergences(logits, output.logits, temperature=temperature), params

    updates = epochs * training.num_updates(len(labels), batch_size)
    optimizer = _soft_label_optimizer(updates, learning_rate, weight_decay)
    size: dict[str, Any] = dict(epochs=epochs, batch_size=batch_size)
    return training.train_with_loss(key, network, images, losses, optimizer=optimizer, **size)


def _soft_label_optimizer(updates, learning_rate=1e-3, weight_decay=1e-2):
    rate = lambda step: learning_rate * 0.5 * (1 + jnp.cos(math.pi * step / (2 * updates)))
    return optax.adamw(rate, weight_decay=weight_decay)


def _cutmix(key, images):
    """Replace one box of all images `[n, h, w, c]` by that of other images of the batch.

    The area of the box is uniform in [0, 1] as a share of the image, its centre is uniform, and it
    is clipped at the border.

    Source: Yun et al., "CutMix" (ICCV 2019), with Beta(1, 1).
    """
    key_area, key_centre, key_order = jax.random.split(key, 3)
    side = jnp.sqrt(jax.random.uniform(key_area))
    centres = jax.random.uniform(key_centre, (2,))
    rows, columns = (
        jnp.abs((jnp.arange(n).astype(side.dtype) + 0.5) / n - centre) < side / 2
        for n, centre in zip(images.shape[1:3], centres, strict=True)
    )
    box = (rows[:, None] & columns[None])[None, :, :, None]
    return jnp.where(box, images[jax.random.permutation(key_order, len(images))], images)


def _check_teacher(teacher, network, images):
    """Check that a teacher has as many classes as a network, without computing anything."""
    outputs = functools.partial(networks.outputs, teacher.network)
    num_classes = jax.eval_shape(outputs, teacher.params, images[:1]).logits.shape[1]
    expected = networks.count_classes(network, images[:1])
    if num_classes != expected:
        raise ValueError(f"the teacher must have {expected} classes, got {num_classes}")
