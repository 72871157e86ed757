"""Corruptions: compared with pillow, scipy, colorsys and values by hand; monotone in severity."""

import colorsys
import functools
import hashlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxdd.data import _filters, corruptions

KEY = jax.random.key(0)
SEVERITIES = (1, 2, 3, 4)


def photograph(size=32, seed=0):
    """A smooth colour picture [size, size, 3] in [0, 1], as photographs are."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(size, size, 3)), (3, 3, 0), mode="wrap")
    picture = 0.5 + 0.2 * noise / noise.std() + 0.02 * rng.normal(size=noise.shape)
    return np.clip(picture, 0, 1).astype(np.float32)


@functools.cache
def levels(n=24, size=32):
    """Return 24 images, the same number in most tests, so that these share compiled programs."""
    return np.stack([np.rint(255 * photograph(size, seed)) for seed in range(n)]).astype(np.uint8)


@functools.cache
def program(name, severity):
    return jax.jit(functools.partial(corruptions.corrupt, corruption=name, severity=severity))


@functools.cache
def compiled(function, **static):
    return jax.jit(functools.partial(function, **static))


def corrupted(name, images, severity, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(images))
    return np.asarray(program(name, severity)(keys, images)).astype(float)


# ------------------------------------------------------------------ by hand


def test_the_ten_are_in_the_order_of_the_classes():
    assert " ".join(corruptions.CORRUPTIONS) == (
        "snow frost fog brightness contrast spatter elastic jpeg pixelate saturate"
    )


@pytest.mark.parametrize(
    "severity, added", list(zip(SEVERITIES, (0.1, 0.15, 0.2, 0.3), strict=True))
)
def test_brightness_adds_to_the_value_of_hsv(severity, added):
    """(.4, .2, .1) has V = .4 and keeps its ratios 4:2:1; black becomes grey; V stops at 1."""
    image = jnp.array([[[0.4, 0.2, 0.1], [0, 0, 0], [0.9, 0.9, 0.45]]])
    actual = corruptions.brightness(image, severity=severity)[0]
    scale, top = (0.4 + added) / 0.4, min(0.9 + added, 1)
    expected = [[0.4 * scale, 0.2 * scale, 0.1 * scale], [added] * 3, [top, top, top / 2]]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "severity, factor", list(zip(SEVERITIES, (0.5, 0.4, 0.3, 0.15), strict=True))
)
def test_contrast_shrinks_towards_the_mean_of_the_channel(severity, factor):
    """A channel with values 0 and 1 has mean 1/2; one with .2 and .4 has mean .3."""
    image = jnp.array([[[0, 0.2, 1], [1, 0.4, 1]]])
    actual = corruptions.contrast(image, severity=severity)[0]
    low, high = 0.5 - factor / 2, 0.5 + factor / 2
    expected = [[low, 0.3 - 0.1 * factor, 1], [high, 0.3 + 0.1 * factor, 1]]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "severity, factor, added",
    [(1, 0.1, 0), (2, 1.5, 0), (3, 2, 0.1), (4, 2.5, 0.2)],
)
def test_saturate_is_hsv(severity, factor, added):
    """Compared with Python's colorsys, also for grey and black, whose hue is 0 (red)."""
    image = np.concatenate([photograph(8), np.full((1, 8, 3), 0.5), np.zeros((1, 8, 3))])
    actual = corruptions.saturate(jnp.asarray(image, jnp.float32), severity=severity)
    pixels = np.asarray(actual).reshape(-1, 3)
    for pixel, expected in zip(pixels, image.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*map(float, expected))
        wanted = colorsys.hsv_to_rgb(hue, min(saturation * factor + added, 1), value)
        np.testing.assert_allclose(pixel, wanted, atol=2e-6)


def test_fog_of_a_constant_image_keeps_its_largest_value():
    """The result is (x + a·cloud) · x / (x + a), where the cloud takes values from 0 to 1."""
    for severity, amount in zip(SEVERITIES, (0.5, 0.75, 1, 1.5), strict=True):
        actual = compiled(corruptions.fog, severity=severity)(KEY, jnp.full((32, 32, 3), 0.5))
        assert actual.max() == pytest.approx(0.5, rel=1e-5)
        assert actual.min() == pytest.approx(0.25 / (0.5 + amount), rel=1e-5)


def test_plasma_of_two_pixels_by_hand():
    """One octave has corner 0, middle m and sides (2·0 + 2·m)/4 + noise, scaled to [0, 1]."""
    (_, right), (under, middle) = 2 * np.asarray(_filters.uniform(KEY, (2, 2))) - 1
    grid = np.array([[0, middle / 2 + right], [middle / 2 + under, middle]])
    expected = (grid - grid.min()) / np.ptp(grid)
    np.testing.assert_allclose(corruptions._plasma(KEY, 3.0, size=2), expected, atol=1e-6)


