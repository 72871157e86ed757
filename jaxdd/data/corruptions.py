"""The ten corruptions of Corrupted CIFAR-10, as pure functions of one image.

Each takes an image `[h, w, 3]` with values in [0, 1] and a severity of 1 to 4, which are levels 2
to 5 of CIFAR-10-C, and returns the corrupted image in [0, 1]. Random corruptions take a key first.
`corrupt` does the same for uint8 images. All run under `jit` and `vmap` with a static severity.
Every linear resampling is a product with two constant matrices.

Formulas and levels are those of Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", ICLR 2019, without OpenCV, ImageMagick and JPEG files.
Docstrings say where a result differs by more than rounding. `degradations` has the other ten
corruptions of Learning from Failure.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from jaxdd.data import _filters, degradations

_LUMA = (0.299, 0.587, 0.114)
_WATER = np.array((175, 238, 238)) / 255
_MUD = np.array((63, 42, 20)) / 255
_EMBOSS = np.array(((-2, -1, 0), (-1, 1, 1), (0, 1, 2)))


def snow(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Whiten the image and add blurred flakes that fall at an angle within 45° of downwards."""
    mean, std, zoom, threshold, radius, sigma, weight = (
        (0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
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


def frost(
    key: jax.Array, image: jax.Array, *, severity: int, textures: jax.Array | None = None
) -> jax.Array:
    """Add a random window of a photograph of frost.

    Args:
        key: random key.
        image: [h, w, 3] in [0, 1].
        severity: 1 to 4.
        textures: photographs of frost, [m, H, W, 3] in [0, 1], with H >= h and W >= w (CIFAR-10-C
            uses five, at a fifth of their size). Defaults to one drawn by `frost_texture`.

    Returns:
        The image [h, w, 3] in [0, 1].
    """
    weight, frost_weight = ((1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    h, w, _ = image.shape
    key, window_key = jax.random.split(key)
    if textures is None:
        textures = frost_texture(key, size=_power_of_two(2 * max(h, w)))[None]
    # The photograph, the row and the column of the window are drawn uniformly.
    room = np.array(textures.shape[:3]) - (0, h - 1, w - 1)
    corner = (_filters.uniform(window_key, (3,)) * room).astype(int)
    ice = jax.lax.dynamic_slice(textures, (*corner, 0), (1, h, w, 3))[0]
    return jnp.clip(weight * image + frost_weight * ice.astype(image.dtype), 0, 1)


def frost_texture(key: jax.Array, *, size: int) -> jax.Array:
    """Draw ice crystals `[size, size, 3]` in [0, 1]: bluish ridges of a fractal with white tops.

    They replace the photographs of CIFAR-10-C, which have no free licence. `size` must be a power
    of two.
    """
    fractals = jax.vmap(functools.partial(_plasma, size=size))
    coarse, fine = fractals(jax.random.split(key), decay=jnp.array((1.6, 1.3)))
    ridges = (1 - jnp.abs(2 * coarse - 1)) ** 3  # 1 where the fractal crosses 1/2
    ice = jnp.clip(0.35 + 0.6 * ridges + 0.5 * (fine - 0.5), 0, 1)[..., None]
    return ice ** jnp.asarray((1.5, 1.15, 0.9), ice.dtype)


def fog(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Add fractal fog and rescale: (x + a · cloud) · max(x) / (max(x) + a)."""
    amount, decay = ((0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[severity - 1]
    h, w, _ = image.shape
    cloud = _plasma(key, decay, size=_power_of_two(max(h, w)))[:h, :w, None]
    largest = image.max()
    return jnp.clip((image + amount * cloud) * largest / (largest + amount), 0, 1)


def brightness(image: jax.Array, *, severity: int) -> jax.Array:
    """Add a constant to the value V of HSV, the largest of the three channels.

    Hue and saturation stay, so all channels are scaled by V' / V; black becomes grey.
    """
    value = image.max(-1, keepdims=True)
    brighter = jnp.minimum(value + (0.1, 0.15, 0.2, 0.3)[severity - 1], 1)
    return jnp.where(value > 0, image * brighter / jnp.where(value > 0, value, 1), brighter)


def contrast(image: jax.Array, *, severity: int) -> jax.Array:
    """Move every pixel towards the mean of its channel: (x − mean) · c + mean."""
    mean = image.mean((0, 1))
    return jnp.clip((image - mean) * (0.5, 0.4, 0.3, 0.15)[severity - 1] + mean, 0, 1)


def spatter(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Add drops of water (severities 1 and 2) or mud (3 and 4).

    Water shines along its shore. Here the shore is every wet pixel next to a dry one; CIFAR-10-C
    uses a Canny edge detector.
    """
    # The last number is the strength of water, or the blur of mud.
    mean, std, sigma, threshold, strength = (
        (0.65, 0.1, 0.8, 0.7, 0.5),
        (0.65, 0.3, 1.0, 0.69, 0.5),
        (0.65, 0.1, 0.7, 0.69, 0.6),
        (0.65, 0.1, 0.5, 0.68, 0.6),
    )[severity - 1]
    h, w, _ = image.shape
    liquid = mean + std * _filters.normal(key, (h, w))
    liquid = _filters.gaussian_blur(liquid, sigma, truncate=4.0, mode="edge")
    wet = liquid >= threshold
    if severity > 2:
        mud = _filters.gaussian_blur(wet.astype(image.dtype), strength, truncate=4.0, mode="edge")
        mud = jnp.where(mud < 0.8 - _filters.MARGIN, 0, mud)[..., None]
        return jnp.clip(image * (1 - mud) + mud * jnp.asarray(_MUD, image.dtype), 0, 1)
    depth = jnp.where(wet, jnp.floor(jnp.clip(liquid, 0, 1) * 255), 0)
    shine = depth * _relief(_shore_distance(wet))
    largest = shine.max()
    shine = strength * shine / jnp.where(largest > 0, largest, 1)
    return jnp.clip(image + shine[..., None] * jnp.asarray(_WATER, image.dtype), 0, 1)


def elastic(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Apply the affine map that moves three corners at random, then a smooth displacement field."""
    # Amplitude and smoothness of the field, and shift of the corners, in sides of the image.
    amplitude, smoothness, shift = (
        (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
    )[severity - 1]  # fmt: skip
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


def jpeg(image: jax.Array, *, severity: int) -> jax.Array:
    """Quantise like baseline JPEG: 8×8 cosine transform, chroma at half resolution.

    The tables, their scaling and the rounding of chroma are those of the Independent JPEG Group.
    The entropy coding is left out, because it is lossless. Blocks that reach beyond the image
    repeat its last row and column.
    """
    h, w, _ = image.shape
    quality = (65, 58, 50, 40)[severity - 1]
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


def pixelate(image: jax.Array, *, severity: int) -> jax.Array:
    """Shrink the image by box averages and enlarge it by repeating pixels."""
    factor = (0.9, 0.85, 0.75, 0.65)[severity - 1]
    shrink, enlarge = zip(*(_boxes(size, factor) for size in image.shape[:2]), strict=True)
    small = _filters.resample(shrink[0], image, shrink[1])
    return small[enlarge[0]][:, enlarge[1]]


def saturate(image: jax.Array, *, severity: int) -> jax.Array:
    """Change the saturation S of HSV; grey turns reddish, because its hue is that of red."""
    factor, offset = ((0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))[severity - 1]
    value, lowest = image.max(-1, keepdims=True), image.min(-1, keepdims=True)
    span = value - lowest
    saturation = span / jnp.where(value > 0, value, 1)
    new = jnp.clip(saturation * factor + offset, 0, 1)
    # Each channel is V · (1 − S · hue) with hue = (V − channel) / (V − lowest channel).
    hue = (value - image) / jnp.where(span > 0, span, 1)
    hue = jnp.where(span > 0, hue, jnp.asarray((0, 1, 1), image.dtype))
    return value * (1 - new * hue)


CORRUPTIONS = {
    function.__name__: function
    for function in (
        snow, frost, fog, brightness, contrast, spatter, elastic, jpeg, pixelate, saturate,
    )
}  # fmt: skip
"""Corruptions by name, in the order of the classes that they are aligned with."""

KNOWN = CORRUPTIONS | degradations.DEGRADATIONS
"""All twenty by name."""

NOT_RANDOM = {brightness, contrast, jpeg, pixelate, saturate} | degradations.NOT_RANDOM
"""Functions that take no key."""


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
        corruption: one of `KNOWN`.
        severity: 1 to 4.
        textures: photographs for frost, floats [m, H, W, 3] in [0, 1] of at least the size of the
            images. Defaults to drawn ones.

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
    if corruption not in KNOWN:
        raise ValueError(f"corruption must be one of {', '.join(KNOWN)}, got {corruption!r}.")
    if type(severity) is not int or severity not in (1, 2, 3, 4):
        raise ValueError(f"severity must be 1, 2, 3 or 4, got {severity}.")
    function = functools.partial(KNOWN[corruption], severity=severity)
    if corruption == "frost":
        function = functools.partial(function, textures=textures)

    def corrupt_image(key, image):
        image = image.astype(float) / 255
        corrupted = function(image) if KNOWN[corruption] in NOT_RANDOM else function(key, image)
        return _filters.round_half_away(corrupted * 255)

    return jax.vmap(corrupt_image)(keys, images).astype(jnp.uint8)


def _power_of_two(size):
    return 1 << (size - 1).bit_length()


def _sample(image, coordinates, *, mode):
    sample = functools.partial(map_coordinates, order=1, mode=mode)
    return jax.vmap(sample, (-1, None), -1)(image, tuple(coordinates))


def _plasma(key, decay, *, size):
    """Draw a periodic diamond-square fractal `[size, size]` in [0, 1], `size` a power of two.

    Each octave doubles the grid: new points are the mean of their four neighbours plus uniform
    noise, first the middles of squares, then the middles of their sides. The amplitude of the noise
    decays from octave to octave.
    """
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
    boxes = [_box_blur(size) for size in distance.shape]
    levels = jnp.floor(_filters.resample(boxes[0], distance, boxes[1]) + _filters.MARGIN).astype(
        int
    )
    cumulative = jnp.cumsum(jnp.bincount(levels.ravel(), length=21))
    lowest = cumulative[levels.min()]
    rest = levels.size - lowest
    equal = _filters.round_half_away(
        255 * (cumulative - lowest)[levels] / jnp.where(rest > 0, rest, 1)
    )
    padded = jnp.pad(equal, 1, mode="reflect")
    h, w = equal.shape
    embossed = sum(_EMBOSS[i, j] * padded[i : i + h, j : j + w] for i in range(3) for j in range(3))
    return _filters.resample(boxes[0], jnp.clip(embossed, 0, 255), boxes[1])


def _box_blur(size):
    """Return the matrix [size, size] of a mean over three neighbours, reflected at the border."""
    source = np.pad(np.arange(size), 1, mode="reflect")
    return sum(np.eye(size)[source[i : i + size]] for i in range(3)) / 3


def _boxes(size, factor):
    """Return the matrix [small, size] of box averages, and the index [size] that repeats them."""
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
    """Return the matrix [8, 8] of the orthonormal cosine transform."""
    matrix = np.cos(np.pi / 8 * np.arange(8)[:, None] * (np.arange(8) + 0.5)) / 2
    matrix[0] /= np.sqrt(2)
    return matrix


def _quantise(plane, table, scale):
    """Round the cosine coefficients of the 8×8 blocks of a plane to multiples of the table."""
    transform = _cosines()
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
