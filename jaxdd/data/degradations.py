"""The second ten corruptions of Corrupted CIFAR-10: noise, blur, and unchanged images.

They have the form of those in `corruptions`. They are "type 1" of Nam et al., "Learning from
Failure", NeurIPS 2020, at levels 2 to 5 of CIFAR-10-C (Hendrycks & Dietterich, 2019). Images are
`[h, w, 3]` in [0, 1], random functions take a key first, severities are 1 to 4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxdd.data import _filters


def gaussian_noise(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Add noise to all values: x + σ · n, n ~ N(0, 1)."""
    noise = (0.06, 0.08, 0.09, 0.1)[severity - 1] * _filters.normal(key, image.shape)
    return jnp.clip(image + noise, 0, 1)


def shot_noise(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Replace each value by the count of few photons: Poisson(x · photons) / photons.

    The Poisson number is the quantile of a uniform draw, looked up by binary search in a table of
    the distribution function for each of 256 levels. `jax.random.poisson` would draw other numbers
    on other backends.
    """
    photons = (250, 100, 75, 50)[severity - 1]  # photons of a white pixel
    most = int(photons + 10 * photons**0.5)
    below = special.pdtr(np.arange(most), np.arange(256)[:, None] * photons / 255)
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


def impulse_noise(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Set values to 0 or 1, each with half of the probability."""
    hit, white = (_filters.uniform(part, image.shape) for part in jax.random.split(key))
    probability = (0.02, 0.03, 0.05, 0.07)[severity - 1]
    return jnp.where(hit <= probability, (white < 0.5).astype(image.dtype), image)


def speckle_noise(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Add noise in proportion to each value: x + x · σ · n, n ~ N(0, 1)."""
    noise = (0.1, 0.12, 0.16, 0.2)[severity - 1] * _filters.normal(key, image.shape)
    return jnp.clip(image + image * noise, 0, 1)


def gaussian_blur(image: jax.Array, *, severity: int) -> jax.Array:
    """Blur by a Gaussian."""
    sigma = (0.6, 0.7, 0.8, 1.0)[severity - 1]
    return _filters.gaussian_blur(image, sigma, truncate=4.0, mode="edge")


def defocus_blur(image: jax.Array, *, severity: int) -> jax.Array:
    """Average over a disk with a blurred edge, like a lens that is out of focus."""
    # Radius of the disk, and standard deviation of the blur of its edge.
    radius, alias = ((0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity - 1]
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


def glass_blur(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Blur, replace one pixel after the other by a random neighbour, and blur again.

    Pixels are visited from the last row and column to the first and replaced instead of swapped, as
    in the code of CIFAR-10-C.
    """
    sigma, reach, passes = ((0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))[severity - 1]
    blur = functools.partial(_filters.gaussian_blur, sigma=sigma, truncate=4.0, mode="edge")
    h, w, _ = image.shape
    rows, columns = (np.arange(size - reach, reach, -1) for size in (h, w))
    places = np.stack([index.ravel() for index in np.meshgrid(rows, columns, indexing="ij")], 1)
    places = jnp.asarray(np.tile(places, (passes, 1)))
    moves = jnp.floor(2 * reach * _filters.uniform(key, places.shape)).astype(int) - reach

    def replace(image, entry):
        (row, column), (down, right) = entry
        return image.at[row, column].set(image[row + down, column + right]), None

    image = _filters.round_half_away(blur(image) * 255) / 255
    return jnp.clip(blur(jax.lax.scan(replace, image, (places, moves))[0]), 0, 1)


def motion_blur(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Blur along a random direction within 45° of horizontal."""
    radius, sigma = ((6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[severity - 1]
    angle = jnp.pi * (_filters.uniform(key, ()) - 0.5) / 2
    return jnp.clip(_filters.motion_blur(image, radius, sigma, angle), 0, 1)


def zoom_blur(image: jax.Array, *, severity: int) -> jax.Array:
    """Average the image and enlargements of it by 0, 1, 2, … hundredths."""
    h, w, _ = image.shape
    factors = 1 + np.arange((10, 15, 20, 25)[severity - 1] + 1) / 100
    enlarged = [
        _filters.resample(_filters.zoom(h, factor), image, _filters.zoom(w, factor))
        for factor in factors
    ]
    return jnp.clip((image + sum(enlarged)) / (len(factors) + 1), 0, 1)


def original(image: jax.Array, *, severity: int) -> jax.Array:
    """Return the image unchanged."""
    return image


DEGRADATIONS = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise, speckle_noise, gaussian_blur, defocus_blur,
        glass_blur, motion_blur, zoom_blur, original,
    )
}  # fmt: skip
"""Corruptions by name, in the order of the classes that they are aligned with."""

NOT_RANDOM = {gaussian_blur, defocus_blur, zoom_blur, original}
"""Functions that take no key."""
