"""Every measured number in the README stands in a committed result, and results say how they arose."""

import dataclasses
import json
import pathlib
import re
import shlex

import pytest

from experiments import table
from jaxdd import cli, report

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[`([^`]+)`\]\((experiments/results/[^)]+\.json)\)")


def measured():
    """Header, first cell and other cells of every line of the README's tables of results."""
    for block in re.findall(r"(?:^\|.*\|$\n?)+", README, re.M):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        if any("±" in cell or LINK.search(cell) for line in lines for cell in line):
            header = [name.strip("*") for name in lines[0][1:]]
            yield from ((header, line[0], line[1:]) for line in lines[2:])


MEASURED = list(measured())


def test_the_readme_has_the_demo_and_a_benchmark():
    commands = [LINK.search(link)[1].split()[1] for _, link, _ in MEASURED]
    assert {"demo", "compare"} <= set(commands)


@pytest.mark.parametrize("header, link, cells", MEASURED)
def test_numbers_are_those_of_the_file(header, link, cells):
    path = ROOT / LINK.search(link)[2]
    expected = dict(zip(header, table.cells(path, header), strict=True))
    found = dict(zip(header, (cell.strip("*") for cell in cells), strict=True))
    if minutes := found.pop("minutes", None):
        # The clock on the wall also runs while Python starts and pictures are drawn.
        stages = report.seconds(report.read(path).rows) / 60
        assert round(stages, 1) <= float(minutes) <= 1.1 * stages
        del expected["minutes"]
    assert found == expected


@pytest.mark.parametrize("header, link, cells", MEASURED)
def test_commands_are_those_of_the_file(header, link, cells, monkeypatch):
    """What the command would do is the configuration in the file."""
    line, name = LINK.search(link).groups()
    program, *arguments = shlex.split(line)
    if program != "jaxdd":
        pytest.skip("made by an experiment, which writes its own configuration")
    config, asked = report.read(ROOT / name).config, {}

    class Stop(Exception):
        pass

    def stop(dataset, options, data_dir):
        asked.update(dataclasses.asdict(options.resolved()), dataset=dataset)
        raise Stop

    monkeypatch.setattr(cli, "_job", stop)
    with pytest.raises(Stop):
        cli._parse(arguments)()
    shared = config.keys() & asked.keys()
    assert "ipc" in shared and {name: asked[name] for name in shared} == {
        name: config[name] for name in shared
    }


@pytest.mark.parametrize("name", sorted(path.name for path in table.RESULTS.glob("*.json")))
def test_results_say_how_they_were_made(name):
    for row in json.loads((table.RESULTS / name).read_text())["rows"].values():
        assert row["device"] and row["versions"]["jax"] and row["config"]["dataset"]
        assert row["date"]


def test_the_printed_table_has_the_rows_of_the_readme(capsys):
    table.main()
    printed = capsys.readouterr().out
    for header, _, cells in MEASURED:
        if header == [*table.SETS, "n", "minutes"]:
            assert f"| {' | '.join(cells[:-1])} |" in printed
