"""Training of a network on a labelled set that fits on the device, as one loop.

`train` is the literature's protocol from a fresh network on, which an evaluation goes by; the inner
loop of gradient matching and the experts of trajectory matching go by `fit` and `gradient`. They
differ in optimizer, length and augmentation.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxdd import _checks, augment, networks
from jaxdd.devices import microbatch


def cross_entropy(
    network: networks.Network, params: Any, images: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """Weighted mean of the cross-entropy, `Σ w_i CE_i / Σ w_i`.

    Args:
        network: a `networks.Network`.
        params: of the network.
        images: `[n, h, w, c]`, normalised.
        labels: `[n]`, or one class for all.
        weights: `[n]` non-negative; the loss is zero if all are.
    """
    logits = networks.outputs(network, params, images).logits
    labels = jnp.broadcast_to(labels, logits.shape[:1])
    return weighted_mean(entropies(logits, labels), weights)


entropies = optax.softmax_cross_entropy_with_integer_labels
"""The cross-entropy of each sample `[n]`, from logits `[n, k]` and labels `[n]`."""


def weighted_mean(each: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns `Σ w_i x_i / Σ w_i`, 0 where all weights are."""
    total = weights.sum()
    return jnp.sum(each * weights) / jnp.where(total > 0, total, 1)


def gradient(
    network: networks.Network, params: Any, images: jax.Array, labels: jax.Array, weights: jax.Array
) -> Any:
    """Gradient of `cross_entropy` in the parameters, summed over micro-batches.

    The arguments are those of `cross_entropy`.
    """
    total = weights.sum()
    labels = jnp.broadcast_to(labels, weights.shape)

    def part(images, labels, weights):
        slope = jax.grad(functools.partial(cross_entropy, network))(params, images, labels, weights)
        return jax.tree.map(lambda x: x * weights.sum(), slope)

    summed = microbatch.total(part, images, labels, weights)
    return jax.tree.map(lambda x: x / jnp.where(total > 0, total, 1), summed)


def train(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    *,
    epochs: int = 1000,
    batch_size: int = 256,
    strategy: augment.Strategy = augment.OPERATIONS,
    **schedule: float,
) -> Any:
    """Trains a fresh network on a labelled set as one loop and returns its parameters.

    The protocol of the distillation literature: SGD, every sample once per epoch in random order,
    one augmentation drawn per image, learning rate divided by ten halfway. (The reference code also
    forgets the momentum there; this does not.)

    Args:
        key: initialisation, order and augmentation.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`.
        epochs: passes over the set.
        batch_size: samples per update at most; an epoch is cut into updates of equal size, the last
            of which may miss a few.
        strategy: of augmentation; () for none.
        **schedule: learning rate, momentum and weight decay of `optimizer`.

    Raises:
        TypeError: for images that are not floating, or labels that are not integers.
        ValueError: for shapes that disagree, an empty set, less than one epoch or sample per
            update, and (where they are concrete) labels that the network has no logit for, images
            that are not finite or not normalised, or a negative or non-finite rate.
    """
    images, labels = labelled_for(network, images, labels)
    descent = optimizer(len(labels), epochs=epochs, batch_size=batch_size, **schedule)
    key_init, key_train = jax.random.split(key)
    params = networks.init_params(key_init, network, images[:1])
    return fit(
        key_train,
        network,
        params,
        images,
        labels,
        optimizer=descent,
        epochs=epochs,
        batch_size=batch_size,
        strategy=strategy,
    )


