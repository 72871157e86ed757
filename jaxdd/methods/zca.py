"""ZCA whitening: pixels without correlation, turned as little as that allows.

With Ψ = U Λ Uᵀ the covariance of the normalised images, `[d, d]` for d = h · w · c values, an image
becomes `U (Λ + ε)^(−1/2) Uᵀ (x − m)`. What varies little, edges and noise, then counts as much as
what varies much, light and large areas; ε bounds by how much it can grow, to 1 / √ε.

Networks see whitened images on both sides, in the distillation and when they are scored; the
literature whitens CIFAR so, with ε = 0.1 (MTT, KIP). Between the two a set is kept as pixels, which
`unwhiten` gives.

Source: Bell and Sejnowski, "The independent components of natural scenes are edge filters" (Vision
Research 37, 1997); ε and the order, after normalisation and before augmentation, are those of MTT
(Cazenavette et al., CVPR 2022).
"""

import dataclasses
import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdd import _checks, evaluate, sampling
from jaxdd.methods import spectral

MAX_VALUES = 4096
"""Most values of an image: Ψ has their square, its eigenvectors take their cube."""

EPSILON = 0.1
"""What is added to each eigenvalue in the literature."""

_BATCH = 512  # images at a time


class Whitening(NamedTuple):
    """The map of an image `x` to `matrix (x − mean)`.

    Attributes:
        mean: `[h, w, c]` of the normalised images.
        matrix: `[h · w · c, h · w · c]`, symmetric, positive definite.
    """

    mean: jax.Array
    matrix: jax.Array


def fit(pool: sampling.Pool, *, weighted: bool = False, epsilon: float = EPSILON) -> Whitening:
    """Fits the whitening of the normalised images of a pool.

    Args:
        pool: of n images.
        weighted: count each image by the pool's weights, instead of all alike.
        epsilon: ε, positive, on the scale of normalised pixels' variance.

    Raises:
        ValueError: images of more than `MAX_VALUES` values, or an ε that is not positive.

    Where n is no more than d, a warning says that ε alone decides in which way the directions
    without variance are scaled.
    """
    n, *shape = pool.images.shape
    d = math.prod(shape)
    check_size(shape)
    _checks.positive("epsilon", epsilon)
    if n <= d:
        warnings.warn(
            f"ZCA of {d:,} values by {n:,} images is regularised: the directions in which they do "
            f"not differ grow by 1 / sqrt({epsilon:g})",
            stacklevel=2,
        )
    return _fitted(pool, pool.weights if weighted else None, epsilon)


def check_size(shape: "tuple[int, ...] | list[int]") -> None:
    """Refuses images `[h, w, c]` with too many values to be whitened.

    Raises:
        ValueError: more than `MAX_VALUES`.
    """
    if (d := math.prod(shape)) > MAX_VALUES:
        raise ValueError(
            f"ZCA takes images of at most {MAX_VALUES:,} values, whose covariance has their square, "
            f"found {' × '.join(map(str, shape))} = {d:,}; choose smaller images"
        )


@jax.jit
def _fitted(pool, weights, epsilon):
    flat = lambda images: sampling.normalise(images, pool.mean, pool.std).reshape(len(images), -1)
    given = pool.images, pool.labels, pool.num_classes, weights
    state = spectral.stream_statistics(flat, *given, size=_BATCH)
    values, vectors = jnp.linalg.eigh(spectral.covariance(state))
    scaled = vectors * jax.lax.rsqrt(jnp.maximum(values, 0) + epsilon)
    return Whitening(state.mean.reshape(pool.images.shape[1:]), _product(scaled, vectors.T))


def whiten(images: jax.Array, whitening: Whitening | None) -> jax.Array:
    """Returns normalised images `[..., h, w, c]` whitened; None leaves them as they are.

    Raises:
        ValueError: images of another size than those that the whitening was fitted on.
    """
    if whitening is None:
        return images
    return _applied(_checked(images, whitening), whitening)


@jax.jit
def _applied(images, whitening):
    rows = (images - whitening.mean).reshape(-1, len(whitening.matrix))
    found = jax.lax.map(lambda row: _product(whitening.matrix, row), rows, batch_size=_BATCH)
    return found.reshape(images.shape)


def unwhiten(images: jax.Array, whitening: Whitening | None) -> jax.Array:
    """Returns whitened images `[..., h, w, c]` as normalised ones, the inverse of `whiten`.

    Raises:
        ValueError: as in `whiten`.
    """
    if whitening is None:
        return images
    return _restored(_checked(images, whitening), whitening)


@jax.jit
def _restored(images, whitening):
    rows = images.reshape(-1, len(whitening.matrix))
    factor = jax.scipy.linalg.cho_factor(whitening.matrix)
    found = jax.scipy.linalg.cho_solve(factor, rows.T).T
    return found.reshape(images.shape) + whitening.mean


def whiten_pool(pool: sampling.Pool, whitening: Whitening | None) -> sampling.Pool:
    """Returns a pool of whitened images, in float32, which are drawn as they are.

    Raises:
        ValueError: as in `whiten`.
    """
    if whitening is None:
        return pool
    _checked(pool.images, whitening)
    images, moments = _whole(pool, whitening)
    return pool._replace(images=images, **moments)


def whiten_task(task: evaluate.Task, whitening: Whitening | None) -> evaluate.Task:
    """Returns a task whose test images are whitened, in float32.

    Raises:
        ValueError: as in `whiten`.
    """
    if whitening is None:
        return task
    _checked(task.images, whitening)
    images, moments = _whole(task, whitening)
    return dataclasses.replace(task, images=images, **moments)


@jax.jit
def _whole(held, whitening):
    """All images of a pool or a task whitened, and the moments that leave them so."""

    def one(image):
        row = sampling.normalise(image, held.mean, held.std) - whitening.mean
        return _product(whitening.matrix, row.reshape(-1)).reshape(image.shape)

    moments = {"mean": jnp.zeros_like(held.mean), "std": jnp.ones_like(held.std)}
    return jax.lax.map(one, held.images, batch_size=_BATCH), moments


def _checked(images, whitening):
    if jnp.shape(images)[-3:] != whitening.mean.shape:
        raise ValueError(
            f"images must be {whitening.mean.shape}, as those that the whitening was fitted on, "
            f"found {jnp.shape(images)[-3:]}"
        )
    return images


def _product(a, b):
    return jnp.matmul(a, b, precision="highest")
