"""Corrupt images as in Corrupted CIFAR-10.

`NAMES` are the ten corruptions of Corrupted CIFAR-10 of Nam et al., "Learning from Failure",
NeurIPS 2020, and then its second ten, "type 1": noise and blur. Severities 1 to 4 are levels 2 to 5
of CIFAR-10-C.

Formulas and levels are those of Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", ICLR 2019, without OpenCV, ImageMagick and JPEG files.
Docstrings say where a result differs by more than rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.scipy.ndimage import map_coordinates

from jaxdd.data import _filters

_CORRUPTIONS = {}


def _corruption(**levels):
    """Register a function of key, image and these arguments, with their values by severity.

    Images are [h, w, 3] in [0, 1]. The order of definition is that of the classes that corruptions
    are aligned with.
    """

    def register(function):
        _CORRUPTIONS[function.__name__.strip("_")] = function, levels
        return function

    return register


# --- the first ten -----------------------------------------------------------------------------

_LUMA = (0.299, 0.587, 0.114)


@_corruption(
    mean=(0.1, 0.15, 0.25, 0.3), std=(0.2, 0.3, 0.3, 0.3), zoom=(1.0, 1.75, 2.25, 1.25),
    threshold=(0.5, 0.55, 0.6, 0.65), radius=(10, 10, 12, 14), sigma=(4, 4, 6, 12),
    weight=(0.9, 0.9, 0.85, 0.8),
)  # fmt: skip
def _snow(key, image, mean, std, zoom, threshold, radius, sigma, weight):
    """Whiten the image and add blurred flakes that fall at an angle within 45° of downwards."""
    h, w, _ = image.shape
    flakes_key, angle_key = jax.random.split(key)
    flakes = mean + std * _filters.normal(flakes_key, (h, w))
    flakes = _filters.resample(_filters.zoom(h, zoom), flakes, _filters.zoom(w, zoom))
    flakes = jnp.clip(jnp.where(flakes < threshold, 0, flakes), 0, 1)
    angle = -jnp.pi * (0.25 + 0.5 * _filters.uniform(angle_key, ()))
    flakes = _filters.motion_blur(flakes, radius, sigma, angle)[..., None]
    # Whitened by the larger of its own value and a brightened grey.
    grey = (image @ jnp.asarray(_LUMA, image.dtype))[..., None]
    pale = jnp.maximum(image, 1.5 * grey + 0.5)
    image = weight * image + (1 - weight) * pale
    # The flakes are added a second time, turned by 180°, as in CIFAR-10-C.
    return jnp.clip(image + flakes + flakes[::-1, ::-1], 0, 1)


@_corruption(weight=(1.0, 0.9, 0.85, 0.75), frost_weight=(0.3, 0.4, 0.4, 0.45))
def _frost(key, image, weight, frost_weight, textures=None):
    """Add a random window of a photograph of frost, [m, H, W, 3], or of drawn ice crystals."""
    h, w, _ = image.shape
    key, window_key = jax.random.split(key)
    if textures is None:
        textures = _ice(key, size=2 * max(h, w))[None]
    # The photograph, the row and the column of the window are drawn uniformly.
    room = np.array(textures.shape[:3]) - (0, h - 1, w - 1)
    corner = (_filters.uniform(window_key, (3,)) * room).astype(int)
    ice = jax.lax.dynamic_slice(textures, (*corner, 0), (1, h, w, 3))[0]
    return jnp.clip(weight * image + frost_weight * ice.astype(image.dtype), 0, 1)


def _ice(key, *, size):
    """Draw ice crystals [s, s, 3] in [0, 1]: bluish ridges of a fractal with white tops.

    They replace the photographs of CIFAR-10-C, which have no free licence.
    """
    fractals = jax.vmap(functools.partial(_fractal, size=size))
    coarse, fine = fractals(jax.random.split(key), decay=jnp.array((1.6, 1.3)))
    ridges = (1 - jnp.abs(2 * coarse - 1)) ** 3  # 1 where the fractal crosses 1/2
    ice = jnp.clip(0.35 + 0.6 * ridges + 0.5 * (fine - 0.5), 0, 1)[..., None]
    return ice ** jnp.asarray((1.5, 1.15, 0.9), ice.dtype)


@_corruption(amount=(0.5, 0.75, 1.0, 1.5), decay=(3.0, 2.5, 2.0, 1.75))
def _fog(key, image, amount, decay):
    """Add fractal fog and rescale: (x + a · cloud) · max(x) / (max(x) + a)."""
    h, w, _ = image.shape
    cloud = _fractal(key, decay, size=max(h, w))[:h, :w, None]
    largest = image.max()
    return jnp.clip((image + amount * cloud) * largest / (largest + amount), 0, 1)


def _fractal(key, decay, *, size):
    """Draw a periodic diamond-square fractal [s, s] in [0, 1], s the next power of two to `size`.

    Each octave doubles the grid: new points are the mean of their four neighbours plus uniform
    noise, first the middles of squares, then the middles of their sides. The amplitude of the noise
    decays from octave to octave.
    """
    size = 1 << (size - 1).bit_length()
    noise = 2 * _filters.uniform(key, (size, size)) - 1
    grid, amplitude = jnp.zeros((1, 1)), 1.0
    while len(grid) < size:
        step = size // len(grid)
        half = step // 2
        right, below = jnp.roll(grid, -1, 1), jnp.roll(grid, -1, 0)
        middle = (grid + right + below + jnp.roll(right, -1, 0)) / 4
        middle += amplitude * noise[half::step, half::step]
        side = (grid + right + middle + jnp.roll(middle, 1, 0)) / 4
        side += amplitude * noise[::step, half::step]
        under = (grid + below + middle + jnp.roll(middle, 1, 1)) / 4
        under += amplitude * noise[half::step, ::step]
        blocks = jnp.stack((jnp.stack((grid, side), -1), jnp.stack((under, middle), -1)), 1)
        grid, amplitude = blocks.reshape(2 * len(grid), -1), amplitude / decay**2
    grid = grid - grid.min()
    return grid / jnp.where(grid.max() > 0, grid.max(), 1)


@_corruption(amount=(0.1, 0.15, 0.2, 0.3))
def _brightness(_, image, amount):
    """Add a constant to the value V of HSV, the largest of the three channels.

    Hue and saturation do not change, so all channels are scaled by V' / V; black becomes grey.
    """
    value = image.max(-1, keepdims=True)
    brighter = jnp.minimum(value + amount, 1)
    return jnp.where(value > 0, image * brighter / jnp.where(value > 0, value, 1), brighter)


@_corruption(factor=(0.5, 0.4, 0.3, 0.15))
def _contrast(_, image, factor):
    """Move every pixel towards the mean of its channel: (x − mean) · c + mean."""
    mean = image.mean((0, 1))
    return jnp.clip((image - mean) * factor + mean, 0, 1)


@_corruption(
    liquid=("water", "water", "mud", "mud"), std=(0.1, 0.3, 0.1, 0.1), sigma=(0.8, 1.0, 0.7, 0.5),
    threshold=(0.7, 0.69, 0.69, 0.68),
)  # fmt: skip
def _spatter(key, image, liquid, std, sigma, threshold):
    """Add drops of water or mud.

    Water shines along its shore. Here the shore is every wet pixel next to a dry one; CIFAR-10-C
    uses a Canny edge detector.
    """
    depth = _filters.gaussian_blur(0.65 + std * _filters.normal(key, image.shape[:2]), sigma)
    wet = depth >= threshold
    if liquid == "mud":
        mud = _filters.gaussian_blur(wet.astype(image.dtype), 0.6)
        mud = jnp.where(mud < 0.8 - _filters.MARGIN, 0, mud)[..., None]
        brown = jnp.asarray(np.array((63, 42, 20)) / 255, image.dtype)
        return jnp.clip(image * (1 - mud) + mud * brown, 0, 1)
    depth = jnp.where(wet, jnp.floor(jnp.clip(depth, 0, 1) * 255), 0)
    shine = depth * _relief(_shore_distance(wet))
    largest = shine.max()
    shine = 0.5 * shine / jnp.where(largest > 0, largest, 1)
    turquoise = jnp.asarray(np.array((175, 238, 238)) / 255, image.dtype)
    return jnp.clip(image + shine[..., None] * turquoise, 0, 1)


def _shore_distance(wet):
    """Return the distance in pixels to the nearest wet pixel next to a dry one, at most 20.

    The squared Euclidean distance is separable: minimise over the rows of each column, then over
    columns.
    """
    dry = jnp.pad(~wet, 1, mode="edge")
    shore = wet & (dry[:-2, 1:-1] | dry[2:, 1:-1] | dry[1:-1, :-2] | dry[1:-1, 2:])
    h, w = wet.shape
    squared = lambda n: jnp.square(jnp.arange(n)[:, None] - jnp.arange(n)).astype(float)
    column = (squared(h)[:, :, None] + jnp.where(shore, 0, 1e6)).min(1)
    return jnp.minimum(jnp.sqrt((squared(w)[None] + column[:, None]).min(2)), 20)


def _relief(distance):
    """Return the shine of drops in 0..255: box blur, histogram equalisation, emboss, box blur."""
    h, w = distance.shape
    blur = lambda image: _filters.resample(_box_blur(h), image, _box_blur(w))
    levels = jnp.floor(blur(distance) + _filters.MARGIN).astype(int)
    cumulative = jnp.cumsum(jnp.bincount(levels.ravel(), length=21))
    lowest = cumulative[levels.min()]
    rest = levels.size - lowest
    equal = _filters.round_half_away(
        255 * (cumulative - lowest)[levels] / jnp.where(rest > 0, rest, 1)
    )
    padded = jnp.pad(equal, 1, mode="reflect")
    emboss = np.array(((-2, -1, 0), (-1, 1, 1), (0, 1, 2)))
    embossed = sum(emboss[i, j] * padded[i : i + h, j : j + w] for i in range(3) for j in range(3))
    return blur(jnp.clip(embossed, 0, 255))


def _box_blur(size):
    """Return the matrix [size, size] of a mean over three neighbours, reflected at the border."""
    source = np.pad(np.arange(size), 1, mode="reflect")
    return sum(np.eye(size)[source[i : i + size]] for i in range(3)) / 3


@_corruption(
    amplitude=(0.05, 0.08, 0.1, 0.1), smoothness=(0.2, 0.06, 0.04, 0.03),
    shift=(0.07, 0.06, 0.05, 0.03),
)  # fmt: skip
def _elastic(key, image, amplitude, smoothness, shift):
    """Apply the affine map that moves three corners at random, then a smooth displacement field.

    Amplitude and smoothness of the field and the shift of the corners are in sides of the image.
    """
    h, w, _ = image.shape
    side = min(h, w)
    corner_key, *field_keys = jax.random.split(key, 3)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij")).astype(image.dtype)

    # Corners (row, column) of a right angle, and where they move. Images are sampled backwards, so
    # the inverse of the affine map is needed: with columns (a, b) and (c, d) of its matrix, that is
    # [[d, -b], [-c, a]] / (a·d - b·c).
    centre, leg = np.array((h // 2, w // 2)), side // 3
    corners = centre + leg * np.array(((1, 1), (-1, 1), (-1, -1)))
    moved = corners + side * shift * (2 * _filters.uniform(corner_key, (3, 2)) - 1)
    (a, c), (b, d) = ((moved[0] - moved[1]) / (2 * leg), (moved[1] - moved[2]) / (2 * leg))
    rows, columns = grid - moved[1][:, None, None]
    back = jnp.stack((d * rows - b * columns, a * columns - c * rows)) / (a * d - b * c)
    image = _sample(image, back + corners[1][:, None, None], mode="mirror")

    blur = functools.partial(
        _filters.gaussian_blur, sigma=side * smoothness, truncate=3.0, mode="symmetric"
    )
    field = jnp.stack([blur(2 * _filters.uniform(key, (h, w)) - 1) for key in field_keys])
    return jnp.clip(_sample(image, grid + side * amplitude * field, mode="reflect"), 0, 1)


def _sample(image, coordinates, *, mode):
    sample = functools.partial(map_coordinates, order=1, mode=mode)
    return jax.vmap(sample, (-1, None), -1)(image, tuple(coordinates))


_TO_YCC = np.array((_LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)))
_LUMA_TABLE = np.array((
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
))  # fmt: skip
_CHROMA_TABLE = np.full((8, 8), 99)
_CHROMA_TABLE[:4, :4] = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))


@_corruption(quality=(65, 58, 50, 40))
def _jpeg(_, image, quality):
    """Quantise like baseline JPEG: 8×8 cosine transform, chroma at half resolution.

    The tables, their scaling and the rounding of chroma are those of the Independent JPEG Group.
    The entropy coding is left out, because it is lossless. Blocks that reach beyond the image
    repeat its last row and column.
    """
    h, w, _ = image.shape
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    image = jnp.pad(image * 255, ((0, h % 2), (0, -w % 16), (0, 0)), mode="edge")
    luma, *chroma = jnp.moveaxis(
        _filters.round_half_away(image @ _TO_YCC.T + np.array((0, 128, 128))), -1, 0
    )
    planes = [_quantise(luma, _LUMA_TABLE, scale)[:h, :w]]
    # Chroma: 2×2 means, quantised, and enlarged by linear interpolation ("fancy upsampling").
    rows, columns = (np.kron(np.eye(size // 2), (0.5, 0.5)) for size in luma.shape)
    up, across = (_chroma_upsampling(-(-size // 2)) for size in (h, w))
    for plane in chroma:
        small = _round_dithered(_filters.resample(rows, plane, columns), (1 / 4, 2 / 4))
        small = _quantise(small, _CHROMA_TABLE, scale)[: up.shape[1], : across.shape[1]]
        large = _round_dithered(_filters.resample(up, small, across), (8 / 16, 7 / 16))
        planes.append(large[:h, :w] - 128)
    rgb = jnp.stack(planes, -1) @ np.linalg.inv(_TO_YCC).T
    return jnp.clip(rgb / 255, 0, 1)


def _quantise(plane, table, scale):
    """Round the cosine coefficients of the 8×8 blocks of a plane to multiples of the table."""
    # The orthonormal cosine transform.
    transform = np.cos(np.pi / 8 * np.arange(8)[:, None] * (np.arange(8) + 0.5)) / 2
    transform[0] /= np.sqrt(2)
    steps = np.clip((table * scale + 50) // 100, 1, 255)
    plane = jnp.pad(plane - 128, ((0, -len(plane) % 8), (0, 0)), mode="edge")
    h, w = plane.shape
    blocks = plane.reshape(h // 8, 8, w // 8, 8)
    two_sided = functools.partial(jnp.einsum, precision="highest")
    coefficients = two_sided("ui,aibj,vj->aubv", transform, blocks, transform)
    coefficients = _filters.round_half_away(coefficients / steps[:, None]) * steps[:, None]
    plane = two_sided("ui,aubv,vj->aibj", transform, coefficients, transform)
    return jnp.clip(_filters.round_half_away(plane.reshape(h, w)) + 128, 0, 255)


def _round_dithered(plane, bias):
    """Round as libjpeg does when it resamples chroma: even and odd columns differ in bias."""
    return jnp.floor(plane + np.resize(bias, plane.shape[1]) + _filters.MARGIN)


def _chroma_upsampling(size):
    """Return the matrix [2·size, size] that doubles a side: 3/4 of a pixel, 1/4 of the next."""
    nearest = np.repeat(np.arange(size), 2)
    neighbour = np.clip(nearest + np.tile((-1, 1), size), 0, size - 1)
    return 0.75 * np.eye(size)[nearest] + 0.25 * np.eye(size)[neighbour]


@_corruption(factor=(0.9, 0.85, 0.75, 0.65))
def _pixelate(_, image, factor):
    """Shrink the image by box averages and enlarge it by repeating pixels."""
    shrink, enlarge = zip(*(_boxes(size, factor) for size in image.shape[:2]), strict=True)
    small = _filters.resample(shrink[0], image, shrink[1])
    return small[enlarge[0]][:, enlarge[1]]


def _boxes(size, factor):
    """Return the matrix [small, size] of box averages, and the index [size] that repeats them."""
    small = max(int(size * factor), 1)
    centre = (np.arange(small)[:, None] + 0.5) * size / small
    inside = np.abs((np.arange(size) + 0.5 - centre) * small / size) <= 0.5
    nearest = ((np.arange(size) + 0.5) * small / size).astype(int)
    return inside / inside.sum(1, keepdims=True), nearest


@_corruption(factor=(0.1, 1.5, 2.0, 2.5), offset=(0.0, 0.0, 0.1, 0.2))
def _saturate(_, image, factor, offset):
    """Change the saturation S of HSV; grey turns reddish, because its hue is that of red."""
    value, lowest = image.max(-1, keepdims=True), image.min(-1, keepdims=True)
    span = value - lowest
    saturation = span / jnp.where(value > 0, value, 1)
    new = jnp.clip(saturation * factor + offset, 0, 1)
    # Each channel is V · (1 − S · hue) with hue = (V − channel) / (V − lowest channel).
    hue = (value - image) / jnp.where(span > 0, span, 1)
    hue = jnp.where(span > 0, hue, jnp.asarray((0, 1, 1), image.dtype))
    return value * (1 - new * hue)


# --- the second ten ----------------------------------------------------------------------------


@_corruption(sigma=(0.06, 0.08, 0.09, 0.1))
def _gaussian_noise(key, image, sigma):
    """Add noise to all values: x + σ · n, n ~ N(0, 1)."""
    return jnp.clip(image + sigma * _filters.normal(key, image.shape), 0, 1)


@_corruption(photons=(250, 100, 75, 50))
def _shot_noise(key, image, photons):
    """Replace each value by the count of few photons: Poisson(x · photons) / photons.

    A white pixel has `photons` of them on average.
    The Poisson number is the quantile of a uniform draw, looked up by binary search in a table of
    the distribution function for each of 256 levels. `jax.random.poisson` would draw other numbers
    on other backends.
    """
    most = int(photons + 10 * photons**0.5)
    below = scipy.special.pdtr(np.arange(most), np.arange(256)[:, None] * photons / 255)
    table = jnp.asarray(below, image.dtype)
    levels = _filters.round_half_away(jnp.clip(image, 0, 1) * 255).astype(int)
    draws = _filters.uniform(key, image.shape)
    low, high = jnp.zeros(image.shape, int), jnp.full(image.shape, most - 1)
    for _ in range(most.bit_length()):
        middle = (low + high) // 2
        above = table[levels, middle] < draws
        low, high = jnp.where(above, middle + 1, low), jnp.where(above, high, middle)
        low = jnp.minimum(low, high)
    return jnp.clip(low / photons, 0, 1).astype(image.dtype)


@_corruption(probability=(0.02, 0.03, 0.05, 0.07))
def _impulse_noise(key, image, probability):
    """Set values to 0 or 1, each with half of the probability."""
    hit, white = (_filters.uniform(part, image.shape) for part in jax.random.split(key))
    return jnp.where(hit <= probability, (white < 0.5).astype(image.dtype), image)


@_corruption(sigma=(0.1, 0.12, 0.16, 0.2))
def _speckle_noise(key, image, sigma):
    """Add noise in proportion to each value: x + x · σ · n, n ~ N(0, 1)."""
    return jnp.clip(image + image * (sigma * _filters.normal(key, image.shape)), 0, 1)


@_corruption(sigma=(0.6, 0.7, 0.8, 1.0))
def _gaussian_blur(_, image, sigma):
    return _filters.gaussian_blur(image, sigma)


@_corruption(radius=(0.4, 0.5, 1.0, 1.5), alias=(0.5, 0.6, 0.2, 0.1))
def _defocus_blur(_, image, radius, alias):
    """Average over a disk whose edge is blurred with standard deviation `alias`."""
    reach = int(radius) + 1
    place = np.arange(-reach, reach + 1)
    disk = (np.hypot(place[:, None], place) <= radius).astype(float)
    edge = np.exp(-0.5 * (np.arange(-1, 2) / alias) ** 2)
    edge = sum(np.eye(len(place), k=k) * edge[k + 1] / edge.sum() for k in (-1, 0, 1))
    # The blur of the edge is separable: rows · disk · columns.
    kernel = edge @ (disk / disk.sum()) @ edge
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    h, w, _ = image.shape
    blurred = sum(kernel[i, j] * padded[i : i + h, j : j + w] for i, j in np.argwhere(kernel > 0))
    return jnp.clip(blurred, 0, 1)


@_corruption(sigma=(0.25, 0.4, 0.25, 0.4), passes=(1, 1, 2, 2))
def _glass_blur(key, image, sigma, passes):
    """Blur, replace one pixel after the other by a random neighbour, and blur again.

    Pixels are visited from the last row and column to the first and replaced instead of swapped, as
    in the code of CIFAR-10-C.
    """
    h, w, _ = image.shape
    rows, columns = (np.arange(size - 1, 1, -1) for size in (h, w))
    places = np.stack([index.ravel() for index in np.meshgrid(rows, columns, indexing="ij")], 1)
    places = jnp.asarray(np.tile(places, (passes, 1)))
    moves = jnp.floor(2 * _filters.uniform(key, places.shape)).astype(int) - 1

    def replace(image, entry):
        (row, column), (down, right) = entry
        return image.at[row, column].set(image[row + down, column + right]), None

    image = _filters.round_half_away(_filters.gaussian_blur(image, sigma) * 255) / 255
    image = jax.lax.scan(replace, image, (places, moves))[0]
    return jnp.clip(_filters.gaussian_blur(image, sigma), 0, 1)


@_corruption(radius=(6, 6, 8, 9), sigma=(1.5, 2.0, 2.0, 2.5))
def _motion_blur(key, image, radius, sigma):
    """Blur along a random direction within 45° of horizontal."""
    angle = jnp.pi * (_filters.uniform(key, ()) - 0.5) / 2
    return jnp.clip(_filters.motion_blur(image, radius, sigma, angle), 0, 1)


@_corruption(stop=(1.11, 1.16, 1.21, 1.26))
def _zoom_blur(_, image, stop):
    """Average the image and enlargements of it by 0, 1, 2, … hundredths.

    The factors are those of `np.arange`, as in CIFAR-10-C. Its rounding errors add a twelfth
    factor, 1.11, at severity 1, and round 26 · 1.25 pixels up to 33 at severity 4.
    """
    h, w, _ = image.shape
    factors = np.arange(1, stop, 0.01)
    enlarged = [
        _filters.resample(_filters.zoom(h, factor), image, _filters.zoom(w, factor))
        for factor in factors
    ]
    return jnp.clip((image + sum(enlarged)) / (len(factors) + 1), 0, 1)


@_corruption()
def _original(_, image):
    return image


# -----------------------------------------------------------------------------------------------

NAMES = tuple(_CORRUPTIONS)
"""The first and the second ten corruptions, in the order of the classes they are aligned with."""


def corrupt(
    keys: jax.Array,
    images: jax.Array,
    corruption: str,
    *,
    severity: int,
    textures: jax.Array | None = None,
) -> jax.Array:
    """Corrupt images, each with its own key.

    Args:
        keys: random keys [n].
        images: uint8 [n, h, w, 3] with sides of at least 4 pixels.
        corruption: one of `NAMES`.
        severity: 1 to 4.
        textures: photographs for frost, floats [m, H, W, 3] in [0, 1] of at least the size of the
            images (CIFAR-10-C uses every fifth row and column of five). Defaults to drawn ice
            crystals.

    Returns:
        uint8 [n, h, w, 3], rounded to the nearest level (CIFAR-10-C truncates).

    >>> grey = jnp.full((1, 8, 8, 3), 100, jnp.uint8)
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> corrupt(keys, grey, "brightness", severity=3)[0, 0, 0].tolist()
    [151, 151, 151]
    """
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}.")
    if images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < 4:
        raise ValueError(
            f"images must be [n, h, w, 3] with sides of at least 4, got {images.shape}."
        )
    if keys.shape[:1] != images.shape[:1]:
        raise ValueError(f"keys must be [n] = ({len(images)},), one per image, got {keys.shape}.")
    if corruption not in NAMES:
        raise ValueError(f"corruption must be one of {', '.join(NAMES)}, got {corruption!r}.")
    if type(severity) is not int or severity not in (1, 2, 3, 4):
        raise ValueError(f"severity must be 1, 2, 3 or 4, got {severity}.")
    function, levels = _CORRUPTIONS[corruption]
    settings = {name: values[severity - 1] for name, values in levels.items()}
    if corruption == "frost":
        settings["textures"] = textures

    def corrupt_image(key, image):
        return _filters.round_half_away(function(key, image.astype(float) / 255, **settings) * 255)

    return jax.vmap(corrupt_image)(keys, images).astype(jnp.uint8)
