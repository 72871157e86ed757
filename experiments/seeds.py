"""How much depends on the seed of the data, the encoder, the start and the distillation?

    python -m experiments.seeds --preset quick --data-dir DIR

Coloured MNIST with 5 % bias-conflicting samples at ten images per class, for three seeds. The
standard deviation behind ± is that of networks trained on one set; lines differ by everything else.
30 minutes on two cores.

`intervals` makes of them what may be said of *sets*: the mean over seeds of distillation, and an
interval over these, by Student's t from the means of the sets, or by the two-level bootstrap where
the scores of single networks are kept ("each", which older lines lack). Differences are paired by
the seed.

An interval over three sets is wide. By it density weights differ from none and from real images
drawn by them, but not from auto and the oracle, nor plain distillation from a random subset.

Density weights, auto and the oracle hardly differ, whatever the seed, nor do seeds by much. Real
subsets differ more, and most if drawn by the weights.
"""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from experiments.tools import grid
from jaxdd import intervals
from jaxdd.runs import results
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
    titles = (
        "sets × networks",
        "mean",
        "95 % over sets",
        "minus",
        "by",
        "95 % over sets",
        "by way of",
    )
    what = f"[row](experiments/results/seeds.jsonl) ({results.SCORES[score]} test samples)"
    yield f"| {what} | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * 3}---|{'--:|' * 2}---|"
    for row, found in rows.items():
        if len(found) < 2:
            continue
        (mean, *ends), way = over_sets(list(found.values()))
        other = {seed: rows.get(PAIRS.get(row, ""), {}).get(seed) for seed in found}
        differs = ["–"] * 3
        if all(other.values()):
            (by, *apart), _ = over_sets(list(found.values()), list(other.values()))
            differs = [PAIRS[row], f"{100 * by:+.1f}", _between(apart, "+.1f")]
        size = f"{len(found)} × {min(each['n'] for each in found.values())}"
        numbers = [size, f"{100 * mean:.1f}", _between(ends, ".1f"), *differs, way]
        yield f"| {row} | {' | '.join(numbers)} |"


def over_sets(
    scores: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]] | None = None
) -> tuple[intervals.Interval, str]:
    """The mean of scores of sets, or of their paired differences, its interval, and by what."""
    pairs = [scores] if others is None else [scores, others]
    if all("each" in score for group in pairs for score in group):
        arrays = [np.array([score["each"] for score in group]) for group in pairs]
        of = intervals.bootstrap if others is None else intervals.difference
        return of(jax.random.key(0), *arrays), "bootstrap"
    means = [np.array([score["mean"] for score in group]) for group in pairs]
    each = means[0] if others is None else means[0] - means[1]
    spread = {"mean": 0.5, "std": each.std(ddof=1), "n": len(each)}
    half = (results.interval(spread) or (0.5, 0.5))[1] - 0.5
    return intervals.Interval(each.mean(), each.mean() - half, each.mean() + half), "Student's t"


def _between(ends: Sequence[Any], form: str) -> str:
    return " to ".join(format(100 * float(end), form) for end in ends)


if __name__ == "__main__":
    grid.main(GRID)
