"""Class-balanced drawing from a training set that stays on the device.

A `Pool` keeps the images as uint8, their weights, and one index sorted by class, so that classes of
any sizes cost no padding. A batch holds the same number of samples of every class: `uniform_batch`
draws them without replacement and hands their weights on, `weighted_batch` draws them *by* their
weights and hands on equal ones. Both have the same expectation of a weighted mean; where 5 % of the
samples carry 90 % of the weight the second has far less variance.

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
"""What `jnp.asarray` takes: an array of any library, or plain numbers."""


class Pool(NamedTuple):
    """A training set indexed by class; build it with `pool`.

    Attributes:
        images: `[n, h, w, c]`, uint8 (0–255) or floating in [0, 1]; those of `spread.pool`
            can be looked up only.
        labels: `[n]` classes, int32.
        weights: `[n]`, each class sums to one.
        order: `[n]` indices of the samples, sorted by class.
        start: `[k]` first position of each class in `order`.
        count: `[k]` samples of each class.
        cumulative: `[n]` running sum of the weights along `order`, restarting in each class.
        mean: `[c]` of the pixels, on the scale [0, 1].
        std: `[c]` likewise.
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
    """Class-balanced, normalised images `[k, b, h, w, c]`; weights `[k, b]`, rows sum to one."""

    images: jax.Array
    weights: jax.Array


Sampler = Callable[[jax.Array, Pool], Batch]
"""`sampler(key, pool) -> batch`, such as `functools.partial(uniform_batch, size=256)`."""


