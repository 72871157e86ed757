"""Train a network on a labelled set that fits on the device, as one compiled loop.

`train` follows the protocol of the distillation literature from fresh parameters, and is what an
evaluation uses. `fit` continues from any parameters with any optimizer. `run_epochs` is the loop
below both, for trainings with a state or a loss of their own.
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

cross_entropies = optax.softmax_cross_entropy_with_integer_labels
"""Cross-entropy of each sample `[n]`, from logits `[n, k]` and labels `[n]`."""


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Return `Σ w_i x_i / Σ w_i`, or 0 if all weights are 0."""
    total = weights.sum()
    return jnp.sum(values * weights) / jnp.where(total > 0, total, 1)


def cross_entropy(
    network: networks.Network, params: Any, images: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """Return the weighted mean of the cross-entropy, `Σ w_i CE_i / Σ w_i`.

    Args:
        network: a `networks.Network`.
        params: parameters of the network.
        images: `[n, h, w, c]`, normalised.
        labels: `[n]`, or one class for all samples.
        weights: `[n]`, non-negative. The loss is 0 if all are 0.
    """
    logits = networks.outputs(network, params, images).logits
    labels = jnp.broadcast_to(labels, logits.shape[:1])
    return weighted_mean(cross_entropies(logits, labels), weights)


def gradient(
    network: networks.Network, params: Any, images: jax.Array, labels: jax.Array, weights: jax.Array
) -> Any:
    """Return the gradient of `cross_entropy` in the parameters, computed in micro-batches.

    Args:
        network: a `networks.Network`.
        params: parameters of the network.
        images: `[n, h, w, c]`, normalised.
        labels: `[n]`, or one class for all samples.
        weights: `[n]`, non-negative.
    """
    total = weights.sum()
    labels = jnp.broadcast_to(labels, weights.shape)

    # The loss of a micro-batch is a mean over its own weights. Multiplying its gradient by their
    # sum undoes that, so that the parts add up and one division by the total weight remains.
    def summed_gradient(images, labels, weights):
        loss = functools.partial(cross_entropy, network)
        grads = jax.grad(loss)(params, images, labels, weights)
        return jax.tree.map(lambda x: x * weights.sum(), grads)

    grads = microbatch.total(summed_gradient, images, labels, weights)
    return jax.tree.map(lambda x: x / jnp.where(total > 0, total, 1), grads)


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
    """Train a fresh network on a labelled set and return its parameters.

    This is the protocol of the distillation literature: SGD, every sample once per epoch in random
    order, one augmentation drawn per image, and a learning rate that is divided by ten halfway. The
    reference code draws one operation per batch, trains one epoch more, and resets the momentum
    when the learning rate drops, after E/2 + 2 of E epochs; this function does not.

    Args:
        key: random key for initialisation, order and augmentation.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]` classes.
        epochs: passes over the set.
        batch_size: maximum number of samples per update. An epoch is divided into updates of equal
            size; the last one may have a few samples less.
        strategy: augmentation; () for none.
        **schedule: `learning_rate`, `momentum` and `weight_decay` of `sgd`.
    """
    images, labels = check_labelled(images, labels, network=network)
    optimizer = sgd(len(labels), epochs=epochs, batch_size=batch_size, **schedule)
    key_init, key_train = jax.random.split(key)
    params = networks.init_params(key_init, network, images[:1])
    size = dict(epochs=epochs, batch_size=batch_size)
    return _fit(key_train, network, params, images, labels, optimizer, strategy, **size)


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
    """Train a network from given parameters on a labelled set and return the new parameters.

    Args:
        key: random key for order and augmentation.
        network: a `networks.Network`.
        params: initial parameters.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]` classes.
        optimizer: an optax optimizer; its state starts afresh.
        epochs: passes over the set.
        batch_size: maximum number of samples per update, see `train`.
        strategy: augmentation, drawn per image; () for none.
    """
    images, labels = check_labelled(images, labels, network=network)
    size = dict(epochs=epochs, batch_size=batch_size)
    return _fit(key, network, params, images, labels, optimizer, strategy, **size)


def _fit(key, network, params, images, labels, optimizer, strategy, **size):
    size["num_samples"] = len(labels)

    # Batch norm couples the samples of a batch, so that it cannot be cut into micro-batches.
    if networks.split_batch_stats(params)[1]:

        def losses(params, key, indices):
            views = augment.per_image(key, images[indices], strategy=strategy)
            output, params = networks.apply_in_training(network, params, views)
            return cross_entropies(output.logits, labels[indices]), params

        return _minimize(key, params, losses, optimizer, **size)

    def update(carry, key, indices, present):
        params, opt_state = carry
        views = augment.per_image(key, images[indices], strategy=strategy)
        grads = gradient(network, params, views, labels[indices], present)
        return apply_gradients(optimizer, grads, opt_state, params)

    return run_epochs(key, update, (params, optimizer.init(params)), **size)[0]


def train_with_loss(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    losses: Callable[..., tuple[jax.Array, Any]],
    *,
    epochs: int = 1000,
    batch_size: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    **schedule: float,
) -> Any:
    """Train a fresh network with any loss per sample and return its parameters.

    Args:
        key: random key for initialisation, order and the loss.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        losses: `losses(params, key, indices) -> (losses, params)`, the losses of the samples at
            `indices`, and the parameters with updated batch-norm statistics. Batch norm also sees
            samples that are repeated to fill up the last batch.
        epochs: passes over the set.
        batch_size: maximum number of samples per update, see `train`.
        optimizer: an optax optimizer. Defaults to `sgd` with the schedule.
        **schedule: `learning_rate`, `momentum` and `weight_decay` of `sgd`.
    """
    size: dict[str, Any] = dict(epochs=epochs, batch_size=batch_size)
    if optimizer is None:
        optimizer = sgd(len(images), epochs=epochs, batch_size=batch_size, **schedule)
    key_init, key_train = jax.random.split(key)
    params = networks.init_params(key_init, network, images[:1])
    return _minimize(key_train, params, losses, optimizer, num_samples=len(images), **size)


def _minimize(key, params, losses, optimizer, **size):
    def update(state, key, indices, present):
        def loss(params):
            values, params = losses(params, key, indices)
            return weighted_mean(values, present), params

        return update_state(state, loss, optimizer)[0]

    return merge_params(run_epochs(key, update, init_state(params, optimizer), **size))


def sgd(
    num_samples: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> optax.GradientTransformation:
    """Return SGD with momentum whose learning rate is divided by ten halfway.

    Args:
        num_samples: number of samples in the set.
        epochs: passes over the set.
        batch_size: maximum number of samples per update.
        learning_rate: learning rate of the first half.
        momentum: decay of the running sum of gradients.
        weight_decay: multiple of the parameters that is added to their gradient.
    """
    epochs = _checks.count("epochs", epochs)
    _checks.nonnegative("learning_rate", learning_rate)
    _checks.nonnegative("momentum", momentum)
    _checks.nonnegative("weight_decay", weight_decay)
    # A training with a single update has no second half.
    halfway = max(1, epochs * num_updates(num_samples, batch_size) // 2)
    schedule = optax.piecewise_constant_schedule(learning_rate, {halfway: 0.1})
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=momentum)
    )


class TrainState(NamedTuple):
    """State of a training.

    Attributes:
        params: parameters that are learned.
        batch_stats: running statistics of batch norm; {} for a network without.
        opt_state: state of the optimizer.
    """

    params: Any
    batch_stats: dict[str, Any]
    opt_state: Any


def init_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Return the initial training state for these parameters."""
    learned, batch_stats = networks.split_batch_stats(params)
    return TrainState(learned, batch_stats, optimizer.init(learned))


def merge_params(state: TrainState) -> Any:
    """Return the parameters of a state together with its batch-norm statistics."""
    return {**state.params, **state.batch_stats} if state.batch_stats else state.params


def update_state(
    state: TrainState,
    loss: Callable[[Any], tuple[jax.Array, Any]],
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, jax.Array]:
    """Take one optimizer step and return the new state and the loss before the step.

    Args:
        state: from `init_state` or from the last step.
        loss: maps parameters to the loss and the parameters with updated batch-norm statistics, as
            `networks.apply_in_training` returns them.
        optimizer: the same in all steps.
    """

    def loss_and_stats(learned):
        value, params = loss(merge_params(state._replace(params=learned)))
        return value, networks.split_batch_stats(params)[1]

    (value, batch_stats), grads = jax.value_and_grad(loss_and_stats, has_aux=True)(state.params)
    params, opt_state = apply_gradients(optimizer, grads, state.opt_state, state.params)
    return TrainState(params, batch_stats, opt_state), value


def apply_gradients(
    optimizer: optax.GradientTransformation, gradients: Any, opt_state: Any, params: Any
) -> tuple[Any, Any]:
    """Return the parameters and the state of the optimizer after one update."""
    # Schedules and Adam in optax combine integers with floats, which strict promotion rejects.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def run_epochs(
    key: jax.Array,
    update: Callable[..., Any],
    carry: Any,
    *,
    num_samples: int,
    epochs: int,
    batch_size: int,
) -> Any:
    """Run an update over the batches of a set, every sample once per epoch in random order.

    Args:
        key: random key for the order and for `update`.
        update: `update(carry, key, indices, present) -> carry`. `indices` are the samples of the
            batch. `present` is 1 for them and 0 for repeated samples that fill up the last batch.
        carry: initial value.
        num_samples: number of samples m in the set.
        epochs: passes over the set.
        batch_size: maximum number of samples per update, see `train`.

    Returns:
        The last carry.
    """
    epochs = _checks.count("epochs", epochs)
    updates = num_updates(num_samples, batch_size)
    # Updates of equal size need one compiled shape. The order of an epoch is repeated cyclically to
    # fill the last batch, and `present` marks the repetitions.
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
    """Return the number of updates per epoch."""
    samples = _checks.count("num_samples", num_samples)
    return -(-samples // _checks.count("batch_size", batch_size))


def check_labelled(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    network: networks.Network | None = None,
    num_classes: int = 2**31 - 1,
) -> tuple[jax.Array, jax.Array]:
    """Return a labelled set as arrays after checking it. Values are checked unless traced.

    Args:
        images: `[m, h, w, c]`, normalised.
        labels: `[m]` integers in [0, num_classes).
        network: if set, its number of logits replaces `num_classes`.
        num_classes: number of classes. Not limited by default.
    """
    if np.ndim(images) != 4 or np.shape(labels) != np.shape(images)[:1] or 0 in np.shape(images):
        raise ValueError(
            "images must be [m, h, w, c] and labels [m] with m ≥ 1, "
            f"got {np.shape(images)} and {np.shape(labels)}"
        )
    images = _checks.normalised("images", images)
    if network is not None and _checks.values(labels) is not None:
        num_classes = networks.count_classes(network, images[:1])
    return images, _checks.integers("labels", labels, num_classes)
