"""Results read back; every table of the READMEs is made of committed ones."""

import dataclasses
import json
import pathlib
import re
import shlex

import pytest

from experiments.tools import overview, table
from jaxdd.data import files
from jaxdd.runs import cli, results

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLAIMS = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[`([^`]+)`\]\((experiments/results/[^)]+\.json)\)")
MEASURED = re.findall(rf"^\| {LINK.pattern} \|", README, re.M)


def test_the_readme_has_the_demo_and_a_benchmark():
    assert {"demo", "compare"} <= {line.split()[1] for line, _ in MEASURED}


@pytest.mark.parametrize("line, name", MEASURED)
def test_commands_are_those_of_the_file(line, name, monkeypatch):
    """What the command would do is the configuration in the file."""
    program, *arguments = shlex.split(line)
    if program != "jaxdd":
        pytest.skip("made by an experiment, which writes its own configuration")
    config, asked = results.config(results.read(ROOT / name)), {}

    class Stop(Exception):
        pass

    def stop(dataset, options, data_dir):
        asked.update(dataclasses.asdict(options.resolved()), dataset=dataset)
        raise Stop

    monkeypatch.setattr(cli, "_load", stop)
    with pytest.raises(Stop):
        cli._parse(arguments)()
    shared = config.keys() & asked.keys()
    assert "ipc" in shared and {name: asked[name] for name in shared} == {
        name: config[name] for name in shared
    }


@pytest.mark.parametrize("path", sorted(table.RESULTS.rglob("*.json")), ids=lambda path: path.name)
def test_results_say_how_they_were_made(path):
    found = json.loads(path.read_text())
    rows = found if path.name.startswith("transfer") else found.get("rows", found.get("judged"))
    for row in rows.values() if isinstance(rows, dict) else [found]:
        assert row["device"] and row["versions"]["jax"] and row["date"]
        assert "config" not in row or row["config"]["dataset"]


@pytest.mark.parametrize("path", sorted(table.RESULTS.glob("*.jsonl")), ids=lambda path: path.name)
def test_cells_say_how_they_were_made(path):
    for row in files.read_lines(path):
        assert row["device"] and row["versions"]["jax"] and row["date"]
        assert row["config"]["dataset"]


@pytest.mark.parametrize("page", [README, CLAIMS.replace("](results/", "](experiments/results/")])
def test_every_table_of_results_is_generated(page):
    """A table that links to a result or names a score is, line by line, what the files say."""
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


def test_sections_of_the_overview_and_links_of_the_readme_lead_to_headings():
    headings = {overview.anchor(found) for found in re.findall(r"^#+ (.+)$", CLAIMS, re.M)}
    linked = re.findall(r"\(experiments/README\.md#([\w-]+)\)", README)
    linked += re.findall(r"\]\(#([\w-]+)\)", CLAIMS)
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
