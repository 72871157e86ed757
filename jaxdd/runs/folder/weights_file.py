"""Files of sample weights: those of a run, and your own as .npy, .npz or .csv."""

import contextlib
import csv
import os
import pathlib
import unicodedata
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data import datasets, files

_FILE_COLUMNS = ("file", "file_name", "filename", "files", "path", "image")
_WEIGHT_COLUMNS = ("weights", "weight")


class _Content(NamedTuple):
    """Content of a file: weights, and if known, files of the samples and their `sample_digest`."""

    weights: Any
    files: list[str] | None = None
    samples: str | None = None


def sample_digest(data: datasets.Benchmark) -> str:
    """Return a hash of the training samples in their order, which run folders keep with weights."""
    return files.digest(data.train.images, data.train.labels)


def read(path: str | os.PathLike, *, count: int) -> np.ndarray:
    """Read sample weights `[count]` by position.

    Args:
        path: .npy; .npz with an array "weights" or a single array; .csv with a single column, or
            with a column headed weight or weights.
        count: number of samples.
    """
    return _checked(path, _read(pathlib.Path(path)).weights, count)


def read_for(path: str | os.PathLike, data: datasets.Benchmark) -> np.ndarray:
    """Read weights of the training samples of a data set, `[n]`.

    A column or an array with the files of the samples, such as "file" or "file_name", relative to
    the folder of the data, brings weights in any order into that of the samples. Test images may
    have weights, which are ignored.

    Args:
        path: a file as for `read`; next to config.json of a run, its weights.
        data: data set.
    """
    path = pathlib.Path(path)
    content = _read(path)
    if content.files is None:
        _check_origin(path, content, data)
    values = content.weights
    if content.files is not None:
        values = in_order_of(data, path, content.files, values)
    return _checked(path, values, len(data.train.labels))


def _read(path):
    reader = {".npy": _from_npy, ".npz": _from_npz, ".csv": _from_csv}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"weights must be in .npy, .npz or .csv, got {path}")
    try:
        content = reader(path)
        return content._replace(weights=np.asarray(content.weights, float))
    except (TypeError, ValueError, IndexError, csv.Error) as error:
        raise ValueError(f"{path} does not hold weights: {error}") from error


def _checked(path, values, count):
    if values.shape != (count,):
        raise ValueError(f"{path}: expected weights of {count} samples, got shape {values.shape}")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"{path}: weights must be finite and at least 0, got {values.min()}..{values.max()}"
        )
    if values.sum() > np.finfo(np.float32).max:
        raise ValueError(f"{path}: the sum of weights must fit float32, got {values.sum()}")
    return values


# --- formats -----------------------------------------------------------------------------------


def _from_npy(path):
    return _Content(files.read_array(path))


def _from_npz(path):
    arrays = files.read_arrays(path, names=["weights", "samples", *_FILE_COLUMNS])
    if "weights" not in arrays:
        arrays = files.read_arrays(path)
        if len(arrays) != 1:
            raise ValueError(f'no array "weights" among {", ".join(arrays) or "none"}')
        return _Content(next(iter(arrays.values())))
    column = file_column(arrays)
    names = None if column is None else np.atleast_1d(arrays[column]).astype(str).tolist()
    samples = str(arrays["samples"]) if "samples" in arrays else None
    return _Content(arrays["weights"], names, samples)


def _from_csv(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((head.index(name) for name in _WEIGHT_COLUMNS if name in head), None)
    if column is None and len(head) != 1:
        raise ValueError(f"no column weight or weights among {', '.join(head) or 'none'}")
    if column is None:  # a single column, whose heading is any text that is not a number
        with contextlib.suppress(ValueError):
            return _Content([float(head[0]), *(row[0] for row in rows[1:])])
    named = file_column(head)
    names = None if named is None else [row[head.index(named)].strip() for row in rows[1:]]
    values = [row[column or 0] for row in rows[1:]]
    # Tables of pandas keep the number of a row, with or without a heading, when they are sorted.
    numbered = next((head.index(name) for name in ("index", "") if name in head), None)
    if names is None and numbered is not None:
        order = [int(row[numbered]) for row in rows[1:]]
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"index must hold 0..{len(order) - 1} once, got {order[0]}, …")
        values = [value for _, value in sorted(zip(order, values, strict=True))]
    return _Content(values, names)


