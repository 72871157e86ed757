"""Whitening against NumPy in float64: the map, its inverse, pools and tasks, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import evaluate, sampling
from jaxdd.methods import zca

MEAN, STD = (0.4, 0.5), (0.2, 0.3)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (40, 3, 2, 2), dtype=np.uint8)
LABELS = np.arange(40) % 3
WEIGHTS = RANDOM.uniform(0.1, 1, 40)
NORMAL = ((IMAGES / 255 - MEAN) / STD).reshape(40, 12)


@functools.cache
def pool():
    return sampling.pool(IMAGES, LABELS, num_classes=3, mean=MEAN, std=STD, weights=WEIGHTS)


@functools.cache
def fitted(weighted=False):
    return zca.fit(pool(), weighted=weighted)


def by_numpy(shares):
    """The mean and the matrix in float64, of samples that count by shares."""
    mean = shares @ NORMAL
    values, vectors = np.linalg.eigh((NORMAL - mean).T * shares @ (NORMAL - mean))
    return mean.reshape(3, 2, 2), vectors / np.sqrt(values + zca.EPSILON) @ vectors.T


def test_is_that_of_numpy_whether_images_count_alike_or_by_their_weights():
    totals = np.bincount(LABELS, WEIGHTS)
    for weighted, shares in ((False, np.full(40, 1 / 40)), (True, WEIGHTS / totals[LABELS] / 3)):
        mean, matrix = by_numpy(shares)
        np.testing.assert_allclose(fitted(weighted).mean, mean, atol=1e-6)
        np.testing.assert_allclose(fitted(weighted).matrix, matrix, atol=2e-5)
        np.testing.assert_allclose(fitted(weighted).matrix, fitted(weighted).matrix.T, atol=1e-6)


def test_leaves_every_direction_with_the_variance_that_epsilon_says():
    """Λ / (Λ + ε), and no correlation: the covariance keeps its eigenvectors."""
    seen = np.asarray(zca.whiten(sampling.take(pool(), jnp.arange(40)), fitted()), float)
    before, after = (np.cov(x.reshape(40, 12).T, bias=True) for x in (NORMAL, seen))
    values, vectors = np.linalg.eigh(before)
    expected = vectors * (values / (values + zca.EPSILON)) @ vectors.T
    np.testing.assert_allclose(after, expected, atol=1e-5)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)


def test_restores_what_it_whitened_in_any_leading_shape():
    images = jnp.asarray(NORMAL, jnp.float32).reshape(2, 4, 5, 3, 2, 2)
    seen = zca.whiten(images, fitted())
    assert float(jnp.abs(seen - images).max()) > 0.1
    np.testing.assert_allclose(zca.unwhiten(seen, fitted()), images, atol=2e-5)


def test_is_one_map_for_images_pools_and_tasks():
    seen = zca.whiten(sampling.take(pool(), jnp.arange(40)), fitted())
    drawn = sampling.take(zca.whiten_pool(pool(), fitted()), jnp.arange(40))
    np.testing.assert_allclose(drawn, seen, atol=1e-5)
    task = evaluate.task(IMAGES, LABELS, num_classes=3, mean=MEAN, std=STD)
    scored = zca.whiten_task(task, fitted())
    np.testing.assert_allclose(scored.images, seen, atol=1e-5)
    assert (scored.mean.tolist(), scored.std.tolist()) == ([0, 0], [1, 1])
    np.testing.assert_array_equal(scored.labels, task.labels)


def test_none_leaves_everything_as_it_is():
    images, task = jnp.ones((1, 3, 2, 2)), object()
    assert zca.whiten(images, None) is images and zca.unwhiten(images, None) is images
    assert zca.whiten_pool(pool(), None) is pool() and zca.whiten_task(task, None) is task


def test_does_not_depend_on_the_order_of_the_samples():
    order = RANDOM.permutation(40)
    moved = sampling.pool(
        IMAGES[order], LABELS[order], num_classes=3, mean=MEAN, std=STD, weights=WEIGHTS[order]
    )
    for one, other in zip(fitted(True), zca.fit(moved, weighted=True), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_fewer_images_than_values_are_regularised_and_it_says_so():
    few = sampling.pool(IMAGES[:6], LABELS[:6], num_classes=3, mean=MEAN, std=STD)
    with pytest.warns(UserWarning, match=r"12 values by 6 images .* grow by 1 / sqrt\(0.1\)"):
        found = zca.fit(few)
    values = np.linalg.eigvalsh(np.asarray(found.matrix, float))
    np.testing.assert_allclose(values[-7:], zca.EPSILON**-0.5, rtol=1e-4)  # 12 less 5 of them


def test_constant_images_stay_finite():
    same = sampling.pool(IMAGES[:1].repeat(20, 0), LABELS[:20], num_classes=3, mean=MEAN, std=STD)
    seen = sampling.take(zca.whiten_pool(same, zca.fit(same)), jnp.arange(20))
    np.testing.assert_allclose(seen, 0, atol=1e-5)


def test_gradients_pass_through_it():
    images = jnp.asarray(NORMAL[:2], jnp.float32).reshape(2, 3, 2, 2)
    found = jax.grad(lambda images: zca.whiten(images, fitted()).sum())(images)
    expected = np.asarray(fitted().matrix).sum(0).reshape(3, 2, 2)
    np.testing.assert_allclose(found, [expected] * 2, atol=1e-5)


def test_refuses_images_of_another_size_too_large_ones_and_a_bad_epsilon():
    other = jnp.zeros((4, 2, 2, 2))
    for refused in (zca.whiten, zca.unwhiten):
        with pytest.raises(ValueError, match=r"must be \(3, 2, 2\).* found \(2, 2, 2\)"):
            refused(other, fitted())
    with pytest.raises(ValueError, match="at most 4,096 values.* 64 × 64 × 3 = 12,288"):
        zca.check_size((64, 64, 3))
    with pytest.raises(ValueError, match="epsilon must be positive"):
        zca.fit(pool(), epsilon=0.0)
