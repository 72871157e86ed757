"""How much depends on the seed of data, encoder, initial images and distillation?

    python -m experiments.seeds --data-dir DIR

Coloured MNIST, 5 % bias-conflicting samples, ten images per class, three seeds. The standard
deviation after ± is over networks trained on one set; lines differ in everything else. The second
table has means over seeds of distillation with intervals by Student's t over the means of the sets,
and differences paired by seed.

Cost: 30 minutes on two cores.
"""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
import scipy.special

from experiments.tools import grid, markdown
from jaxdd.runs.options import make

ROWS = ("random", "random-density", "plain", "density", "auto", "oracle")
COMPARED_WITH = {
    "random": "plain",
    "random-density": "density",
    "density": "plain",
    "auto": "density",
    "oracle": "density",
}


def cells(preset: str) -> list[grid.Cell]:
    """Return every way to make a set, for every seed."""
    return [
        grid.Cell("cmnist", row, make(preset=preset, conflict=0.05, seed=seed))
        for seed, row in itertools.product(range(3), ROWS)
    ]


GRID = grid.Grid("seeds", cells, down=("seed",), scores=("accuracy", "conflicting"))


def interval_table(
    cells: Sequence[grid.Cell], score: str = "accuracy", folder: pathlib.Path = grid.RESULTS
) -> list[str]:
    """Return the table of intervals over sets, of rows with at least two seeds."""
    known, lines = grid.stored(folder), []
    by_row = {cell.row: {} for cell in cells}
    for cell in cells:
        if (result := grid.result(cell, known)) is not None:
            by_row[cell.row][cell.options.seed] = getattr(result, score)
    for row, scores in by_row.items():
        if len(scores) < 2:
            continue
        means = _means(scores.values())
        mean, *ends = student_interval(means)
        other = COMPARED_WITH.get(row, "")
        others = [by_row.get(other, {}).get(seed) for seed in scores]
        difference = ["–"] * 3
        if all(others):
            gain, *gain_ends = student_interval(means - _means(others))
            difference = [other, f"{100 * gain:+.1f}", format_ends(gain_ends, "+.1f")]
        size = f"{len(scores)} × {min(score.n for score in scores.values())}"
        lines.append([row, size, f"{100 * mean:.1f}", format_ends(ends, ".1f"), *difference])
    titles = "sets × networks", "mean", "95 % over sets", "minus", "by", "95 % over sets"
    corner = f"{markdown.link('row', grid.RESULTS / 'seeds.jsonl')} ({grid.score_title(score)})"
    return markdown.table([corner, *titles], lines, left=(0, 4))


def tables() -> list[list[str]]:
    """Return the tables of intervals for both scores."""
    return [interval_table(cells("quick"), score) for score in GRID.scores]


def _means(scores):
    return np.array([score.mean for score in scores])


def student_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of values and the ends of its 95 % interval by Student's t."""
    # t quantile with n − 1 degrees of freedom times the standard error of the mean.
    half = scipy.special.stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def format_interval(values: np.ndarray) -> str:
    """Return the mean of shares with its interval, in %; the mean alone for a single one.

    >>> format_interval(np.array([0.5]))
    '50.0'
    """
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    mean, low, high = (100 * x for x in student_interval(values))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def format_ends(ends: Sequence[float], form: str) -> str:
    """Return both ends of an interval of shares, in %."""
    return " to ".join(format(100 * end, form) for end in ends)


if __name__ == "__main__":
    grid.main(GRID)
