"""The first table of experiments/README.md: every claim, whether it holds here, and the numbers."""

import re
from typing import NamedTuple

from experiments.tools import grid, markdown
from jaxdd.runs import results
from jaxdd.runs.options import DM, make


class Claim(NamedTuple):
    """A line of the table.

    Attributes:
        text: the claim.
        verdict: whether it holds here.
        cells: cells by label, from the baseline to the claimed result.
        page: page of docs/results.
        score: score that is shown, from `results.SCORES`.
    """

    text: str
    verdict: str
    cells: dict[str, grid.Cell]
    page: str
    score: str = "accuracy"


def rows(names: str, dataset: str, options: DM) -> dict[str, grid.Cell]:
    """Return cells that differ in the row only, by row."""
    return {name: grid.Cell(dataset, name, options) for name in names.split()}


BIASED = make(conflict=0.05)
AT_FIFTY = make(conflict=0.05, ipc=50)
UNLEARNED = make(conflict=0.05, training="selecmix")
BY_BATCH = make(conflict=0.05, weighting="batch", init="real")
AMPLIFIED, FEATURES = "amplification", "by_features"

CLAIMS = (
    Claim("density weights remove the bias of a colour", "yes",
          rows("plain density", "cmnist", AT_FIFTY), "main_table"),
    Claim("they do so with 1 % conflicting samples", "yes",
          rows("plain density", "cmnist", make(conflict=0.01)), "main_table"),
    Claim("distillation amplifies colour", "in this seed; not significant over three",
          rows("random plain", "cmnist", BIASED), AMPLIFIED, "conflicting"),
    Claim("distillation amplifies backgrounds",
          "if few scenes recur; not if every image has its own",
          rows("random plain", "bgfmnist-few", BIASED), AMPLIFIED, "conflicting"),
    Claim("distillation suppresses corruption", "yes",
          rows("random plain", "ccifar10", BIASED), AMPLIFIED, "conflicting"),
    Claim("density weights help against backgrounds", "no",
          rows("plain density", "bgfmnist", BIASED), AMPLIFIED),
    Claim("density weights help against corruption", "no",
          rows("plain density", "ccifar10", BIASED), AMPLIFIED),
    Claim("density weights help with one image per class", "against colour, less than with ten",
          rows("plain density", "cmnist", make(conflict=0.05, ipc=1)), "one_image_per_class"),
    Claim("unlearning the bias afterwards recovers part of the accuracy",
          "a small part, with ten images per class",
          {"standard": grid.Cell("cmnist", "plain", BIASED),
           "selecmix": grid.Cell("cmnist", "plain", UNLEARNED)}, "unlearning"),
    Claim("density weights help DSA like DM", "yes",
          rows("plain density", "cmnist", make(method="dsa", conflict=0.05)),
          "methods"),
    Claim("density weights help MTT (left open in the paper)", "yes",
          rows("plain density", "cmnist", make(method="mtt", conflict=0.05)),
          "methods"),
    Claim("weights can be estimated from each batch", "those of the whole data set are better",
          {"batch": grid.Cell("cmnist", "density", BY_BATCH),
           "data set": grid.Cell("cmnist", "density", BIASED)},
          "batch_weights"),
    Claim("FairDD is more accurate than density weights", "no, but its gaps are smaller",
          rows("density fairdd", "cmnist-fg", make(conflict=0.1)), "fairdd"),
    Claim("ours: texture detects corruption without labels",
          "yes, two thirds of the gain with labels",
          rows("plain auto oracle", "ccifar10", BIASED), FEATURES, "conflicting"),
    Claim("ours: tone detects grey images without labels",
          "yes, nearly all of the gain with labels",
          rows("plain auto oracle", "cifar10-s", BIASED), FEATURES, "conflicting"),
    Claim("ours: declaring the border a nuisance removes backgrounds",
          "yes, more than half of the gain with labels",
          rows("plain border oracle", "bgfmnist", BIASED), FEATURES, "conflicting"),
    Claim("ours: auto removes held-out biases",
          "nearly all of the gain for the bar, half for corruptions, less for turns",
          rows("plain auto oracle", "cifar10-bar", BIASED), "held_out",
          "conflicting"),
    Claim("ours: auto costs nothing without a bias", "yes, while density weights cost much",
          rows("plain density auto", "fashion_mnist", make()), "no_bias"),
)  # fmt: skip


def table() -> list[str]:
    """Return the lines of the table."""
    known, lines = grid.stored(), []
    for claim in CLAIMS:
        numbers = []
        for label, cell in claim.cells.items():
            result = grid.result(cell, known)
            numbers.append(f"{label} {results.percent(result and getattr(result, claim.score))}")
        scored = "" if claim.score == "accuracy" else f" ({results.SCORES[claim.score]})"
        path = f"docs/results/{claim.page}.md"
        title = (grid.RESULTS.parents[1] / path).read_text(encoding="utf-8").partition("\n")[0]
        link = f"[{title.removeprefix('# ')}]({path})"
        lines.append([claim.text, claim.verdict, " → ".join(numbers) + scored, link])
    titles = ["claim", "holds here?", "accuracy in %", "page"]
    return markdown.table(titles, lines, left=range(4))


def anchor(heading: str) -> str:
    """Return the anchor of a heading on GitHub.

    >>> anchor("fairdd")
    'fairdds-cells'
    """
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
