"""Grids of experiments: cells found by what they depend on, computed once, safe to stop.

A cell is one row of a comparison: data set, options, and how the set is made. Its result goes to a
JSON file whose name is a hash of these, so a cell is never computed twice, a new cell changes none
of the others, and tables are made from the files that are there. Cells that differ in the row alone
share their weights and compiled programs.

Every module of `experiments` with a grid is run as

    python -m experiments.NAME [--preset quick|paper] [--data-dir DIR] [--budget 20m]

and run again for what is left. It ends with exit code 3 while cells are missing.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

from jaxdd.data import archives, files
from jaxdd.runs import cli, jobs, pipeline, plot, results

RESULTS = pathlib.Path(__file__).parent / "results"

GAPS = {"deo_max": "largest gap between groups", "deo_mean": "mean gap between groups"}
"""The scores of `evaluate.Scores` that are not accuracies, and what they are called in print."""

_AGAIN = 30.0  # Seconds after which what was asked to stop and goes on is asked once more.

_INCIDENTAL = ("preset", "chunk", "save_every", "buffer")


class Cell(NamedTuple):
    """A row of a comparison: one of `pipeline.ROWS` or `pipeline.DEBIAS`, of a named benchmark."""

    dataset: str
    row: str
    options: jobs.Options


class Grid(NamedTuple):
    """What a claim needs.

    Attributes:
        name: of the folder below `RESULTS`.
        cells: from the preset to all cells, in the order in which they are computed.
        down: the option names whose values begin a line of the table.
        scores: of `results.SCORES` and `GAPS`, a table each.
        across: the option name whose values are the columns; "row" for the rows of a comparison.
    """

    name: str
    cells: Callable[[str], Sequence[Cell]]
    down: tuple[str, ...]
    scores: tuple[str, ...] = ("accuracy",)
    across: str = "row"


def address(cell: Cell) -> str:
    """Returns 16 hexadecimal digits that depend on everything that the result depends on.

    >>> quick = Cell("cmnist", "kde", jobs.Options(ipc=1))
    >>> address(quick) == address(Cell("cmnist", "kde", jobs.Options(ipc=1, chunk=5)))
    True
    >>> address(quick) == address(Cell("cmnist", "kde", jobs.Options(ipc=1, steps=5)))
    False
    """
    options = dataclasses.asdict(cell.options.resolved())
    depends = {name: value for name, value in options.items() if name not in _INCIDENTAL}
    return _digest([cell.dataset, cell.row, depends])


def workplace(cell: Cell, work: pathlib.Path) -> pathlib.Path:
    """Folder of the comparison that a cell is a row of, below `work`."""
    return work / _digest([cell.dataset, dataclasses.asdict(cell.options.resolved())])


def _digest(value):
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def path(grid: Grid, cell: Cell, folder: pathlib.Path = RESULTS) -> pathlib.Path:
    """Where the result of a cell is kept."""
    return folder / grid.name / f"{address(cell)}.json"


def result(grid: Grid, cell: Cell, folder: pathlib.Path = RESULTS) -> dict[str, Any] | None:
    """Returns the result of a cell; None if there is none, or what is there is damaged."""
    try:
        *_, found = results.read(path(grid, cell, folder)).values()
    except (FileNotFoundError, ValueError):
        return None
    return found


def compute(
    grid: Grid,
    cells: Sequence[Cell],
    *,
    data_dir: pathlib.Path | None = None,
    work: pathlib.Path,
    folder: pathlib.Path = RESULTS,
    report: Callable[..., None] = jobs.silent,
) -> None:
    """Computes the cells that have no result yet.

    Args:
        grid: that they belong to.
        cells: of the grid.
        data_dir: folder with the original files.
        work: folder for checkpoints and synthetic sets, from which a stopped cell goes on.
        folder: of the results.
        report: called as `report(task, done, total, **fields)`.
    """
    comparisons = {}
    for cell in cells:
        if result(grid, cell, folder) is None:
            comparisons.setdefault((cell.dataset, cell.options), []).append(cell)
    for (dataset, options), missing in comparisons.items():
        seconds = {}
        with jobs.timed(seconds, "data"):
            data = jobs.load(dataset, options, data_dir=data_dir)
        job = jobs.prepare(data, options, report)._replace(seconds=seconds)
        for cell in missing:
            whole = workplace(cell, work)
            rows = pipeline.compare(job, whole, resume=True, names=[cell.row])["rows"]
            files.write_json(path(grid, cell, folder), rows[cell.row])


def tables(
    grid: Grid, cells: Sequence[Cell], folder: pathlib.Path = RESULTS
) -> Iterator[list[str]]:
    """Yields the lines of a Markdown table for every score; cells without a result are dashes."""
    columns, lines = _sides(grid, cells, folder)
    by = "" if grid.across == "row" else f" by {grid.across}"
    scale = "".join(f"; {preset}" for preset in _said(cells))
    for score in grid.scores:
        yield [
            f"| {', '.join(grid.down)}{by} ({_scored(score)}{scale}) | {' | '.join(columns)} |",
            f"|---|{'--:|' * len(columns)}",
            *(
                f"| {' | '.join([line, *(_percent(found, name, score) for name in columns)])} |"
                for line, found in lines.items()
            ),
        ]


def draw(grid: Grid, cells: Sequence[Cell], folder: pathlib.Path = RESULTS) -> None:
    """Draws the tables as NAME.png in the folder of all results, or as NAME-PRESET.png."""
    columns, lines = _sides(grid, cells, folder)
    mean = lambda found, name, score: found.get(name, {}).get(score, {}).get("mean", np.nan)
    title = lambda score: (
        GAPS[score].capitalize() if score in GAPS else f"Accuracy, {_scored(score)}"
    )
    panels = {
        title(score): [[mean(found, name, score) for name in columns] for found in lines.values()]
        for score in grid.scores
    }
    plot.heat_maps(
        folder / f"{'-'.join([grid.name, *_said(cells)])}.png",
        panels,
        rows={", ".join(grid.down): list(lines)},
        columns={"synthetic set" if grid.across == "row" else grid.across: columns},
    )


def _said(cells):
    """The preset in a list, which is empty for the default one."""
    preset = cells[0].options.preset
    return [] if preset == "quick" else [preset]


def _sides(grid, cells, folder):
    """The names of the columns, and the results by line and column."""
    lines = {}
    for cell in cells:
        line = lines.setdefault(_values(cell, grid.down), {})
        if (found := result(grid, cell, folder)) is not None:
            line[_values(cell, [grid.across])] = found
    return list(dict.fromkeys(_values(cell, [grid.across]) for cell in cells)), lines


def _percent(found, name, score):
    return results.percent(found.get(name, {}).get(score))


def _scored(score):
    return GAPS.get(score) or f"{results.SCORES[score]} test samples"


def _values(cell, names):
    values = {**cell._asdict(), **dataclasses.asdict(cell.options.resolved())}
    return ", ".join(str(values[name]) for name in names)


def seconds(text: str) -> float:
    """Returns the seconds in a time such as 90s, 20m or 1.5h.

    Raises:
        ValueError: for anything else.

    >>> seconds("20m")
    1200.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found:
        raise ValueError(f"a budget is a number and s, m or h, such as 20m, found {text!r}")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@contextlib.contextmanager
