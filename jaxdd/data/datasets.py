"""Data sets in, as uint8 arrays: people's own images, and the types that all sets come in.

`from_arrays` takes any images with labels, `from_folder` what `jaxdd.data.folders` read from a
disk; `jaxdd.data.benchmarks` knows the field's benchmarks by name. All return a `Benchmark`: images
as they are on disk (grey or RGB, 0..255), and beside them what one needs to normalise, augment and
score them. Attributes travel along for scoring only.
"""

import numbers
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdd import _checks, augment, evaluate, sampling
from jaxdd.data import bias, files, folders

_MOST_ATTRIBUTES = 2**16  # tables have a column for each


Strategy = Sequence[str] | Callable[..., Any]
"""Names out of `jaxdd.augment.OPERATIONS`, or a function that augments."""

UNFLIPPED = tuple(name for name in augment.OPERATIONS if name != "flip")
"""Augmentation operations that leave the class of most images alone, even of digits and signs."""


class Dataset(NamedTuple):
    """Images with their classes and, where known, their bias attributes.

    Attributes:
        images: uint8 [n, h, w, c], 0..255.
        labels: class of each image, int32 [n].
        attributes: bias attribute of each image, int32 [n], or None.
    """

    images: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray | None = None


class Benchmark(NamedTuple):
    """A training and a test set, and how to read them.

    Attributes:
        name: the name it was loaded by.
        train: the set to distil.
        test: the set to score on; unbiased (uniform attribute) in the biased benchmarks.
        num_classes: number of classes, k.
        num_attributes: number of bias attributes, 0 where none are known.
        aligned: the attribute each class is aligned with, k integers, or None.
        mean: per channel, of images / 255.
        std: per channel, of images / 255.
        strategy: augmentation operations that leave the class alone (digits must not be flipped),
            or a function that augments.
        class_names: one per class, or empty.
        attribute_names: one per attribute, or empty.
    """

    name: str
    train: Dataset
    test: Dataset
    num_classes: int
    num_attributes: int
    aligned: tuple[int, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    strategy: tuple[str, ...] | Callable[..., Any]
    class_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    attributes: np.ndarray | None = None,
    *,
    test: Sequence[np.ndarray | None] | None = None,
    num_classes: int | None = None,
    test_fraction: float = 0.2,
    strategy: Strategy | None = None,
    seed: int = 0,
    name: str = "arrays",
) -> Benchmark:
    """Makes a benchmark of one's own images.

    Args:
        images: [n, h, w] or [n, h, w, c]; uint8, or floats in [0, 1], which are rounded to uint8.
        labels: class of each image, integers [n] from 0.
        attributes: bias attribute of each image, integers [n] from 0, where known. They are used to
            score, never to distil.
        test: (images, labels) or (images, labels, attributes) to score on; by default a stratified
            share is split off.
        num_classes: number of classes; largest label plus one by default.
        test_fraction: share to split off, in (0, 1); at least one image of each class goes to
            either side.
        strategy: augmentation operations that leave the class alone, out of "color", "crop",
            "cutout", "flip", "scale" and "rotate" (see `jaxdd.augment.draw`), or a function that
            augments, which is kept as it is. By default all but "flip": mirrored digits, letters or
            traffic signs are of another class. Give `jaxdd.augment.OPERATIONS` where mirrored
            images keep theirs.
        seed: draws the split; 0 <= seed < 2**32.
        name: what to call it; no path out of a folder.

    Returns:
        The benchmark. Mean and std are those of the training images (std 1 for a constant channel);
        `aligned` is the majority attribute of each training class, None without attributes.

    Raises:
        TypeError: images or labels of the wrong type, or a strategy that is a string.
        ValueError: shapes that do not fit, values out of range or none beyond 1 of 255, an unknown
            augmentation operation, a name that is a path out of a folder, a class without training
            images, or with fewer than two when splitting.

    >>> made = from_arrays(np.zeros((10, 8, 8), np.uint8), np.arange(10) % 2, np.arange(10) % 2)
    >>> made.train.images.shape, made.test.images.shape, made.num_classes, made.aligned
    ((8, 8, 8, 1), (2, 8, 8, 1), 2, (0, 1))
    """
    strategy = check_strategy(strategy)
    _check_name(name)
    most = 2**31 - 1
    k = most if num_classes is None else check_integer("num_classes", num_classes, 1, most)
    train = _dataset("", images, labels, attributes, k)
    k = int(train.labels.max()) + 1 if num_classes is None else k
    _check_classes(train.labels, k, at_least=2 if test is None else 1)
    if test is None:
        fraction = check_share("test_fraction", test_fraction, open_interval=True)
        train, scored = _split(train, fraction, seed=check_integer("seed", seed, 0, 2**32 - 1))
    else:
        scored = _given_test(test, train, k)
    known = [d.attributes for d in (train, scored) if d.attributes is not None]
    num_attributes = max((int(a.max()) + 1 for a in known), default=0)
    aligned = None
    if train.attributes is not None:
        aligned = bias.majority(
            train.labels, train.attributes, num_classes=k, num_attributes=num_attributes
        )
        aligned = tuple(aligned.tolist())
    statistics = _statistics(train.images)
    return Benchmark(name, train, scored, k, num_attributes, aligned, *statistics, strategy)


