"""Every measured number in the README stands in a committed result."""

import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
ROW = re.compile(r"^\| \[`(jaxdd [^`]+)`\]\(experiments/results/([^)]+)\) \|(.+)\|$", re.M)
COLUMNS = ("random", "random-kde", "none", "kde", "oracle")


def measured():
    return ROW.findall((ROOT / "README.md").read_text())


def test_the_table_has_the_main_job_and_a_benchmark():
    assert [command.split()[1] for command, *_ in measured()][:2] == ["demo", "compare"]


@pytest.mark.parametrize("command, name, cells", measured())
def test_numbers_are_those_of_the_file(command, name, cells):
    rows = json.loads((RESULTS / name).read_text())["rows"]
    *accuracies, n, _ = (cell.strip().strip("*") for cell in cells.split("|"))
    for column, cell in zip(COLUMNS, accuracies, strict=True):
        score = rows[column]["accuracy"]
        assert cell == f"{100 * score['mean']:.1f} ± {100 * score['std']:.1f}", f"{command}: {column}"
        assert score["n"] == int(n)


@pytest.mark.parametrize("name", sorted(path.name for path in RESULTS.glob("*.json")))
def test_results_say_how_they_were_made(name):
    for row in json.loads((RESULTS / name).read_text())["rows"].values():
        assert row["device"] and row["versions"]["jax"] and row["config"]["dataset"]
        assert row["date"]
