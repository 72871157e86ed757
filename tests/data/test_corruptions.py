"""Corruptions against values by hand, pillow, scipy and colorsys, and monotone in severity."""

import colorsys
import functools
import hashlib
import io

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from jaxdd.data import _filters, corruptions

KEY = jax.random.key(0)
SEVERITIES = (1, 2, 3, 4)
FIRST_TEN, SECOND_TEN = corruptions.NAMES[:10], corruptions.NAMES[10:]
NOT_RANDOM = (
    "brightness", "contrast", "jpeg", "pixelate", "saturate", "gaussian_blur", "defocus_blur",
    "zoom_blur", "original",
)  # fmt: skip


def photograph(size=32, seed=0, sigma=3, noise=0.02):
    """A smooth colour picture [size, size, 3] in [0, 1], as photographs are."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(size, size, 3))
    smooth = ndimage.gaussian_filter(smooth, (sigma, sigma, 0), mode="wrap")
    picture = 0.5 + 0.2 * smooth / smooth.std()
    picture += noise * rng.normal(size=smooth.shape) if noise else 0
    return np.clip(picture, 0, 1).astype(np.float32)


@functools.cache
def levels(n=24, size=32, **options):
    """Images of most tests: always 24, so that tests share one program per severity."""
    pictures = [np.rint(255 * photograph(size, seed, **options)) for seed in range(n)]
    return np.stack(pictures).astype(np.uint8)


@functools.cache
def program(name, severity):
    return jax.jit(functools.partial(corruptions.corrupt, corruption=name, severity=severity))


def corrupted(name, images, severity):
    """Return the levels of corrupted images as floats; images are levels too."""
    keys = jax.random.split(KEY, len(images))
    images = np.asarray(images).astype(np.uint8)
    return np.asarray(program(name, severity)(keys, images)).astype(float)


def tiled(*pixels):
    """An image [1, 4, 4·k, 3] whose columns have these k colours in turn."""
    return np.tile(np.array(pixels)[None, None], (1, 4, 4, 1))


def constant(level, size=32):
    return np.full((1, size, size, 3), level)


# ------------------------------------------------------------------ by hand


def test_both_tens_are_in_the_order_of_the_classes():
    assert " ".join(corruptions.NAMES) == (
        "snow frost fog brightness contrast spatter elastic jpeg pixelate saturate "
        "gaussian_noise shot_noise impulse_noise speckle_noise gaussian_blur "
        "defocus_blur glass_blur motion_blur zoom_blur original"
    )


@pytest.mark.parametrize(
    "severity, added", list(zip(SEVERITIES, (0.1, 0.15, 0.2, 0.3), strict=True))
)
def test_brightness_adds_to_the_value_of_hsv(severity, added):
    """(100, 50, 25) has V = 100 and keeps its ratios 4:2:1; black becomes grey; V stops at 255."""
    image = tiled([100, 50, 25], [0, 0, 0], [230, 230, 115])
    actual = corrupted("brightness", image, severity)[0, 0, :3]
    added *= 255
    value, top = 100 + added, min(230 + added, 255)
    expected = [[value, value / 2, value / 4], [added] * 3, [top, top, top / 2]]
    np.testing.assert_allclose(actual, expected, atol=0.51)


@pytest.mark.parametrize(
    "severity, factor", list(zip(SEVERITIES, (0.5, 0.4, 0.3, 0.15), strict=True))
)
def test_contrast_shrinks_towards_the_mean_of_the_channel(severity, factor):
    """A channel of 0 and 200 has the mean 100; one of 20 and 60 has 40."""
    actual = corrupted("contrast", tiled([0, 20, 255], [200, 60, 255]), severity)[0, 0, :2]
    spread, half = 100 * factor, 20 * factor
    expected = [[100 - spread, 40 - half, 255], [100 + spread, 40 + half, 255]]
    np.testing.assert_allclose(actual, expected, atol=0.51)


@pytest.mark.parametrize(
    "severity, factor, added", [(1, 0.1, 0), (2, 1.5, 0), (3, 2, 0.1), (4, 2.5, 0.2)]
)
def test_saturate_is_hsv(severity, factor, added):
    """Against Python's colorsys, grey and black included, whose hue is 0, that of red."""
    images = levels().copy()
    images[0], images[1] = 128, 0
    actual = corrupted("saturate", images, severity)[:3].reshape(-1, 3)
    for pixel, old in zip(actual, images[:3].reshape(-1, 3) / 255, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*map(float, old))
        expected = colorsys.hsv_to_rgb(hue, min(saturation * factor + added, 1), value)
        np.testing.assert_allclose(pixel / 255, expected, atol=0.51 / 255)


