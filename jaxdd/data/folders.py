"""Disk: a folder of images, one's own data, as arrays.

A folder per class, a table beside the images, or BFFHQ: `jaxdd.data.layouts` makes each of them
rows of file, label, attribute and split, and from there on they are one. Names, the table and the
headers of all files are checked before the first image is decoded. `jaxdd.data.decoding` decodes a
few at a time, so that originals of any size fit.

Decoded images that are too many for memory go to an .npy file, which is mapped: those to train on,
then those to test on, so that each split is a slice that nobody copies. The file appears whole,
under a name that says all it depends on, and is verified by its digests when it is read. Grain and
array_record keep *encoded* records, which are decoded whenever they are drawn; here each image is
decoded once, and a pool on devices takes rows from any place, for which NumPy's map is enough.
"""

import contextlib
import errno
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import shutil
import unicodedata
from collections.abc import Sequence
from importlib import metadata
from typing import NamedTuple

import filelock
import numpy as np

from jaxdd.data import decoding, files, layouts
from jaxdd.data.layouts import Row

MAP_FROM = 2**28
"""Bytes of decoded images from which on they are mapped instead of held in memory."""

MAP_BYTES = 64 * 2**30
"""Size of the cache of maps, of which the least recently used are deleted beyond it."""

_VERSION = 1  # counts changes of the bytes that a file decodes to
_DRAWN = ("train", "test")
_FEW = 8  # images that may all differ in their attribute


class Folder(NamedTuple):
    """Images of a folder, with what its names or its table say about them.

    Attributes:
        images: uint8 [n, h, w, c]; c is 1 if every file is grey, otherwise 3. A read-only
            `np.memmap` where they are mapped.
        labels: class of each image, int32 [n], an index into `class_names`.
        attributes: bias attribute of each image, int32 [n], an index into `attribute_names`, or
            None.
        test: whether each image is in the test split, bool [n], or None where no split is given.
        class_names: the classes in the order of their index.
        attribute_names: the attributes in the order of their index, or None.
        skipped: images left out because they do not decode, as paths relative to the folder.
    """

    images: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray | None
    test: np.ndarray | None
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...] | None
    skipped: tuple[str, ...]


def read(
    path: str | os.PathLike,
    *,
    resize: int | None = None,
    skip_bad: bool = False,
    label: str | None = None,
    attribute: str | None = None,
    seed: int | None = None,
    cache: str | os.PathLike | None = None,
    map_from: int = MAP_FROM,
    threads: int | None = None,
) -> Folder:
    """Reads a folder of images.

    | layout | what is read |
    |---|---|
    | `CLASS/**/*.png` | the class |
    | `train/CLASS/**/*.png` and `test/CLASS/**/*.png` | class and split; not `valid` |
    | `metadata.csv` or `metadata.parquet` | columns `file`, `label`, maybe `attribute`, `split` |

    In a table, files are relative to the folder, splits are train or test, and rows count from 1
    below the header; images without a row are not read. The column `file` may be called
    `file_name`, as in the imagefolder convention of Hugging Face. Names are sorted to give the
    index, as numbers if all of them are. Hidden files, `__MACOSX` and what is no image are ignored.

    Images of one size up to 256 stay as they are. Otherwise their central squares are resized to
    the median of the shorter sides, but at least 8 and at most 32. Images are turned upright as
    EXIF says and laid over black where transparent; 16 bits become 8; an animation is its first
    frame. Images of more than `decoding.PIXELS` do not decode, and links that lead out of the
    folder are refused.

    Images that are mapped are decoded once and kept, under a name that says all they depend on: the
    names, sizes and times of the files, and how they are read. A file of the cache that is damaged
    is made anew; one that is half-written, since its process was killed, is never read.

    Args:
        path: the folder.
        resize: height and width to resize the central squares to, 1..256.
        skip_bad: leave out images that do not decode, instead of raising.
        label: column of the table that holds the class; "label" by default.
        attribute: column that holds the bias attribute, of however many; "attribute" by default,
            where there is one of that name.
        seed: draws the images to test on, as `held_out` does, where the folder does not say
            which they are; None leaves that to `datasets.from_folder`, which then copies both
            parts.
        cache: folder to keep decoded images in; images are mapped whatever their size if it is
            given. By default `~/.cache/jaxdd/folders`, where what was used first is deleted beyond
            `MAP_BYTES`.
        map_from: bytes of decoded images from which on they are mapped.
        threads: as in `decoding.decode`.

    Returns:
        The images in the order of the table or of their paths, those for training first.

    Raises:
        TypeError: a size that is no integer.
        FileNotFoundError: the folder, or a file named in the table, does not exist.
        ImportError: metadata.parquet without pyarrow.
        ValueError: a layout or table that is not as above, an image that does not decode, or a
            class without training images, or with one if it is to be tested on, too.
        OSError: the cache cannot be written to, or has no room for the images.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as path:
    ...     for name in ("day", "night"):
    ...         pathlib.Path(path, name).mkdir()
    ...         Image.new("RGB", (30, 20)).save(f"{path}/{name}/sky.png")
    ...     found = read(path, resize=16)
    >>> found.images.shape, found.labels.tolist(), found.class_names
    ((2, 16, 16, 3), [0, 1], ('day', 'night'))
    """
    if resize is not None:
        decoding.check_size(resize)
    root = _existing(path)
    rows = layouts.rows(root, label=label, attribute=attribute)
    return load(
        root,
        rows,
        resize=resize,
        skip_bad=skip_bad,
        seed=seed,
        cache=cache,
        map_from=map_from,
        threads=threads,
    )