def optimizer(
    num_samples: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> optax.GradientTransformation:
    """SGD whose learning rate is divided by ten halfway.

    Args:
        num_samples: in the set.
        epochs: of the training.
        batch_size: samples per update at most.
        learning_rate: of the first half.
        momentum: of SGD.
        weight_decay: added to the gradient.

    Raises:
        ValueError: for less than one epoch or sample per update, or (where they are concrete) a
            rate, a momentum or a decay that is negative or not finite.
    """
    epochs = _checks.count("epochs", epochs)
    _checks.nonnegative("learning_rate", learning_rate)
    _checks.nonnegative("momentum", momentum)
    _checks.nonnegative("weight_decay", weight_decay)
    halfway = epochs * num_updates(num_samples, batch_size) // 2
    schedule = optax.piecewise_constant_schedule(learning_rate, {halfway: 0.1})
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=momentum)
    )


def fit(
    key: jax.Array,
    network: networks.Network,
    params: Any,
    images: jax.Array,
    labels: jax.Array,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int = 256,
    strategy: augment.Strategy = augment.OPERATIONS,
) -> Any:
    """Goes through a labelled set `epochs` times in random order and returns the new parameters.

    Args:
        key: order and augmentation.
        network: a `networks.Network`.
        params: where to start.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]`.
        optimizer: begins afresh.
        epochs: passes over the set.
        batch_size: samples per update at most; an epoch is cut into updates of equal size, the last
            of which may miss a few.
        strategy: of augmentation, drawn for each image; () for none.

    Raises:
        TypeError: as in `train`.
        ValueError: as in `train`.
    """
    images, labels = labelled_for(network, images, labels)
    if networks.split_batch_stats(params)[1]:

        def loss(params, key, indices, present):
            views = augment.per_image(key, images[indices], strategy=strategy)
            found, params = networks.apply_in_training(network, params, views)
            return weighted_mean(entropies(found.logits, labels[indices]), present), params

        size = dict(num_samples=len(labels), epochs=epochs, batch_size=batch_size)
        return descend(key, params, loss, optimizer=optimizer, **size)

    def update(carry, key, indices, present):
        params, state = carry
        views = augment.per_image(key, images[indices], strategy=strategy)
        slope = gradient(network, params, views, labels[indices], present)
        step, state = optimizer.update(slope, state, params)
        return optax.apply_updates(params, step), state

    params, _ = loop(
        key,
        update,
        (params, optimizer.init(params)),
        num_samples=len(labels),
        epochs=epochs,
        batch_size=batch_size,
    )
    return params


class Descent(NamedTuple):
    """Where a descent stands.

    Attributes:
        params: that are learned.
        statistics: of batch norm, {} where there are none.
        state: of the optimizer.
    """

    params: Any
    statistics: dict[str, Any]
    state: Any


def begin(params: Any, optimizer: optax.GradientTransformation) -> Descent:
    """Returns the start of a descent from parameters."""
    learned, statistics = networks.split_batch_stats(params)
    return Descent(learned, statistics, optimizer.init(learned))


def advance(
    descent: Descent,
    loss: Callable[[Any], tuple[jax.Array, Any]],
    optimizer: optax.GradientTransformation,
) -> tuple[Descent, jax.Array]:
    """Takes one step down a loss, and returns what it was before.

    Args:
        descent: where it stands.
        loss: from parameters to a number and the parameters with their statistics moved, as
            `networks.apply_in_training` gives them.
        optimizer: that it began with.
    """

    def value(learned):
        total, moved = loss(joined(descent._replace(params=learned)))
        return total, networks.split_batch_stats(moved)[1]

    found, slope = jax.value_and_grad(value, has_aux=True)(descent.params)
    total, statistics = found
    step, state = optimizer.update(slope, descent.state, descent.params)
    return Descent(optax.apply_updates(descent.params, step), statistics, state), total


def joined(descent: Descent) -> Any:
    """Returns the parameters that a descent has come to, with their statistics."""
    return {**descent.params, **descent.statistics} if descent.statistics else descent.params