def test_fog_of_a_constant_image_keeps_its_largest_value():
    """(x + a·cloud) · x / (x + a) with a cloud in [0, 1] that reaches both ends; x = 127.5."""
    for severity, amount in zip(SEVERITIES, (0.5, 0.75, 1, 1.5), strict=True):
        actual = corrupted("fog", constant(128), severity)
        assert actual.max() == 128
        assert actual.min() == pytest.approx(128**2 / (128 + 255 * amount), abs=0.51)


def test_fractal_of_two_pixels_by_hand():
    """A side is the mean of corner (0) and middle, plus noise; all is scaled to [0, 1]."""
    (_, right), (under, middle) = 2 * np.asarray(_filters.uniform(KEY, (2, 2))) - 1
    grid = np.array([[0, middle / 2 + right], [middle / 2 + under, middle]])
    expected = (grid - grid.min()) / np.ptp(grid)
    fractal = jax.jit(functools.partial(corruptions._fractal, decay=3.0, size=2))
    np.testing.assert_allclose(fractal(KEY), expected, atol=1e-6)


def test_frost_is_a_weighted_sum_with_a_window_of_the_photograph():
    """Weight .4: a texture of 2.5 · (row, column, 7) shows which window was laid over black."""
    rows, columns = np.indices((40, 36))
    texture = 2.5 * np.stack([rows, columns, np.full_like(rows, 7)], -1)[None] / 255
    keys, black = jax.random.split(KEY, 8), np.zeros((8, 32, 32, 3), np.uint8)
    options = dict(corruption="frost", severity=2, textures=texture.astype(np.float32))
    actual = np.asarray(jax.jit(functools.partial(corruptions.corrupt, **options))(keys, black))
    corners = np.asarray(actual[:, 0, 0, :2], int)
    for image, (y, x) in zip(actual, corners, strict=True):
        expected = 0.4 * 255 * texture[0, y : y + 32, x : x + 32]
        np.testing.assert_allclose(image, expected, atol=1e-4)
    assert len(set(map(tuple, corners.tolist()))) > 3


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_whitens_what_is_dark(severity):
    """Where no flake falls, black becomes (1 − mix)/2."""
    actual = corrupted("snow", constant(0), severity) / 255
    mix = (0.9, 0.9, 0.85, 0.8)[severity - 1]
    assert actual.min() == pytest.approx((1 - mix) / 2, abs=0.02 if severity > 2 else 0.002)
    assert actual.max() > actual.min() + 0.05


def test_spatter_colours():
    """Water is added in pale turquoise, mud covers with brown."""
    water = corrupted("spatter", constant(0), 1).reshape(-1, 3)
    np.testing.assert_array_equal(water[:, 1], water[:, 2])
    np.testing.assert_allclose(water[:, 0], water[:, 2] * 175 / 238, atol=0.9)
    assert water.max() == 238 / 2
    mud = corrupted("spatter", constant(255), 3).reshape(-1, 3)
    covered = (255 - mud[:, :1]) / (255 - 63)
    np.testing.assert_allclose(255 - mud, covered * (255 - np.array([63, 42, 20])), atol=1.3)
    assert ((covered < 1e-6) | (covered > 0.795)).all() and (covered > 0.8).any()


def test_shore_distance_matches_scipy():
    rng = np.random.default_rng(0)
    wet = ndimage.gaussian_filter(rng.normal(size=(24, 40)), 2) > 0.1
    shore = wet & ndimage.binary_dilation(~wet)
    expected = np.minimum(ndimage.distance_transform_edt(~shore), 20)
    distance = jax.jit(corruptions._shore_distance)
    np.testing.assert_allclose(distance(wet), expected, rtol=1e-6)
    assert (distance(np.zeros_like(wet)) == 20).all()


def test_elastic_moves_corners_within_the_stated_shift():
    """A ramp of five levels a pixel, rows in red and columns in green."""
    rows, columns = np.indices((48, 48))
    ramp = np.stack([rows, columns, 0 * rows], -1)
    moved = corrupted("elastic", 5 * ramp[None], 1)[0] / 5 - ramp
    largest = np.abs(moved[16:32, 16:32, :2]).max()
    assert 0.2 < largest < 48 * (0.07 * 3 + 0.05)