def held_out(
    labels: np.ndarray, *, seed: int, fraction: float = 0.2, names: Sequence[str] | None = None
) -> np.ndarray:
    """Draws ceil(n · fraction) images to test on, of each class its share within one.

    Args:
        labels: class of each image, integers [n] of which none is left out.
        seed: of the draw.
        fraction: share to draw, in (0, 1); at least one image of each class goes to either side.
        names: of the classes, for errors.

    Returns:
        Which images are drawn, bool [n].

    Raises:
        ValueError: a class with fewer than two images.

    >>> held_out(np.array([0, 1, 0, 1]), seed=0).tolist().count(True)
    2
    """
    counts = np.bincount(labels, minlength=len(names or ()))
    if counts.min() < 2:
        name = int(counts.argmin()) if names is None else names[int(counts.argmin())]
        raise ValueError(
            f"class {name!r} needs at least 2 images, to train and to test on, found {counts.min()}"
        )
    quota = counts * fraction
    taken = np.floor(quota).astype(int)
    short = math.ceil(round(len(labels) * fraction, 6)) - taken.sum()
    taken[np.argsort(taken - quota, kind="stable")[:short]] += 1
    taken = np.clip(taken, 1, counts - 1)
    # A stream of its own: people make their arrays with default_rng(0), too.
    draws = np.random.default_rng((seed, 0x5011)).random(len(labels))
    order = np.lexsort((draws, labels))
    rank = np.argsort(order) - np.searchsorted(labels[order], labels)
    return rank < taken[labels]


def bffhq(path: str | os.PathLike, *, conflict: float = 0.005, resize: int = 64) -> Folder:
    """Reads BFFHQ: faces whose class is the age and whose attribute is the gender.

    For training, the images in `0.5pct/align` and `0.5pct/conflict`; for testing, all in `test`,
    aligned and conflicting; none in `valid`. File names end in `_{y}_{b}`, class and attribute,
    which conflict where y ≠ b. What 0 and 1 stand for the files do not say, so those are the names.

    Args:
        path: the folder bffhq, or the one that holds it.
        conflict: share of the training images that conflict; it names their folder.
        resize: height and width to resize the central squares to, 1..256.

    Returns:
        The images with their attributes and the split, those for training first.

    Raises:
        TypeError: a size that is no integer.
        FileNotFoundError: the folder, or the one for this share, does not exist.
        ValueError: a folder without images, a file name of another form, or an image that does not
            decode.

    Source: Lee et al., Learning Debiased Representation via Disentangled Feature Augmentation,
    NeurIPS 2021.
    """
    decoding.check_size(resize)
    root = _existing(path)
    root = root / "bffhq" if (root / "bffhq").is_dir() else root
    rows = layouts.bffhq(root, conflict)
    return load(root, rows, resize=resize)


def _existing(path):
    root = files.expand(path)
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist, expected a folder of images")
    if not root.is_dir():
        raise ValueError(f"{root} is a file, expected a folder of images")
    return root


# --- arrays from rows --------------------------------------------------------------------------


