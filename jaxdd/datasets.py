"""Data sets in, as uint8 arrays: benchmarks by name and people's own images.

`load` knows every benchmark by name, `from_arrays` takes any images with labels. Both return a
`Benchmark`: images as they are on disk (grey or RGB, 0..255), and beside them what one needs to
normalise, augment and score them. Attributes travel along for scoring only.
"""

import difflib
import math
import numbers
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxdd import archives, bias, sampling


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
      strategy: augmentation operations that leave the class alone (digits must not be flipped).
    """

    name: str
    train: Dataset
    test: Dataset
    num_classes: int
    num_attributes: int
    aligned: tuple[int, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    strategy: tuple[str, ...]


class _Coloring(NamedTuple):
    grey: str
    style: str
    conflict: float


_OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
_STATISTICS = {"mnist": (0.1307, 0.3081), "fashion_mnist": (0.2861, 0.3530)}

_COLORINGS = {
    "cdigits": _Coloring("digits", "shade", conflict=0.1),
    "cmnist": _Coloring("mnist", "shade", conflict=0.05),
    "cfmnist": _Coloring("fashion_mnist", "shade", conflict=0.05),
    "cmnist-fg": _Coloring("mnist", "solid foreground", conflict=0.1),
    "cmnist-bg": _Coloring("mnist", "solid background", conflict=0.1),
    "cfmnist-fg": _Coloring("fashion_mnist", "solid foreground", conflict=0.1),
    "cfmnist-bg": _Coloring("fashion_mnist", "solid background", conflict=0.1),
}

_SOLID = {
    "solid foreground": bias.solid_foreground,
    "solid background": bias.solid_background,
}

NAMES = ("digits", *_STATISTICS, *_COLORINGS)
"""Every name that `load` knows."""


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    conflict: float | None = None,
    severity: int | None = None,
    seed: int = 0,
    placement: str = "centre",
) -> Benchmark:
    """Loads a benchmark by its name.

    | name | what |
    |---|---|
    | digits, mnist, fashion_mnist | grey and unbiased; `seed` has no effect |
    | cdigits, cmnist, cfmnist | shades of ten colours on black (LfF) |
    | cmnist-fg, cfmnist-fg | solid colours on black (FairDD) |
    | cmnist-bg, cfmnist-bg | black on solid colours (FairDD) |

    Class k of a coloured set is aligned with colour k. The test set is unbiased: its colours are
    uniform within each class.

    Args:
      name: one of `NAMES`.
      data_dir: folder that holds the original files, in `data_dir/mnist` (`data_dir/fashion_mnist`)
        or directly; files in neither nor in `archives.CACHE` are downloaded there. Digits need none.
      conflict: share of each training class that conflicts, in [0, 1]; by default .1 for cdigits
        and the solid colours, .05 for cmnist and cfmnist.
      severity: 1..4, how pure the shades are (see `jaxdd.bias.foreground`); 4 by default.
      seed: draws the attributes and shades, of the test set too; 0 <= seed < 2**32.
      placement: "centre" pads 28x28 images by two pixels on all sides, "corner" by four at the top
        and the left, as FairDD does. Digits are not padded.

    Returns:
      The benchmark; equal arguments give equal bytes on every machine.

    Raises:
      TypeError: a name that is no string, a severity or seed that is no integer.
      ValueError: an unknown name, a value out of range, an option the set does not have, or a file
        that is not the original.
      OSError: files that are absent and cannot be downloaded.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, found {type(name).__name__}")
    if name not in NAMES:
        near = difflib.get_close_matches(name.lower(), NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"unknown data set {name!r}{hint} known are {', '.join(NAMES)}")
    _refuse_absent_options(name, conflict, severity)
    seed = _integer("seed", seed, 0, 2**32 - 1)
    if name in _COLORINGS:
        recipe = _COLORINGS[name]
        conflict = _share("conflict", recipe.conflict if conflict is None else conflict)
        severity = 4 if severity is None else _integer("severity", severity, 1, 4)
        grey = _load_grey(recipe.grey, data_dir, placement)
        return _colored(name, grey, recipe.style, conflict, severity, seed)
    return _load_grey(name, data_dir, placement)


