"""Density weights: embed, estimate the density within each class, weight by its inverse.

`by_density` is the whole method; `encode`, `density` and `from_density` are its three steps.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from jaxdd import _checks, augment, kde, networks, sampling
from jaxdd.devices import parallel
from jaxdd.weights import contrastive, formulas

_Layer = Literal["projection", "features"]
"""Layer of an encoder whose embeddings are used."""

_Bandwidth = Callable[..., jax.Array] | jax.Array | float
"""A number, one per class `[k]`, or a rule called per class as `rule(points, weights=mask)`."""


class _Encoded(NamedTuple):
    params: Any
    embeddings: jax.Array


class Density(NamedTuple):
    """Log density `[n]` of the samples within their class, and the bandwidths `[k]`."""

    log_density: jax.Array
    bandwidth: jax.Array


class DensityWeights(NamedTuple):
    """Density weights and the quantities they are computed from.

    Attributes:
        weights: `[n]`, each class sums to one.
        log_density: `[n]`, within the class, in nats.
        bandwidth: `[k]`, one per class.
        params: parameters of the encoder.
        embeddings: `[n, d]`.
    """

    weights: jax.Array
    log_density: jax.Array
    bandwidth: jax.Array
    params: Any
    embeddings: jax.Array


def default_encoder(
    pool: sampling.Pool, *, width: int = 32, depth: int | None = None
) -> contrastive.Encoder:
    """Return a ConvNet encoder without normalisation layers, which would remove colour cues.

    Args:
        pool: the samples.
        width: channels.
        depth: blocks, each of which halves the sides. Defaults to three, or to as many as the
            images allow.
    """
    depth = networks.max_blocks(pool.images.shape) if depth is None else depth
    return contrastive.Encoder(networks.ConvNet(pool.num_classes, width, depth, norm=None))


def encode(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    strategy: augment.Strategy,
    encoder: contrastive.Encoder | None = None,
    steps: int = 30,
    layer: _Layer = "projection",
) -> _Encoded:
    """Train a supervised contrastive encoder on the class labels and embed all samples.

    Args:
        key: random key for the training.
        pool: the samples; their weights are ignored.
        strategy: augmentation that preserves the class. Of operation names, "color" is left out,
            because it would train the encoder to ignore colours, which may be the bias. A function
            should not change colours either.
        encoder: network to train. Defaults to `default_encoder`.
        steps: training steps. Few, because networks learn the bias first.
        layer: layer whose embeddings are returned.

    Returns:
        A NamedTuple: `params` of the encoder, and `embeddings` `[n, d]`.
    """
    return EncoderTraining(key, pool, strategy=strategy, encoder=encoder).encode(steps, layer=layer)


class EncoderTraining:
    """Training of one encoder, whose state and embeddings are kept at every requested length.

    Longer training continues shorter training, so that no step is computed twice. The results
    equal those of the function `encode`, which has the same arguments.
    """

    def __init__(
        self,
        key: jax.Array,
        pool: sampling.Pool,
        *,
        strategy: augment.Strategy,
        encoder: contrastive.Encoder | None = None,
    ):
        strategy = augment.as_strategy(strategy)
        if not callable(strategy):
            strategy = tuple(name for name in strategy if name != "color")
        self._key, self._pool = key, pool
        self._encoder = default_encoder(pool) if encoder is None else encoder
        self._static = strategy, self._encoder, parallel.mesh_of(pool.images)
        self._states: dict[int, contrastive.State] = {}
        self._encoded: dict[tuple[int, str], _Encoded] = {}

    def encode(self, steps: int = 30, *, layer: _Layer = "projection") -> _Encoded:
        """Return parameters and embeddings after `steps` steps, as the function `encode` does."""
        if layer not in contrastive.Embedding._fields:
            raise ValueError(f"layer must be projection or features, got {layer!r}.")
        if (steps, layer) not in self._encoded:
            params = self._train(steps)
            embeddings = getattr(_embed(self._encoder, params, self._pool), layer)
            self._encoded[steps, layer] = _Encoded(params, embeddings)
        return self._encoded[steps, layer]

    def embed(self, pool: sampling.Pool, *, steps: int = 30) -> jax.Array:
        """Return the projections `[n, d]` of any pool after `steps` steps."""
        if pool is self._pool:
            return self.encode(steps).embeddings
        params = self._train(steps)
        if parallel.mesh_of(pool.images) is None:
            params = parallel.to_local(params)
        return _embed(self._encoder, params, pool).projection

    def search(
        self, search: "Search", *, clip: float | None = None
    ) -> Iterator[tuple[dict[str, float], DensityWeights]]:
        """Yield what `density_candidates` yields with this encoder."""
        for steps in sorted(set(search.encoder_steps)):
            encoded = self.encode(steps, layer=search.layer)
            rules = [functools.partial(search.rule, factor=factor) for factor in search.bandwidth]
            estimates = _densities(encoded.embeddings, self._pool, bandwidths=rules)
            for factor, estimate in zip(search.bandwidth, estimates, strict=True):
                for temperature in search.temperature:
                    values = dict(encoder_steps=steps, bandwidth=factor, temperature=temperature)
                    weights = from_density(
                        estimate.log_density, self._pool, temperature=temperature, clip=clip
                    )
                    yield values, DensityWeights(weights, *estimate, *encoded)

    def _train(self, steps):
        steps = _checks.count("steps", steps, minimum=0)
        if steps not in self._states:
            where = self._key, self._pool, *self._static
            done = max((length for length in self._states if length < steps), default=0)
            state = self._states.get(done) or _init_training(*where)
            self._states[steps] = _continue_training(*where, state, done, steps)
        return self._states[steps].params


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _init_training(key, pool, strategy, encoder, mesh):
    state = contrastive.init(key, _trainer(strategy, encoder, mesh), pool)
    return parallel.constrain_replicated(state, mesh)


# The step numbers are traced, so that one program serves all training lengths.
@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _continue_training(key, pool, strategy, encoder, mesh, state, done, steps):
    trainer = _trainer(strategy, encoder, mesh)
    body = lambda i, state: contrastive.update(key, trainer, pool, state, i)[0]
    return parallel.constrain_replicated(jax.lax.fori_loop(done, steps, body, state), mesh)


def _trainer(strategy, encoder, mesh):
    return contrastive.trainer(encoder, optax.adam(1e-3), strategy=strategy, mesh=mesh)


def _embed(encoder, params, pool):
    # The images are a separate argument, so that each device embeds the rows that it holds.
    images, without_images = pool.images, pool._replace(images=pool.mean)
    embed = functools.partial(_embed_images, encoder)
    return parallel.apply_by_rows(embed, images, params, without_images)


@functools.partial(jax.jit, static_argnums=0)
def _embed_images(encoder, images, params, pool):
    return contrastive.embed(encoder, params, pool._replace(images=images))


def density(
    embeddings: jax.Array,
    pool: sampling.Pool,
    *,
    bandwidth: _Bandwidth = kde.mean_distance,
    mesh: Mesh | None = None,
) -> Density:
    """Estimate the density of every sample within its class.

    Args:
        embeddings: `[n, d]` of the samples of the pool, from any encoder.
        pool: the samples.
        bandwidth: h of the kernel: a number, one per class `[k]`, or a rule that is called for
            each class as `rule(points, weights=mask)`, for example `kde.scott`.
        mesh: devices that share the work, from `parallel.mesh`. Defaults to the mesh of the pool.
    """
    return _densities(embeddings, pool, bandwidths=[bandwidth], mesh=mesh)[0]


def _densities(
    embeddings: jax.Array,
    pool: sampling.Pool,
    *,
    bandwidths: Sequence[_Bandwidth],
    mesh: Mesh | None = None,
) -> list[Density]:
    """Estimate densities for several bandwidths, which share one pass over the distances."""
    embeddings = _checks.finite("embeddings", _checks.floating("embeddings", embeddings))
    values = jnp.stack([_per_class(bandwidth, embeddings, pool) for bandwidth in bandwidths])
    mesh = parallel.mesh_of(pool.images) if mesh is None else mesh
    if mesh is not None and parallel.is_one_cpu(mesh):
        mesh = None  # The program for one device already uses all cores of the CPU.
    log_density = _log_densities(mesh, embeddings, pool.labels, values, pool.num_classes)
    return [Density(*pair) for pair in zip(parallel.to_local(log_density), values, strict=True)]


def _per_class(bandwidth: _Bandwidth, embeddings: jax.Array, pool: sampling.Pool) -> jax.Array:
    k = pool.num_classes
    if callable(bandwidth):
        bandwidth = kde.class_bandwidth(bandwidth, embeddings, pool.labels, num_classes=k)
    return jnp.broadcast_to(_checks.positive("bandwidth", jnp.asarray(bandwidth)), (k,))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _log_densities(mesh, embeddings, labels, bandwidths, num_classes):
    estimate = kde.class_log_density
    if mesh is not None:
        estimate = functools.partial(_class_log_density_on_mesh, mesh=mesh)
    at_bandwidth = lambda h: estimate(embeddings, labels, h, num_classes=num_classes)
    return jax.vmap(at_bandwidth)(bandwidths)


def _class_log_density_on_mesh(
    embeddings: jax.Array,
    labels: jax.Array,
    bandwidth: jax.Array | float,
    *,
    mesh: Mesh,
    weights: jax.Array | None = None,
    **options: Any,
) -> jax.Array:
    """Compute `kde.class_log_density` with the samples split over the devices of a mesh.

    Each of D devices keeps n / D samples as queries. The samples are also the points, which are
    passed around a ring (`jaxdd.kernel_sums`), so no device holds more than 3 n / D of them. The
    options are those of `kde.class_log_density`.
    """
    weights = jnp.ones(len(embeddings)) if weights is None else weights
    # The devices must divide the number of rows. Samples of weight 0 make up the difference.
    rows, row_labels = parallel.pad_rows((embeddings, labels), mesh.size)
    row_weights = parallel.pad_rows_with_zeros(weights, mesh.size)
    estimate = functools.partial(kde.class_log_density, axis=parallel.AXIS, **options)
    split = PartitionSpec(parallel.AXIS)
    on_mesh = jax.shard_map(
        lambda x, labels, weights, h: estimate(x, labels, h, weights=weights),
        mesh=mesh,
        in_specs=(split, split, split, PartitionSpec()),
        out_specs=split,
    )
    return on_mesh(rows, row_labels, row_weights, bandwidth)[: len(embeddings)]


def from_density(
    log_density: jax.Array,
    pool: sampling.Pool,
    *,
    temperature: jax.Array | float = 1.0,
    clip: float | None = None,
) -> jax.Array:
    """Turn log densities `[n]` into weights `[n]`.

    Args:
        log_density: within the class, in nats.
        pool: the samples.
        temperature: t of the weights f^(-1/t); above 1 towards uniform, see
            `formulas.inverse_density`.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
    """
    classes = dict(num_classes=pool.num_classes)
    weights = formulas.inverse_density(log_density, pool.labels, temperature=temperature, **classes)
    return formulas.clip(weights, pool.labels, limit=clip, **classes)


def by_density(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    strategy: augment.Strategy,
    encoder: contrastive.Encoder | None = None,
    steps: int = 30,
    layer: _Layer = "projection",
    bandwidth: _Bandwidth = kde.mean_distance,
    temperature: jax.Array | float = 1.0,
    clip: float | None = None,
) -> DensityWeights:
    """Weight every sample by the inverse density of its neighbourhood, without bias labels.

    The method of Cui et al., "Mitigating Bias in Dataset Distillation" (ICML 2024), for the whole
    pool instead of each batch. It helps if the encoder sees the bias; on unbiased data it costs
    accuracy, see `choose`.

    Args:
        key: random key for training the encoder.
        pool: the samples, from `sampling.pool` or `jaxdd.data.datasets.pool`.
        strategy: augmentation that preserves the class; "color" is left out, see `encode`.
        encoder: network to train. Defaults to `default_encoder`.
        steps: training steps of the encoder.
        layer: layer of the encoder whose embeddings are used.
        bandwidth: h of the kernel: a number, one per class `[k]`, or a rule that is called for
            each class as `rule(points, weights=mask)`, for example `kde.scott`.
        temperature: t of the weights f^(-1/t); above 1 towards uniform.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
    """
    formulas.check_limit("clip", clip)
    encoded = encode(key, pool, strategy=strategy, encoder=encoder, steps=steps, layer=layer)
    estimate = density(encoded.embeddings, pool, bandwidth=bandwidth)
    weights = from_density(estimate.log_density, pool, temperature=temperature, clip=clip)
    return DensityWeights(weights, *estimate, *encoded)


class Search(NamedTuple):
    """Density weights to search: all combinations of three values, and common settings.

    Attributes:
        encoder_steps: training steps of the encoder.
        bandwidth: factors of the bandwidth rule.
        temperature: temperatures of the inverse density.
        rule: bandwidth rule, called for each class as `rule(points, weights=mask, factor=...)`.
        encoder: network to train; None for `default_encoder`.
        layer: layer of the encoder whose embeddings are used.
    """

    encoder_steps: tuple[int, ...] = (30, 90)
    bandwidth: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    temperature: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4, 2.0)
    rule: Callable[..., jax.Array] = kde.mean_distance
    encoder: contrastive.Encoder | None = None
    layer: _Layer = "projection"


def density_candidates(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    strategy: augment.Strategy,
    search: Search = Search(),
    clip: float | None = None,
) -> Iterator[tuple[dict[str, float], DensityWeights]]:
    """Yield the values and the weights of every candidate of a search, shortest encoder first.

    Each encoder equals that of `by_density` with the same key and steps. Longer training continues
    shorter training, and all bandwidths of an encoder share the distances.

    Args:
        key: random key for the encoders.
        pool: the samples.
        strategy: augmentation that preserves the class, see `encode`.
        search: the values.
        clip: largest weight as a multiple of the uniform one. Defaults to no limit.
    """
    training = EncoderTraining(key, pool, strategy=strategy, encoder=search.encoder)
    return training.search(search, clip=clip)


def oracle(pool: sampling.Pool, attributes: jax.Array, *, num_attributes: int) -> jax.Array:
    """Return weights `[n]` under which all bias groups of a class weigh the same, by bias labels.

    Args:
        pool: the samples.
        attributes: `[n]` integers in [0, num_attributes).
        num_attributes: number of values of the bias attribute.
    """
    sizes = dict(num_classes=pool.num_classes, num_attributes=num_attributes)
    return formulas.oracle(pool.labels, jnp.asarray(attributes), **sizes)
