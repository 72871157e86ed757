"""Read tables of images: csv, tsv, jsonl and parquet, with the columns that hold what is needed.

Also the rules by which names of columns, splits and classes are compared.
"""

import csv
import difflib
import itertools
import json
import pathlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdd.data import files

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
"""Endings of the names of tables."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "eval", "evaluation"), "test"),
}
"""Words of the names of splits."""

_JOIN = ", "  # separates the values of crossed columns

# Names of columns in lower case, letters and digits only; the first that a table has is used.
_COLUMN_NAMES = {
    "file": (
        "file", "filename", "path", "filepath", "image", "img", "imagefile", "imagename",
        "imagepath", "imgfilename", "imgpath", "imageid", "id",
    ),
    "label": ("label", "labels", "class", "classname", "category", "target", "y"),
    "attribute": ("attribute",),
    "split": ("split",),
}  # fmt: skip


class Entry(NamedTuple):
    """A row of a table.

    Attributes:
        where: the table and the number of the row, for error messages.
        file: name of the image.
        label: its class, as it is written.
        attribute: its bias attribute, or None.
        split: train, val or test, or None.
    """

    where: str
    file: str
    label: str
    attribute: str | None
    split: str | None


def read(
    table: pathlib.Path, given: Mapping[str, str | None]
) -> tuple[dict[str, tuple[str, ...]], list[Entry]]:
    """Return the columns of a table by their use, and its rows.

    Args:
        table: the file.
        given: names of the columns of "label" and "attribute", None for the usual ones. The
            attribute may be crossed columns, such as "gender+age".
    """
    if table.suffix.lower() == ".parquet":
        columns, records = _read_parquet(table, given)
    else:
        read_records = _read_json_lines if table.suffix.lower() == ".jsonl" else read_csv
        header, records = read_records(table)
        columns = _choose_columns(table, header, given)
    entries = []
    for number, record in enumerate(records, 1):
        where = f"row {number} of {table}"
        cells = {
            use: cross(where, [_text(f"{where}: {name}", record.get(name)) for name in names])
            for use, names in columns.items()
        }
        file, label, split = cells["file"], cells["label"], cells.get("split")
        if file is None or label is None:
            raise ValueError(f"{where} has no {'file' if file is None else 'label'}.")
        if split is not None and split_of(split) is None:
            raise ValueError(f"{where}: split must be train, val or test, got {split!r}.")
        entries.append(Entry(where, file, label, cells.get("attribute"), split and split_of(split)))
    return columns, entries


def cross(where: str, values: Sequence[str | None]) -> str | None:
    """Return the joined values of crossed columns, None if one of them is unknown.

    >>> cross("row 1", ["woman", "old"]), cross("row 1", ["woman", None])
    ('woman, old', None)
    """
    known = [value for value in values if value is not None]
    if len(values) > 1 and (commas := [value for value in known if _JOIN in value]):
        raise ValueError(
            f"{where}: values of crossed columns must not contain {_JOIN!r}, got {commas[0]!r}."
        )
    return _JOIN.join(known) if len(known) == len(values) else None


def uncross(value: str) -> list[str]:
    """Return the values that `cross` joined.

    >>> uncross("woman, old")
    ['woman', 'old']
    """
    return value.split(_JOIN)


def crossed_columns(name: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that a name such as "gender+age" crosses, or the name itself.

    >>> crossed_columns("gender+age", ["file", "gender", "age"])
    ('gender', 'age')
    """
    return (name,) if name in columns else tuple(part.strip() for part in name.split("+"))


def normalize(text: str) -> str:
    r"""Return text in the normal form NFC, without invisible characters and surplus blanks.

    >>> normalize("cafe\u0301 "), normalize("cat\u200b")
    ('café', 'cat')
    """
    if not text.isascii():
        text = "".join(c for c in files.to_utf8(text) if unicodedata.category(c) != "Cf")
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def words(name: str) -> set[str]:
    """Return the words of a name in lower case; those of seg_train2017 are seg and train."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def split_of(name: str) -> str | None:
    """Return train, val or test if a name has words of one of them, else None."""
    splits = {SPLIT_WORDS[word] for word in words(name) & SPLIT_WORDS.keys()}
    return splits.pop() if len(splits) == 1 else None


def close_match(name: str, names: Sequence[str]) -> str:
    """Return a hint for an error message about an unknown name, or an empty string."""
    close = difflib.get_close_matches(name, names, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def read_csv(table: pathlib.Path) -> tuple[Sequence[str], list[dict[Any, Any]]]:
    """Return the columns and the rows of a CSV file, separated by commas, semicolons or tabs."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=header.count)
            reader = csv.DictReader(file, strict=True, delimiter=delimiter)
            columns, records = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is not readable as CSV in UTF-8: {error}") from error
    for number, record in enumerate(records, 1):
        if None in record:
            cells = len(columns) + len(record[None])
            raise ValueError(
                f"row {number} of {table} must have {len(columns)} cells, got {cells}."
            )
    return columns, records


