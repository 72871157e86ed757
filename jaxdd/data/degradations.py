"""The second ten corruptions of Corrupted CIFAR-10: noise, blur, and images as they are.

The same kind of functions as in `corruptions`: "type 1" of Nam et al., "Learning from Failure",
NeurIPS 2020, at levels 2 to 5 of CIFAR-10-C (Hendrycks & Dietterich, 2019). Images are `[h, w, 3]`
in [0, 1], random functions take a key before them, severities are 1 to 4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxdd.data import filters

GAUSSIAN_NOISE = (0.06, 0.08, 0.09, 0.1)
SHOT_NOISE = (250, 100, 75, 50)
"""Photons of a white pixel."""
IMPULSE_NOISE = (0.02, 0.03, 0.05, 0.07)
"""Share of values that become 0 or 1."""
SPECKLE_NOISE = (0.1, 0.12, 0.16, 0.2)
GAUSSIAN_BLUR = (0.6, 0.7, 0.8, 1.0)
DEFOCUS_BLUR = ((0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
"""Radius of the disk, and standard deviation of the blur of its edge."""
GLASS_BLUR = ((0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
"""Standard deviation of the blur before and after, farthest move, times."""
MOTION_BLUR = ((6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))
"""Radius and standard deviation."""
ZOOM_BLUR = (10, 15, 20, 25)
"""Hundredths by which the image is enlarged at most."""


def gaussian_noise(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Adds the same noise to dark and to light values."""
    noise = GAUSSIAN_NOISE[severity - 1] * filters.normal(key, image.shape)
    return jnp.clip(image + noise, 0, 1)


def shot_noise(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Counts photons, of which there are few: a Poisson number for each of 256 levels."""
    photons = SHOT_NOISE[severity - 1]
    most = int(photons + 10 * photons**0.5)
    below = special.pdtr(np.arange(most), np.arange(256)[:, None] * photons / 255)
    table = jnp.asarray(below, image.dtype)
    levels = filters.rounded(jnp.clip(image, 0, 1) * 255).astype(int)
    drawn = filters.uniform(key, image.shape)
    low, high = jnp.zeros(image.shape, int), jnp.full(image.shape, most - 1)
    for _ in range(most.bit_length()):
        middle = (low + high) // 2
        above = table[levels, middle] < drawn
        low, high = jnp.where(above, middle + 1, low), jnp.where(above, high, middle)
        low = jnp.minimum(low, high)
    return jnp.clip(low / photons, 0, 1).astype(image.dtype)


def impulse_noise(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Turns some values of some channels into 0 or 1."""
    hit, white = (filters.uniform(part, image.shape) for part in jax.random.split(key))
    return jnp.where(hit <= IMPULSE_NOISE[severity - 1], (white < 0.5).astype(image.dtype), image)


def speckle_noise(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Multiplies by noise, which leaves what is dark alone."""
    noise = SPECKLE_NOISE[severity - 1] * filters.normal(key, image.shape)
    return jnp.clip(image + image * noise, 0, 1)


def gaussian_blur(image: jax.Array, *, severity: int) -> jax.Array:
    """Blurs evenly."""
    return filters.blurred(image, GAUSSIAN_BLUR[severity - 1], truncate=4.0, mode="edge")


def defocus_blur(image: jax.Array, *, severity: int) -> jax.Array:
    """Takes the mean over a disk whose edge is blurred, as a lens does that is out of focus."""
    radius, alias = DEFOCUS_BLUR[severity - 1]
    reach = int(radius) + 1
    place = np.arange(-reach, reach + 1)
    disk = (np.hypot(place[:, None], place) <= radius).astype(float)
    edge = np.exp(-0.5 * (np.arange(-1, 2) / alias) ** 2)
    edge = sum(np.eye(len(place), k=k) * edge[k + 1] / edge.sum() for k in (-1, 0, 1))
    kernel = edge @ (disk / disk.sum()) @ edge
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    h, w, _ = image.shape
    found = sum(kernel[i, j] * padded[i : i + h, j : j + w] for i, j in np.argwhere(kernel > 0))
    return jnp.clip(found, 0, 1)


def glass_blur(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Blurs, replaces pixel after pixel by a neighbour, and blurs again.

    From the last row and column on, as CIFAR-10-C does, which replaces pixels and swaps none.
    """
    sigma, farthest, times = GLASS_BLUR[severity - 1]
    blur = functools.partial(filters.blurred, sigma=sigma, truncate=4.0, mode="edge")
    h, w, _ = image.shape
    rows, columns = (np.arange(size - farthest, farthest, -1) for size in (h, w))
    places = np.stack([each.ravel() for each in np.meshgrid(rows, columns, indexing="ij")], 1)
    places = jnp.asarray(np.tile(places, (times, 1)))
    moves = jnp.floor(2 * farthest * filters.uniform(key, places.shape)).astype(int) - farthest

    def replace(image, entry):
        (row, column), (down, right) = entry
        return image.at[row, column].set(image[row + down, column + right]), None

    image = filters.rounded(blur(image) * 255) / 255
    return jnp.clip(blur(jax.lax.scan(replace, image, (places, moves))[0]), 0, 1)


def motion_blur(key: jax.Array, image: jax.Array, *, severity: int) -> jax.Array:
    """Smears at an angle within 45° of sideways."""
    radius, sigma = MOTION_BLUR[severity - 1]
    angle = jnp.pi * (filters.uniform(key, ()) - 0.5) / 2
    return jnp.clip(filters.motion_blur(image, radius, sigma, angle), 0, 1)


def zoom_blur(image: jax.Array, *, severity: int) -> jax.Array:
    """Takes the mean of the image enlarged step by step, and of the image itself."""
    h, w, _ = image.shape
    factors = 1 + np.arange(ZOOM_BLUR[severity - 1] + 1) / 100
    enlarged = [
        filters.resample(filters.zoom(h, factor), image, filters.zoom(w, factor))
        for factor in factors
    ]
    return jnp.clip((image + sum(enlarged)) / (len(factors) + 1), 0, 1)


def original(image: jax.Array, *, severity: int) -> jax.Array:
    """Leaves the image as it is."""
    return image


DEGRADATIONS = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "original": original,
}
"""By name, in the order of the classes that they are aligned with."""

NOT_RANDOM = {gaussian_blur, defocus_blur, zoom_blur, original}
"""Those that take no key."""
