"""Noise and blur: compared with scipy, NumPy loops and values by hand; monotone in severity."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from jaxdd.data import _filters, corruptions, degradations

KEY = jax.random.key(0)
SEVERITIES = (1, 2, 3, 4)


def photograph(size=32, seed=0):
    rng = np.random.default_rng(seed)
    picture = ndimage.gaussian_filter(rng.normal(size=(size, size, 3)), (2, 2, 0), mode="wrap")
    return np.clip(0.5 + 0.2 * picture / picture.std(), 0, 1).astype(np.float32)


@functools.cache
def program(name, severity):
    return jax.jit(functools.partial(corruptions.corrupt, corruption=name, severity=severity))


def degraded(name, images, severity):
    keys = jax.random.split(KEY, len(images))
    return np.asarray(program(name, severity)(keys, images)).astype(float)


def test_the_ten_are_in_the_order_of_the_classes():
    assert " ".join(degradations.DEGRADATIONS) == (
        "gaussian_noise shot_noise impulse_noise speckle_noise gaussian_blur "
        "defocus_blur glass_blur motion_blur zoom_blur original"
    )


def test_noise_has_the_deviation_of_its_level():
    grey = jnp.full((64, 64, 3), 0.4)
    added = degradations.gaussian_noise(KEY, grey, severity=4) - 0.4
    assert float(added.std()) == pytest.approx(0.1, rel=0.03)
    times = degradations.speckle_noise(KEY, grey, severity=4) - 0.4
    assert float(times.std()) == pytest.approx(0.2 * 0.4, rel=0.03)
    hit = np.asarray(degradations.impulse_noise(KEY, grey, severity=4))
    assert np.mean(hit != np.float32(0.4)) == pytest.approx(0.07, abs=0.01)
    assert set(np.unique(hit)) == {0, np.float32(0.4), 1}
    assert np.mean(hit[hit != np.float32(0.4)]) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("level", [0, 20, 128, 255])
def test_photons_are_a_poisson_number(level):
    """Values follow scipy's Poisson distribution, and black stays black."""
    image = jnp.full((64, 64, 3), level / 255)
    counts = np.asarray(degradations.shot_noise(KEY, image, severity=4)) * 50
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    expected = stats.poisson(50 * level / 255)
    for at in (expected.ppf(0.2), expected.ppf(0.6)):
        if at < 50:
            share = np.mean(np.rint(counts) <= at)
            assert share == pytest.approx(expected.cdf(at), abs=0.025)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_is_scipys(severity):
    image, sigma = photograph(), (0.6, 0.7, 0.8, 1.0)[severity - 1]
    actual = degradations.gaussian_blur(jnp.asarray(image), severity=severity)
    expected = ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_a_blurred_disk(severity):
    radius, alias = ((0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity - 1]
    y, x = np.mgrid[-8:9, -8:9]
    disk = ((x**2 + y**2) <= radius**2).astype(float)
    edge = np.exp(-(np.array([-1.0, 0, 1]) ** 2) / (2 * alias**2))
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(edge, edge) / edge.sum() ** 2)
    image = photograph()
    expected = np.stack(
        [ndimage.convolve(image[..., c], kernel, mode="mirror") for c in range(3)], -1
    )
    actual = degradations.defocus_blur(jnp.asarray(image), severity=severity)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("severity", [1, 4])
def test_glass_is_a_loop_over_pixels(severity):
    sigma, farthest, times = {1: (0.25, 1, 1), 4: (0.4, 1, 2)}[severity]
    image = photograph(12)
    blur = lambda picture: ndimage.gaussian_filter(picture, (sigma, sigma, 0), mode="nearest")
    expected = np.rint(blur(image) * 255) / 255
    count = times * (12 - 2 * farthest + farthest - 1) ** 2
    moves = np.floor(2 * farthest * np.asarray(_filters.uniform(KEY, (count, 2)))) - farthest
    moves = iter(moves.astype(int))
    for _ in range(times):
        for row in range(12 - farthest, farthest, -1):
            for column in range(12 - farthest, farthest, -1):
                down, right = next(moves)
                expected[row, column] = expected[row + down, column + right]
    actual = degradations.glass_blur(KEY, jnp.asarray(image), severity=severity)
    np.testing.assert_allclose(actual, blur(expected), atol=5e-3)


def test_motion_and_zoom_of_a_point():
    """Motion blurs a point to one side; zoom keeps the middle of a smooth image in place."""
    point = jnp.zeros((21, 21, 3)).at[10, 10].set(1)
    smeared = np.asarray(degradations.motion_blur(KEY, point, severity=4))[..., 0]
    rows, columns = np.nonzero(smeared)
    assert smeared.sum() == pytest.approx(1, abs=1e-5) and np.ptp(columns) >= np.ptp(rows)
    assert columns.max() == 10 or columns.min() == 10
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 32)[:, None, None], (32, 32, 3))
    zoomed = np.asarray(degradations.zoom_blur(ramp, severity=4))
    assert zoomed[15:17].mean() == pytest.approx(0.5, abs=0.02)
    assert np.ptp(zoomed[:, 0, 0]) < 0.95


@pytest.mark.parametrize("name", [name for name in degradations.DEGRADATIONS if name != "original"])
def test_the_strongest_changes_more_than_the_weakest(name):
    images = np.stack([np.rint(255 * photograph(seed=i)) for i in range(24)]).astype(np.uint8)
    weak, strong = (np.abs(degraded(name, images, level) - images).mean() for level in (1, 4))
    assert 0.3 < weak < strong


def test_one_key_gives_the_same_bytes_everywhere():
    """Recorded with JAX 0.10 on Python 3.11; JAX 0.12 on Python 3.13 gives the same."""
    images = np.stack([np.rint(255 * photograph(seed=i)) for i in range(24)]).astype(np.uint8)
    digest = hashlib.sha256()
    with jax.enable_x64(True):
        for name in degradations.DEGRADATIONS:
            digest.update(degraded(name, images, 4).astype(np.uint8).tobytes())
    assert digest.hexdigest() == "15112650774e90141a7f8c1bb3fd4b5d3699c901a5eb48a928754b1da12f7491"


def test_the_original_is_left_alone():
    images = np.rint(255 * photograph())[None].astype(np.uint8)
    np.testing.assert_array_equal(degraded("original", images, 4), images)


@pytest.mark.parametrize("name", degradations.DEGRADATIONS)
def test_small_and_constant_images(name):
    images = np.full((2, 5, 7, 3), 100, np.uint8)
    actual = degraded(name, images, 4)
    assert actual.shape == images.shape
    if name.endswith("blur"):
        np.testing.assert_allclose(actual, 100, atol=1)
