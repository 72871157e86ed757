"""The ten corruptions of Corrupted CIFAR-10, as pure functions of one image.

Each takes an image `[h, w, 3]` with values in [0, 1] (those that are random a key before it) and a
severity of 1 to 4, which are levels 2 to 5 of the CIFAR-10-C benchmark, and returns the corrupted
image in [0, 1]. `corrupt` does the same for uint8 images. Everything runs under `jit` and `vmap`;
only the severity is static. Every linear resampling is a pair of constant matrices.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, without OpenCV, ImageMagick and JPEG files; where a result differs from
theirs by more than rounding, the function says so. `degradations` has the other
ten of Learning from Failure.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from jaxdd.data import degradations, filters

_LUMA = (0.299, 0.587, 0.114)
_WATER = np.array((175, 238, 238)) / 255
_MUD = np.array((63, 42, 20)) / 255
_EMBOSS = np.array(((-2, -1, 0), (-1, 1, 1), (0, 1, 2)))


class Snow(NamedTuple):
    """Flakes ~ N(mean, std), zoomed, cut off below the threshold, smeared; `mix` of the image."""

    mean: float
    std: float
    zoom: float
    threshold: float
    radius: int
    sigma: float
    mix: float


class Spatter(NamedTuple):
    """Liquid ~ N(mean, std), blurred, cut below the threshold; strength of water, blur of mud."""

    mean: float
    std: float
    sigma: float
    threshold: float
    strength: float
    mud: bool


SNOW = (
    Snow(0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
    Snow(0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    Snow(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    Snow(0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)
FROST = ((1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
"""Weight of the image and of the frost."""
FOG = ((0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
"""Amount of fog, and factor by which its detail fades from one octave to the next."""
BRIGHTNESS = (0.1, 0.15, 0.2, 0.3)
CONTRAST = (0.5, 0.4, 0.3, 0.15)
SPATTER = (
    Spatter(0.65, 0.1, 0.8, 0.7, 0.5, False),
    Spatter(0.65, 0.3, 1.0, 0.69, 0.5, False),
    Spatter(0.65, 0.1, 0.7, 0.69, 0.6, True),
    Spatter(0.65, 0.1, 0.5, 0.68, 0.6, True),
)
ELASTIC = ((0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
"""Amplitude and smoothness of the displacement, and shift of the corners, in image sides."""
JPEG = (65, 58, 50, 40)
"""Quality."""
PIXELATE = (0.9, 0.85, 0.75, 0.65)
"""Factor on the number of pixels along a side."""
SATURATE = ((0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))
"""Factor on the saturation, and what is added to it."""


def snow(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Whitens the image and lets snow fall through it, at an angle within 45° of downwards."""
    level = SNOW[severity - 1]
    h, w, _ = image.shape
    flakes_key, angle_key = jax.random.split(key)
    flakes = level.mean + level.std * filters.normal(flakes_key, (h, w))
    flakes = filters.resample(filters.zoom(h, level.zoom), flakes, filters.zoom(w, level.zoom))
    flakes = jnp.clip(jnp.where(flakes < level.threshold, 0, flakes), 0, 1)
    angle = -jnp.pi * (0.25 + 0.5 * filters.uniform(angle_key, ()))
    flakes = filters.motion_blur(flakes, level.radius, level.sigma, angle)[..., None]
    grey = (image @ jnp.asarray(_LUMA, image.dtype))[..., None]
    pale = jnp.maximum(image, 1.5 * grey + 0.5)
    image = level.mix * image + (1 - level.mix) * pale
    return jnp.clip(image + flakes + flakes[::-1, ::-1], 0, 1)