def from_folder(
    folder: folders.Folder,
    *,
    strategy: Strategy | None = None,
    name: str = "folder",
    seed: int = 0,
) -> Benchmark:
    """Makes a benchmark of the images in a folder.

    Args:
        folder: what `jaxdd.data.folders.read` found.
        strategy: augmentation operations that leave the class alone, as in `from_arrays`; all but
            "flip" by default, since mirrored digits, letters or traffic signs are of another class.
        name: what to call it.
        seed: draws the test images where the folder does not say which they are.

    Returns:
        The benchmark; a stratified fifth is split off unless the folder has a test set. Splits that
        lie together in the folder's images, as they do in a map, are views of them.

    Raises:
        TypeError: a strategy that is a string.
        ValueError: an unknown augmentation operation, a class without training images, or with
            fewer than two when splitting.
    """
    test = folder.test
    if test is None:
        seed = check_integer("seed", seed, 0, 2**32 - 1)
        test = folders.held_out(folder.labels, seed=seed, names=folder.class_names)
    data = Dataset(folder.images, folder.labels, folder.attributes)
    made = from_arrays(
        *select(data, _together(~test)),
        test=select(data, _together(test)),
        num_classes=len(folder.class_names),
        strategy=strategy,
        name=name,
    )
    return made._replace(
        class_names=folder.class_names, attribute_names=folder.attribute_names or ()
    )


def select(data: Dataset, rows: np.ndarray | slice) -> Dataset:
    """Returns some of the samples; rows are indices [m], a mask [n], or a slice, for views."""
    attributes = None if data.attributes is None else data.attributes[rows]
    return Dataset(data.images[rows], data.labels[rows], attributes)


def digest(benchmark: Benchmark) -> str:
    """Returns 32 hexadecimal digits of a benchmark's images, labels and attributes."""
    return files.digest(*benchmark.train, *benchmark.test)


def pool(
    benchmark: Benchmark,
    weights: jax.Array | None = None,
    *,
    index: Callable[..., sampling.Pool] = sampling.pool,
) -> sampling.Pool:
    """Puts the training set on the device, ready for drawing from it.

    Args:
        benchmark: the data.
        weights: of the training samples [n], at least 0; uniform when None.
        index: makes the pool; `functools.partial(spread.pool, mesh=mesh)` has the devices
            of a mesh share the images.

    Returns:
        The pool, with the images as uint8.

    Raises:
        ValueError: unusable weights, see `jaxdd.sampling.pool`.
    """
    return index(
        benchmark.train.images,
        benchmark.train.labels,
        num_classes=benchmark.num_classes,
        mean=benchmark.mean,
        std=benchmark.std,
        weights=weights,
    )


def task(benchmark: Benchmark) -> evaluate.Task:
    """Puts the test set on the device, with what networks need to be trained for it and scored.

    Args:
        benchmark: the data.
    """
    return evaluate.task(
        *benchmark.test,
        benchmark.aligned,
        num_classes=benchmark.num_classes,
        num_attributes=benchmark.num_attributes,
        mean=benchmark.mean,
        std=benchmark.std,
        strategy=benchmark.strategy,
    )


def group_pool(
    benchmark: Benchmark, *, index: Callable[..., sampling.Pool] = sampling.pool
) -> sampling.Pool:
    """Puts the training set on the device, indexed by bias group for `sampling.grouped`.

    The classes of this pool are the groups, number `class · num_attributes + attribute`; those
    without samples are empty.

    Args:
        benchmark: the data.
        index: as in `pool`.

    Raises:
        ValueError: the training set has no attributes.
    """
    train, groups = benchmark.train, benchmark.num_attributes
    if train.attributes is None:
        raise ValueError(f"groups need bias attributes, {benchmark.name} has none")
    return index(
        train.images,
        train.labels * groups + train.attributes,
        num_classes=benchmark.num_classes * groups,
        mean=benchmark.mean,
        std=benchmark.std,
        empty=True,
    )


def check_strategy(strategy: Strategy | None) -> tuple[str, ...] | Callable[..., Any]:
    """Returns `UNFLIPPED` for None, names as a tuple and a function as it is; raises for others."""
    if strategy is None:
        return UNFLIPPED
    if callable(strategy):
        return strategy
    augment.check_strategy(strategy)
    return tuple(strategy)


