"""Views by hand, against SciPy and NumPy, and that they do not see what they must not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft

from jaxdd.weights import blind_features

COLOUR = np.random.default_rng(0).uniform(size=(6, 32, 32, 3)).astype(np.float32)
GREY = COLOUR[..., :1]
EVERY = ("tone", "border", "spectrum", "noise", "blocks", "layout")
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


@functools.cache
def compiled(name):
    return jax.jit(getattr(blind_features, name))


def seen(name, images):
    return np.asarray(compiled(name)(images))


@pytest.mark.parametrize("shape", [(4, 4, 1), (5, 9, 2), (16, 40, 3)])
@pytest.mark.parametrize("name", EVERY)
def test_any_images_give_finite_numbers(name, shape):
    """Noise, black, white and a step, all of which some logarithm or quotient could trip over."""
    images = np.stack([np.zeros(shape), np.ones(shape), np.zeros(shape), np.zeros(shape)])
    images[2, : shape[0] // 2] = 1
    images[3] = np.random.default_rng(0).uniform(size=shape)
    found = seen(name, images.astype(np.float32))
    assert found.ndim == 2 and len(found) == 4 and np.isfinite(found).all()
    assert (found[3] != found[0]).any()


def test_sizes_are_those_of_the_table():
    sizes = dict(zip(EVERY, (71, 71, 33, 24, 226, 48), strict=True))
    table = sizes | {"texture": 321, "chroma": 32}
    for name, size in table.items():
        assert jax.eval_shape(getattr(blind_features, name), COLOUR).shape == (6, size)
        assert f"| `{name}` | {size} |" in blind_features.__doc__


def test_tone_by_hand():
    """Half black, half white: mean and deviation 1/2, half of it up to each level, at each end."""
    images = np.zeros((1, 4, 4, 1), np.float32)
    images[0, :2] = 1
    close(seen("tone", images), [[0.5, 0.5, *[0.5] * 15, 0.5, 0.5]])


def test_tone_does_not_see_where():
    shuffled = np.random.default_rng(1).permutation(COLOUR.reshape(6, -1, 3), axis=1)
    close(seen("tone", shuffled.reshape(COLOUR.shape)), seen("tone", COLOUR))


def test_a_ring_is_the_tone_of_the_border():
    """Six pixels of 32: nothing of the middle, all of the rest."""
    inside, border = COLOUR.copy(), COLOUR.copy()
    inside[:, 6:-6, 6:-6] = 0
    border[:, 5, 5] = 0
    close(seen("border", inside), seen("border", COLOUR))
    assert (seen("border", border) != seen("border", COLOUR)).any(1).all()


def test_chroma_does_not_see_brightness():
    images = 0.5 * COLOUR
    close(seen("chroma", images + 0.4), seen("chroma", images))
    with pytest.raises(ValueError, match="one channel"):
        blind_features.chroma(GREY)


def test_the_spectrum_of_a_wave():
    """cos(2π 8 x / 32) has all power (n²/4 in n pixels, of n: 32 · 32 / 4) at 1/4 of the rate."""
    wave = np.cos(2 * np.pi * 8 * np.arange(32) / 32)
    images = np.broadcast_to(wave[None, None, :, None], (1, 32, 32, 1)).astype(np.float32)
    bands = seen("spectrum", images)[0, :15]
    assert bands.argmax() == 7 and np.delete(bands, 7).max() < np.log(2e-6)
    power = np.abs(np.fft.rfft2(GREY[..., 0])) ** 2 / 1024
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32))
    band = np.minimum((frequency * 32).astype(int), 15)
    band[0, 0] = -1  # the mean is no frequency
    for i in range(1, 16):
        close(seen("spectrum", GREY)[:, i - 1], np.log(power + 1e-6)[:, band == i].mean(1))


def test_noise_does_not_see_a_ramp():
    """A linear ramp is the mean of its neighbours: log of nothing, whatever its slope."""
    ramp = np.linspace(0, 1, 16, dtype=np.float32)[None, :, None, None] * np.ones((1, 16, 16, 1))
    close(seen("noise", ramp.astype(np.float32))[0, 0], np.log(1e-7), atol=1e-3)
    turned = np.swapaxes(GREY, 1, 2)
    one, other = seen("noise", GREY), seen("noise", turned)
    close(one[:, :3], other[:, :3])
    close(one[:, 3:5], other[:, 5:7])


def test_blocks_are_scipys_cosines():
    blocks = GREY[..., 0].reshape(6, 4, 8, 4, 8).swapaxes(2, 3)
    energy = (fft.dctn(blocks, axes=(3, 4), norm="ortho") ** 2).mean((1, 2))
    close(seen("blocks", GREY)[:, :64], np.log(energy + 1e-6).reshape(6, -1))


def test_blocks_see_the_grid_of_a_compressed_image():
    """Flat blocks of 8×8: of the phases of period 8 the one at the edges alone has differences."""
    flat = np.kron(GREY[:, :4, :4, 0], np.ones((8, 8)))[..., None].astype(np.float32)
    found = seen("blocks", flat)[:, 64:]
    phases = found[:, 6:14]  # after those of period 2 and 4
    assert (phases.argmax(1) == 7).all()
    assert (phases[:, 7] > phases[:, :7].max(1) + 3).all()


def test_layout_by_hand():
    images = np.zeros((1, 8, 8, 1), np.float32)
    images[0, :2, :2] = 1
    images[0, 7, 7] = 1
    mean, deviation = seen("layout", images)[0].reshape(2, 4, 4)
    assert mean[0, 0] == 1 and mean.sum() == 1.25 and mean[3, 3] == 0.25
    close(deviation[3, 3], np.sqrt(0.25 * 0.75))
    assert deviation[0, 0] == 0
    red = np.concatenate([images, np.zeros((1, 8, 8, 2), np.float32)], -1)
    close(seen("layout", red)[0, 32:].reshape(4, 4), mean)


def test_texture_is_all_that_does_not_ask_where():
    small = COLOUR[:, :16, :16]
    parts = [seen(name, small) for name in ("tone", "noise", "blocks")]
    close(seen("texture", small), np.concatenate(parts, 1))


def test_patches_are_whitened_filters_averaged_in_quarters():
    """White noise is white already: filters are patches of length one, up to the ridge."""
    images = jnp.asarray(np.random.default_rng(0).normal(0.5, 0.1, (500, 12, 12, 1)), jnp.float32)
    view = blind_features.patches(jax.random.key(0), images, count=8, side=3)
    found = np.asarray(view(images))
    assert found.shape == (500, 4 * 16) and (found >= 0).all()
    quarters = found.reshape(500, 4, 2, 8)
    upside_down = np.asarray(view(images[:, ::-1])).reshape(quarters.shape)
    assert (np.abs(upside_down - quarters[:, [2, 3, 0, 1]]).max() > 1e-3).all()
    assert np.isfinite(view(jnp.zeros((2, 12, 12, 1)))).all()


def test_patches_see_where():
    """A spot in one quarter shows in the numbers of that quarter alone."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 16, 16, 1)), jnp.float32)
    view = blind_features.patches(jax.random.key(0), images, count=4, side=3)
    spot = images.at[:, 1:4, 1:4].set(0)
    changed = (np.asarray(view(spot)) != np.asarray(view(images))).reshape(50, 4, 8).any((0, 2))
    assert changed.tolist() == [True, False, False, False]


