"""Training on real data, for the methods that need it: expert trajectories and teachers.

Trajectory matching compares training on the synthetic set with training on the real data, which
experts record. Sample weights act in the training of the experts: batches are sampled by weight, so
an expert minimises the reweighted risk. (A weighted loss on uniform batches has the same
expectation and more variance.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, networks, sampling, training
from jaxdd.methods.protocol import Method
from jaxdd.training import teachers


class Segment(NamedTuple):
    """Parameters of an expert at two epochs.

    Attributes:
        start: where the student starts.
        target: where the student should arrive.
    """

    start: Any
    target: Any


def train(
    key: jax.Array,
    network: networks.Network,
    pool: sampling.Pool,
    *,
    sampler: sampling.Sampler,
    epochs: int,
    updates: int,
    optimizer: optax.GradientTransformation | None = None,
    strategy: augment.Strategy = augment.OPERATIONS,
) -> Any:
    """Train one expert and return its parameters after 0, 1, …, `epochs` epochs.

    Args:
        key: random key for initialisation, batches and augmentation.
        network: a `networks.Network`.
        pool: real data.
        sampler: sampler of batches; their weights weight the cross-entropy.
        epochs: number of epochs.
        updates: updates per epoch.
        optimizer: SGD with rate 0.01 by default, as in the reference.
        strategy: augmentation, drawn per image; () for none.

    Returns:
        The parameters with a leading axis of `epochs + 1`.
    """
    epochs, updates = _checks.count("epochs", epochs), _checks.count("updates", updates)
    optimizer = optax.sgd(0.01) if optimizer is None else optimizer
    key_network, key_train = jax.random.split(key)

    def train_batch(carry, key):
        params, state = carry
        key_batch, key_augment = jax.random.split(key)
        batch = sampler(key_batch, pool)
        images, labels = sampling.flatten(batch.images)
        views = augment.per_image(key_augment, images, strategy=strategy)
        gradient = training.gradient(network, params, views, labels, batch.weights.ravel())
        return training.apply_gradients(optimizer, gradient, state, params), None

    def train_epoch(carry, key):
        carry, _ = jax.lax.scan(train_batch, carry, jax.random.split(key, updates))
        return carry, carry[0]

    first = networks.init_params(key_network, network, sampling.take(pool, jnp.zeros(1, int)))
    carry = first, optimizer.init(first)
    _, later = jax.lax.scan(train_epoch, carry, jax.random.split(key_train, epochs))
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, later)


def segment(key: jax.Array, experts: Any, *, span: int, starts: int) -> Segment:
    """Draw a random expert and a random start epoch; this is the sampler of trajectory matching.

    Experts are drawn independently, where the reference takes them in turn, in random order.

    Args:
        key: random key.
        experts: parameters with leading axes `[n, epochs + 1]`, stacked results of `train`.
        span: epochs from start to target.
        starts: number of start epochs; epochs 0, …, `starts` − 1 are equally likely.
    """
    n, moments = jax.tree.leaves(experts)[0].shape[:2]
    if span < 1 or starts < 1 or starts + span > moments:
        raise ValueError(
            f"span ({span}) and starts ({starts}) must be positive and their sum at most one more "
            f"than the {moments - 1} epochs of the experts."
        )
    key_expert, key_start = jax.random.split(key)
    expert = jax.random.randint(key_expert, (), 0, n)
    start = jax.random.randint(key_start, (), 0, starts)
    params_at = lambda epoch: jax.tree.map(lambda x: x[expert, epoch], experts)
    return Segment(params_at(start), params_at(start + span))


def supervised_training(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    strategy: augment.Strategy = augment.OPERATIONS,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = training.cross_entropies,
) -> Method:
    """Return training on real batches as a method, so that `methods.run` can stop and resume it.

    `init` takes parameters instead of images. The state is a `training.TrainState`;
    `training.merge_params` extracts the trained parameters.

    Args:
        network: a `networks.Network`.
        optimizer: optimizer of its parameters.
        strategy: augmentation, drawn per image; () for none.
        loss: per sample, from logits `[n, k]` and labels `[n]` to `[n]`.
    """
    train_batch = teachers.batch_update(network, optimizer, augment.as_strategy(strategy), loss)

    def step(key, state, batch):
        state, value = train_batch(key, state, batch)
        return state, {"loss": value}

    return Method(lambda params: training.init_state(params, optimizer), step)
