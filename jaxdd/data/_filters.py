"""Building blocks of corruptions: exact random numbers, rounding, and resampling by matrices.

Random numbers are exact multiples of 2⁻²³ and rounding decides ties by a margin of 10⁻⁶, so that
under `jax.enable_x64` a key gives the same bytes with every version of JAX. Every linear resampling
of an image is rows · image · columnsᵀ with two constant matrices.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.typing import ArrayLike

MARGIN = 1e-6
"""Rounding error that arithmetic may have added to a tie."""


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw from the uniform distribution on [2⁻²⁴, 1 − 2⁻²⁴], in steps of 2⁻²³."""
    return (0.5 + (jax.random.bits(key, shape, jnp.uint32) >> 9).astype(float)) * 2.0**-23


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw from the standard normal distribution, by the quantile of a uniform number."""
    return ndtri(uniform(key, shape))


def round_half_away(values: jax.Array) -> jax.Array:
    """Round to the nearest integer, halves within `MARGIN` away from zero."""
    return jnp.sign(values) * jnp.floor(jnp.abs(values) + 0.5 + MARGIN)


def resample(rows: ArrayLike, image: jax.Array, columns: ArrayLike) -> jax.Array:
    """Return rows · image · columnsᵀ for an image `[h, w]` or `[h, w, c]`."""
    rows, columns = (jnp.asarray(m, image.dtype) for m in (rows, columns))
    return jnp.einsum("ah,hw...,bw->ab...", rows, image, columns, precision="highest")


def zoom(size: int, factor: float) -> np.ndarray:
    """Return the matrix `[size, size]` that enlarges the central window of a side linearly.

    The ends of the window are kept, as in `scipy.ndimage.zoom`.
    """
    window = math.ceil(size / factor)
    enlarged = round(window * factor)
    place = np.arange(enlarged) * (window - 1) / max(enlarged - 1, 1)
    matrix = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(window)))
    trim, top = (enlarged - size) // 2, (size - window) // 2
    return np.pad(matrix[trim : trim + size], ((0, 0), (top, size - window - top)))


def gaussian_blur(
    image: jax.Array,
    sigma: float,
    *,
    truncate: float = 4.0,
    mode: Literal["edge", "symmetric"] = "edge",
) -> jax.Array:
    """Blur an image `[h, w]` or `[h, w, c]` by a Gaussian.

    Args:
        image: the image.
        sigma: standard deviation in pixels.
        truncate: number of standard deviations after which the Gaussian is cut off.
        mode: values beyond the border, a mode of `numpy.pad`.
    """
    radius = int(truncate * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    matrices = []  # [size, size] for either side, including the border
    for size in image.shape[:2]:
        source = np.pad(np.arange(size), radius, mode=mode)
        matrix = np.zeros((size, size))
        for i in range(size):
            np.add.at(matrix[i], source[i : i + 2 * radius + 1], kernel / kernel.sum())
        matrices.append(matrix)
    return resample(matrices[0], image, matrices[1])


def motion_blur(image: jax.Array, radius: int, sigma: float, angle: jax.Array) -> jax.Array:
    """Average an image `[h, w]` or `[h, w, c]` along a ray, with one-sided Gaussian weights.

    Pixels beyond the border have the values at the border.

    Args:
        image: the image.
        radius: half of the length of the ray in pixels.
        sigma: standard deviation in pixels.
        angle: direction of the ray in radians, from right to down.
    """
    steps = np.arange(2 * radius + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    reach = jnp.stack((jnp.sin(angle), jnp.cos(angle)))[:, None] * steps
    dy, dx = jnp.ceil(reach - 0.5).astype(int)
    h, w = image.shape[:2]
    rows = jnp.clip(jnp.arange(h) + dy[:, None], 0, h - 1)
    columns = jnp.clip(jnp.arange(w) + dx[:, None], 0, w - 1)
    shifted = image[rows[:, :, None], columns[:, None, :]]
    return jnp.tensordot(jnp.asarray(kernel / kernel.sum(), image.dtype), shifted, 1)
