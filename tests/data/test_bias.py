"""Attributes are assigned in exact counts, and colours come out as written down."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdd.data import bias

KEY = jax.random.key(0)


def assign(key, labels, conflict=0.1, k=10, attributes=10, aligned=None):
    return bias.assign(
        key, labels, num_classes=k, num_attributes=attributes, conflict=conflict, aligned=aligned
    )


# Compiled once per shape, where op by op would compile every operation for every shape.
quick = jax.jit(assign, static_argnames=("k", "attributes"))
foreground = jax.jit(bias.foreground, static_argnames="severity")


def table(labels, attributes, k, num_attributes):
    """Counts by class (rows) and attribute (columns)."""
    counts = np.zeros((k, num_attributes), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(attributes)), 1)
    return counts


def test_counts_of_each_class_are_exact_and_even():
    """Classes of 100, 37 and 4 at conflict .2: 20, 7.4 -> 7 and .8 -> 1 conflict.

    Over the three other attributes 20 = 7 + 7 + 6, 7 = 3 + 2 + 2, 1 = 1 + 0 + 0.
    """
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 37, 4]))
    counts = table(labels, quick(KEY, labels, 0.2, k=3, attributes=4), 3, 4)
    assert np.diag(counts).tolist() == [80, 30, 3]
    others = [sorted(np.delete(counts[c], c).tolist()) for c in range(3)]
    assert others == [[6, 7, 7], [2, 2, 3], [0, 0, 1]]


@pytest.mark.parametrize("conflict, expected", [(0.0, 0), (1.0, 25), (0.5, 12), (0.1, 2)])
def test_share_rounds_half_to_even(conflict, expected):
    """Of 25 samples .5 is 12.5 -> 12 and .1 is 2.5 -> 2."""
    labels = np.zeros(25, int)
    attributes = quick(KEY, labels, conflict, k=1, attributes=3)
    assert int((attributes != 0).sum()) == expected


def test_aligned_wraps_around_and_can_be_overridden():
    labels = np.arange(5)
    assert quick(KEY, labels, 0.0, k=5, attributes=2).tolist() == [0, 1, 0, 1, 0]
    given = np.array([1, 1, 0, 0, 1])
    assert quick(KEY, labels, 0.0, k=5, attributes=2, aligned=given).tolist() == given.tolist()
    flipped = quick(KEY, labels, 1.0, k=5, attributes=2, aligned=given)
    assert flipped.tolist() == (1 - given).tolist()


def test_uniform_attribute_is_independent_of_the_class():
    """Every class of 1,003 gets each of ten attributes 100 or 101 times; chi2 sees no link."""
    labels = np.tile(np.arange(10), 1003)
    counts = table(labels, quick(KEY, labels, 1 - 1 / 10), 10, 10)
    assert set(counts.ravel().tolist()) <= {100, 101}
    assert stats.chi2_contingency(counts).pvalue > 0.01


def test_every_sample_is_as_likely_to_conflict_and_every_attribute_to_get_the_remainder():
    """20 samples, 4 conflict over 3 others: P(conflict) = .2, P(two of attribute a) = 1/3."""
    labels = np.zeros(20, int)
    draw = jax.vmap(lambda key: quick(key, labels, 0.2, k=1, attributes=4))
    drawn = draw(jax.random.split(KEY, 3000))
    per_sample = np.asarray((drawn != 0).sum(0))
    # Their number is fixed, so the covariance is p(1 - p)·20/19·(I - J/20): 19 degrees.
    statistic = ((per_sample - 600) ** 2 / (600 * 0.8)).sum() * 19 / 20
    assert stats.chi2.sf(statistic, 19) > 0.001
    twice = np.asarray(jax.vmap(lambda a: jnp.bincount(a, length=4))(drawn) == 2).sum(0)[1:]
    assert twice.sum() == 3000
    assert stats.chisquare(twice).pvalue > 0.001


def test_any_number_of_classes_and_attributes():
    labels = np.repeat(np.arange(40), 30)
    counts = table(labels, quick(KEY, labels, 0.5, k=40, attributes=16), 40, 16)
    assert (counts[np.arange(40), np.arange(40) % 16] == 15).all()
    assert counts.max() == 15 and (counts >= 1).all()


def test_assign_plain_jit_vmap_and_double_precision_agree():
    labels = np.random.default_rng(1).integers(0, 10, 500)
    plain = assign(KEY, labels, 0.3)
    assert jax.jit(assign)(KEY, labels, 0.3).tolist() == plain.tolist()
    shares = jnp.array([0.3, 0.7])
    mapped = jax.jit(jax.vmap(lambda share: assign(KEY, labels, share)))(shares)
    assert mapped[0].tolist() == plain.tolist()
    assert mapped[1].tolist() == jax.jit(assign)(KEY, labels, 0.7).tolist()
    with jax.enable_x64(True):
        assert jax.jit(assign)(KEY, labels, 0.3).tolist() == plain.tolist()
    assert plain.dtype == jnp.int32
    assert jax.jit(assign)(jax.random.key(1), labels, 0.3).tolist() != plain.tolist()


def test_majority_by_hand():
    """Class 0 has attribute 1 twice; class 1 ties 0 with 2 (the first wins); class 2 is empty."""
    labels, attributes = jnp.array([0, 0, 0, 1, 1]), jnp.array([1, 1, 0, 2, 0])
    found = bias.majority(labels, attributes, num_classes=3, num_attributes=3)
    assert found.tolist() == [1, 0, 0]


def test_majority_finds_what_was_aligned():
    labels = np.repeat(np.arange(10), 50)
    aligned = np.random.default_rng(2).permutation(10)
    attributes = quick(KEY, labels, 0.4, aligned=aligned)
    found = jax.jit(lambda a: bias.majority(labels, a, num_classes=10, num_attributes=10))
    assert found(attributes).tolist() == aligned.tolist()


def test_shades_have_the_stated_mean_and_deviation():
    """A white pixel is 255·(mean/255 + s·n): mean 53, 100 (attribute 8), deviation 255·.05.

    Channels far enough from 0 and 255 that nothing clips: attribute 2 has (172, 118, 148), three
    and more deviations of 12.75 away from either end.
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
    """Levels 0, 51, 102, 255 of one image: 0, c/5, 2c/5 and c, each rounded to a whole level."""
    image = np.array([[[0, 51], [102, 255]]], np.uint8)
    for attribute in range(10):
        key = jax.random.key(attribute)
        out = foreground(key, image, np.array([attribute]), severity=severity)[0]
        out = np.asarray(out, float)
        color = out[1, 1]
        spread = 255 * bias.SEVERITIES[severity - 1]
        assert np.abs(color - bias.LFF_COLORS[attribute]).max() <= 3.7 * spread + 0.5
        assert (out[0, 0] == 0).all()
        assert np.abs(out[0, 1] - color / 5).max() <= 0.6  # .5 here, .1 from rounding c
        assert np.abs(out[1, 0] - 2 * color / 5).max() <= 0.7


