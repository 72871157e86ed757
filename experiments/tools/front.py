"""The table of README.md: six claims, with their numbers and the commands that make them."""

from collections.abc import Iterator
from typing import NamedTuple

from experiments.tools import grid
from jaxdd.runs import report, results
from jaxdd.runs.options import Options, make


class Claim(NamedTuple):
    """A line of the table: plain distillation beside one with weights.

    Attributes:
        said: the claim.
        dataset: a benchmark.
        weighted: the row with weights.
        options: of both rows.
        file: of the results, in experiments/results.
    """

    said: str
    dataset: str
    weighted: str
    options: Options
    file: str


CLAIMS = (
    Claim("small digits, 10 % in a colour of another class", "cdigits", "kde",
          make(conflict=0.1), "demo.json"),
    Claim("MNIST, 5 % in a colour of another class", "cmnist", "kde",
          make(conflict=0.05), "main_table.jsonl"),
    Claim("the same, 1 %", "cmnist", "kde", make(conflict=0.01), "main_table.jsonl"),
    Claim("the same, 5 %, fifty images per class", "cmnist", "kde",
          make(conflict=0.05, ipc=50), "main_table.jsonl"),
    Claim("MNIST without a bias: `auto` keeps uniform weights", "mnist", "auto",
          make(), "no_bias.jsonl"),
    Claim("clothes, biased by natural backgrounds; told that the border is no object", "bgfmnist",
          "ring", make(conflict=0.05), "by_view.jsonl"),
)  # fmt: skip


def pair(claim: Claim) -> dict[str, dict]:
    """Returns the results of a claim by row, plain distillation first."""
    names = ("none", claim.weighted)
    if claim.file.endswith(".json"):
        found = results.read(grid.RESULTS / claim.file)
        return {name: found[name] for name in names}
    known = grid.stored()
    cells = {name: grid.Cell(claim.dataset, name, claim.options) for name in names}
    return {name: grid.result(cell, known) or {} for name, cell in cells.items()}


def command(claim: Claim) -> str:
    """Returns the command that makes both rows."""
    if claim.file == "demo.json":
        return "jaxdd demo"
    config = pair(claim)["none"]["config"]
    rows = results.ROWS if claim.weighted in results.ROWS else ("none", claim.weighted)
    return str(report.command(config, rows=rows))


def lines() -> Iterator[str]:
    """Yields the lines of the table."""
    yield "| accuracy in % | plain | **weighted** | n | command |"
    yield "|---|--:|--:|--:|---|"
    for claim in CLAIMS:
        plain, weighted = (row.get("accuracy") for row in pair(claim).values())
        numbers = f"{results.percent(plain)} | **{results.percent(weighted)}** | {weighted['n']}"
        link = f"[`{command(claim)}`](experiments/results/{claim.file})"
        yield f"| {claim.said} | {numbers} | {link} |"
