"""Files with an embedding of the training samples, for example by a pretrained network."""

import os
import pathlib

import numpy as np

from jaxdd.data import datasets, files
from jaxdd.runs.folder import weights_file

_MAX_SIZE = 2**13  # Maximum size of an embedding; probes invert matrices of this size.


def read_for(path: str | os.PathLike, data: datasets.Benchmark) -> np.ndarray:
    """Read an embedding of the training samples of a data set, float32 `[n, d]`.

    Args:
        path: .npy with one row per training sample in their order; or .npz with such an array,
            named "embedding" unless it is the only one. With an array of file names, for
            example "file_name", the rows may be in any order.
        data: data set.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() == ".npy":
        return check(files.read_array(path), data, name=str(path))
    if path.suffix.lower() != ".npz":
        raise ValueError(f"an embedding must be a .npy or .npz file, got {path}")
    arrays = files.read_arrays(path)
    column = weights_file.file_column(arrays)
    names = None if column is None else np.atleast_1d(arrays.pop(column)).astype(str).tolist()
    if "embedding" not in arrays and len(arrays) != 1:
        raise ValueError(f'{path} has no array "embedding" among {", ".join(arrays) or "none"}')
    rows = arrays["embedding"] if "embedding" in arrays else next(iter(arrays.values()))
    if names is not None:
        rows = weights_file.in_order_of(data, path, names, np.atleast_1d(rows), kind="row")
    return check(rows, data, name=str(path))


def check(rows: np.ndarray, data: datasets.Benchmark, *, name: str = "embedding") -> np.ndarray:
    """Return an embedding of the training samples as float32 `[n, d]`, or raise ValueError.

    Args:
        rows: one row per training sample.
        data: data set.
        name: what the message is about, such as a file.
    """
    rows, count = np.asarray(rows), len(data.train.labels)
    if rows.ndim != 2 or len(rows) != count or not 1 <= rows.shape[1] <= _MAX_SIZE:
        raise ValueError(
            f"{name}: expected one row of 1 to {_MAX_SIZE} numbers for each of the {count} "
            f"training samples of {data.name}, got shape {rows.shape}"
        )
    if rows.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected real numbers, got {rows.dtype}")
    with np.errstate(over="ignore"):  # reported as inf
        rows = rows.astype(np.float32)
    if not (finite := np.isfinite(rows)).all():
        at = int(np.flatnonzero(~finite.all(1))[0])
        wrong = rows[at][~finite[at]][0]
        raise ValueError(f"{name}: numbers must be finite in float32, got {wrong} in row {at}")
    return rows
