"""Pools of real images on the device, and samplers that draw class-balanced batches from them.

A `Pool` stores images as uint8 with weights and one index sorted by class, so that classes of
different sizes need no padding. A sampler is a function `sampler(key, pool) -> Batch`; a batch has
equally many samples of each class:

| sampler | draws | weights of the batch |
| --- | --- | --- |
| `uniform_batch` | uniformly without replacement | those of the samples |
| `weighted_batch` | in proportion to the weights | equal |

Both give a weighted mean the same expectation. If 5 % of the samples carry 90 % of the weight, the
second has far less variance. `density_weighted`, `representative` and `grouped` extend a sampler.
`mixture_batch` draws one batch for several weightings of a training set.

>>> import jax, numpy as np
>>> images = np.zeros((6, 4, 4, 1), np.uint8)
>>> labels = np.array([0, 0, 0, 0, 1, 1])
>>> training = pool(images, labels, num_classes=2, mean=(0.5,), std=(0.5,))
>>> uniform_batch(jax.random.key(0), training, 4).weights.tolist()
[[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0]]
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import _checks, kde

Values = ArrayLike | Sequence[float]
"""An array of any library, or plain numbers."""


class Pool(NamedTuple):
    """A training set indexed by class; build it with `pool`.

    Attributes:
        images: `[n, h, w, c]`, uint8 (0–255) or floating in [0, 1]. Those of `split_pool.pool` can
            only be indexed.
        labels: `[n]` classes, int32.
        weights: `[n]`, summing to one in each class.
        order: `[n]` indices of the samples, sorted by class.
        start: `[k]` first position of each class in `order`.
        count: `[k]` samples of each class.
        cumulative: `[n]` cumulative weights along `order`, restarting in each class.
        mean: `[c]` of the pixels, on the scale [0, 1].
        std: `[c]` of the pixels, on the scale [0, 1].
    """

    images: jax.Array
    labels: jax.Array
    weights: jax.Array
    order: jax.Array
    start: jax.Array
    count: jax.Array
    cumulative: jax.Array
    mean: jax.Array
    std: jax.Array

    @property
    def num_classes(self) -> int:
        """The number of classes, k."""
        return len(self.count)


class Batch(NamedTuple):
    """A batch with the same number of samples of each class.

    Attributes:
        images: `[k, b, h, w, c]`, normalised.
        weights: `[k, b]`, rows sum to one.
    """

    images: jax.Array
    weights: jax.Array


Sampler = Callable[[jax.Array, Pool], Batch]
"""`sampler(key, pool) -> batch`, such as `functools.partial(uniform_batch, size=256)`."""


def pool(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int,
    mean: Values,
    std: Values,
    weights: Values | None = None,
    empty: bool = False,
) -> Pool:
    """Index a labelled training set by class.

    Args:
        images: `[n, h, w, c]`, uint8 or floating in [0, 1].
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes, k.
        mean: per channel, on the scale [0, 1].
        std: per channel, on the scale [0, 1], positive.
        weights: `[n]`, non-negative; normalised within each class. Uniform by default.
        empty: accept classes without samples; `uniform_batch` fills them with weight zero.
    """
    images = _checks.pixels("images", images)
    if np.shape(labels) != images.shape[:1]:
        raise ValueError(
            f"labels must be [n] = {images.shape[:1]} like the images, got {np.shape(labels)}."
        )
    mean, std = _checks.moments(mean, std, images.shape[3])
    labels = _checks.integers("labels", labels, num_classes)
    known = None if empty else _checks.values(labels)
    if known is not None and not (count := np.bincount(known, minlength=num_classes)).all():
        raise ValueError(f"Every class needs a sample, got none of class {count.argmin()}.")
    order, start, count = _index(labels, num_classes)
    zeros = jnp.zeros(labels.shape)
    unweighted = Pool(images, labels, zeros, order, start, count, zeros, mean, std)
    return reweight(unweighted, jnp.ones(labels.shape) if weights is None else weights)


def reweight(pool: Pool, weights: Values) -> Pool:
    """Return the pool with other weights; images and index are shared.

    Args:
        pool: a training set.
        weights: `[n]`, non-negative; normalised within each class.

    >>> training = pool(np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 0, 1]), num_classes=2,
    ...                 mean=(0.5,), std=(0.5,))
    >>> reweight(training, np.array([3, 1, 7])).weights.tolist()
    [0.75, 0.25, 1.0]
    """
    weights = jnp.asarray(weights, jnp.float32)
    if weights.shape != pool.labels.shape:
        raise ValueError(f"weights must be [n] = {pool.labels.shape}, got {weights.shape}.")
    _checks.class_weights(weights, pool.labels, pool.num_classes)
    weights, cumulative = _normalise_by_class(weights, pool.labels, pool.order, pool.start)
    return pool._replace(weights=weights, cumulative=cumulative)


# Compiled, because executing their operations one by one takes a second on the first call.
@functools.partial(jax.jit, static_argnames="num_classes")
def _index(labels, num_classes):
    """Return the samples sorted by class, and the first position and the size of each class."""
    count = jnp.bincount(labels, length=num_classes)
    return jnp.argsort(labels, stable=True), jnp.cumsum(count) - count, count


@jax.jit
def _normalise_by_class(weights, labels, order, start):
    """Return weights that sum to one in each class, and their cumulative sums."""
    weights = weights / jax.ops.segment_sum(weights, labels, len(start))[labels]
    first = jnp.zeros(weights.shape, bool).at[start].set(True)

    # A segmented sum: it restarts where `first` is set. One global sum, minus its value at the
    # start of each class, would lose digits in float32 if there are many classes.
    def add(left, right):
        return jnp.where(right[1], right[0], left[0] + right[0]), left[1] | right[1]

    return weights, jax.lax.associative_scan(add, (weights[order], first))[0]


def normalise(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """Return `(images / 255 − mean) / std` in float32; floating images are already in [0, 1]."""
    scale = 1 / 255 if jnp.issubdtype(images.dtype, jnp.integer) else 1.0
    mean, std = (jax.lax.broadcast_to_rank(jnp.asarray(x), images.ndim) for x in (mean, std))
    return (images.astype(jnp.float32) * scale - mean) / std


def take(pool: Pool, indices: jax.Array) -> jax.Array:
    """Return the normalised images at indices of any shape, `[*indices.shape, h, w, c]`."""
    return normalise(pool.images[indices], pool.mean, pool.std)


def flatten(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return images `[k, b, h, w, c]` as `[k · b, h, w, c]`, and their classes `[k · b]`."""
    k, b = images.shape[:2]
    return images.reshape(k * b, *images.shape[2:]), jnp.arange(k).repeat(b)