def test_noise_has_the_deviation_of_its_level():
    grey = constant(102, size=64)
    added = corrupted("gaussian_noise", grey, 4) - grey
    assert added.std() == pytest.approx(255 * 0.1, rel=0.03)
    times = corrupted("speckle_noise", grey, 4) - grey
    assert times.std() == pytest.approx(0.2 * 102, rel=0.03)
    hit = corrupted("impulse_noise", grey, 4)
    assert np.mean(hit != 102) == pytest.approx(0.07, abs=0.01)
    assert set(np.unique(hit)) == {0, 102, 255}
    assert np.mean(hit[hit != 102] == 255) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("level", [0, 20, 128, 255])
def test_photons_are_a_poisson_number(level):
    """Values follow scipy's Poisson distribution, and black stays black."""
    counts = corrupted("shot_noise", constant(level, size=64), 4) * 50 / 255
    np.testing.assert_allclose(counts, np.rint(counts), atol=0.1)
    expected = stats.poisson(50 * level / 255)
    for at in (expected.ppf(0.2), expected.ppf(0.6)):
        if at < 50:
            share = np.mean(np.rint(counts) <= at)
            assert share == pytest.approx(expected.cdf(at), abs=0.025)


def test_motion_and_zoom_of_a_point():
    """Motion smears to one side of it; zoom leaves the middle of a smooth image in its place."""
    point = constant(0, size=21)
    point[0, 10, 10] = 255
    smeared = corrupted("motion_blur", point, 4)[0, :, :, 0]
    rows, columns = np.nonzero(smeared)
    assert smeared.sum() == pytest.approx(255, abs=5) and np.ptp(columns) >= np.ptp(rows)
    assert columns.max() == 10 or columns.min() == 10
    ramp = np.broadcast_to(8 * np.arange(32)[:, None, None], (1, 32, 32, 3))
    zoomed = corrupted("zoom_blur", ramp, 4)[0]
    assert zoomed[15:17].mean() == pytest.approx(124, abs=5)
    assert np.ptp(zoomed[:, 0, 0]) < 0.95 * 248


# ------------------------------------------------------------------ other people's code


@pytest.mark.parametrize("severity, quality", list(zip(SEVERITIES, (65, 58, 50, 40), strict=True)))
def test_jpeg_matches_pillow(severity, quality):
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
def test_pixelate_matches_pillow(severity, factor):
    """pillow rounds once more, between rows and columns."""
    for image, ours in zip(levels(), corrupted("pixelate", levels(), severity), strict=True):
        small = Image.fromarray(image).resize((int(32 * factor),) * 2, Image.Resampling.BOX)
        theirs = np.asarray(small.resize((32, 32), Image.Resampling.BOX)).astype(float)
        assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_matches_scipy(severity):
    sigma = (0.6, 0.7, 0.8, 1.0)[severity - 1]
    expected = ndimage.gaussian_filter(levels() / 1.0, (0, sigma, sigma, 0), mode="nearest")
    np.testing.assert_allclose(corrupted("gaussian_blur", levels(), severity), expected, atol=0.51)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_a_blurred_disk(severity):
    radius, alias = ((0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity - 1]
    y, x = np.mgrid[-8:9, -8:9]
    disk = ((x**2 + y**2) <= radius**2).astype(float)
    edge = np.exp(-(np.array([-1.0, 0, 1]) ** 2) / (2 * alias**2))
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(edge, edge) / edge.sum() ** 2)
    expected = ndimage.convolve(levels() / 1.0, kernel[None, :, :, None], mode="mirror")
    np.testing.assert_allclose(corrupted("defocus_blur", levels(), severity), expected, atol=0.51)


@pytest.mark.parametrize("severity", [1, 4])
def test_glass_is_a_loop_over_pixels(severity):
    sigma, times = {1: (0.25, 1), 4: (0.4, 2)}[severity]
    image = levels(1, 12)[0] / 255
    blur = lambda picture: ndimage.gaussian_filter(picture, (sigma, sigma, 0), mode="nearest")
    expected = np.rint(blur(image) * 255) / 255
    (key,) = jax.random.split(KEY, 1)
    moves = np.floor(2 * np.asarray(_filters.uniform(key, (times * 10**2, 2)))) - 1
    moves = iter(moves.astype(int))
    for _ in range(times):
        for row in range(11, 1, -1):
            for column in range(11, 1, -1):
                down, right = next(moves)
                expected[row, column] = expected[row + down, column + right]
    actual = corrupted("glass_blur", levels(1, 12), severity)[0] / 255
    np.testing.assert_allclose(actual, blur(expected), atol=7e-3)


# ------------------------------------------------------------------ all of them