def frost(
    key: jax.Array, image: jax.Array, *, severity: int, textures: jax.Array | None = None
) -> jax.Array:
    """Lays frost over the image: a random window of a photograph.

    Args:
        key: random key.
        image: [h, w, 3] in [0, 1].
        severity: 1 to 4.
        textures: photographs of frost, [m, H, W, 3] in [0, 1], with H >= h and W >= w (CIFAR-10-C
            takes five, at a fifth of their size). Without them, `frost_texture` draws one.

    Returns:
        The image [h, w, 3] in [0, 1].
    """
    keep, strength = FROST[severity - 1]
    h, w, _ = image.shape
    key, window_key = jax.random.split(key)
    if textures is None:
        textures = frost_texture(key, size=_power_of_two(2 * max(h, w)))[None]
    room = np.array(textures.shape[:3]) - (0, h - 1, w - 1)
    corner = (filters.uniform(window_key, (3,)) * room).astype(int)
    ice = jax.lax.dynamic_slice(textures, (*corner, 0), (1, h, w, 3))[0]
    return jnp.clip(keep * image + strength * ice.astype(image.dtype), 0, 1)


def frost_texture(key: jax.Array, *, size: int) -> jax.Array:
    """Draws ice crystals `[size, size, 3]` in [0, 1]: bluish ridges of a fractal, white at the top.

    A stand-in for the photographs of CIFAR-10-C, which have no free licence; `size` must be a power
    of two.
    """
    fractals = jax.vmap(functools.partial(_plasma, size=size))
    coarse, fine = fractals(jax.random.split(key), decay=jnp.array((1.6, 1.3)))
    ridges = (1 - jnp.abs(2 * coarse - 1)) ** 3
    ice = jnp.clip(0.35 + 0.6 * ridges + 0.5 * (fine - 0.5), 0, 1)[..., None]
    return ice ** jnp.asarray((1.5, 1.15, 0.9), ice.dtype)


