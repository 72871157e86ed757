"""The tables of experiments/README.md agree with the committed results."""

import pathlib
import re

import pytest

from experiments.tools import overview, record, table
from jaxdd.data import files

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
FILES = sorted(table.RESULTS.glob("*.json*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_results_have_their_circumstances(path):
    if path.suffix == ".jsonl":
        rows = files.read_lines(path)
        assert all(row["config"]["dataset"] for row in rows)
    else:
        content = files.read_json(path)
        rows = content["rows"].values() if isinstance(content.get("rows"), dict) else [content]
    for row in rows:
        assert row["device"] and row["versions"]["jax"] and row["date"]


def test_tables_are_generated():
    """A table that links to a result or names a score equals a generated one, line by line."""
    page = PAGE.replace("](results/", "](experiments/results/")
    tables = [
        block
        for block in re.findall(r"(?:^\|.*\n)+", page, re.M)
        if "](experiments/results/" in block or "samples)" in block or "±" in block
    ]
    generated = ["\n".join(block) + "\n" for block in table.blocks()]
    assert len(tables) >= 2 and [block for block in tables if block not in generated] == []


def test_links_lead_to_files_and_headings():
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert links and [link for link in links if not (ROOT / "experiments" / link).exists()] == []
    headings = {overview.anchor(heading) for heading in re.findall(r"^#+ (.+)$", PAGE, re.M)}
    sections = {overview.anchor(claim.section) for claim in overview.CLAIMS}
    assert sections | set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings


def test_every_grid_has_a_section_with_its_command():
    assert {g.name for g in table.grids()} <= set(re.findall(r"-m experiments\.(\w+)", PAGE))


def test_generated_tables_are_markdown():
    for block in table.blocks():
        assert len(block) > 2 and len({line.count("|") for line in block}) == 1


def test_every_claim_of_the_overview_has_numbers():
    _, _, *rows = overview.table()
    assert len(rows) == len(overview.CLAIMS) and not [row for row in rows if "–" in row]


def test_fill_computes_what_is_missing(tmp_path):
    path, computed = tmp_path / "out.json", []
    tasks = {name: lambda name=name: computed.append(name) or {"value": name} for name in "ab"}
    record.fill(path, {"a": tasks["a"]})
    assert record.fill(path, tasks) == {"a": {"value": "a"}, "b": {"value": "b"}}
    assert computed == ["a", "b"] and record.measured(path)["b"] == {"value": "b"}
    assert files.read_json(path)["device"]
