"""Tables of results whose cells are computed once: after each, the file is written."""

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import filelock

from jaxdd.data import files
from jaxdd.runs import old_results as results


class Cell(NamedTuple):
    """A row of results to be.

    Attributes:
        name: of the row.
        settings: that it depends on; where a stored row has others, it is computed anew.
        score: what computes its results by name.
        within: names that hold scores each; () for a row that holds them itself.
    """

    name: str
    settings: dict[str, Any]
    score: Callable[[], dict[str, Any]]
    within: Sequence[str] = ()


def fill(
    path: str | os.PathLike,
    cells: Iterable[Cell],
    *,
    read: Callable[[pathlib.Path], dict[str, Any]] = results.read_evaluation,
) -> dict[str, Any]:
    """Computes the cells that a file lacks, writes it after each, and returns all that were asked.

    Processes of one machine that fill the same file lose nothing of each other's.

    Args:
        path: JSON file, name of the row -> its results, settings and circumstances.
        cells: that are asked for; other rows in the file stay.
        read: that checks the file.

    Raises:
        ValueError: the file is damaged.
    """
    path, cells = pathlib.Path(path), list(cells)
    held = lambda: read(path) if path.exists() else {}
    rows = held()
    for cell in cells:
        if _is_filled(rows.get(cell.name, {}), cell):
            continue
        row = results.sealed({**cell.score(), **cell.settings, **results.circumstances()})
        with _lock(path):
            files.write_json(path, rows := held() | {cell.name: row})
    if not cells:
        return {}
    stored = files.read_json(path)
    return {cell.name: stored[cell.name] for cell in cells}


def _lock(path):
    """Of a file, outside of its folder, in which a manifest counts what is there."""
    name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
    return filelock.FileLock(pathlib.Path(tempfile.gettempdir(), f"jaxdd-{name}.lock"))


def _is_filled(row, cell):
    held = [row.get(each, {}) for each in cell.within] or [row]
    scored = all(results.SCORES.keys() <= each.keys() for each in held)
    return scored and all(row.get(key) == value for key, value in cell.settings.items())