def test_shades_clip_and_do_not_wrap():
    """Attribute 1 has red 253: at s = .05 half of the images would pass 255."""
    images = np.full((500, 1, 1), 255, np.uint8)
    red = foreground(KEY, images, np.full(500, 1), severity=1)[..., 0]
    assert int(red.min()) > 253 - 5 * 12.75
    assert int((red == 255).sum()) > 150


def test_foreground_plain_jit_and_traced_severity_agree():
    images = np.random.default_rng(3).integers(0, 256, (50, 5, 4), dtype=np.uint8)
    attributes = np.arange(50) % 10
    plain = bias.foreground(KEY, images, attributes, severity=2)
    assert plain.shape == (50, 5, 4, 3) and plain.dtype == jnp.uint8
    draw = jax.jit(lambda key, i, a, s: bias.foreground(key, i, a, severity=s))
    assert (draw(KEY, images, attributes, 2) == plain).all()
    assert (bias.foreground(KEY, images[..., None], attributes, severity=2) == plain).all()
    assert (bias.foreground(jax.random.key(1), images, attributes, severity=2) != plain).any()
    keys = jax.random.split(KEY)
    mapped = jax.vmap(lambda key: foreground(key, images, attributes))(keys)
    assert (mapped[1] == bias.foreground(keys[1], images, attributes)).all()