def normalise(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """Returns `(images / 255 − mean) / std` in float32; floating images are taken as in [0, 1]."""
    scale = 1 / 255 if jnp.issubdtype(images.dtype, jnp.integer) else 1.0
    return (images.astype(jnp.float32) * scale - jnp.asarray(mean)) / jnp.asarray(std)


# Compiled, since one after the other a dozen small operations take a second the first time.
@functools.partial(jax.jit, static_argnames="num_classes")
def _index(labels, num_classes):
    """Samples sorted by class, and the first position and the number of each class's."""
    count = jnp.bincount(labels, length=num_classes)
    return jnp.argsort(labels, stable=True), jnp.cumsum(count) - count, count


@jax.jit
def _shares(weights, labels, order, start):
    """Weights that sum to one in each class, and their running sums along the order."""
    weights = weights / jax.ops.segment_sum(weights, labels, len(start))[labels]
    first = jnp.zeros(weights.shape, bool).at[start].set(True)

    def add(left, right):  # starting afresh wherever a class begins
        return jnp.where(right[1], right[0], left[0] + right[0]), left[1] | right[1]

    return weights, jax.lax.associative_scan(add, (weights[order], first))[0]


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
    """Indexes a labelled training set by class.

    Args:
        images: `[n, h, w, c]`, uint8 or floating in [0, 1].
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes k.
        mean: per channel, on the scale [0, 1].
        std: per channel, on the scale [0, 1], positive.
        weights: `[n]` non-negative, normalised here within each class; uniform when None.
        empty: take classes without samples, of which `uniform_batch` draws what weighs nothing.

    Raises:
        ValueError: for shapes that disagree, a class without samples unless `empty`, or unusable
            values.
        TypeError: for images that are neither uint8 nor floating, or labels that are not integers.
    """
    images = _checks.pixels("images", images)
    if np.shape(labels) != images.shape[:1]:
        raise ValueError(
            "images must be [n, h, w, c] and labels [n], "
            f"found shapes {images.shape} and {np.shape(labels)}"
        )
    mean, std = _checks.moments(mean, std, images.shape[3])
    labels = _checks.integers("labels", labels, num_classes)
    _check_classes(labels, num_classes, empty)
    order, start, count = _index(labels, num_classes)
    unweighed = jnp.zeros(labels.shape)
    bare = Pool(images, labels, unweighed, order, start, count, unweighed, mean, std)
    return reweight(bare, jnp.ones(labels.shape) if weights is None else weights)


def reweight(pool: Pool, weights: Values) -> Pool:
    """Returns the pool with other weights; images and index are shared with the old one.

    Args:
        pool: from `pool`.
        weights: `[n]` non-negative, normalised here within each class; anybody's.

    Raises:
        ValueError: for another shape, or (where they are concrete) values that cannot be drawn by.

    >>> training = pool(np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 0, 1]), num_classes=2,
    ...                 mean=(0.5,), std=(0.5,))
    >>> reweight(training, np.array([3, 1, 7])).weights.tolist()
    [0.75, 0.25, 1.0]
    """
    weights = jnp.asarray(weights, jnp.float32)
    if weights.shape != pool.labels.shape:
        raise ValueError(
            f"weights must be [n] like labels {pool.labels.shape}, found {weights.shape}"
        )
    _checks.class_weights(weights, pool.labels, pool.num_classes)
    weights, cumulative = _shares(weights, pool.labels, pool.order, pool.start)
    return pool._replace(weights=weights, cumulative=cumulative)


def _check_classes(labels, num_classes, empty):
    known = None if empty else _checks.values(labels)
    if known is not None and not (count := np.bincount(known, minlength=num_classes)).all():
        raise ValueError(f"every class needs a sample, class {count.argmin()} has none")


def without_replacement(
    key: jax.Array, pool: Pool, size: int, *, weighted: bool = False
) -> jax.Array:
    """Draws `[k, size]` indices, each sample of a class at most once.

    `weighted` draws one after another with probability proportional to the weights of what is
    left, as a sort by Gumbel noise plus log weight (Efraimidis & Spirakis, 2006); what weighs
    nothing is not drawn. A class with fewer than `size` to draw is repeated from its first draw on.

    Raises:
        ValueError: for a size below 1.
    """
    size = _checks.count("size", size)
    score, count = jax.random.gumbel(key, pool.order.shape), pool.count
    labels = pool.labels[pool.order]
    if weighted:
        score = score + jnp.log(pool.weights[pool.order])
        count = jax.ops.segment_sum((score > -jnp.inf).astype(int), labels, len(count))
    shuffled = pool.order[jnp.lexsort((-score, labels))]
    position = jnp.arange(size) % jnp.maximum(count[:, None], 1)
    return shuffled[pool.start[:, None] + position]


def with_replacement(key: jax.Array, pool: Pool, size: int) -> jax.Array:
    """Draws `[k, size]` indices in proportion to the weights.

    One draw from each of `size` strata of equal weight: every sample is expected `size · weight`
    times as with independent draws, with less variance.

    Raises:
        ValueError: for a size below 1.
    """
    size = _checks.count("size", size)
    shape = (len(pool.count), size)
    target = (jnp.arange(size) + jax.random.uniform(key, shape)) / size
    low = jnp.broadcast_to(pool.start[:, None], shape)
    high = jnp.broadcast_to((pool.start + pool.count)[:, None] - 1, shape)

    # Unrolled: a loop's carry would have to vary over the devices of a shard_map from the start.
    for _ in range(len(pool.order).bit_length()):
        middle = (low + high) // 2
        right = pool.cumulative[middle] <= target
        low = jnp.where(right, jnp.minimum(middle + 1, high), low)
        high = jnp.where(right, high, middle)
    return pool.order[low]


def flatten(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return images `[k, b, h, w, c]` as `[k · b, h, w, c]`, and their classes `[k · b]`."""
    k, b = images.shape[:2]
    return images.reshape(k * b, *images.shape[2:]), jnp.arange(k).repeat(b)


def take(pool: Pool, indices: jax.Array) -> jax.Array:
    """Returns the normalised images at `indices` of any shape, `[*indices.shape, h, w, c]`."""
    return normalise(pool.images[indices], pool.mean, pool.std)


def uniform_batch(key: jax.Array, pool: Pool, size: int) -> Batch:
    """Draws `size` samples of each class without replacement, with their weights.

    A class smaller than `size` is in the batch as a whole, and weight zero fills the rest.

    Raises:
        ValueError: for a size below 1.
    """
    indices = without_replacement(key, pool, size)
    weights = pool.weights[indices] * (jnp.arange(size) < pool.count[:, None])
    total = weights.sum(1, keepdims=True)
    return Batch(take(pool, indices), weights / jnp.where(total > 0, total, 1))


def weighted_batch(key: jax.Array, pool: Pool, size: int) -> Batch:
    """Draws `size` samples of each class by their weights, each then weighing `1 / size`.

    Raises:
        ValueError: for a size below 1.
    """
    indices = with_replacement(key, pool, size)
    return Batch(take(pool, indices), jnp.full(indices.shape, 1 / size))


def density_weighted(
    sampler: Sampler,
    embed: Callable[[jax.Array], jax.Array],
    *,
    bandwidth: float,
    temperature: float = 1,
) -> Sampler:
    """Weighs each batch by the inverse density of its own samples, the paper's O(b²d) form.

    `w_i ∝ v_i f̂(x_i)^(−1/τ)` within a class, f̂ being the Gaussian KDE of the class's samples in the
    batch and v the weights that `sampler` gave them (zero for padding).

    Args:
        sampler: for example `functools.partial(uniform_batch, size=256)`.
        embed: normalised images `[n, h, w, c]` to embeddings `[n, d]`, parameters closed over.
        bandwidth: h of the kernel, scalar or `[k]`.
        temperature: τ.

    Raises:
        ValueError: a bandwidth or a temperature that is not positive and finite or, for the
            bandwidth in the first sampler, of another shape.
    """
    _checks.positive("bandwidth", bandwidth)
    if jnp.ndim(_checks.positive("temperature", temperature)):
        raise ValueError(f"temperature must be a scalar, found shape {jnp.shape(temperature)}")

    def reweighted(key, pool):
        batch = sampler(key, pool)
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
    sampler: Sampler, embed: Callable[[jax.Array], jax.Array], *, size: int, iterations: int = 10
) -> Sampler:
    """Picks, among the samples drawn, the `size` of each class that stand for all of them.

    The samples are clustered by weighted k-means (Lloyd's, from the first `size` of them) and the
    nearest to each centre is kept, with its weight: the sampling of DREAM (Liu et al., "Efficient
    Dataset Distillation by Representative Matching", ICCV 2023), which embeds in the network that
    is being trained. Samples of weight zero neither count nor are kept.

    Args:
        sampler: of more samples than are wanted.
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
        batch = sampler(key, pool)
        k, b = batch.weights.shape
        if b < size:
            raise ValueError(f"sampler must give {size} samples of a class or more, found {b}")
        flat = batch.images.reshape(k * b, *batch.images.shape[2:])
        rows = jax.vmap(chosen)(embed(flat).reshape(k, b, -1), batch.weights)
        images, weights = (jax.vmap(lambda x, i: x[i])(x, rows) for x in batch)
        total = weights.sum(1, keepdims=True)
        return Batch(images, weights / jnp.where(total > 0, total, 1))

    return picked


def _squared_distances(points, centres):
    product = jnp.einsum("nd,sd->ns", points, centres, precision="highest")
    return jnp.square(points).sum(1)[:, None] - 2 * product + jnp.square(centres).sum(1)


def grouped(sampler: Sampler, *, groups: int) -> Sampler:
    """Draws from each bias group of each class, for methods with `groups`.

    Args:
        sampler: what to do with a pool whose classes are the groups, number `class · groups +
            attribute`, some of which may be empty: `functools.partial(uniform_batch, …)`.
        groups: of each class.
    """

    def joined(key, pool):
        batch = sampler(key, pool)
        return jax.tree.map(lambda x: x.reshape(-1, groups * x.shape[1], *x.shape[2:]), batch)

    return joined


def initial_noise(key: jax.Array, pool: Pool, *, ipc: int) -> jax.Array:
    """Starts from standard normal pixels, `[k, ipc, h, w, c]`.

    Raises:
        ValueError: for an ipc below 1.
    """
    ipc = _checks.count("ipc", ipc)
    return jax.random.normal(key, (pool.num_classes, ipc, *pool.images.shape[1:]))


def initial_real(key: jax.Array, pool: Pool, *, ipc: int, weighted: bool = False) -> jax.Array:
    """Starts from real images `[k, ipc, h, w, c]`, chosen uniformly or by the pool's weights.

    No image is taken twice, unless `ipc` exceeds the class. This is also the baseline that a
    distilled set has to beat.

    Raises:
        ValueError: for an ipc below 1.
    """
    ipc = _checks.count("ipc", ipc)
    return take(pool, without_replacement(key, pool, ipc, weighted=weighted))