def test_anywhere_does_not_see_where():
    """Rolled images are the same; with their pixels shuffled they are not."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 8, 12, 3)), jnp.float32)
    view = jax.jit(blind_features.anywhere(jax.random.key(0), images, count=4, side=3))
    found = np.asarray(view(images))
    assert found.shape == (50, 2 * 8 + 71 + 8 * 7) and np.isfinite(found).all()
    close(view(jnp.roll(images, (3, 5), (1, 2))), found, rtol=1e-3)
    shuffled = np.random.default_rng(1).permutation(images.reshape(50, -1, 3), axis=1)
    assert np.abs(view(shuffled.reshape(images.shape)) - found).max(1).min() > 0.1
    assert np.isfinite(view(jnp.zeros((50, 8, 12, 3)))).all()


def test_toneless_does_not_see_the_tone():
    """Other contrast, brightness and colour of the same luminance are the same; grey is too."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 8, 12, 3)), jnp.float32)
    view = jax.jit(blind_features.toneless(jax.random.key(0), images, count=4, side=3))
    found = np.asarray(view(images))
    assert (
        found.shape[1]
        == 4 * 8
        + jax.eval_shape(blind_features.noise, images[..., :1]).shape[1]
        + (jax.eval_shape(blind_features.blocks, images[..., :1]).shape[1])
    )
    dark = 100 * (0.2 + 0.5 * images)  # the floor of the deviation is 1 %
    close(view(dark), view(100 * images), rtol=1e-2, atol=1e-2)
    grey = jnp.broadcast_to(images.mean(-1, keepdims=True), images.shape)
    close(view(grey), found, rtol=1e-3, atol=1e-3)
    assert np.isfinite(view(jnp.zeros((50, 8, 12, 3)))).all()


def test_a_pool_is_seen_in_micro_batches():
    """uint8 is its value over 255, image by image the same."""
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), np.uint8)
    found = np.asarray(blind_features.of(jnp.asarray(images), blind_features.tone))
    close(found, blind_features.of(jnp.asarray(images / np.float32(255)), blind_features.tone))
    close(found[[7, 200]], seen("tone", images[[7, 200]] / np.float32(255)))


def test_images_that_are_too_small_or_none_are_refused():
    for shape in ((2, 3, 8, 1), (2, 8, 8)):
        with pytest.raises(ValueError, match=r"at least 4 pixels, found \(2, "):
            blind_features.of(jnp.zeros(shape), blind_features.tone)
    with pytest.raises(TypeError, match="images must be uint8 or floating, found int32"):
        blind_features.of(jnp.zeros((2, 8, 8, 1), int), blind_features.tone)