def test_foreground_needs_no_more_memory_than_its_result():
    """Fused, the products need no array of their own: 184 MB out, a few bytes per image within."""
    shapes = (
        jax.ShapeDtypeStruct((60_000, 32, 32), jnp.uint8),
        jax.ShapeDtypeStruct((60_000,), jnp.int32),
    )
    compiled = jax.jit(lambda i, a: bias.foreground(KEY, i, a)).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 20e6


def test_solid_colors_by_hand():
    """Bright from 128 on; attribute 6 is blue, 9 white."""
    images = np.array([[[0, 127], [128, 255]], [[255, 0], [0, 255]]], np.uint8)
    blue, white, black = [0, 0, 255], [255, 255, 255], [0, 0, 0]
    attributes = np.array([6, 9])
    front = bias.solid_foreground(images, attributes)
    assert front.tolist() == [[[black, black], [blue, blue]], [[white, black], [black, white]]]
    back = bias.solid_background(images[..., None], attributes)
    assert back.tolist() == [[[blue, blue], [black, black]], [[black, white], [white, black]]]
    assert front.dtype == back.dtype == jnp.uint8
    assert (jax.jit(bias.solid_background)(images, attributes) == back).all()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_one_seed_gives_the_same_bytes_everywhere(wrap):
    """Written down from jax 0.10 on Python 3.11, met by jax 0.12 on Python 3.13."""
    images = np.arange(500 * 16, dtype=np.uint32).reshape(500, 4, 4) * 97 % 256
    images = images.astype(np.uint8)
    attributes = wrap(lambda key, labels: assign(key, labels, 0.3))(
        jax.random.key(7), np.arange(500) % 10
    )
    digest = hashlib.sha256(np.asarray(attributes).tobytes())
    for severity in (1, 4):
        draw = wrap(lambda key, i, a, s=severity: bias.foreground(key, i, a, severity=s))
        digest.update(np.asarray(draw(jax.random.key(severity), images, attributes)).tobytes())
    assert digest.hexdigest() == "0d456ddb9cdb51d669ace6288fcca60c2ea624f7e0dc342c39987bc22329ce45"


LABELS = np.array([0, 1, 2])


@pytest.mark.parametrize(
    "change, error, match",
    [
        (dict(labels=LABELS / 2), TypeError, "labels must be integers, found float"),
        (dict(labels=LABELS[:, None]), ValueError, r"labels must have the shape \[n\].*\(3, 1\)"),
        (dict(labels=LABELS + 8), ValueError, r"labels must lie in 0..9, found 8..10"),
        (dict(labels=LABELS - 1), ValueError, r"found -1..1"),
        (dict(conflict=1.5), ValueError, r"conflict must lie in \[0, 1\], found 1.5"),
        (dict(conflict=float("nan")), ValueError, "found nan"),
        (dict(conflict=jnp.zeros(3)), ValueError, r"one number, found an array of shape \(3,\)"),
        (dict(attributes=1), ValueError, "at least 2, found 1"),
        (dict(aligned=LABELS), ValueError, r"aligned must have the shape \(10,\), found \(3,\)"),
        (dict(aligned=np.arange(10) + 1), ValueError, "aligned must lie in 0..9, found 1..10"),
    ],
)
def test_assign_refuses(change, error, match):
    with pytest.raises(error, match=match):
        assign(KEY, **{"labels": LABELS, **change})


GREY = np.zeros((3, 2, 2), np.uint8)


@pytest.mark.parametrize(
    "images, attributes, error, match",
    [
        (GREY, [0, 1, 10], ValueError, "attributes must lie in 0..9, found 0..10"),
        (GREY, [0, 1], ValueError, r"attributes must have the shape \(3,\), found \(2,\)"),
        (GREY.astype(float), LABELS, TypeError, "images must be uint8, found float"),
        (np.zeros((3, 2, 2, 3), np.uint8), LABELS, ValueError, r"found \(3, 2, 2, 3\)"),
    ],
)
def test_renderings_refuse(images, attributes, error, match):
    attributes = np.asarray(attributes)
    for render in (
        lambda i, a: bias.foreground(KEY, i, a),
        bias.solid_foreground,
        bias.solid_background,
    ):
        with pytest.raises(error, match=match):
            render(images, attributes)


