"""What the names or the table of a folder say about its images, as rows; no image is opened."""

import csv
import difflib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""How the names of images end."""

_TABLES = ("metadata.csv", "metadata.parquet")
_FILE_NAME = "file_name"
_SPLITS = ("train", "test")


class Row(NamedTuple):
    """An image of a folder, and what its name or its table says about it.

    Attributes:
        file: the image.
        label: its class.
        attribute: its bias attribute, where known.
        split: train or test, where known.
    """

    file: str
    label: str
    attribute: str | None = None
    split: str | None = None


def rows(
    root: pathlib.Path, *, label: str | None = None, attribute: str | None = None
) -> list[Row]:
    """Returns the images of a folder, in the order of its table or of their paths.

    Args:
        root: the folder, which exists.
        label: as in `folders.read`.
        attribute: as in `folders.read`.

    Raises:
        FileNotFoundError: a file named in the table does not exist.
        ImportError: metadata.parquet without pyarrow.
        ValueError: a layout or a table that `folders.read` does not take.
    """
    tables = [root / name for name in _TABLES if (root / name).is_file()]
    if len(tables) > 1:
        raise ValueError(f"{root} holds both {' and '.join(_TABLES)}, expected one of them")
    chosen = {"label": label, "attribute": attribute}
    if not tables and {*chosen.values()} != {None}:
        named = " and ".join(f"{use} {name!r}" for use, name in chosen.items() if name is not None)
        raise ValueError(f"{root} has no {_TABLES[0]} with columns; found no use for {named}")
    return _table_rows(root, tables[0], chosen) if tables else _folder_rows(root)


def bffhq(root: pathlib.Path, conflict: float) -> list[Row]:
    """Returns the images of BFFHQ, those for training first.

    Args:
        root: the folder bffhq.
        conflict: as in `folders.bffhq`.

    Raises:
        FileNotFoundError: the folder for this share does not exist.
        ValueError: a folder without images, or a file name of another form.
    """
    train = root / f"{100 * conflict:g}pct"
    if not train.is_dir():
        present = ", ".join(sorted(p.name for p in root.glob("*pct"))) or "no folder of that kind"
        raise FileNotFoundError(f"{train} does not exist, found {present}")
    folders = [(train / "align", "train"), (train / "conflict", "train"), (root / "test", "test")]
    return [_bffhq_row(file, split) for folder, split in folders for file in _images(root, folder)]


# --- rows from names ---------------------------------------------------------------------------


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
    match = re.fullmatch(r".*_([01])_([01])", pathlib.Path(file).stem)
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
    found = list(_walk(root, folder)) if os.path.isdir(folder) else []
    if not found:
        raise ValueError(f"no images in {folder}, expected names that end in {' '.join(ENDINGS)}")
    return found


def _walk(root, folder) -> Iterator[str]:
    """The images in a folder in the order of their paths, those of one folder in memory at once."""
    with os.scandir(folder) as entries:
        shown = sorted((e for e in entries if not _is_hidden(e.name)), key=lambda e: e.name)
    for entry in shown:
        if entry.is_dir():
            if not entry.is_symlink():
                yield from _walk(root, entry.path)
        # Not is_file: a dangling link must fail to decode, not be passed over.
        elif os.path.splitext(entry.name)[1].lower() in ENDINGS:
            if entry.is_symlink():
                _check_inside(root, entry.path)
            yield entry.path


def _check_inside(root, path):
    if not _is_inside(root, path):
        raise ValueError(f"{path} leads to {os.path.realpath(path)}, expected a place in {root}")


def _is_inside(root, path):
    return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def _is_image(path):
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
    return Row(os.fspath(file), label, attribute, split)


def _check_all_or_none(table, column, values):
    given = sum(value is not None for value in values)
    if 0 < given < len(values):
        raise ValueError(
            f"{table} gives the {column} of {given} of {len(values)} rows, expected all or none; "
            f"the first without is row {values.index(None) + 1}"
        )