def digits(*, size: int = 16) -> Benchmark:
    """Loads scikit-learn's 1,797 handwritten digits, which need no download.

    The 8x8 images with levels 0..16 are scaled to 0..255 and resized bilinearly. The split into
    1,437 training and 360 test images is stratified and always the same.

    Args:
      size: height and width of the images in pixels.

    Returns:
      Images [n, size, size, 1]; mean and std are computed from the training images.

    Raises:
      TypeError: a size that is no integer.
      ValueError: a size below 1.
    """
    size = _integer("size", size, 1, 4096)
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = np.stack(
        [Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR) for i in images]
    )
    whole = Dataset(images[..., None], labels.astype(np.int32))
    train, test = _split(whole, 0.2, seed=0)
    return Benchmark("digits", train, test, 10, 0, None, *_statistics(train.images), _unflipped())


def mnist(data_dir: str | os.PathLike | None = None, *, placement: str = "centre") -> Benchmark:
    """Loads MNIST, padded from 28x28 to 32x32.

    Args:
      data_dir: folder with the original files; see `load`.
      placement: "centre" or "corner", where the padding leaves the image.

    Returns:
      Grey digits [n, 32, 32, 1], 60,000 and 10,000.

    Raises:
      TypeError, ValueError, OSError: as `load`.
    """
    return load("mnist", data_dir=data_dir, placement=placement)


def fashion_mnist(
    data_dir: str | os.PathLike | None = None, *, placement: str = "centre"
) -> Benchmark:
    """Loads Fashion-MNIST, padded from 28x28 to 32x32.

    Args:
      data_dir: folder with the original files; see `load`.
      placement: "centre" or "corner", where the padding leaves the image.

    Returns:
      Grey clothes [n, 32, 32, 1], 60,000 and 10,000.

    Raises:
      TypeError, ValueError, OSError: as `load`.
    """
    return load("fashion_mnist", data_dir=data_dir, placement=placement)


def cdigits(*, conflict: float = 0.1, severity: int = 4, seed: int = 0) -> Benchmark:
    """Loads scikit-learn's digits in shades of ten colours.

    Args:
      conflict: share of each training class that conflicts, in [0, 1].
      severity: 1..4, how pure the shades are.
      seed: draws the attributes and shades.

    Returns:
      RGB digits [n, 16, 16, 3], 1,437 and 360.

    Raises:
      TypeError, ValueError, OSError: as `load`.
    """
    return load("cdigits", conflict=conflict, severity=severity, seed=seed)


def cmnist(
    data_dir: str | os.PathLike | None = None,
    *,
    conflict: float = 0.05,
    severity: int = 4,
    seed: int = 0,
) -> Benchmark:
    """Loads MNIST in shades of ten colours (LfF).

    Args:
      data_dir: folder with the original files; see `load`.
      conflict: share of each training class that conflicts, in [0, 1].
      severity: 1..4, how pure the shades are.
      seed: draws the attributes and shades.

    Returns:
      RGB digits [n, 32, 32, 3], 60,000 and 10,000.

    Raises:
      TypeError, ValueError, OSError: as `load`.
    """
    return load("cmnist", data_dir=data_dir, conflict=conflict, severity=severity, seed=seed)


