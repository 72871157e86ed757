"""Results have their circumstances, and their tables are Markdown."""

import pathlib
import re

import pytest

from experiments.tools import overview, record, table
from jaxdd.data import files

ROOT = pathlib.Path(__file__).resolve().parents[2]
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


def test_every_grid_has_a_page_with_its_command():
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "results").glob("*.md"))
    assert {g.name for g in table.grids()} <= set(re.findall(r"-m experiments\.(\w+)", pages))


def test_generated_tables_are_markdown():
    for block in table.blocks():
        assert len(block) > 2 and len({line.count("|") for line in block}) == 1


def test_every_claim_of_the_overview_has_numbers():
    _, _, *rows = overview.claims()
    assert len(rows) == len(overview.CLAIMS) and not [row for row in rows if "–" in row]


def test_fill_computes_what_is_missing(tmp_path):
    path, computed = tmp_path / "out.json", []
    tasks = {name: lambda name=name: computed.append(name) or {"value": name} for name in "ab"}
    record.fill(path, {"a": tasks["a"]})
    assert record.fill(path, tasks) == {"a": {"value": "a"}, "b": {"value": "b"}}
    assert computed == ["a", "b"] and record.measured(path)["b"] == {"value": "b"}
    assert files.read_json(path)["device"]
