"""Densities against float64 log-sum-exp, hand-made classes, transformations and a memory bound."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from jax.test_util import check_grads
from scipy.spatial.distance import cdist, pdist
from scipy.special import logsumexp

from jaxdd import kde
from jaxdd.devices import parallel

SIZES = [5, 0, 1, 13, 2]  # Class sizes; one class is empty, and one has a single sample.
K = len(SIZES)


def reference(queries, points, bandwidth, weights=None, leave_one_out=False):
    queries, points = np.asarray(queries, float), np.asarray(points, float)
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, float)
    factors = np.tile(weights, (len(queries), 1))
    if leave_one_out:
        np.fill_diagonal(factors, 0)
    exponent = -cdist(queries, points, "sqeuclidean") / (2 * bandwidth**2)
    log_sum = logsumexp(exponent, b=factors, axis=1) - np.log(factors.sum(1))
    return log_sum - points.shape[1] / 2 * np.log(2 * np.pi * bandwidth**2)


def class_reference(x, labels, bandwidth, leave_one_out=False):
    result = np.empty(len(x))
    for k in np.unique(labels):
        own = labels == k
        result[own] = reference(x[own], x[own], bandwidth[k], None, leave_one_out)
    return result


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def classes(seed=0, d=3):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(K), SIZES))
    return normal(seed, len(labels), d) + 5 * labels[:, None].astype(np.float32), labels


BANDWIDTHS = np.array([0.5, 1.0, 2.0, 0.7, 1.5])
by_class = functools.partial(kde.class_log_density, num_classes=K, tile=4)
# Jitted, because without jit every call compiles its loop again.
STATIC = ("num_classes", "leave_one_out", "tile")
log_density = jax.jit(kde.log_density, static_argnames=STATIC[1:])
class_log_density = jax.jit(kde.class_log_density, static_argnames=STATIC)
fast_by_class = functools.partial(class_log_density, num_classes=K, tile=4)
median_distance = jax.jit(kde.median_distance, static_argnames="pairs")


def test_one_point():
    """-(d/2) log(2 pi h^2) - r^2 / (2 h^2) with d = 2, h = 2, r = 5 is -log(8 pi) - 25/8."""
    density = log_density(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2)), 2.0)
    np.testing.assert_allclose(density, [-np.log(8 * np.pi) - 25 / 8], rtol=1e-6)


def test_two_points():
    """Two points at distance 1, d = h = 1, have log((1 + e^(-1/2)) / 2) - log(2 pi) / 2.

    With leave-one-out only the neighbour contributes: -1/2 - log(2 pi) / 2.
    """
    x = np.float32([[0], [1]])
    normaliser = np.log(2 * np.pi) / 2
    expected = np.log((1 + np.exp(-0.5)) / 2) - normaliser
    np.testing.assert_allclose(log_density(x, x, 1.0), [expected] * 2, rtol=1e-6)
    alone = log_density(x, x, 1.0, leave_one_out=True)
    np.testing.assert_allclose(alone, [-0.5 - normaliser] * 2, rtol=1e-6)


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("d, offset", [(2, 0), (2, 1e3), (128, 0), (128, 1e3)])
def test_float64(d, offset, leave_one_out):
    x = normal(d, 90, d) + np.float32(offset)
    weights = np.random.default_rng(0).uniform(0, 2, 90).astype(np.float32)
    h = 0.7
    density = log_density(x, x, h, weights=weights, leave_one_out=leave_one_out, tile=32)
    expected = reference(x, x, h, weights, leave_one_out)
    np.testing.assert_allclose(density, expected, rtol=1e-5)


@pytest.mark.parametrize("d, offset", [(512, 10), (2048, 0)])
def test_float64_in_many_dimensions(d, offset):
    x, q = normal(0, 50, d) + np.float32(offset), normal(1, 20, d) + np.float32(offset)
    np.testing.assert_allclose(log_density(q, x, 0.7), reference(q, x, 0.7), rtol=1e-5)


def test_far_queries_do_not_underflow():
    x, far = normal(0, 20, 4), normal(1, 6, 4) + 1000
    np.testing.assert_allclose(log_density(far, x, 0.1), reference(far, x, 0.1), rtol=1e-5)


def test_bfloat16_is_computed_in_float32():
    x = jnp.asarray(normal(0, 30, 16), jnp.bfloat16)
    density = log_density(x, x, 1.0)
    assert density.dtype == jnp.float32
    np.testing.assert_allclose(density, reference(x.astype(float), x.astype(float), 1.0), rtol=1e-5)


def test_weights_within_classes_equal_repetitions():
    x, labels = classes(d=12)
    times = np.random.default_rng(0).integers(0, 3, len(x))
    weighted = fast_by_class(x, labels, 1.0, weights=times)
    kept = times > 0
    repeated = fast_by_class(np.repeat(x, times, 0), np.repeat(labels, times), 1.0)
    first = (np.cumsum(times) - times)[kept]
    np.testing.assert_allclose(weighted[kept], repeated[first], rtol=1e-5)


@pytest.mark.parametrize("d, leave_one_out", [(3, False), (20, True)])
def test_class_densities_equal_a_loop_over_classes(d, leave_one_out):
    x, labels = classes(d=d)
    if leave_one_out:  # The lone sample is tested below.
        x, labels = x[labels != 2], labels[labels != 2]
    density = fast_by_class(x, labels, BANDWIDTHS, leave_one_out=leave_one_out)
    expected = class_reference(x, labels, BANDWIDTHS, leave_one_out)
    np.testing.assert_allclose(density, expected, rtol=1e-5)


@pytest.mark.parametrize("tile", [3, 100])
def test_symmetric_sums_equal_the_sums_with_weights_of_one(tile):
    """Weights of one select the program that computes each pair of samples twice.

    Distances are many bandwidths, so that the kernels of most pairs underflow in both programs.
    """
    x, labels = classes(d=12)
    x = 30 * x
    ones = jnp.ones(len(x))

    @jax.jit
    def densities_and_slopes(x, h, weights=None):
        def total(x, h):
            density = kde.class_log_density(x, labels, h, num_classes=K, tile=tile, weights=weights)
            return density @ jnp.arange(len(x)), density

        return jax.grad(total, (0, 1), has_aux=True)(x, h)

    arguments = jnp.asarray(x), jnp.asarray(BANDWIDTHS, jnp.float32)
    (slopes, density), (expected_slopes, expected) = (
        densities_and_slopes(*arguments),
        densities_and_slopes(*arguments, ones),
    )
    np.testing.assert_allclose(density, expected, rtol=1e-6)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(close, slopes, expected_slopes)


def test_density_without_points_is_minus_infinity():
    x, labels = classes()
    density = fast_by_class(x, labels, 1.0, leave_one_out=True)
    np.testing.assert_array_equal(np.isneginf(density), labels == 2)
    assert not np.isnan(density).any()
    assert log_density(x, x, 1.0, weights=jnp.zeros(len(x)))[0] == -jnp.inf


def test_leave_one_out_equals_deletion():
    x, weights = normal(0, 9, 12), np.arange(9.0)
    density = log_density(x, x, 0.8, weights=weights, leave_one_out=True, tile=4)
    for i in range(9):
        others = np.delete(np.arange(9), i)
        deleted = log_density(x[[i]], x[others], 0.8, weights=weights[others])
        np.testing.assert_allclose(density[i], deleted[0], rtol=1e-5)


def test_weights_equal_repetitions():
    x, q = normal(0, 6, 3), normal(1, 4, 3)
    times = np.array([1, 0, 3, 2, 1, 5])
    weighted = log_density(q, x, 0.5, weights=times)
    np.testing.assert_allclose(weighted, log_density(q, np.repeat(x, times, 0), 0.5), rtol=1e-5)
    tiny = log_density(q, x, 0.5, weights=times * 1e-30)
    np.testing.assert_allclose(weighted, tiny, rtol=1e-5)


def test_masked_point_does_not_set_the_scale():
    """A masked point at the query must not set the scale: the other kernels are e^-5000 of it."""
    x = np.array([[0.0], [100.0]], np.float32)
    density = log_density(x[:1], x, 1.0, weights=np.array([0.0, 1.0]))
    np.testing.assert_allclose(density, [-5000 - np.log(2 * np.pi) / 2], rtol=1e-6)


def test_permutation_translation_and_scale():
    x, labels = classes(d=12)
    density = fast_by_class(x, labels, 1.0)
    order = np.random.default_rng(1).permutation(len(x))
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5)
    close(fast_by_class(x[order], labels[order], 1.0), density[order])
    close(fast_by_class(x + 64, labels, 1.0), density)
    close(fast_by_class(4 * x, labels, 4.0), density - 12 * np.log(4))
    relabelled = np.array([3, 0, 1, 4, 2])[labels]
    close(fast_by_class(x, relabelled, 1.0), density)


@pytest.mark.parametrize("tile", [1, 7])
def test_tile_size_changes_nothing(tile):
    x, labels = classes(d=9)
    expected = class_reference(x, labels, np.ones(K))
    np.testing.assert_allclose(fast_by_class(x, labels, 1.0, tile=tile), expected, rtol=1e-5)
    density = log_density(x[:10], x, 1.0, tile=tile)
    np.testing.assert_allclose(density, reference(x[:10], x, 1.0), rtol=1e-5)


def test_small_bandwidth_leaves_the_kernel_of_the_point_itself():
    """As h -> 0 only the kernel of x itself is left: -(d/2) log(2 pi h^2) - log n at every x."""
    x = 3 * normal(0, 40, 64)
    h = 1e-4
    density = fast_by_class(x, np.zeros(40, int), h)
    expected = -32 * np.log(2 * np.pi * h**2) - np.log(40)
    np.testing.assert_allclose(density, np.full(40, expected), rtol=1e-6)


def test_jit_and_vmap():
    x, labels = classes()
    candidates = jnp.array([0.3, 1.0, 4.0])
    loop = jnp.stack([fast_by_class(x, labels, h) for h in candidates])
    np.testing.assert_allclose(by_class(x, labels, 1.0), loop[1], rtol=1e-6)
    over_bandwidths = jax.vmap(by_class, (None, None, 0))
    np.testing.assert_allclose(jax.jit(over_bandwidths)(x, labels, candidates), loop, rtol=1e-5)
    assert "cond[" in str(jax.make_jaxpr(over_bandwidths)(x, labels, candidates))

    batch = jnp.stack([x, 2 * x + 1])
    shuffled = jnp.stack([labels, labels[::-1]])
    density = jax.jit(jax.vmap(lambda x, y: by_class(x, y, 1.0)))(batch, shuffled)
    np.testing.assert_allclose(
        density[1], class_reference(batch[1], labels[::-1], np.ones(K)), rtol=1e-5
    )
    sets = jax.jit(jax.vmap(lambda x: kde.log_density(x, x, 1.0, tile=8)))(batch)
    np.testing.assert_allclose(sets[1], reference(batch[1], batch[1], 1.0), rtol=1e-5)


def test_gradients():
    q, x, weights = normal(0, 3, 2), normal(1, 5, 2), np.array([1.0, 2.0, 0.5, 1.0, 3.0])

    @jax.jit
    def density(q, x, h, weights):
        return kde.log_density(q, x, h, weights=weights, tile=2)

    h, weights = jnp.array(0.9), jnp.asarray(weights, jnp.float32)
    check_grads(density, (q, x, h, weights), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_class_gradient_is_the_dense_one_and_finite():
    x, labels = classes(d=9)
    kept = labels != 2  # With leave-one-out, the density of the lone sample is -inf, whatever x is.
    onehot = labels[:, None] == labels

    def dense(x, h):
        squared = ((x[:, None] - x) ** 2).sum(-1)
        present = onehot & ~np.eye(len(x), dtype=bool) & kept[:, None]
        logits = jnp.where(present, -squared / (2 * h[labels][:, None] ** 2), -1e30)
        each = jax.nn.logsumexp(logits, axis=1) - 9 * jnp.log(h[labels])
        return jnp.where(kept, each, 0).sum()

    def tiled(x, h):
        return jnp.where(kept, by_class(x, labels, h, leave_one_out=True), 0).sum()

    h = jnp.asarray(BANDWIDTHS, jnp.float32)
    density, expected = (jax.jit(jax.grad(f, (0, 1)))(jnp.asarray(x), h) for f in (tiled, dense))
    np.testing.assert_allclose(density[0], expected[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(density[1], expected[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("d", [3, 9])
def test_second_derivative_at_duplicates(d):
    """For two coincident points, f = log(1/2 + exp(-r²/2h²)/2) has the Hessian -I/2h²."""
    x, h = jnp.ones((2, d)), 0.5
    total = lambda x: kde.class_log_density(x, jnp.zeros(2, int), h, num_classes=1).sum()
    density = jax.jit(jax.hessian(total))(x)
    np.testing.assert_allclose(density[0, :, 0], -np.eye(d) / h**2, atol=1e-5)
    np.testing.assert_allclose(density[0, :, 1], np.eye(d) / h**2, atol=1e-5)


def test_bandwidth_whose_square_underflows():
    """Each sample contributes to its own density only, in classes of two and three."""
    x, labels = normal(0, 5, 9), jnp.array([0, 0, 1, 1, 1])
    for options in ({}, {"weights": jnp.ones(5)}):
        density = class_log_density(x, labels, 1e-25, num_classes=2, **options)
        alone = -9 * (np.log(1e-25) + np.log(2 * np.pi) / 2)
        np.testing.assert_allclose(density, alone - np.log([2, 2, 3, 3, 3]), rtol=1e-6)


def test_int8_labels_do_not_overflow():
    """The largest label fits an int8, but the number of classes does not."""
    x = normal(0, 256, 2)
    labels = np.arange(256, dtype=np.int32) // 2 % 128
    expected = class_log_density(x, labels, 1.0, num_classes=128)
    density = class_log_density(x, labels.astype(np.int8), 1.0, num_classes=128)
    np.testing.assert_array_equal(density, expected)


def test_gradient_is_finite_at_the_edges():
    """Padding, coincident points, absent points and densities of -inf give no NaN."""
    x = jnp.asarray(np.repeat(normal(0, 3, 9), 2, 0)[:5])
    weights = jnp.array([1.0, 0.0, 2.0, 1.0, 0.0])

    def total(x, h, weights, leave_one_out):
        density = kde.log_density(x, x, h, weights=weights, leave_one_out=leave_one_out, tile=2)
        return jnp.where(jnp.isfinite(density), density, 0).sum()

    gradient = jax.jit(jax.grad(total, (0, 1, 2)), static_argnums=3)
    for weight in (weights, jnp.eye(5)[0], jnp.zeros(5)):
        for leave_one_out in (False, True):
            grads = gradient(x, 0.5, weight, leave_one_out)
            assert all(np.isfinite(g).all() for g in grads)


def test_pmap(mesh):
    q, x = normal(0, 12, 5), normal(1, 10, 5)
    density = jax.pmap(lambda q: kde.log_density(q, x, 1.0))(q.reshape(4, 3, 5))
    np.testing.assert_allclose(density.reshape(-1), reference(q, x, 1.0), rtol=1e-5)


def test_shard_map_and_its_gradient(mesh):
    split, whole = PartitionSpec(parallel.AXIS), PartitionSpec()
    q, x = normal(0, 20, 10), normal(1, 10, 10)

    def density(q, x, h):
        return kde.log_density(q, x, h, tile=4)

    sharded = jax.shard_map(density, mesh=mesh, in_specs=(split, whole, whole), out_specs=split)
    h = jnp.array(1.0)
    np.testing.assert_allclose(jax.jit(sharded)(q, x, h), reference(q, x, 1.0), rtol=1e-5)
    grads = jax.jit(jax.grad(lambda *a: sharded(*a).sum(), (0, 1, 2)))(q, x, h)
    expected = jax.jit(jax.grad(lambda *a: density(*a).sum(), (0, 1, 2)))(q, x, h)
    chex.assert_trees_all_close(grads, expected, rtol=1e-4, atol=1e-5)


def test_shard_map_of_classes(mesh):
    split = PartitionSpec(parallel.AXIS)
    x, labels = normal(0, 40, 10), np.arange(40) % K
    sharded = jax.shard_map(
        lambda x, y: by_class(x, y, 1.0), mesh=mesh, in_specs=(split, split), out_specs=split
    )
    expected = [class_reference(x[i : i + 10], labels[i : i + 10], np.ones(K)) for i in (0, 30)]
    density = jax.jit(sharded)(x, labels)
    np.testing.assert_allclose(density[:10], expected[0], rtol=1e-5)
    np.testing.assert_allclose(density[30:], expected[1], rtol=1e-5)


def temporaries(function, *shapes):
    args = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_memory():
    """60,000 x 60,000 distances alone would be 14 GB."""
    n, f32 = 60_000, jnp.float32
    x, labels, h = ((n, 128), f32), ((n,), jnp.int32), ((), f32)

    def every(x, h):
        return kde.log_density(x, x, h, leave_one_out=True)

    def per_class(x, labels, h):
        return kde.class_log_density(x, labels, h, num_classes=10)

    gradient = jax.grad(lambda *args: per_class(*args).sum(), (0, 2))
    assert temporaries(every, x, h) < 128 * 2**20
    assert temporaries(per_class, x, labels, h) < 128 * 2**20
    assert temporaries(gradient, x, labels, h) < 512 * 2**20


def test_scott_and_silverman():
    """With one dimension both are the textbook rules of scipy's gaussian_kde."""
    x = 3 * normal(0, 50, 1)
    np.testing.assert_allclose(kde.scott(x), x.std() * 50 ** (-1 / 5), rtol=1e-5)
    np.testing.assert_allclose(kde.silverman(x), x.std() * (50 * 3 / 4) ** (-1 / 5), rtol=1e-5)
    y = normal(1, 50, 6) * np.arange(1, 7) + 100
    sigma = np.sqrt(y.astype(float).var(0).mean())
    np.testing.assert_allclose(kde.scott(y, factor=0.5), 0.5 * sigma * 50 ** (-1 / 10), rtol=1e-4)
    np.testing.assert_allclose(kde.silverman(y), sigma * (50 * 2) ** (-1 / 10), rtol=1e-4)


