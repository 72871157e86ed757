"""What corruptions are made of: exact random numbers, rounding, and resampling by matrices.

Random numbers are exact multiples of 2⁻²³ and rounding decides ties by a margin of 10⁻⁶, so that
under `jax.enable_x64` a key gives the same bytes with every version of jax. Every linear resampling
is a pair of constant matrices.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.typing import ArrayLike

MARGIN = 1e-6
"""By which arithmetic may have blurred a tie."""


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws from (0, 1), from both of which it stays 2⁻²⁴ away."""
    return (0.5 + (jax.random.bits(key, shape, jnp.uint32) >> 9).astype(float)) * 2.0**-23


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws from the standard normal distribution."""
    return ndtri(uniform(key, shape))


def rounded(values: jax.Array) -> jax.Array:
    """Returns the nearest integers, half away from zero, also of a half that is blurred."""
    return jnp.sign(values) * jnp.floor(jnp.abs(values) + 0.5 + MARGIN)


def resample(rows: ArrayLike, image: jax.Array, columns: ArrayLike) -> jax.Array:
    """Returns rows · image · columnsᵀ, for each channel if there are any."""
    rows, columns = (jnp.asarray(m, image.dtype) for m in (rows, columns))
    return jnp.einsum("ah,hw...,bw->ab...", rows, image, columns, precision="highest")


def zoom(size: int, factor: float) -> np.ndarray:
    """Returns a matrix `[size, size]` that enlarges the middle linearly, its ends kept."""
    window = math.ceil(size / factor)
    enlarged = round(window * factor)
    place = np.arange(enlarged) * (window - 1) / max(enlarged - 1, 1)
    matrix = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(window)))
    trim, top = (enlarged - size) // 2, (size - window) // 2
    return np.pad(matrix[trim : trim + size], ((0, 0), (top, size - window - top)))


def blurred(image: jax.Array, sigma: float, *, truncate: float, mode: str) -> jax.Array:
    """Blurs an image `[h, w]` or `[h, w, c]` by a Gaussian.

    Args:
        image: the image.
        sigma: standard deviation in pixels.
        truncate: standard deviations after which it is cut off.
        mode: of `numpy.pad` beyond the border.
    """
    rows, columns = (_blur(size, sigma, truncate, mode) for size in image.shape[:2])
    return resample(rows, image, columns)


def _blur(size, sigma, truncate, mode):
    """Matrix [size, size] of a Gaussian blur, cut off at `truncate` standard deviations."""
    radius = int(truncate * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    source = np.pad(np.arange(size), radius, mode=mode)
    matrix = np.zeros((size, size))
    for i in range(size):
        np.add.at(matrix[i], source[i : i + 2 * radius + 1], kernel / kernel.sum())
    return matrix


def motion_blur(image: jax.Array, radius: int, sigma: float, angle: jax.Array) -> jax.Array:
    """Returns a one-sided Gaussian mean of an image `[h, w]` or `[h, w, c]` along `angle`.

    Pixels beyond the border are those at it.
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
