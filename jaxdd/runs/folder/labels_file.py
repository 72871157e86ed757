"""Files with bias labels of some training images, for example from the page of `jaxdd bias`."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from jaxdd.data import _tables, datasets
from jaxdd.runs.folder import weights_file

_INDEX = "index"
_ATTRIBUTE = "attribute"


class BiasLabels(NamedTuple):
    """Bias labels of some training images.

    Attributes:
        attributes: attribute of each training image, int32 `[n]`, -1 if it is unknown.
        names: name of each attribute, or empty.
    """

    attributes: np.ndarray
    names: tuple[str, ...] = ()


def of_data(data: datasets.Benchmark) -> BiasLabels | None:
    """Return the bias labels of a data set that has them for some training images, else None."""
    if data.bias_labels is None:
        return None
    return BiasLabels(data.bias_labels, data.attribute_names)


def read_for(path: str | os.PathLike, data: datasets.Benchmark) -> BiasLabels:
    """Read the bias labels of training images of a data set.

    Images without a label and test images are ignored.

    Args:
        path: .csv with a column of files relative to the folder of the data, such as "file" or
            "file_name", or with a column "index" that counts the training images from 0; and a
            column "attribute", or a single column with any other name.
        data: data set.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() != ".csv":
        raise ValueError(f"bias labels must be in .csv, got {path}")
    columns, rows = _tables.read_csv(path)
    named, attribute = _columns(path, columns)
    labels: dict[int, str] = {}
    position = _positions(path, data, [(row[named] or "").strip() for row in rows], named)
    for i, row in zip(position, rows, strict=True):
        value = (row[attribute] or "").strip()
        if i is None or not value:
            continue
        if labels.setdefault(i, value) != value:
            raise ValueError(
                f"{path} has two labels of {row[named]!r}: {labels[i]!r} and {value!r}; keep one"
            )
    return check(_encode(path, labels, data), data, name=str(path))


def _columns(path, columns):
    """Return the names of the columns with files or indices, and with attributes."""
    lower = {name.strip().lower(): name for name in columns}
    named = weights_file.file_column(lower) or (_INDEX if _INDEX in lower else None)
    if named is None:
        raise ValueError(f"{path} has no column file or index among {', '.join(columns) or 'none'}")
    others = [name for name in lower if name not in (named, _INDEX, "")]
    if _ATTRIBUTE not in lower and len(others) != 1:
        raise ValueError(
            f"{path} needs a column attribute, or a single column next to {lower[named]}, got "
            f"{', '.join(others) or 'none'}"
        )
    return lower[named], lower[_ATTRIBUTE if _ATTRIBUTE in lower else others[0]]


def _positions(path, data, names, column):
    """Return the index of each training image, None for test images."""
    if column.strip().lower() == _INDEX:
        count = len(data.train.labels)
        for name in names:
            if not name.isdecimal() or int(name) >= count:
                raise ValueError(f"{path}: index must lie in 0..{count - 1}, got {name!r}")
        return [int(name) for name in names]
    keys = [weights_file.file_key(name) for name in names]
    train = weights_file.check_files(data, path, keys)
    position = {key: i for i, key in enumerate(train)}
    return [position.get(key) for key in keys]


def _encode(path, labels, data):
    """Return bias labels; use the attribute names of the data if they include all values."""
    names = tuple(sorted({*labels.values()}))
    names = data.attribute_names if {*names} <= {*data.attribute_names} else names
    attributes = np.full(len(data.train.labels), -1, np.int32)
    attributes[list(labels)] = [names.index(value) for value in labels.values()]
    return BiasLabels(attributes, names)


def check(labels: BiasLabels, data: datasets.Benchmark, *, name: str = "bias_labels") -> BiasLabels:
    """Return bias labels; raise ValueError if they do not fit the data or have one value only.

    Args:
        labels: bias labels of training images.
        data: data set.
        name: what the message is about, such as a file.
    """
    attributes, count = np.asarray(labels.attributes), len(data.train.labels)
    if attributes.shape != (count,) or attributes.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: expected an integer for each of the {count} training images of {data.name}, "
            f"-1 if unknown, got {attributes.dtype} of shape {attributes.shape}"
        )
    known = attributes[attributes >= 0]
    values = np.unique(known)
    if len(values) < 2:
        got = [labels.names[v] if labels.names else int(v) for v in values]
        raise ValueError(
            f"{name}: bias labels need at least two attribute values, got {got} for {len(known)} "
            "training images; label 20 to 200 images"
        )
    return labels._replace(attributes=attributes.astype(np.int32))
