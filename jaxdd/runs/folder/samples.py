"""Hashes of the training samples of a set, which travel with it in samples.npz.

Whoever scores a set can tell whether test images were training images, without the data that the
set was made from.
"""

import hashlib
import os
import pathlib

import numpy as np

from jaxdd.data import files

NAME = "samples.npz"
"""File in the folder of a run or of an exported set."""


def digests(images: np.ndarray) -> np.ndarray:
    """Return a BLAKE2b hash of each image, uint64 `[n]`.

    Args:
        images: uint8 `[n, h, w, c]`, decoded.
    """
    hashes = (hashlib.blake2b(np.ascontiguousarray(x).data, digest_size=8).digest() for x in images)
    return np.frombuffer(b"".join(hashes), "<u8")


def write(folder: str | os.PathLike, images: np.ndarray) -> None:
    """Write the hashes of training images, sorted, into a folder."""
    files.write_arrays(pathlib.Path(folder) / NAME, {"samples": np.unique(digests(images))})


def read(content: bytes) -> np.ndarray:
    """Return the hashes in the content of samples.npz.

    Raises:
        ValueError: the file is damaged.
    """
    samples = files.read_arrays(NAME, content=content).get("samples", np.empty(0))
    if samples.dtype != np.uint64 or samples.ndim != 1:
        raise ValueError(f"{NAME} must hold samples as uint64 [n], got {samples.dtype}")
    return samples
