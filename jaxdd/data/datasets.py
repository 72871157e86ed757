"""Make benchmarks of your own images, and put benchmarks on the device.

`from_arrays` takes images with labels, `from_folder` the result of `jaxdd.data.folders.read`;
`jaxdd.data.benchmarks` loads the benchmarks of the field by name. All return a `Benchmark`: uint8
images, and what is needed to normalise, augment and score them. Attributes are used for scoring
only.
"""

import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdd import _checks, augment, evaluate, sampling
from jaxdd.data import _arguments, bias, files, folders, splits

_MAX_ATTRIBUTES = 2**16  # tables have a column for each
_MAX_CLASSES = 2**31 - 1

UNFLIPPED = tuple(name for name in augment.OPERATIONS if name != "flip")
"""Augmentation operations that keep the class of most images, including digits and signs."""


class Dataset(NamedTuple):
    """Images with their classes and, if known, their bias attributes.

    Attributes:
        images: uint8 [n, h, w, c], 0..255.
        labels: class of each image, int32 [n].
        attributes: bias attribute of each image, int32 [n], or None.
    """

    images: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray | None = None


class Benchmark(NamedTuple):
    """A training and a test set, with their normalisation, augmentation and names.

    Attributes:
        name: name that it was loaded by.
        train: the set to distil.
        test: the set to score on; unbiased (uniform attribute) in the biased benchmarks.
        num_classes: number of classes, k.
        num_attributes: number of bias attributes, 0 if none are known.
        aligned: attribute that each class is aligned with, k integers; None unless the attributes
            of all training images are known.
        mean: mean of images / 255 per channel.
        std: standard deviation of images / 255 per channel.
        strategy: augmentation operations that keep the class (digits must not be flipped), or a
            function that augments.
        class_names: one name per class, or empty.
        attribute_names: one name per attribute, or empty.
        train_files: path of each training image relative to its folder, or empty.
        test_files: the same of the test images.
        bias_labels: attribute of each training image, int32 [n], -1 where it is unknown; None
            unless the attributes of some, but not all training images are known. Then
            `train.attributes` and `aligned` are None.
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
    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    bias_labels: np.ndarray | None = None


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    attributes: np.ndarray | None = None,
    *,
    test: Sequence[np.ndarray | None] | None = None,
    num_classes: int | None = None,
    test_fraction: float = 0.2,
    strategy: augment.Strategy | None = None,
    seed: int = 0,
    name: str = "arrays",
) -> Benchmark:
    """Make a benchmark of your own images.

    Args:
        images: [n, h, w] or [n, h, w, c]; uint8, or floats in [0, 1], which are rounded to uint8.
        labels: class of each image, integers [n] from 0.
        attributes: bias attribute of each image, integers [n] from 0, or -1 if it is unknown.
            Attributes of only some training images become `bias_labels`. Attributes of only some
            test images are not used.
        test: (images, labels) or (images, labels, attributes) to score on. Defaults to a stratified
            share of the images, which is split off.
        num_classes: number of classes. Defaults to the largest label plus one.
        test_fraction: share to split off, in (0, 1); at least one image of each class goes to
            either side.
        strategy: augmentation operations that keep the class, from "color", "crop", "cutout",
            "flip", "scale" and "rotate", or a function that augments. Defaults to all but "flip",
            because mirrored digits, letters or traffic signs have another class.
        seed: random seed of the split; 0 <= seed < 2**32.
        name: name of the benchmark; a relative path without "..", because folders are named after
            it.

    Returns:
        The benchmark. Mean and std are those of the training images (std 1 for a constant channel);
        `aligned` is the majority attribute of each training class, None without attributes.

    >>> data = from_arrays(np.zeros((10, 8, 8), np.uint8), np.arange(10) % 2, np.arange(10) % 2)
    >>> data.train.images.shape, data.test.images.shape, data.num_classes, data.aligned
    ((8, 8, 8, 1), (2, 8, 8, 1), 2, (0, 1))
    """
    strategy = augment.as_strategy(UNFLIPPED if strategy is None else strategy)
    _check_name(name)
    k = _MAX_CLASSES if num_classes is None else num_classes
    k = _arguments.integer("num_classes", k, 1, _MAX_CLASSES)
    train = _dataset("", images, labels, attributes, k)
    k = int(train.labels.max()) + 1 if num_classes is None else k
    _check_classes(train.labels, k, at_least=2 if test is None else 1)
    if test is None:
        fraction = _arguments.share("test_fraction", test_fraction, open_interval=True)
        is_test = splits.draw_test(train.labels, seed=_arguments.seed(seed), fraction=fraction)
        train, test_data = select(train, ~is_test), select(train, is_test)
    else:
        test_data = _test_dataset(test, train, k)
    attributes_of = [d.attributes for d in (train, test_data) if d.attributes is not None]
    num_attributes = max((int(a.max()) + 1 for a in attributes_of), default=0)
    (train, bias_labels), (test_data, _) = map(_split_off_unknown, (train, test_data))
    if bias_labels is not None:
        _check_bias_labels(bias_labels)
    aligned = None
    if train.attributes is not None:
        aligned = bias.majority(
            train.labels, train.attributes, num_classes=k, num_attributes=num_attributes
        )
        aligned = tuple(aligned.tolist())
    statistics = _statistics(train.images)
    return Benchmark(
        name, train, test_data, k, num_attributes, aligned, *statistics, strategy,
        bias_labels=bias_labels,
    )  # fmt: skip


def from_folder(
    folder: folders.Folder,
    *,
    strategy: augment.Strategy | None = None,
    name: str = "folder",
    seed: int = 0,
) -> Benchmark:
    """Make a benchmark of a folder of images.

    Args:
        folder: result of `jaxdd.data.folders.read`.
        strategy: augmentation operations that keep the class, see `from_arrays`.
        name: name of the benchmark.
        seed: random seed of the test images, a stratified fifth, if the folder has no splits.

    Returns:
        The benchmark. Splits that are contiguous in the images of the folder, as in mapped images,
        are views of them.
    """
    test = folder.test
    if test is None:
        seed = _arguments.seed(seed)
        test = splits.draw_test(folder.labels, seed=seed, names=folder.class_names)
    data = Dataset(folder.images, folder.labels, folder.attributes)
    benchmark = from_arrays(
        *select(data, _slice_of(~test)),
        test=select(data, _slice_of(test)),
        num_classes=len(folder.class_names),
        strategy=strategy,
        name=name,
    )
    return benchmark._replace(
        class_names=folder.class_names,
        attribute_names=folder.attribute_names or (),
        train_files=tuple(itertools.compress(folder.files, ~test)),
        test_files=tuple(itertools.compress(folder.files, test)),
    )


def select(data: Dataset, rows: np.ndarray | slice) -> Dataset:
    """Return the samples of rows: indices [m], a mask [n], or a slice, which gives views."""
    attributes = None if data.attributes is None else data.attributes[rows]
    return Dataset(data.images[rows], data.labels[rows], attributes)


def ties(benchmark: Benchmark) -> list[str]:
    """Return a sentence for each class whose aligned attribute is as frequent as another one.

    >>> samples = np.zeros((8, 8, 8), np.uint8), np.arange(8) // 4, np.arange(8) % 2
    >>> ties(from_arrays(*samples, test=samples))[0]
    'class 0 has 2 training images with each of the attributes 0, 1: 0 counts as aligned'
    """
    train, aligned = benchmark.train, benchmark.aligned
    if train.attributes is None or aligned is None:
        return []
    names = benchmark.attribute_names or range(benchmark.num_attributes)
    sentences = []
    for k, first in enumerate(aligned):
        present = train.attributes[train.labels == k]
        counts = np.bincount(present, minlength=benchmark.num_attributes)
        tied = np.flatnonzero(counts == counts.max())
        if len(tied) > 1 and first in tied:
            name = benchmark.class_names[k] if benchmark.class_names else k
            sentences.append(
                f"class {name} has {counts.max()} training images with each of the attributes "
                f"{', '.join(str(names[i]) for i in tied)}: {names[first]} counts as aligned"
            )
    return sentences


def digest(benchmark: Benchmark) -> str:
    """Return a hash of the images, labels and attributes of a benchmark, 32 hexadecimal digits."""
    some = () if benchmark.bias_labels is None else (benchmark.bias_labels,)
    return files.digest(*benchmark.train, *benchmark.test, *some)


def pool(
    benchmark: Benchmark,
    weights: jax.Array | None = None,
    *,
    index: Callable[..., sampling.Pool] = sampling.pool,
) -> sampling.Pool:
    """Put the training set on the device, indexed by class for sampling.

    Args:
        benchmark: the data.
        weights: weight of each training sample [n], at least 0. Defaults to uniform.
        index: function that makes the pool. `functools.partial(split_pool.pool, mesh=mesh)` splits
            the images over the devices of a mesh.
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
    """Put the test set on the device, with all that is needed to train networks and score them."""
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
    """Put the training set on the device, indexed by bias group for `sampling.grouped`.

    The classes of this pool are the groups, with index `class · num_attributes + attribute`; groups
    without samples are empty.

    Args:
        benchmark: the data, with attributes.
        index: function that makes the pool, see `pool`.
    """
    train, groups = benchmark.train, benchmark.num_attributes
    if train.attributes is None:
        raise ValueError(f"groups need bias attributes, {benchmark.name} has none.")
    return index(
        train.images,
        train.labels * groups + train.attributes,
        num_classes=benchmark.num_classes * groups,
        mean=benchmark.mean,
        std=benchmark.std,
        empty=True,
    )


