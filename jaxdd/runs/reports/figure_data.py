"""What a run keeps for its page beside the scores: accuracies by class, and what figures show.

`breakdown` counts and scores classes and groups. `figures.npz` holds some training
images, the heaviest and the lightest of each class. It is in the run folder and in no published
set.
"""

import os
from typing import NamedTuple

import numpy as np

from jaxdd.data import datasets, files
from jaxdd.runs.folder import store
from jaxdd.runs.reports import plot

FILE = "figures.npz"
"""The file beside the weights."""

_CLASSES, _COLUMNS = 20, 8  # of the heaviest and the lightest images, at most


class FigureData(NamedTuple):
    """What figures of weights are drawn from.

    Attributes:
        weights: `[n]` of the training samples.
        labels: `[n]`.
        attributes: `[n]`, or None where they are not known.
        aligned: `[k]` the attribute of most of a class, or None.
        plane: of the embeddings, None where the weights followed from none.
        heaviest: uint8 `[k, m, h, w, 3]`, training images of largest weight, of 20 classes at most.
        lightest: likewise, of smallest weight.
        class_names: one per class, or empty.
        attribute_names: one per attribute, or empty.
    """

    weights: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray | None
    aligned: np.ndarray | None
    plane: plot.Plane | None
    heaviest: np.ndarray
    lightest: np.ndarray
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]

    def relative(self) -> np.ndarray:
        """Returns the weights as multiples of uniform ones `[n]`."""
        counts, total = (np.bincount(self.labels, each) for each in (None, self.weights))
        return self.weights * (counts / np.where(total > 0, total, 1))[self.labels]


# --- what figures are drawn from ---------------------------------------------------------------


def write(
    path: str | os.PathLike,
    data: datasets.Benchmark,
    weights: np.ndarray,
    *,
    plane: plot.Plane | None = None,
) -> None:
    """Writes what figures of weights are drawn from, whole or not at all.

    Args:
        path: of `FILE`.
        data: whose training samples have the weights.
        weights: `[n]`.
        plane: of the embeddings that the weights followed from.
    """
    train, order = data.train, np.argsort(-weights, kind="stable")
    arrays: dict[str, np.ndarray] = {
        "labels": np.asarray(train.labels, np.int32),
        "heaviest": _first(data, order),
        "lightest": _first(data, order[::-1]),
        "class_names": np.array(data.class_names, str),
        "attribute_names": np.array(data.attribute_names, str),
    }
    if train.attributes is not None and data.aligned is not None:
        arrays["attributes"] = np.asarray(train.attributes, np.int32)
        arrays["aligned"] = np.asarray(data.aligned, np.int32)
    if plane is not None:
        arrays |= {name: np.asarray(value) for name, value in plane._asdict().items()}
    files.write_arrays(path, arrays)


def _first(data, order):
    sizes = dict(num_classes=min(data.num_classes, _CLASSES), columns=_COLUMNS)
    drawn = plot.first_images(data.train.images, data.train.labels, order, **sizes)
    channels = drawn.shape[-1]
    return plot.thumbnails(drawn, mean=np.zeros(channels), std=np.ones(channels))


def read(folder: str | os.PathLike) -> FigureData | None:
    """Reads what `write` wrote beside the weights of a run.

    Args:
        folder: with weights.npz.

    Returns:
        None where one of the two files is missing, as in folders of earlier versions.

    Raises:
        ValueError: a file is damaged.
    """
    path, kept = (os.path.join(folder, name) for name in (FILE, "weights.npz"))
    if not (os.path.exists(path) and os.path.exists(kept)):
        return None
    with files.hint("delete it, since a report needs none"):
        found = files.read_arrays(path)
        try:
            attributes, aligned = found.get("attributes"), found.get("aligned")
            plane = None
            if "points" in found:
                drawn = found["points"], found["shares"], found["shown"]
                plane = plot.Plane(*drawn, int(found["total"]))
            classes, groups = (
                tuple(map(str, found[name])) for name in ("class_names", "attribute_names")
            )
            labels, heaviest, lightest = (
                found[name] for name in ("labels", "heaviest", "lightest")
            )
        except KeyError as error:
            raise ValueError(f"{path} lacks {error}") from error
    weights = store.read_weights(kept, count=len(labels))
    return FigureData(
        weights, labels, attributes, aligned, plane, heaviest, lightest, classes, groups
    )
