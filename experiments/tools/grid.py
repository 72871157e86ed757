"""Grids of experiments: cells that are computed once, saved one by one, and printed as tables.

A cell is one row of a comparison: a data set, options, and a way to make the set. Its result is a
line of JSON in results/CLAIM.jsonl. A cell is looked up by its configuration in the files of all
claims, so claims share cells. Options that are missing in a line have their defaults. So a new
option changes no cell, and cells with a changed default are computed again. Cells that differ only
in the row share weights and compiled programs.

Every module of `experiments` with a grid is run as

    python -m experiments.NAME [--preset quick|paper] [--data-dir DIR] [--budget 20m]

and can be run again to compute missing cells. It ends with exit code 3 while cells are missing.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import tyro

from experiments.tools import markdown, record
from jaxdd.data import benchmarks, datasets, files
from jaxdd.runs import components, options, pipeline, programs, progress, results, timing

RESULTS, WORK = record.RESULTS, files.CACHE / "experiments"

GAPS = {"deo_max": "largest gap between groups", "deo_mean": "mean gap between groups"}
"""Scores that are not accuracies, with their titles."""

WORDS: dict[str, Callable[[Any], str]] = {
    "ipc": lambda ipc: f"{ipc} per class",
    "conflict": lambda share: "no bias" if share is None else f"{100 * share:g} % conflicting",
    "seed": lambda seed: f"seed {seed}",
    "method": str.upper,
    "candidates": lambda count: "" if count is None else "cluster centres",
    "formation": lambda factor: "" if factor == 1 else f"{factor**2} images in one",
    "training": {"standard": "standard", "lff": "LfF", "selecmix": "SelecMix"}.__getitem__,
    "zca": {
        "none": "no whitening", "uniform": "fitted uniformly", "weighted": "fitted by weights",
    }.__getitem__,
    "weighting": {
        "draw": "sampled by weight", "mean": "weighted batch", "batch": "weights of the batch",
    }.__getitem__,
    "init": {
        "weighted": "real images by weight", "real": "real images", "noise": "noise",
    }.__getitem__,
    "bandwidth": lambda bandwidth: f"bandwidth {bandwidth:g}",
    "temperature": lambda temperature: f"temperature {temperature:g}",
}  # fmt: skip
"""Functions from the value of an option to its label in tables; others are shown as they are."""

Stored = Sequence[tuple[dict[str, Any], results.Result]]
"""Configurations and their results."""


class Cell(NamedTuple):
    """One row of a comparison on a benchmark."""

    dataset: str
    row: str
    options: options.DM


class Grid(NamedTuple):
    """The cells of a claim and the form of its tables.

    Attributes:
        name: name of the claim.
        cells: function from the preset to all cells, in the order in which they are computed.
        down: names of options whose values label the lines of a table.
        scores: scores in `results.SCORES` or `GAPS`; each gets its own table.
        across: the option whose values are the columns, or "row".
        extra: function that computes other results of the claim; its argument is the folder with
            the original files.
    """

    name: str
    cells: Callable[[str], Sequence[Cell]]
    down: tuple[str, ...]
    scores: tuple[str, ...] = ("accuracy",)
    across: str = "row"
    extra: Callable[[pathlib.Path | None], None] = lambda data_dir: None


def title(cell: Cell) -> str:
    """Return the name of a cell: data set, row, and the options that differ from the defaults.

    >>> title(Cell("cmnist", "density", options.make(conflict=0.05, ipc=1)))
    'cmnist density conflict=0.05 ipc=1'
    """
    # Defaults depend on the preset and on ipc, so both are compared with a constant instead.
    chosen = cell.options
    defaults = dataclasses.asdict(type(chosen)(preset=chosen.preset, ipc=chosen.ipc))
    defaults |= {"method": "dm", "preset": "quick", "ipc": 10}
    changed = {
        name: value
        for name, value in sorted(dataclasses.asdict(chosen).items())
        if value != defaults[name]
    }
    return " ".join([cell.dataset, cell.row, *(f"{n}={value}" for n, value in changed.items())])


def configuration(cell: Cell) -> dict[str, Any]:
    """Return everything that the result of a cell depends on.

    >>> quick = Cell("cmnist", "density", options.make(ipc=1))
    >>> configuration(quick) == configuration(quick._replace(options=options.make(ipc=1, chunk=5)))
    True
    >>> configuration(quick) == configuration(quick._replace(options=options.make(ipc=1, steps=5)))
    False
    """
    values = options.to_config(cell.options)
    return files.to_json({"dataset": cell.dataset, "row": cell.row, **values})


def workplace(cell: Cell, work: pathlib.Path) -> pathlib.Path:
    """Return the folder below `work` of the comparison that a cell belongs to."""
    text = json.dumps([cell.dataset, dataclasses.asdict(cell.options)], sort_keys=True)
    return work / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def stored(folder: pathlib.Path = RESULTS) -> Stored:
    """Read the results of all claims."""
    paths = [(path, path.stat()) for path in sorted(folder.glob("*.jsonl"))]
    return [entry for path, stat in paths for entry in _read(path, stat.st_mtime_ns, stat.st_size)]


@functools.lru_cache(64)
def _read(path, *_):
    """Read one file. Its time and size are arguments, so that a changed file is read again."""
    return [_entry(line, path) for line in files.read_lines(path)]


def _entry(line, path):
    config = line.get("config")
    if not isinstance(config, dict) or not {"dataset", "row"} <= config.keys():
        raise ValueError(f"{path} must hold results of cells, got {str(line)[:80]}")
    cell = Cell(config["dataset"], config["row"], options.from_config(config))
    return configuration(cell), results.Result.from_dict(line)


def result(cell: Cell, known: Stored) -> results.Result | None:
    """Return the result of a cell, None if there is none."""
    config = configuration(cell)
    return next((result for other, result in known if other == config), None)


def compute(
    grid: Grid,
    cells: Sequence[Cell],
    *,
    data_dir: pathlib.Path | None = None,
    work: pathlib.Path,
    folder: pathlib.Path = RESULTS,
    report: progress.Report = progress.silent,
) -> None:
    """Compute the cells that have no result yet.

    Args:
        grid: the grid of the cells.
        cells: some or all of its cells.
        data_dir: folder with the original files.
        work: folder for checkpoints and synthetic sets, from which a stopped cell is resumed.
        folder: folder of the results.
        report: function that is called as the run advances.
    """
    known, comparisons = stored(folder), {}
    for cell in cells:
        if result(cell, known) is None:
            comparisons.setdefault((cell.dataset, cell.options), []).append(cell)
    # One comparison for all rows of the same options: they share weights and programs. They do not
    # share batches, so that the result of a cell does not depend on which others are missing.
    for (dataset, chosen), missing in comparisons.items():
        spent = {}
        with timing.timed(spent, "data"):
            data = load(dataset, chosen, data_dir=data_dir)
        whole, rows = workplace(missing[0], work), [cell.row for cell in missing]
        try:
            pipeline.compare(
                data, whole, chosen, rows=rows, separate=True, spent=spent, report=report,
                resume=True, **components.cpu_devices(chosen),
            )  # fmt: skip
        finally:  # a stopped comparison may have finished rows
            for cell in missing:
                path = whole / "rows" / cell.row / "result.json"
                if path.exists():
                    line = {"cell": title(cell)} | results.read(path)[cell.row].to_dict()
                    files.append_line(folder / f"{grid.name}.jsonl", line)


def check(grid: Grid, cells: Sequence[Cell], data_dir: pathlib.Path | None) -> list[str]:
    """Compute cells again in a temporary folder; return a table with their stored results."""
    known, rows = stored(), []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        compute(grid, cells, data_dir=data_dir, work=folder, folder=folder, report=record.log)
        again = stored(folder)
    for cell, score in itertools.product(cells, grid.scores):
        pair = (_score(result(cell, lines), score) for lines in (known, again))
        rows.append([title(cell), score_title(score), *map(results.percent, pair)])
    return markdown.table(["cell", "score", "stored", "computed again"], rows, left=(0, 1))


def load(
    name: str, chosen: options.DM, *, data_dir: pathlib.Path | None = None
) -> datasets.Benchmark:
    """Return the benchmark with the conflict share, severity, test set and seed of the options."""
    fields = {field: getattr(chosen, field) for field in ("conflict", "severity", "test", "seed")}
    return benchmarks.load(name, data_dir=data_dir, **fields)


def tables(grid: Grid, cells: Sequence[Cell], folder: pathlib.Path = RESULTS) -> list[list[str]]:
    """Return a Markdown table for every score.

    Cells without a result are dashes. Lines are left out if none of their results has the score.
    """
    columns, lines = _sides(grid, cells, folder)
    preset = cells[0].options.preset
    scale = "" if preset == "quick" else f"; {preset}"
    return [
        markdown.table(
            [f"in % ({score_title(score)}{scale})", *columns],
            [
                [label, *(results.percent(_score(line.get(name), score)) for name in columns)]
                for label, line in lines.items()
                if not line
                or any(not math.isnan(_score(result, score).mean) for result in line.values())
            ],
        )
        for score in grid.scores
    ]


def score_title(score: str) -> str:
    """Return the title of a score, such as "all test samples"."""
    return GAPS.get(score) or f"{results.SCORES[score]} test samples"


def panel_title(score: str) -> str:
    """Return the title of a panel of a figure, such as "All test samples"."""
    return score_title(score).capitalize()


def word(cell: Cell, name: str) -> str:
    """Return the label of an option of a cell."""
    values = {**cell._asdict(), **dataclasses.asdict(cell.options)}
    return WORDS.get(name, str)(values.get(name))


def _score(result, score):
    return None if result is None else getattr(result, score)


def _sides(grid, cells, folder):
    """The labels of the columns, and the results by line and column."""
    lines, known = {}, stored(folder)
    # Options with the same value everywhere label nothing, except the first.
    first, *others = grid.down
    down = [first, *(name for name in others if len({word(cell, name) for cell in cells}) > 1)]
    for cell in cells:
        label = ", ".join(filter(None, (word(cell, name) for name in down)))
        line = lines.setdefault(label, {})
        if (stored_result := result(cell, known)) is not None:
            line[word(cell, grid.across)] = stored_result
    return list(dict.fromkeys(word(cell, grid.across) for cell in cells)), lines


def main(grid: Grid) -> None:
    """Run the command line of a grid: compute missing cells and print the tables."""
    tyro.cli(functools.partial(run, grid), description=f"See the docstring of {grid.name}.")


def run(
    grid: tyro.conf.Suppress[Grid],
    *,
    preset: Literal["quick", "paper"] = "quick",
    data_dir: pathlib.Path | None = None,
    budget: str | None = None,
    again: str = "",
    work: pathlib.Path = WORK,
    folder: pathlib.Path = RESULTS,
) -> None:
    """Compute the missing cells of a claim and print its tables.

    Args:
        grid: grid of the claim.
        preset: quick fits two CPU cores, paper one GPU.
        data_dir: folder with the original files.
        budget: time after which to stop, such as 90s, 20m or 1h.
        again: only compute cells again whose names contain this text, and compare the results.
        work: folder for checkpoints, from which a stopped cell is resumed.
        folder: folder of the results.
    """
    cells = grid.cells(preset)
    programs.prepare()
    if again:
        chosen = [cell for cell in cells if again in title(cell)]
        return record.show([check(grid, chosen, data_dir)])
    try:
        with record.deadline(budget):
            grid.extra(data_dir)
            where = dict(data_dir=data_dir, work=work.expanduser(), folder=folder)
            compute(grid, cells, report=record.log, **where)
    except (KeyboardInterrupt, pipeline.Interrupted):
        pass
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    record.show(tables(grid, cells, folder))
    known = stored(folder)
    missing = sum(result(cell, known) is None for cell in cells)
    if missing:
        print(f"{missing} of {len(cells)} cells are missing; run again", file=sys.stderr)
        sys.exit(3)