def deadline(budget: float | None) -> Iterator[None]:
    """Does what Ctrl-C does once `budget` seconds are over; None is no limit.

    It is done again until the block ends, since Python drops what is raised while it collects garbage.
    """
    if budget is None:
        yield
        return
    ended = threading.Event()

    def stop():
        after = budget
        while not ended.wait(min(after, threading.TIMEOUT_MAX)):
            os.kill(os.getpid(), signal.SIGINT)
            after = _AGAIN

    # What a shell starts in the background ignores this signal unless it is told otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=stop, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)


def _log(task: str, done: int, total: int, **_: Any) -> None:
    if done in (0, total):
        print(time.strftime("%H:%M:%S"), task, f"{done}/{total}", file=sys.stderr, flush=True)


def main(grid: Grid) -> None:
    """The command line of a grid: computes what is missing and prints the tables."""
    tyro.cli(functools.partial(_main, grid), description=f"See the docstring of {grid.name}.")


def _main(
    grid: tyro.conf.Suppress[Grid],
    *,
    preset: Literal["quick", "paper"] = "quick",
    data_dir: pathlib.Path | None = None,
    budget: str | None = None,
    work: pathlib.Path = archives.CACHE / "experiments",
) -> None:
    """Computes the missing cells of the grid into experiments/results, prints its tables and draws them.

    Args:
        grid: of cells.
        preset: quick fits two CPU cores, paper one GPU.
        data_dir: folder with the original files.
        budget: time after which to stop, such as 90s, 20m or 1h.
        work: folder for checkpoints, from which a stopped cell goes on.
    """
    cells = grid.cells(preset)
    cli.keep_programs()
    try:
        with deadline(None if budget is None else seconds(budget)):
            compute(grid, cells, data_dir=data_dir, work=work.expanduser(), report=_log)
    except (KeyboardInterrupt, pipeline.Interrupted):
        pass
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print("\n\n".join("\n".join(lines) for lines in tables(grid, cells)))
    left = sum(result(grid, cell) is None for cell in cells)
    if left < len(cells):
        draw(grid, cells)
    if left:
        print(f"{left} of {len(cells)} cells are missing; run the command again", file=sys.stderr)
        sys.exit(3)
