"""Tables of docs/results/index.md: five results, and every claim with whether it holds here."""

import dataclasses
import itertools
import re
from typing import NamedTuple

import numpy as np

from experiments import held_out, seeds
from experiments.tools import gains, grid, markdown, words
from jaxdd.data import files
from jaxdd.runs import results
from jaxdd.runs.options import DM, make


class Claim(NamedTuple):
    """A line of the table of claims.

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


PUBLISHED = next(iter(files.read_json(grid.RESULTS.parent / "published.json").values()))
"""Published accuracies in % on coloured MNIST, 5 % conflicting, fifty images per class."""

BIASED = make(conflict=0.05)
AT_FIFTY = make(conflict=0.05, ipc=50)
UNLEARNED = make(conflict=0.05, training="selecmix")
BY_BATCH = make(conflict=0.05, weighting="batch")
AMPLIFIED = "amplification"

CLAIMS = (
    Claim("density weights remove the bias of a colour", "yes",
          rows("plain density", "cmnist", AT_FIFTY), "main_table"),
    Claim("they do so with 1 % conflicting samples", "yes",
          rows("plain density", "cmnist", make(conflict=0.01)), "main_table"),
    Claim("distillation amplifies colour", "not significant over three sets",
          rows("random plain", "cmnist", BIASED), AMPLIFIED, "conflicting"),
    Claim("distillation amplifies backgrounds", "only if a few scenes recur",
          rows("random plain", "bgfmnist-few", BIASED), AMPLIFIED, "conflicting"),
    Claim("distillation suppresses corruption", "yes",
          rows("random plain", "ccifar10", BIASED), AMPLIFIED, "conflicting"),
    Claim("density weights help against backgrounds", "no",
          rows("plain density", "bgfmnist", BIASED), AMPLIFIED, "conflicting"),
    Claim("density weights help against corruption", "hardly",
          rows("plain density", "ccifar10", BIASED), AMPLIFIED, "conflicting"),
    Claim("density weights help with one image per class", "against colour, less than with ten",
          rows("plain density", "cmnist", make(conflict=0.05, ipc=1)), "one_image_per_class"),
    Claim("unlearning the bias afterwards recovers part of the accuracy", "a small part",
          {"standard": grid.Cell("cmnist", "plain", BIASED),
           "SelecMix": grid.Cell("cmnist", "plain", UNLEARNED)}, "unlearning"),
    Claim("density weights help DSA", "yes",
          rows("plain density", "cmnist", make(method="dsa", conflict=0.05)), "methods"),
    Claim("density weights help MTT (open in the paper)", "yes",
          rows("plain density", "cmnist", make(method="mtt", conflict=0.05)), "methods"),
    Claim("weights can be estimated from each batch", "those of the whole data set are better",
          {"batch": grid.Cell("cmnist", "density", BY_BATCH),
           "data set": grid.Cell("cmnist", "density", BIASED)}, "batch_weights"),
    Claim("FairDD is more accurate than density weights", "not against colours of digits",
          rows("density fairdd", "cmnist-fg", make(conflict=0.1)), "fairdd"),
)  # fmt: skip
"""Claims of the paper and of FairDD."""


def claims() -> list[str]:
    """Return the table of claims."""
    known, lines = grid.stored(), []
    for claim in CLAIMS:
        numbers = []
        for label, cell in claim.cells.items():
            result = grid.result(cell, known)
            numbers.append(f"{label} {results.percent(result and getattr(result, claim.score))}")
        scored = "" if claim.score == "accuracy" else f" ({results.SCORES[claim.score]})"
        link = f"[{claim.text}](docs/results/{claim.page}.md)"
        lines.append([link, claim.verdict, " → ".join(numbers) + scored])
    return markdown.table(["claim", "holds here?", "accuracy in %"], lines, left=range(3))


# --- the five results --------------------------------------------------------------------------

SETS = 3
"""Synthetic sets, of seeds 0, 1 and 2, of a result with an interval."""

NUISANCES = {"ccifar10": "auto", "cifar10-s": "auto", "bgfmnist": "border"}
"""Biases that object-blind features show, and the row of the weights."""


def colours() -> list[str]:
    """Return accuracies on coloured MNIST, and the published ones."""
    path = grid.RESULTS / "long-50.json"
    (last,) = files.read_json(path)["way"][-1:]
    pair = "plain", "density"
    over_sets = [seeds.format_interval(_accuracies("cmnist", row, BIASED)) for row in pair]
    ours = [f"{100 * last['scores'][row]['accuracy']['mean']:.1f}" for row in pair]
    published = [f"{PUBLISHED[row]:.1f}" for row in pair]
    lines = [
        ["10 images per class, 200 steps, three sets", *over_sets],
        [f"50 images per class, {last['step']:,} steps, one set", *ours],
        ["the same, published", *published],
    ]
    corner = f"{markdown.link('accuracy in %', path)} (all test samples)"
    return markdown.table([corner, *pair], lines)


def real_images() -> list[str]:
    """Return accuracies of real images drawn by weight, and of distilled sets."""
    columns = "random", "plain", "random-density", "density"
    over_sets = [seeds.format_interval(_accuracies("cmnist", row, BIASED)) for row in columns]
    (*_, line) = markdown.table(["", *columns], [["10 images per class, three sets", *over_sets]])
    settings = {
        "10 images per class, one set": ("cmnist", BIASED),
        "50 images per class, one set": ("cmnist", AT_FIFTY),
    }
    titles, rule, *lines = _percents(settings, columns)
    return [titles, rule, line, *lines]


def unbiased() -> list[str]:
    """Return accuracies on data without a bias."""
    settings = {words.DATASETS[name]: (name, make()) for name in ("mnist", "fashion_mnist")}
    return _percents(settings, ("random", "plain", "density", "auto"))


def recovered() -> list[str]:
    """Return the shares of the oracle's gain that weights without bias labels recover."""
    known, lines = grid.stored(), {}
    for name, row in {**NUISANCES, **dict.fromkeys(held_out.HELD_OUT, "auto")}.items():
        cells = [grid.Cell(name, row, make(conflict=0.05, seed=seed)) for seed in range(SETS)]
        lines[name] = [gains.of_cell(known, cell, row) for cell in cells]
    together = list(itertools.chain(*(lines[name] for name in held_out.HELD_OUT)))
    labels = [f"{words.DATASETS[name]}, `{NUISANCES.get(name, 'auto')}`" for name in lines]
    rows = [*zip(labels, lines.values(), strict=True), ("the last three together", together)]
    return gains.table(rows)


