"""The table of README.md: does what it says hold for other sets?

    python -m experiments.claims --data-dir DIR

Six claims, three seeds each, which decide the attributes, the encoder, the start, the batches and
the networks; plain distillation beside one with weights, three networks for each set. The gain is
the mean of the sets' paired differences, its interval that of Student's t over the sets: networks
that were trained on one set tell nothing of another. An hour on two cores, besides the cells that
`experiments.main_table`, `seeds`, `no_bias` and `by_view` have.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments import seeds
from experiments.tools import grid
from jaxdd.runs.options import make
from jaxdd.runs.reports import report

SEEDS = 3


class Claim(NamedTuple):
    """A line of the table: plain distillation beside one with weights.

    Attributes:
        said: the claim.
        dataset: a benchmark.
        weighted: the row with weights.
        given: options of both rows.
    """

    said: str
    dataset: str
    weighted: str
    given: dict[str, Any]


CLAIMS = (
    Claim("small digits, 10 % in a colour of another class", "cdigits", "kde", dict(conflict=0.1)),
    Claim("MNIST, 5 % in a colour of another class", "cmnist", "kde", dict(conflict=0.05)),
    Claim("the same, 1 %", "cmnist", "kde", dict(conflict=0.01)),
    Claim(
        "the same, 5 %, fifty images per class", "cmnist", "kde", dict(conflict=0.05, ipc=50)
    ),
    Claim("MNIST without a bias: `auto` keeps uniform weights", "mnist", "auto", {}),
    Claim(
        "clothes, biased by natural backgrounds; told that the border is no object",
        "bgfmnist", "border", dict(conflict=0.05),
    ),
)  # fmt: skip


def pair(claim: Claim, *, preset: str = "quick", seed: int = 0) -> list[grid.Cell]:
    """The cells of a claim with one seed, plain distillation first."""
    chosen = make(preset=preset, seed=seed, **claim.given)
    return [grid.Cell(claim.dataset, row, chosen) for row in ("none", claim.weighted)]


def cells(preset: str) -> list[grid.Cell]:
    """Every claim with every seed."""
    return [
        cell
        for claim in CLAIMS
        for seed in range(SEEDS)
        for cell in pair(claim, preset=preset, seed=seed)
    ]


GRID = grid.Grid("claims", cells, down=("dataset", "conflict", "ipc", "seed"))


def command(claim: Claim) -> str:
    """Returns the command that makes both rows with the first seed."""
    if claim.dataset == "cdigits":
        return "jaxdd demo"
    config = {"command": "compare", **grid.depends(pair(claim)[0])}
    return str(report.command(config, rows=("none", claim.weighted)))


def accuracies(claim: Claim) -> tuple[np.ndarray, str]:
    """Mean accuracies of both rows for the seeds that are there, `[s, 2]`, and networks a set."""
    known, found, networks = grid.stored(), [], set()
    for seed in range(SEEDS):
        rows = [grid.result(cell, known) for cell in pair(claim, seed=seed)]
        if all(rows):
            found.append([row["accuracy"]["mean"] for row in rows])
            networks |= {row["accuracy"]["n"] for row in rows}
    return np.array(found).reshape(-1, 2), "–".join(map(str, sorted(networks)))


def lines() -> Iterator[str]:
    """Yields the lines of the table."""
    titles = "plain", "**weighted**", "gain", "95 % over sets", "sets × networks", "command"
    yield f"| [accuracy in %](experiments/results/claims.jsonl) | {' | '.join(titles)} |"
    yield f"|---|{'--:|' * 5}---|"
    for claim in CLAIMS:
        found, networks = accuracies(claim)
        if len(found) < 2:
            continue
        plain, weighted = 100 * found.mean(0)
        gain, *ends = seeds.over_sets(found[:, 1] - found[:, 0])
        numbers = [f"{plain:.1f}", f"**{weighted:.1f}**", f"{round(100 * gain, 1) + 0:+.1f}"]
        numbers += [seeds.between(ends, "+.1f"), f"{len(found)} × {networks}"]
        yield f"| {claim.said} | {' | '.join(numbers)} | `{command(claim)}` |"


if __name__ == "__main__":
    grid.main(GRID)