def _read_json_lines(table):
    records = []
    for number, line in enumerate(table.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                records.append({**json.loads(line)})
            except (ValueError, TypeError, RecursionError) as error:
                message = f"line {number} of {table} is not an object of JSON: {error}"
                raise ValueError(message) from error
    return list(dict.fromkeys(itertools.chain.from_iterable(records))), records


def _read_parquet(table, given):
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(f"reading {table} needs pyarrow: pip install pyarrow") from error
    try:
        with parquet.ParquetFile(table) as file:
            names = file.schema_arrow.names
    except (ValueError, OSError) as error:
        raise ValueError(f"{table} is not readable as parquet: {error!r}") from error
    columns = _choose_columns(table, names, given)
    used = [*itertools.chain.from_iterable(columns.values())]
    return columns, parquet.read_table(table, columns=used).to_pylist()


def _choose_columns(table, columns, given):
    """Return the columns of each use; attribute and split may be absent."""
    chosen = {}
    for use in _COLUMN_NAMES:
        if (name := given.get(use)) is not None:
            chosen[use] = _given_columns(table, use, name, columns)
        elif (name := _choose_column(table, use, columns, given)) is not None:
            chosen[use] = (name,)
    uses = [(name, use) for use, names in chosen.items() for name in names]
    for (name, one), (other_name, other) in itertools.combinations(uses, 2):
        if name == other_name:
            both = f"crossed columns of the {one}" if one == other else f"{one} and {other}"
            raise ValueError(f"{table}: {both} must be two columns, got {name!r} twice.")
    return chosen


def _given_columns(table, use, name, columns):
    names = crossed_columns(name, columns) if use == "attribute" else (name,)
    for name in names:
        if name not in columns:
            hint, got = close_match(name, columns), ", ".join(columns) or "none"
            raise ValueError(f"{table} has no column {name!r} for the {use}{hint}, got {got}.")
    return names


def _choose_column(table, use, columns, given):
    got, required = f"got {', '.join(columns) or 'none'}", use in ("file", "label")
    taken = {x for name in given.values() if name for x in crossed_columns(name, columns)}
    plain = {column: re.sub(r"[\W_]", "", column).lower() for column in columns}
    matches = [c for name in _COLUMN_NAMES[use] for c in columns if plain[c] == name]
    matches = [c for c in matches if c == use] or matches
    if not required:
        matches = [c for c in matches if c not in taken]
    # Whether the first column holds files is seen when they are looked up.
    if matches[1:] and (use != "file" or matches[0] == matches[1]):
        raise ValueError(f"{table} must have one column {use!r}, got {', '.join(matches)}.")
    if matches:
        return matches[0]
    # "attributes" is nearly the name of an optional column, "attractive" is not.
    close = difflib.get_close_matches(use, plain.values(), 1, 0.6 if required else 0.85)
    column = next((c for c in columns if [plain[c]] == close and c not in taken), None)
    if required or column is not None:
        hint = f" (did you mean {column!r}?)" if column else ""
        raise ValueError(
            f"{table} has no column {use!r}{hint}, {got}; name the columns of class and bias "
            "attribute by --label and --attribute, or ignore the table by --layout classes."
        )
    return None


def _text(where, value):
    """Return the text of a cell, or None if it is empty."""
    if value is None or value != value:  # NaN, which parquet may have for an empty cell
        return None
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"{where} must be text or a number, got {type(value).__name__}.")
    if "\0" in str(value):
        raise ValueError(f"{where} must not contain a NUL character, got {value!r}.")
    return str(value).strip() if normalize(str(value)) else None
