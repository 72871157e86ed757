"""The claims on one page: what is said, whether it holds here, and the number that says so.

    python -m experiments.tools.overview

The first table of experiments/README.md, which `experiments.tools.table` prints as well.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from experiments.tools import grid
from jaxdd.runs import old_results as results
from jaxdd.runs.options import Options, make

CMNIST = make(conflict=0.05)
AT_FIFTY = make(conflict=0.05, ipc=50)
UNLEARNED = make(conflict=0.05, ipc=50, training="selecmix")
BY_BATCH = make(conflict=0.05, weighting="batch", init="real")


class Claim(NamedTuple):
    """A line of the table.

    Attributes:
        said: the claim.
        holds: whether it does here.
        number: cells by what they are called, from what is compared with to what is claimed.
        section: of experiments/README.md.
        score: of `results.SCORES` and `grid.GAPS`.
    """

    said: str
    holds: str
    number: dict[str, grid.Cell]
    section: str
    score: str = "accuracy"


def rows(dataset: str, options: Options, *names: str) -> dict[str, grid.Cell]:
    """Cells that differ in the row alone, by row."""
    return {name: grid.Cell(dataset, name, options) for name in names}


CLAIMS = (
    Claim(
        "density weights undo the bias of a colour",
        "yes",
        rows("cmnist", AT_FIFTY, "none", "kde"),
        "The main table",
    ),
    Claim(
        "they hold where conflict is rare (1 %)",
        "yes",
        rows("cmnist", make(conflict=0.01), "none", "kde"),
        "The main table",
    ),
    Claim(
        "distillation amplifies colour",
        "yes, by how much depends on the seed",
        rows("cmnist", CMNIST, "random", "none"),
        "Which biases are amplified",
        score="conflicting",
    ),
    Claim(
        "distillation amplifies backgrounds",
        "few that recur; not many",
        rows("bgfmnist-few", CMNIST, "random", "none"),
        "Which biases are amplified",
        score="conflicting",
    ),
    Claim(
        "distillation suppresses corruption",
        "yes",
        rows("ccifar10", CMNIST, "random", "none"),
        "Which biases are amplified",
        score="conflicting",
    ),
    Claim(
        "density weights help against backgrounds",
        "no",
        rows("bgfmnist", CMNIST, "none", "kde"),
        "Which biases are amplified",
    ),
    Claim(
        "density weights help against corruption",
        "no",
        rows("ccifar10", CMNIST, "none", "kde"),
        "Which biases are amplified",
    ),
    Claim(
        "they help with one image per class",
        "against colour, less than with ten",
        rows("cmnist", make(conflict=0.05, ipc=1), "none", "kde"),
        "One image per class",
    ),
    Claim(
        "unlearning the bias afterwards recovers a part",
        "yes, with fifty images per class",
        {
            "plain": grid.Cell("cmnist", "none", AT_FIFTY),
            "selecmix": grid.Cell("cmnist", "none", UNLEARNED),
        },
        "Unlearning the bias afterwards",
    ),
    Claim(
        "DSA is helped as DM is",
        "yes",
        rows("cmnist", make(method="dsa", conflict=0.05), "none", "kde"),
        "Every family of methods",
    ),
    Claim(
        "left open: trajectory matching",
        "helped as well",
        rows("cmnist", make(method="mtt", conflict=0.05), "none", "kde"),
        "Every family of methods",
    ),
    Claim(
        "weights can be estimated from each batch",
        "those of the whole data set are better",
        {
            "batch": grid.Cell("cmnist", "kde", BY_BATCH),
            "data set": grid.Cell("cmnist", "kde", CMNIST),
        },
        "Weights of the data or of the batch",
    ),
    Claim(
        "of FairDD: it is more accurate than density weights",
        "no, but its gaps are smaller",
        rows("cmnist-fg", make(conflict=0.1), "kde", "fairdd"),
        "FairDD's cells",
    ),
    Claim(
        "ours: a view of the texture finds corruption without labels",
        "yes, two thirds of what labels are worth",
        rows("ccifar10", CMNIST, "none", "auto", "oracle"),
        "Weights from object-blind features",
        score="conflicting",
    ),
    Claim(
        "ours: a view of the tone finds grey images without labels",
        "yes, nearly all that labels are worth",
        rows("cifar10-s", CMNIST, "none", "auto", "oracle"),
        "Weights from object-blind features",
        score="conflicting",
    ),
    Claim(
        "ours: who says that the border is no object undoes backgrounds",
        "yes, more than half of what labels are worth",
        rows("bgfmnist", CMNIST, "none", "border", "oracle"),
        "Weights from object-blind features",
        score="conflicting",
    ),
    Claim(
        "ours: auto undoes biases that were held out",
        "a bar nearly, corruptions by half, turns not at all",
        rows("cifar10-bar", CMNIST, "none", "auto", "oracle"),
        "Biases that were held out",
        score="conflicting",
    ),
    Claim(
        "ours: auto costs nothing without a bias",
        "yes, where fixed defaults cost much",
        rows("fashion_mnist", make(), "none", "kde", "auto"),
        "Is there a bias?",
    ),
)


def lines() -> Iterator[str]:
    """Yields the lines of the table."""
    known = grid.stored()
    yield "| claim | holds here? | number | section |"
    yield "|---|---|---|---|"
    for claim in CLAIMS:
        found = {name: grid.result(cell, known) or {} for name, cell in claim.number.items()}
        number = " → ".join(
            f"{name} {results.percent(row.get(claim.score))}" for name, row in found.items()
        )
        scored = "" if claim.score == "accuracy" else f" ({results.SCORES[claim.score]})"
        link = f"[{claim.section}](#{anchor(claim.section)})"
        yield f"| {claim.said} | {claim.holds} | {number}{scored} | {link} |"


def anchor(heading: str) -> str:
    """Returns where a link to a heading of a page on GitHub leads.

    >>> anchor("FairDD's cells")
    'fairdds-cells'
    """
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def main() -> None:
    """Prints the table in Markdown."""
    print("\n".join(lines()))


if __name__ == "__main__":
    main()