@pytest.mark.parametrize("severity", [0, 5, 1.5])
def test_foreground_refuses_severity(severity):
    with pytest.raises(ValueError, match=f"severity must be 1, 2, 3 or 4, found {severity}"):
        bias.foreground(KEY, GREY, LABELS, severity=severity)


def test_majority_refuses_lengths_that_differ():
    with pytest.raises(ValueError, match=r"attributes must have the shape \(3,\), found \(2,\)"):
        bias.majority(LABELS, LABELS[:2], num_classes=3, num_attributes=3)


# ------------------------------------------------------------------ grey, and natural backgrounds


def test_greyscale_weighs_the_channels_and_leaves_the_others():
    """.299, .587 and .114 of 200 are 59.8, 117.4 and 22.8; white stays white."""
    colours = np.array(
        [[200, 0, 0], [0, 200, 0], [0, 0, 200], [255, 255, 255], [0, 0, 0]], np.uint8
    )
    images = np.broadcast_to(colours[:, None, None], (5, 2, 3, 3))
    found = np.asarray(bias.greyscale(images, jnp.zeros(5, int)))
    assert found[:, 1, 2].tolist() == [[v] * 3 for v in (60, 117, 23, 255, 0)]
    assert (bias.greyscale(images, jnp.ones(5, int)) == images).all()


def test_scenes_are_of_the_category_asked_for_and_all_take_part():
    """5,000 draws from categories of 1, 3 and 6 scenes: each scene within five deviations."""
    categories = jnp.array([2, 0, 1, 2, 2, 1, 2, 2, 1, 2])
    attributes = jnp.arange(15_000) % 3
    drawn = bias.draw_scenes(jax.random.key(0), attributes, categories, num_attributes=3)
    assert (categories[drawn] == attributes).all()
    counts, expected = (
        np.bincount(drawn, minlength=10),
        5000 / np.array([6, 1, 3, 6, 6, 3, 6, 6, 3, 6]),
    )
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_opacity_of_the_foreground():
    """Level 0 shows the scene, 64 and more covers it, 32 mixes 128/255 of 32, 127/255 of 200."""
    grey = np.array([[[0, 32, 64, 255]]], np.uint8)
    scene = np.full((1, 1, 4, 3), 200, np.uint8)
    found = bias.natural_background(grey, scene)[0, 0, :, 0].tolist()
    assert found == [200, round((128 * 32 + 127 * 200) / 255), 64, 255]


def test_coloured_objects_before_a_scene():
    """Levels 0, 32, 200 in (255, 128, 0): 32·128/255 = 16.1, 200·128/255 = 100.4, and no blue.

    Half covered, 128/255 of 32, 16 and 0 and 127/255 of 200: 115.7, 107.6 and 99.6.
    """
    grey = np.array([[[0, 32, 200]]], np.uint8)
    scene = np.full((1, 1, 3, 3), 200, np.uint8)
    orange = np.array([[255, 128, 0]], np.uint8)
    found = jax.jit(bias.natural_background)(grey, scene, colors=orange)[0, 0]
    assert found.tolist() == [[200, 200, 200], [116, 108, 100], [200, 100, 0]]
    white = np.full((1, 3), 255, np.uint8)
    plain = bias.natural_background(grey, scene)
    assert (bias.natural_background(grey, scene, colors=white) == plain).all()


def test_colours_are_drawn_evenly():
    """5,000 of ten: each within five deviations of 500."""
    colours = list(map(tuple, bias.draw_colors(KEY, 5000).tolist()))
    counts = np.array([colours.count(colour) for colour in bias.SOLID_COLORS])
    assert counts.sum() == 5000 and (np.abs(counts - 500) < 5 * np.sqrt(500)).all()


