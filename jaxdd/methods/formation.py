"""Multi-formation: a synthetic image stores several smaller images (IDC).

One image is divided into factor² coarser ones. `split` returns the images that networks see,
differentiably; pass `functools.partial(split, factor=2)` to a method as `decode`. `join` packs
initial images, by nearest neighbours as the authors do. If the factor does not divide a side, the
first pieces are one pixel longer. The authors join such pieces in the same way, but split the image
into pieces of equal size after padding it with grey, so that pieces hold padding or a part of the
next piece.

Source: Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization" (ICML
2022).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np


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
    """Resize images to pieces by nearest neighbours and pack factor² of them into one.

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
        down, across = _nearest(rows, old_height), _nearest(columns, old_width)
        piece = images[..., i, :, :, :][..., down[:, None], across[None], :]
        joined = joined.at[..., rows, columns, :].set(piece)
    return joined


def _nearest(cell, side):
    """Return the pixel of a side that each pixel of a cell is copied from, as PyTorch does."""
    size = cell.stop - cell.start
    return np.arange(size) * side // size


def _cells(height, width, factor):
    """Return the slices (rows, columns) of the factor² pieces, row by row."""
    if not 1 <= factor <= min(height, width):
        raise ValueError(
            f"factor must be in 1..{min(height, width)}, the shorter side, got {factor}."
        )

    def cuts(side):
        size, remainder = divmod(side, factor)
        ends = (i * size + min(i, remainder) for i in range(factor + 1))
        return itertools.pairwise(ends)

    return [(slice(*rows), slice(*columns)) for rows in cuts(height) for columns in cuts(width)]
