"""Whitening against NumPy in float64: the map, its inverse, pools, tasks and checks."""

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
PIXELS = (IMAGES / 255).reshape(40, 12)
NORMAL = jnp.asarray((IMAGES / 255 - MEAN) / STD, jnp.float32)


@functools.cache
def pool():
    return sampling.pool(IMAGES, LABELS, num_classes=3, mean=MEAN, std=STD, weights=WEIGHTS)


@functools.cache
def fitted(weighted=False):
    return zca.fit(pool(), weighted=weighted)


def by_numpy(shares):
    """Return mean and matrix in float64 of samples with weights `shares`."""
    mean = shares @ PIXELS
    values, vectors = np.linalg.eigh((PIXELS - mean).T * shares @ (PIXELS - mean))
    return mean.reshape(3, 2, 2), vectors / np.sqrt(values + 0.1) @ vectors.T


def test_fit_is_that_of_numpy_uniform_and_weighted():
    totals = np.bincount(LABELS, WEIGHTS)
    for weighted, shares in ((False, np.full(40, 1 / 40)), (True, WEIGHTS / totals[LABELS] / 3)):
        mean, matrix = by_numpy(shares)
        np.testing.assert_allclose(fitted(weighted).mean, mean, atol=1e-6)
        np.testing.assert_allclose(fitted(weighted).matrix, matrix, atol=2e-5)
        np.testing.assert_allclose(fitted(weighted).matrix, fitted(weighted).matrix.T, atol=1e-6)


def test_the_whitened_variance_is_that_given_by_epsilon():
    """The covariance becomes Λ / (Λ + ε) in the eigenvectors of the original one."""
    whitened = np.asarray(zca.whiten(NORMAL, fitted(), MEAN, STD), float)
    before, after = (np.cov(x.reshape(40, 12).T, bias=True) for x in (PIXELS, whitened))
    values, vectors = np.linalg.eigh(before)
    expected = vectors * (values / (values + 0.1)) @ vectors.T
    np.testing.assert_allclose(after, expected, atol=1e-5)
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-5)


def test_unwhiten_inverts_whiten_for_any_leading_shape():
    images = NORMAL.reshape(2, 4, 5, 3, 2, 2)
    whitened = zca.whiten(images, fitted(), MEAN, STD)
    assert float(jnp.abs(whitened - images).max()) > 0.1
    np.testing.assert_allclose(zca.unwhiten(whitened, fitted(), MEAN, STD), images, atol=2e-5)


def test_images_pools_and_tasks_are_whitened_alike():
    whitened = zca.whiten(NORMAL, fitted(), MEAN, STD)
    drawn = sampling.take(zca.whiten_pool(pool(), fitted()), jnp.arange(40))
    np.testing.assert_allclose(drawn, whitened, atol=1e-5)
    task = evaluate.task(IMAGES, LABELS, num_classes=3, mean=MEAN, std=STD)
    scored = zca.whiten_task(task, fitted())
    np.testing.assert_allclose(scored.images, whitened, atol=1e-5)
    assert (scored.mean.tolist(), scored.std.tolist()) == ([0, 0], [1, 1])
    np.testing.assert_array_equal(scored.labels, task.labels)


def test_the_normalisation_does_not_matter():
    """Pixels are whitened, so images normalised by other moments give the same result."""
    other = sampling.pool(IMAGES, LABELS, num_classes=3, mean=(0.1, 0.7), std=(0.5, 0.4))
    for one, two in zip(fitted(), zca.fit(other), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    pixels = jnp.asarray(IMAGES / 255, jnp.float32)
    whitened = zca.whiten(pixels, fitted(), (0.0, 0.0), (1.0, 1.0))
    np.testing.assert_allclose(whitened, zca.whiten(NORMAL, fitted(), MEAN, STD), atol=1e-5)


def test_none_changes_nothing():
    images, task = jnp.ones((1, 3, 2, 2)), object()
    for function in (zca.whiten, zca.unwhiten):
        assert function(images, None, MEAN, STD) is images
    assert zca.whiten_pool(pool(), None) is pool() and zca.whiten_task(task, None) is task


def test_the_order_of_samples_does_not_matter():
    order = RANDOM.permutation(40)
    moved = sampling.pool(
        IMAGES[order], LABELS[order], num_classes=3, mean=MEAN, std=STD, weights=WEIGHTS[order]
    )
    for one, other in zip(fitted(True), zca.fit(moved, weighted=True), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_fewer_images_than_values_warn_and_are_bounded_by_epsilon():
    few = sampling.pool(IMAGES[:6], LABELS[:6], num_classes=3, mean=MEAN, std=STD)
    with pytest.warns(UserWarning, match="12 values.* 6 images"):
        whitening = zca.fit(few)
    values = np.linalg.eigvalsh(np.asarray(whitening.matrix, float))
    np.testing.assert_allclose(values[-7:], 0.1**-0.5, rtol=1e-4)  # 12 directions minus 5


def test_constant_images_stay_finite():
    same = sampling.pool(IMAGES[:1].repeat(20, 0), LABELS[:20], num_classes=3, mean=MEAN, std=STD)
    whitened = sampling.take(zca.whiten_pool(same, zca.fit(same)), jnp.arange(20))
    np.testing.assert_allclose(whitened, 0, atol=1e-5)


def test_the_gradient_is_that_of_the_matrix():
    total = lambda images: zca.whiten(images, fitted(), MEAN, STD).sum()
    gradient = jax.grad(total)(NORMAL[:2])
    expected = np.asarray(fitted().matrix).sum(0).reshape(3, 2, 2) * STD
    np.testing.assert_allclose(gradient, [expected] * 2, atol=1e-5)


def test_invalid_sizes_and_epsilons_raise():
    other = jnp.zeros((4, 2, 2, 2))
    for function in (zca.whiten, zca.unwhiten):
        with pytest.raises(ValueError, match=r"\(3, 2, 2\).* got \(2, 2, 2\)"):
            function(other, fitted(), MEAN, STD)
    with pytest.raises(ValueError, match="4,096.* 12,288"):
        zca.check_size((64, 64, 3))
    with pytest.raises(ValueError, match="epsilon.* 0.0"):
        zca.fit(pool(), epsilon=0.0)
