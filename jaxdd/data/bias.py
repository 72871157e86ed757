"""Who gets which bias attribute, and how it looks.

A biased data set is made in two independent steps: `assign` decides which spurious attribute every
sample carries (most samples of a class share its *aligned* attribute, the others *conflict*), and
a rendering writes that attribute into the images. Arrays in, arrays out; no file is touched.

Every number that reaches a pixel is an integer, so a key gives the same bytes under `jit` and
outside, on every backend and with every version of jax. Floating point would not: a compiler may
fuse `mean + s·n` into one rounding, and a last bit decides how a pixel rounds.
"""

from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxdd import _checks

LFF_COLORS = (
    (251, 80, 43),
    (253, 233, 90),
    (172, 118, 148),
    (200, 212, 153),
    (22, 198, 250),
    (82, 245, 114),
    (6, 60, 193),
    (142, 26, 194),
    (53, 100, 5),
    (213, 52, 68),
)
"""Mean colour (RGB, 0..255) of attributes 0..9 in Coloured MNIST (Nam et al. 2020, "LfF")."""

SOLID_COLORS = (
    (255, 0, 0),
    (255, 128, 0),
    (255, 255, 0),
    (255, 255, 128),
    (0, 255, 0),
    (0, 255, 255),
    (0, 0, 255),
    (128, 0, 255),
    (255, 0, 255),
    (255, 255, 255),
)
"""Colour (RGB, 0..255) of attributes 0..9 in FairDD's C-MNIST and C-FMNIST."""

PLACES = ((0, 0), (0, 2), (0, 4), (0, 6), (3, 6), (6, 6), (6, 4), (6, 2), (6, 0), (3, 0))
"""Where the thing of attributes 0..9 lies: sixths of the way down and to the right."""

SEVERITIES = (0.05, 0.02, 0.01, 0.005)
"""Standard deviation s of the LfF colours at severity 1, 2, 3, 4: the smaller, the purer."""

# N(0, 1) by table: the midpoints of 4,096 equally likely slices (variance 0.9997, |n| < 3.67).
# jax.random.normal ends in a logarithm whose last bit depends on the backend.
_QUANTILE_BITS = 12
_QUANTILES = tuple(
    NormalDist().inv_cdf((i + 0.5) / 2**_QUANTILE_BITS) for i in range(2**_QUANTILE_BITS)
)


def assign(
    key: jax.Array,
    labels: jax.Array,
    *,
    num_classes: int,
    num_attributes: int,
    conflict: float | jax.Array,
    aligned: jax.Array | None = None,
) -> jax.Array:
    """Draws a bias attribute for every sample, with exact counts in each class.

    Of the n_k samples of class k, round(n_k · conflict) conflict (half rounds to even). Which ones
    is drawn at random; they are spread over the other attributes so that the counts differ by at
    most one, and which attributes are one ahead is drawn for each class. All others are aligned.
    With `conflict = 1 - 1/num_attributes` the attribute is uniform and says nothing about the
    class: the unbiased test set.

    Args:
        key: random key.
        labels: class of each sample, integers [n] in 0..num_classes-1.
        num_classes: number of classes, k.
        num_attributes: number of attributes, at least 2.
        conflict: share of each class that conflicts, in [0, 1]; may be traced.
        aligned: attribute that each class is aligned with, integers [k]; class index modulo
            `num_attributes` where absent.

    Returns:
        The attribute of each sample, int32 [n].

    Raises:
        TypeError: labels or aligned attributes that are not integers.
        ValueError: wrong shapes, values out of range, or fewer than two attributes.

    The protocol is that of LfF (Nam et al. 2020), with the conflicting samples drawn at random
    instead of taken in file order.

    >>> labels = jnp.repeat(jnp.arange(2), 100)
    >>> attributes = assign(
    ...     jax.random.key(0), labels, num_classes=2, num_attributes=5, conflict=0.08
    ... )
    >>> jnp.bincount(attributes[:100], length=5).tolist()
    [92, 2, 2, 2, 2]
    """
    if num_attributes < 2:
        raise ValueError(f"num_attributes must be at least 2, found {num_attributes}")
    labels = _checks.integers("labels", labels, num_classes)
    conflict = _check_share(conflict)
    aligned = jnp.arange(num_classes) % num_attributes if aligned is None else aligned
    aligned = _checks.integers("aligned", aligned, num_attributes, length=num_classes)

    choose, spread = jax.random.split(key)
    counts = jnp.bincount(labels, length=num_classes)
    rank = rank_in_class(jax.random.bits(choose, labels.shape, jnp.uint32), labels)
    # One column per attribute in random order, the aligned one (drawn above all others) last.
    draws = jax.random.uniform(spread, (num_classes, num_attributes), jnp.float32)
    order = jnp.argsort(draws.at[jnp.arange(num_classes), aligned].set(2.0), axis=1)
    other = order[labels, rank % (num_attributes - 1)]
    conflicts = rank < jnp.round(counts * conflict)[labels]
    return jnp.where(conflicts, other, aligned[labels]).astype(jnp.int32)


