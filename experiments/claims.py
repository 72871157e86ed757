"""Do the claims in the table of README.md hold for several sets?

    python -m experiments.claims --data-dir DIR

There are six claims with three seeds each. A seed determines attributes, encoder, initial images,
batches and networks. Each claim compares plain distillation with one weighting, with three networks
per set. The gain is the mean of the paired differences of the sets, with an interval by Student's t
over the sets, because networks trained on one set contain no information about other sets.

Cost: an hour on two cores, in addition to cells of `main_table`, `seeds`, `no_bias` and
`by_features`.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments import seeds
from experiments.tools import grid, markdown
from jaxdd.runs.options import make
from jaxdd.runs.reports.command_line import command_line

SEEDS = 3


class Claim(NamedTuple):
    """A comparison of plain distillation with a weighting.

    Attributes:
        text: the claim.
        dataset: a benchmark.
        weighted: the row with weights.
        fields: options of both rows.
    """

    text: str
    dataset: str
    weighted: str
    fields: dict[str, Any]


CLAIMS = (
    Claim("small digits, 10 % in the colour of another class", "cdigits", "density",
          dict(conflict=0.1)),
    Claim("MNIST, 5 % in the colour of another class", "cmnist", "density", dict(conflict=0.05)),
    Claim("MNIST, 1 %", "cmnist", "density", dict(conflict=0.01)),
    Claim("MNIST, 5 %, fifty images per class", "cmnist", "density", dict(conflict=0.05, ipc=50)),
    Claim("MNIST without a bias; `auto` keeps uniform weights", "mnist", "auto", {}),
    Claim("Fashion-MNIST on natural backgrounds, border declared a nuisance", "bgfmnist", "border",
          dict(conflict=0.05)),
)  # fmt: skip


def pair(claim: Claim, *, preset: str = "quick", seed: int = 0) -> list[grid.Cell]:
    """Return the cells of a claim with one seed, plain distillation first."""
    chosen = make(preset=preset, seed=seed, **claim.fields)
    return [grid.Cell(claim.dataset, row, chosen) for row in ("plain", claim.weighted)]


def cells(preset: str) -> list[grid.Cell]:
    """Return every claim with every seed."""
    runs = [pair(claim, preset=preset, seed=seed) for claim in CLAIMS for seed in range(SEEDS)]
    return [cell for cells in runs for cell in cells]


GRID = grid.Grid("claims", cells, down=("dataset", "conflict", "ipc", "seed"))


def command(claim: Claim) -> str:
    """Return the command that computes both rows with the first seed."""
    config = {"command": "compare", "separate": True, **grid.configuration(pair(claim)[0])}
    return str(command_line(config, rows=("plain", claim.weighted)))


def accuracies(claim: Claim) -> tuple[np.ndarray, str]:
    """Return mean accuracies of both rows for the stored seeds `[s, 2]`, and networks per set."""
    known, means, networks = grid.stored(), [], set()
    for seed in range(SEEDS):
        rows = [grid.result(cell, known) for cell in pair(claim, seed=seed)]
        if all(rows):
            means.append([row.accuracy.mean for row in rows])
            networks |= {row.accuracy.n for row in rows}
    return np.array(means).reshape(-1, 2), "–".join(map(str, sorted(networks)))


def tables() -> list[list[str]]:
    """Return the table of the README, and the commands that compute its rows."""
    rows, commands = [], []
    for claim in CLAIMS:
        means, networks = accuracies(claim)
        if len(means) < 2:
            continue
        plain, weighted = 100 * means.mean(0)
        gain, *ends = seeds.student_interval(means[:, 1] - means[:, 0])
        interval = f"{round(100 * gain, 1) + 0:+.1f} ({seeds.format_ends(ends, '+.1f')})"
        rows.append([claim.text, f"{plain:.1f}", f"**{weighted:.1f}**", interval])
        commands.append([claim.text, f"`{command(claim)}`", f"{len(means)} × {networks}"])
    corner = markdown.link("accuracy in %", grid.RESULTS / "claims.jsonl")
    titles = corner, "plain", "**weighted**", "gain (95 % interval)"
    columns = corner.replace("accuracy in %", "claim"), "command", "sets × networks"
    return [markdown.table(titles, rows), markdown.table(columns, commands, left=(0, 1))]


if __name__ == "__main__":
    grid.main(GRID)