def fog(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Adds fractal fog and brings the image back to its own largest value."""
    amount, decay = FOG[severity - 1]
    h, w, _ = image.shape
    cloud = _plasma(key, decay, size=_power_of_two(max(h, w)))[:h, :w, None]
    largest = image.max()
    return jnp.clip((image + amount * cloud) * largest / (largest + amount), 0, 1)


def brightness(image: jax.Array, *, severity: int) -> jax.Array:
    """Raises the value V of HSV, the largest of the three channels."""
    value = image.max(-1, keepdims=True)
    brighter = jnp.minimum(value + BRIGHTNESS[severity - 1], 1)
    return jnp.where(value > 0, image * brighter / jnp.where(value > 0, value, 1), brighter)


def contrast(image: jax.Array, *, severity: int) -> jax.Array:
    """Pulls every pixel towards the mean of its channel."""
    mean = image.mean((0, 1))
    return jnp.clip((image - mean) * CONTRAST[severity - 1] + mean, 0, 1)


def spatter(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Throws drops of water (severities 1 and 2) or mud (3 and 4) on the image.

    Water shines along its shore, which is here every wet pixel beside a dry one, where CIFAR-10-C
    runs a Canny edge detector.
    """
    level = SPATTER[severity - 1]
    h, w, _ = image.shape
    liquid = level.mean + level.std * filters.normal(key, (h, w))
    liquid = filters.blurred(liquid, level.sigma, truncate=4.0, mode="edge")
    wet = liquid >= level.threshold
    if level.mud:
        mud = filters.blurred(wet.astype(image.dtype), level.strength, truncate=4.0, mode="edge")
        mud = jnp.where(mud < 0.8 - filters.MARGIN, 0, mud)[..., None]
        return jnp.clip(image * (1 - mud) + mud * jnp.asarray(_MUD, image.dtype), 0, 1)
    depth = jnp.where(wet, jnp.floor(jnp.clip(liquid, 0, 1) * 255), 0)
    shine = depth * _relief(_shore_distance(wet))
    largest = shine.max()
    shine = level.strength * shine / jnp.where(largest > 0, largest, 1)
    return jnp.clip(image + shine[..., None] * jnp.asarray(_WATER, image.dtype), 0, 1)


def elastic(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Moves three corners of a centred square at random, then every pixel by a smooth field."""
    amplitude, smoothness, shift = ELASTIC[severity - 1]
    h, w, _ = image.shape
    side = min(h, w)
    corner_key, *field_keys = jax.random.split(key, 3)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij")).astype(image.dtype)

    # Corners (rows, columns) of a right angle and where they go; the map back is their inverse.
    centre, leg = np.array((h // 2, w // 2)), side // 3
    corners = centre + leg * np.array(((1, 1), (-1, 1), (-1, -1)))
    moved = corners + side * shift * (2 * filters.uniform(corner_key, (3, 2)) - 1)
    (a, c), (b, d) = ((moved[0] - moved[1]) / (2 * leg), (moved[1] - moved[2]) / (2 * leg))
    rows, columns = grid - moved[1][:, None, None]
    back = jnp.stack((d * rows - b * columns, a * columns - c * rows)) / (a * d - b * c)
    image = _sampled(image, back + corners[1][:, None, None], mode="mirror")

    blur = functools.partial(
        filters.blurred, sigma=side * smoothness, truncate=3.0, mode="symmetric"
    )
    field = jnp.stack([blur(2 * filters.uniform(key, (h, w)) - 1) for key in field_keys])
    return jnp.clip(_sampled(image, grid + side * amplitude * field, mode="reflect"), 0, 1)


def jpeg(image: jax.Array, *, severity: int) -> jax.Array:
    """Quantises the image as baseline JPEG does: 8×8 cosine transform, chroma at half resolution.

    The tables, their scaling and the rounding of chroma are those of the Independent JPEG Group;
    coding, which loses nothing, is left out. Blocks that reach beyond the image repeat its last row
    and column.
    """
    h, w, _ = image.shape
    quality = JPEG[severity - 1]
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    image = jnp.pad(image * 255, ((0, h % 2), (0, -w % 16), (0, 0)), mode="edge")
    luma, *chroma = jnp.moveaxis(
        filters.rounded(image @ _TO_YCC.T + np.array((0, 128, 128))), -1, 0
    )
    planes = [_quantised(luma, _LUMA_TABLE, scale)[:h, :w]]
    rows, columns = (np.kron(np.eye(size // 2), (0.5, 0.5)) for size in luma.shape)
    up, across = (_chroma_upsampling(-(-size // 2)) for size in (h, w))
    for plane in chroma:
        small = _dithered(filters.resample(rows, plane, columns), (1 / 4, 2 / 4))
        small = _quantised(small, _CHROMA_TABLE, scale)[: up.shape[1], : across.shape[1]]
        large = _dithered(filters.resample(up, small, across), (8 / 16, 7 / 16))
        planes.append(large[:h, :w] - 128)
    found = jnp.stack(planes, -1) @ np.linalg.inv(_TO_YCC).T
    return jnp.clip(found / 255, 0, 1)


def pixelate(image: jax.Array, *, severity: int) -> jax.Array:
    """Shrinks the image by box averages and enlarges it by repeating pixels."""
    factor = PIXELATE[severity - 1]
    shrink, enlarge = zip(*(_boxes(size, factor) for size in image.shape[:2]), strict=True)
    small = filters.resample(shrink[0], image, shrink[1])
    return small[enlarge[0]][:, enlarge[1]]


def saturate(image: jax.Array, *, severity: int) -> jax.Array:
    """Changes the saturation S of HSV; grey, whose hue is that of red, turns reddish."""
    factor, offset = SATURATE[severity - 1]
    value, least = image.max(-1, keepdims=True), image.min(-1, keepdims=True)
    span = value - least
    saturation = span / jnp.where(value > 0, value, 1)
    wanted = jnp.clip(saturation * factor + offset, 0, 1)
    hue = (value - image) / jnp.where(span > 0, span, 1)
    hue = jnp.where(span > 0, hue, jnp.asarray((0, 1, 1), image.dtype))
    return value * (1 - wanted * hue)


CORRUPTIONS = {
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "spatter": spatter,
    "elastic": elastic,
    "jpeg": jpeg,
    "pixelate": pixelate,
    "saturate": saturate,
}
"""By name, in the order of the classes that they are aligned with."""

KNOWN = CORRUPTIONS | degradations.DEGRADATIONS
"""These and the second ten, by name."""

NOT_RANDOM = {brightness, contrast, jpeg, pixelate, saturate} | degradations.NOT_RANDOM
"""Those that take no key."""


def corrupt(
    keys: jax.Array,
    images: jax.Array,
    corruption: str,
    *,
    severity: int,
    textures: jax.Array | None = None,
) -> jax.Array:
    """Corrupts images, each with a key of its own.

    Args:
        keys: random keys [n].
        images: uint8 [n, h, w, 3], sides of 4 pixels or more.
        corruption: one of `KNOWN`.
        severity: 1 to 4.
        textures: for frost, see there.

    Returns:
        uint8 [n, h, w, 3], rounded to the nearest level (CIFAR-10-C truncates).

    Raises:
        TypeError: images that are not uint8.
        ValueError: wrong shapes, an unknown corruption or a severity outside 1..4.

    >>> grey = jnp.full((1, 8, 8, 3), 100, jnp.uint8)
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> corrupt(keys, grey, "brightness", severity=3)[0, 0, 0].tolist()
    [151, 151, 151]
    """
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8, found {images.dtype}")
    if images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < 4:
        raise ValueError(f"images must be [n, h, w, 3] with sides from 4, found {images.shape}")
    if keys.shape[:1] != images.shape[:1]:
        raise ValueError(f"keys must be {len(images)}, one for each image, found {keys.shape}")
    if corruption not in KNOWN:
        known = ", ".join(KNOWN)
        raise ValueError(f"unknown corruption {corruption!r}; known are {known}")
    if type(severity) is not int or severity not in (1, 2, 3, 4):
        raise ValueError(f"severity must be 1, 2, 3 or 4, found {severity}")
    if textures is not None:
        textures = jnp.asarray(textures)
        if not jnp.issubdtype(textures.dtype, jnp.floating):
            raise TypeError(f"textures must be floating, in [0, 1], found {textures.dtype}")
        small = any(t < s for t, s in zip(textures.shape[1:], images.shape[1:], strict=False))
        if textures.ndim != 4 or textures.shape[3] != 3 or 0 in textures.shape or small:
            raise ValueError(
                f"textures must be [m, H, W, 3] of {images.shape[1:3]} or more, "
                f"found {textures.shape}"
            )
    function = functools.partial(KNOWN[corruption], severity=severity)
    if corruption == "frost":
        function = functools.partial(function, textures=textures)

    def one(key, image):
        image = image.astype(float) / 255
        certain = KNOWN[corruption] in NOT_RANDOM
        return filters.rounded((function(image) if certain else function(key, image)) * 255)

    return jax.vmap(one)(keys, images).astype(jnp.uint8)


def _power_of_two(size):
    return 1 << (size - 1).bit_length()


def _sampled(image, coordinates, *, mode):
    sample = functools.partial(map_coordinates, order=1, mode=mode)
    return jax.vmap(sample, (-1, None), -1)(image, tuple(coordinates))


def _plasma(key, decay, *, size):
    """Periodic diamond-square fractal `[size, size]` in [0, 1], `size` a power of two."""
    noise = 2 * filters.uniform(key, (size, size)) - 1
    grid, amplitude = jnp.zeros((1, 1)), 1.0
    while len(grid) < size:
        step = size // len(grid)
        half = step // 2
        right, below = jnp.roll(grid, -1, 1), jnp.roll(grid, -1, 0)
        middle = (grid + right + below + jnp.roll(right, -1, 0)) / 4
        middle += amplitude * noise[half::step, half::step]
        beside = (grid + right + middle + jnp.roll(middle, 1, 0)) / 4
        beside += amplitude * noise[::step, half::step]
        under = (grid + below + middle + jnp.roll(middle, 1, 1)) / 4
        under += amplitude * noise[half::step, ::step]
        blocks = jnp.stack((jnp.stack((grid, beside), -1), jnp.stack((under, middle), -1)), 1)
        grid, amplitude = blocks.reshape(2 * len(grid), -1), amplitude / decay**2
    grid = grid - grid.min()
    return grid / jnp.where(grid.max() > 0, grid.max(), 1)


def _shore_distance(wet):
    """Euclidean distance in pixels to the nearest wet pixel beside a dry one; 20 if farther."""
    dry = jnp.pad(~wet, 1, mode="edge")
    shore = wet & (dry[:-2, 1:-1] | dry[2:, 1:-1] | dry[1:-1, :-2] | dry[1:-1, 2:])
    h, w = wet.shape
    apart = lambda n: jnp.square(jnp.arange(n)[:, None] - jnp.arange(n)).astype(float)
    column = (apart(h)[:, :, None] + jnp.where(shore, 0, 1e6)).min(1)
    return jnp.minimum(jnp.sqrt((apart(w)[None] + column[:, None]).min(2)), 20)


def _relief(distance):
    """Box blur, histogram equalisation, emboss, box blur: the shine of drops, from 0 to 255."""
    boxes = [_box_blur(size) for size in distance.shape]
    levels = jnp.floor(filters.resample(boxes[0], distance, boxes[1]) + filters.MARGIN).astype(int)
    cumulative = jnp.cumsum(jnp.bincount(levels.ravel(), length=21))
    least = cumulative[levels.min()]
    rest = levels.size - least
    equal = filters.rounded(255 * (cumulative - least)[levels] / jnp.where(rest > 0, rest, 1))
    padded = jnp.pad(equal, 1, mode="reflect")
    h, w = equal.shape
    raised = sum(_EMBOSS[i, j] * padded[i : i + h, j : j + w] for i in range(3) for j in range(3))
    return filters.resample(boxes[0], jnp.clip(raised, 0, 255), boxes[1])


def _box_blur(size):
    source = np.pad(np.arange(size), 1, mode="reflect")
    return sum(np.eye(size)[source[i : i + size]] for i in range(3)) / 3


def _boxes(size, factor):
    """Matrix [small, size] of box averages, and the index [size] that repeats them."""
    small = max(int(size * factor), 1)
    centre = (np.arange(small)[:, None] + 0.5) * size / small
    inside = np.abs((np.arange(size) + 0.5 - centre) * small / size) <= 0.5
    nearest = ((np.arange(size) + 0.5) * small / size).astype(int)
    return inside / inside.sum(1, keepdims=True), nearest


_TO_YCC = np.array((_LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)))
_LUMA_TABLE = np.array(
    (
        (16, 11, 10, 16, 24, 40, 51, 61),
        (12, 12, 14, 19, 26, 58, 60, 55),
        (14, 13, 16, 24, 40, 57, 69, 56),
        (14, 17, 22, 29, 51, 87, 80, 62),
        (18, 22, 37, 56, 68, 109, 103, 77),
        (24, 35, 55, 64, 81, 104, 113, 92),
        (49, 64, 78, 87, 103, 121, 120, 101),
        (72, 92, 95, 98, 112, 100, 103, 99),
    )
)
_CHROMA_TABLE = np.full((8, 8), 99)
_CHROMA_TABLE[:4, :4] = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))


def _cosines():
    """The orthonormal cosine transform [8, 8] of eight values."""
    matrix = np.cos(np.pi / 8 * np.arange(8)[:, None] * (np.arange(8) + 0.5)) / 2
    matrix[0] /= np.sqrt(2)
    return matrix


def _quantised(plane, table, scale):
    """What is left of the plane once the coefficients of its 8×8 blocks are rounded."""
    transform = _cosines()
    steps = np.clip((table * scale + 50) // 100, 1, 255)
    plane = jnp.pad(plane - 128, ((0, -len(plane) % 8), (0, 0)), mode="edge")
    h, w = plane.shape
    blocks = plane.reshape(h // 8, 8, w // 8, 8)
    two_sided = functools.partial(jnp.einsum, precision="highest")
    found = two_sided("ui,aibj,vj->aubv", transform, blocks, transform)
    found = filters.rounded(found / steps[:, None]) * steps[:, None]
    found = two_sided("ui,aubv,vj->aibj", transform, found, transform)
    return jnp.clip(filters.rounded(found.reshape(h, w)) + 128, 0, 255)


def _dithered(plane, bias):
    """Rounds as libjpeg does where chroma changes size: odd columns have a bias of their own."""
    return jnp.floor(plane + np.resize(bias, plane.shape[1]) + filters.MARGIN)


def _chroma_upsampling(size):
    """Matrix [2·size, size] that doubles a side: 3/4 of a pixel, 1/4 of its neighbour."""
    nearest = np.repeat(np.arange(size), 2)
    neighbour = np.clip(nearest + np.tile((-1, 1), size), 0, size - 1)
    return 0.75 * np.eye(size)[nearest] + 0.25 * np.eye(size)[neighbour]
