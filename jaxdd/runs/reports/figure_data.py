"""Data of the figures of a run: weights, embedding and real images, and scores by class and group.

figures.npz holds the data of the figures of sample weights, including some training images. It
stays in the run folder and is not part of exported sets.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxdd import evaluate
from jaxdd.data import benchmarks, datasets, files
from jaxdd.runs import results
from jaxdd.runs.folder import weights_file
from jaxdd.runs.reports import plot

FILE = "figures.npz"
"""Name of the file, in the folder of weights.npz."""

_REQUIRED = {"labels", "heaviest", "lightest", "class_names", "attribute_names"}
_MAX_CLASSES, _MAX_COLUMNS = 20, 8  # classes and images per class in pictures of real images


class FigureData(NamedTuple):
    """Data of the figures of sample weights; names of classes or attributes may be empty.

    Attributes:
        weights: Weights of the training samples, `[n]`.
        labels: Their classes, `[n]`.
        attributes: Their bias attributes, `[n]`, or None if unknown.
        aligned: Majority attribute of each class, `[k]`, or None if unknown.
        plane: Embeddings projected to a plane, or None for weights without embeddings.
        heaviest: Training images of largest weight, uint8 `[k, m, h, w, 3]`.
        lightest: Training images of smallest weight, uint8 `[k, m, h, w, 3]`.
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

    def is_uniform(self) -> bool:
        """Return whether each class has uniform weights, which need no figures."""
        # Multiples of the mean weight of the class, which do not depend on how weights are scaled.
        counts, totals = np.bincount(self.labels), np.bincount(self.labels, self.weights)
        relative = self.weights * (counts / np.where(totals > 0, totals, 1))[self.labels]
        return bool(np.ptp(relative) <= 1e-3)

    def extremes(self) -> dict[str, np.ndarray]:
        """Return the images of largest and of smallest weight, in [0, 1]."""
        images = {"heaviest": self.heaviest, "lightest": self.lightest}
        return {name: pixels / np.float32(255) for name, pixels in images.items()}


def write(
    path: pathlib.Path, data: datasets.Benchmark, weights: np.ndarray, plane: plot.Plane | None
) -> None:
    """Write the data of the figures of training weights `[n]`, except the weights themselves."""
    train, order = data.train, np.argsort(-weights, kind="stable")
    arrays: dict[str, np.ndarray] = {
        "labels": np.asarray(train.labels, np.int32),
        "heaviest": plot.thumbnails(_first_images(data, order)),
        "lightest": plot.thumbnails(_first_images(data, order[::-1])),
        "class_names": np.array(data.class_names, str),
        "attribute_names": np.array(data.attribute_names, str),
    }
    if train.attributes is not None and data.aligned is not None:
        arrays["attributes"] = np.asarray(train.attributes, np.int32)
        arrays["aligned"] = np.asarray(data.aligned, np.int32)
    if plane is not None:
        arrays |= {name: np.asarray(value) for name, value in plane._asdict().items()}
    files.write_arrays(path, arrays)


def _first_images(data: datasets.Benchmark, order: np.ndarray) -> np.ndarray:
    """Return the first training images of each class in some order, `[k, m, h, w, c]` in [0, 1]."""
    sizes = dict(num_classes=min(data.num_classes, _MAX_CLASSES), columns=_MAX_COLUMNS)
    return plot.first_images(data.train.images, data.train.labels, order, **sizes)


def read(folder: pathlib.Path) -> FigureData | None:
    """Read the figure data and weights.npz in a folder; None if one of the two files is missing."""
    path, weights_path = (pathlib.Path(folder, name) for name in (FILE, "weights.npz"))
    if not (path.exists() and weights_path.exists()):
        return None
    with files.hint("delete it; a report can be made without it"):
        arrays = files.read_arrays(path)
        if missing := sorted(_REQUIRED - arrays.keys()):
            raise ValueError(f"{path} lacks the array {missing[0]}")
    plane = None
    if "points" in arrays:
        points, shares, shown = (arrays[name] for name in ("points", "shares", "shown"))
        plane = plot.Plane(points, shares, shown, int(arrays["total"]))
    weights = weights_file.read(weights_path, count=len(arrays["labels"]))
    classes, groups = (tuple(map(str, arrays[x])) for x in ("class_names", "attribute_names"))
    return FigureData(
        weights, arrays["labels"], arrays.get("attributes"), arrays.get("aligned"), plane,
        arrays["heaviest"], arrays["lightest"], classes, groups,
    )  # fmt: skip


def breakdown(data: datasets.Benchmark, scores: evaluate.Scores) -> dict[str, Any]:
    """Return sizes and accuracies as {"by_class": ..., "by_group": ..., "deo_classes": ...}.

    Those of groups are None if the attributes of the test images are unknown.
    """
    parts = data.train, data.test
    sizes = [np.bincount(part.labels, minlength=data.num_classes) for part in parts]
    by_class, by_group = _breakdown(data.class_names, sizes, scores.classes), None
    deo_classes = None
    if data.test.attributes is not None:
        count = lambda part: benchmarks.group_counts(data, part)
        train = None if data.train.attributes is None else count(data.train)
        test = count(data.test)
        by_group = _breakdown(data.attribute_names, (train, test), scores.groups)
        deo_classes = int(((test > 0).sum(1) > 1).sum())
    return {"by_class": by_class, "by_group": by_group, "deo_classes": deo_classes}


def _breakdown(names, sizes, accuracies):
    """Return means and deviations over networks, the first axis of the accuracies."""
    train, test = sizes
    accuracies = np.asarray(accuracies, float)
    std = np.zeros(accuracies.shape[1:]) if len(accuracies) == 1 else accuracies.std(0, ddof=1)
    return results.Breakdown(tuple(names), train, test, accuracies.mean(0), std)
