"""Object-blind features by hand and against SciPy, and their invariances."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft

from jaxdd.weights import blind_features

COLOUR = np.random.default_rng(0).uniform(size=(6, 32, 32, 3)).astype(np.float32)
GREY = COLOUR[..., :1]
NAMES = ("tone", "border", "noise", "blocks", "layout")
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


@functools.cache
def compiled(name):
    return jax.jit(getattr(blind_features, name))


def compute(name, images):
    return np.asarray(compiled(name)(images))


@pytest.mark.parametrize("shape", [(4, 4, 1), (5, 9, 2), (16, 40, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_features_are_finite_for_degenerate_images(name, shape):
    """Noise, black, white and a step: logarithms and quotients are floored."""
    images = np.stack([np.zeros(shape), np.ones(shape), np.zeros(shape), np.zeros(shape)])
    images[2, : shape[0] // 2] = 1
    images[3] = np.random.default_rng(0).uniform(size=shape)
    features = compute(name, images.astype(np.float32))
    chex.assert_shape(features, (4, None))
    chex.assert_tree_all_finite(features)
    assert (features[3] != features[0]).any()


def test_sizes_are_those_of_the_table():
    sizes = dict(zip(NAMES, (71, 71, 24, 226, 48), strict=True))
    for name, size in (sizes | {"texture": 321}).items():
        assert jax.eval_shape(getattr(blind_features, name), COLOUR).shape == (6, size)
        assert f"| `{name}` | {size} |" in blind_features.__doc__


def test_tone_by_hand():
    """Half black, half white: mean and deviation are 1/2, and half is at or below each level."""
    images = np.zeros((1, 4, 4, 1), np.float32)
    images[0, :2] = 1
    close(compute("tone", images), [[0.5, 0.5, *[0.5] * 15, 0.5, 0.5]])


def test_tone_is_invariant_to_positions():
    shuffled = np.random.default_rng(1).permutation(COLOUR.reshape(6, -1, 3), axis=1)
    close(compute("tone", shuffled.reshape(COLOUR.shape)), compute("tone", COLOUR))


def test_border_is_the_tone_of_six_of_32_pixels():
    middle, corner = COLOUR.copy(), COLOUR.copy()
    middle[:, 6:-6, 6:-6] = 0
    corner[:, 5, 5] = 0
    close(compute("border", middle), compute("border", COLOUR))
    assert (compute("border", corner) != compute("border", COLOUR)).any(1).all()


def test_noise_is_blind_to_a_ramp():
    """Pixels of a linear ramp equal the mean of their neighbours, whatever the slope."""
    ramp = np.linspace(0, 1, 16, dtype=np.float32)[None, :, None, None] * np.ones((1, 16, 16, 1))
    close(compute("noise", ramp.astype(np.float32))[0, 0], np.log(1e-7), atol=1e-3)
    turned = np.swapaxes(GREY, 1, 2)
    one, other = compute("noise", GREY), compute("noise", turned)
    close(one[:, :3], other[:, :3])
    close(one[:, 3:5], other[:, 5:7])


def test_blocks_are_the_cosine_transform_of_scipy():
    blocks = GREY[..., 0].reshape(6, 4, 8, 4, 8).swapaxes(2, 3)
    energy = (fft.dctn(blocks, axes=(3, 4), norm="ortho") ** 2).mean((1, 2))
    close(compute("blocks", GREY)[:, :64], np.log(energy + 1e-6).reshape(6, -1))


def test_blocks_show_the_grid_of_a_compressed_image():
    """With flat blocks of 8×8, only the phase of period 8 at the block edges has differences."""
    flat = np.kron(GREY[:, :4, :4, 0], np.ones((8, 8)))[..., None].astype(np.float32)
    features = compute("blocks", flat)[:, 64:]
    phases = features[:, 6:14]  # after those of period 2 and 4
    assert (phases.argmax(1) == 7).all()
    assert (phases[:, 7] > phases[:, :7].max(1) + 3).all()


def test_layout_by_hand():
    images = np.zeros((1, 8, 8, 1), np.float32)
    images[0, :2, :2] = 1
    images[0, 7, 7] = 1
    mean, deviation = compute("layout", images)[0].reshape(2, 4, 4)
    assert mean[0, 0] == 1 and mean.sum() == 1.25 and mean[3, 3] == 0.25
    close(deviation[3, 3], np.sqrt(0.25 * 0.75))
    assert deviation[0, 0] == 0
    red = np.concatenate([images, np.zeros((1, 8, 8, 2), np.float32)], -1)
    close(compute("layout", red)[0, 32:].reshape(4, 4), mean)


def test_texture_joins_tone_noise_and_blocks():
    small = COLOUR[:, :16, :16]
    parts = [compute(name, small) for name in ("tone", "noise", "blocks")]
    close(compute("texture", small), np.concatenate(parts, 1))


def test_patches_are_averaged_in_quarters():
    """Features of images turned upside down are not just swapped: filters have a direction."""
    images = jnp.asarray(np.random.default_rng(0).normal(0.5, 0.1, (500, 12, 12, 1)), jnp.float32)
    function = blind_features.patches(jax.random.key(0), images, count=8, side=3)
    features = np.asarray(function(images))
    assert features.shape == (500, 4 * 16) and (features >= 0).all()
    quarters = features.reshape(500, 4, 2, 8)
    upside_down = np.asarray(function(images[:, ::-1])).reshape(quarters.shape)
    assert (np.abs(upside_down - quarters[:, [2, 3, 0, 1]]).max() > 1e-3).all()
    assert np.isfinite(function(jnp.zeros((2, 12, 12, 1)))).all()


def test_patches_show_positions():
    """A spot in one quarter changes the features of that quarter only."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 16, 16, 1)), jnp.float32)
    function = blind_features.patches(jax.random.key(0), images, count=4, side=3)
    spot = images.at[:, 1:4, 1:4].set(0)
    changed = (
        (np.asarray(function(spot)) != np.asarray(function(images))).reshape(50, 4, 8).any((0, 2))
    )
    assert changed.tolist() == [True, False, False, False]