def majority(
    labels: ArrayLike, attributes: ArrayLike, *, num_classes: int, num_attributes: int
) -> jax.Array:
    """Returns the most frequent attribute of each class: the aligned one of given data.

    Args:
        labels: class of each sample, integers [n] in 0..num_classes-1.
        attributes: attribute of each sample, integers [n] in 0..num_attributes-1.
        num_classes: number of classes, k.
        num_attributes: number of attributes.

    Returns:
        One attribute per class, int32 [k]; the smallest index wins a tie, and a class without
        samples gets 0.

    Raises:
        TypeError: labels or attributes that are not integers.
        ValueError: shapes that differ or values out of range.

    >>> labels, attributes = jnp.array([0, 0, 0, 1, 1]), jnp.array([2, 0, 2, 1, 1])
    >>> majority(labels, attributes, num_classes=2, num_attributes=3).tolist()
    [2, 1]
    """
    labels = _checks.integers("labels", labels, num_classes)
    attributes = _checks.integers("attributes", attributes, num_attributes, length=labels.shape[0])
    counts = jnp.zeros((num_classes, num_attributes), jnp.int32).at[labels, attributes].add(1)
    return jnp.argmax(counts, axis=1).astype(jnp.int32)


def foreground(
    key: jax.Array,
    images: jax.Array,
    attributes: jax.Array,
    *,
    severity: int | jax.Array = 4,
) -> jax.Array:
    """Colours grey images on black, each in a slightly different shade of its attribute's colour.

    colour = clip(mean[a] / 255 + s · n, 0, 1), with n ~ N(0, 1) drawn per image and channel, times
    the grey image, rounded to the nearest level (the published code truncates).

    Args:
        key: random key.
        images: grey images, uint8 [n, h, w] or [n, h, w, 1].
        attributes: attribute of each image, integers [n] in 0..9.
        severity: 1, 2, 3 or 4 for s = .05, .02, .01, .005 (`SEVERITIES`); may be traced.

    Returns:
        RGB images, uint8 [n, h, w, 3].

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes, an attribute without a colour or a severity outside 1..4.

    Coloured MNIST of Nam et al. 2020 (LfF), also used by Cui et al. 2024 and CMNIST-DD.

    >>> image = jnp.full((1, 1, 1), 255, jnp.uint8)
    >>> foreground(jax.random.key(0), image, jnp.array([0])).shape
    (1, 1, 1, 3)
    """
    grey = _grey(images)
    attributes = _checks.integers("attributes", attributes, len(LFF_COLORS), length=grey.shape[0])
    severity = jnp.asarray(severity)
    if not isinstance(severity, Tracer) and severity.tolist() not in (1, 2, 3, 4):
        raise ValueError(f"severity must be 1, 2, 3 or 4, found {severity.tolist()}")
    slices = jax.random.bits(key, (grey.shape[0], 3), jnp.uint32) >> (32 - _QUANTILE_BITS)
    noise = jnp.asarray(_QUANTILES, jnp.float32)[slices.astype(jnp.int32)]
    # Colours in units of 1/65535, of which 257 are one of 255 grey levels.
    scale = jnp.asarray([65535 * s for s in SEVERITIES], jnp.float32)[severity - 1]
    mean = 257 * jnp.asarray(LFF_COLORS, jnp.int32)[attributes]
    color = jnp.clip(mean + jnp.round(scale * noise).astype(jnp.int32), 0, 65535)
    product = grey[..., None].astype(jnp.uint32) * color[:, None, None].astype(jnp.uint32)
    return ((product + 65535 // 2) // 65535).astype(jnp.uint8)


def either_foreground(
    key: jax.Array,
    images: jax.Array,
    attributes: jax.Array,
    *,
    severity: int | jax.Array = 4,
) -> jax.Array:
    """Colours grey images on black in shades of either of two colours of their attribute.

    Attribute a shows as colour a or a + 5 of `LFF_COLORS`, each as likely, so that no one colour
    stands for it.

    Args:
        key: draws which of the two, and the shades.
        images: grey images, uint8 [n, h, w] or [n, h, w, 1].
        attributes: attribute of each image, integers [n] in 0..4.
        severity: 1, 2, 3 or 4, as of `foreground`; may be traced.

    Returns:
        RGB images, uint8 [n, h, w, 3].

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes, an attribute without colours or a severity outside 1..4.

    >>> image = jnp.full((1, 1, 1), 255, jnp.uint8)
    >>> either_foreground(jax.random.key(0), image, jnp.array([4])).shape
    (1, 1, 1, 3)
    """
    half = len(LFF_COLORS) // 2
    attributes = _checks.integers("attributes", attributes, half)
    key_either, key_shades = jax.random.split(key)
    second = (jax.random.bits(key_either, attributes.shape, jnp.uint32) % 2).astype(jnp.int32)
    return foreground(key_shades, images, attributes + half * second, severity=severity)


def solid_foreground(images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Paints the bright pixels in the attribute's solid colour and the others black.

    Args:
        images: grey images, uint8 [n, h, w] or [n, h, w, 1]; a pixel is bright from 128 on.
        attributes: attribute of each image, integers [n] in 0..9, a row of `SOLID_COLORS`.

    Returns:
        RGB images, uint8 [n, h, w, 3].

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes or an attribute without a colour.

    "FG" of FairDD (NeurIPS 2025), after Biased-MNIST of ReBias (Bahng et al. 2020).

    >>> solid_foreground(jnp.array([[[128, 127]]], jnp.uint8), jnp.array([1])).tolist()
    [[[[255, 128, 0], [0, 0, 0]]]]
    """
    bright, color = _bright_and_color(images, attributes)
    return jnp.where(bright, color, jnp.uint8(0))


def solid_background(images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Paints the dark pixels in the attribute's solid colour and the bright ones black.

    Args:
        images: grey images, uint8 [n, h, w] or [n, h, w, 1]; a pixel is bright from 128 on.
        attributes: attribute of each image, integers [n] in 0..9, a row of `SOLID_COLORS`.

    Returns:
        RGB images, uint8 [n, h, w, 3].

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes or an attribute without a colour.

    "BG" of FairDD (NeurIPS 2025), after Biased-MNIST of ReBias (Bahng et al. 2020).

    >>> solid_background(jnp.array([[[128, 127]]], jnp.uint8), jnp.array([1])).tolist()
    [[[[0, 0, 0], [255, 128, 0]]]]
    """
    bright, color = _bright_and_color(images, attributes)
    return jnp.where(bright, jnp.uint8(0), color)


def greyscale(images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Takes the colour from the images of attribute 0 and leaves those of attribute 1.

    Args:
        images: uint8 [n, h, w, 3].
        attributes: 0 or 1 for each image, integers [n].

    Returns:
        RGB images, uint8 [n, h, w, 3]; grey is .299 R + .587 G + .114 B (ITU-R 601) in all three
        channels.

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes or another attribute.

    CIFAR10-S (Wang et al. 2020, "Towards Fairness in Visual Recognition") in FairDD's version.

    >>> red = jnp.array([255, 0, 0], jnp.uint8).reshape(1, 1, 1, 3)
    >>> greyscale(red, jnp.array([0])).ravel().tolist()
    [76, 76, 76]
    """
    images = _rgb("images", images)
    attributes = _checks.integers("attributes", attributes, 2, length=images.shape[0])
    # The weights in units of 2^-16, which add up to 2^16.
    luma = jnp.sum(images * jnp.array((19595, 38470, 7471), jnp.uint32), -1, keepdims=True)
    grey = ((luma + 2**15) >> 16).astype(jnp.uint8)
    return jnp.where(attributes[:, None, None, None] == 0, grey, images)


def placed(images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Halves the sides of grey images on black and puts them where their attribute says.

    Args:
        images: grey images, uint8 [n, h, w] or [n, h, w, 1]; of an odd side the last row is cut.
        attributes: place of each image, integers [n] in 0..9, a row of `PLACES`.

    Returns:
        RGB images, uint8 [n, h, w, 3], black where the small image, means of 2×2 pixels, is not.

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes, an attribute without a place, or sides below 2.

    >>> image = jnp.array([[[1, 2], [3, 4]]], jnp.uint8)
    >>> placed(image, jnp.array([5]))[0, :, :, 0].tolist()
    [[0, 0], [0, 3]]
    """
    grey = _grey(images)
    n, h, w = grey.shape
    if min(h, w) < 2:
        raise ValueError(f"images must have sides of at least 2, found {grey.shape}")
    cells = grey[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2)
    small = ((cells.astype(jnp.uint32).sum((2, 4)) + 2) // 4).astype(jnp.uint8)
    small = jnp.pad(small, ((0, 0), (0, h - h // 2), (0, w - w // 2)))
    corner = _corner(attributes, (n, h, w), (h // 2, w // 2))
    moved = jax.vmap(lambda image, at: jnp.roll(image, at, (0, 1)))(small, corner)
    return jnp.repeat(moved[..., None], 3, axis=-1)


def scaled(key: jax.Array, images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Shrinks grey images on black to the size that their attribute says, somewhere in the image.

    Attribute a has sides of (4 + a) / 8 of the image's, to the nearest pixel. A pixel is the mean
    of what it covers, pixels that it covers in part by that part.

    Args:
        key: draws where each small image lies, every place inside the image as likely.
        images: grey images, uint8 [n, h, w] or [n, h, w, 1].
        attributes: size of each image, integers [n] in 0..4.

    Returns:
        RGB images, uint8 [n, h, w, 3], black where the small image is not.

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes or an attribute without a size.

    >>> image = jnp.full((1, 2, 2), 6, jnp.uint8)
    >>> (scaled(jax.random.key(0), image, jnp.array([0]))[..., 0] == 6).sum().tolist()
    1
    """
    grey = _grey(images)
    n, h, w = grey.shape
    attributes = _checks.integers("attributes", attributes, 5, length=n)
    sides = (jnp.array([h, w]) * (4 + attributes[:, None]) + 4) // 8
    free = (jnp.array([h, w]) - sides + 1).astype(jnp.uint32)
    corner = (jax.random.bits(key, (n, 2), jnp.uint32) % free).astype(jnp.int32)

    def shrunk(each):
        image, side, at = each
        rows, columns = _overlaps(h, side[0], at[0]), _overlaps(w, side[1], at[1])
        total = rows @ image.astype(jnp.int32) @ columns.T
        return ((total + h * w // 2) // (h * w)).astype(jnp.uint8)

    small = jax.lax.map(shrunk, (grey, sides, corner), batch_size=1000)
    return jnp.repeat(small[..., None], 3, axis=-1)


def _overlaps(side, small, start):
    """How much of each pixel of a side (second axis) lies in each one, once shrunk and moved.

    In units that are so small that all are whole: `small` are one pixel before, `side` one after.
    """
    edges = jnp.arange(side + 1)
    before, after = small * edges, side * (edges - start)
    first = jnp.maximum(after[:-1, None], before[:-1])
    last = jnp.minimum(after[1:, None], before[1:])
    return jnp.maximum(last - first, 0)


def textured(key: jax.Array, images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Darkens half of the pixels of grey images on black, in the pattern of their attribute.

    The patterns repeat every four pixels and those of attributes 5..9 every eight: rows, columns,
    both diagonals and checks, as wide as half a period. Where a pattern begins is drawn, so that
    each pixel is dark half of the time whatever the attribute.

    Args:
        key: draws where each pattern begins.
        images: grey images, uint8 [n, h, w] or [n, h, w, 1].
        attributes: pattern of each image, integers [n] in 0..9.

    Returns:
        RGB images, uint8 [n, h, w, 3]; dark pixels keep a quarter of their level, rounded down.

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes or an attribute without a pattern.

    >>> image = jnp.full((1, 4, 4), 200, jnp.uint8)
    >>> textured(jax.random.key(0), image, jnp.array([0]))[0, :, :, 0].tolist()
    [[50, 50, 50, 50], [200, 200, 200, 200], [200, 200, 200, 200], [50, 50, 50, 50]]
    """
    grey = _grey(images)
    n, h, w = grey.shape
    attributes = _checks.integers("attributes", attributes, 10, length=n)
    start = (jax.random.bits(key, (n, 2), jnp.uint32) % 8).astype(jnp.int32)
    down, right = (start[:, :1] + jnp.arange(h)) % 8, (start[:, 1:] + jnp.arange(w)) % 8
    dark = _patterns()[attributes[:, None, None], down[:, :, None], right[:, None]]
    return jnp.repeat(jnp.where(dark, grey // 4, grey)[..., None], 3, axis=-1)


def _patterns():
    """Where each of ten patterns is dark, [10, 8, 8]."""
    y, x = jnp.indices((8, 8))
    kinds = lambda wide: (y, x, y + x, y - x, wide * (y // wide + x // wide))
    return jnp.stack([along // wide % 2 == 1 for wide in (2, 4) for along in kinds(wide)])


def marked(key: jax.Array, images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Draws a small square near the border, where the attribute says, in any colour.

    Args:
        key: draws the colour of each square out of `SOLID_COLORS`.
        images: RGB images, uint8 [n, h, w, 3].
        attributes: place of each square, integers [n] in 0..9, a row of `PLACES`.

    Returns:
        RGB images, uint8 [n, h, w, 3]; the sides of a square are an eighth of the image's, and one
        pixel at least.

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes or an attribute without a place.

    >>> image = jnp.full((1, 3, 3, 3), 7, jnp.uint8)
    >>> (marked(jax.random.key(0), image, jnp.array([3])) != image).any(-1)[0].tolist()
    [[False, False, True], [False, False, False], [False, False, False]]
    """
    images = _rgb("images", images)
    n, h, w, _ = images.shape
    sides = max(h // 8, 1), max(w // 8, 1)
    corner = _corner(attributes, (n, h, w), sides)
    color = draw_colors(key, n)
    down, right = jnp.arange(h) - corner[:, :1], jnp.arange(w) - corner[:, 1:]
    rows, columns = (down >= 0) & (down < sides[0]), (right >= 0) & (right < sides[1])
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(inside, color[:, None, None], images)


def barred(key: jax.Array, images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Draws a bar across the image, where and along which side the attribute says, in any colour.

    Args:
        key: draws the colour of each bar out of `SOLID_COLORS`.
        images: RGB images, uint8 [n, h, w, 3].
        attributes: bar of each image, integers [n] in 0..9: five rows from the top down, then five
            columns from the left.

    Returns:
        RGB images, uint8 [n, h, w, 3]; a bar is as wide as an eighth of the side that it crosses,
        and one pixel at least.

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes or an attribute without a bar.

    >>> image = jnp.full((1, 5, 5, 3), 7, jnp.uint8)
    >>> (barred(jax.random.key(0), image, jnp.array([9])) != image).any(-1)[0, 0].tolist()
    [False, False, False, False, True]
    """
    images = _rgb("images", images)
    n, h, w, _ = images.shape
    attributes = _checks.integers("attributes", attributes, 10, length=n)
    across = (attributes < 5)[:, None, None]
    inside = jnp.where(across, _bar(h, attributes)[:, :, None], _bar(w, attributes)[:, None])
    color = draw_colors(key, n)
    return jnp.where(inside[..., None], color[:, None, None], images)


def _bar(side, attributes):
    """Which of the rows or columns of a side a bar covers, [n, side]."""
    wide = max(side // 8, 1)
    start = (attributes % 5 * (side - wide) + 2) // 4
    from_start = jnp.arange(side) - start[:, None]
    return (from_start >= 0) & (from_start < wide)


def turned(images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Turns square grey images by a quarter, to the left, as often as their attribute says.

    Args:
        images: grey images, uint8 [n, s, s] or [n, s, s, 1].
        attributes: quarter turns of each image, integers [n] in 0..3.

    Returns:
        RGB images, uint8 [n, s, s, 3].

    Raises:
        TypeError: images that are not uint8, attributes that are not integers.
        ValueError: wrong shapes, images that are not square, or an attribute outside of 0..3.

    >>> turned(jnp.array([[[1, 2], [3, 4]]], jnp.uint8), jnp.array([1]))[0, :, :, 0].tolist()
    [[2, 4], [1, 3]]
    """
    grey = _grey(images)
    if grey.shape[1] != grey.shape[2]:
        raise ValueError(f"images must be square, found {grey.shape}")
    attributes = _checks.integers("attributes", attributes, 4, length=grey.shape[0])
    turns = jnp.stack([jnp.rot90(grey, i, (1, 2)) for i in range(4)])
    chosen = turns[attributes, jnp.arange(len(grey))]
    return jnp.repeat(chosen[..., None], 3, axis=-1)


def draw_colors(key: jax.Array, count: int) -> jax.Array:
    """Draws some of `SOLID_COLORS`, each as likely, with replacement.

    Args:
        key: random key.
        count: how many, n.

    Returns:
        Colours, uint8 [n, 3].

    >>> draw_colors(jax.random.key(0), 2).tolist()
    [[128, 0, 255], [255, 255, 0]]
    """
    draws = jax.random.bits(key, (count,), jnp.uint32)
    return jnp.asarray(SOLID_COLORS, jnp.uint8)[draws % len(SOLID_COLORS)]


def draw_scenes(
    key: jax.Array, attributes: jax.Array, categories: jax.Array, *, num_attributes: int
) -> jax.Array:
    """Draws a scene of the right category for every sample, with replacement.

    Args:
        key: random key.
        attributes: category that each sample needs, integers [n] in 0..num_attributes-1.
        categories: category of each scene, integers [m].
        num_attributes: number of categories; each must have a scene.

    Returns:
        The index of a scene for each sample, int32 [n] in 0..m-1.

    Raises:
        TypeError: attributes or categories that are not integers.
        ValueError: wrong shapes, values out of range, or a category that has no scene.

    >>> draw_scenes(
    ...     jax.random.key(0), jnp.array([1, 1]), jnp.array([0, 1, 0]), num_attributes=2
    ... ).tolist()
    [1, 1]
    """
    attributes = _checks.integers("attributes", attributes, num_attributes)
    categories = _checks.integers("categories", categories, num_attributes)
    counts = jnp.bincount(categories, length=num_attributes)
    if not isinstance(counts, Tracer) and not counts.all():
        raise ValueError(f"every category needs a scene, category {counts.argmin()} has none")
    start = jnp.cumsum(counts) - counts
    draws = jax.random.bits(key, attributes.shape, jnp.uint32)
    place = (draws % counts[attributes].astype(jnp.uint32)).astype(jnp.int32)
    return jnp.argsort(categories, stable=True)[start[attributes] + place].astype(jnp.int32)


def natural_background(
    images: jax.Array, scenes: jax.Array, *, colors: jax.Array | None = None
) -> jax.Array:
    """Puts grey objects on black in front of scenes, coloured if one likes.

    A pixel of level g has the colour times g / 255 and covers the scene with opacity
    min(4·g, 255) / 255: objects are opaque from level 64 on and have soft edges.

    Args:
        images: grey images, uint8 [n, h, w] or [n, h, w, 1].
        scenes: RGB images, uint8 [n, h, w, 3].
        colors: of each object, uint8 [n, 3]; white where absent.

    Returns:
        RGB images, uint8 [n, h, w, 3].

    Raises:
        TypeError: images, scenes or colours that are not uint8.
        ValueError: shapes that differ.

    Our reading of BG-FMNIST (Cui et al. 2024), whose exact recipe is not published; the colours
    are ours.

    >>> scene = jnp.array([10, 20, 30], jnp.uint8).reshape(1, 1, 1, 3)
    >>> natural_background(jnp.array([[[200]]], jnp.uint8), scene).ravel().tolist()
    [200, 200, 200]
    >>> red = jnp.array([[255, 0, 0]], jnp.uint8)
    >>> natural_background(jnp.array([[[200]]], jnp.uint8), scene, colors=red).ravel().tolist()
    [200, 0, 0]
    """
    grey, scenes = _grey(images), _rgb("scenes", scenes)
    if grey.shape != scenes.shape[:3]:
        raise ValueError(f"images and scenes differ: found {grey.shape} and {scenes.shape[:3]}")
    grey = grey.astype(jnp.int32)[..., None]
    opacity = jnp.minimum(4 * grey, 255)
    front = grey if colors is None else (grey * _colors(colors, len(grey)) + 127) // 255
    return ((opacity * front + (255 - opacity) * scenes + 127) // 255).astype(jnp.uint8)


def _colors(colors, count):
    """Colours as they are multiplied with images, [n, 1, 1, 3]."""
    colors = jnp.asarray(colors)
    if colors.dtype != jnp.uint8:
        raise TypeError(f"colors must be uint8, found {colors.dtype}")
    if colors.shape != (count, 3):
        raise ValueError(f"colors must have the shape {(count, 3)}, found {colors.shape}")
    return colors[:, None, None].astype(jnp.int32)


def _bright_and_color(images, attributes):
    grey = _grey(images)
    attributes = _checks.integers("attributes", attributes, len(SOLID_COLORS), length=grey.shape[0])
    color = jnp.asarray(SOLID_COLORS, jnp.uint8)[attributes]
    return grey[..., None] >= 128, color[:, None, None]


def _corner(attributes, shape, sides):
    """Row and column [n, 2] of the first pixel of a thing with these sides in images [n, h, w]."""
    attributes = _checks.integers("attributes", attributes, len(PLACES), length=shape[0])
    free = jnp.array(shape[1:]) - jnp.array(sides)
    return (jnp.asarray(PLACES)[attributes] * free + 3) // 6


def rank_in_class(draws: Any, labels: Any, *, xp: Any = jnp) -> Any:
    """Returns the place 0..n_k-1 of each sample among those of its class, in the order of draws.

    Args:
        draws: a number for each sample [n].
        labels: class of each sample, integers [n].
        xp: `numpy` or `jax.numpy`, which computes it.

    Returns:
        Integers [n].

    >>> rank_in_class(jnp.array([0.3, 0.9, 0.1, 0.2]), jnp.array([0, 1, 0, 1])).tolist()
    [1, 1, 0, 0]
    """
    order = xp.lexsort((draws, labels))
    return xp.argsort(order) - xp.searchsorted(labels[order], labels)


def _grey(images):
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8, found {images.dtype}")
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3:
        raise ValueError(f"grey images must be [n, h, w] or [n, h, w, 1], found {images.shape}")
    return images


def _rgb(name, images):
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise TypeError(f"{name} must be uint8, found {images.dtype}")
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"{name} must be [n, h, w, 3], found {images.shape}")
    return images


def _check_share(conflict):
    # float32 whatever the caller's precision, so that the counts do not depend on it.
    conflict = jnp.asarray(conflict, jnp.float32)
    if conflict.shape:
        raise ValueError(f"conflict must be one number, found an array of shape {conflict.shape}")
    if not isinstance(conflict, Tracer) and not 0 <= conflict <= 1:
        raise ValueError(f"conflict must lie in [0, 1], found {conflict}")
    return conflict