def _slice_of(mask):
    """Return a slice, which copies nothing, if the rows of a mask are contiguous."""
    (rows,) = np.nonzero(mask)
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return mask


def _statistics(images):
    # Sums of integers are exact in float64, so the size of blocks changes no bit. uint16 fits 255².
    total = square = 0
    rows = max(1, 2**20 // images[0].size)
    for block in (images[first : first + rows] for first in range(0, len(images), rows)):
        total = total + block.sum(axis=(0, 1, 2), dtype=np.float64)
        squares = np.square(block, dtype=np.uint16)
        square = square + squares.sum(axis=(0, 1, 2), dtype=np.float64)
    # Var(x) = E(x²) − E(x)² is accurate here, because the sums are exact.
    n = images[..., 0].size
    mean = total / n
    std = np.sqrt(np.maximum(square / n - mean**2, 0)) / 255
    return tuple((mean / 255).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _dataset(which, images, labels, attributes, num_classes):
    images = _images(f"{which}images", images)
    n = len(images)
    labels = np.array(_checks.integers(f"{which}labels", labels, num_classes, length=n))
    if attributes is not None:
        attributes = np.asarray(attributes)
        known = attributes != -1
        codes = np.where(known, attributes, 0)
        codes = _checks.integers(f"{which}attributes", codes, _MAX_ATTRIBUTES, length=n)
        attributes = np.where(known, codes, -1).astype(np.int32) if known.any() else None
    return Dataset(images, labels, attributes)


def _split_off_unknown(data):
    """Return a data set, and its attributes apart from it if only some of them are known."""
    if data.attributes is None or (data.attributes >= 0).all():
        return data, None
    some = data.attributes if (data.attributes >= 0).any() else None
    return data._replace(attributes=None), some


def _check_bias_labels(attributes):
    known = attributes[attributes >= 0]
    if (known == known[0]).all():
        raise ValueError(
            f"attributes must have at least two values, got {known[0]} for all {len(known)} "
            f"training images (of {len(attributes)}) with a known attribute; -1 means unknown."
        )


def _test_dataset(test, train, num_classes):
    if not isinstance(test, (tuple, list)) or len(test) not in (2, 3):
        raise ValueError("test must be (images, labels) or (images, labels, attributes).")
    images, labels, attributes = *test, *(None,) * (3 - len(test))
    data = _dataset("test ", images, labels, attributes, num_classes)
    if data.images.shape[1:] != train.images.shape[1:]:
        raise ValueError(
            f"training and test images must have the same shape, got {train.images.shape[1:]} "
            f"and {data.images.shape[1:]}."
        )
    return data


def _images(name, images):
    # PyTorch tensors that require gradients are no arrays until they are detached.
    images = np.asarray(images.detach() if hasattr(images, "detach") else images)
    shape = images.shape
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or 0 in shape:
        raise ValueError(
            f"{name} must be [n, h, w] or [n, h, w, c] and not empty, got shape {shape}."
        )
    is_square = images.shape[1] < images.shape[2] == images.shape[3] > 3
    if is_square or (images.shape[1] <= 4 < min(images.shape[2:])):
        raise ValueError(
            f"{name} must be [n, h, w, c], got shape {shape}, which looks like [n, c, h, w]; "
            "transpose with images.transpose(0, 2, 3, 1)."
        )
    if images.dtype == np.uint8:
        if images[:1].max() < 2 and images.max() == 1:  # usually the first image suffices
            raise ValueError(
                f"{name} of type uint8 must use the range 0..255, got values up to 1; multiply "
                "masks of 0 and 1 by 255, or pass them as floats."
            )
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"{name} must be uint8, or floats in [0, 1], got {images.dtype}.")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} of type float must lie in [0, 1], got {low}..{high}.")
    if 0 < high <= 1 / 255:
        raise ValueError(
            f"{name} of type float must use the range [0, 1], got {low}..{high}; were they "
            "divided by 255 twice?"
        )
    return np.rint(images * 255).astype(np.uint8)


def _check_name(name):
    """Reject absolute paths and ".."; names of tensorflow-datasets may contain slashes."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}.")
    for path in (pathlib.PurePosixPath(name), pathlib.PureWindowsPath(name)):
        if path.anchor or ".." in path.parts or not name.isprintable():
            raise ValueError(f"name must be a relative path without '..', got {name!r}.")


def _check_classes(labels, num_classes, *, at_least):
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < num_classes:
        absent = next(c for c in range(num_classes) if c >= len(present) or present[c] != c)
        raise ValueError(
            f"class {absent} of {num_classes} has no training images; labels count from 0, got "
            f"{present[0]}..{present[-1]}."
        )
    if counts.min() < at_least:
        raise ValueError(
            f"class {counts.argmin()} needs at least {at_least} images to be split into training "
            f"and test set, got {counts.min()}; add images, or pass test=."
        )
