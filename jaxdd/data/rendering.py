"""Draw bias attributes into images: colours, scenes, places, sizes, patterns, marks and bars.

Every function takes uint8 images and the attribute of each image, integers [n], and returns RGB
images, uint8 [n, h, w, 3]. Grey images are [n, h, w] or [n, h, w, 1], bright on black; RGB images
are [n, h, w, 3]. Random functions take a key first. `jaxdd.data.bias.assign` draws attributes.

Every number that JAX computes for a pixel is an integer, so a key gives the same bytes with and
without `jit`, on every backend and with every version of JAX. With floating point a compiler may
fuse `mean + s·n` into one rounding, and the last bit decides how a pixel is rounded.
"""

from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdd import _checks

LFF_COLORS = (
    (251, 80, 43), (253, 233, 90), (172, 118, 148), (200, 212, 153), (22, 198, 250),
    (82, 245, 114), (6, 60, 193), (142, 26, 194), (53, 100, 5), (213, 52, 68),
)  # fmt: skip
"""Mean colour (RGB, 0..255) of attributes 0..9 in Coloured MNIST (Nam et al. 2020, LfF)."""

SOLID_COLORS = (
    (255, 0, 0), (255, 128, 0), (255, 255, 0), (255, 255, 128), (0, 255, 0),
    (0, 255, 255), (0, 0, 255), (128, 0, 255), (255, 0, 255), (255, 255, 255),
)  # fmt: skip
"""Colour (RGB, 0..255) of attributes 0..9 in C-MNIST and C-FMNIST of FairDD."""

PLACES = ((0, 0), (0, 2), (0, 4), (0, 6), (3, 6), (6, 6), (6, 4), (6, 2), (6, 0), (3, 0))
"""Position of attributes 0..9, in sixths of the way down and to the right."""

_SHADE_STDS = 0.05, 0.02, 0.01, 0.005  # at severity 1, 2, 3, 4; smaller is a stronger bias

# N(0, 1) by table: the midpoints of 4,096 equally likely slices (variance 0.9997, |n| < 3.67).
# jax.random.normal ends in a logarithm whose last bit depends on the backend.
_QUANTILE_BITS = 12
_QUANTILES = tuple(
    NormalDist().inv_cdf((i + 0.5) / 2**_QUANTILE_BITS) for i in range(2**_QUANTILE_BITS)
)