def load(
    root: pathlib.Path,
    rows: Sequence[Row],
    *,
    resize: int | None = None,
    skip_bad: bool = False,
    seed: int | None = None,
    cache: str | os.PathLike | None = None,
    map_from: int = MAP_FROM,
    threads: int | None = None,
) -> Folder:
    """Decodes the images of a folder, once it is known what each of them is.

    Args:
        root: the folder, relative to which skipped images are told.
        rows: the images; all or none have an attribute, and a split.
        resize: height and width to resize the central squares to, as in `read`.
        skip_bad: leave out images that do not decode, instead of raising.
        seed: as in `read`.
        cache: as in `read`.
        map_from: as in `read`.
        threads: as in `read`.

    Returns:
        The images in the order of the rows, those for training first.

    Raises:
        TypeError: a size that is no integer.
        ValueError: an attribute that can be none, classes whose names are hard to tell apart, an
            image that does not decode, or a class without training images.
        OSError: the cache cannot be written to, or has no room for the images.
    """
    if resize is not None:
        decoding.check_size(resize)
    class_names = _names(row.label for row in rows)
    _check_spelling(root, class_names)
    _check_attribute(root, rows)
    _check_classes(root, class_names, rows)
    asked = _Asked(root, rows, class_names, resize, skip_bad, seed, threads)
    images, kept = _read(asked, cache, map_from)
    _check_classes(root, class_names, kept)
    attribute_names = attributes = test = None
    if rows[0].attribute is not None:
        attribute_names = _names(str(row.attribute) for row in rows)
        attributes = _indices(attribute_names, [row.attribute for row in kept])
    if kept[0].split is not None:
        test = np.array([row.split == "test" for row in kept])
    labels = _indices(class_names, [row.label for row in kept])
    skipped = tuple(pathlib.PurePath(name[1:]).as_posix() for name in asked.names_without(kept))
    return Folder(images, labels, attributes, test, class_names, attribute_names, skipped)


def _names(values):
    values = set(values)
    try:
        return tuple(sorted(values, key=lambda value: (int(value), value)))
    except ValueError:
        return tuple(sorted(values))


def _indices(names, values):
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[value] for value in values], np.int32)


def _check_spelling(root, names):
    """Refuses names that look alike wherever they are shown."""
    shown = {}
    for name in names:
        other = shown.setdefault(" ".join(unicodedata.normalize("NFKC", name).split()), name)
        if other != name:
            raise ValueError(
                f"{root}: the classes {other!r} and {name!r} are the same once blanks and accents "
                "are written alike; rename or join them"
            )


def _check_attribute(root, rows):
    values = {row.attribute for row in rows} - {None}
    if not values:
        return
    if len(values) == 1:
        raise ValueError(
            f"{root}: all {len(rows)} images have the attribute {values.pop()!r}, expected at "
            "least two values; without the column, nothing is scored by group"
        )
    if len(values) == len(rows) > _FEW:
        raise ValueError(
            f"{root}: the attribute has a value of its own for each of the {len(rows)} images, "
            "expected one that images share; is it a name or a number of the image?"
        )


def _check_classes(root, names, rows):
    present = {row.label for row in rows if row.split != "test"}
    absent = next((name for name in names if name not in present), None)
    if absent is not None:
        raise ValueError(f"{root}: class {absent!r} has no training image that decodes")
    if all(row.split == "train" for row in rows):
        raise ValueError(f"{root}: the test split has no image that decodes")


# --- images of rows ----------------------------------------------------------------------------


class _Asked(NamedTuple):
    """What images are read from, and how.

    Attributes:
        root: the folder.
        rows: of image files in it, each with `file`, `label` and `split`, all or none with a split.
        class_names: the classes in the order of their index.
        resize: height and width, or None, as in `decoding.shape`.
        skip_bad: leave out images that do not decode, instead of raising.
        seed: as in `held_out`, by which those to test on are drawn where no row has a split.
        threads: as in `decoding.decode`.
    """

    root: pathlib.Path
    rows: Sequence[Row]
    class_names: tuple[str, ...]
    resize: int | None
    skip_bad: bool
    seed: int | None
    threads: int | None

    @property
    def draws(self) -> bool:
        """Whether the images to test on are drawn."""
        return self.seed is not None and self.rows[0].split is None

    def name(self, row: Row) -> str:
        """Of a file, whichever way its folder is written."""
        return row.file.removeprefix(str(self.root))

    def names_without(self, rows: Sequence[Row]) -> list[str]:
        """Of the files that are not in these rows."""
        present = {row.file for row in rows}
        return [self.name(row) for row in self.rows if row.file not in present]