def test_frost_is_a_weighted_sum_with_a_window_of_the_photograph():
    """A texture with distinct pixel values shows which window was added."""
    texture = np.arange(40 * 36, dtype=np.float32).reshape(1, 40, 36, 1) / (40 * 36)
    texture = np.repeat(texture, 3, -1)
    corners = set()
    for i in range(8):
        actual = corruptions.frost(
            jax.random.key(i), jnp.zeros((32, 32, 3)), severity=2, textures=jnp.asarray(texture)
        )
        y, x = divmod(round(float(actual[0, 0, 0]) / 0.4 * 40 * 36), 36)
        np.testing.assert_allclose(actual, 0.4 * texture[0, y : y + 32, x : x + 32], atol=1e-6)
        corners.add((y, x))
    assert len(corners) > 3


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_whitens_what_is_dark(severity):
    """Where no flake falls, black becomes (1 − mix)/2."""
    actual = compiled(corruptions.snow, severity=severity)(KEY, jnp.zeros((32, 32, 3)))
    mix = (0.9, 0.9, 0.85, 0.8)[severity - 1]
    assert actual.min() == pytest.approx((1 - mix) / 2, abs=0.02 if severity > 2 else 1e-6)
    assert actual.max() > actual.min() + 0.05


def test_spatter_colours():
    """Water is added in pale turquoise, mud covers with brown."""
    black = jnp.zeros((32, 32, 3))
    water = np.asarray(compiled(corruptions.spatter, severity=1)(KEY, black)).reshape(-1, 3)
    wet = water[water.max(1) > 0]
    np.testing.assert_allclose(
        wet / wet[:, 2:], np.array([[175 / 238, 1, 1]] * len(wet)), rtol=1e-5
    )
    assert water.max() == pytest.approx(0.5 * 238 / 255, rel=1e-5)
    mud = np.asarray(compiled(corruptions.spatter, severity=3)(KEY, black + 1)).reshape(-1, 3)
    covered = (1 - mud[:, :1]) / (1 - 63 / 255)
    np.testing.assert_allclose(1 - mud, covered * (1 - np.array([63, 42, 20]) / 255), atol=1e-6)
    assert ((covered < 1e-6) | (covered > 0.8 - 1e-5)).all() and (covered > 0.8).any()


def test_shore_distance_is_scipys():
    rng = np.random.default_rng(0)
    wet = ndimage.gaussian_filter(rng.normal(size=(24, 40)), 2) > 0.1
    shore = wet & ndimage.binary_dilation(~wet)
    expected = np.minimum(ndimage.distance_transform_edt(~shore), 20)
    distance = compiled(corruptions._shore_distance)
    np.testing.assert_allclose(distance(wet), expected, rtol=1e-6)
    assert (distance(np.zeros_like(wet)) == 20).all()


def test_elastic_moves_corners_within_the_stated_shift():
    """Without the displacement field, the three corners move by at most the stated shift."""
    ramp = np.stack(np.meshgrid(np.arange(48), np.arange(48), [0], indexing="ij")[:2], -1)[:, :, 0]
    image = jnp.asarray(np.concatenate([ramp, 0 * ramp[..., :1]], -1) / 48, jnp.float32)
    actual = np.asarray(compiled(corruptions.elastic, severity=1)(KEY, image)) * 48
    moved = np.abs(actual[16:32, 16:32, :2] - ramp[16:32, 16:32])
    assert 0.2 < moved.max() < 48 * (0.07 * 3 + 0.05)


# ------------------------------------------------------------------ other people's code


@pytest.mark.parametrize("severity, quality", list(zip(SEVERITIES, (65, 58, 50, 40), strict=True)))
def test_jpeg_is_pillows(severity, quality):
    """Nine of ten values equal those of libjpeg, which rounds intermediate values to 13 bits."""
    for images in (levels(), levels(6, 40)):
        actual, theirs = corrupted("jpeg", images, severity), []
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=quality)
            theirs.append(np.asarray(Image.open(file)).astype(float))
        difference = np.abs(actual - theirs)
        assert (difference == 0).mean() > 0.8 and difference.mean() < 0.4
        assert loss(np.array(theirs), images) > 10 * difference.mean()


@pytest.mark.parametrize(
    "severity, factor", list(zip(SEVERITIES, (0.9, 0.85, 0.75, 0.65), strict=True))
)
def test_pixelate_is_pillows(severity, factor):
    """Pillow also rounds between rows and columns."""
    for image, ours in zip(levels(), corrupted("pixelate", levels(), severity), strict=True):
        small = Image.fromarray(image).resize((int(32 * factor),) * 2, Image.Resampling.BOX)
        theirs = np.asarray(small.resize((32, 32), Image.Resampling.BOX)).astype(float)
        assert np.abs(ours - theirs).max() <= 1


