"""Disk: what the networks of a set see its images through, beside the set."""

import os
import pathlib

import jax.numpy as jnp
import numpy as np

from jaxdd.data import files
from jaxdd.methods import zca
from jaxdd.runs.folder import store


def write(path: str | os.PathLike, whitening: zca.Whitening) -> None:
    """Writes what the networks of a set see its images through, with a digest.

    Args:
        path: an .npz file.
        whitening: of the set.
    """
    arrays = {name: np.asarray(value) for name, value in whitening._asdict().items()}
    files.write_arrays(path, files.sealed(arrays))


def read(path: str | os.PathLike, *, content: bytes | None = None) -> zca.Whitening:
    """Reads what `write` wrote.

    Args:
        path: the file.
        content: of the file, where it was read before, as in `files.read_arrays`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds no whitening.
    """
    found = files.read_arrays(path, must_be_sealed=True, content=content)
    size = found["mean"].size if "mean" in found else 0
    for name, dimensions, values in (("mean", 3, size), ("matrix", 2, size**2)):
        array = found.get(name, np.empty(0))
        if (array.ndim, array.size) != (dimensions, values) or not values:
            raise ValueError(f"{path} is no whitening: found {name} of shape {array.shape}")
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} must be float32 and finite, found {array.dtype}")
    return zca.Whitening(*(jnp.asarray(found[name]) for name in zca.Whitening._fields))


def of(folder: str | os.PathLike) -> zca.Whitening | None:
    """Returns the whitening of a run, None if it has none.

    Raises:
        ValueError: as in `read`.
    """
    path = pathlib.Path(folder) / store.WHITENING
    return read(path) if path.exists() else None
