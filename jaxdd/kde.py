"""Gaussian kernel densities of embeddings, and rules for the bandwidth.

    log f(x_i) = log( sum_j w_j N(x_i; y_j, h^2 I) / sum_j w_j )

`log_density` computes the density of any points at any queries, `class_log_density` the density
of each class at its own samples. Both are exact, in log space, and tiled (`jaxdd.kernel_sums`). The
bandwidth h has the unit of the embeddings. `scott`, `silverman`, `mean_distance` and
`median_distance` compute one from the points of a class; `class_bandwidth` applies such a rule to
every class; `likelihood` chooses among candidates.

>>> import jax.numpy as jnp
>>> x = jnp.array([[0.0], [1.0]])
>>> print(log_density(x[:1], x[:1], 1.0))  # -log(2 pi) / 2
[-0.9189385]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdd import _checks, kernel_sums

FLOOR = 1e-6
"""Smallest bandwidth that a rule returns; the bandwidth of a class without spread."""

FACTOR = 0.2
"""Default factor of `mean_distance` and `median_distance`.

Source: `experiments/bandwidth.py`. At 0.2, the AUC with which low density ranks the
bias-conflicting samples is within 0.01 of that of the best factor on each of three benchmarks.
"""

_SHARED_PASSES = 8  # Candidate bandwidths that are evaluated in one pass over the distances.


def log_density(
    queries: ArrayLike,
    points: ArrayLike,
    bandwidth: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    leave_one_out: bool = False,
    tile: int | None = None,
) -> jax.Array:
    """Return the log of the Gaussian kernel density of the points at every query.

    log f(x_i) = log( sum_j w_j N(x_i; y_j, h^2 I) / sum_j w_j ), with the normaliser
    -(d/2) log(2 pi h^2). Above eight dimensions, squared distances have a rounding error of about
    1e-7 of the squared spread of the points: keep h well above 1e-3 of the spread.

    Args:
        queries: `[n, d]` floating.
        points: `[m, d]` floating.
        bandwidth: h > 0, a scalar in the unit of the coordinates; may be traced.
        weights: `[m]`, at least 0; need not sum to one. Defaults to uniform. A point of weight 0
            is absent, and its weight has gradient 0.
        leave_one_out: the queries are the points, and no point contributes to its own density.
        tile: largest number of queries and of points whose distances are in memory together.
            Defaults to `kernel_sums.TILE` of the backend.

    Returns:
        `[n]` log densities in nats, float32 or wider; -inf where no point is left.
    """
    queries, points = _as_points("queries", queries), _as_points("points", points)
    (n, d), m = queries.shape, points.shape[0]
    if points.shape[1] != d:
        raise ValueError(
            f"queries and points must have the same dimension, got {d} and {points.shape[1]}."
        )
    if leave_one_out and n != m:
        raise ValueError(f"leave_one_out requires equal queries and points, got {n} and {m} rows.")
    bandwidth = _as_bandwidth(bandwidth, ((),)).astype(queries.dtype)
    weights = _as_weights(weights, points)
    centre = jax.lax.stop_gradient(points.mean(0, keepdims=True))
    # Equal sample numbers mark a query and a point as the same sample.
    point_samples = jnp.arange(m) if leave_one_out else jnp.full(m, -1)
    kernel_queries = kernel_sums.Queries(
        queries - centre, jnp.zeros(n, int), jnp.arange(n), jnp.broadcast_to(bandwidth, n)
    )
    kernel_points = kernel_sums.Points(points - centre, jnp.zeros(m, int), point_samples, weights)
    sums = kernel_sums.kernel_sums(
        kernel_queries, kernel_points, leave_one_out=leave_one_out, tile=tile
    )
    return _normalise(kernel_queries, sums)


def class_log_density(
    embeddings: ArrayLike,
    labels: ArrayLike,
    bandwidth: ArrayLike,
    *,
    num_classes: int,
    weights: ArrayLike | None = None,
    leave_one_out: bool = False,
    tile: int | None = None,
    axis: str | None = None,
) -> jax.Array:
    """Return the log kernel density of every sample under the samples of its own class.

    log f(x_i) = log( sum_j w_j N(x_i; x_j, h_k^2 I) / sum_j w_j ) over the samples j of the class k
    of i. The work is about n^2 / num_classes, because samples are sorted by label and pairs of
    tiles without a common class are skipped. A `vmap` over bandwidths keeps the skipping, a `vmap`
    over labels does not.

    Args:
        embeddings: `[n, d]` floating.
        labels: `[n]` integers in [0, num_classes); classes may be empty and of any size.
        bandwidth: h > 0, a scalar or one per class `[num_classes]`; may be traced.
        num_classes: number of classes, static.
        weights: `[n]`, at least 0. Defaults to uniform. A sample of weight 0 is absent from all
            densities, its own included.
        leave_one_out: no sample contributes to its own density. The only sample of a class then has
            log density -inf.
        tile: largest number of samples on either side of a tile of distances. Defaults to
            `kernel_sums.TILE` of the backend.
        axis: mesh axis over which the samples are split inside `shard_map`; n then counts the
            samples of one device, which may be of any class.

    Returns:
        `[n]` log densities in nats, in the order of the input, float32 or wider.

    Source: f of Cui et al., "Mitigating Bias in Dataset Distillation", ICML 2024, who estimate it
    within a batch instead of the whole class.
    """
    embeddings = _as_points("embeddings", embeddings)
    labels = _checks.integers("labels", labels, num_classes, length=len(embeddings))
    bandwidth = _as_bandwidth(bandwidth, ((), (num_classes,))).astype(embeddings.dtype)
    bandwidth = jnp.broadcast_to(bandwidth, num_classes)
    is_symmetric = weights is None and axis is None and not leave_one_out
    weights = _as_weights(weights, embeddings)
    centred = _centre_classes(embeddings, labels, num_classes, axis)
    order = jnp.argsort(labels)
    position, label = centred[order], labels[order]
    # Sample numbers must differ between the devices of an axis.
    first = 0 if axis is None else labels.size * jax.lax.axis_index(axis)
    samples = first + jnp.arange(labels.size)
    queries = kernel_sums.Queries(position, label, samples, bandwidth[label])
    if is_symmetric:
        sums = kernel_sums.own_sums(queries, tile=tile)
    else:
        points = kernel_sums.Points(position, label, samples, weights[order])
        sums = kernel_sums.kernel_sums(
            queries, points, leave_one_out=leave_one_out, tile=tile, axis=axis
        )
    return _normalise(queries, sums)[jnp.argsort(order)]


def _normalise(queries: kernel_sums.Queries, sums: kernel_sums.Sums) -> jax.Array:
    """Return log densities from kernel sums.

    All factors are subtracted in log space. The density itself scales as h^-d and leaves the range
    of float32 above a few dozen dimensions.
    """
    normaliser = jnp.log(queries.bandwidth) + 0.5 * jnp.log(2 * jnp.pi)
    log_mass = jnp.log(jnp.where(sums.mass > 0, sums.mass, 1))
    return sums.log_sum - log_mass - queries.position.shape[1] * normaliser


def _centre_classes(
    embeddings: jax.Array, labels: jax.Array, num_classes: int, axis: str | None = None
) -> jax.Array:
    """Subtract the class mean, which changes no distance within a class.

    |x|² + |y|² - 2xy then cancels far less. Classes far from each other need no common centre,
    because distances between classes are never used.
    """
    count = jax.ops.segment_sum(jnp.ones(labels.size, embeddings.dtype), labels, num_classes)
    total = jax.ops.segment_sum(jax.lax.stop_gradient(embeddings), labels, num_classes)
    if axis is not None:
        count, total = jax.lax.psum((count, total), axis)
    return embeddings - (total / jnp.maximum(count, 1)[:, None])[labels]


def scott(
    points: ArrayLike, *, weights: ArrayLike | None = None, factor: ArrayLike = 1.0
) -> jax.Array:
    """Return the bandwidth of Scott's rule for an isotropic kernel, at least `FLOOR`.

    h = factor * s * n^(-1 / (d + 4)), where s^2 is the (population) variance averaged over the
    dimensions and n the effective number of points, (sum w)^2 / sum w^2.

    Args:
        points: `[n, d]` floating.
        weights: `[n]`, at least 0, or a 0/1 mask. Defaults to uniform.
        factor: at least 0; multiplies the bandwidth.

    Source: Scott, "Multivariate Density Estimation", 1992, as in scipy's `gaussian_kde`.
    """
    size, variance = _moments(points, weights)
    factor = _as_factor(factor)
    return _floored_sqrt((factor * size ** (-1 / (variance.size + 4))) ** 2 * variance.mean())


def silverman(
    points: ArrayLike, *, weights: ArrayLike | None = None, factor: ArrayLike = 1.0
) -> jax.Array:
    """Return the bandwidth of Silverman's rule for an isotropic kernel, at least `FLOOR`.

    h = factor * s * (n (d + 2) / 4)^(-1 / (d + 4)), with s, n and the arguments of `scott`.

    Source: Silverman, "Density Estimation for Statistics and Data Analysis", 1986.
    """
    size, variance = _moments(points, weights)
    d, factor = variance.size, _as_factor(factor)
    return _floored_sqrt((factor * (size * (d + 2) / 4) ** (-1 / (d + 4))) ** 2 * variance.mean())


# Scott's and Silverman's rules minimise the error of a density in few dimensions. In the 128
# dimensions of an embedding n^(-1/(d+4)) is nearly 1, so h is about the spread of one coordinate:
# 1/16 of the typical distance. The two rules below are relative to that distance and do not depend
# on d.
def mean_distance(
    points: ArrayLike, *, weights: ArrayLike | None = None, factor: ArrayLike = FACTOR
) -> jax.Array:
    """Return a bandwidth in proportion to the root mean squared distance, at least `FLOOR`.

    h^2 = factor * mean_ij |x_i - x_j|^2 / 2 = factor * trace of the (population) covariance.

    Args:
        points: `[n, d]` floating.
        weights: `[n]`, at least 0, or a 0/1 mask. Defaults to uniform.
        factor: at least 0; multiplies the squared bandwidth.

    >>> print(mean_distance(jnp.array([[0.0], [2.0]]), factor=1.0))
    1.0
    """
    _, variance = _moments(points, weights)
    return _floored_sqrt(_as_factor(factor) * variance.sum())


def median_distance(
    key: jax.Array,
    points: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    factor: ArrayLike = FACTOR,
    pairs: int = 4096,
) -> jax.Array:
    """Return a bandwidth in proportion to the median distance, at least `FLOOR`.

    h^2 = factor * median |x_i - x_j|^2 / 2 over random pairs i != j.

    Args:
        key: random key for drawing the pairs.
        points: `[n, d]` floating.
        weights: `[n]`, at least 0, or a 0/1 mask; points are drawn in proportion to them. Defaults
            to uniform.
        factor: at least 0; multiplies the squared bandwidth.
        pairs: number of drawn pairs, static; pairs of a point with itself are dropped.
    """
    pairs, factor = _checks.count("pairs", pairs), _as_factor(factor)
    points = _as_points("points", points)
    weights = _as_weights(weights, points)
    i, j = jax.random.choice(key, weights.size, (2, pairs), p=weights)
    squared = ((points[i] - points[j]) ** 2).sum(-1)
    squared = jnp.sort(jnp.where(i == j, jnp.finfo(squared.dtype).max, squared))
    count = (i != j).sum()
    median = (squared[(count - 1) // 2] + squared[count // 2]) / 2
    return _floored_sqrt(factor * jnp.where((count > 0) & (weights.sum() > 0), median, 0) / 2)


def class_bandwidth(
    rule: Callable[..., jax.Array], embeddings: ArrayLike, labels: ArrayLike, *, num_classes: int
) -> jax.Array:
    """Apply a bandwidth rule to each class.

    Args:
        rule: called as rule(points, weights=mask), for example `scott` or
            `functools.partial(median_distance, key)`.
        embeddings: `[n, d]` floating.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes k, static.

    Returns:
        `[k]` bandwidths; `FLOOR` for classes without samples or without spread.

    >>> import functools
    >>> x = jnp.array([[0.0], [2.0], [0.0], [6.0]])
    >>> rule = functools.partial(mean_distance, factor=1.0)
    >>> print(class_bandwidth(rule, x, jnp.array([0, 0, 1, 1]), num_classes=2))
    [1. 3.]
    """
    embeddings = _as_points("embeddings", embeddings)
    labels = _checks.integers("labels", labels, num_classes, length=len(embeddings))
    centred = _centre_classes(embeddings, labels, num_classes)
    return jax.lax.map(lambda k: rule(centred, weights=labels == k), jnp.arange(num_classes))


def likelihood(
    embeddings: ArrayLike,
    labels: ArrayLike,
    candidates: ArrayLike,
    *,
    num_classes: int,
    tile: int | None = None,
) -> jax.Array:
    """Choose the bandwidth of each class by leave-one-out maximum likelihood.

    h_k = argmax_h  mean over the samples i of class k of log f_{-i}(x_i; h), where f_{-i} is the
    density without the sample.

    Args:
        embeddings: `[n, d]` floating.
        labels: `[n]` integers in [0, num_classes).
        candidates: positive bandwidths, `[q]` for all classes or `[q, k]`, for example a grid of
            factors times `class_bandwidth`.
        num_classes: number of classes k, static.
        tile: see `class_log_density`.

    Returns:
        `[k]` bandwidths; the first candidate for classes with fewer than two samples.

    Source: Duin, "On the choice of smoothing parameters for Parzen estimators", 1976.
    """
    embeddings = _as_points("embeddings", embeddings)
    labels = _checks.integers("labels", labels, num_classes, length=len(embeddings))
    q = jnp.shape(candidates)[:1]
    candidates = _as_bandwidth(candidates, (q, (*q, num_classes)), name="candidates")
    if 0 in candidates.shape or not candidates.ndim:
        raise ValueError(f"candidates must have shape [q] or [q, k], got {candidates.shape}.")
    candidates = jnp.broadcast_to(candidates.reshape(*q, -1), (*q, num_classes))

    def score(bandwidth):
        log_f = class_log_density(
            embeddings, labels, bandwidth, num_classes=num_classes, leave_one_out=True, tile=tile
        )
        return jax.ops.segment_sum(log_f, labels, num_classes)

    scores = jax.lax.map(score, candidates, batch_size=_SHARED_PASSES)
    return candidates[scores.argmax(0), jnp.arange(num_classes)]


def _moments(points: ArrayLike, weights: ArrayLike | None) -> tuple[jax.Array, jax.Array]:
    """Return the effective number of points, at least 1, and the variance `[d]`."""
    points = _as_points("points", points)
    weights = _as_weights(weights, points)
    total = weights.sum()
    share = (weights / jnp.where(total > 0, total, 1))[:, None]
    variance = (share * (points - (share * points).sum(0, keepdims=True)) ** 2).sum(0)
    return 1 / jnp.where(total > 0, (share**2).sum(), 1), variance


def _floored_sqrt(squared: ArrayLike) -> jax.Array:
    """Return the square root, at least `FLOOR` and finite.

    The floor is inside the root, whose gradient at 0 would be infinite.
    """
    squared = jnp.asarray(squared)
    return jnp.sqrt(jnp.clip(squared, FLOOR**2, jnp.finfo(squared.dtype).max))


def _as_factor(factor: ArrayLike) -> ArrayLike:
    if jnp.shape(factor):
        raise ValueError(f"factor must be a scalar, got shape {jnp.shape(factor)}.")
    return _checks.nonnegative("factor", factor)


def _as_points(name: str, points: ArrayLike) -> jax.Array:
    points = jnp.asarray(points)
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"{name} must be a non-empty [n, d] array, got shape {points.shape}.")
    points = _checks.floating(name, points)
    # Up to this limit every sum of squared distances is finite.
    limit = (float(jnp.finfo(points.dtype).max) / (16 * points.size)) ** 0.5
    known = _checks.values(points)
    if known is not None and not (-limit <= known.min() <= known.max() <= limit):
        raise ValueError(
            f"{name} and their squared distances must be finite, got {known.min()}..{known.max()}."
        )
    return points


def _as_weights(weights: ArrayLike | None, points: jax.Array) -> jax.Array:
    if weights is None:
        return jnp.ones(points.shape[0], points.dtype)
    weights = jnp.asarray(weights)
    if weights.shape != points.shape[:1]:
        raise ValueError(f"weights must have shape {points.shape[:1]}, got {weights.shape}.")
    return _checks.nonnegative("weights", weights).astype(points.dtype)


def _as_bandwidth(bandwidth: ArrayLike, shapes, name: str = "bandwidth") -> jax.Array:
    bandwidth = jnp.asarray(bandwidth, jnp.result_type(bandwidth, float))
    if bandwidth.shape not in shapes:
        allowed = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name} must have shape {allowed}, got {bandwidth.shape}.")
    return _checks.positive(name, bandwidth)
