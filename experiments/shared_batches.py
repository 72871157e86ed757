"""Are sets as accurate if the rows of a comparison share their batches?

    python -m experiments.shared_batches --data-dir DIR

Coloured digits with 10 % and coloured MNIST with 5 % bias-conflicting samples, ten images per
class, three seeds. `jaxdd compare` distils rows from the same real images, drawn by a mixture of
their weights (`jaxdd.runs.batches`); with `--separate`, each row draws its own. Intervals are by
Student's t over seeds, of differences paired by seed.

Cost: 20 minutes on one core, of which the separate rows take 3 if those of other experiments are
known.
"""

import functools
import itertools
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from experiments import seeds
from experiments.tools import grid, markdown, record
from jaxdd.data import files
from jaxdd.runs import components, pipeline
from jaxdd.runs.options import make

OUT = grid.RESULTS / "shared_batches.json"
SETS = {"cdigits": 0.1, "cmnist": 0.05}
ROWS = "plain", "density", "oracle"
SEEDS = 3


def cells(preset: str) -> list[grid.Cell]:
    """Return the rows with batches of their own."""
    return [
        grid.Cell(name, row, _options(name, seed, preset))
        for (name, seed), row in itertools.product(itertools.product(SETS, range(SEEDS)), ROWS)
    ]


def _options(name, seed, preset="quick"):
    return make(preset=preset, conflict=SETS[name], seed=seed)


def measure(name: str, seed: int, data_dir: pathlib.Path | None) -> dict[str, Any]:
    """Return the accuracies of all rows that share their batches, by row."""
    chosen = _options(name, seed)
    data = grid.load(name, chosen, data_dir=data_dir)
    with tempfile.TemporaryDirectory() as folder:
        devices = components.cpu_devices(chosen)
        table = pipeline.compare(data, folder, chosen, rows=ROWS, report=record.log, **devices)
    return {row: table[row].accuracy._asdict() for row in ROWS}


def measure_seconds(data_dir: pathlib.Path | None) -> dict[str, float]:
    """Return the CPU seconds of 50 steps of three rows on coloured MNIST, for both ways.

    They are the difference between comparisons of 60 and 10 steps, without compilation.
    """
    data = grid.load("cmnist", _options("cmnist", 0), data_dir=data_dir)
    weights = np.random.default_rng(0).gamma(0.5, size=len(data.train.labels))

    def seconds(steps, separate):
        chosen = make(conflict=SETS["cmnist"], steps=steps, epochs=1, eval_seeds=1)
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            pipeline.compare(
                data, folder, chosen, rows=("plain", "oracle"), weights=weights, separate=separate,
                **components.cpu_devices(chosen),
            )  # fmt: skip
            return time.process_time() - start

    ways = {"separate": True, "shared": False}
    for separate in ways.values():
        seconds(10, separate)
    return {way: seconds(60, separate) - seconds(10, separate) for way, separate in ways.items()}


def share(data_dir: pathlib.Path | None, *, out: pathlib.Path = OUT) -> None:
    """Compute the missing results of rows that share their batches."""
    tasks: dict[str, Any] = {"seconds": functools.partial(measure_seconds, data_dir)}
    for seed, name in itertools.product(range(SEEDS), SETS):
        tasks[f"{name}, seed {seed}"] = functools.partial(measure, name, seed, data_dir)
    record.fill(out, tasks)


GRID = grid.Grid("shared_batches", cells, down=("dataset", "seed"), extra=share)


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return a table of accuracies and their differences, and one of CPU time."""
    if not path.exists():
        return []
    known, measured, lines = grid.stored(), files.read_json(path)["measured"], []
    for name, row in itertools.product(SETS, ROWS):
        pairs = []
        for seed in range(SEEDS):
            separate = grid.result(grid.Cell(name, row, _options(name, seed)), known)
            if separate is not None and (shared := measured.get(f"{name}, seed {seed}")):
                pairs.append((separate.accuracy.mean, shared[row]["mean"]))
        if len(pairs) < 2:
            continue
        separate, shared = np.array(pairs).T
        difference, *ends = seeds.student_interval(shared - separate)
        means = (f"{100 * x.mean():.1f}" for x in (separate, shared))
        interval = f"{100 * difference:+.1f} ({seeds.format_ends(ends, '+.1f')})"
        lines.append([f"{name}, {row}", str(len(pairs)), *means, interval])
    corner = markdown.link("accuracy in %", path)
    titles = "seeds", "separate batches", "shared batches", "difference (95 % interval)"
    by_way = measured["seconds"]
    ratio = by_way["separate"] / by_way["shared"]
    time_lines = [["CPU seconds", *(f"{x:.1f}" for x in by_way.values()), f"{ratio:.2f}"]]
    time_corner = markdown.link("50 steps of three rows", path)
    time_titles = "separate batches", "shared batches", "ratio"
    return [
        markdown.table([corner, *titles], lines),
        markdown.table([time_corner, *time_titles], time_lines),
    ]


if __name__ == "__main__":
    grid.main(GRID)
