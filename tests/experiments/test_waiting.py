"""Times of commands: stages from lines of progress, intervals, a dry run, and the tables."""

import json

import pytest

from experiments.speed import waiting


def test_seconds_between_lines_belong_to_the_task_of_the_second_line():
    lines = [
        (2.0, "guessed: bytes"),
        (3.0, "embedding 0/1"),
        (5.0, "embedding 1/1"),
        (6.0, "plain 0/200"),
        (9.0, "plain 10/200  loss 0.641  1.95 steps/s"),
        (9.5, "evaluate plain 0/1"),
        (13.0, "evaluate plain 1/1"),
        (13.5, " plain  31.5 ± 0.6"),
    ]
    spent = {"start": 3.0, "embedding": 2.0, "other": 1.5, "distill": 3.0, "evaluate": 3.5}
    expected = {"first_progress": 3.0, "stages": spent | {"end": 1.0}}
    assert waiting.stages(lines, 14.0) == expected
    assert waiting.stages([], 2.0) == {"first_progress": None, "stages": {"end": 2.0}}


def test_overlapping_and_nested_intervals_count_once():
    assert waiting.covered([]) == 0
    assert waiting.covered([(4, 5), (0, 3), (1, 2)]) == 4


def test_dry_run_fills_entries_one_by_one(tmp_path, monkeypatch):
    """Printing the version needs no data and compiles nothing."""
    commands = {"version": ("--version",), "nonsense": ("nonsense",)}
    monkeypatch.setattr(waiting, "COMMANDS", commands)
    monkeypatch.setattr(waiting, "_VERBOSE", ())
    out = tmp_path / "waiting.json"
    for label in ("before", "after"):
        waiting.main(label=label, only="version", out=out)
    measured = json.loads(out.read_text())["measured"]
    assert list(measured) == ["before: version", "after: version"]
    for state in ("cold", "warm"):
        entry = measured["after: version"][state]
        assert 0 < entry["import"] < entry["seconds"]
        assert entry["compile"] == entry["programs"] == 0 and entry["first_progress"] is None
        assert entry["stages"] == {"end": entry["seconds"]}
    times, _, accuracies = waiting.tables(out)
    assert times[2].startswith("| version |") and times[2].count("|") == 8
    assert len(accuracies) == 2


def test_failing_command_raises(tmp_path):
    with pytest.raises(RuntimeError, match="unknown command 'nonsense'"):
        waiting.measure(["nonsense"], folder=tmp_path, cache=tmp_path / "programs")