def test_an_attribute_is_either_of_two_colours():
    """White pixels are nearest to colour a or a + 5, half of them each, whatever the attribute."""
    images, attributes = np.full((4000, 1, 1), 255, np.uint8), np.arange(4000) % 5
    found = np.asarray(jax.jit(bias.either_foreground)(KEY, images, attributes))[:, 0, 0]
    distance = np.abs(found[:, None].astype(int) - np.array(bias.LFF_COLORS)).sum(-1)
    second, own = np.divmod(distance.argmin(1), 5)
    assert (own == attributes).all()
    counts = table(attributes, second, 5, 2)
    assert (np.abs(counts - 400) < 5 * np.sqrt(200)).all()
    assert stats.chi2_contingency(counts).pvalue > 1e-3


# ------------------------------------------------------------------ sizes and textures


def test_sizes_by_hand():
    """8 pixels of 0, 8, …, 56, all rows alike: sides of 4, 5, 6, 7, 8.

    Halved, means of two. Of five each is 1.6 wide: (0 + .6·8)/1.6 = 3, (.4·8 + 16 + .2·24)/1.6 =
    15, then 28, 41 and 53. Of six, 4/3 wide: (0 + 8/3)·3/4 = 2, 2/3·8 + 2/3·16 → 12, and so on.
    """
    image = np.tile(np.arange(0, 64, 8, dtype=np.uint8), (8, 1))
    rows = {
        4: [4, 20, 36, 52],
        5: [3, 15, 28, 41, 53],
        6: [2, 12, 22, 34, 44, 54],
        8: image[0].tolist(),
    }
    attributes = np.array([0, 1, 2, 4])
    found = jax.jit(bias.scaled)(KEY, np.stack([image + 1] * 4), attributes)
    assert (found == found[..., :1]).all()
    for shown, (side, row) in zip(np.asarray(found[..., 0], int), rows.items(), strict=True):
        inside = shown[shown.any(1)][:, shown.any(0)]
        assert inside.tolist() == [[level + 1 for level in row]] * side


def test_small_images_lie_anywhere_inside():
    """12 × 16 pixels of one level: 8 + a eighths, 7.5 and 10.5 pixels are 8 and 11.

    Of the smallest all 7 × 9 places occur, each within five deviations.
    """
    images, attributes = np.full((5000, 12, 16, 1), 9, np.uint8), np.arange(5000) % 5
    found = np.asarray(jax.jit(bias.scaled)(KEY, images, attributes))[..., 0] == 9
    height, width = found.any(2).sum(1), found.any(1).sum(1)
    assert (found.sum((1, 2)) == height * width).all()
    assert (height == np.array([6, 8, 9, 11, 12])[attributes]).all()
    assert (width == np.array([8, 10, 12, 14, 16])[attributes]).all()
    half = found[attributes == 0]
    counts = table(half.any(2).argmax(1), half.any(1).argmax(1), 7, 9)
    assert (np.abs(counts - 1000 / 63) < 5 * np.sqrt(1000 / 63)).all()
    plain = np.asarray(bias.scaled(KEY, images[:50], attributes[:50]))
    assert (jax.jit(bias.scaled)(KEY, images[:50], attributes[:50]) == plain).all()


def test_patterns_go_their_way():
    """One step along its stripes a pattern is the same, half a period across it is the reverse.

    Sides of 16 and 24 pixels are whole periods, of which one half is dark.
    """
    images, attributes = np.full((100, 16, 24), 203, np.uint8), np.arange(100) % 10
    found = np.asarray(jax.jit(bias.textured)(KEY, images, attributes))
    assert set(np.unique(found).tolist()) == {50, 203} and (found == found[..., :1]).all()
    for dark, attribute in zip(found[..., 0] == 50, attributes, strict=True):
        kind, wide = attribute % 5, 2 if attribute < 5 else 4
        along = [(0, 1), (1, 0), (-1, 1), (1, 1), (wide, wide)][kind]
        across = [(wide, 0), (0, wide), (wide, 0), (wide, 0), (wide, 0)][kind]
        assert (np.roll(dark, along, (0, 1)) == dark).all()
        assert (np.roll(dark, across, (0, 1)) != dark).all()
        assert dark.mean() == 0.5
    assert (bias.textured(KEY, images, attributes) == found).all()


