"""Read labels, attributes and splits of images from the names or the table of a folder.

No image is opened here.
"""

import csv
import difflib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""Endings of the names of images."""

_TABLES = ("metadata.csv", "metadata.parquet")
_FILE_NAME = "file_name"
_SPLITS = ("train", "test")


class Row(NamedTuple):
    """An image of a folder.

    Attributes:
        file: path of the image.
        label: its class.
        attribute: its bias attribute, or None.
        split: train or test, or None.
    """

    file: str
    label: str
    attribute: str | None = None
    split: str | None = None


def rows(
    root: pathlib.Path, *, label: str | None = None, attribute: str | None = None
) -> list[Row]:
    """Return the images of a folder, in the order of its table or of their paths.

    Args:
        root: the folder, which exists; `folders.read` describes its layouts.
        label: column of the table with the class. Defaults to "label".
        attribute: column of the table with the bias attribute. Defaults to "attribute" if there is
            one.
    """
    tables = [root / name for name in _TABLES if (root / name).is_file()]
    if len(tables) > 1:
        raise ValueError(f"{root} must have one table, got {' and '.join(_TABLES)}.")
    columns = {"label": label, "attribute": attribute}
    if tables:
        return _table_rows(root, tables[0], columns)
    if {*columns.values()} != {None}:
        options = " and ".join(f"{use}={name!r}" for use, name in columns.items() if name)
        raise ValueError(f"{options} needs {root / _TABLES[0]}, which does not exist.")
    return _folder_rows(root)


# --- rows from names ---------------------------------------------------------------------------


def _folder_rows(root):
    folders = {folder.name.lower(): folder for folder in _folders(root)}
    only_splits = folders.keys() <= {*_SPLITS, "valid", "val", "validation"}
    both_splits = folders.keys() >= {*_SPLITS}
    if not (only_splits or both_splits):
        _check_no_wrapper(root, list(folders.values()))
        return _class_rows(root, root, None)
    if not (only_splits and both_splits):
        names = ", ".join(sorted(folder.name for folder in folders.values()))
        raise ValueError(
            f"{root} must have folders train, test and maybe valid, or classes, got {names}."
        )
    return [row for split in _SPLITS for row in _class_rows(root, folders[split], split)]


def _check_no_wrapper(root, folders):
    if len(folders) == 1:
        inside = [p for p in folders[0].iterdir() if not _is_hidden(p.name)]
        if len(inside) > 1 and all(p.is_dir() for p in inside):
            raise ValueError(
                f"{root} has a single folder, {folders[0].name}, whose folders may be the classes; "
                "pass that folder."
            )


def _class_rows(root, parent, split):
    return [
        Row(file, folder.name, None, split)
        for folder in _folders(parent)
        for file in _images(root, folder)
    ]


def _folders(root):
    entries = sorted(p for p in root.iterdir() if not _is_hidden(p.name))
    expected = f"expected a folder for each class, or {_TABLES[0]}"
    stray = next((p for p in entries if p.suffix.lower() in ENDINGS and not p.is_dir()), None)
    if stray:
        raise ValueError(f"{stray} is in no class; {expected}.")
    folders = [p for p in entries if p.is_dir()]
    if not folders:
        raise ValueError(f"{root} has no images; {expected}.")
    return folders


def _images(root, folder):
    check_inside(root, folder)
    images = list(_walk(root, folder)) if os.path.isdir(folder) else []
    if not images:
        raise ValueError(f"{folder} has no images; expected names that end in {' '.join(ENDINGS)}.")
    return images


def _walk(root, folder) -> Iterator[str]:
    """Yield the images in a folder and its sub-folders in the order of their paths."""
    with os.scandir(folder) as entries:
        visible = sorted((e for e in entries if not _is_hidden(e.name)), key=lambda e: e.name)
    for entry in visible:
        if entry.is_dir():
            if entry.is_symlink():  # may form a cycle
                raise ValueError(
                    f"{entry.path} is a link to a folder; expected links to images only."
                )
            yield from _walk(root, entry.path)
        # Not is_file: a dangling link must fail to decode instead of being ignored.
        elif os.path.splitext(entry.name)[1].lower() in ENDINGS:
            if entry.is_symlink():
                check_inside(root, entry.path)
            yield entry.path


def check_inside(root: pathlib.Path, path: str | os.PathLike) -> None:
    """Raise if a path leads out of a folder, by links or by `..`."""
    if not _is_inside(root, path):
        raise ValueError(f"{path} must be inside {root}, but is {os.path.realpath(path)}.")


def _is_inside(root, path):
    return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


# --- rows from a table -------------------------------------------------------------------------


def _table_rows(root, table, chosen):
    if table.suffix == ".csv":
        columns, records = read_csv(table)
    else:
        columns, records = _read_parquet(table, [*Row._fields, _FILE_NAME, *chosen.values()])
    if _FILE_NAME in columns:
        if "file" in columns:
            raise ValueError(f"{table} must have one of the columns file and {_FILE_NAME}.")
        chosen = {"file": _FILE_NAME, **chosen}
    columns, records = _rename_columns(table, columns, records, chosen)
    _check_columns(table, columns)
    images, first = [], {}
    for number, record in enumerate(records, 1):
        where = f"row {number} of {table}"
        if None in record:
            cells = len(columns) + len(record[None])
            raise ValueError(f"{where} must have {len(columns)} cells, got {cells}.")
        row = _table_row(root, where, *(_text(where, name, record) for name in Row._fields))
        earlier = first.setdefault(os.path.realpath(row.file), number)
        if earlier != number:
            raise ValueError(f"{where}: {record['file']} is already in row {earlier}.")
        images.append(row)
    if not images:
        raise ValueError(f"{table} has no rows; expected one for each image.")
    _check_all_or_none(table, "attribute", [row.attribute for row in images])
    _check_all_or_none(table, "split", [row.split for row in images])
    return images


def read_csv(table: pathlib.Path) -> tuple[Sequence[str], list[dict[Any, Any]]]:
    """Return the columns and the rows of a CSV file; surplus cells of a row have the key None."""
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


def _rename_columns(table, columns, records, chosen):
    """Rename chosen columns to label and attribute, and drop other columns with those names."""
    uses = {name: use for use, name in chosen.items() if name is not None}
    if len(uses) < sum(name is not None for name in chosen.values()):
        raise ValueError(f"{' and '.join(chosen)} must be two columns, got {[*uses][0]!r} twice.")
    for name, use in uses.items():
        if name not in columns:
            raise ValueError(
                f"{table} has no column {name!r} for the {use}{close_match(name, columns)}, "
                f"got {', '.join(columns) or 'none'}."
            )
    dropped = {*uses.values()} - uses.keys()
    renamed = [uses.get(name, name) for name in columns if name not in dropped]
    return renamed, [
        {uses.get(k, k): v for k, v in record.items() if k not in dropped} for record in records
    ]


def close_match(name: str, names: Sequence[str]) -> str:
    """Return a hint for an error message about an unknown name, or an empty string."""
    close = difflib.get_close_matches(name, names, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _check_columns(table, columns):
    for column in Row._fields:
        if (count := list(columns).count(column)) > 1:
            raise ValueError(f"{table} must have one column {column!r}, got {count}.")
    others = {name.strip().lower(): name for name in columns if name not in Row._fields}
    for column in (name for name in Row._fields if name not in columns):
        required = column in ("file", "label")
        # A missing optional column is an error only if another column has nearly the same name,
        # such as "attributes" for "attribute".
        close = difflib.get_close_matches(column, others, 1, 0.6 if required else 0.85)
        if required or close:
            hint = f" (did you mean {others[close[0]]!r}?)" if close else ""
            raise ValueError(
                f"{table} has no column {column!r}{hint}: expected file, label and optionally "
                f"attribute, split, got {', '.join(columns) or 'none'}."
            )


def _text(where, column, record):
    value = record.get(column)
    if value is not None and not isinstance(value, (str, int)):
        raise ValueError(
            f"{where}: {column} must be a string or an integer, got {type(value).__name__}."
        )
    if "\0" in str(value):
        raise ValueError(f"{where}: {column} must not contain a NUL character, got {value!r}.")
    return None if value is None else str(value).strip() or None


def _table_row(root, where, name, label, attribute, split):
    if name is None or label is None:
        raise ValueError(f"{where} has no {'file' if name is None else 'label'}.")
    if split not in (*_SPLITS, None):
        raise ValueError(f"{where}: split must be train or test, got {split!r}.")
    file = root / name
    if os.path.isabs(name) or not _is_inside(root, file):
        raise ValueError(f"{where}: file must be relative to {root} and inside it, got {name!r}.")
    if not file.is_file():
        raise FileNotFoundError(f"{where}: {file} does not exist")
    return Row(os.fspath(file), label, attribute, split)


def _check_all_or_none(table, column, values):
    count = sum(value is not None for value in values)
    if 0 < count < len(values):
        raise ValueError(
            f"{table} must give the {column} of all rows or of none, got {count} of "
            f"{len(values)}; the first row without is {values.index(None) + 1}."
        )
