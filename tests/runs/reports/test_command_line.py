"""Tests of the command line that repeats a run: it differs from the defaults where the run does."""

import dataclasses

import pytest

from jaxdd.commands import cli
from jaxdd.runs import weightings
from jaxdd.runs.reports.command_line import command_line

COMPARE = {"command": "compare", "dataset": "cmnist", "ipc": 10, "preset": "quick"}


@pytest.mark.parametrize(
    "config, line",
    [
        (
            COMPARE | dict(conflict=0.05, method="dm", steps=200, batch_size=128),
            "jaxdd compare cmnist --conflict 0.05",
        ),
        (COMPARE | dict(separate=True), "jaxdd compare cmnist --separate"),
        (
            dict(command="run", dataset="my cats", debias="density", skip_bad=True, ipc=100,
                 learning_rate=10.0),
            "jaxdd run 'path/to/my cats' --debias density --ipc 100 --skip-bad",
        ),
        (
            dict(command="run", dataset="cdigits", debias="plain", method="dsa", preset="quick",
                 ipc=10, clip=None, batch_size=64, init="noise"),
            "jaxdd run cdigits --debias plain --method dsa --init noise",
        ),
        (
            dict(command="compare", dataset="mnist", preset="paper", width=64),
            "jaxdd compare mnist --preset paper --width 64",
        ),
        (
            dict(command="run", dataset="cdigits", debias="plain", strategy=(), eval_seeds=2),
            "jaxdd run cdigits --debias plain --strategy none --seeds 2",
        ),
        (dict(command="magic", dataset="mnist"), None),
        (dict(command="run", dataset="mnist", preset="huge"), None),
        (COMPARE | dict(weights="0f3a"), None),
        (COMPARE | dict(augmentation="module:function"), None),
    ],
    ids=str,
)  # fmt: skip
def test_only_options_that_differ_from_the_defaults_are_written(config, line):
    assert command_line(config) == line


def test_rows_that_differ_from_the_defaults_are_written():
    line = "jaxdd compare cmnist"
    assert command_line(COMPARE, rows=weightings.DEFAULT_ROWS) == line
    assert command_line(COMPARE, rows=["random", "auto"]) == f"{line} --rows random auto"


def test_the_command_parses_to_the_same_configuration():
    words = "run cdigits --debias plain --ipc 3 --clip 2.5 --seed 4 --width 8 --bandwidth 0.25"
    parse = lambda arguments: cli._parse(arguments).keywords
    options = dataclasses.asdict(parse(words.split())["options"])
    line = command_line({"command": "run", "dataset": "cdigits", "debias": "plain", **options})
    again = parse(line.split()[1:])
    assert line.startswith("jaxdd run cdigits --debias plain") and len(line) < 100
    assert again["debias"] == "plain" and dataclasses.asdict(again["options"]) == options
