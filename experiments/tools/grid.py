"""Grids of experiments: cells found by what they depend on, computed once, safe to stop.

A cell is one row of a comparison: data set, options, and how the set is made. Its result is a line
of JSON in results/CLAIM.jsonl: a name for people, then all that the comparison said of the row. A
cell is found by comparing the configuration in such a line, whichever claim computed it, with what
is asked. Options that a line lacks have their defaults, and those that are no longer known are
ignored, so a new option changes no cell, and a changed default is computed anew. Cells that differ
in the row alone share their weights and compiled programs.

Every module of `experiments` with a grid is run as

    python -m experiments.NAME [--preset quick|paper] [--data-dir DIR] [--budget 20m]

and run again for what is left. It ends with exit code 3 while cells are missing.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

from experiments.tools.budget import deadline, seconds
from jaxdd.data import benchmarks, datasets, files
from jaxdd.runs import components, options, pipeline, programs, timing
from jaxdd.runs import old_results as results
from jaxdd.runs.reports import plot

RESULTS = pathlib.Path(__file__).parents[1] / "results"

GAPS = {"deo_max": "largest gap between groups", "deo_mean": "mean gap between groups"}
"""The scores of `evaluate.Scores` that are not accuracies, and what they are called in print."""

Stored = Sequence[tuple[dict[str, Any], dict[str, Any]]]
"""What results depend on, and the results."""


class Cell(NamedTuple):
    """A row of a comparison: one of `results.KINDS`, of a named benchmark."""

    dataset: str
    row: str
    options: options.DM


class Grid(NamedTuple):
    """What a claim needs.

    Attributes:
        name: of the claim.
        cells: from the preset to all cells, in the order in which they are computed.
        down: the option names whose values begin a line of the table.
        scores: of `results.SCORES` and `GAPS`, a table each.
        across: the option name whose values are the columns; "row" for the rows of a comparison.
        besides: computes what else the claim needs from the folder with the original files.
    """

    name: str
    cells: Callable[[str], Sequence[Cell]]
    down: tuple[str, ...]
    scores: tuple[str, ...] = ("accuracy",)
    across: str = "row"
    besides: Callable[[pathlib.Path | None], None] = lambda data_dir: None


def title(cell: Cell) -> str:
    """What people call a cell: data set, row, and the options that differ from the defaults.

    >>> title(Cell("cmnist", "kde", options.make(conflict=0.05, ipc=1)))
    'cmnist kde conflict=0.05 ipc=1'
    """
    given = [f"{name}={value}" for name, value in sorted(said(cell.options).items())]
    return " ".join([cell.dataset, cell.row, *given])


def said(chosen: options.DM) -> dict[str, Any]:
    """Returns the options that differ from the defaults."""
    default = dataclasses.asdict(type(chosen)()) | {"method": "dm"}
    chosen = dataclasses.asdict(chosen)
    return {name: value for name, value in chosen.items() if value != default.get(name)}


def depends(cell: Cell) -> dict[str, Any]:
    """Returns all that the result of a cell depends on.

    >>> quick = Cell("cmnist", "kde", options.make(ipc=1))
    >>> depends(quick) == depends(Cell("cmnist", "kde", options.make(ipc=1, chunk=5)))
    True
    >>> depends(quick) == depends(Cell("cmnist", "kde", options.make(ipc=1, steps=5)))
    False
    """
    resolved = dataclasses.asdict(cell.options)
    found = {name: value for name, value in resolved.items() if name not in cell.options.INCIDENTAL}
    return files.to_json({"dataset": cell.dataset, "row": cell.row, **found})


def workplace(cell: Cell, work: pathlib.Path) -> pathlib.Path:
    """Folder of the comparison that a cell is a row of, below `work`."""
    value = [cell.dataset, dataclasses.asdict(cell.options)]
    text = json.dumps(value, sort_keys=True, default=str)
    return work / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def stored(folder: pathlib.Path = RESULTS) -> Stored:
    """Reads the results of all claims.

    Raises:
        ValueError: a line is damaged, or is no result of a cell.
    """
    found = [(path, path.stat()) for path in sorted(folder.glob("*.jsonl"))]
    return [each for path, told in found for each in _read(path, told.st_mtime_ns, told.st_size)]


@functools.lru_cache(64)
def _read(path, *_):
    """The results of a claim, again where the file has changed."""
    return [_depending(record, path) for record in files.read_lines(path)]


def _depending(record, path):
    config = record.get("config")
    if not isinstance(config, dict) or not {"dataset", "row"} <= config.keys():
        raise ValueError(f"{path} must hold results of cells, found {str(record)[:80]}")
    return depends(Cell(config["dataset"], config["row"], options.from_config(config))), record


def result(cell: Cell, found: Stored) -> dict[str, Any] | None:
    """Returns the result of a cell, None if there is none."""
    asked = depends(cell)
    return next((record for known, record in found if known == asked), None)


def compute(
    grid: Grid,
    cells: Sequence[Cell],
    *,
    data_dir: pathlib.Path | None = None,
    work: pathlib.Path,
    folder: pathlib.Path = RESULTS,
    report: Callable[..., None] = pipeline.silent,
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
    found, comparisons = stored(folder), {}
    for cell in cells:
        if result(cell, found) is None:
            comparisons.setdefault((cell.dataset, cell.options), []).append(cell)
    for (dataset, chosen), missing in comparisons.items():
        spent = {}
        with timing.timed(spent, "data"):
            data = load(dataset, chosen, data_dir=data_dir)
        whole, rows = workplace(missing[0], work), [cell.row for cell in missing]
        try:
            pipeline.compare(
                data, whole, chosen, rows=rows, spent=spent, report=report, resume=True,
                **components.cpu_devices(chosen),
            )  # fmt: skip
        finally:  # of a comparison that is stopped, the rows that are finished
            for cell in missing:
                _keep(cell, whole / "rows" / cell.row, folder / f"{grid.name}.jsonl")


def _keep(cell, made, path):
    """Adds the result of a cell to those of its claim, if its row is finished."""
    if not (made / "result.json").exists():
        return
    record = {"cell": title(cell), **files.read_json(made / "result.json")}
    if cell.options.score_every is not None:
        record["way"] = way(made / "progress.jsonl")
    files.append_line(path, record)


def way(path: pathlib.Path) -> list[dict[str, float]]:
    """Reads the accuracies along the way of a distillation, with the mean loss since the last."""
    found, losses = [], []
    for line in files.read_lines(path):
        losses.append(line["loss"])
        if "accuracy" in line:
            scores = {score: line[score] for score in ("accuracy", "conflicting")}
            found.append({"step": line["step"], "loss": float(np.mean(losses)), **scores})
            losses = []
    return found


def load(
    name: str, chosen: options.DM, *, data_dir: pathlib.Path | None = None
) -> datasets.Benchmark:
    """Makes the benchmark that options ask for, or reads it from the cache."""
    asked = dict(conflict=chosen.conflict, severity=chosen.severity, test=chosen.test)
    return benchmarks.load(name, data_dir=data_dir, seed=chosen.seed, **asked)


def tables(
    grid: Grid, cells: Sequence[Cell], folder: pathlib.Path = RESULTS
) -> Iterator[list[str]]:
    """Yields the lines of a Markdown table for every score.

    Cells without a result are dashes; lines whose results all lack the score are left out.
    """
    columns, lines = _sides(grid, cells, folder)
    by = "" if grid.across == "row" else f" by {grid.across}"
    scale = "".join(f"; {preset}" for preset in _scale(cells))
    for score in grid.scores:
        shown = {line: found for line, found in lines.items() if _has(found, score)}
        yield [
            f"| {', '.join(grid.down)}{by} ({_scored(score)}{scale}) | {' | '.join(columns)} |",
            f"|---|{'--:|' * len(columns)}",
            *(
                f"| {' | '.join([line, *(_percent(found, name, score) for name in columns)])} |"
                for line, found in shown.items()
            ),
        ]


def draw(grid: Grid, cells: Sequence[Cell], folder: pathlib.Path = RESULTS) -> None:
    """Draws the tables as NAME.png in the folder of all results, or as NAME-PRESET.png."""
    columns, lines = _sides(grid, cells, folder)
    mean = lambda found, name, score: found.get(name, {}).get(score, {}).get("mean", np.nan)
    heading = lambda score: (
        GAPS[score].capitalize() if score in GAPS else f"Accuracy, {_scored(score)}"
    )
    panels = {
        heading(score): [[mean(found, name, score) for name in columns] for found in lines.values()]
        for score in grid.scores
    }
    plot.heat_maps(
        folder / f"{'-'.join([grid.name, *_scale(cells)])}.png",
        panels,
        rows={", ".join(grid.down): list(lines)},
        columns={"synthetic set" if grid.across == "row" else grid.across: columns},
    )


def _scale(cells):
    """The preset in a list, which is empty for the default one."""
    preset = cells[0].options.preset
    return [] if preset == "quick" else [preset]


def _sides(grid, cells, folder):
    """The names of the columns, and the results by line and column."""
    lines, known = {}, stored(folder)
    for cell in cells:
        line = lines.setdefault(_values(cell, grid.down), {})
        if (found := result(cell, known)) is not None:
            line[_values(cell, [grid.across])] = found
    return list(dict.fromkeys(_values(cell, [grid.across]) for cell in cells)), lines


def _has(found, score):
    """Whether a line has a number, or no result yet."""
    return not found or any(
        (record.get(score) or {}).get("mean") is not None for record in found.values()
    )


def _percent(found, name, score):
    return results.percent(found.get(name, {}).get(score))


def _scored(score):
    return GAPS.get(score) or f"{results.SCORES[score]} test samples"


def _values(cell, names):
    values = {**cell._asdict(), **dataclasses.asdict(cell.options)}
    return ", ".join(str(values[name]) for name in names)


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
    work: pathlib.Path = files.CACHE / "experiments",
    folder: pathlib.Path = RESULTS,
) -> None:
    """Computes what is missing of a claim, prints its tables and draws them.

    Args:
        grid: of cells.
        preset: quick fits two CPU cores, paper one GPU.
        data_dir: folder with the original files.
        budget: time after which to stop, such as 90s, 20m or 1h.
        work: folder for checkpoints, from which a stopped cell goes on.
        folder: of the results.
    """
    cells = grid.cells(preset)
    programs.prepare()
    try:
        with deadline(None if budget is None else seconds(budget)):
            grid.besides(data_dir)
            where = dict(data_dir=data_dir, work=work.expanduser(), folder=folder)
            compute(grid, cells, report=_log, **where)
    except (KeyboardInterrupt, pipeline.Interrupted):
        pass
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print("\n\n".join("\n".join(lines) for lines in tables(grid, cells, folder)))
    found = stored(folder)
    left = sum(result(cell, found) is None for cell in cells)
    if left < len(cells):
        draw(grid, cells, folder)
    if left:
        print(f"{left} of {len(cells)} cells are missing; run the command again", file=sys.stderr)
        sys.exit(3)
