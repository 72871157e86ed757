"""Draws made of draws: density weights against the KDE, representatives against scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import cluster

from jaxdd import kde, sampling

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (59, 8, 8, 3), dtype=np.uint8)
POOL = sampling.pool(
    IMAGES,
    np.repeat([0, 1, 2], [20, 9, 30]),
    num_classes=3,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    weights=np.random.default_rng(1).uniform(0.1, 1, 59),
)
SAMPLER = jax.jit(functools.partial(sampling.uniform_batch, size=8))


def equal(one, other):
    np.testing.assert_array_equal(one, other)


def embed(images):
    return images.mean((1, 2))


def test_batch_weights_are_the_inverse_density_of_the_batch():
    sampler = jax.jit(sampling.density_weighted(SAMPLER, embed, bandwidth=0.1, temperature=0.7))
    density = jax.jit(kde.log_density)
    plain, batch = SAMPLER(KEY, POOL), sampler(KEY, POOL)
    equal(plain.images, batch.images)
    for c in range(3):
        points = embed(plain.images[c])
        log_density = density(points, points, 0.1, weights=plain.weights[c])
        expected = plain.weights[c] * jnp.exp(-log_density / 0.7)
        np.testing.assert_allclose(batch.weights[c], expected / expected.sum(), rtol=1e-4)


def test_batch_weights_work_inside_the_compiled_loop():
    sampler = sampling.density_weighted(SAMPLER, embed, bandwidth=0.1)
    batches = jax.jit(lambda keys: jax.lax.map(lambda key: sampler(key, POOL).weights, keys))
    assert np.isfinite(batches(jax.random.split(KEY, 3))).all()


@pytest.mark.parametrize(
    "given, match",
    [
        (dict(bandwidth=0.0), "bandwidth must be positive and finite, found 0.0"),
        (dict(bandwidth=[1.0, np.nan, 1.0]), "bandwidth must be positive and finite"),
        (dict(bandwidth=1.0, temperature=np.nan), "temperature must be positive and finite"),
        (dict(bandwidth=1.0, temperature=np.ones(3)), "temperature must be a scalar"),
        (dict(bandwidth=np.ones(2)), r"bandwidth must be a scalar or one per class, 3, found \(2,"),
    ],
    ids=str,
)
def test_what_density_weights_cannot_mean(given, match):
    with pytest.raises(ValueError, match=match):
        sampling.density_weighted(SAMPLER, embed, **given)(KEY, POOL)


def test_representatives_are_the_nearest_to_the_centres_of_kmeans():
    """scikit-learn's Lloyd from the same start, weighted alike."""
    candidates = SAMPLER(KEY, POOL)
    found = sampling.representative(SAMPLER, embed, size=3, iterations=20)(KEY, POOL)
    for c in range(3):
        points, weights = np.asarray(embed(candidates.images[c])), np.asarray(candidates.weights[c])
        centres = (
            cluster.KMeans(3, init=points[:3], n_init=1, max_iter=20, tol=0)
            .fit(points, sample_weight=weights)
            .cluster_centers_
        )
        distances = ((points[:, None] - centres) ** 2).sum(2)
        distances[weights == 0] = np.inf
        chosen = distances.argmin(0)
        equal(found.images[c], candidates.images[c][chosen])
        expected = weights[chosen] / weights[chosen].sum()
        np.testing.assert_allclose(found.weights[c], expected, rtol=1e-6)


def test_padding_is_no_representative():
    """Nine samples and seven fillers of weight zero: the fillers are copies, and never chosen."""
    sampler = sampling.representative(
        functools.partial(sampling.uniform_batch, size=16), embed, size=9
    )
    weights = jax.jit(sampler)(KEY, POOL).weights
    assert (weights[1] > 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


def test_too_few_candidates():
    with pytest.raises(ValueError, match="9 samples of a class or more, found 8"):
        sampling.representative(SAMPLER, embed, size=9)(KEY, POOL)


def test_groups_of_a_class_stand_side_by_side_and_empty_ones_weigh_nothing():
    """Class 0 has groups of 2 and 3 samples; class 1 has one of 4 and an empty one."""
    groups = np.repeat([0, 1, 2], [2, 3, 4])
    images = np.broadcast_to(groups[:, None, None, None], (9, 2, 2, 1)).astype(np.uint8)
    pool = sampling.pool(images, groups, num_classes=4, mean=(0.0,), std=(1 / 255,), empty=True)
    sampler = sampling.grouped(functools.partial(sampling.uniform_batch, size=3), groups=2)
    batch = jax.jit(sampler)(KEY, pool)
    assert batch.images.shape == (2, 6, 2, 2, 1)
    third = 1 / 3
    expected = [[0.5, 0.5, 0, third, third, third], [third, third, third, 0, 0, 0]]
    np.testing.assert_allclose(batch.weights, expected, rtol=1e-6)
    shown = np.rint(np.asarray(batch.images[:, :, 0, 0, 0]))
    assert shown[0].tolist() == [0, 0, 0, 1, 1, 1] and shown[1, :3].tolist() == [2, 2, 2]
