"""ZCA whitening: make pixels uncorrelated while changing images as little as possible.

Let m be the mean and Ψ = U Λ Uᵀ the covariance of images with pixels in [0, 1], `[d, d]` with
d = h · w · c. An image p becomes `W (p − m)`, `W = U (Λ + ε)^(−1/2) Uᵀ`. Every matrix R W with a
rotation R makes pixels uncorrelated; W itself is symmetric and leaves the result closest to the
image. Edges and textures, which have little variance, then have more influence. ε limits the
amplification to 1 / √ε; directions of much smaller variance than ε are only rescaled.

Networks see whitened images in distillation and in evaluation, in place of normalised ones, and
augmentation follows whitening. Sets are stored unwhitened, as `unwhiten` returns them.

Source: Bell and Sejnowski, "The independent components of natural scenes are edge filters" (Vision
Research 37, 1997). Pixels in [0, 1], ε = 0.1 and the order are those of MTT (Cazenavette et al.,
CVPR 2022), which divides the covariance by n − 1. Here it is divided by n, the sum of the weights.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdd import _checks, evaluate, sampling
from jaxdd.methods import spectral

_MAX_VALUES = 4096  # Maximum d: Ψ has d² values, and its eigendecomposition takes d³ operations.
_BATCH = 512  # images at a time


class Whitening(NamedTuple):
    """The map from an image p with pixels in [0, 1] to `matrix (p − mean)`.

    Attributes:
        mean: `[h, w, c]`, the mean image.
        matrix: `[h · w · c, h · w · c]`, symmetric and positive definite.
    """

    mean: jax.Array
    matrix: jax.Array


def fit(pool: sampling.Pool, *, weighted: bool = False, epsilon: float = 0.1) -> Whitening:
    """Fit the whitening of the images of a pool.

    Warns if the pool has at most d images. Some directions then have no variance, and ε alone
    determines how they are scaled.

    Args:
        pool: n real images.
        weighted: weight images by the pool's weights instead of uniformly.
        epsilon: ε, positive, in units of the variance of pixels in [0, 1].
    """
    n, *shape = pool.images.shape
    d = math.prod(shape)
    check_size(shape)
    _checks.positive("epsilon", epsilon)
    if n <= d:
        warnings.warn(
            f"ZCA of {d:,} values was fitted on only {n:,} images: directions in which these do "
            f"not differ are amplified by 1 / sqrt({epsilon:g}).",
            stacklevel=2,
        )
    return _fit(pool, pool.weights if weighted else None, epsilon)


def check_size(shape: Sequence[int]) -> None:
    """Raise ValueError for images `[h, w, c]` with more than 4,096 values."""
    if (d := math.prod(shape)) > _MAX_VALUES:
        raise ValueError(
            f"ZCA supports images of at most {_MAX_VALUES:,} values, "
            f"got {' × '.join(map(str, shape))} = {d:,}; resize the images."
        )


def whiten(
    images: jax.Array,
    whitening: Whitening | None,
    mean: ArrayLike | Sequence[float],
    std: ArrayLike | Sequence[float],
) -> jax.Array:
    """Return whitened images; without a whitening, the images unchanged.

    Args:
        images: normalised by `mean` and `std`, `[..., h, w, c]`.
        whitening: from `fit` on images of this size, or None.
        mean: `[c]` of the pixels, on the scale [0, 1].
        std: `[c]` of the pixels, on the scale [0, 1].
    """
    if whitening is None:
        return images
    _check_shape(images, whitening)
    return _whiten(images, whitening, mean, std)


def unwhiten(
    images: jax.Array,
    whitening: Whitening | None,
    mean: ArrayLike | Sequence[float],
    std: ArrayLike | Sequence[float],
) -> jax.Array:
    """Return images normalised by `mean` and `std` from whitened ones, the inverse of `whiten`."""
    if whitening is None:
        return images
    _check_shape(images, whitening)
    return _unwhiten(images, whitening, mean, std)


def whiten_pool(pool: sampling.Pool, whitening: Whitening | None) -> sampling.Pool:
    """Return a pool of whitened float32 images, which samplers return unchanged."""
    if whitening is None:
        return pool
    _check_shape(pool.images, whitening)
    return pool._replace(**_whiten_pixels(pool.images, whitening))


def whiten_task(task: evaluate.Task, whitening: Whitening | None) -> evaluate.Task:
    """Return a task with whitened float32 test images."""
    if whitening is None:
        return task
    _check_shape(task.images, whitening)
    return dataclasses.replace(task, **_whiten_pixels(task.images, whitening))


def _check_shape(images, whitening):
    if jnp.shape(images)[-3:] != whitening.mean.shape:
        raise ValueError(
            f"The whitening was fitted on images {whitening.mean.shape}, "
            f"got {jnp.shape(images)[-3:]}."
        )


@jax.jit
def _fit(pool, weights, epsilon):
    flat = lambda images: _to_unit(images).reshape(len(images), -1)
    samples = pool.images, pool.labels, pool.num_classes, weights
    state = spectral.statistics(*samples, extract=flat, size=_BATCH)
    values, vectors = jnp.linalg.eigh(spectral.covariance(state))
    scaled = vectors * jax.lax.rsqrt(jnp.maximum(values, 0) + epsilon)[None]
    return Whitening(state.mean.reshape(pool.images.shape[1:]), _product(scaled, vectors.T))


def _to_unit(images):
    """Return float32 pixels in [0, 1] of the images of a pool or a task."""
    return sampling.normalise(images, jnp.zeros(1), jnp.ones(1))


@jax.jit
def _whiten(images, whitening, mean, std):
    mean, std, centre = _broadcast((mean, std, whitening.mean), images.ndim)
    rows = (images * std + (mean - centre)).reshape(-1, len(whitening.matrix))
    whitened = jax.lax.map(lambda row: _product(whitening.matrix, row), rows, batch_size=_BATCH)
    return whitened.reshape(images.shape)


@jax.jit
def _unwhiten(images, whitening, mean, std):
    # Matrices of fewer bits have no Cholesky factorisation.
    wide = jnp.promote_types(whitening.matrix.dtype, jnp.float32)
    rows = images.reshape(-1, len(whitening.matrix)).astype(wide)
    factor = jax.scipy.linalg.cho_factor(whitening.matrix.astype(wide))
    offsets = jax.scipy.linalg.cho_solve(factor, rows.T).T.reshape(images.shape)
    mean, std, centre = _broadcast((mean, std, whitening.mean), images.ndim)
    return (offsets.astype(images.dtype) + (centre - mean)) / std


def _broadcast(arrays, ndim):
    return [jax.lax.broadcast_to_rank(jnp.asarray(array), ndim) for array in arrays]


@jax.jit
def _whiten_pixels(images, whitening):
    """Return whitened images, with mean and std such that `normalise` leaves them unchanged."""

    def whiten_image(image):
        row = (_to_unit(image) - whitening.mean).reshape(-1)
        return _product(whitening.matrix, row).reshape(image.shape)

    whitened = jax.lax.map(whiten_image, images, batch_size=_BATCH)
    channels = images.shape[-1:]
    return {"images": whitened, "mean": jnp.zeros(channels), "std": jnp.ones(channels)}


def _product(a, b):
    return jnp.matmul(a, b, precision="highest")
