"""From a data set to the weights of its samples: by density without bias labels, or by the labels."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import contrastive, kde, networks, reweight
from jaxdd.data import datasets
from jaxdd.runs import jobs, processes


class Encoded(NamedTuple):
    """What maps normalised images to embeddings, and the training set's, `[n, d]`."""

    encode: Callable[[jax.Array], jax.Array]
    embeddings: jax.Array


class Density(NamedTuple):
    """Log density `[n]` of the training samples within their class, and the bandwidths `[k]`."""

    log_density: jax.Array
    bandwidth: jax.Array


class Weighing(NamedTuple):
    """Weights `[n]` and log density `[n]` of the training samples, and where it was estimated.

    `encode` maps normalised images to embeddings, `bandwidth` is `[k]`; embeddings are `[n, d]`.
    """

    weights: jax.Array
    log_density: jax.Array
    bandwidth: jax.Array
    encode: Callable[[jax.Array], jax.Array]
    embeddings: jax.Array


def _bandwidth(job, embeddings, labels):
    options, classes = job.options, job.benchmark.num_classes
    factor = {} if options.bandwidth is None else dict(factor=options.bandwidth)
    rules = {
        "mean-distance": kde.mean_distance,
        "median-distance": functools.partial(kde.median_distance, jobs.key(options, "median")),
        "scott": kde.scott,
        "silverman": kde.silverman,
    }
    if options.bandwidth_rule == "fixed":
        return jnp.full(classes, options.bandwidth)
    if options.bandwidth_rule == "likelihood":
        scale = kde.class_bandwidth(
            functools.partial(kde.mean_distance, factor=1.0),
            embeddings,
            labels,
            num_classes=classes,
        )
        candidates = jnp.geomspace(0.01, 1, 13)[:, None] ** 0.5 * scale
        return kde.likelihood(embeddings, labels, candidates, num_classes=classes)
    rule = functools.partial(rules[options.bandwidth_rule], **factor)
    return kde.class_bandwidth(rule, embeddings, labels, num_classes=classes)


def embed(job: jobs.Job) -> Encoded:
    """Trains the encoder and embeds the training set; bias labels are not looked at."""
    options, classes = job.options, job.benchmark.num_classes
    pool = datasets.pool(job.benchmark)
    body = networks.ConvNet(classes, options.encoder_width, options.depth, norm=None)
    encoder = contrastive.Encoder(body)
    # The colour operation would teach the encoder to ignore the cue that it is here to find.
    strategy = tuple(name for name in job.benchmark.strategy if name != "color")
    trainer = contrastive.trainer(encoder, optax.adam(1e-3), strategy=strategy)
    with jobs.timed(job.seconds, "embed"):
        train = functools.partial(
            contrastive.train, trainer=trainer, steps=options.encoder_steps, batch_size=256
        )
        state, _ = jax.jit(train)(jobs.key(options, "encoder"), pool=pool)
        state = processes.broadcast(state)
        whole = jax.jit(functools.partial(contrastive.embed, encoder))
        embeddings = getattr(whole(state.params, pool), options.embedding)
        jax.block_until_ready(embeddings)
    encode = lambda images: getattr(encoder.apply(state.params, images), options.embedding)
    return Encoded(encode, embeddings)


def density(job: jobs.Job, encoded: Encoded) -> Density:
    """Estimates the density of the embedded training set within each class."""
    labels, classes = jnp.asarray(job.benchmark.train.labels), job.benchmark.num_classes
    with jobs.timed(job.seconds, "density"):
        bandwidth = _bandwidth(job, encoded.embeddings, labels)
        log_density = jax.jit(kde.class_log_density, static_argnames="num_classes")(
            encoded.embeddings, labels, bandwidth, num_classes=classes
        )
        return Density(jax.block_until_ready(log_density), bandwidth)


def weights(job: jobs.Job, log_density: jax.Array) -> jax.Array:
    """Turns log densities `[n]` into weights `[n]`, as the options say."""
    labels, classes = jnp.asarray(job.benchmark.train.labels), job.benchmark.num_classes
    found = reweight.inverse_density(
        log_density, labels, num_classes=classes, temperature=job.options.temperature
    )
    if job.options.clip is not None:
        found = reweight.clip(found, labels, num_classes=classes, limit=job.options.clip)
    return processes.broadcast(found)


def weigh(job: jobs.Job) -> Weighing:
    """Embeds the training set, estimates its density and turns it into weights."""
    job.report("embedding", 0, 1)
    encoded = embed(job)
    found = density(job, encoded)
    job.report("embedding", 1, 1)
    return Weighing(weights(job, found.log_density), *found, *encoded)


def oracle(job: jobs.Job) -> jax.Array:
    """Weights that give every bias group of a class the same mass; needs attributes.

    Raises:
        ValueError: when the training set has none.
    """
    train = job.benchmark.train
    if train.attributes is None:
        raise ValueError(f"the oracle needs bias attributes, {job.benchmark.name} has none")
    return reweight.oracle(
        jnp.asarray(train.labels),
        jnp.asarray(train.attributes),
        num_classes=job.benchmark.num_classes,
        num_attributes=job.benchmark.num_attributes,
    )
