"""Multi-formation: a synthetic image stores several smaller images (IDC).

One image is divided into factor² coarser ones. `split` returns the images that networks see,
differentiably; pass `functools.partial(split, factor=2)` to a method as `decode`. `join` packs
initial images.

Source: Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization" (ICML
2022).
"""

import itertools

import jax
import jax.numpy as jnp


def split(images: jax.Array, *, factor: int) -> jax.Array:
    """Cut images into factor × factor pieces and enlarge each piece bilinearly to full size.

    Args:
        images: `[..., m, h, w, c]`; h and w are at least `factor` and need not be multiples of it.
        factor: pieces along each side; 1 changes nothing.

    Returns:
        `[..., m · factor², h, w, c]`; the pieces of an image are adjacent.

    >>> split(jnp.zeros((10, 5, 28, 28, 1)), factor=2).shape
    (10, 20, 28, 28, 1)
    """
    *lead, m, height, width, channels = images.shape
    pieces = [
        jax.image.resize(images[..., rows, columns, :], images.shape, "linear")
        for rows, columns in _cells(height, width, factor)
    ]
    return jnp.stack(pieces, -4).reshape(*lead, m * factor**2, height, width, channels)


def join(images: jax.Array, *, factor: int, size: tuple[int, int] | None = None) -> jax.Array:
    """Shrink images and pack factor² of them into one, the inverse of `split`.

    Args:
        images: `[..., m · factor², h, w, c]`.
        factor: pieces along each side.
        size: height and width of the result; those of `images` by default.

    Returns:
        `[..., m, *size, c]`.
    """
    *lead, count, old_height, old_width, channels = images.shape
    height, width = (old_height, old_width) if size is None else size
    cells = _cells(height, width, factor)
    if count % len(cells):
        raise ValueError(f"The number of images must be a multiple of {len(cells)}, got {count}.")
    images = images.reshape(*lead, count // len(cells), len(cells), *images.shape[-3:])
    joined = jnp.zeros((*images.shape[:-4], height, width, channels), images.dtype)
    for i, (rows, columns) in enumerate(cells):
        shape = (*joined.shape[:-3], rows.stop - rows.start, columns.stop - columns.start, channels)
        piece = jax.image.resize(images[..., i, :, :, :], shape, "linear")
        joined = joined.at[..., rows, columns, :].set(piece)
    return joined


def _cells(height, width, factor):
    """Return the slices (rows, columns) of the factor² pieces, row by row."""
    if not 1 <= factor <= min(height, width):
        raise ValueError(
            f"factor must be in 1..{min(height, width)}, the shorter side, got {factor}."
        )
    cuts = lambda side: itertools.pairwise(i * side // factor for i in range(factor + 1))
    return [(slice(*rows), slice(*columns)) for rows in cuts(height) for columns in cuts(width)]
