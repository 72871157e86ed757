"""Tables of gains: which share of the gain with all bias labels do other weights have?"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.tools import grid, markdown

TITLES = (
    "seeds", "plain", "weighted", "oracle", "share of the oracle's gain",
    "change on all test samples",
)  # fmt: skip


class Gain(NamedTuple):
    """Scores of distilled sets that differ in their weights only.

    Attributes:
        plain: accuracy on bias-conflicting test samples with uniform weights.
        weighted: the same with the weights in question.
        oracle: the same with weights from all bias labels.
        change: accuracy of `weighted` minus that of `plain` on all test samples.
    """

    plain: float
    weighted: float
    oracle: float
    change: float


def share(gains: Sequence[Gain]) -> float:
    """Return the gain over plain as a share of that of the oracle; both are sums over sets.

    >>> share([Gain(0.25, 0.5, 0.75, 0.1), Gain(0.25, 0.25, 0.25, 0.0)])
    0.5
    """
    plain, weighted, oracle, _ = np.sum(gains, 0)
    return float((weighted - plain) / (oracle - plain))


def gain(mean: Callable[[str, str], float], row: str) -> Gain:
    """Return the gain of a row.

    Args:
        mean: `mean(row, score)` returns a mean score; NaN if there is none.
        row: the row with the weights in question.
    """
    plain, weighted, oracle = (mean(name, "conflicting") for name in ("plain", row, "oracle"))
    return Gain(plain, weighted, oracle, mean(row, "accuracy") - mean("plain", "accuracy"))


def of_cell(known: grid.Stored, cell: grid.Cell, row: str) -> Gain:
    """Return the gain of a row with the data set and the options of a cell."""

    def mean(name: str, score: str) -> float:
        result: Any = grid.result(cell._replace(row=name), known)
        return np.nan if result is None else getattr(result, score).mean

    return gain(mean, row)


def percent(share: float) -> str:
    """Return a share in percent, – for NaN.

    >>> percent(0.523), percent(float("nan"))
    ('52 %', '–')
    """
    return "–" if np.isnan(share) else f"{round(100 * share)} %"


def points(difference: float) -> str:
    """Return a difference of accuracies in percentage points, – for NaN."""
    return "–" if np.isnan(difference) else f"{100 * difference:+.1f}"


def table(rows: Iterable[tuple[str, Sequence[Gain]]]) -> list[str]:
    """Return a table of means over seeds, from labels and the gains of each seed."""
    lines = []
    for label, gains in rows:
        *scores, change = np.mean(gains, 0)
        accuracies = ["–" if np.isnan(score) else f"{100 * score:.1f}" for score in scores]
        lines.append([label, str(len(gains)), *accuracies, percent(share(gains)), points(change)])
    return markdown.table(["accuracy in % (conflicting test samples)", *TITLES], lines)
