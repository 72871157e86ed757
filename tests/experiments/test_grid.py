"""Grids compute each cell once, survive being stopped, and print what the files say."""

import dataclasses
import json
import pathlib
import time

import numpy as np
import pytest

from experiments.tools import budget, grid, table
from jaxdd.data import benchmarks, files
from jaxdd.runs import results
from jaxdd.runs import options, pipeline

TINY = options.make(
    ipc=1,
    steps=4,
    batch_size=4,
    network="mlp",
    depth=1,
    epochs=1,
    eval_seeds=1,
    chunk=2,
    encoder_steps=1,
    encoder_width=4,
)
CELLS = [grid.Cell("cdigits", row, TINY) for row in ("random", "none")]
GRID = grid.Grid("tiny", lambda preset: CELLS, down=("dataset", "ipc"))
CLAIMS = {claim.name: claim for claim in table.grids()}


def written(folder):
    return files.read_lines(folder / "tiny.jsonl")


def test_cells_are_computed_once_and_make_the_table(tmp_path, monkeypatch):
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    (before,) = grid.tables(GRID, CELLS, where["folder"])
    assert before[-1] == "| cdigits, 1 | – | – |"
    grid.compute(GRID, CELLS, **where)
    results = written(where["folder"])
    assert [result["config"]["row"] for result in results] == ["random", "none"]
    assert [next(iter(result.items())) for result in results] == [
        ("cell", grid.title(cell)) for cell in CELLS
    ]
    numbers = " | ".join(f"{100 * result['accuracy']['mean']:.1f}" for result in results)
    ((header, rule, line),) = grid.tables(GRID, CELLS, where["folder"])
    assert (
        header == "| dataset, ipc (all test samples) | random | none |" and rule == "|---|--:|--:|"
    )
    assert line == f"| cdigits, 1 | {numbers} |"
    grid.draw(
        GRID, [*CELLS, CELLS[0]._replace(row="kde")], where["folder"]
    )  # kde has no result yet
    assert (where["folder"] / "tiny.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.delattr(pipeline, "compare")
    grid.compute(GRID, CELLS, **where)  # nothing is left to do
    other = GRID._replace(name="other")  # which finds what another claim has computed
    grid.compute(other, CELLS, **where)
    assert list(grid.tables(other, CELLS, where["folder"])) == [[header, rule, line]]


def test_a_stopped_cell_goes_on(tmp_path):
    """Stopped after the first of two chunks, which the second attempt does not repeat."""
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    cells = [CELLS[1]._replace(options=dataclasses.replace(TINY, save_every=0.0))]
    steps = []

    def cut(task, done, total, **fields):
        if task == "none":
            steps.append(done)
            if done == 4 and steps.count(4) == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grid.compute(GRID, cells, report=cut, **where)
    assert written(where["folder"]) == []
    grid.compute(GRID, cells, report=cut, **where)
    assert len(written(where["folder"])) == 1
    assert steps == [0, 2, 4, 2, 4]


def test_accuracies_on_the_way_are_kept(tmp_path):
    """Of six steps, scored after the second and the fourth; losses are means since the last."""
    asked = dataclasses.replace(TINY, steps=6, chunk=1, score_every=2)
    cell = CELLS[1]._replace(options=asked)
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    grid.compute(GRID, [cell], **where)
    (found,) = written(where["folder"])
    progress = grid.workplace(cell, where["work"]) / "rows" / "none" / "progress.jsonl"
    losses = [line["loss"] for line in files.read_lines(progress)]
    assert [each["step"] for each in found["way"]] == [2, 4]
    expected = [np.mean(losses[:2]), np.mean(losses[2:4])]
    np.testing.assert_allclose([each["loss"] for each in found["way"]], expected)
    assert all(0 <= each["accuracy"] <= 1 for each in found["way"])


@pytest.mark.parametrize("name", ["main_table", "amplification"])
def test_what_a_gpu_is_asked_for_runs_dry(name, tmp_path, monkeypatch, capsys):
    """The paper's preset with tiny numbers, so that no time on a GPU is lost to a mistake."""
    tiny = dict(steps=2, batch_size=4, width=4, epochs=1, eval_seeds=1, chunk=1)
    monkeypatch.setitem(options.PRESETS, "paper", tiny)
    digits = benchmarks.load("cdigits", conflict=0.2)
    monkeypatch.setattr(grid, "load", lambda name, *_, **__: digits._replace(name=name))
    claim = CLAIMS[name]
    cells = [cell for cell in claim.cells("paper") if cell.row in ("random", "none")]
    chosen = {cell.options.ipc: cell for cell in cells}.values()
    claim = claim._replace(cells=lambda _: list(chosen), besides=lambda _: None)
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    grid._main(claim, preset="paper", budget="9m", **where)
    assert "; paper)" in capsys.readouterr().out
    assert (where["folder"] / f"{name}-paper.png").exists()
    assert len(files.read_lines(where["folder"] / f"{name}.jsonl")) == len(chosen)


@pytest.mark.parametrize("content", ["", '{"accuracy": {"mean"', "{}", "[1]"])
def test_a_line_that_a_killed_run_left_unfinished_is_computed_again(tmp_path, content):
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    grid.compute(GRID, CELLS[:1], **where)
    path = where["folder"] / "tiny.jsonl"
    before = path.read_text()
    path.write_text(content)
    ((*_, line),) = grid.tables(GRID, CELLS[:1], where["folder"])
    assert line == "| cdigits, 1 | – |"
    grid.compute(GRID, CELLS[:1], **where)
    assert path.read_text() == before


@pytest.mark.parametrize(
    "content, what",
    [
        ('{"accuracy": {"mean"', "line 1 is not readable"),
        ("[1]", "line 1 must hold an object"),
        ("{}", "must hold results of cells"),
        ('{"config": {"ipc": 1}}', "must hold results of cells"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, content, what):
    (tmp_path / "tiny.jsonl").write_text(content + "\n")
    with pytest.raises(ValueError, match=f"tiny.jsonl.* {what}"):
        grid.compute(GRID, CELLS[:1], work=tmp_path / "work", folder=tmp_path)


def test_cells_that_are_alike_do_not_share_what_is_half_done(tmp_path):
    """What a result does not depend on may still differ in a folder that is resumed."""
    other = CELLS[1]._replace(options=dataclasses.replace(TINY, chunk=4))
    assert grid.depends(other) == grid.depends(CELLS[1])
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    grid.compute(GRID, CELLS[:1], **where)
    grid.compute(GRID, [other], **where)
    stored = grid.stored(where["folder"])
    assert grid.result(CELLS[1], stored)["config"]["chunk"] == 4


def test_lines_whose_results_lack_a_score_are_left_out(tmp_path):
    """Without a bias there are no conflicting samples; cells without a result stay as dashes."""
    cells = [grid.Cell(name, "none", TINY) for name in ("mnist", "cmnist", "cdigits")]
    for cell, conflicting in zip(cells[:2], (None, 0.5), strict=True):
        config = {"dataset": cell.dataset, "row": "none", **dataclasses.asdict(TINY)}
        scores = {"accuracy": {"mean": 0.25}, "conflicting": {"mean": conflicting}}
        files.append_line(tmp_path / "tiny.jsonl", {**scores, "config": config})
    claim = grid.Grid("tiny", lambda _: cells, ("dataset",), ("accuracy", "conflicting"))
    every, those_with_a_bias = grid.tables(claim, cells, tmp_path)
    assert every[2:] == ["| mnist | 25.0 |", "| cmnist | 25.0 |", "| cdigits | – |"]
    assert those_with_a_bias[2:] == ["| cmnist | 50.0 |", "| cdigits | – |"]


def test_another_preset_is_named(tmp_path):
    paper = [cell._replace(options=dataclasses.replace(TINY, preset="paper")) for cell in CELLS]
    ((header, *_),) = grid.tables(GRID, paper, tmp_path)
    assert header.startswith("| dataset, ipc (all test samples; paper) |")
    grid.draw(GRID, paper, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-paper.png"]


# --- options that come and go ------------------------------------------------------------------


def said(claim):
    """Data set, row, and the options that differ from the defaults, of every cell."""
    return [(cell.dataset, cell.row, grid.said(cell.options)) for cell in claim.cells("quick")]


def found(cells):
    """What is stored of cells that say this; None where there is nothing."""
    stored = grid.stored()
    asked = [grid.Cell(dataset, row, options.from_config(given)) for dataset, row, given in cells]
    return [grid.result(cell, stored) for cell in asked]


def changed(monkeypatch, **fields):
    """Gives the options of every method other fields, as the whole library reads them."""
    monkeypatch.setattr(grid, "_read", grid._read.__wrapped__)
    fields = [(name, type(value), value) for name, value in fields.items()]
    for method, kind in options.OPTIONS.items():
        wider = dataclasses.make_dataclass(
            kind.__name__, fields, bases=(kind,), frozen=True, kw_only=True
        )
        monkeypatch.setitem(options.OPTIONS, method, wider)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_new_option_changes_no_cell(name, monkeypatch):
    cells = said(CLAIMS[name])
    before = found(cells)
    changed(monkeypatch, tilt=0.5, rounds=3)
    assert None not in before and found(cells) == before
    assert said(CLAIMS[name]) == cells
    other = [(*cell, {**given, "tilt": 0.7}) for *cell, given in cells]
    assert found(other) == [None] * len(cells)


def test_an_option_that_is_gone_is_ignored(tmp_path):
    config = {"dataset": "cdigits", "row": "none", "tilt": 0.5, **dataclasses.asdict(TINY)}
    line = {"cell": grid.title(CELLS[1]), "accuracy": {"mean": 0.5}, "config": config}
    files.append_line(tmp_path / "tiny.jsonl", line)
    assert grid.result(CELLS[1], grid.stored(tmp_path)) == line


def test_a_changed_default_is_computed_anew(monkeypatch):
    cells = said(CLAIMS["bandwidth"])
    changed(monkeypatch, encoder_steps=31)
    assert found(cells) == [None] * len(cells)
    before = [(*cell, {**given, "encoder_steps": 30}) for *cell, given in cells]
    assert None not in found(before)


# --- the time ----------------------------------------------------------------------------------


def test_a_deadline_that_was_not_heard_is_repeated():
    heard = []
    with pytest.raises(KeyboardInterrupt), budget.deadline(0.05, again=0.05):
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            heard.append(1)
        time.sleep(30)
    assert heard == [1]


def test_a_deadline_does_what_ctrl_c_does():
    with pytest.raises(KeyboardInterrupt), budget.deadline(0.05):
        time.sleep(30)
    with budget.deadline(0.05):
        pass
    time.sleep(0.1)  # the timer is gone
    with budget.deadline(None):
        pass


@pytest.mark.parametrize("text", ["20", "m", "-5m", "1d", ""])
def test_a_budget_without_a_unit_is_refused(text):
    with pytest.raises(ValueError, match="a number and s, m or h"):
        budget.seconds(text)


# --- the claims --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_every_grid_has_cells_that_differ(name, preset):
    claim = CLAIMS[name]
    cells = claim.cells(preset)
    assert (pathlib.Path(grid.__file__).parents[1] / f"{name}.py").exists()
    assert len({json.dumps(grid.depends(cell)) for cell in cells}) == len(cells)
    assert len({grid.title(cell) for cell in cells}) == len(cells)
    assert {cell.row for cell in cells} <= results.KINDS.keys() - {"given"}
    for lines in grid.tables(claim, cells, pathlib.Path("absent")):
        assert len(lines) == len(set(lines)) > 2


def test_every_cell_of_before_is_found_with_its_numbers():
    """Cells that were files of their own kept their numbers; some of auto, with views, are new."""
    before = files.read_json(pathlib.Path(__file__).parents[1] / "reference" / "cells-before.json")
    rows = found([(cell["dataset"], cell["row"], cell["options"]) for cell in before])
    assert len(before) == 140
    for cell, now in zip(before, rows, strict=True):
        assert [now["accuracy"][part] for part in ("mean", "std", "n")] == cell["accuracy"]
        assert now["conflicting"]["mean"] == cell["conflicting"]


def test_every_line_is_a_cell_of_its_claim_and_stands_once():
    depending = [known for known, _ in grid.stored()]
    assert all(depending.count(known) == 1 for known in depending)
    for path in grid.RESULTS.glob("*.jsonl"):
        assert path.read_bytes().endswith(
            b"}\n"
        )  # else its last line would be taken for unfinished
        presets = map(CLAIMS[path.stem].cells, options.PRESETS)
        titles = {grid.title(cell): grid.depends(cell) for cells in presets for cell in cells}
        for line in files.read_lines(path):
            config = line["config"]
            own = grid.Cell(config["dataset"], config["row"], options.from_config(config))
            assert grid.depends(own) == titles[line["cell"]]