def amplified() -> list[str]:
    """Return accuracies of random subsets and plain sets, with the intervals of differences."""
    lines, solid = [], make(conflict=0.1)
    for name in ("cmnist-bg", "cmnist", "bgfmnist-few", "bgfmnist", "ccifar10"):
        options = solid if name == "cmnist-bg" else BIASED
        random, plain = (
            _accuracies(name, row, options, "conflicting") for row in ("random", "plain")
        )
        size = min(len(random), len(plain))
        random, plain = random[:size], plain[:size]
        interval = "–"
        if size > 1:
            interval = seeds.format_ends(seeds.student_interval(plain - random)[1:], "+.1f")
        means = [f"{100 * x.mean():.1f}" for x in (random, plain)]
        difference = f"{100 * (plain - random).mean():+.1f}"
        lines.append([words.DATASETS[name], str(size), *means, difference, interval])
    titles = "sets", "random", "plain", "plain − random", "95 % over sets"
    return markdown.table(["accuracy in % (conflicting test samples)", *titles], lines)


def tables() -> list[list[str]]:
    """Return all tables of docs/results/index.md."""
    return [colours(), real_images(), unbiased(), recovered(), amplified(), claims()]


def _accuracies(name, row, options, score="accuracy"):
    """Return the mean scores of the first seeds that have a result."""
    known, values = grid.stored(), []
    for seed in range(SETS):
        cell = grid.Cell(name, row, dataclasses.replace(options, seed=seed))
        if (result := grid.result(cell, known)) is None:
            break
        values.append(getattr(result, score).mean)
    return np.array(values)


def _percents(settings, columns):
    """Return a table of accuracies from data sets and options by label."""
    known, lines = grid.stored(), []
    for label, (name, options) in settings.items():
        cells = (grid.result(grid.Cell(name, row, options), known) for row in columns)
        lines.append([label, *(results.percent(result and result.accuracy) for result in cells)])
    return markdown.table(["in % (all test samples)", *columns], lines)


def anchor(heading: str) -> str:
    """Return the anchor of a heading on GitHub.

    >>> anchor("FairDD's cells")
    'fairdds-cells'
    """
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
