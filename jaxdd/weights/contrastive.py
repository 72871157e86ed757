"""Supervised contrastive encoder, in whose embedding the density is estimated.

The encoder is trained on class labels, without bias labels. Networks learn the easy cue first, so
after a short training the samples that share the bias attribute of their class are close together
and the bias-conflicting ones apart. Longer training is not better here.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jaxdd import _checks, augment, networks, sampling, training
from jaxdd.devices import microbatch, parallel


def supervised_contrastive(
    embeddings: jax.Array, labels: jax.Array, *, temperature: float = 0.1
) -> jax.Array:
    """Return the supervised contrastive loss, in the form with the sum outside the logarithm.

    `mean_i −1/|P(i)| Σ_{p∈P(i)} log( exp(z_i·z_p/τ) / Σ_{a≠i} exp(z_i·z_a/τ) )`, where P(i) are the
    other samples of i's class; anchors without such samples contribute zero. L_out of Khosla et
    al., "Supervised Contrastive Learning" (NeurIPS 2020), eq. 2. (`optax.losses.ntxent` is
    another.)

    Args:
        embeddings: `[n, d]` of unit length, two augmented views of a batch stacked.
        labels: `[n]` integers.
        temperature: τ > 0.
    """
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings must have shape [n, d], got {embeddings.shape}.")
    labels = _checks.integers("labels", labels, 2**31 - 1, length=len(embeddings))
    temperature = _checks.positive("temperature", temperature)
    embeddings = _check_unit_length(embeddings)
    similarity = jnp.matmul(embeddings, embeddings.T, precision="highest") / temperature
    itself = jnp.eye(len(labels), dtype=bool)
    positive = (labels[:, None] == labels[None]) & ~itself
    log_total = jax.nn.logsumexp(similarity, axis=1, where=~itself, keepdims=True)
    log_share = jnp.where(positive, similarity - log_total, 0)
    count = jnp.maximum(positive.sum(1), 1).astype(log_share.dtype)
    return -jnp.mean(log_share.sum(1) / count)


def _check_unit_length(embeddings):
    if not jnp.issubdtype(embeddings.dtype, jnp.floating):
        raise TypeError(f"embeddings must be floating, got {embeddings.dtype}.")
    known = _checks.values(_checks.finite("embeddings", embeddings))
    if known is not None and known.size:
        length = np.sqrt(np.square(known.astype(np.float64)).sum(1))
        # The tolerance admits rounding, and the steps of finite differences.
        if np.abs(length - 1).max() > 0.1:
            raise ValueError(
                "embeddings must have unit length, "
                f"got lengths in {length.min():.3g}..{length.max():.3g}."
            )
    return embeddings


class Embedding(NamedTuple):
    """Output of an encoder: unit-length `projection` `[n, d]` and network `features` `[n, f]`."""

    features: jax.Array
    projection: jax.Array


class Encoder(nn.Module):
    """The features of a network, and their projection through a hidden layer to the unit sphere.

    Attributes:
        network: a module of `jaxdd.networks`; its classifier is not used.
        hidden: units of the hidden layer of the projection head.
        dimension: dimension of the projection.
    """

    network: nn.Module
    hidden: int = 128
    dimension: int = 128

    @nn.compact
    def __call__(self, images: jax.Array) -> Embedding:
        """Embed images `[n, h, w, c]`."""
        features = self.network(images).features
        projection = networks.Dense(self.dimension)(nn.relu(networks.Dense(self.hidden)(features)))
        length = jnp.sqrt(jnp.square(projection).sum(-1, keepdims=True) + 1e-12)
        return Embedding(features, projection / length)


class State(NamedTuple):
    """Encoder parameters and the state of the optimizer."""

    params: Any
    optimizer: optax.OptState


class Trainer(NamedTuple):
    """`init(key, images) -> state` and `step(key, state, batch) -> (state, {"loss": ...})`."""

    init: Callable[..., State]
    step: Callable[..., tuple[State, dict[str, jax.Array]]]


def trainer(
    encoder: Encoder,
    optimizer: optax.GradientTransformation,
    *,
    strategy: augment.Strategy = augment.OPERATIONS,
    temperature: float = 0.1,
    mesh: Mesh | None = None,
) -> Trainer:
    """Build supervised contrastive training on two augmented views of class-balanced batches.

    Args:
        encoder: network to train.
        optimizer: an optax transformation.
        strategy: augmentation, drawn anew for each image of the two views.
        temperature: τ of `supervised_contrastive`.
        mesh: devices that share the views of a batch, from `parallel.mesh`. Defaults to one device.
    """
    strategy = augment.as_strategy(strategy)
    temperature = _checks.positive("temperature", temperature)
    step = functools.partial(_step, encoder, optimizer, strategy, temperature, mesh)
    return Trainer(functools.partial(_init, encoder, optimizer), step)


def _init(encoder, optimizer, key, images):
    params = networks.init_params(key, encoder, images[:1])
    return State(params, optimizer.init(params))


# If the largest array that the encoder computes from all views of a batch takes no more than this,
# all activations are kept for the backward pass.
_KEPT_BYTES = 512 * 2**20


def _step(encoder, optimizer, strategy, temperature, mesh, key, state, batch):
    chex.assert_rank(batch.images, 5)  # [k, b, h, w, c]
    images, labels = sampling.flatten(batch.images)
    augmented = lambda key: augment.per_image(key, images, strategy=strategy)
    views = jax.vmap(augmented)(jax.random.split(key)).reshape(-1, *images.shape[1:])
    labels = jnp.tile(labels, 2)
    loss = functools.partial(supervised_contrastive, labels=labels, temperature=temperature)

    def project(views, params):
        return encoder.apply(params, views).projection

    of_views = functools.partial(project, params=state.params)
    if mesh is None and len(views) * microbatch.bytes_per_row(of_views, views) <= _KEPT_BYTES:
        value, gradient = _gradient(project, loss, views, state.params)
    else:
        value, gradient = _recomputed_gradient(project, loss, views, state.params, mesh)
    state = State(*training.apply_gradients(optimizer, gradient, state.optimizer, state.params))
    return state, {"loss": value}


def _gradient(project, loss, views, params):
    """Return the loss and its gradient, with activations kept for the backward pass."""

    def of_params(params):
        of_views = functools.partial(project, params=params)
        return loss(microbatch.apply(of_views, views, activation_bytes=microbatch.GRADIENT_BYTES))

    return jax.value_and_grad(of_params)(params)


# The loss compares all views of a batch, but their activations need not be in memory at once: the
# projections are computed in micro-batches, the loss is differentiated with respect to the
# projections, and each micro-batch is computed again to propagate this gradient to the parameters.
# The sum of these gradients is the gradient of the whole batch.
def _recomputed_gradient(project, loss, views, params, mesh):
    """Return the loss and its gradient, with activations of one micro-batch at a time."""

    def forward(views, params):
        return microbatch.apply(functools.partial(project, params=params), views)

    def backward(rows, params):
        def gradient_of(views, slope):
            return jax.vjp(functools.partial(project, views), params)[1](slope)[0]

        return microbatch.total(gradient_of, *rows)

    if mesh is not None:
        forward, backward = parallel.map_rows(forward, mesh), parallel.sum_rows(backward, mesh)
    value, slope = jax.value_and_grad(loss)(forward(views, params))
    return value, backward((views, slope), params)


def init(key: jax.Array, trainer: Trainer, pool: sampling.Pool) -> State:
    """Return the state before the first `update` with the same key."""
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
    """Make one training step on a batch drawn from the pool.

    Args:
        key: random key of the training; it is folded with the number of the step.
        trainer: from `trainer`.
        pool: the training set; its weights are ignored.
        state: from `init` or the previous step.
        number: number of the step, from 0.
        batch_size: samples of all classes together, but at least two of each class.

    Returns:
        The new state, and the loss.
    """
    size = max(2, _checks.count("batch_size", batch_size) // len(pool.count))
    key_batch, key_step = jax.random.split(jax.random.fold_in(key, number + 1))
    indices = sampling.without_replacement(key_batch, pool, size)
    weights = jnp.full(indices.shape, 1 / size)
    return trainer.step(key_step, state, sampling.Batch(sampling.take(pool, indices), weights))


def embed(
    encoder: Encoder, params: Any, pool: sampling.Pool, *, batch_size: int = 500
) -> Embedding:
    """Embed all images of a pool, in its order, in micro-batches.

    Args:
        encoder: the module.
        params: its parameters, `State.params`.
        pool: `n` images.
        batch_size: largest number of images embedded at once.

    Returns:
        Features `[n, f]` and projections `[n, d]`.
    """
    batch_size = _checks.count("batch_size", batch_size)
    normalise = functools.partial(sampling.normalise, mean=pool.mean, std=pool.std)
    apply = lambda images: encoder.apply(params, normalise(images))
    return microbatch.apply(apply, pool.images, max_images=batch_size)
