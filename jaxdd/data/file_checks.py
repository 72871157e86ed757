"""Check whether properties of image files predict their class before the images are decoded.

If classes were photographed, exported or compressed in different ways, their files differ in size,
format or compression. Decoding and resizing hide the cause of such a bias, but not all of its
traces. `check` measures how often each property alone predicts the class.
"""

import collections
import functools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdd.data import bias, decoding

_FOLDS = 5
_ROWS = 64  # files per block
_FEW = 50  # a property with at most this many values has one leaf per value

# Luminance table of the JPEG standard (annex K), from which encoders scale theirs by the quality.
_LUMINANCE = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
]  # fmt: skip


class FileCheck(NamedTuple):
    """How often one property of the files predicts their class.

    Attributes:
        name: "size", "aspect ratio", "format", "colour mode", "file size per pixel",
            "JPEG quality" or "metadata".
        accuracy: cross-validated accuracy of a classifier that sees this property only, in [0, 1].
        chance: share of the largest class, in [0, 1], the accuracy without any information.
        standard_error: standard error of the accuracy of a property without information,
            √(chance · (1 − chance) / count).
        count: number of files; only JPEG files have a JPEG quality.
        significant: whether the accuracy exceeds chance by three standard errors, and by a tenth of
            the smaller of chance and 1 − chance.
        reading: one sentence about a significant property, otherwise "".
        typical: value of each class that has such files, by class: the most frequent value with its
            share, or the median of a number.
    """

    name: str
    accuracy: float
    chance: float
    standard_error: float
    count: int
    significant: bool
    reading: str
    typical: dict[int, str]


class _Header(NamedTuple):
    size: tuple[int, int]
    format: str
    mode: str
    bytes: int
    quality: float | None
    metadata: str


def check(
    root: str | os.PathLike, names: Sequence[str], labels: np.ndarray, *, threads: int | None = None
) -> list[FileCheck]:
    """Return how often each property of the files predicts the class.

    Only headers are read. The classifier is a decision tree, evaluated by stratified five-fold
    cross-validation. Files that cannot be read are ignored.

    Args:
        root: folder of images.
        names: path of each file relative to the folder, [n], such as `Benchmark.train_files`.
        labels: class of each file, integers [n].
        threads: number of threads that read. Defaults to one per core, at most eight.

    Returns:
        The properties that differ between files, the largest accuracy above chance first; none if
        all files are of one class.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     names = [f"{i}.png" for i in range(40)]
    ...     for i, name in enumerate(names):
    ...         Image.new("RGB", (30, 20 + 10 * (i % 2))).save(f"{folder}/{name}")
    ...     checks = check(folder, names, np.arange(40) % 2)
    >>> checks[0].reading
    'size alone predicts the class for 100 % of the files; chance is 50 %'
    >>> checks[0].typical
    {0: '30×20 (100 %)', 1: '30×30 (100 %)'}
    """
    if len(names) != len(labels):
        raise ValueError(f"labels must have one entry per file, got {len(labels)}, {len(names)}.")
    headers: list[_Header | None] = []
    paths = [os.fspath(pathlib.Path(root, name)) for name in names]
    read = lambda paths: [_read_header(path) for path in paths]
    decoding.map_blocks(read, paths, _ROWS, headers.extend, threads)
    known = [(header, y) for header, y in zip(headers, labels, strict=True) if header is not None]
    columns = {
        "size": lambda header: header.size,
        "aspect ratio": lambda header: header.size[0] / header.size[1],
        "format": lambda header: header.format,
        "colour mode": lambda header: header.mode,
        "file size per pixel": lambda header: header.bytes / math.prod(header.size),
        "JPEG quality": lambda header: header.quality,
        "metadata": lambda header: header.metadata,
    }
    checks = []
    for name, column in columns.items():
        pairs = [(value, y) for header, y in known if (value := column(header)) is not None]
        values, classes = [value for value, _ in pairs], np.array([y for _, y in pairs], int)
        if len(set(values)) > 1 and len(set(classes.tolist())) > 1:
            checks.append(_check(name, values, classes))
    return sorted(checks, key=lambda record: record.chance - record.accuracy)


def _read_header(path):
    """Return the header of a file, None if it cannot be read."""
    try:
        with decoding.open_image(path) as image:
            # JFIF has several entries, of which one is enough.
            metadata = sorted(str(key) for key in image.info if not str(key).startswith("jfif_"))
            return _Header(
                image.size, image.format, image.mode, os.path.getsize(path), _jpeg_quality(image),
                " ".join(metadata) or "none",
            )  # fmt: skip
    except Exception:  # pillow raises OSError, SyntaxError, struct.error and more
        return None


def _jpeg_quality(image):
    """Return the quality 1..100 whose luminance table has the closest sum; None if not JPEG."""
    tables = getattr(image, "quantization", None)
    if image.format != "JPEG" or not tables:
        return None
    return float(1 + np.abs(_luminance_sums() - sum(tables[min(tables)])).argmin())


@functools.cache
def _luminance_sums():
    """Return the sum of the luminance table of each quality q = 1..100 of libjpeg.

    It multiplies the table of the standard by 50 / q below q = 50, and by 2 − q / 50 above.
    """
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((np.outer(percent, _LUMINANCE) + 50) // 100, 1, 255).sum(1)


def _check(name, values, classes):
    counts = np.unique(classes, return_counts=True)[1]
    chance, n = float(counts.max() / len(classes)), len(classes)
    accuracy = float((_predictions(_features(values), classes) == classes).mean())
    error = (chance * (1 - chance) / n) ** 0.5
    significant = bool(accuracy > chance + max(3 * error, min(chance, 1 - chance) / 10))
    reading = ""
    if significant:
        reading = (
            f"{name} alone predicts the class for {100 * accuracy:.0f} % of the files; chance is "
            f"{100 * chance:.0f} %"
        )
        if name == "file size per pixel":
            reading += "; it also depends on what the images show"
    typical = {
        int(k): _typical([value for value, y in zip(values, classes, strict=True) if y == k])
        for k in np.unique(classes)
    }
    return FileCheck(name, accuracy, chance, error, n, significant, reading, typical)


def _features(values):
    """Return values as floats [n, d]: numbers and pairs of numbers themselves, codes of texts."""
    if isinstance(values[0], str):
        values = np.unique(values, return_inverse=True)[1]
    return np.reshape(np.asarray(values, float), (len(values), -1))


def _predictions(features, classes):
    """Return out-of-fold predictions of a decision tree [n]."""
    from sklearn.tree import DecisionTreeClassifier

    # Many values need leaves of several files, so that the tree does not learn single files.
    leaf = 1
    if len(np.unique(features, axis=0)) > _FEW:
        leaf = max(2, len(classes) // max(_FEW, 4 * len(np.unique(classes))))
    predictions = np.full(len(classes), -1)
    fold = bias.rank_in_class(np.random.default_rng(0).random(len(classes)), classes, xp=np)
    for test in (fold % _FOLDS == i for i in range(_FOLDS)):
        if test.any() and not test.all():
            tree = DecisionTreeClassifier(min_samples_leaf=leaf, random_state=0)
            tree.fit(features[~test], classes[~test])
            predictions[test] = tree.predict(features[test])
    return predictions


def _typical(values):
    if isinstance(values[0], float):
        return f"{np.median(values):.3g}"
    (value, count), *_ = collections.Counter(values).most_common(1)
    text = value if isinstance(value, str) else "×".join(map(str, value))
    return f"{text} ({100 * count / len(values):.0f} %)"
