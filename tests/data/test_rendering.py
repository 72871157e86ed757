"""Renderings against values derived by hand, their statistics, fixed bytes and memory."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdd.data import bias, rendering

KEY = jax.random.key(0)
LABELS = np.array([0, 1, 2])
GREY = np.zeros((3, 2, 2), np.uint8)
RGB = np.zeros((2, 4, 4, 3), np.uint8)


def table(labels, attributes, k, num_attributes):
    """Counts by class (rows) and attribute (columns)."""
    counts = np.zeros((k, num_attributes), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(attributes)), 1)
    return counts


foreground = jax.jit(rendering.tint, static_argnames="severity")
paint_background = functools.partial(rendering.paint, background=True)
shade_background = functools.partial(rendering.shade, background=True)


def test_shades_have_the_stated_mean_and_deviation():
    """A white pixel is 255·(mean/255 + s·n): mean 53, 100 (attribute 8), deviation 255·.05.

    Attribute 2 has (172, 118, 148), more than three deviations of 12.75 from 0 and from 255, so
    that nothing is clipped.
    """
    n = 20_000
    images = np.full((n, 1, 1), 255, np.uint8)
    shades = foreground(KEY, images, np.full(n, 2), severity=1)[:, 0, 0].astype(float)
    standard = (np.asarray(shades) - [172, 118, 148]) / 12.75
    assert np.abs(standard.mean(0)).max() < 4 / np.sqrt(n)
    assert np.abs(standard.std(0) - 1).max() < 4 / np.sqrt(2 * n) + 0.001
    assert np.abs(stats.kurtosis(standard)).max() < 4 * np.sqrt(24 / n) + 0.02
    assert np.abs(np.corrcoef(standard.T) - np.eye(3)).max() < 4 / np.sqrt(n)


@pytest.mark.parametrize("severity", [1, 2, 3, 4])
def test_shade_scales_with_the_grey_level(severity):
    """Levels 0, 51, 102 and 255 become 0, c/5, 2c/5 and c, each rounded to a whole level."""
    image = np.array([[[0, 51], [102, 255]]], np.uint8)
    for attribute in range(10):
        key = jax.random.key(attribute)
        out = foreground(key, image, np.array([attribute]), severity=severity)[0]
        out = np.asarray(out, float)
        color = out[1, 1]
        spread = 255 * (0.05, 0.02, 0.01, 0.005)[severity - 1]
        assert np.abs(color - rendering.LFF_COLORS[attribute]).max() <= 3.7 * spread + 0.5
        assert (out[0, 0] == 0).all()
        assert np.abs(out[0, 1] - color / 5).max() <= 0.6  # .5 by rounding here, .1 by rounding c
        assert np.abs(out[1, 0] - 2 * color / 5).max() <= 0.7


def test_shades_clip_and_do_not_wrap():
    """Attribute 1 has red 253, so with s = .05 nearly half of the images would exceed 255."""
    images = np.full((500, 1, 1), 255, np.uint8)
    red = foreground(KEY, images, np.full(500, 1), severity=1)[..., 0]
    assert int(red.min()) > 253 - 5 * 12.75
    assert int((red == 255).sum()) > 150


def test_tint_with_traced_severity_and_vmap():
    """Agreement with and without jit is tested on fixed bytes below."""
    images = np.random.default_rng(3).integers(0, 256, (50, 5, 4), dtype=np.uint8)
    attributes = np.arange(50) % 10
    plain = foreground(KEY, images, attributes, severity=2)
    assert plain.shape == (50, 5, 4, 3) and plain.dtype == jnp.uint8
    draw = jax.jit(lambda key, i, a, s: rendering.tint(key, i, a, severity=s))
    assert (draw(KEY, images, attributes, 2) == plain).all()
    assert (foreground(KEY, images[..., None], attributes, severity=2) == plain).all()
    assert (foreground(jax.random.key(1), images, attributes, severity=2) != plain).any()
    keys = jax.random.split(KEY)
    mapped = jax.vmap(lambda key: foreground(key, images, attributes, severity=2))(keys)
    assert (mapped[0] == foreground(keys[0], images, attributes, severity=2)).all()


def test_foreground_needs_no_more_memory_than_its_result():
    """Fused products need no arrays: the output has 184 MB, temporaries a few bytes per image."""
    shapes = (
        jax.ShapeDtypeStruct((60_000, 32, 32), jnp.uint8),
        jax.ShapeDtypeStruct((60_000,), jnp.int32),
    )
    compiled = jax.jit(lambda i, a: rendering.tint(KEY, i, a)).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 20e6


def test_solid_colors_by_hand():
    """Pixels of at least 128 are bright; attribute 6 is blue, 9 is white."""
    images = np.array([[[0, 127], [128, 255]], [[255, 0], [0, 255]]], np.uint8)
    blue, white, black = [0, 0, 255], [255, 255, 255], [0, 0, 0]
    attributes = np.array([6, 9])
    front = rendering.paint(images, attributes)
    assert front.tolist() == [[[black, black], [blue, blue]], [[white, black], [black, white]]]
    back = paint_background(images[..., None], attributes)
    assert back.tolist() == [[[blue, blue], [black, black]], [[black, white], [white, black]]]
    assert front.dtype == back.dtype == jnp.uint8
    assert (jax.jit(paint_background)(images, attributes) == back).all()


def test_shades_of_solid_colors_by_hand():
    """Level 100 of channel 128 is 50.2; behind it is 255·100 + 128·155/255 = 25,577.8, less 99·256.

    Level 255 is 255² = 254·256 + 1 in every channel.
    """
    images, orange = np.array([[[0, 100, 255]]], np.uint8), np.array([1])
    front = rendering.shade(images, orange)
    assert front.tolist() == [[[[0, 0, 0], [100, 50, 0], [255, 128, 0]]]]
    back = jax.jit(shade_background)(images[..., None], orange)
    assert back.tolist() == [[[[255, 128, 0], [54, 233, 156], [1, 1, 1]]]]
    assert front.dtype == back.dtype == jnp.uint8


def test_shades_in_every_color_follow_the_formula():
    """Rounding makes some bytes behind an object smaller by one, where the colour is 255."""
    level, color = np.arange(256)[:, None], np.array(rendering.SOLID_COLORS)[:, None]
    images, attributes = np.tile(level.astype(np.uint8), (10, 1, 1)), np.arange(10)
    front, back = (
        render(images, attributes)[:, :, 0] for render in (rendering.shade, shade_background)
    )
    assert (front == level * color // 255).all()
    exact = (255 * 255 * level + (255 - level) * color) // 255
    lower = (exact - np.asarray(back, int)) % 256
    assert set(np.unique(lower).tolist()) == {0, 1}
    assert (np.broadcast_to(color, lower.shape)[lower == 1] == 255).all()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_one_seed_gives_the_same_bytes_everywhere(wrap):
    """Recorded with JAX 0.10 on Python 3.11; JAX 0.12 on Python 3.13 gives the same."""
    images = np.arange(500 * 16, dtype=np.uint32).reshape(500, 4, 4) * 97 % 256
    images = images.astype(np.uint8)
    attributes = wrap(
        lambda key, labels: bias.assign(
            key, labels, num_classes=10, num_attributes=10, conflict=0.3
        )
    )(jax.random.key(7), np.arange(500) % 10)
    digest = hashlib.sha256(np.asarray(attributes).tobytes())
    for severity in (1, 4):
        draw = wrap(lambda key, i, a, s=severity: rendering.tint(key, i, a, severity=s))
        digest.update(np.asarray(draw(jax.random.key(severity), images, attributes)).tobytes())
    assert digest.hexdigest() == "0d456ddb9cdb51d669ace6288fcca60c2ea624f7e0dc342c39987bc22329ce45"


def test_greyscale_weighs_the_channels_and_leaves_the_others():
    """.299, .587 and .114 of 200 are 59.8, 117.4 and 22.8; white stays white."""
    colours = np.array(
        [[200, 0, 0], [0, 200, 0], [0, 0, 200], [255, 255, 255], [0, 0, 0]], np.uint8
    )
    images = np.broadcast_to(colours[:, None, None], (5, 2, 3, 3))
    actual = np.asarray(rendering.remove_color(images, jnp.zeros(5, int)))
    assert actual[:, 1, 2].tolist() == [[v] * 3 for v in (60, 117, 23, 255, 0)]
    assert (rendering.remove_color(images, jnp.ones(5, int)) == images).all()


def test_scenes_are_of_the_requested_category_and_all_occur():
    """5,000 draws from categories of 1, 3 and 6 scenes: each scene within five deviations."""
    categories = jnp.array([2, 0, 1, 2, 2, 1, 2, 2, 1, 2])
    attributes = jnp.arange(15_000) % 3
    drawn = rendering.draw_scenes(jax.random.key(0), attributes, categories, num_attributes=3)
    assert (categories[drawn] == attributes).all()
    counts, expected = (
        np.bincount(drawn, minlength=10),
        5000 / np.array([6, 1, 3, 6, 6, 3, 6, 6, 3, 6]),
    )
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_opacity_of_the_foreground():
    """Level 0 shows the scene, 64 covers it; 32 gives 128/255 · 32 + 127/255 · 200."""
    grey = np.array([[[0, 32, 64, 255]]], np.uint8)
    scene = np.full((1, 1, 4, 3), 200, np.uint8)
    actual = rendering.add_scenes(grey, scene)[0, 0, :, 0].tolist()
    assert actual == [200, round((128 * 32 + 127 * 200) / 255), 64, 255]


def test_coloured_objects_before_a_scene():
    """The colour (255, 128, 0) times level 32 is (32, 16.1, 0), times level 200 (200, 100.4, 0).

    Level 32 covers half: 128/255 of 32, 16 and 0 plus 127/255 of 200 is 115.7, 107.6 and 99.6.
    """
    grey = np.array([[[0, 32, 200]]], np.uint8)
    scene = np.full((1, 1, 3, 3), 200, np.uint8)
    orange = np.array([[255, 128, 0]], np.uint8)
    actual = jax.jit(rendering.add_scenes)(grey, scene, colors=orange)[0, 0]
    assert actual.tolist() == [[200, 200, 200], [116, 108, 100], [200, 100, 0]]
    white = np.full((1, 3), 255, np.uint8)
    plain = rendering.add_scenes(grey, scene)
    assert (rendering.add_scenes(grey, scene, colors=white) == plain).all()


def test_colours_are_drawn_evenly():
    """Each of ten colours occurs in 500 of 5,000 draws, within five deviations."""
    colours = list(map(tuple, rendering.draw_colors(KEY, 5000).tolist()))
    counts = np.array([colours.count(colour) for colour in rendering.SOLID_COLORS])
    assert counts.sum() == 5000 and (np.abs(counts - 500) < 5 * np.sqrt(500)).all()


def test_an_attribute_is_either_of_two_colours():
    """White pixels of attribute a are nearest to colour a in half of the cases, else to a + 5."""
    images, attributes = np.full((4000, 1, 1), 255, np.uint8), np.arange(4000) % 5
    actual = np.asarray(jax.jit(rendering.tint_pairs)(KEY, images, attributes))[:, 0, 0]
    distance = np.abs(actual[:, None].astype(int) - np.array(rendering.LFF_COLORS)).sum(-1)
    second, own = np.divmod(distance.argmin(1), 5)
    assert (own == attributes).all()
    counts = table(attributes, second, 5, 2)
    assert (np.abs(counts - 400) < 5 * np.sqrt(200)).all()
    assert stats.chi2_contingency(counts).pvalue > 1e-3


def test_sizes_by_hand():
    """A row of 8 pixels 0, 8, …, 56 shrinks to 4, 5, 6, 7 or 8 pixels.

    One of four new pixels is the mean of two. One of five covers 1.6 old pixels: (0 + .6·8)/1.6 =
    3, (.4·8 + 16 + .2·24)/1.6 = 15, then 28, 41 and 53. One of six covers 4/3: (0 + 8/3)·3/4 = 2,
    and so on.
    """
    image = np.tile(np.arange(0, 64, 8, dtype=np.uint8), (8, 1))
    rows = {
        4: [4, 20, 36, 52],
        5: [3, 15, 28, 41, 53],
        6: [2, 12, 22, 34, 44, 54],
        8: image[0].tolist(),
    }
    attributes = np.array([0, 1, 2, 4])
    actual = jax.jit(rendering.scale)(KEY, np.stack([image + 1] * 4), attributes)
    assert (actual == actual[..., :1]).all()
    for shown, (side, row) in zip(np.asarray(actual[..., 0], int), rows.items(), strict=True):
        inside = shown[shown.any(1)][:, shown.any(0)]
        assert inside.tolist() == [[level + 1 for level in row]] * side


def test_small_images_lie_anywhere_inside():
    """Sides of 12 and 16 pixels shrink to (4 + a)/8 of them, rounded half up.

    All 7 × 9 places of the smallest occur equally often, within five deviations.
    """
    images, attributes = np.full((5000, 12, 16, 1), 9, np.uint8), np.arange(5000) % 5
    actual = np.asarray(jax.jit(rendering.scale)(KEY, images, attributes))[..., 0] == 9
    height, width = actual.any(2).sum(1), actual.any(1).sum(1)
    assert (actual.sum((1, 2)) == height * width).all()
    assert (height == np.array([6, 8, 9, 11, 12])[attributes]).all()
    assert (width == np.array([8, 10, 12, 14, 16])[attributes]).all()
    half = actual[attributes == 0]
    counts = table(half.any(2).argmax(1), half.any(1).argmax(1), 7, 9)
    assert (np.abs(counts - 1000 / 63) < 5 * np.sqrt(1000 / 63)).all()


def test_patterns_have_their_direction():
    """A pattern is the same one step along its stripes, and inverted half a period across them.

    Sides of 16 and 24 pixels are multiples of the period, so half of the pixels are dark.
    """
    images, attributes = np.full((100, 16, 24), 203, np.uint8), np.arange(100) % 10
    actual = np.asarray(jax.jit(rendering.add_pattern)(KEY, images, attributes))
    assert set(np.unique(actual).tolist()) == {50, 203} and (actual == actual[..., :1]).all()
    for dark, attribute in zip(actual[..., 0] == 50, attributes, strict=True):
        kind, wide = attribute % 5, 2 if attribute < 5 else 4
        along = [(0, 1), (1, 0), (-1, 1), (1, 1), (wide, wide)][kind]
        across = [(wide, 0), (0, wide), (wide, 0), (wide, 0), (wide, 0)][kind]
        assert (np.roll(dark, along, (0, 1)) == dark).all()
        assert (np.roll(dark, across, (0, 1)) != dark).all()
        assert dark.mean() == 0.5


def test_no_single_pixel_reveals_a_pattern():
    """A pixel is dark in half of 20,000 images of any pattern, within five deviations of .0035."""
    images, attributes = np.full((200_000, 2, 2), 255, np.uint8), np.arange(200_000) % 10
    dark = np.asarray(jax.jit(rendering.add_pattern)(KEY, images, attributes)[..., 0]) < 255
    for attribute in range(10):
        assert np.abs(dark[attributes == attribute].mean(0) - 0.5).max() < 5 * 0.0036


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_renderings_have_the_same_bytes_everywhere(wrap):
    """Recorded with JAX 0.10 on Python 3.11; JAX 0.12 on Python 3.13 gives the same."""
    images = (np.arange(500 * 64, dtype=np.uint32) * 97 % 251).astype(np.uint8)
    images, attributes, key = images.reshape(500, 8, 8), np.arange(500) % 5, jax.random.key(7)
    scenes, colors = (
        np.stack([images[::-1]] * 3, -1),
        wrap(lambda key: rendering.draw_colors(key, 500)),
    )
    actual = [
        wrap(rendering.tint_pairs)(key, images, attributes),
        wrap(rendering.scale)(key, images, attributes),
        wrap(rendering.add_pattern)(key, images, np.arange(500) % 10),
        wrap(rendering.add_scenes)(images, scenes, colors=colors(key)),
    ]
    digest = hashlib.sha256(b"".join(np.asarray(images).tobytes() for images in actual))
    assert digest.hexdigest() == "3f2a8f479611df11b23807859b1246d21fcd4a94ec87ea430bec717768b32566"


@pytest.mark.parametrize("render", [rendering.scale, rendering.add_pattern])
def test_renderings_need_little_temporary_memory(render):
    """The output has 180 MB, temporaries 4 MB per thousand small images or a byte per pixel."""
    shapes = (
        jax.ShapeDtypeStruct((60_000, 32, 32), jnp.uint8),
        jax.ShapeDtypeStruct((60_000,), jnp.int32),
    )
    compiled = jax.jit(lambda i, a: render(KEY, i, a)).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100e6


def test_ten_places_are_apart_and_touch_the_border():
    assert len(set(rendering.PLACES)) == 10
    assert all(0 in place or 6 in place for place in rendering.PLACES)


def test_half_an_image_lies_in_its_place():
    """5 × 6 pixels become 2 × 3 means, rounded half up, without the fifth row."""
    grey = np.zeros((10, 5, 6), np.uint8)
    grey[:, :4] = np.arange(24).reshape(4, 6)
    expected = np.array([[4, 6, 8], [16, 18, 20]])  # 3.5 and 15.5, 5.5 and 17.5, …
    actual = np.asarray(jax.jit(rendering.place)(grey[..., None], np.arange(10)))
    assert actual.shape == (10, 5, 6, 3) and (actual == actual[..., :1]).all()
    for image, (down, right) in zip(actual[..., 0], rendering.PLACES, strict=True):
        top, left = int(down / 2 + 0.5), int(right / 2 + 0.5)
        assert image[top : top + 2, left : left + 3].tolist() == expected.tolist()
        assert image.sum() == expected.sum()


def test_a_mark_covers_its_square_and_nothing_else():
    """Images of 16 × 24 pixels have marks of 2 × 3, with colours independent of their places."""
    images = np.random.default_rng(0).integers(1, 255, (500, 16, 24, 3), dtype=np.uint8)
    attributes = np.arange(500) % 10
    actual = np.array(rendering.draw_mark(KEY, images, attributes))
    colours = []
    for image, before, place in zip(actual, images, attributes, strict=True):
        down, right = rendering.PLACES[place]
        top, left = int(down * 14 / 6 + 0.5), int(right * 21 / 6 + 0.5)
        square = image[top : top + 2, left : left + 3].reshape(-1, 3)
        assert (square == square[0]).all()
        colours.append(rendering.SOLID_COLORS.index(tuple(square[0].tolist())))
        image[top : top + 2, left : left + 3] = before[top : top + 2, left : left + 3]
    assert (actual == images).all()
    counts = table(attributes, colours, 10, 10)
    assert (counts.sum(0) > 25).all() and stats.chi2_contingency(counts).pvalue > 1e-3
    jitted = jax.jit(rendering.draw_mark)(KEY, images, attributes)
    assert (jitted == rendering.draw_mark(KEY, images, attributes)).all()


def test_a_bar_crosses_the_image():
    """In 16 × 24 pixels, bars are rows of height 2 at 0, 3.5, 7, …, rounded up, or columns of 3."""
    images = np.random.default_rng(0).integers(1, 255, (50, 16, 24, 3), dtype=np.uint8)
    attributes = np.arange(50) % 10
    actual = np.array(jax.jit(rendering.draw_bar)(KEY, images, attributes))
    for image, before, bar in zip(actual, images, attributes, strict=True):
        top, left = (0, 4, 7, 11, 14)[bar % 5], (0, 5, 11, 16, 21)[bar % 5]
        where = np.s_[top : top + 2] if bar < 5 else np.s_[:, left : left + 3]
        assert len(np.unique(image[where].reshape(-1, 3), axis=0)) == 1
        assert tuple(image[where][0, 0].tolist()) in rendering.SOLID_COLORS
        image[where] = before[where]
    assert (actual == images).all()


def test_quarter_turns():
    grey = np.random.default_rng(0).integers(0, 255, (8, 5, 5), dtype=np.uint8)
    actual = np.asarray(jax.jit(rendering.rotate)(grey[..., None], np.arange(8) % 4))
    for i, image in enumerate(actual):
        assert (image == np.rot90(grey[i], i % 4)[..., None]).all()


@pytest.mark.parametrize(
    "images, attributes, error, match",
    [
        (GREY, [0, 1, 10], ValueError, "attributes.*0..10"),
        (GREY, [0, 1], ValueError, r"attributes.*\(3,\).*\(2,\)"),
        (GREY.astype(float), LABELS, TypeError, "float"),
        (np.zeros((3, 2, 2, 3), np.uint8), LABELS, ValueError, r"\(3, 2, 2, 3\)"),
    ],
)
def test_colours_reject_bad_arguments(images, attributes, error, match):
    tint = lambda images, attributes: rendering.tint(KEY, images, attributes)
    for render in (tint, rendering.paint, paint_background, rendering.shade):
        with pytest.raises(error, match=match):
            render(images, np.asarray(attributes))


@pytest.mark.parametrize("severity", [0, 5, 1.5])
def test_tint_rejects_bad_severity(severity):
    with pytest.raises(ValueError, match=f"severity.*got {severity}"):
        rendering.tint(KEY, GREY, LABELS, severity=severity)


ZEROS = np.zeros(2, int)
GREY_4 = RGB[..., 0]


@pytest.mark.parametrize(
    "render, arguments, error, match",
    [
        (rendering.remove_color, (GREY_4, ZEROS), ValueError, r"\(2, 4, 4\)"),
        (rendering.remove_color, (RGB / 1, ZEROS), TypeError, "float"),
        (rendering.remove_color, (RGB, ZEROS + 2), ValueError, "2..2"),
        (rendering.place, (GREY_4[:, :1], ZEROS), ValueError, r"\(2, 1, 4\)"),
        (rendering.place, (GREY_4, ZEROS + 10), ValueError, "10..10"),
        (rendering.draw_mark, (KEY, RGB, LABELS), ValueError, r"\(2,\).*\(3,\)"),
        (rendering.draw_mark, (KEY, RGB[..., :1], ZEROS), ValueError, r"\(2, 4, 4, 1\)"),
        (rendering.draw_bar, (KEY, RGB, ZEROS + 10), ValueError, "10..10"),
        (rendering.rotate, (GREY_4[:, :3], ZEROS), ValueError, r"\(2, 3, 4\)"),
        (rendering.rotate, (GREY_4, ZEROS + 4), ValueError, "4..4"),
        (rendering.scale, (KEY, GREY_4, ZEROS + 5), ValueError, "5..5"),
        (rendering.add_pattern, (KEY, GREY_4, ZEROS + 10), ValueError, "10..10"),
        (rendering.tint_pairs, (KEY, GREY, LABELS + 3), ValueError, "3..5"),
        (rendering.add_scenes, (GREY_4, RGB[:1]), ValueError, r"\(1, 4, 4\)"),
        (rendering.add_scenes, (GREY_4, RGB / 1), TypeError, "scenes.*float"),
    ],
)
def test_renderings_reject_bad_arguments(render, arguments, error, match):
    with pytest.raises(error, match=match):
        render(*arguments)


@pytest.mark.parametrize("colors", [np.ones((2, 3)), RGB[0, 0]])
def test_colours_before_a_scene_must_be_one_per_image(colors):
    with pytest.raises(ValueError, match="colors"):
        rendering.add_scenes(GREY_4, RGB, colors=colors)


def test_every_category_needs_a_scene():
    with pytest.raises(ValueError, match="category 1"):
        rendering.draw_scenes(KEY, jnp.array([0]), jnp.array([0, 0]), num_attributes=2)
