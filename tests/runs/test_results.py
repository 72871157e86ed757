"""Results read back; every table of the claims is made of committed ones."""

import json
import pathlib
import re

import pytest

from experiments.tools import overview, table
from jaxdd.data import files
from jaxdd.runs import old_results as results

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLAIMS = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(table.RESULTS.rglob("*.json")), ids=lambda path: path.name)
def test_results_say_how_they_were_made(path):
    found = json.loads(path.read_text())
    by_name = path.name.startswith(("transfer", "curriculum"))
    rows = found if by_name else found.get("rows", found.get("judged"))
    for row in rows.values() if isinstance(rows, dict) else [found]:
        assert row["device"] and row["versions"]["jax"] and row["date"]
        assert "config" not in row or row["config"]["dataset"]


@pytest.mark.parametrize("path", sorted(table.RESULTS.glob("*.jsonl")), ids=lambda path: path.name)
def test_cells_say_how_they_were_made(path):
    for row in files.read_lines(path):
        assert row["device"] and row["versions"]["jax"] and row["date"]
        assert row["config"]["dataset"]


def test_every_table_of_results_is_generated():
    """A table that links to a result or names a score is, line by line, what the files say."""
    page = CLAIMS.replace("](results/", "](experiments/results/")
    shown = [
        block
        for block in re.findall(r"(?:^\|.*\n)+", page, re.M)
        if "](experiments/results/" in block or "samples)" in block or "±" in block
    ]
    generated = ["\n".join(block) + "\n" for block in table.blocks()]
    assert len(shown) >= 2 and [block for block in shown if block not in generated] == []


def test_links_of_the_claims_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)", CLAIMS)
    assert links and [link for link in links if not (ROOT / "experiments" / link).exists()] == []


def test_sections_of_the_overview_lead_to_headings():
    headings = {overview.anchor(found) for found in re.findall(r"^#+ (.+)$", CLAIMS, re.M)}
    linked = re.findall(r"\]\(#([\w-]+)\)", CLAIMS)
    assert len(linked) >= len(overview.CLAIMS) and set(linked) - headings == set()


def test_every_claim_has_a_section_that_says_its_command():
    commands = set(re.findall(r"python -m experiments\.(\w+)", CLAIMS))
    assert {claim.name for claim in table.grids()} <= commands


def test_the_printed_tables_are_markdown(capsys):
    table.main()
    for block in capsys.readouterr().out.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_the_printed_claims_have_numbers(capsys):
    """One of each, of a cell that is stored."""
    overview.main()
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(overview.CLAIMS) and not [row for row in rows if "–" in row]


# --- numbers and commands ----------------------------------------------------------------------


def test_one_network_has_no_interval():
    assert results.interval({"mean": 0.5, "std": 0.0, "n": 1}) is None
    assert results.percent({"mean": 0.5, "std": 0.0, "n": 1}) == "50.0"
    assert results.interval({"mean": 0.99, "std": 0.02, "n": 3})[1] == 1
