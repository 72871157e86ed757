"""Draws made of draws: weighed by density, thinned to representatives, bias group by bias group.

A draw is `draw(key, pool) -> Batch`, such as `functools.partial(sampling.uniform_batch, size=256)`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdd import _checks, kde, sampling
from jaxdd.sampling import Draw


def density_weighted(
    draw: Draw, embed: Callable[[jax.Array], jax.Array], *, bandwidth: float, temperature: float = 1
) -> Draw:
    """Weighs each batch by the inverse density of its own samples, the paper's O(b²d) form.

    `w_i ∝ v_i f̂(x_i)^(−1/τ)` within a class, f̂ being the Gaussian KDE of the class's samples in the
    batch and v the weights that `draw` gave them (zero for padding).

    Args:
        draw: for example `functools.partial(sampling.uniform_batch, size=256)`.
        embed: normalised images `[n, h, w, c]` to embeddings `[n, d]`, parameters closed over.
        bandwidth: h of the kernel, scalar or `[k]`.
        temperature: τ.

    Raises:
        ValueError: a bandwidth or a temperature that is not positive and finite or, for the
            bandwidth in the first draw, of another shape.
    """
    _checks.positive("bandwidth", bandwidth)
    if jnp.ndim(_checks.positive("temperature", temperature)):
        raise ValueError(f"temperature must be a scalar, found shape {jnp.shape(temperature)}")

    def reweighted(key, pool):
        batch = draw(key, pool)
        k, b = batch.weights.shape
        if jnp.shape(bandwidth) not in ((), (k,)):
            raise ValueError(
                f"bandwidth must be a scalar or one per class, {k}, found {jnp.shape(bandwidth)}"
            )
        flat = batch.images.reshape(k * b, *batch.images.shape[2:])
        embeddings = embed(flat).reshape(k, b, -1)
        density = jax.vmap(lambda x, v, h: kde.log_density(x, x, h, weights=v))
        log_density = density(embeddings, batch.weights, jnp.broadcast_to(bandwidth, (k,)))
        logits = jnp.log(batch.weights) - log_density / temperature
        return batch._replace(weights=jax.nn.softmax(logits, axis=1))

    return reweighted


def representative(
    draw: Draw, embed: Callable[[jax.Array], jax.Array], *, size: int, iterations: int = 10
) -> Draw:
    """Picks, among the samples drawn, the `size` of each class that stand for all of them.

    The samples are clustered by weighted k-means (Lloyd's, from the first `size` of them) and the
    nearest to each centre is kept, with its weight: the sampling of DREAM (Liu et al., "Efficient
    Dataset Distillation by Representative Matching", ICCV 2023), which embeds in the network that
    is being trained. Samples of weight zero neither count nor are kept.

    Args:
        draw: of more samples than are wanted.
        embed: normalised images `[n, h, w, c]` to embeddings `[n, d]`, parameters closed over.
        size: samples of each class to keep.
        iterations: of Lloyd's algorithm.
    """

    def centres(points, weights):
        def move(centres, _):
            nearest = jnp.argmin(_squared_distances(points, centres), 1)
            mass = jax.nn.one_hot(nearest, size) * weights[:, None]
            total = mass.sum(0)[:, None]
            means = jnp.einsum("ns,nd->sd", mass, points, precision="highest")
            return jnp.where(total > 0, means / jnp.where(total > 0, total, 1), centres), None

        return jax.lax.scan(move, points[:size], length=iterations)[0]

    def chosen(points, weights):
        distances = _squared_distances(points, centres(points, weights))
        return jnp.argmin(jnp.where(weights[:, None] > 0, distances, jnp.inf), 0)

    def picked(key, pool):
        batch = draw(key, pool)
        k, b = batch.weights.shape
        if b < size:
            raise ValueError(f"draw must give {size} samples of a class or more, found {b}")
        flat = batch.images.reshape(k * b, *batch.images.shape[2:])
        rows = jax.vmap(chosen)(embed(flat).reshape(k, b, -1), batch.weights)
        images, weights = (jax.vmap(lambda x, i: x[i])(x, rows) for x in batch)
        total = weights.sum(1, keepdims=True)
        return sampling.Batch(images, weights / jnp.where(total > 0, total, 1))

    return picked


def _squared_distances(points, centres):
    product = jnp.einsum("nd,sd->ns", points, centres, precision="highest")
    return jnp.square(points).sum(1)[:, None] - 2 * product + jnp.square(centres).sum(1)


def grouped(draw: Draw, *, groups: int) -> Draw:
    """Draws from each bias group of each class, for methods with `groups`.

    Args:
        draw: what to do with a pool whose classes are the groups, number `class · groups +
            attribute`, some of which may be empty: `functools.partial(sampling.uniform_batch, …)`.
        groups: of each class.
    """

    def joined(key, pool):
        batch = draw(key, pool)
        return jax.tree.map(lambda x: x.reshape(-1, groups * x.shape[1], *x.shape[2:]), batch)

    return joined