def test_no_pixel_tells_a_pattern():
    """Of 20,000 looks of every pattern a pixel is dark in half, within five deviations of .0035."""
    images, attributes = np.full((200_000, 2, 2), 255, np.uint8), np.arange(200_000) % 10
    dark = np.asarray(jax.jit(bias.textured)(KEY, images, attributes)[..., 0]) < 255
    for attribute in range(10):
        assert np.abs(dark[attributes == attribute].mean(0) - 0.5).max() < 5 * 0.0036


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_looks_have_the_same_bytes_everywhere(wrap):
    """Written down from jax 0.10 on Python 3.11, met by jax 0.12 on Python 3.13."""
    images = (np.arange(500 * 64, dtype=np.uint32) * 97 % 251).astype(np.uint8)
    images, attributes, key = images.reshape(500, 8, 8), np.arange(500) % 5, jax.random.key(7)
    scenes, colors = np.stack([images[::-1]] * 3, -1), wrap(lambda key: bias.draw_colors(key, 500))
    found = [
        wrap(bias.either_foreground)(key, images, attributes),
        wrap(bias.scaled)(key, images, attributes),
        wrap(bias.textured)(key, images, np.arange(500) % 10),
        wrap(bias.natural_background)(images, scenes, colors=colors(key)),
    ]
    digest = hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in found))
    assert digest.hexdigest() == "3f2a8f479611df11b23807859b1246d21fcd4a94ec87ea430bec717768b32566"


@pytest.mark.parametrize("render", [bias.scaled, bias.textured])
def test_looks_need_little_memory_besides_their_result(render):
    """180 MB out; 4 MB for each thousand small images within, or a byte for every pixel."""
    shapes = (
        jax.ShapeDtypeStruct((60_000, 32, 32), jnp.uint8),
        jax.ShapeDtypeStruct((60_000,), jnp.int32),
    )
    compiled = jax.jit(lambda i, a: render(KEY, i, a)).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100e6


# ------------------------------------------------------------------ places


def test_ten_places_are_apart_and_touch_the_border():
    assert len(set(bias.PLACES)) == 10
    assert all(0 in place or 6 in place for place in bias.PLACES)


def test_half_an_image_lies_in_its_place():
    """5 × 6 pixels: means of 2 × 2 rounded half up, the fifth row cut; 3 rows and columns free."""
    grey = np.zeros((10, 5, 6), np.uint8)
    grey[:, :4] = np.arange(24).reshape(4, 6)
    expected = np.array([[4, 6, 8], [16, 18, 20]])  # 3.5 and 15.5, 5.5 and 17.5, …
    found = np.asarray(jax.jit(bias.placed)(grey[..., None], np.arange(10)))
    assert found.shape == (10, 5, 6, 3) and (found == found[..., :1]).all()
    for image, (down, right) in zip(found[..., 0], bias.PLACES, strict=True):
        top, left = int(down / 2 + 0.5), int(right / 2 + 0.5)
        assert image[top : top + 2, left : left + 3].tolist() == expected.tolist()
        assert image.sum() == expected.sum()


def test_a_mark_covers_its_square_and_nothing_else():
    """16 × 24 pixels: squares of 2 × 3; their colours have nothing to do with their places."""
    images = np.random.default_rng(0).integers(1, 255, (500, 16, 24, 3), dtype=np.uint8)
    attributes = np.arange(500) % 10
    found = np.array(bias.marked(KEY, images, attributes))
    colours = []
    for image, before, place in zip(found, images, attributes, strict=True):
        down, right = bias.PLACES[place]
        top, left = int(down * 14 / 6 + 0.5), int(right * 21 / 6 + 0.5)
        square = image[top : top + 2, left : left + 3].reshape(-1, 3)
        assert (square == square[0]).all()
        colours.append(bias.SOLID_COLORS.index(tuple(square[0].tolist())))
        image[top : top + 2, left : left + 3] = before[top : top + 2, left : left + 3]
    assert (found == images).all()
    counts = table(attributes, colours, 10, 10)
    assert (counts.sum(0) > 25).all() and stats.chi2_contingency(counts).pvalue > 1e-3
    jitted = jax.jit(bias.marked)(KEY, images, attributes)
    assert (jitted == bias.marked(KEY, images, attributes)).all()