def saturation(images):
    span = images.max(-1) - images.min(-1)
    return (span / np.maximum(images.max(-1), 1)).mean()


def loss(actual, plain):
    """Mean absolute difference to the image, in levels."""
    return np.abs(actual - plain).mean()


def opacity(name, severity):
    """Return the opacity of frost, water or mud: 1 − the mean derivative of a pixel by itself."""
    images = np.minimum(levels(), 251)
    brighter = corrupted(name, images + 4, severity) - corrupted(name, images, severity)
    return 1 - brighter.mean() / 4


def stretch(severity):
    """Return the variation of the distance of neighbouring pixels, from a corrupted ramp."""
    ramp = np.broadcast_to(8 * np.arange(32)[:, None, None], (24, 32, 32, 3))
    actual = corrupted("elastic", ramp, severity)
    return np.diff(actual[:, 10:22, 10:22], axis=1).std((1, 2)).mean()


MEASURES = {
    "frost": functools.partial(opacity, "frost"),
    "spatter": functools.partial(opacity, "spatter"),
    "elastic": stretch,
    "saturate": lambda severity: saturation(corrupted("saturate", levels(), severity)),
}


@pytest.mark.parametrize("name", FIRST_TEN)
def test_monotone_in_severity(name):
    """The loss of detail grows for most corruptions, the quantity in MEASURES for the others."""
    lost = lambda severity: loss(corrupted(name, levels(), severity), levels())
    assert all(np.diff([MEASURES.get(name, lost)(severity) for severity in SEVERITIES]) > 0)


@pytest.mark.parametrize("name", SECOND_TEN[:-1])
def test_the_strongest_changes_more_than_the_weakest(name):
    weak, strong = (loss(corrupted(name, levels(), severity), levels()) for severity in (1, 4))
    assert 0.3 < weak < strong


def test_the_original_is_left_alone():
    np.testing.assert_array_equal(corrupted("original", levels(), 4), levels())


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_the_smallest_and_constant_images(name):
    """Before it is rounded, the result is finite and in [0, 1]. Four pixels are the least."""
    images = np.stack([np.full((4, 19, 3), level, np.float32) for level in (0, 100 / 255, 1)])
    function, values = corruptions._CORRUPTIONS[name]
    strongest = functools.partial(function, **{name: v[3] for name, v in values.items()})
    actual = np.asarray(jax.jit(jax.vmap(strongest))(jax.random.split(KEY, 3), images))
    assert actual.shape == images.shape
    assert np.isfinite(actual).all() and 0 <= actual.min() and actual.max() <= 1
    if name.endswith("blur"):
        np.testing.assert_allclose(actual, images, atol=0.004)


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_an_image_depends_on_its_own_key_alone(name):
    images, keys, run = levels(), jax.random.split(KEY, 24), program(name, 4)
    whole = run(keys, images)
    order = np.random.default_rng(0).permutation(24)
    assert (np.abs(run(keys[order], images[order]) - whole[order].astype(int)) <= 1).all()
    assert ((run(keys[order], images) != whole).any()) == (name not in NOT_RANDOM)


@pytest.mark.parametrize(
    "names, images, severity, sha256",
    [
        (FIRST_TEN, lambda: levels()[:20], 3,
         "5ba4452abaabfcf9d4347847a4dea027b26956a1d57393cbaff1c340f1b80cec"),
        (SECOND_TEN, lambda: levels(sigma=2, noise=0), 4,
         "2437b89868b437525dd368303a16f976315cf6c61369e24fed21f2b9d32e630a"),
    ],
)  # fmt: skip
def test_one_key_gives_the_same_bytes_everywhere(names, images, severity, sha256):
    """Recorded with JAX 0.10 on Python 3.11; JAX 0.12 on Python 3.13 gives the same."""
    digest = hashlib.sha256()
    with jax.enable_x64(True):
        for name in names:
            digest.update(corrupted(name, images(), severity).astype(np.uint8).tobytes())
    assert digest.hexdigest() == sha256


IMAGES = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "change, error, match",
    [
        (dict(images=IMAGES / 255), TypeError, "images.*float32"),
        (dict(images=IMAGES[..., 0]), ValueError, r"\(2, 8, 8\)"),
        (dict(images=IMAGES[:, :3]), ValueError, r"\(2, 3, 8, 3\)"),
        (dict(keys=jax.random.split(KEY, 3)), ValueError, r"keys.*2.*\(3,\)"),
        (dict(corruption="rain"), ValueError, "snow, frost.*'rain'"),
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
