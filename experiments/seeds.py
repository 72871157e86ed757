"""How much depends on the seed of the data, the encoder, the start and the distillation?

    python -m experiments.seeds --preset quick --data-dir DIR

Coloured MNIST with 5 % bias-conflicting samples at ten images per class, for three seeds. The
standard deviation behind ± is that of networks trained on one set; lines differ by everything else.
30 minutes on two cores.

Of *sets* it says the mean over seeds of distillation, and an interval over these, by Student's t
from the means of the sets: three are too few for the bootstrap of `experiments.tools.intervals`. Differences
are paired by the seed.

An interval over three sets is wide. By it density weights differ from none and from real images
drawn by them, but not from auto and the oracle, nor plain distillation from a random subset.

Density weights, auto and the oracle hardly differ, whatever the seed, nor do seeds by much. Real
subsets differ more, and most if drawn by the weights.
"""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.special

from experiments.tools import grid
from jaxdd.runs import old_results as results
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Every way to make a set, for every seed."""
    return [
        grid.Cell("cmnist", row, make(preset=preset, conflict=0.05, seed=seed))
        for seed, row in itertools.product(
            range(3), ("random", "random-kde", "none", "kde", "auto", "oracle")
        )
    ]


GRID = grid.Grid("seeds", cells, down=("seed",), scores=("accuracy", "conflicting"))

PAIRS = {"random": "none", "random-kde": "kde", "kde": "none", "auto": "kde", "oracle": "kde"}
"""What each row is compared with."""


def lines(
    cells: Sequence[grid.Cell], score: str = "accuracy", folder: pathlib.Path = grid.RESULTS
) -> Iterator[str]:
    """Yields the lines of the table of intervals over sets, of rows with two seeds or more."""
    known = grid.stored(folder)
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for cell in cells:
        if (found := grid.result(cell, known)) is not None:
            rows.setdefault(cell.row, {})[cell.options.seed] = found[score]
    titles = "sets × networks", "mean", "95 % over sets", "minus", "by", "95 % over sets"
    what = f"[row](experiments/results/seeds.jsonl) ({results.SCORES[score]} test samples)"
    yield f"| {what} | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * 3}---|{'--:|' * 2}"
    for row, found in rows.items():
        if len(found) < 2:
            continue
        own, by = _means(found.values()), PAIRS.get(row, "")
        mean, *ends = over_sets(own)
        other = {seed: rows.get(by, {}).get(seed) for seed in found}
        differs = ["–"] * 3
        if all(other.values()):
            gain, *apart = over_sets(own - _means(other.values()))
            differs = [by, f"{100 * gain:+.1f}", between(apart, "+.1f")]
        size = f"{len(found)} × {min(each['n'] for each in found.values())}"
        numbers = [size, f"{100 * mean:.1f}", between(ends, ".1f"), *differs]
        yield f"| {row} | {' | '.join(numbers)} |"


def _means(scores):
    return np.array([score["mean"] for score in scores])


def over_sets(values: np.ndarray) -> tuple[float, float, float]:
    """The mean of numbers of two sets or more, and the ends of its 95 % interval by Student's t."""
    half = scipy.special.stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def between(ends: Sequence[float], form: str) -> str:
    """Both ends of an interval of shares, in %."""
    return " to ".join(format(100 * end, form) for end in ends)


if __name__ == "__main__":
    grid.main(GRID)
