"""Object-blind features: numbers of an image that show a bias but cannot show the object.

A network learns the easiest cue, and its embedding does not reveal whether that cue is the object.
These features cannot show the object: they contain the tone of an image, its texture, its border,
or the position of its contents. A class that they predict well is suspicious. The choice of
features is a prior on what a bias can be; without one, a bias cannot be distinguished from the
object (Lin et al., "ZIN: When and How to Learn Invariance Without Environment Partition?", 2022).

| features | count (32×32×3) | show | cannot show |
|---|--:|---|---|
| `tone` | 71 | colour, brightness, contrast | positions, and what is next to what |
| `border` | 71 | tone of the border | the middle |
| `noise` | 24 | noise, compression, sharpness | anything larger than three pixels |
| `blocks` | 226 | compression, resolution, fine texture | positions, anything above eight pixels |
| `texture` | 321 | all that `tone`, `noise` and `blocks` show | positions |
| `layout` | 48 | positions, sizes, coarse shapes | detail |

`COMPARISONS` pairs them with baseline features, which show the object but not the suspected bias:
`tone` with `toneless`, for which all images are equally bright and colourless; `texture` with
`patches`; `layout` with `translation_invariant`, which stays the same when an image is shifted.

A feature function is a pure function of images `[n, h, w, c]`, floating in [0, 1], with any n,
channels and sides of at least four pixels. It returns finite numbers `[n, d]`.

>>> import jax.numpy as jnp
>>> tone(jnp.zeros((5, 8, 8, 1))).shape, tone(jnp.zeros((5, 32, 32, 3))).shape
((5, 19), (5, 71))
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import _checks
from jaxdd.devices import microbatch

Features = Callable[[jax.Array], jax.Array]
"""From images `[n, h, w, c]` in [0, 1] to numbers `[n, d]`."""

_LEVELS = np.arange(1, 16, dtype=np.float32) / 16
_BLOCK_SIDE = 8
_PATCHES = 20_000  # Number of patches for estimating the whitening of filters.
_THRESHOLD_PATCHES = 2000  # Number of patches for estimating the threshold of filter responses.
_THRESHOLD_QUANTILE = 0.7


def compute(images: jax.Array, features: Features) -> jax.Array:
    """Compute features of many images, `[n, d]`, in micro-batches in one program.

    Args:
        images: `[n, h, w, c]` with sides of at least 4 pixels, uint8 or floating in [0, 1].
        features: called with floating images.
    """
    _checks.pixel_dtype("images", images)
    if images.ndim != 4 or min(images.shape[1:3]) < 4:
        raise ValueError(
            "Expected images of shape [n, h, w, c] with sides of at least 4 pixels, "
            f"got {images.shape}."
        )
    return _compute(images, features)


@functools.partial(jax.jit, static_argnames="features")
def _compute(images, features):
    apply = lambda part: features(_scale(part))
    return microbatch.apply(apply, images, activation_bytes=microbatch.CORE_BYTES)


def tone(images: jax.Array) -> jax.Array:
    """Compute mean, deviation and distribution of channels and saturation, and correlations."""
    n, _, _, c = images.shape
    return _tone(images.reshape(n, -1, c))


def border(images: jax.Array) -> jax.Array:
    """Compute the tone of the border, whose width is 3/16 of the shorter side."""
    n, h, w, c = images.shape
    width = max(1, 3 * min(h, w) // 16)
    is_border = np.ones((h, w), bool)
    is_border[width : h - width, width : w - width] = False
    return _tone(images.reshape(n, -1, c)[:, np.flatnonzero(is_border)])


def noise(images: jax.Array) -> jax.Array:
    """Compute strength, tails and correlations of differences from the four neighbours."""
    near = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    residual = images[:, 1:-1, 1:-1] - near / 4
    h, w = residual.shape[1:3]
    mean = lambda x: x.mean((1, 2))
    variance = mean(residual**2)
    columns = [
        jnp.log(variance + 1e-7),
        jnp.log(mean(residual**4) + 1e-9) - 2 * jnp.log(variance + 1e-5),
        jnp.log(mean(jnp.abs(residual)) + 1e-4),
    ]
    neighbours = [(residual[:, i:], residual[:, : h - i]) for i in (1, 2) if i < h]
    neighbours += [(residual[:, :, i:], residual[:, :, : w - i]) for i in (1, 2) if i < w]
    columns += [mean(x * y) / (variance + 1e-7) for x, y in neighbours]
    i, j = np.triu_indices(images.shape[-1], 1)
    covariance = mean(residual[..., i] * residual[..., j])
    columns.append(covariance / jnp.sqrt((variance[:, i] * variance[:, j]) + 1e-14))
    return jnp.concatenate(columns, 1)


@jax.default_matmul_precision("highest")
def blocks(images: jax.Array) -> jax.Array:
    """Compute log energies of the cosine transform of 8×8 blocks, and steps at block edges.

    The transform is applied to the luminance and, in colour images, to the first and the last
    channel minus the luminance. Small images have smaller blocks.
    """
    n, h, w, c = images.shape
    side = min(_BLOCK_SIDE, 1 << (min(h, w).bit_length() - 1))
    cosines = _cosines(side)
    grey = images.mean(-1)
    planes = [grey] + ([images[..., 0] - grey, images[..., -1] - grey] if c > 1 else [])
    columns = []
    for plane in planes:
        cut = plane[:, : h // side * side, : w // side * side]
        cut = cut.reshape(n, h // side, side, w // side, side)
        energy = (jnp.einsum("ui,npiqj,vj->npquv", cosines, cut, cosines) ** 2).mean((1, 2))
        columns.append(jnp.log(energy + 1e-6).reshape(n, -1))
    for axis in (1, 2):
        step = jnp.abs(jnp.diff(grey, axis=axis)).mean(3 - axis)
        for period in (2, 4, 8):
            if period < step.shape[1]:
                phase = jnp.stack([step[:, i::period].mean(1) for i in range(period)], 1)
                mean = phase.mean(1, keepdims=True)
                columns.append(jnp.log(phase + 1e-3) - jnp.log(mean + 1e-3))
        columns.append((jnp.diff(images, axis=axis) == 0).mean((1, 2)))
    return jnp.concatenate(columns, 1)


def texture(images: jax.Array) -> jax.Array:
    """Compute `tone`, `noise` and `blocks`: all features that ignore positions."""
    return jnp.concatenate([tone(images), noise(images), blocks(images)], 1)


def layout(images: jax.Array) -> jax.Array:
    """Compute mean and deviation of the luminance in 4×4 cells; in colour also mean saturation."""
    n, h, w, c = images.shape
    cells = images[:, : h // 4 * 4, : w // 4 * 4].reshape(n, 4, h // 4, 4, w // 4, c)
    grey = cells.mean(-1)
    columns = [grey.mean((2, 4)), grey.std((2, 4))]
    if c > 1:
        columns.append((cells.max(-1) - cells.min(-1)).mean((2, 4)))
    return jnp.concatenate([column.reshape(n, -1) for column in columns], 1)


def patches(key: jax.Array, images: jax.Array, *, count: int = 128, side: int = 6) -> Features:
    """Build baseline features that show the object: responses to whitened patches of the data.

    Each patch is a filter. Its responses above and below a threshold are averaged in the four
    quarters of an image. Coates, Ng and Lee, "An Analysis of Single-Layer Networks in Unsupervised
    Feature Learning", 2011, with random patches instead of their clusters.

    Args:
        key: random key for drawing the patches.
        images: `[n, h, w, c]`, uint8 or floating in [0, 1].
        count: number of filters.
        side: side of a patch in pixels; smaller for small images.
    """
    respond = _filters(key, images, count, side)
    stride = 2 if min(images.shape[1:3]) >= 4 * side else 1

    def features(images):
        responses = respond(images, stride=stride)
        rows, columns = (np.array_split(np.arange(x), 2) for x in responses.shape[1:3])
        quarters = [
            responses[:, row[0] : row[-1] + 1, column[0] : column[-1] + 1].mean((1, 2))
            for row in rows
            for column in columns
        ]
        return jnp.concatenate(quarters, 1)

    return features


def translation_invariant(
    key: jax.Array, images: jax.Array, *, count: int = 128, side: int = 6
) -> Features:
    """Build baseline features that show the object but not where it is.

    They are the same for an image that is rolled: mean and root mean square of the responses of
    whitened patches over an image whose opposite borders meet; its tone; and the log amplitude of
    the low frequencies of the luminance, up to six periods, in which coarse shapes differ. The
    arguments are those of `patches`.
    """
    respond = _filters(key, images, count, side)

    def features(images):
        h, w = images.shape[1:3]
        responses = respond(images, wrap=True)
        grey = _checks.floating("images", images.mean(-1))
        amplitude = jnp.abs(jnp.fft.rfft2(grey)) / np.sqrt(h * w)
        low = np.flatnonzero(np.abs(np.fft.fftfreq(h) * h) <= 6)
        amplitude = jnp.log(amplitude[:, low, :7] + 1e-2).reshape(len(images), -1)
        root_mean_square = jnp.sqrt((responses**2).mean((1, 2)) + 1e-12)
        columns = [responses.mean((1, 2)), root_mean_square, tone(images), amplitude]
        return jnp.concatenate(columns, 1)

    return features


def toneless(key: jax.Array, images: jax.Array, *, count: int = 128, side: int = 6) -> Features:
    """Build baseline features that show object and texture, but no colour, brightness or contrast.

    `patches`, `noise` and `blocks` of the luminance, standardised in each image. The arguments are
    those of `patches`.
    """
    shapes = patches(key, _standardise(_scale(images[:_PATCHES])), count=count, side=side)

    def features(images):
        grey = _standardise(images)
        return jnp.concatenate([shapes(grey), noise(grey), blocks(grey)], 1)

    return features


def _standardise(images):
    """Return the luminance with mean a half and deviation a quarter, `[n, h, w, 1]`."""
    grey = images.mean(-1, keepdims=True)
    mean, deviation = (reduce((1, 2, 3), keepdims=True) for reduce in (grey.mean, grey.std))
    return 0.5 + 0.25 * (grey - mean) / (deviation + 1e-2)


class Comparison(NamedTuple):
    """Object-blind features, and the baseline that a shortcut test compares them with.

    Attributes:
        features: cannot show the object.
        baseline: function from a key and images to features that show the object.
    """

    features: Features
    baseline: Callable[[jax.Array, jax.Array], Features] = patches


COMPARISONS: dict[str, Comparison] = {
    "tone": Comparison(tone, toneless),
    "texture": Comparison(texture),
    "layout": Comparison(layout, translation_invariant),
}
"""Object-blind features that are tested by default, with their baselines."""

NAMED: dict[str, Features] = {
    name: comparison.features for name, comparison in COMPARISONS.items()
} | {"border": border}
"""Object-blind features by name; use border only if the object is in the middle."""


def _filters(key, images, count, side):
    """Return a function from images to the responses of filters above and below a threshold."""
    n, h, w, c = images.shape
    side = min(side, h // 2, w // 2)
    key_image, key_row, key_column = jax.random.split(key, 3)
    corners = (
        jax.random.randint(key_image, (_PATCHES,), 0, n),
        jax.random.randint(key_row, (_PATCHES,), 0, h - side + 1),
        jax.random.randint(key_column, (_PATCHES,), 0, w - side + 1),
    )
    filters, offset, threshold = _whitened_patches(images, *corners, side=side, count=count)
    kernel = filters.reshape(side, side, c, -1)

    def respond(images, *, stride=1, wrap=False):
        if wrap:
            images = jnp.pad(images, ((0, 0), (0, side - 1), (0, side - 1), (0, 0)), "wrap")
        images = images.astype(kernel.dtype)
        responses = jax.lax.conv_general_dilated(
            images, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        responses = responses - offset[None, None, None]
        above, below = responses - threshold, -responses - threshold
        return jnp.concatenate([jax.nn.relu(above), jax.nn.relu(below)], -1)

    return respond


# Neighbouring pixels are correlated, so raw patches all respond to brightness. ZCA whitening
# removes the correlation. It is folded into the filters: a filter f of whitened pixels is the
# filter W f of raw pixels with the offset mean · W f, so that images need no whitening.
@functools.partial(jax.jit, static_argnames=("side", "count"))
@jax.default_matmul_precision("highest")
def _whitened_patches(images, which, row, column, *, side, count):
    """Return patches as filters `[side² c, count]`, their offsets and a threshold."""
    cut = lambda i, y, x: jax.lax.dynamic_slice(
        images, (i, y, x, 0), (1, side, side, images.shape[-1])
    ).reshape(-1)
    pixels = _scale(jax.vmap(cut)(which, row, column))
    mean = pixels.mean(0)
    centred = pixels - mean[None]
    values, vectors = jnp.linalg.eigh(centred.T @ centred / len(pixels))
    whiten = vectors / jnp.sqrt(values + 0.01 * values.mean() + 1e-5)[None] @ vectors.T
    chosen = centred[:count] @ whiten
    chosen = chosen / (jnp.linalg.norm(chosen, axis=1, keepdims=True) + 1e-9)
    filters = whiten @ chosen.T
    responses = jnp.sort(jnp.abs(centred[:_THRESHOLD_PATCHES] @ filters).ravel())
    threshold = responses[int(_THRESHOLD_QUANTILE * _THRESHOLD_PATCHES * count)]
    return filters, mean @ filters, threshold


def _scale(images):
    """Return floating images in [0, 1]."""
    return images.astype(jnp.float32) / (255 if images.dtype == jnp.uint8 else 1)


def _tone(pixels):
    """Return the tone of pixels `[n, p, c]`."""
    channels = pixels.shape[-1]
    mean, deviation = pixels.mean(1), pixels.std(1)
    black, white = (pixels < 0.5 / 255).mean(1), (pixels > 1 - 0.5 / 255).mean(1)
    columns = [mean, deviation, _distribution(pixels, _LEVELS), black, white]
    if channels > 1:
        saturation = (pixels.max(-1) - pixels.min(-1))[..., None]
        mean_saturation = saturation.mean(1)
        columns += [mean_saturation, saturation.std(1), jnp.log(mean_saturation + 1e-3)]
        columns.append(_distribution(saturation, _LEVELS[::2] / 2))
        i, j = np.triu_indices(channels, 1)
        centred = pixels - mean[:, None]
        covariance = (centred[..., i] * centred[..., j]).mean(1)
        columns.append(covariance / (deviation[:, i] * deviation[:, j] + 1e-4))
    return jnp.concatenate(columns, 1)


def _distribution(values, levels):
    """Return the share of values `[n, p, c]` at or below each level, `[n, c · levels]`."""
    return jnp.concatenate([(values <= level).mean(1) for level in levels], 1)


def _cosines(side):
    """Return the orthonormal cosine transform, `[side, side]`."""
    k, x = np.arange(side)[:, None], np.arange(side)[None]
    scale = np.where(k == 0, 1, np.sqrt(2)) / np.sqrt(side)
    return (scale * np.cos(np.pi * (2 * x + 1) * k / (2 * side))).astype(np.float32)
