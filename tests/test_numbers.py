"""Numbers in the prose of the documentation come from generated tables.

Decimals must be values in a table, percentages values or shares of the oracle's gain, and points
values or differences within a row or a column. A page of results has to contain the table, other
pages have to link to a page of results that does.
"""

import itertools
import math
import pathlib
import posixpath
import re

import pytest

from experiments import fairdd
from experiments.tools import table
from jaxdd.data import files

ROOT = pathlib.Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "experiments" / "published.json"
PATTERNS = (
    "README.md",
    "experiments/README.md",
    "docs/faq.md",
    *(f"docs/{name}/*.md" for name in ("results", "concepts", "guides", "comparison")),
)
PAGES = {str(path.relative_to(ROOT)) for name in PATTERNS for path in ROOT.glob(name)}
GENERATED = {"docs/results/fidelity.md"}  # by `experiments.fidelity.compare`
UNCHECKED = {"docs/guides/devices.md"}
SETTINGS = {
    **dict.fromkeys(("0.5 %", "1 %", "2 %", "5 %", "10 %", "20 %"), "conflict share"),
    "95 %": "confidence level",
}
"""Numbers that are no results and may be on every page, with the reason."""
EXCEPTIONS = {
    "docs/comparison/mtt.md": {"1.22": "235 · 260 / 50,000", "0.1": "epsilon of ZCA"},
    "docs/comparison/protocols.md": {"0.01": "learning rate"},
    "docs/comparison/sre2l_rded.md": {"0.001": "learning rate"},
    "docs/guides/auditing.md": {"0.03": "significance level", "0.2": "limit of the attack"},
    "docs/guides/devices.md": dict.fromkeys(
        ("30 %", "24.1", "3.0", "4.2", "0.5", "1.5"), "estimates for a GPU"
    ),
    "docs/guides/evaluation.md": dict.fromkeys(("50 %", "40 %", "9 %", "0.9 %"), "bands"),
    "docs/guides/weights.md": {"0.25": "threshold of the pseudo-R²"},
    "docs/results/held_out.md": {
        "40 %": "criterion",
        "26 %": "docstring of held_out.py",
        "0.4": "change of a corruption",
    },
    "docs/results/reliability.md": {"40 %": "kills that are repeated"},
}
"""Numbers of single pages that are no results, with the reason."""

NUMBER = re.compile(
    r"(?<![\w.,/-])(?P<sign>[+−-]?)(?P<number>\d+(?:\.\d+)?)(?![\w/]|\.\d)"
    # The unit may follow after other numbers, as in "5, 10 and 20 %".
    r"(?:(?:(?:,| to|,? and|,? or) \d+(?:\.\d+)?)* (?P<unit>%|points?\b))?"
)
IGNORED = re.compile(
    r"^```.*?^```|`[^`]*`|\]\([^)]*\)|<[^>]*>"
    r"|\b(?:arXiv|Python|PyTorch|JAX|jaxlib)\s(?:before\s)?[\d.]+\d",
    re.M | re.S,
)


def support(block):
    """Return the values, the differences and the shares of the oracle's gain of a table."""
    titles, _, *rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in block]
    text = IGNORED.sub(" ", " ".join(itertools.chain(*rows))).replace(",", "")
    values = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}
    numbers = [[_leading(cell) for cell in row] for row in rows]
    lines = [*numbers, *zip(*numbers, strict=True)]
    differences = {abs(a - b) for line in lines for a, b in itertools.combinations(line, 2)}
    shares = set()
    if {"plain", "oracle"} <= set(titles):
        plain, oracle = titles.index("plain"), titles.index("oracle")
        gains = [(row, row[plain], row[oracle] - row[plain]) for row in numbers]
        shares = {100 * (x - base) / gain for row, base, gain in gains if gain for x in row}
    return values, differences, shares


def _leading(cell):
    """Return the number that a cell begins with, NaN if there is none."""
    match = re.match(r"[+-]?\d[\d,]*(?:\.\d+)?", cell)
    return float(match[0].replace(",", "")) if match else math.nan


def read(path, supports):
    """Return the text of a page without generated tables, and what these support."""
    folder, known = posixpath.dirname(path), []
    resolve = lambda match: f"]({posixpath.normpath(posixpath.join(folder, match[1]))}"
    text = re.sub(r"\]\((?!https?:|#)([^)#\s]+)", resolve, (ROOT / path).read_text("utf-8"))
    for block, supported in supports.items():
        if block in text:
            text, known = text.replace(block, ""), [*known, supported]
    return text, known


@pytest.fixture(scope="module")
def supports():
    return {"\n".join(block): support(block) for block in table.blocks()}


@pytest.mark.parametrize("path", sorted(PAGES - GENERATED))
def test_numbers_in_prose_come_from_tables(path, supports):
    text, known = read(path, supports)
    if not path.startswith("docs/results/"):
        for link in set(re.findall(r"\]\((docs/results/\w+\.md)", text)):
            known += read(link, supports)[1]
    published = *files.read_json(PUBLISHED).values(), *fairdd.PUBLISHED.values()
    values = {number for entries in published for number in entries.values()}
    differences, shares = set(), set()
    for own in known:
        for union, numbers in zip((values, differences, shares), own, strict=True):
            union |= numbers
    text, unsupported = IGNORED.sub(" ", text), []
    settings = SETTINGS | EXCEPTIONS.get(path, {})
    for match in NUMBER.finditer(text):
        sign, number, unit = match.groups(default="")
        if not unit and "." not in number or {number, f"{number} {unit}"} & settings.keys():
            continue
        others = shares if unit == "%" else differences if unit or sign else set()
        half = 0.5 / 10 ** len(number.partition(".")[2]) + 1e-9
        if not any(abs(float(number) - x) <= half for x in values | others):
            start, end = match.span()
            unsupported.append(" ".join(text[max(0, start - 30) : end + 10].split()))
    assert not unsupported, " | ".join(unsupported)
