"""Supervised contrastive embedding of the biased data: where the density is estimated.

The encoder sees class labels and no bias labels. Samples that share the bias attribute of their
class end up close together, the conflicting ones apart, because a network learns the easy cue
first; that is also why training longer is not better here.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jaxdd import _checks, augment, networks, sampling
from jaxdd.devices import microbatch, parallel


def supervised_contrastive(
    embeddings: jax.Array, labels: jax.Array, *, temperature: float = 0.1
) -> jax.Array:
    """Supervised contrastive loss, the form with the sum outside the logarithm.

    `mean_i −1/|P(i)| Σ_{p∈P(i)} log( exp(z_i·z_p/τ) / Σ_{a≠i} exp(z_i·z_a/τ) )`, where P(i) are the
    other samples of i's class; anchors without any contribute zero. L_out of Khosla et al.,
    "Supervised Contrastive Learning" (NeurIPS 2020), eq. 2. (`optax.losses.ntxent` is another.)

    Args:
        embeddings: `[n, d]` of unit length, two views of a batch stacked.
        labels: `[n]` integers.
        temperature: τ > 0.

    Raises:
        TypeError: for embeddings that are not floating, or labels that are not integers.
        ValueError: for shapes that disagree and (where they are concrete) negative labels, a
            temperature that is not positive and finite, or embeddings that are not of unit length.
    """
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"embeddings must be [n, d] and labels [n], found {embeddings.shape} and {labels.shape}"
        )
    labels = _checks.integers("labels", labels, 2**31 - 1)
    temperature = _checks.positive("temperature", temperature)
    embeddings = _unit(embeddings)
    similarity = embeddings @ embeddings.T / temperature
    itself = jnp.eye(len(labels), dtype=bool)
    positive = (labels[:, None] == labels) & ~itself
    log_total = jax.nn.logsumexp(similarity, axis=1, where=~itself, keepdims=True)
    log_share = jnp.where(positive, similarity - log_total, 0)
    return -jnp.mean(log_share.sum(1) / jnp.maximum(positive.sum(1), 1))


def _unit(embeddings):
    """The embeddings, whose lengths may be off by what rounding and differences leave."""
    if not jnp.issubdtype(embeddings.dtype, jnp.floating):
        raise TypeError(f"embeddings must be floating, found {embeddings.dtype}")
    known = _checks.values(_checks.finite("embeddings", embeddings))
    if known is not None and known.size:
        length = np.sqrt(np.square(known.astype(np.float64)).sum(1))
        if np.abs(length - 1).max() > 0.1:
            raise ValueError(
                f"embeddings must be of unit length, found {length.min():.3g}..{length.max():.3g}"
            )
    return embeddings


class Embedding(NamedTuple):
    """What an encoder returns: `features` `[n, f]` of the network, unit `projection` `[n, d]`."""

    features: jax.Array
    projection: jax.Array


class Encoder(nn.Module):
    """A network's features and their projection through one hidden layer to the unit sphere.

    Attributes:
        network: a module of `jaxdd.networks`; its classifier is not used.
        hidden: units of the projection head's hidden layer.
        dimension: of the projection.
    """

    network: nn.Module
    hidden: int = 128
    dimension: int = 128

    @nn.compact
    def __call__(self, images: jax.Array) -> Embedding:
        """Embeds images `[n, h, w, c]`."""
        features = self.network(images).features
        projection = networks.Dense(self.dimension)(nn.relu(networks.Dense(self.hidden)(features)))
        length = jnp.sqrt(jnp.square(projection).sum(-1, keepdims=True) + 1e-12)
        return Embedding(features, projection / length)


class State(NamedTuple):
    """Encoder parameters and the optimizer's state."""

    params: Any
    optimizer: optax.OptState


class Trainer(NamedTuple):
    """`init(key, images) -> state` and `step(key, state, batch) -> (state, info)`."""

    init: Any
    step: Any