# ------------------------------------------------------------------ all of them


def saturation(images):
    span = images.max(-1) - images.min(-1)
    return (span / np.maximum(images.max(-1), 1)).mean()


def loss(actual, plain):
    """Return the mean absolute difference from the image, in levels."""
    return np.abs(actual - plain).mean()


def opacity(name, severity):
    """Return the opacity of frost, water or mud: 1 − the mean derivative of a pixel by itself."""
    function = functools.partial(corruptions.CORRUPTIONS[name], severity=severity)
    run = jax.jit(jax.vmap(function))
    keys, images = jax.random.split(KEY, 24), np.stack([photograph(seed=i) for i in range(24)])
    brighter = run(keys, images + 1e-3) - run(keys, images)
    return 1 - float(brighter.mean()) / 1e-3


def stretch(severity):
    """Return the variation of the distance of neighbouring pixels, from a corrupted ramp."""
    ramp = jnp.broadcast_to(jnp.arange(32)[:, None, None] / 32, (32, 32, 3))
    move = functools.partial(corruptions.elastic, severity=severity)
    actual = jax.jit(jax.vmap(move, (0, None)))(jax.random.split(KEY, 24), ramp)
    return float(jnp.diff(actual[:, 10:22, 10:22], axis=1).std((1, 2)).mean())


MEASURES = {
    "frost": functools.partial(opacity, "frost"),
    "spatter": functools.partial(opacity, "spatter"),
    "elastic": stretch,
    "saturate": lambda severity: saturation(corrupted("saturate", levels(), severity)),
}


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_monotone_in_severity(name):
    """Most corruptions remove more of the image; MEASURES has measures for the others."""
    lost = lambda severity: loss(corrupted(name, levels(), severity), levels())
    assert all(np.diff([MEASURES.get(name, lost)(severity) for severity in SEVERITIES]) > 0)


@pytest.mark.parametrize("shape", [(4, 4), (7, 19)])
@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_any_size_and_constant_images(name, shape):
    images = np.stack([np.full((*shape, 3), level, np.uint8) for level in (0, 255)])
    keys = jax.random.split(KEY, 2)
    assert jax.eval_shape(program(name, 4), keys, images).shape == images.shape
    one = functools.partial(corruptions.CORRUPTIONS[name], severity=4)
    random = corruptions.CORRUPTIONS[name] not in corruptions.NOT_RANDOM
    actual = jax.jit(jax.vmap(one))(*[keys] * random, images / np.float32(255))
    assert jnp.isfinite(actual).all() and 0 <= actual.min() and actual.max() <= 1


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_an_image_depends_on_its_own_key_alone(name):
    images, keys, run = levels(), jax.random.split(KEY, 24), program(name, 3)
    whole = run(keys, images)
    order = np.random.default_rng(0).permutation(24)
    assert (np.abs(run(keys[order], images[order]) - whole[order].astype(int)) <= 1).all()
    random = corruptions.CORRUPTIONS[name] not in corruptions.NOT_RANDOM
    assert ((run(keys[order], images) != whole).any()) == random


def test_one_key_gives_the_same_bytes_everywhere():
    """Recorded with JAX 0.10 on Python 3.11; JAX 0.12 on Python 3.13 gives the same."""
    digest = hashlib.sha256()
    with jax.enable_x64(True):
        for name in corruptions.CORRUPTIONS:
            digest.update(corrupted(name, levels()[:20], 3).astype(np.uint8).tobytes())
    assert digest.hexdigest() == "5ba4452abaabfcf9d4347847a4dea027b26956a1d57393cbaff1c340f1b80cec"


IMAGES = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "change, error, match",
    [
        (dict(images=IMAGES / 255), TypeError, "images.*float32"),
        (dict(images=IMAGES[..., 0]), ValueError, r"\(2, 8, 8\)"),
        (dict(images=IMAGES[:, :3]), ValueError, r"\(2, 3, 8, 3\)"),
        (dict(keys=jax.random.split(KEY, 3)), ValueError, r"keys.*2.*\(3,\)"),
        (dict(corruption="rain"), ValueError, "'rain'.*snow, frost"),
        (dict(severity=0), ValueError, "severity.* 0"),
        (dict(severity=5), ValueError, "severity.* 5"),
        (dict(severity=2.0), ValueError, "severity.* 2.0"),
    ],
)
def test_bad_arguments_are_rejected(change, error, match):
    arguments = dict(keys=jax.random.split(KEY, 2), images=IMAGES, corruption="fog", severity=1)
    arguments |= change
    with pytest.raises(error, match=match):
        corruptions.corrupt(**arguments)