def without_replacement(
    key: jax.Array, pool: Pool, size: int, *, weighted: bool = False
) -> jax.Array:
    """Draw `[k, size]` indices, each sample of a class at most once.

    The samples of a class with fewer than `size` are repeated in the same order.

    Args:
        key: random key.
        pool: a training set.
        size: samples per class.
        weighted: draw sequentially in proportion to the weights of the remaining samples, and none
            of weight zero. The default is uniform.
    """
    # Sorting by Gumbel noise + log weight is the same as drawing one by one in proportion to the
    # weights (Efraimidis and Spirakis, 2006), in one sort for all classes.
    size = _checks.count("size", size)
    score, count = jax.random.gumbel(key, pool.order.shape), pool.count
    labels = pool.labels[pool.order]
    if weighted:
        score = score + jnp.log(pool.weights[pool.order])
        count = jax.ops.segment_sum((score > -jnp.inf).astype(int), labels, len(count))
    shuffled = pool.order[jnp.lexsort((-score, labels))]
    position = jnp.arange(size)[None] % jnp.maximum(count[:, None], 1)
    return shuffled[pool.start[:, None] + position]


def with_replacement(key: jax.Array, pool: Pool, size: int) -> jax.Array:
    """Draw `[k, size]` indices in proportion to the weights, stratified.

    Each class is divided into `size` strata of equal weight and one sample is drawn from each. The
    expected number of draws of a sample is `size · weight`, as for independent draws, with less
    variance.
    """
    size = _checks.count("size", size)
    shape = (len(pool.count), size)
    uniform = jax.random.uniform(key, shape)
    target = (jnp.arange(size).astype(uniform.dtype)[None] + uniform) / size
    low = jnp.broadcast_to(pool.start[:, None], shape)
    high = jnp.broadcast_to((pool.start + pool.count)[:, None] - 1, shape)

    # Binary search of the cumulative weights of each class. The loop is unrolled because the carry
    # of a `lax` loop must vary over the devices of a `shard_map` from the start.
    for _ in range(len(pool.order).bit_length()):
        middle = (low + high) // 2
        right = pool.cumulative[middle] <= target
        low = jnp.where(right, jnp.minimum(middle + 1, high), low)
        high = jnp.where(right, high, middle)
    return pool.order[low]