def cfmnist(
    data_dir: str | os.PathLike | None = None,
    *,
    conflict: float = 0.05,
    severity: int = 4,
    seed: int = 0,
) -> Benchmark:
    """Loads Fashion-MNIST in shades of ten colours.

    Args:
      data_dir: folder with the original files; see `load`.
      conflict: share of each training class that conflicts, in [0, 1].
      severity: 1..4, how pure the shades are.
      seed: draws the attributes and shades.

    Returns:
      RGB clothes [n, 32, 32, 3], 60,000 and 10,000.

    Raises:
      TypeError, ValueError, OSError: as `load`.
    """
    return load("cfmnist", data_dir=data_dir, conflict=conflict, severity=severity, seed=seed)


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    attributes: np.ndarray | None = None,
    *,
    test: Sequence[np.ndarray | None] | None = None,
    num_classes: int | None = None,
    test_fraction: float = 0.2,
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
      seed: draws the split; 0 <= seed < 2**32.
      name: what to call it.

    Returns:
      The benchmark. Mean and std are those of the training images (std 1 for a constant channel);
      `aligned` is the majority attribute of each training class, None without attributes.

    Raises:
      TypeError: images or labels of the wrong type.
      ValueError: shapes that do not fit, values out of range, a class without training images, or
        with fewer than two when splitting.

    >>> made = from_arrays(np.zeros((10, 8, 8), np.uint8), np.arange(10) % 2, np.arange(10) % 2)
    >>> made.train.images.shape, made.test.images.shape, made.num_classes, made.aligned
    ((8, 8, 8, 1), (2, 8, 8, 1), 2, (0, 1))
    """
    train = _dataset("", images, labels, attributes)
    k = int(train.labels.max()) + 1 if num_classes is None else num_classes
    k = _integer("num_classes", k, 1, 2**31 - 1)
    _check_classes(train.labels, k, at_least=2 if test is None else 1)
    if test is None:
        fraction = _share("test_fraction", test_fraction, open_interval=True)
        train, scored = _split(train, fraction, seed=_integer("seed", seed, 0, 2**32 - 1))
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
    return Benchmark(name, train, scored, k, num_attributes, aligned, *statistics, _OPERATIONS)


def pool(benchmark: Benchmark, weights: jax.Array | None = None) -> sampling.Pool:
    """Puts the training set on the device, ready for drawing from it.

    Args:
      benchmark: the data.
      weights: of the training samples [n], at least 0; uniform when None.

    Returns:
      The pool, with the images as uint8.

    Raises:
      ValueError: unusable weights, see `jaxdd.sampling.pool`.
    """
    return sampling.pool(
        benchmark.train.images,
        benchmark.train.labels,
        num_classes=benchmark.num_classes,
        mean=benchmark.mean,
        std=benchmark.std,
        weights=weights,
    )


def _unflipped():
    return tuple(o for o in _OPERATIONS if o != "flip")


def _load_grey(name, data_dir, placement):
    if placement not in ("centre", "corner"):
        raise ValueError(f"placement must be 'centre' or 'corner', found {placement!r}")
    if name == "digits":
        return digits()
    files = archives.find(name, data_dir)
    pads = (2, 2) if placement == "centre" else (4, 0)
    train, test = (
        Dataset(
            np.pad(archives.read(name, files[images]), ((0, 0), pads, pads))[..., None],
            archives.read(name, files[labels]).astype(np.int32),
        )
        for images, labels in (archives.TRAIN, archives.TEST)
    )
    strategy = _unflipped() if name == "mnist" else _OPERATIONS
    mean, std = _STATISTICS[name]
    return Benchmark(name, train, test, 10, 0, None, (mean,), (std,), strategy)


def _colored(name, grey, style, conflict, severity, seed):
    k = len(bias.LFF_COLORS)

    def color(key, images, labels, share):
        key_attributes, key_shades = jax.random.split(key)
        attributes = bias.assign(
            key_attributes, labels, num_classes=k, num_attributes=k, conflict=share
        )
        if style in _SOLID:
            return _SOLID[style](images, attributes), attributes
        return bias.foreground(key_shades, images, attributes, severity=severity), attributes

    def colored(key, data, share):
        images, attributes = jax.jit(color)(key, data.images, data.labels, share)
        # Copies, because a view of a jax array can be neither written nor handed to torch.
        return Dataset(np.array(images), data.labels, np.array(attributes))

    # Named, because another default generator (rbg) would draw another benchmark.
    key_train, key_test = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    return grey._replace(
        name=name,
        train=colored(key_train, grey.train, conflict),
        test=colored(key_test, grey.test, 1 - 1 / k),
        num_attributes=k,
        aligned=tuple(range(k)),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )


def _split(data, fraction, *, seed):
    """Sends ceil(n · fraction) samples to the test side, of each class its share within one."""
    counts = np.bincount(data.labels)
    quota = counts * fraction
    taken = np.floor(quota).astype(int)
    short = math.ceil(round(len(data.labels) * fraction, 6)) - taken.sum()
    taken[np.argsort(taken - quota, kind="stable")[:short]] += 1
    taken = np.clip(taken, 1, counts - 1)
    # A stream of its own: people make their arrays with default_rng(0), too.
    draws = np.random.default_rng((seed, 0x5011)).random(len(data.labels))
    order = np.lexsort((draws, data.labels))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    held = rank < taken[data.labels]
    return tuple(
        Dataset(*(None if field is None else field[side] for field in data))
        for side in (~held, held)
    )


def _statistics(images):
    # uint16 holds 255², and keeps the temporary at twice the images.
    mean = images.mean(axis=(0, 1, 2), dtype=np.float64)
    square = np.square(images, dtype=np.uint16).mean(axis=(0, 1, 2), dtype=np.float64)
    std = np.sqrt(np.maximum(square - mean**2, 0)) / 255
    return tuple((mean / 255).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _dataset(which, images, labels, attributes):
    images = _images(f"{which}images", images)
    n = len(images)
    labels = _indices(f"{which}labels", labels, n)
    if attributes is not None:
        attributes = _indices(f"{which}attributes", attributes, n)
    return Dataset(images, labels, attributes)


def _given_test(test, train, num_classes):
    if not isinstance(test, (tuple, list)) or len(test) not in (2, 3):
        raise ValueError("test must be (images, labels) or (images, labels, attributes)")
    data = _dataset("test ", *test, *(None,) * (3 - len(test)))
    if data.images.shape[1:] != train.images.shape[1:]:
        raise ValueError(
            f"training and test images must have the same shape, found {train.images.shape[1:]} "
            f"and {data.images.shape[1:]}"
        )
    if data.labels.max() >= num_classes:
        raise ValueError(
            f"test labels must lie in 0..{num_classes - 1}, found {data.labels.max()}"
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
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"{name} must be uint8, or floats in [0, 1], found {images.dtype}")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must lie in [0, 1] when they are floats, found {low}..{high}")
    return np.rint(images * 255).astype(np.uint8)


def _indices(name, values, n):
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.integer):
        raise TypeError(f"{name} must be integers, found {values.dtype}")
    if values.shape != (n,):
        raise ValueError(f"{name} must have one entry for each of {n} images, found {values.shape}")
    if values.min() < 0 or values.max() >= 2**31:
        raise ValueError(f"{name} must count from 0, found {values.min()}..{values.max()}")
    return values.astype(np.int32)


def _check_classes(labels, num_classes, *, at_least):
    present, counts = np.unique(labels, return_counts=True)
    if present[-1] >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, found {present[-1]}")
    if len(present) < num_classes:
        absent = next(c for c in range(num_classes) if c >= len(present) or present[c] != c)
        raise ValueError(f"class {absent} of {num_classes} has no training images")
    if counts.min() < at_least:
        raise ValueError(
            f"class {counts.argmin()} needs at least {at_least} images to be split into training "
            f"and test, found {counts.min()}; give more, or a test set of its own"
        )


def _refuse_absent_options(name, conflict, severity):
    if conflict is not None and name not in _COLORINGS:
        raise ValueError(f"{name} is unbiased and takes no conflict, found {conflict}")
    if severity is not None and (name not in _COLORINGS or _COLORINGS[name].style in _SOLID):
        raise ValueError(f"{name} has no shades and takes no severity, found {severity}")


def _share(name, value, *, open_interval=False):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, found {type(value).__name__}")
    if not 0 <= value <= 1 or (open_interval and value in (0, 1)):
        interval = "(0, 1)" if open_interval else "[0, 1]"
        raise ValueError(f"{name} must lie in {interval}, found {value}")
    return float(value)


def _integer(name, value, low, high):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, found {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in {low}..{high}, found {value}")
    return int(value)
