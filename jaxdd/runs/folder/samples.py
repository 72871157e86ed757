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
    files.write_arrays(pathlib.Path(folder) / NAME, {"samples": np.unique(_short_digests(images))})


def read(content: bytes) -> np.ndarray:
    """Return the hashes in the content of samples.npz, uint32 `[n]`.

    Raises:
        ValueError: the file is damaged.
    """
    samples = files.read_arrays(NAME, content=content).get("samples", np.empty(0))
    if samples.dtype != np.uint32 or samples.ndim != 1:
        raise ValueError(f"{NAME} must hold samples as uint32 [n], got {samples.dtype}")
    return samples


def contained(images: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return whether each of the images is among the training samples of a set, bool `[m]`.

    Args:
        images: uint8 `[m, h, w, c]`, decoded.
        samples: hashes from `read`. They have 32 bits, so one of about 70,000 other images is taken
            for one of 60,000 samples.
    """
    return np.isin(_short_digests(images), samples)


def _short_digests(images):
    """Return the lower 32 bits of each hash, so that the file has half the size."""
    return duplicates.digests(images).astype(np.uint32)
