"""Multi-formation: a synthetic image that holds several smaller ones.

IDC (Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022)
spends the pixels of one image on factor² coarser ones. `split` makes the images that networks see,
differentiably, and `join` their inverse for the start: give `functools.partial(split, factor=2)` to
a method of `jaxdd.methods` as its `decode`.
"""

import itertools

import jax
import jax.numpy as jnp


def split(images: jax.Array, *, factor: int) -> jax.Array:
    """Cuts images into factor × factor pieces and enlarges each to the full size, bilinearly.

    Args:
        images: `[..., m, h, w, c]`, sides of at least `factor` pixels; they need not divide by it.
        factor: pieces along each side; 1 changes nothing.

    Returns:
        `[..., m · factor², h, w, c]`, the pieces of an image next to each other.

    Raises:
        ValueError: for a factor below 1 or beyond the sides.

    >>> split(jnp.zeros((10, 5, 28, 28, 1)), factor=2).shape
    (10, 20, 28, 28, 1)
    """
    *lead, m, height, width, channels = images.shape
    pieces = [
        jax.image.resize(images[..., rows, columns, :], images.shape, "linear")
        for rows in _cuts(height, factor)
        for columns in _cuts(width, factor)
    ]
    return jnp.stack(pieces, -4).reshape(*lead, m * factor**2, height, width, channels)


def join(images: jax.Array, *, factor: int, size: tuple[int, int] | None = None) -> jax.Array:
    """Resizes images and lays factor² of them side by side, what `split` takes apart again.

    Args:
        images: `[..., m · factor², h, w, c]`.
        factor: pieces along each side.
        size: height and width of what they are joined to; those of an image by default.

    Returns:
        `[..., m, *size, c]`.

    Raises:
        ValueError: for a factor below 1 or beyond the sides, or a number of images that factor²
            does not divide.
    """
    *lead, count, old_height, old_width, channels = images.shape
    height, width = (old_height, old_width) if size is None else size
    cuts = [(rows, columns) for rows in _cuts(height, factor) for columns in _cuts(width, factor)]
    if count % len(cuts):
        raise ValueError(f"the number of images must be a multiple of {len(cuts)}, found {count}")
    images = images.reshape(*lead, count // len(cuts), len(cuts), *images.shape[-3:])
    joined = jnp.zeros((*images.shape[:-4], height, width, channels), images.dtype)
    for i, (rows, columns) in enumerate(cuts):
        shape = (*joined.shape[:-3], rows.stop - rows.start, columns.stop - columns.start, channels)
        piece = jax.image.resize(images[..., i, :, :, :], shape, "linear")
        joined = joined.at[..., rows, columns, :].set(piece)
    return joined


def _cuts(side, factor):
    if not 1 <= factor <= side:
        raise ValueError(f"factor must lie in 1..{side}, the side of the images, found {factor}")
    edges = [i * side // factor for i in range(factor + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