def check_share(name: str, value: float, *, open_interval: bool = False) -> float:
    """Returns a share in [0, 1], or in (0, 1); raises what `name` must be if it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, found {type(value).__name__}")
    if not 0 <= value <= 1 or (open_interval and value in (0, 1)):
        interval = "(0, 1)" if open_interval else "[0, 1]"
        raise ValueError(f"{name} must lie in {interval}, found {value}")
    return float(value)


def check_integer(name: str, value: int, low: int, high: int) -> int:
    """Returns an integer in low..high; raises what `name` must be if it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, found {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in {low}..{high}, found {value}")
    return int(value)


def _split(data, fraction, *, seed):
    held = folders.held_out(data.labels, seed=seed, fraction=fraction)
    return select(data, ~held), select(data, held)


def _together(rows):
    """A slice where the rows of a mask are neighbours, which copies nothing."""
    (found,) = np.nonzero(rows)
    if len(found) and found[-1] - found[0] + 1 == len(found):
        return slice(found[0], found[-1] + 1)
    return rows


def _statistics(images):
    # Sums of whole numbers are exact, so that blocks of rows change no bit. uint16 holds 255².
    total = square = 0
    rows = max(1, 2**20 // images[0].size)
    for block in (images[first : first + rows] for first in range(0, len(images), rows)):
        total = total + block.sum(axis=(0, 1, 2), dtype=np.float64)
        squares = np.square(block, dtype=np.uint16)
        square = square + squares.sum(axis=(0, 1, 2), dtype=np.float64)
    n = images[..., 0].size
    mean = total / n
    std = np.sqrt(np.maximum(square / n - mean**2, 0)) / 255
    return tuple((mean / 255).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _dataset(which, images, labels, attributes, num_classes):
    images = _images(f"{which}images", images)
    n = len(images)
    labels = np.array(_checks.integers(f"{which}labels", labels, num_classes, length=n))
    if attributes is not None:
        attributes = np.array(
            _checks.integers(f"{which}attributes", attributes, _MOST_ATTRIBUTES, length=n)
        )
    return Dataset(images, labels, attributes)


def _given_test(test, train, num_classes):
    if not isinstance(test, (tuple, list)) or len(test) not in (2, 3):
        raise ValueError("test must be (images, labels) or (images, labels, attributes)")
    images, labels, attributes = *test, *(None,) * (3 - len(test))
    data = _dataset("test ", images, labels, attributes, num_classes)
    if data.images.shape[1:] != train.images.shape[1:]:
        raise ValueError(
            f"training and test images must have the same shape, found {train.images.shape[1:]} "
            f"and {data.images.shape[1:]}"
        )
    return data


def _images(name, images):
    images = np.asarray(images)
    shape = images.shape
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or 0 in shape:
        raise ValueError(
            f"{name} must be [n, h, w] or [n, h, w, c] and not empty, found shape {shape}"
        )
    if images.shape[1] < images.shape[2] == images.shape[3] > 3:
        raise ValueError(
            f"{name} must be [n, h, w, c], found shape {shape}, which looks like [n, c, h, w]; "
            "transpose it by (0, 2, 3, 1)"
        )
    if images.dtype == np.uint8:
        if images[:1].max() < 2 and images.max() == 1:  # most often the first one tells
            raise ValueError(
                f"{name} must reach beyond 1 of 0..255 when they are uint8, or all are black; "
                "multiply masks of 0 and 1 by 255, or give them as floats"
            )
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"{name} must be uint8, or floats in [0, 1], found {images.dtype}")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must lie in [0, 1] when they are floats, found {low}..{high}")
    if 0 < high <= 1 / 255:
        raise ValueError(
            f"{name} must reach beyond 1/255 when they are floats, or all are black, found "
            f"{low}..{high}; were they divided by 255 twice?"
        )
    return np.rint(images * 255).astype(np.uint8)


def _check_name(name):
    """Refuses a path out of the folder it is in; sets of tensorflow-datasets may be called a/b."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, found {name!r}")
    for path in (pathlib.PurePosixPath(name), pathlib.PureWindowsPath(name)):
        if path.anchor or ".." in path.parts or not name.isprintable():
            raise ValueError(f"name must be no path out of a folder, found {name!r}")


def _check_classes(labels, num_classes, *, at_least):
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < num_classes:
        absent = next(c for c in range(num_classes) if c >= len(present) or present[c] != c)
        raise ValueError(f"class {absent} of {num_classes} has no training images")
    if counts.min() < at_least:
        raise ValueError(
            f"class {counts.argmin()} needs at least {at_least} images to be split into training "
            f"and test, found {counts.min()}; give more, or a test set of its own"
        )