def uniform_batch(key: jax.Array, pool: Pool, size: int) -> Batch:
    """Draw `size` samples of each class without replacement, with their weights.

    A class smaller than `size` is included as a whole and filled up with weight zero.
    """
    indices = without_replacement(key, pool, size)
    weights, present = pool.weights[indices], jnp.arange(size)[None] < pool.count[:, None]
    weights = weights * present.astype(weights.dtype)
    return Batch(take(pool, indices), _normalise_rows(weights))


def weighted_batch(key: jax.Array, pool: Pool, size: int) -> Batch:
    """Draw `size` samples of each class in proportion to their weights, with weights `1 / size`."""
    indices = with_replacement(key, pool, size)
    return Batch(take(pool, indices), jnp.full(indices.shape, 1 / size))


class Mixture(NamedTuple):
    """A training set with several weightings; build it with `mixture`.

    Attributes:
        pool: the training set, with the weights by which samples are drawn.
        weights: `[n, r]` weights of r weightings, each summing to one in each class.
    """

    pool: Pool
    weights: jax.Array


def mixture(pool: Pool, weights: Sequence[Values] | jax.Array) -> Mixture:
    """Return a training set from which one batch serves several weightings, see `mixture_batch`.

    Args:
        pool: a training set; its weights are ignored.
        weights: `[n]` each, non-negative; normalised within each class.
    """
    by_weighting = jnp.stack([reweight(pool, values).weights for values in weights], axis=1)
    mixed = reweight(pool, jnp.linalg.norm(by_weighting, axis=1))
    # Draws are stratified along this order, so each stratum holds samples of similar weight.
    order = jnp.lexsort((mixed.weights, mixed.labels))
    return Mixture(reweight(mixed._replace(order=order), mixed.weights), by_weighting)


def mixture_batch(key: jax.Array, mixture: Mixture, size: int) -> Batch:
    """Draw `size` samples of each class for several weightings, with weights `[k, size, r]`.

    A sample with the weight `w_r` in weighting r is drawn in proportion to
    `q ∝ (Σ_r w_r²)^½` and gets the weight `w_r / (size · q)`: importance sampling. For each
    weighting, the weighted sum of any function ψ of the samples then has exactly the expectation
    `m_r = Σ_i w_ri ψ_i`. The weights of a class sum to one only in expectation; if they were
    normalised, the sum would be biased. For independent draws, the variance is

        (Σ_i w_ri² ‖ψ_i‖² / q_i − ‖m_r‖²) / size

    This q minimises its sum over weightings if all ψ_i have the same length (Cauchy–Schwarz). With
    `z = Σ_i (Σ_r w_ri²)^½`, between √r and r, no relative weight `w_r / q` exceeds z. So the
    effective sample size of a weighting, `size / Σ_i (w_ri² / q_i)`, is at least `size / z`.

    Draws are stratified by q, which reduces the variance further: relative weights are similar
    within a stratum, so their sum hardly varies. Otherwise the common mean of all features would
    dominate the variance.
    """
    pool, weights = mixture
    indices = with_replacement(key, pool, size)
    relative = weights[indices] / pool.weights[indices][..., None]
    return Batch(take(pool, indices), relative / size)


def density_weighted(
    sampler: Sampler,
    embed: Callable[[jax.Array], jax.Array],
    *,
    bandwidth: float,
    temperature: float = 1,
) -> Sampler:
    """Return a sampler that weights each batch by the inverse density of its own samples.

    `w_i ∝ v_i f̂(x_i)^(−1/τ)` within a class, where f̂ is the Gaussian KDE of the class's samples in
    the batch and v are the weights of the original batch. This is the O(b² d) form of the paper
    (Cui et al., ICML 2024).

    Args:
        sampler: draws the batch, such as `functools.partial(uniform_batch, size=256)`.
        embed: from normalised images `[n, h, w, c]` to embeddings `[n, d]`.
        bandwidth: bandwidth of the kernel, scalar or `[k]`.
        temperature: τ.
    """
    _checks.positive("bandwidth", bandwidth)
    if jnp.ndim(_checks.positive("temperature", temperature)):
        raise ValueError(f"temperature must be a scalar, got shape {jnp.shape(temperature)}.")

    def sample(key, pool):
        batch = sampler(key, pool)
        k, b = batch.weights.shape
        if jnp.shape(bandwidth) not in ((), (k,)):
            raise ValueError(
                f"bandwidth must be a scalar or [{k}], one per class, got {jnp.shape(bandwidth)}."
            )
        embeddings = embed(flatten(batch.images)[0]).reshape(k, b, -1)
        density = jax.vmap(lambda x, v, h: kde.log_density(x, x, h, weights=v))
        log_density = density(embeddings, batch.weights, jnp.broadcast_to(bandwidth, (k,)))
        logits = jnp.log(batch.weights) - log_density / temperature
        return batch._replace(weights=jax.nn.softmax(logits, axis=1))

    return sample