def descend(
    key: jax.Array,
    params: Any,
    loss: Callable[..., tuple[jax.Array, Any]],
    *,
    optimizer: optax.GradientTransformation,
    num_samples: int,
    epochs: int,
    batch_size: int,
) -> Any:
    """Goes down any loss over the samples of a set, in `loop`, and returns the new parameters.

    Samples that fill up a batch are seen by batch norm, though their `present` is 0.

    Args:
        key: order, and what the loss draws.
        params: where to start.
        loss: `loss(params, key, indices, present) -> (number, params)`, the latter with their
            statistics moved.
        optimizer: of the parameters that are learned.
        num_samples: as in `loop`.
        epochs: as in `loop`.
        batch_size: as in `loop`.
    """

    def update(descent, key, indices, present):
        return advance(descent, lambda params: loss(params, key, indices, present), optimizer)[0]

    size = dict(num_samples=num_samples, epochs=epochs, batch_size=batch_size)
    return joined(loop(key, update, begin(params, optimizer), **size))


def loop(
    key: jax.Array,
    update: Callable[..., Any],
    carry: Any,
    *,
    num_samples: int,
    epochs: int,
    batch_size: int,
) -> Any:
    """Goes through `num_samples` samples `epochs` times in random order.

    Args:
        key: order, and what `update` draws.
        update: `update(carry, key, indices, present) -> carry`, for the samples at `indices` whose
            `present` is 1; where it is 0, the batch is filled up with a sample of another.
        carry: to begin with.
        num_samples: m.
        epochs: passes over the set.
        batch_size: as in `fit`.

    Returns:
        The last carry.

    Raises:
        ValueError: for less than one epoch or sample, or a batch of none.
    """
    epochs = _checks.count("epochs", epochs)
    updates = num_updates(num_samples, batch_size)
    size = -(-num_samples // updates)

    def epoch(carry, key):
        key_order, key_update = jax.random.split(key)
        order = jnp.resize(jax.random.permutation(key_order, num_samples), (updates, size))
        present = jnp.arange(updates * size) < num_samples
        present = present.reshape(updates, size).astype(jnp.float32)
        batches = jax.random.split(key_update, updates), order, present
        return jax.lax.scan(lambda carry, batch: (update(carry, *batch), None), carry, batches)

    return jax.lax.scan(epoch, carry, jax.random.split(key, epochs))[0]


def num_updates(num_samples: int, batch_size: int) -> int:
    """Returns how many updates an epoch takes.

    Raises:
        ValueError: for no samples, or a batch of none.
    """
    samples = _checks.count("num_samples", num_samples)
    return -(-samples // _checks.count("batch_size", batch_size))


def labelled_for(
    network: networks.Network, images: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Returns a labelled set as arrays if it is one of the network's classes.

    Raises:
        TypeError: as in `as_labelled`.
        ValueError: as in `as_labelled`; and (where they are concrete) labels that the network has
            no logits for.
    """
    images, labels = as_labelled(images, labels)
    if _checks.values(labels) is not None:
        _checks.integers("labels", labels, networks.count_classes(network, images[:1]))
    return images, labels


def as_labelled(
    images: ArrayLike, labels: ArrayLike, *, num_classes: int = 2**31 - 1
) -> tuple[jax.Array, jax.Array]:
    """Returns a labelled set as arrays if it is one.

    Args:
        images: `[m, h, w, c]`, normalised.
        labels: `[m]` integers in [0, num_classes).
        num_classes: number of classes, where it is known.

    Raises:
        TypeError: for images that are not floating, or labels that are not integers.
        ValueError: for shapes that disagree, an empty set, and (where they are concrete) labels out
            of range or images that are not finite or not normalised.
    """
    if np.ndim(images) != 4 or np.shape(labels) != np.shape(images)[:1] or 0 in np.shape(images):
        raise ValueError(
            "images must be [m, h, w, c] and labels [m] with m ≥ 1, "
            f"found {np.shape(images)} and {np.shape(labels)}"
        )
    labels = _checks.integers("labels", labels, num_classes)
    return _checks.normalised("images", images), labels
