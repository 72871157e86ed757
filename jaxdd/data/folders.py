"""Read a folder of images as arrays.

`jaxdd.data._layouts` turns the names in a folder and its tables into rows of file, label, attribute
and split. Names, the table and the headers of all files are checked before
the first image is decoded. `jaxdd.data.decoding` decodes a few images at a time, so originals of
any size fit into memory. Large sets are decoded once into a cache and memory-mapped.
"""

import decimal
import os
import pathlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data import _arguments, _image_cache, _layouts, decoding, files
from jaxdd.data._layouts import Row

MAP_FROM = 2**28
"""Minimum size in bytes of decoded images for mapping them instead of loading them."""

MAP_BYTES = 64 * 2**30
"""Maximal size of the cache of mapped images; the least recently used files are deleted first."""

_MANY = 8  # above this number, attributes that all differ are taken for names
_SHOWN = 20  # number of classes that notes count


class Folder(NamedTuple):
    """Images of a folder, with labels and attributes from file names or a table.

    Attributes:
        images: uint8 [n, h, w, c]; c is 1 if every file is grey, otherwise 3. A read-only
            `np.memmap` if they are mapped.
        labels: class of each image, int32 [n], an index into `class_names`.
        attributes: bias attribute of each image, int32 [n], an index into `attribute_names`, or
            -1 if it is unknown; None if no attribute is known.
        test: whether each image is in the test split, bool [n]; None without splits.
        class_names: the classes in the order of their index.
        attribute_names: the attributes in the order of their index, or None.
        skipped: images that were left out because they do not decode, relative to the folder.
        files: path of each image relative to the folder.
        notes: sentences that say how the folder was read.
    """

    images: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray | None
    test: np.ndarray | None
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...] | None
    skipped: tuple[str, ...]
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read(
    path: str | os.PathLike,
    *,
    resize: int | None = None,
    skip_bad: bool = False,
    label: str | None = None,
    attribute: str | None = None,
    layout: str = "auto",
    seed: int | None = None,
    cache: str | os.PathLike | None = None,
    map_from: int = MAP_FROM,
    threads: int | None = None,
) -> Folder:
    """Read a folder of images.

    | layout | content |
    |---|---|
    | `CLASS/**/*.png` | one folder per class |
    | `train/CLASS/**/*.png` and `test/CLASS/**/*.png` | class and split |
    | `metadata.csv`, .tsv, .jsonl or .parquet | columns `file`, `label`, and optionally `attribute`, `split` |

    docs/guides/data.md lists other names of splits, tables and columns, and what is ignored or rejected.
    `Folder.notes` say how a folder was read. Classes and attributes are indexed in sorted order, as
    numbers if all of them are.

    A size of up to 256 that at least three quarters of the images have is kept, and the others are
    resized to it. Without one, the central squares are resized to the median of the shorter sides,
    but at least 8 and at most 32. Images are turned upright according to EXIF or XMP. Transparent
    pixels are composed on black, 16 bits are reduced to 8, and of an animation the first frame is
    read. Images of more than `decoding.PIXELS` pixels do not decode.

    Mapped images are decoded once and kept in the cache, under a hash of the names, sizes and times
    of the files and of the options. A damaged file of the cache is made again.

    Args:
        path: the folder.
        resize: height and width to resize the central squares to, 1..256.
        skip_bad: whether to leave out images that do not decode, instead of raising.
        label: column of the tables with the class. Defaults to "label".
        attribute: column of the tables with the bias attribute. Defaults to "attribute" if there is
            one. "gender+age" crosses two columns: each pair of values is one value.
        layout: "classes" if the folders inside are classes, "splits" if those that are named like
            splits are; both ignore tables. By default, names and tables decide.
        seed: random seed of the test images, a fifth, if the folder has no splits, see
            `splits.draw_test`. Defaults to no split; `datasets.from_folder` then splits, and copies
            both parts.
        cache: folder for decoded images, which are then mapped whatever their size. Defaults to
            `~/.cache/jaxdd/folders` for images of at least `map_from` bytes, pruned to `MAP_BYTES`.
        map_from: bytes of decoded images from which they are mapped.
        threads: number of threads that decode. Defaults to one per core, at most eight.

    Returns:
        The images in the order of the table or of their paths, training images first.

    Raises:
        FileNotFoundError: the folder or a file of the table does not exist.
        ImportError: a parquet table without pyarrow.
        ValueError: an ambiguous or unknown layout, an image that does not decode, or a class with
            too few images.
        OSError: the cache cannot be written to, or has no room for the images.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as path:
    ...     for name in ("day", "night"):
    ...         pathlib.Path(path, name).mkdir()
    ...         Image.new("RGB", (30, 20)).save(f"{path}/{name}/sky.png")
    ...     folder = read(path, resize=16)
    >>> folder.images.shape, folder.labels.tolist(), folder.class_names
    ((2, 16, 16, 3), [0, 1], ('day', 'night'))
    """  # noqa: E501
    resize = None if resize is None else decoding.check_size(resize)
    root = check_folder(path)
    rows, notes = _layouts.read(root, label=label, attribute=attribute, layout=layout)
    options: dict[str, Any] = dict(cache=cache, map_from=map_from, threads=threads)
    folder = load(root, rows, resize=resize, skip_bad=skip_bad, seed=seed, **options)
    return folder._replace(notes=(*notes, *folder.notes))