def _read(asked, cache, map_from):
    """Images, from the cache or decoded, and the rows that they are of."""
    most = len(asked.rows) * 3 * (asked.resize or decoding.LARGEST) ** 2
    path = None if cache is None and most < map_from else _map_path(asked, cache)
    if path is not None and (found := _kept(path, asked)) is not None:
        return found
    how = {"skip_bad": asked.skip_bad, "threads": asked.threads}
    fine, shape = decoding.survey([row.file for row in asked.rows], asked.resize, **how)
    rows = list(itertools.compress(asked.rows, fine))
    size = len(rows) * int(np.prod(shape))
    if path is None or (cache is None and size < map_from):
        return _decoded(asked, rows, functools.partial(_to_memory, shape, how))
    path.parent.mkdir(parents=True, exist_ok=True)
    place, _ = path.name.rsplit("-", 1)
    with filelock.FileLock(path.with_name(place + files.LOCK)):
        if (found := _kept(path, asked)) is not None:  # by who had the lock
            return found
        files.sweep(path.parent, place)
        if cache is None:
            files.prune(path.parent, MAP_BYTES - size)
        _check_room(path, size)
        return _decoded(asked, rows, functools.partial(_to_map, path, asked, shape, how))


def _decoded(asked, rows, store):
    ordered = _in_order(asked, rows)
    images, good = store(ordered)
    kept = list(itertools.compress(ordered, good))
    if good.all() or not asked.draws:
        return images, kept
    # The draw is from what decodes, which is known now.
    bad = {row.file for row in itertools.compress(ordered, ~good)}
    return _decoded(asked, [row for row in rows if row.file not in bad], store)


def _in_order(asked, rows):
    """Rows with those for training first, drawn where none says what it is for."""
    if asked.draws:
        labels = _indices(asked.class_names, [row.label for row in rows])
        test = held_out(labels, seed=asked.seed, names=asked.class_names)
        rows = [row._replace(split=_DRAWN[int(t)]) for row, t in zip(rows, test, strict=True)]
    return sorted(rows, key=lambda row: row.split == "test")


def _to_memory(shape, how, rows):
    images, filled = np.empty((len(rows), *shape), np.uint8), 0

    def add(block):
        nonlocal filled
        images[filled : filled + len(block)] = block
        filled += len(block)

    good = decoding.decode([row.file for row in rows], shape, add, **how)
    return images[:filled], good


def _to_map(path, asked, shape, how, rows):
    facts = {}
    with files.row_writer(path, shape, facts) as add:
        good = decoding.decode([row.file for row in rows], shape, add, **how)
        kept = list(itertools.compress(rows, good))
        facts.update(skipped=asked.names_without(kept), order=_order(asked, kept))
    return np.lib.format.open_memmap(path, mode="r"), good


def _kept(path, asked):
    """Images in the cache and the rows that they are of, None if they are absent or damaged."""
    try:
        images, facts = files.read_rows(path)
        skipped = set(facts["skipped"])
        rows = _in_order(asked, [row for row in asked.rows if asked.name(row) not in skipped])
        if facts["order"] != _order(asked, rows):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):  # a cache that others filled, to be read only
        files.touch_rows(path)
    return images, rows


def _order(asked, rows):
    names = "\0".join(map(asked.name, rows))
    return hashlib.sha256(os.fsencode(names)).hexdigest()


def _map_path(asked, cache):
    """A file named by all that the images depend on."""
    folder = files.CACHE.expanduser() / "folders" if cache is None else files.expand(cache)
    root = os.path.realpath(asked.root)
    how = [asked.resize, asked.skip_bad, asked.seed if asked.draws else None]
    key = hashlib.sha256(json.dumps([_VERSION, metadata.version("pillow"), root, how]).encode())
    for row in asked.rows:
        drawn_by = row.label if asked.draws else row.split
        key.update(json.dumps([asked.name(row), drawn_by, _status(row.file)]).encode())
    place = f"{os.path.basename(root)[:64]}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"
    return folder / f"{place}-{key.hexdigest()[:24]}.npy"


def _status(file):
    try:
        found = os.stat(file)
    except OSError:
        return None  # a link that leads nowhere does not decode
    return found.st_size, found.st_mtime_ns


def _check_room(path, size):
    if (free := shutil.disk_usage(path.parent).free) < size:
        reason = f"{size:,} bytes of images, room for {free:,}; name another folder for the cache"
        raise OSError(errno.ENOSPC, reason, str(path))
