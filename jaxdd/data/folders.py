"""Disk: a folder of images, one's own data, as arrays.

A folder per class, a table beside the images, or BFFHQ: each layout becomes rows of file, label,
attribute and split, and from there on they are one. Names, the table and the headers of all files
are checked before the first image is decoded. Images are decoded a few at a time, each straight
into its place, so that originals of any size fit.
"""

import csv
import difflib
import itertools
import numbers
import os
import pathlib
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data import files

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""How the names of images end."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")
"""What images are, whatever their names say; Pillow opens others only with programs of theirs."""

PIXELS = 100_000_000
"""Pixels that an image may have."""

_TABLES = ("metadata.csv", "metadata.parquet")
_FILE_NAME = "file_name"
_SPLITS = ("train", "test")
_GREY = ("1", "L", "LA", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
_LARGEST = 256
_FEW = 8  # images that may all differ in their attribute


class Folder(NamedTuple):
    """Images of a folder, with what its names or its table say about them.

    Attributes:
        images: uint8 [n, h, w, c]; c is 1 if every file is grey, otherwise 3.
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


class Row(NamedTuple):
    """An image of a folder, and what its name or its table says about it.

    Attributes:
        file: the image.
        label: its class.
        attribute: its bias attribute, where known.
        split: train or test, where known.
    """

    file: pathlib.Path
    label: str
    attribute: str | None = None
    split: str | None = None


def read(
    path: str | os.PathLike,
    *,
    resize: int | None = None,
    skip_bad: bool = False,
    label: str | None = None,
    attribute: str | None = None,
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
    frame. Images of more than `PIXELS` do not decode, and links that lead out of the folder are
    refused.

    Args:
        path: the folder.
        resize: height and width to resize the central squares to, 1..256.
        skip_bad: leave out images that do not decode, instead of raising.
        label: column of the table that holds the class; "label" by default.
        attribute: column that holds the bias attribute, of however many; "attribute" by default,
            where there is one of that name.

    Returns:
        The images in the order of the table, or of their paths with those for training first.

    Raises:
        TypeError: a size that is no integer.
        FileNotFoundError: the folder, or a file named in the table, does not exist.
        ImportError: metadata.parquet without pyarrow.
        ValueError: a layout or table that is not as above, an image that does not decode, or a
            class without training images.

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
        _check_size(resize)
    root = _existing(path)
    tables = [root / name for name in _TABLES if (root / name).is_file()]
    if len(tables) > 1:
        raise ValueError(f"{root} holds both {' and '.join(_TABLES)}, expected one of them")
    chosen = {"label": label, "attribute": attribute}
    if not tables and {*chosen.values()} != {None}:
        named = " and ".join(f"{use} {name!r}" for use, name in chosen.items() if name is not None)
        raise ValueError(f"{root} has no {_TABLES[0]} with columns; found no use for {named}")
    rows = _table_rows(root, tables[0], chosen) if tables else _folder_rows(root)
    return load(root, rows, resize=resize, skip_bad=skip_bad)


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
    _check_size(resize)
    root = _existing(path)
    root = root / "bffhq" if (root / "bffhq").is_dir() else root
    train = root / f"{100 * conflict:g}pct"
    if not train.is_dir():
        present = ", ".join(sorted(p.name for p in root.glob("*pct"))) or "no folder of that kind"
        raise FileNotFoundError(f"{train} does not exist, found {present}")
    folders = [(train / "align", "train"), (train / "conflict", "train"), (root / "test", "test")]
    rows = [_bffhq_row(file, split) for folder, split in folders for file in _images(root, folder)]
    return load(root, rows, resize=resize)


# --- rows from names ---------------------------------------------------------------------------


def _existing(path):
    root = files.expanded(path)
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist, expected a folder of images")
    if not root.is_dir():
        raise ValueError(f"{root} is a file, expected a folder of images")
    return root


def _folder_rows(root):
    folders = {folder.name.lower(): folder for folder in _folders(root)}
    named_so = folders.keys() <= {*_SPLITS, "valid", "val", "validation"}
    both = folders.keys() >= {*_SPLITS}
    if not (named_so or both):
        _check_no_wrapper(root, list(folders.values()))
        return _class_rows(root, root, None)
    if not (named_so and both):
        found = ", ".join(sorted(folder.name for folder in folders.values()))
        raise ValueError(f"{root} holds {found}; expected train and test, maybe valid, or classes")
    return [row for split in _SPLITS for row in _class_rows(root, folders[split], split)]


def _check_no_wrapper(root, folders):
    if len(folders) == 1:
        inside = [p for p in folders[0].iterdir() if not _is_hidden(p.name)]
        if len(inside) > 1 and all(p.is_dir() for p in inside):
            raise ValueError(
                f"{root} holds {folders[0].name} alone, whose folders may be the classes"
            )


def _class_rows(root, above, split):
    return [
        Row(file, folder.name, None, split)
        for folder in _folders(above)
        for file in _images(root, folder)
    ]


def _bffhq_row(file, split):
    match = re.fullmatch(r".*_([01])_([01])", file.stem)
    if match is None:
        raise ValueError(f"{file}: expected a name that ends in _y_b, with y and b either 0 or 1")
    return Row(file, match[1], match[2], split)


def _folders(root):
    entries = sorted(p for p in root.iterdir() if not _is_hidden(p.name))
    expected = f"expected a folder for each class, or {_TABLES[0]}"
    stray = next(filter(_is_image, entries), None)
    if stray:
        raise ValueError(f"{stray} is in no class, {expected}")
    folders = [p for p in entries if p.is_dir()]
    if not folders:
        raise ValueError(f"no images in {root}, {expected}")
    return folders


def _images(root, folder):
    _check_inside(root, folder)
    found = sorted(
        p
        for p in folder.rglob("*")
        if _is_image(p) and not any(map(_is_hidden, p.relative_to(folder).parts))
    )
    if not found:
        raise ValueError(f"no images in {folder}, expected names that end in {' '.join(ENDINGS)}")
    for link in filter(pathlib.Path.is_symlink, found):
        _check_inside(root, link)
    return found


def _check_inside(root, path):
    if not _is_inside(root, path):
        raise ValueError(f"{path} leads to {os.path.realpath(path)}, expected a place in {root}")


def _is_inside(root, path):
    return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def _is_image(path):
    # Not is_file: a dangling link must fail to decode, not be passed over.
    return path.suffix.lower() in ENDINGS and not path.is_dir()


# --- rows from a table -------------------------------------------------------------------------


def _table_rows(root, table, chosen):
    if table.suffix == ".csv":
        columns, records = read_csv(table)
    else:
        columns, records = _read_parquet(table, [*Row._fields, _FILE_NAME, *chosen.values()])
    if _FILE_NAME in columns:
        columns, records = _with_file(table, columns, records)
    columns, records = with_columns(table, columns, records, chosen)
    _check_columns(table, columns)
    rows, first = [], {}
    for number, record in enumerate(records, 1):
        where = f"row {number} of {table}"
        if None in record:
            raise ValueError(
                f"{where} has {len(columns) + len(record[None])} cells under {len(columns)} columns"
            )
        row = _table_row(root, where, *(_text(where, name, record) for name in Row._fields))
        earlier = first.setdefault(os.path.realpath(row.file), number)
        if earlier != number:
            raise ValueError(f"{where}: {record['file']} is in row {earlier} already")
        rows.append(row)
    if not rows:
        raise ValueError(f"{table} has no rows, expected one for each image")
    _check_all_or_none(table, "attribute", [row.attribute for row in rows])
    _check_all_or_none(table, "split", [row.split for row in rows])
    return rows


def with_columns(
    table: pathlib.Path,
    columns: Sequence[str],
    records: list[dict[Any, Any]],
    chosen: Mapping[str, str | None],
) -> tuple[list[str], list[dict[Any, Any]]]:
    """Renames columns of a table to what they are used for.

    Args:
        table: where it comes from, for errors.
        columns: its columns.
        records: its rows.
        chosen: the column for each use, None to leave the table as it is.

    Returns:
        Columns and rows; a column that had the name of a use and is not chosen is dropped.

    Raises:
        ValueError: a column that is not there, or one with two uses.
    """
    uses = {name: use for use, name in chosen.items() if name is not None}
    if len(uses) < sum(name is not None for name in chosen.values()):
        raise ValueError(f"{' and '.join(chosen)} must be two columns, found {[*uses][0]!r} twice")
    for name, use in uses.items():
        if name not in columns:
            near = difflib.get_close_matches(name, columns, 1)
            hint = f" (is {near[0]!r} meant?)" if near else ""
            found = ", ".join(columns) or "none"
            raise ValueError(f"{table} has no column {name!r} to be the {use}{hint}, found {found}")
    dropped = {*uses.values()} - uses.keys()
    renamed = [uses.get(name, name) for name in columns if name not in dropped]
    kept = [[(uses.get(k, k), v) for k, v in r.items() if k not in dropped] for r in records]
    return renamed, [dict(record) for record in kept]


def read_csv(table: pathlib.Path) -> tuple[Sequence[str], list[dict[Any, Any]]]:
    """Returns the columns and the rows of a CSV file; surplus cells of a row are under None.

    Raises:
        ValueError: a file that is not CSV in UTF-8.
    """
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            return reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is not readable as CSV in UTF-8: {error}") from error


def _read_parquet(table, wanted):
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(f"reading {table} needs pyarrow: pip install pyarrow") from error
    try:
        with parquet.ParquetFile(table) as file:
            names = file.schema_arrow.names
            return names, file.read([name for name in names if name in wanted]).to_pylist()
    except (ValueError, OSError) as error:
        raise ValueError(f"{table} is not readable as parquet: {error!r}") from error


def _with_file(table, columns, records):
    if "file" in columns:
        raise ValueError(f"{table} has the columns file and {_FILE_NAME}, expected one of them")
    columns = ["file" if name == _FILE_NAME else name for name in columns]
    return columns, [record | {"file": record[_FILE_NAME]} for record in records]


def _check_columns(table, found):
    for column in Row._fields:
        if (count := list(found).count(column)) > 1:
            raise ValueError(f"{table} has {count} columns {column!r}, expected one")
    others = {name.strip().lower(): name for name in found if name not in Row._fields}
    for column in (name for name in Row._fields if name not in found):
        required = column in ("file", "label")
        # To be meant, an optional column must be all but the same: "attributes", not "attractive".
        near = difflib.get_close_matches(column, others, 1, 0.6 if required else 0.85)
        if required or near:
            hint = f" (is {others[near[0]]!r} meant?)" if near else ""
            raise ValueError(
                f"{table} has no column {column!r}{hint}: expected file, label and maybe "
                f"attribute, split, found {', '.join(found) or 'none'}"
            )


def _text(where, column, record):
    value = record.get(column)
    if value is not None and not isinstance(value, (str, int)):
        kind = type(value).__name__
        raise ValueError(f"{where}: {column} must be a string or an integer, found a {kind}")
    if "\0" in str(value):
        raise ValueError(f"{where}: {column} must not hold a NUL character, found {value!r}")
    return None if value is None else str(value).strip() or None


def _table_row(root, where, name, label, attribute, split):
    if name is None or label is None:
        raise ValueError(f"{where} has no {'file' if name is None else 'label'}")
    if split not in (*_SPLITS, None):
        raise ValueError(f"{where}: split must be train or test, found {split!r}")
    file = root / name
    if os.path.isabs(name) or not _is_inside(root, file):
        raise ValueError(f"{where}: expected a path relative to {root} and in it, found {name!r}")
    if not file.is_file():
        raise FileNotFoundError(f"{where}: there is no file {file}")
    return Row(file, label, attribute, split)


def _check_all_or_none(table, column, values):
    given = sum(value is not None for value in values)
    if 0 < given < len(values):
        raise ValueError(
            f"{table} gives the {column} of {given} of {len(values)} rows, expected all or none; "
            f"the first without is row {values.index(None) + 1}"
        )


# --- arrays from rows --------------------------------------------------------------------------


def load(
    root: pathlib.Path, rows: Sequence[Row], *, resize: int | None = None, skip_bad: bool = False
) -> Folder:
    """Decodes the images of a folder, once it is known what each of them is.

    Args:
        root: the folder, relative to which skipped images are told.
        rows: the images; all or none have an attribute, and a split.
        resize: height and width to resize the central squares to, as in `read`.
        skip_bad: leave out images that do not decode, instead of raising.

    Returns:
        The images in the order of the rows.

    Raises:
        TypeError: a size that is no integer.
        ValueError: an attribute that can be none, classes whose names are hard to tell apart, an
            image that does not decode, or a class without training images.
    """
    if resize is not None:
        _check_size(resize)
    class_names = _names(row.label for row in rows)
    _check_spelling(root, class_names)
    _check_attribute(root, rows)
    _check_classes(root, class_names, rows)
    files = [row.file for row in rows]
    headers = list(filter(None, _attempt(_header, files, skip_bad=skip_bad)))
    if not headers:
        raise ValueError(f"{root}: none of {len(rows)} images decodes")
    images = np.empty((len(rows), *_shape(headers, resize)), np.uint8)
    good = np.array(_attempt(_fill, files, images, skip_bad=skip_bad), bool)
    kept = list(itertools.compress(rows, good))
    _check_classes(root, class_names, kept)
    attribute_names = attributes = test = None
    if rows[0].attribute is not None:
        attribute_names = _names(str(row.attribute) for row in rows)
        attributes = _indices(attribute_names, [row.attribute for row in kept])
    if rows[0].split is not None:
        test = np.array([row.split == "test" for row in kept])
    labels = _indices(class_names, [row.label for row in kept])
    skipped = tuple(f.relative_to(root).as_posix() for f in itertools.compress(files, ~good))
    images = images if good.all() else images[good]
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


def _attempt(function, files, *others, skip_bad):
    """Returns function(image, *other) of every file, None where it fails and may be skipped."""
    from PIL import Image, UnidentifiedImageError

    def attempt(file, *arguments):
        try:
            # By name, pillow garbles an uncompressed TIFF that EXIF says to turn.
            with open(file, "rb") as stream, Image.open(stream, formats=FORMATS) as image:
                _check_pixels(image)
                return function(image, *arguments)
        except Exception as error:  # pillow raises OSError, SyntaxError, struct.error and more
            if skip_bad:
                return None
            unknown = isinstance(error, UnidentifiedImageError)
            reason = f"it is none of {', '.join(FORMATS)}" if unknown else repr(error)
            raise ValueError(f"{file} does not decode: {reason}") from error

    # All formats now: pillow would load the rarer ones when first met, unsafely among threads.
    Image.init()
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.filterwarnings("ignore", module="PIL")
        return list(pool.map(attempt, files, *others))


def _check_pixels(image):
    width, height = image.size
    if width * height > PIXELS:
        raise ValueError(f"expected at most {PIXELS:,} pixels, found {width} × {height}")


def _header(image):
    # Asked for EXIF that `info` has not, pillow decodes a PNG. A TIFF gives its upright size.
    turned = "exif" in image.info and image.getexif().get(0x0112) in (5, 6, 7, 8)
    return image.size[::-1] if turned else image.size, image.mode in _GREY


def _shape(headers, resize):
    sizes, grey = zip(*headers, strict=True)
    channels = 1 if all(grey) else 3
    if resize is None and len(set(sizes)) == 1 and max(sizes[0]) <= _LARGEST:
        return *sizes[0][::-1], channels
    median = round(np.median([min(size) for size in sizes]))
    side = resize or min(max(median, 8), 32)
    return side, side, channels


def _fill(image, out):
    from PIL import Image, ImageOps

    height, width, channels = out.shape
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "FI":
        image = _eight_bits(image)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = _resize_square(image, width)
    out[...] = np.asarray(image).reshape(out.shape)
    return True


def _eight_bits(image):
    from PIL import Image

    levels = np.asarray(image)
    if levels.dtype.kind == "f" or levels.min() < 0 or levels.max() > 65535:
        found = f"{levels.dtype} {levels.min()}..{levels.max()}"
        raise ValueError(f"expected integers of at most 16 bits, found {found}")
    return Image.fromarray(((levels.astype(np.int32) + 128) // 257).astype(np.uint8))


def _resize_square(image, side):
    from PIL.Image import Resampling

    short = min(image.size)
    left, top = ((length - short) // 2 for length in image.size)
    square = image.crop((left, top, left + short, top + short))
    return square.resize((side, side), Resampling.LANCZOS if short > side else Resampling.BICUBIC)


def _check_size(resize: int):
    if isinstance(resize, bool) or not isinstance(resize, numbers.Integral):
        raise TypeError(f"resize must be an integer, found {resize!r}")
    if not 1 <= resize <= _LARGEST:
        raise ValueError(f"resize must lie in 1..{_LARGEST}, found {resize}")