def trainer(
    encoder: Encoder,
    optimizer: optax.GradientTransformation,
    *,
    strategy: augment.Strategy = augment.OPERATIONS,
    temperature: float = 0.1,
    mesh: Mesh | None = None,
) -> Trainer:
    """Supervised contrastive training on two augmented views of class-balanced batches.

    Args:
        encoder: what is trained.
        optimizer: an optax transformation.
        strategy: of augmentation, drawn for each image of the two views.
        temperature: of `supervised_contrastive`.
        mesh: from `parallel.mesh`, whose devices share the views of a batch; None for one device.

    Returns:
        The pair of pure functions; `step` takes a `sampling.Batch` and reports `{"loss"}`.

    Raises:
        TypeError: for a strategy that is a string.
        ValueError: for an unknown operation in it, or a temperature that is not positive.
    """
    strategy = augment.as_strategy(strategy)
    temperature = _checks.positive("temperature", temperature)

    def project(views, params):
        return encoder.apply(params, views)[1]

    def forth(views, params):
        return microbatch.apply(lambda views: project(views, params), views)

    def back(rows, params):
        def gradient_of(views, slope):
            return jax.vjp(functools.partial(project, views), params)[1](slope)[0]

        return microbatch.total(gradient_of, *rows)

    if mesh is not None:
        forth, back = parallel.map_rows(forth, mesh), parallel.sum_rows(back, mesh)

    def init(key, images):
        params = networks.init_params(key, encoder, images[:1])
        return State(params, optimizer.init(params))

    def step(key, state, batch):
        k, b = batch.images.shape[:2]
        images = batch.images.reshape(k * b, *batch.images.shape[2:])
        views = jnp.concatenate(
            [augment.per_image(view, images, strategy=strategy) for view in jax.random.split(key)]
        )
        labels = jnp.tile(jnp.repeat(jnp.arange(k), b), 2)

        # The loss compares all views, but a few at a time go through the encoder there and back.
        projection = forth(views, state.params)
        loss = functools.partial(supervised_contrastive, labels=labels, temperature=temperature)
        value, slope = jax.value_and_grad(loss)(projection)
        gradient = back((views, slope), state.params)
        update, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        return State(optax.apply_updates(state.params, update), optimizer_state), {"loss": value}

    return Trainer(init, step)


def train(
    key: jax.Array, trainer: Trainer, pool: sampling.Pool, *, steps: int, batch_size: int = 256
) -> tuple[State, dict[str, jax.Array]]:
    """Trains an encoder from scratch as one compiled loop.

    Args:
        key: folded with the step number.
        trainer: from `trainer`.
        pool: the training set; its weights play no part.
        steps: number of updates.
        batch_size: samples of all classes together, at least two of each class.

    Returns:
        The final state, and the info of every step `[steps]`.

    Raises:
        ValueError: for a negative number of steps, or a batch of no samples.
    """
    steps = _checks.count("steps", steps, minimum=0)
    body = lambda state, i: update(key, trainer, pool, state, i, batch_size=batch_size)
    return jax.lax.scan(body, start(key, trainer, pool), jnp.arange(steps))


def start(key: jax.Array, trainer: Trainer, pool: sampling.Pool) -> State:
    """Returns the state that `train` starts from; the arguments are those of `train`."""
    first = sampling.take(pool, pool.order[:1])
    return trainer.init(jax.random.fold_in(key, 0), first)


def update(
    key: jax.Array,
    trainer: Trainer,
    pool: sampling.Pool,
    state: State,
    number: jax.Array | int,
    *,
    batch_size: int = 256,
) -> tuple[State, dict[str, jax.Array]]:
    """One step of `train`, for a loop of one's own.

    Args:
        key: as in `train`.
        trainer: as in `train`.
        pool: as in `train`.
        state: after the step before.
        number: of the step, from 0 on.
        batch_size: as in `train`.

    Returns:
        The state after it, and its info.

    Raises:
        ValueError: a batch of no samples.
    """
    each = max(2, _checks.count("batch_size", batch_size) // len(pool.count))
    draw, step = jax.random.split(jax.random.fold_in(key, number + 1))
    indices = sampling.without_replacement(draw, pool, each)
    weights = jnp.full(indices.shape, 1 / each)
    return trainer.step(step, state, sampling.Batch(sampling.take(pool, indices), weights))


def embed(
    encoder: Encoder, params: Any, pool: sampling.Pool, *, batch_size: int = 500
) -> Embedding:
    """Embeds all images of a pool, in its order, holding one batch of activations at a time.

    Args:
        encoder: the module.
        params: its parameters, `State.params`.
        pool: `n` images.
        batch_size: images embedded at once, at most.

    Returns:
        Features `[n, f]` and projections `[n, d]`.

    Raises:
        ValueError: for a batch of no images.
    """
    batch_size = _checks.count("batch_size", batch_size)
    normalise = functools.partial(sampling.normalise, mean=pool.mean, std=pool.std)
    apply = lambda images: encoder.apply(params, normalise(images))
    return microbatch.apply(apply, pool.images, max_images=batch_size)