def file_column(names: Container[str]) -> str | None:
    """Return the name of the column or array with the files of the samples, None without one."""
    return next((name for name in _FILE_COLUMNS if name in names), None)


# --- samples -----------------------------------------------------------------------------------


def in_order_of(
    data: datasets.Benchmark,
    path: pathlib.Path,
    names: Sequence[str],
    values: np.ndarray,
    *,
    kind: str = "weight",
) -> np.ndarray:
    """Return values in the order of the training samples, `[n]` or `[n, d]`, by file names.

    Args:
        data: data set from a folder.
        path: file with the values, for messages.
        names: file of each value, relative to the folder of the data. Test images are ignored.
        values: one value or row per name.
        kind: what a value is, for messages.
    """
    keys = [file_key(name) for name in names]
    train = check_files(data, path, keys)
    if len(names) != len(values):
        counts = f"{len(names)} files and {len(values)} {kind}s"
        raise ValueError(f"{path} must hold one {kind} per file, got {counts}")
    by_file = {}
    for name, key, value in zip(names, keys, values, strict=True):
        if key in by_file:
            raise ValueError(f"{path} must hold one {kind} per file, got {name!r} twice")
        by_file[key] = value
    if missing := [name for name in train if name not in by_file]:
        raise ValueError(
            f"{path} has no {kind} of {missing[0]!r}; {len(missing)} of {len(train)} are missing"
        )
    return np.array([by_file[name] for name in train])


def check_files(data: datasets.Benchmark, path: pathlib.Path, keys: Iterable[str]) -> list[str]:
    """Return the keys of the training images; raise ValueError for files that are not in the data.

    Args:
        data: data set from a folder.
        path: file with the names, for messages.
        keys: keys of images for training or testing, from `file_key`.
    """
    if not data.train_files:
        raise ValueError(
            f"{path} names files, but {data.name} is not a folder of images; pass one value "
            "per training sample, in their order or with a column index"
        )
    train, test = (
        [file_key(name) for name in part] for part in (data.train_files, data.test_files)
    )
    if unknown := {*keys} - {*train, *test}:
        example = f"expected names such as {data.train_files[0]!r}"
        raise ValueError(f"{path} names {min(unknown)!r}, which is not in {data.name}; {example}")
    return train


def file_key(name: str) -> str:
    """Return a form of a file name that does not depend on how it was written."""
    # The same name may be written with composed or decomposed accents, or start with "./".
    return pathlib.PurePosixPath(unicodedata.normalize("NFC", name)).as_posix()


def _check_origin(path, content, data):
    """Raise ValueError for the weights of a run with other training samples."""
    if content.samples is not None:
        if content.samples != sample_digest(data):
            raise ValueError(
                f"{path} has weights of other training samples than those of {data.name}: digest "
                f"{content.samples} there, {sample_digest(data)} here; another seed or split?"
            )
        return
    folder = path.absolute().parent  # of a run, or weights/NAME of a comparison
    folder = folder.parents[1] if folder.parent.name == "weights" else folder
    try:
        config = files.read_json(folder / "config.json")
    except (OSError, ValueError):
        return
    digest = config.get("data") if isinstance(config, dict) else None
    if isinstance(digest, str) and digest != datasets.digest(data):
        raise ValueError(
            f"{path} has weights of a run with other data than {data.name}: digest {digest} in "
            f"{folder / 'config.json'}, {datasets.digest(data)} here; another seed or split?"
        )