def test_mean_distance_averages_all_pairs():
    x = normal(0, 30, 7).astype(np.float32)
    mean = cdist(x, x, "sqeuclidean").mean()
    np.testing.assert_allclose(kde.mean_distance(x, factor=0.3) ** 2, 0.3 * mean / 2, rtol=1e-5)


def test_median_distance():
    x = normal(0, 60, 7)
    exact = np.median(pdist(x, "sqeuclidean"))
    density = median_distance(jax.random.key(0), x, factor=1.0, pairs=20_000) ** 2
    np.testing.assert_allclose(density, exact / 2, rtol=0.02)
    pair = np.array([[0.0, 0.0], [3.0, 4.0]], np.float32)
    density = median_distance(jax.random.key(0), pair, factor=2.0, pairs=10)
    np.testing.assert_allclose(density, 5.0, rtol=1e-6)  # The only pair has |x - y|^2 = 25.


RULES = {
    "scott": kde.scott,
    "silverman": kde.silverman,
    "mean": kde.mean_distance,
    "median": functools.partial(kde.median_distance, jax.random.key(0)),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rules(rule):
    """Masked points are ignored; rules scale with the points and give the floor without spread."""
    x, floor = normal(0, 40, 5), np.float32(kde.FLOOR)
    rule, plain = jax.jit(rule), rule
    mask = (np.arange(40) < 25).astype(np.float32)
    masked = rule(np.where(mask[:, None], x, 50), weights=mask)
    # The median is over random pairs, which differ here.
    tolerance = 0.05 if plain is RULES["median"] else 1e-5
    np.testing.assert_allclose(masked, rule(x[:25]), rtol=tolerance)
    every = rule(x, weights=np.ones(40, np.float32))
    np.testing.assert_allclose(rule(4 * x, weights=np.ones(40, np.float32)), 4 * every, rtol=1e-5)
    assert rule(np.ones_like(x), weights=mask) == floor
    assert rule(x, weights=np.eye(40, dtype=np.float32)[3]) == floor
    assert rule(x, weights=np.zeros(40, np.float32)) == floor
    assert np.isfinite(jax.jit(jax.grad(plain))(np.ones((4, 2), np.float32))).all()


def test_class_bandwidth():
    x, labels = classes()
    of_classes = jax.jit(functools.partial(kde.class_bandwidth, kde.scott, num_classes=K))
    density, scott = np.asarray(of_classes(x, labels)), jax.jit(kde.scott)
    for k in (0, 3, 4):
        np.testing.assert_allclose(density[k], scott(x[labels == k]), rtol=1e-4)
    np.testing.assert_allclose(density[1:3], [kde.FLOOR] * 2, rtol=1e-6)


@pytest.mark.parametrize("per_class", [False, True])
def test_likelihood(per_class):
    """The choice equals that by float64 leave-one-out, for more than one batch of candidates."""
    x, labels = classes(d=2)
    x[labels == 0] *= 20
    grid = np.geomspace(0.05, 100, 11 if per_class else 8)
    candidates = np.outer(grid, np.arange(1, K + 1)) if per_class else grid
    density = jax.jit(functools.partial(kde.likelihood, num_classes=K))(x, labels, candidates)
    table = np.broadcast_to(candidates.reshape(len(grid), -1), (len(grid), K))
    for k in (0, 3, 4):
        mine = x[labels == k]
        scores = [reference(mine, mine, h, None, True).mean() for h in table[:, k]]
        np.testing.assert_allclose(density[k], table[np.argmax(scores), k], rtol=1e-6)
    np.testing.assert_allclose(density[1:3], table[0, 1:3], rtol=1e-6)
    assert density[0] > density[3]


x44, x43 = jnp.zeros((4, 4)), jnp.zeros((4, 3))
y4 = jnp.array([0, 1, 1, 0])


def with_value(value):
    """Return points of which one coordinate has the value."""
    return np.where(np.arange(16.0, dtype=np.float32) == 5, value, 0.5).reshape(4, 4)


INVALID = [
    (lambda: kde.log_density(x44[0], x44, 1.0), ValueError, r"got shape \(4,\)"),
    (lambda: kde.log_density(x44, x44[:0], 1.0), ValueError, r"got shape \(0, 4\)"),
    (lambda: kde.log_density(x44, x43, 1.0), ValueError, "got 4 and 3"),
    (lambda: kde.log_density(x44.astype(int), x44, 1.0), TypeError, "int32"),
    (lambda: kde.log_density(x44[:2], x44, 1.0, leave_one_out=True), ValueError, "got 2 and 4"),
    (lambda: kde.log_density(x44, x44, 0.0), ValueError, "got 0.0"),
    (lambda: kde.log_density(x44, x44, jnp.inf), ValueError, "got inf"),
    (lambda: kde.log_density(x44, x44, 1e-45), ValueError, "bandwidth"),
    (lambda: kde.log_density(x44, x44, jnp.ones(2)), ValueError, r"got \(2,\)"),
    (lambda: kde.log_density(x44, x44, 1.0, tile=0), ValueError, "got 0"),
    (lambda: kde.log_density(x44, x44, 1.0, tile=1.5), TypeError, "got 1.5"),
    (lambda: kde.log_density(x44, x44, 1.0, weights=jnp.ones(3)), ValueError, r"got \(3,\)"),
    (lambda: kde.log_density(x44, x44, 1.0, weights=-jnp.ones(4)), ValueError, "got -1.0"),
    (lambda: kde.log_density(x44, x44, 1.0, weights=np.full(4, 3e38)), ValueError, "sum"),
    (lambda: kde.log_density(with_value(np.nan), x44, 1.0), ValueError, "queries.*nan"),
    (lambda: kde.log_density(x44, with_value(-np.inf), 1.0), ValueError, "points.*-inf"),
    (lambda: kde.log_density(x44, with_value(1e30), 1.0), ValueError, "1.*e[+]30"),
    (lambda: by_class(x44, y4[:3], 1.0), ValueError, r"got \(3,\)"),
    (lambda: by_class(x44, y4 * 1.0, 1.0), TypeError, "float32"),
    (lambda: by_class(x44, y4 + K, 1.0), ValueError, r"got 5\.\.6"),
    (lambda: by_class(x44, y4 - 1, 1.0), ValueError, r"got -1\.\.0"),
    (lambda: by_class(x44, y4, jnp.ones(4)), ValueError, r"got \(4,\)"),
    (lambda: by_class(with_value(np.nan), y4, 1.0), ValueError, "embeddings.*nan"),
    (lambda: kde.scott(x44[0]), ValueError, r"got shape \(4,\)"),
    (lambda: kde.scott(x44, factor=np.nan), ValueError, "got nan"),
    (lambda: kde.mean_distance(x44, factor=np.ones(2)), ValueError, r"got shape \(2,\)"),
    (lambda: kde.median_distance(jax.random.key(0), x44, pairs=0), ValueError, "got 0"),
    (lambda: kde.class_bandwidth(kde.scott, x44, y4, num_classes=0), ValueError, "got 0"),
    (lambda: kde.class_bandwidth(kde.scott, x44, y4, num_classes=1), ValueError, r"got 0\.\.1"),
    (lambda: kde.likelihood(x44, y4, 1.0, num_classes=2), ValueError, r"got \(\)"),
    (lambda: kde.likelihood(x44, y4, -jnp.ones(3), num_classes=2), ValueError, r"got \[-1"),
    (lambda: kde.likelihood(x44, y4, jnp.ones((3, 3)), num_classes=2), ValueError, r"\(3, 3\)"),
]


@pytest.mark.parametrize("call, error, value", INVALID)
def test_invalid_arguments_are_rejected(call, error, value):
    with pytest.raises(error, match=value):
        call()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rules_reject_points_that_are_not_finite(rule):
    with pytest.raises(ValueError, match="points.*nan"):
        rule(with_value(np.nan))


def test_jit_checks_shapes_and_not_values():
    with pytest.raises(ValueError, match="got 4 and 3"):
        jax.jit(kde.log_density)(x44, x43, 1.0)
    assert np.isnan(jax.jit(kde.log_density)(x44, x44, -1.0)).all()