def check_folder(path: str | os.PathLike) -> pathlib.Path:
    """Return an existing folder as an absolute path."""
    root = files.expand(path).absolute()
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist; expected a folder of images")
    if not root.is_dir():
        raise ValueError(f"{root} is a file; expected a folder of images")
    return root


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
    """Decode the images of rows, training images first.

    Args:
        root: the folder, see `check_folder`.
        rows: the images; all or none have a split.
        resize: see `read`, also for the other arguments.
        skip_bad: whether to leave out images that do not decode, instead of raising.
        seed: random seed of the test images, a fifth, if no row has a split; None for no split.
        cache: folder for decoded images.
        map_from: bytes of decoded images from which they are mapped.
        threads: number of threads that decode.
    """
    class_names = _names(row.label for row in rows)
    attribute_names = _names(row.attribute for row in rows if row.attribute is not None) or None
    _check_spelling(root, "classes", class_names)
    _check_spelling(root, "attributes", attribute_names or ())
    _check_attribute(root, rows)
    _check_classes(root, class_names, rows)
    # Plain Python integers, because the key of the cache is JSON.
    resize = None if resize is None else decoding.check_size(resize)
    seed = None if seed is None else _arguments.seed(seed)
    request = _image_cache.Request(root, rows, class_names, resize, skip_bad, seed, threads)
    folder = None if cache is None else files.expand(cache)
    images, decoded, notes = _image_cache.read(request, folder, map_from=map_from, budget=MAP_BYTES)
    _check_classes(root, class_names, decoded)
    attributes = test = None
    if attribute_names is not None:
        attributes = _indices((*attribute_names, None), [row.attribute for row in decoded])
        attributes[attributes == len(attribute_names)] = -1
    if decoded[0].split is not None:
        test = np.array([row.split == "test" for row in decoded])
    labels = _indices(class_names, [row.label for row in decoded])
    skipped = tuple(pathlib.PurePath(name).as_posix() for name in request.missing(decoded))
    counts = _class_counts(class_names, labels), *_known_attributes(attributes, test)
    notes = (*counts, *notes, *_skipped_note(skipped))
    paths = tuple(files.to_utf8(request.name(row).replace(os.sep, "/")) for row in decoded)
    names = class_names, attribute_names
    return Folder(images, labels, attributes, test, *names, skipped, paths, notes)


def _class_counts(names, labels):
    counts = [f"{n} {count}" for n, count in zip(names, np.bincount(labels), strict=True)]
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return f"{len(labels)} images of {len(names)} classes: {', '.join(counts[:_SHOWN] + more)}"


def _known_attributes(attributes, test):
    """Return a note on attributes that are known for some images only."""
    if attributes is None or (attributes >= 0).all():
        return ()
    parts = {"images": np.full(len(attributes), True)}
    if test is not None:
        parts = {"training images": ~test, "test images": test}
    counts = [
        f"{(attributes[rows] >= 0).sum():,} of {rows.sum():,} {name}"
        for name, rows in parts.items()
    ]
    return (f"attribute known for {' and '.join(counts)}",)


def _skipped_note(skipped):
    if not skipped:
        return ()
    names = ", ".join(skipped[:5]) + (", …" if skipped[5:] else "")
    images = "1 image that does" if len(skipped) == 1 else f"{len(skipped)} images that do"
    return (f"left out {images} not decode: {names}",)


def _names(values):
    """Return different values in order, as numbers if all of them are."""
    values = sorted(set(values))
    return tuple(sorted(values, key=decimal.Decimal) if _are_numbers(values) else values)


def _are_numbers(names):
    return all(re.fullmatch(r"[+-]?\d+(\.\d*)?", name) for name in names)


def _indices(names, values):
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[value] for value in values], np.int32)


def _check_spelling(root, kind, names):
    """Reject names that look alike, or are the same number."""
    plain, earlier = decimal.Decimal if _are_numbers(names) else _caseless, {}
    for name in names:
        other = earlier.setdefault(plain(name), name)
        if other != name:
            raise ValueError(
                f"{root}: {kind} {other!r} and {name!r} are equal numbers, or differ only in "
                "capitals or the width of letters; rename or join them."
            )


def _caseless(name):
    """Return a name without capitals, unless it is a letter, and in the normal form NFKC."""
    return unicodedata.normalize("NFKC", name.casefold() if len(name) > 1 else name)


def _check_attribute(root, rows):
    known = [row.attribute for row in rows if row.attribute is not None]
    values = set(known)
    if len(values) == 1:
        which = "all" if len(known) == len(rows) else "all known"
        raise ValueError(
            f"{root}: attributes need at least two values, {which} {len(known)} images have "
            f"{values.pop()!r}; without the column, scores are not split by group."
        )
    if len(values) == len(known) > _MANY:
        raise ValueError(
            f"{root}: attributes must be shared by images, got {len(known)} different ones for "
            f"{len(known)} images; does the column hold names or numbers of images?"
        )


def _check_classes(root, names, rows):
    present = {row.label for row in rows if row.split != "test"}
    absent = next((name for name in names if name not in present), None)
    if absent is not None:
        raise ValueError(f"{root}: class {absent!r} has no training image that decodes.")
    if all(row.split == "train" for row in rows):
        raise ValueError(f"{root}: the test split has no image that decodes.")