def test_translation_invariant_features_ignore_positions():
    """Rolled images are the same; with their pixels shuffled they are not."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 8, 12, 3)), jnp.float32)
    function = jax.jit(
        blind_features.translation_invariant(jax.random.key(0), images, count=4, side=3)
    )
    features = np.asarray(function(images))
    assert features.shape == (50, 2 * 8 + 71 + 8 * 7) and np.isfinite(features).all()
    close(function(jnp.roll(images, (3, 5), (1, 2))), features, rtol=1e-3)
    shuffled = np.random.default_rng(1).permutation(images.reshape(50, -1, 3), axis=1)
    assert np.abs(function(shuffled.reshape(images.shape)) - features).max(1).min() > 0.1
    assert np.isfinite(function(jnp.zeros((50, 8, 12, 3)))).all()


def test_toneless_features_ignore_contrast_brightness_and_colour():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 8, 12, 3)), jnp.float32)
    function = jax.jit(blind_features.toneless(jax.random.key(0), images, count=4, side=3))
    features = np.asarray(function(images))
    parts = (
        jax.eval_shape(f, images[..., :1]) for f in (blind_features.noise, blind_features.blocks)
    )
    assert features.shape[1] == 4 * 8 + sum(part.shape[1] for part in parts)
    dark = 100 * (0.2 + 0.5 * images)  # the floor of the deviation is 1 %
    close(function(dark), function(100 * images), rtol=1e-2, atol=1e-2)
    grey = jnp.broadcast_to(images.mean(-1, keepdims=True), images.shape)
    close(function(grey), features, rtol=1e-3, atol=1e-3)
    assert np.isfinite(function(jnp.zeros((50, 8, 12, 3)))).all()


def test_features_of_a_pool_are_those_of_each_image():
    """They are computed in micro-batches, and uint8 is divided by 255."""
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), np.uint8)
    features = np.asarray(blind_features.compute(jnp.asarray(images), blind_features.tone))
    close(
        features, blind_features.compute(jnp.asarray(images / np.float32(255)), blind_features.tone)
    )
    close(features[[7, 200]], compute("tone", images[[7, 200]] / np.float32(255)))


def test_invalid_images_are_rejected():
    for shape in ((2, 3, 8, 1), (2, 8, 8)):
        with pytest.raises(ValueError, match=r"got \(2, "):
            blind_features.compute(jnp.zeros(shape), blind_features.tone)
    with pytest.raises(TypeError, match="int32"):
        blind_features.compute(jnp.zeros((2, 8, 8, 1), int), blind_features.tone)
