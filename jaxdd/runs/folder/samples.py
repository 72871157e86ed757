"""Hashes of the training samples of a set, which travel with it in samples.npz.

Whoever scores a set can tell whether test images were training images, without the data that the
set was made from.
"""

import os
import pathlib

import numpy as np

from jaxdd.data import duplicates, files

NAME = "samples.npz"
"""File in the folder of a run or of an exported set."""


def write(folder: str | os.PathLike, images: np.ndarray) -> None:
    """Write the hashes of training images, sorted, into a folder."""
    hashes = np.unique(duplicates.digests(images))
    files.write_arrays(pathlib.Path(folder) / NAME, {"samples": hashes})


def read(content: bytes) -> np.ndarray:
    """Return the hashes in the content of samples.npz.

    Raises:
        ValueError: the file is damaged.
    """
    samples = files.read_arrays(NAME, content=content).get("samples", np.empty(0))
    if samples.dtype != np.uint64 or samples.ndim != 1:
        raise ValueError(f"{NAME} must hold samples as uint64 [n], got {samples.dtype}")
    return samples
