"""Expert trajectories: what the parameters of a network do while it learns from the real data.

Trajectory matching asks that a network trained on the synthetic set moves as these experts do.
Density weights enter here, where the real data do: the experts are trained on batches drawn by the
weights, so that they follow the descent of the reweighted risk. (The matching loss itself has no
term for a real sample that could be weighed. A weighted loss on uniform batches, `sampler` =
`sampling.uniform_batch`, has the same expectation and more variance.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import augment, networks, sampling, training
from jaxdd.methods import protocol
from jaxdd.training import teachers


class Segment(NamedTuple):
    """Parameters of one expert at two moments: where a student starts, where it should arrive."""

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
    """Trains one expert and returns its parameters after 0, 1, …, `epochs` epochs.

    Args:
        key: initialisation, batches and augmentation.
        network: a `networks.Network`.
        pool: the real data.
        sampler: class-balanced batches with weights, which the cross-entropy is weighed by.
        epochs: moments that are kept, besides the first.
        updates: updates in an epoch.
        optimizer: SGD with rate 0.01, as in the reference, by default.
        strategy: of augmentation, drawn for each image; () for none.

    Returns:
        The parameters with a leading axis of `epochs + 1`.

    Raises:
        ValueError: for less than one epoch or update.

    Source: Cazenavette et al., "Dataset Distillation by Matching Training Trajectories" (CVPR
    2022).
    """
    if epochs < 1 or updates < 1:
        raise ValueError(f"epochs and updates must be at least 1, found {epochs} and {updates}")
    optimizer = optax.sgd(0.01) if optimizer is None else optimizer
    key_network, key_train = jax.random.split(key)

    def update(carry, key):
        params, state = carry
        key_draw, key_augment = jax.random.split(key)
        batch = sampler(key_draw, pool)
        k, b = batch.weights.shape
        images = batch.images.reshape(k * b, *batch.images.shape[2:])
        images = augment.per_image(key_augment, images, strategy=strategy)
        labels = jnp.arange(k).repeat(b)
        slope = training.gradient(network, params, images, labels, batch.weights.ravel())
        step, state = optimizer.update(slope, state, params)
        return (optax.apply_updates(params, step), state), None

    def epoch(carry, key):
        carry, _ = jax.lax.scan(update, carry, jax.random.split(key, updates))
        return carry, carry[0]

    first = networks.init_params(key_network, network, sampling.take(pool, jnp.zeros(1, int)))
    carry = first, optimizer.init(first)
    _, later = jax.lax.scan(epoch, carry, jax.random.split(key_train, epochs))
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, later)


def segment(key: jax.Array, experts: Any, *, span: int, latest: int) -> Segment:
    """Draws one expert, and one of its epochs 0, …, `latest` to start from; all are as likely.

    Args:
        key: of the draw.
        experts: parameters with leading axes `[n, epochs + 1]`, as `train` gives them one by one.
        span: epochs from start to target.
        latest: last epoch to start from.

    Raises:
        ValueError: for a segment that ends after the trajectory does.
    """
    n, moments = jax.tree.leaves(experts)[0].shape[:2]
    if span < 1 or latest < 0 or latest + span >= moments:
        raise ValueError(
            f"a segment of {span} epochs from epoch {latest} on does not fit trajectories of "
            f"{moments - 1} epochs"
        )
    key_expert, key_start = jax.random.split(key)
    expert = jax.random.randint(key_expert, (), 0, n)
    start = jax.random.randint(key_start, (), 0, latest + 1)
    moment = lambda i: jax.tree.map(lambda x: x[expert, i], experts)
    return Segment(moment(start), moment(start + span))


def supervised_training(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    strategy: augment.Strategy = augment.OPERATIONS,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = training.cross_entropies,
) -> protocol.Method:
    """The training of a teacher as a method, for `methods.run`, which can stop and go on.

    Its `init` takes fresh parameters in the place of images, its state is a `training.TrainState`, and
    `training.merge_params` gives the parameters that it came to.

    Args:
        network: of the teacher.
        optimizer: of its parameters.
        strategy: of augmentation, drawn for each image; () for none.
        loss: of each sample `[n]`, from logits `[n, k]` and labels `[n]`.
    """
    update = teachers.batch_update(network, optimizer, augment.as_strategy(strategy), loss)

    def step(key, descent, batch):
        descent, loss = update(key, descent, batch)
        return descent, {"loss": loss}

    return protocol.Method(lambda params: training.init_state(params, optimizer), step)