def tint(
    key: jax.Array, images: jax.Array, attributes: jax.Array, *, severity: int | jax.Array = 4
) -> jax.Array:
    """Colour grey images, each in a random shade of its attribute's colour.

    colour = clip(mean[a] / 255 + s · n, 0, 1) with n ~ N(0, 1) drawn per image and channel, times
    the grey image, rounded to the nearest level (the published code truncates). The means are
    `LFF_COLORS`. This is Coloured MNIST of Nam et al. 2020 (LfF), also used by Cui et al. 2024 and
    CMNIST-DD.

    Args:
        key: random key.
        images: grey images.
        attributes: attribute of each image, 0..9.
        severity: 1, 2, 3 or 4 for s = .05, .02, .01, .005; may be traced.
    """
    grey = _check_grey(images)
    attributes = _checks.integers("attributes", attributes, len(LFF_COLORS), length=grey.shape[0])
    severity = jnp.asarray(severity)
    if not isinstance(severity, Tracer) and severity.tolist() not in (1, 2, 3, 4):
        raise ValueError(f"severity must be 1, 2, 3 or 4, got {severity.tolist()}.")
    slices = jax.random.bits(key, (grey.shape[0], 3), jnp.uint32) >> (32 - _QUANTILE_BITS)
    noise = jnp.asarray(_QUANTILES, jnp.float32)[slices.astype(jnp.int32)]
    # Colours in units of 1/65535; 257 units are one of 255 grey levels.
    std = jnp.asarray([65535 * s for s in _SHADE_STDS], jnp.float32)[severity - 1]
    mean = 257 * jnp.asarray(LFF_COLORS, jnp.int32)[attributes]
    color = jnp.clip(mean + jnp.round(std * noise).astype(jnp.int32), 0, 65535)
    product = grey[..., None].astype(jnp.uint32) * color[:, None, None].astype(jnp.uint32)
    return ((product + 65535 // 2) // 65535).astype(jnp.uint8)


def tint_pairs(
    key: jax.Array, images: jax.Array, attributes: jax.Array, *, severity: int | jax.Array = 4
) -> jax.Array:
    """Colour grey images in shades of one of two colours per attribute 0..4, as `tint` does.

    Attribute a has colours a and a + 5 of `LFF_COLORS`, each with probability 1/2, so that no
    single colour identifies it.
    """
    half = len(LFF_COLORS) // 2
    attributes = _checks.integers("attributes", attributes, half)
    key_second, key_shades = jax.random.split(key)
    second = (jax.random.bits(key_second, attributes.shape, jnp.uint32) % 2).astype(jnp.int32)
    return tint(key_shades, images, attributes + half * second, severity=severity)


def paint(images: jax.Array, attributes: jax.Array, *, background: bool = False) -> jax.Array:
    """Paint the bright pixels of grey images (from 128) in a solid colour, the others black.

    "FG" and "BG" of FairDD's C-MNIST (NeurIPS 2025), after Biased-MNIST of ReBias (Bahng et al.
    2020). FairDD's C-FMNIST is `shade`.

    Args:
        images: grey images.
        attributes: colour of each image, 0..9, a row of `SOLID_COLORS`.
        background: whether to paint the dark pixels instead, and the bright ones black.

    >>> paint(jnp.array([[[128, 127]]], jnp.uint8), jnp.array([1])).tolist()
    [[[[255, 128, 0], [0, 0, 0]]]]
    """
    grey = _check_grey(images)
    attributes = _checks.integers("attributes", attributes, len(SOLID_COLORS), length=grey.shape[0])
    color = jnp.asarray(SOLID_COLORS, jnp.uint8)[attributes][:, None, None]
    painted = (grey[..., None] >= 128) != background
    return jnp.where(painted, color, jnp.uint8(0))


def shade(images: jax.Array, attributes: jax.Array, *, background: bool = False) -> jax.Array:
    """Colour grey images in shades of a colour, with the bytes of FairDD's C-FMNIST.

    A pixel of level g and a channel c of the colour give ⌊g·c / 255⌋ ("FG"). With `background` they
    give ⌊255·g + (1 − g/255)·c⌋ mod 256 ("BG"): FairDD's code mixes c / 255 with white, which it
    writes as 255 instead of 1, and levels overflow a byte. Black pixels have the colour, and
    objects have coloured contours inside.

    Args:
        images: grey images.
        attributes: colour of each image, 0..9, a row of `SOLID_COLORS`.
        background: whether to colour the background instead of the object.

    >>> shade(jnp.array([[[255, 100]]], jnp.uint8), jnp.array([1])).tolist()
    [[[[255, 128, 0], [100, 50, 0]]]]
    >>> shade(jnp.array([[[0, 100]]], jnp.uint8), jnp.array([1]), background=True).tolist()
    [[[[255, 128, 0], [54, 233, 156]]]]
    """
    grey = _check_grey(images)
    attributes = _checks.integers("attributes", attributes, len(SOLID_COLORS), length=grey.shape[0])
    return jnp.asarray(_shades(background))[attributes[:, None, None], grey]


def _shades(background):
    """Return the colour of every level in every solid colour, uint8 [10, 256, 3].

    The rounding of float32 is part of FairDD's bytes: with `background` it lowers many levels of
    channels with c = 255 by one. NumPy repeats it on every machine, whereas a compiler may fuse a
    product and a sum.
    """
    color = np.asarray(SOLID_COLORS, np.float32)[:, None] / np.float32(255)
    level = np.arange(256, dtype=np.float32)[:, None]
    if background:
        share, start = (np.float32(255) - level) / np.float32(255), np.float32(255)
    else:
        share, start = level / np.float32(255), np.float32(0)
    mixed = (start + share * (color - start)) * np.float32(255)
    return (mixed.astype(np.int32) % 256).astype(np.uint8)


def remove_color(images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Turn RGB images of attribute 0 grey and leave those of attribute 1 unchanged.

    grey = .299 R + .587 G + .114 B (ITU-R 601) in all three channels. This is CIFAR10-S (Wang et
    al. 2020, "Towards Fairness in Visual Recognition") in the version of FairDD.

    >>> red = jnp.array([255, 0, 0], jnp.uint8).reshape(1, 1, 1, 3)
    >>> remove_color(red, jnp.array([0])).ravel().tolist()
    [76, 76, 76]
    """
    images = _check_rgb("images", images)
    attributes = _checks.integers("attributes", attributes, 2, length=images.shape[0])
    # The weights in units of 2^-16, which add up to 2^16.
    luma = jnp.sum(images * jnp.array((19595, 38470, 7471), jnp.uint32), -1, keepdims=True)
    grey = ((luma + 2**15) >> 16).astype(jnp.uint8)
    return jnp.where(attributes[:, None, None, None] == 0, grey, images)


def place(images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Halve the sides of grey images and put them at one of ten `PLACES` on black.

    The last row or column of an odd side is cut off.

    >>> image = jnp.array([[[1, 2], [3, 4]]], jnp.uint8)
    >>> place(image, jnp.array([5]))[0, :, :, 0].tolist()
    [[0, 0], [0, 3]]
    """
    grey = _check_grey(images)
    n, h, w = grey.shape
    if min(h, w) < 2:
        raise ValueError(f"images must have sides of at least 2 pixels, got {grey.shape}.")
    # Means over 2×2 pixels, rounded half up in integers.
    cells = grey[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2)
    small = ((cells.astype(jnp.uint32).sum((2, 4)) + 2) // 4).astype(jnp.uint8)
    small = jnp.pad(small, ((0, 0), (0, h - h // 2), (0, w - w // 2)))
    corner = _corner(attributes, (n, h, w), (h // 2, w // 2))
    moved = jax.vmap(lambda image, at: jnp.roll(image, at, (0, 1)))(small, corner)
    return _grey_to_rgb(moved)


def scale(key: jax.Array, images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Shrink grey images to one of five sizes and put them anywhere on black.

    Attribute a, 0..4, has sides of (4 + a) / 8 of the image's, rounded to whole pixels. The new
    value of a pixel is the mean over the area that it covers, computed exactly in integers. All
    places in which the small image fits are equally likely.
    """
    grey = _check_grey(images)
    n, h, w = grey.shape
    attributes = _checks.integers("attributes", attributes, 5, length=n)
    sides = (jnp.array([h, w]) * (4 + attributes[:, None]) + 4) // 8
    free = (jnp.array([h, w]) - sides + 1).astype(jnp.uint32)
    corner = (jax.random.bits(key, (n, 2), jnp.uint32) % free).astype(jnp.int32)

    def shrink(sample):
        image, side, at = sample
        rows, columns = _overlaps(h, side[0], at[0]), _overlaps(w, side[1], at[1])
        total = rows @ image.astype(jnp.int32) @ columns.T
        return ((total + h * w // 2) // (h * w)).astype(jnp.uint8)

    return _grey_to_rgb(jax.lax.map(shrink, (grey, sides, corner), batch_size=1000))


def _overlaps(side, small_side, start):
    """Return the overlap of each new pixel (rows) with each old one (columns), in whole units.

    `side` old pixels become `small_side` new ones beginning at pixel `start`. In units of
    1 / (side · small_side) of the side, an old pixel is `small_side` units long and a new one
    `side`, so all edges are integers.
    """
    edges = jnp.arange(side + 1)
    old_edges, new_edges = small_side * edges, side * (edges - start)
    first = jnp.maximum(new_edges[:-1, None], old_edges[:-1])
    last = jnp.minimum(new_edges[1:, None], old_edges[1:])
    return jnp.maximum(last - first, 0)


def add_pattern(key: jax.Array, images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Darken half of the pixels of grey images to a quarter, in one of ten patterns.

    Attributes 0..4 are rows, columns, rising and falling diagonals and checks with a period of four
    pixels; attributes 5..9 are the same with a period of eight. The phase is random, so that each
    pixel is dark with probability 1/2 whatever the attribute.

    >>> image = jnp.full((1, 4, 4), 200, jnp.uint8)
    >>> add_pattern(jax.random.key(0), image, jnp.array([0]))[0, :, :, 0].tolist()
    [[50, 50, 50, 50], [200, 200, 200, 200], [200, 200, 200, 200], [50, 50, 50, 50]]
    """
    grey = _check_grey(images)
    n, h, w = grey.shape
    attributes = _checks.integers("attributes", attributes, 10, length=n)
    phase = (jax.random.bits(key, (n, 2), jnp.uint32) % 8).astype(jnp.int32)
    down, right = (phase[:, :1] + jnp.arange(h)) % 8, (phase[:, 1:] + jnp.arange(w)) % 8
    dark = _patterns()[attributes[:, None, None], down[:, :, None], right[:, None]]
    return _grey_to_rgb(jnp.where(dark, grey // 4, grey))


def _patterns():
    """Return where each of the ten patterns is dark, bool [10, 8, 8]."""
    y, x = jnp.indices((8, 8))
    kinds = lambda width: (y, x, y + x, y - x, width * (y // width + x // width))
    return jnp.stack([along // width % 2 == 1 for width in (2, 4) for along in kinds(width)])


def draw_mark(key: jax.Array, images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Draw a square of random colour into RGB images, at one of ten `PLACES` near the border.

    The sides of the square are an eighth of the image's, at least one pixel. Its colour is one of
    `SOLID_COLORS`.
    """
    images = _check_rgb("images", images)
    n, h, w, _ = images.shape
    sides = max(h // 8, 1), max(w // 8, 1)
    corner = _corner(attributes, (n, h, w), sides)
    color = draw_colors(key, n)
    rows, columns = _mask(h, corner[:, 0], sides[0]), _mask(w, corner[:, 1], sides[1])
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(inside, color[:, None, None], images)


def draw_bar(key: jax.Array, images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Draw a bar of random colour across RGB images, at one of five rows or five columns.

    Attributes 0..4 are rows from the top down, 5..9 columns from left to right. The bar is an
    eighth of the side that it crosses wide, at least one pixel. Its colour is one of
    `SOLID_COLORS`.
    """
    images = _check_rgb("images", images)
    n, h, w, _ = images.shape
    attributes = _checks.integers("attributes", attributes, 10, length=n)
    widths = max(h // 8, 1), max(w // 8, 1)
    rows, columns = (
        _mask(side, (attributes % 5 * (side - width) + 2) // 4, width)
        for side, width in zip((h, w), widths, strict=True)
    )
    is_row = (attributes < 5)[:, None, None]
    inside = jnp.where(is_row, rows[:, :, None], columns[:, None])
    return jnp.where(inside[..., None], draw_colors(key, n)[:, None, None], images)


def _mask(side, start, width):
    """Return which pixels of a side lie in start..start+width-1, bool [n, side]."""
    from_start = jnp.arange(side) - start[:, None]
    return (from_start >= 0) & (from_start < width)


def rotate(images: jax.Array, attributes: jax.Array) -> jax.Array:
    """Turn square grey images to the left by 0, 1, 2 or 3 quarter turns, their attribute.

    >>> rotate(jnp.array([[[1, 2], [3, 4]]], jnp.uint8), jnp.array([1]))[0, :, :, 0].tolist()
    [[2, 4], [1, 3]]
    """
    grey = _check_grey(images)
    if grey.shape[1] != grey.shape[2]:
        raise ValueError(f"images must be square, got {grey.shape}.")
    attributes = _checks.integers("attributes", attributes, 4, length=grey.shape[0])
    # All four turns of every image, of which one is chosen, because attributes may be traced.
    turns = jnp.stack([jnp.rot90(grey, i, (1, 2)) for i in range(4)])
    return _grey_to_rgb(turns[attributes, jnp.arange(len(grey))])


def add_scenes(
    images: jax.Array, scenes: jax.Array, *, colors: jax.Array | None = None
) -> jax.Array:
    """Put grey objects in front of scenes.

    A pixel of level g has the colour times g / 255 and covers the scene with opacity
    min(4·g, 255) / 255: objects are opaque at levels of at least 64 and have soft edges. This is
    our reading of BG-FMNIST (Cui et al. 2024), whose exact recipe is not published; colours are
    ours.

    Args:
        images: grey images.
        scenes: RGB images of the same size, uint8 [n, h, w, 3].
        colors: colour of each object, uint8 [n, 3]. Defaults to white.

    >>> scene = jnp.array([10, 20, 30], jnp.uint8).reshape(1, 1, 1, 3)
    >>> red = jnp.array([[255, 0, 0]], jnp.uint8)
    >>> add_scenes(jnp.array([[[200]]], jnp.uint8), scene, colors=red).ravel().tolist()
    [200, 0, 0]
    """
    grey, scenes = _check_grey(images), _check_rgb("scenes", scenes)
    if grey.shape != scenes.shape[:3]:
        raise ValueError(
            f"images and scenes must have one shape, got {grey.shape} and {scenes.shape[:3]}."
        )
    grey = grey.astype(jnp.int32)[..., None]
    # Alpha blending in integers; adding 127 before the division by 255 rounds to the nearest.
    opacity = jnp.minimum(4 * grey, 255)
    front = grey
    if colors is not None:
        if colors.dtype != jnp.uint8 or colors.shape != (len(grey), 3):
            raise ValueError(
                f"colors must be uint8 of shape {(len(grey), 3)}, got {colors.dtype} "
                f"{colors.shape}."
            )
        front = (grey * jnp.asarray(colors)[:, None, None].astype(jnp.int32) + 127) // 255
    return ((opacity * front + (255 - opacity) * scenes + 127) // 255).astype(jnp.uint8)


def draw_colors(key: jax.Array, count: int) -> jax.Array:
    """Draw colours uniformly from `SOLID_COLORS`, uint8 [count, 3]."""
    draws = jax.random.bits(key, (count,), jnp.uint32)
    return jnp.asarray(SOLID_COLORS, jnp.uint8)[draws % len(SOLID_COLORS)]


def draw_scenes(
    key: jax.Array, attributes: jax.Array, categories: jax.Array, *, num_attributes: int
) -> jax.Array:
    """Draw a scene of the right category for every sample, with replacement.

    Args:
        key: random key.
        attributes: category that each sample needs, integers [n] in 0..num_attributes-1.
        categories: category of each scene, integers [m].
        num_attributes: number of categories; each must have a scene.

    Returns:
        Index of a scene for each sample, int32 [n] in 0..m-1.
    """
    attributes = _checks.integers("attributes", attributes, num_attributes)
    categories = _checks.integers("categories", categories, num_attributes)
    counts = jnp.bincount(categories, length=num_attributes)
    if not isinstance(counts, Tracer) and not counts.all():
        raise ValueError(f"every category needs a scene, category {counts.argmin()} has none.")
    # Scenes sorted by category: those of category c begin at start[c].
    start = jnp.cumsum(counts) - counts
    draws = jax.random.bits(key, attributes.shape, jnp.uint32)
    index = (draws % counts[attributes].astype(jnp.uint32)).astype(jnp.int32)
    return jnp.argsort(categories, stable=True)[start[attributes] + index].astype(jnp.int32)


def _corner(attributes, shape, sides):
    """Return row and column [n, 2] of the first pixel of a box with these sides, by `PLACES`."""
    attributes = _checks.integers("attributes", attributes, len(PLACES), length=shape[0])
    free = jnp.array(shape[1:]) - jnp.array(sides)
    return (jnp.asarray(PLACES)[attributes] * free + 3) // 6


def _grey_to_rgb(grey):
    return jnp.repeat(grey[..., None], 3, axis=-1)


def _check_grey(images):
    images = _check_uint8("images", images)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3:
        raise ValueError(f"grey images must be [n, h, w] or [n, h, w, 1], got {images.shape}.")
    return images


def _check_rgb(name, images):
    images = _check_uint8(name, images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"{name} must be [n, h, w, 3], got {images.shape}.")
    return images


def _check_uint8(name, images):
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise TypeError(f"{name} must be uint8, got {images.dtype}.")
    return images