def test_a_bar_crosses_the_image():
    """16 × 24 pixels: rows of 2 at 0, 3.5, 7, …, rounded half up, then columns of 3."""
    images = np.random.default_rng(0).integers(1, 255, (50, 16, 24, 3), dtype=np.uint8)
    attributes = np.arange(50) % 10
    found = np.array(jax.jit(bias.barred)(KEY, images, attributes))
    for image, before, bar in zip(found, images, attributes, strict=True):
        top, left = (0, 4, 7, 11, 14)[bar % 5], (0, 5, 11, 16, 21)[bar % 5]
        where = np.s_[top : top + 2] if bar < 5 else np.s_[:, left : left + 3]
        assert len(np.unique(image[where].reshape(-1, 3), axis=0)) == 1
        assert tuple(image[where][0, 0].tolist()) in bias.SOLID_COLORS
        image[where] = before[where]
    assert (found == images).all()


def test_quarter_turns():
    grey = np.random.default_rng(0).integers(0, 255, (8, 5, 5), dtype=np.uint8)
    found = np.asarray(jax.jit(bias.turned)(grey[..., None], np.arange(8) % 4))
    for i, image in enumerate(found):
        assert (image == np.rot90(grey[i], i % 4)[..., None]).all()


RGB = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: bias.greyscale(RGB[..., 0], jnp.zeros(2, int)), ValueError, r"\[n, h, w, 3\]"),
        (lambda: bias.greyscale(RGB / 1, jnp.zeros(2, int)), TypeError, "images must be uint8"),
        (
            lambda: bias.greyscale(RGB, jnp.array([0, 2])),
            ValueError,
            "must lie in 0..1, found 0..2",
        ),
        (lambda: bias.placed(RGB[:, :1, :, 0], jnp.zeros(2, int)), ValueError, "at least 2"),
        (lambda: bias.placed(RGB[..., 0], jnp.full(2, 10)), ValueError, "must lie in 0..9"),
        (lambda: bias.marked(KEY, RGB, jnp.zeros(3, int)), ValueError, r"\(2,\), found \(3,\)"),
        (lambda: bias.marked(KEY, RGB[..., :1], jnp.zeros(2, int)), ValueError, r"\[n, h, w, 3\]"),
        (lambda: bias.barred(KEY, RGB, jnp.full(2, 10)), ValueError, "must lie in 0..9"),
        (lambda: bias.turned(RGB[:, :3, :, 0], jnp.zeros(2, int)), ValueError, "square, found"),
        (lambda: bias.turned(RGB[..., 0], jnp.full(2, 4)), ValueError, "must lie in 0..3"),
        (lambda: bias.scaled(KEY, RGB[..., 0], jnp.full(2, 5)), ValueError, "must lie in 0..4"),
        (lambda: bias.scaled(KEY, RGB, jnp.zeros(2, int)), ValueError, "grey images must be"),
        (lambda: bias.textured(KEY, RGB[..., 0], jnp.full(2, 10)), ValueError, "lie in 0..9"),
        (lambda: bias.textured(KEY, RGB[..., 0] / 1, LABELS[:2]), TypeError, "must be uint8"),
        (lambda: bias.either_foreground(KEY, GREY, LABELS + 3), ValueError, "lie in 0..4"),
        (lambda: bias.either_foreground(KEY, GREY, LABELS[:2]), ValueError, r"\(3,\), found"),
        (
            lambda: bias.natural_background(RGB[..., 0], RGB, colors=jnp.ones((2, 3))),
            TypeError,
            "colors must be uint8",
        ),
        (
            lambda: bias.natural_background(RGB[..., 0], RGB, colors=RGB[0, 0]),
            ValueError,
            r"colors must have the shape \(2, 3\), found \(4, 3\)",
        ),
        (lambda: bias.natural_background(RGB[..., 0], RGB[:1]), ValueError, "differ: found"),
        (lambda: bias.natural_background(RGB[..., 0], RGB / 1), TypeError, "scenes must be uint8"),
        (
            lambda: bias.draw_scenes(
                jax.random.key(0), jnp.array([0]), jnp.array([0, 0]), num_attributes=2
            ),
            ValueError,
            "every category needs a scene, category 1 has none",
        ),
    ],
)
def test_rendering_refuses(call, error, match):
    with pytest.raises(error, match=match):
        call()
