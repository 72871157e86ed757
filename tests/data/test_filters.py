"""Resampling against scipy, exact random numbers and rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from jaxdd.data import _filters

KEY = jax.random.key(0)


def photograph(size):
    return np.random.default_rng(0).random((size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("sigma, truncate, mode", [(0.8, 4.0, "edge"), (1.9, 3.0, "symmetric")])
def test_blur_matches_scipy(sigma, truncate, mode):
    image = photograph(20)[:, :, 0]
    blur = functools.partial(_filters.gaussian_blur, truncate=truncate, mode=mode)
    actual = jax.jit(blur, static_argnums=1)(image, sigma)
    scipys = {"edge": "nearest", "symmetric": "reflect"}[mode]
    expected = ndimage.gaussian_filter(image.astype(float), sigma, truncate=truncate, mode=scipys)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1.75, 2.25, 1.25, np.nextafter(1.25, 2)])
def test_zoom_matches_scipy(factor):
    image = photograph(32)[:, :, 0].astype(float)
    window = int(np.ceil(32 / factor))
    top = (32 - window) // 2
    large = ndimage.zoom(image[top : top + window, top : top + window], factor, order=1)
    trim = (large.shape[0] - 32) // 2
    matrix = _filters.zoom(32, factor)
    np.testing.assert_allclose(
        matrix @ image @ matrix.T, large[trim : trim + 32, trim : trim + 32], atol=1e-12
    )


def test_random_numbers_are_exact_and_have_the_named_distribution():
    draw = jax.jit(lambda key: (_filters.uniform(key, (4000,)), _filters.normal(key, (4000,))))
    drawn, normal = (np.asarray(x, float) for x in draw(KEY))
    np.testing.assert_array_equal(drawn * 2**24, np.rint(drawn * 2**24))
    assert 0 < drawn.min() and drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 0.01
    assert stats.kstest(normal, "norm").pvalue > 0.01


def test_halves_are_rounded_away_from_zero_even_where_they_are_blurred():
    values = jnp.array([0.5, 0.4999999, -1.5, 2.4])
    np.testing.assert_array_equal(_filters.round_half_away(values), [1, 1, -2, 2])


def test_every_channel_is_blurred_and_smeared_by_itself():
    image = photograph(9)
    for of in (
        lambda x: _filters.gaussian_blur(x, 1.0, truncate=3.0, mode="edge"),
        lambda x: _filters.motion_blur(x, 3, 1.5, jnp.pi / 7),
    ):
        each = jax.jit(lambda x, of=of: jnp.stack([of(x[..., c]) for c in range(3)], -1))
        np.testing.assert_allclose(jax.jit(of)(image), each(image), atol=1e-6)