def representative(
    sampler: Sampler, embed: Callable[[jax.Array], jax.Array], *, size: int, iterations: int = 10
) -> Sampler:
    """Return a sampler that selects `size` representative samples per class.

    Weighted k-means (Lloyd's algorithm, started from the first `size` samples) clusters the
    embeddings of each class; the sample nearest to each centre is selected, with its weight.
    Samples of weight zero are ignored.

    Args:
        sampler: draws the candidates, at least `size` per class.
        embed: from normalised images `[n, h, w, c]` to embeddings `[n, d]`.
        size: samples per class to select.
        iterations: number of iterations of Lloyd's algorithm.

    Source: Liu et al., "DREAM: Efficient Dataset Distillation by Representative Matching" (ICCV
    2023), which embeds with the network that is being trained.
    """

    def sample(key, pool):
        batch = sampler(key, pool)
        k, b = batch.weights.shape
        if b < size:
            raise ValueError(f"The sampler must draw at least {size} samples per class, got {b}.")
        embeddings = embed(flatten(batch.images)[0]).reshape(k, b, -1)
        select = functools.partial(_nearest_to_centres, size=size, iterations=iterations)
        indices = jax.vmap(select)(embeddings, batch.weights)
        images, weights = (jax.vmap(lambda x, i: x[i])(x, indices) for x in batch)
        return Batch(images, _normalise_rows(weights))

    return sample


def _nearest_to_centres(points, weights, *, size, iterations):
    """Return the index of the point nearest to each k-means centre, `[size]`."""

    def move(centres, _):
        nearest = jnp.argmin(_squared_distances(points, centres), 1)
        mass = jax.nn.one_hot(nearest, size, dtype=points.dtype) * weights[:, None]
        total = mass.sum(0)[:, None]
        means = jnp.einsum("ns,nd->sd", mass, points, precision="highest")
        return jnp.where(total > 0, means / jnp.where(total > 0, total, 1), centres), None

    centres, _ = jax.lax.scan(move, points[:size], length=iterations)
    distances = _squared_distances(points, centres)
    return jnp.argmin(jnp.where(weights[:, None] > 0, distances, jnp.inf), 0)


def _squared_distances(points, centres):
    product = jnp.einsum("nd,sd->ns", points, centres, precision="highest")
    return jnp.square(points).sum(1)[:, None] - 2 * product + jnp.square(centres).sum(1)[None]


def grouped(sampler: Sampler, *, groups: int) -> Sampler:
    """Return a sampler that draws equally many samples of each bias group of each class.

    The weights of each group sum to one; those of an empty group are zero.

    The authors of FairDD and COBRA draw one uniform batch per class and split it into groups. A
    rare group then has few samples, or none and is skipped: of 256 images with ten colours and 10 %
    bias-conflicting ones, a bias-conflicting colour has 2.8 on average. The means of the groups
    have the same expectation here, with far less variance, and no group is skipped. FairDD with
    this sampler is therefore a stronger baseline than FairDD as published.

    Args:
        sampler: draws from a pool whose classes are the groups, numbered `class · groups +
            attribute`, such as `functools.partial(uniform_batch, size=32)`. Groups may be empty.
        groups: number of bias groups per class.
    """

    def sample(key, pool):
        batch = sampler(key, pool)
        return jax.tree.map(lambda x: x.reshape(-1, groups * x.shape[1], *x.shape[2:]), batch)

    return sample


def _normalise_rows(weights):
    """Return rows that sum to one; rows of zeros stay zero."""
    total = weights.sum(1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def initial_noise(key: jax.Array, pool: Pool, *, ipc: int) -> jax.Array:
    """Return standard normal pixels as `ipc` initial images per class, `[k, ipc, h, w, c]`."""
    ipc = _checks.count("ipc", ipc)
    return jax.random.normal(key, (pool.num_classes, ipc, *pool.images.shape[1:]))


def initial_real(key: jax.Array, pool: Pool, *, ipc: int, weighted: bool = False) -> jax.Array:
    """Return random real images as initial images, `[k, ipc, h, w, c]`.

    This is also the random-subset baseline. No image is drawn twice unless `ipc` exceeds the size
    of its class.

    Args:
        key: random key.
        pool: a training set.
        ipc: images per class.
        weighted: draw in proportion to the weights instead of uniformly.
    """
    ipc = _checks.count("ipc", ipc)
    return take(pool, without_replacement(key, pool, ipc, weighted=weighted))
