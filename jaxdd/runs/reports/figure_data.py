"""What a run keeps for its page beside the scores: accuracies by class, and what figures show.

`breakdown` counts and scores classes and groups. `figures.npz` holds some training
images, the heaviest and the lightest of each class. It is in the run folder and in no published
set.
"""

import os
from typing import Any, NamedTuple

import numpy as np

from jaxdd import evaluate
from jaxdd.data import datasets, files
from jaxdd.runs import old_results as results
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


# --- by class and group ------------------------------------------------------------------------


def breakdown(data: datasets.Benchmark, scores: evaluate.Scores) -> dict[str, Any]:
    """Returns sizes and accuracies of classes and groups, and whether networks learnt at all.

    Args:
        data: that networks were scored on.
        scores: of several networks.
    """
    counts = lambda part: np.bincount(part.labels, minlength=data.num_classes)
    found: dict[str, Any] = {
        "by_class": _by(data, counts, scores.classes, data.class_names),
        "by_group": None,
    }
    known = data.aligned is not None and data.test.attributes is not None
    if known and data.train.attributes is not None:
        shape = data.num_classes, data.num_attributes
        groups = lambda part: np.histogram2d(
            part.labels, part.attributes, [np.arange(n + 1) for n in shape]
        )[0].astype(int)
        found["by_group"] = _by(data, groups, scores.groups, data.attribute_names)
    summary = evaluate.summary(scores)
    return found | {"learnt": results.learnt({**summary, **found})}


def _by(data, counts, shares, names):
    shares = np.asarray(shares, float)
    std = shares.std(axis=0, ddof=1) if len(shares) > 1 else np.zeros(shares.shape[1:])
    sizes = {"train": counts(data.train), "test": counts(data.test)}
    return files.to_json({"names": list(names), **sizes, "mean": shares.mean(0), "std": std})


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
    files.write_arrays(path, files.sealed(arrays))


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
        found = files.read_arrays(path, must_be_sealed=True)
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
