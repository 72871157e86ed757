"""Grids compute each cell once, survive being stopped, and print what the files say."""

import dataclasses
import importlib
import json
import pathlib
import time

import pytest

from experiments import grid
from jaxdd.runs import jobs, pipeline

TINY = jobs.Options(
    ipc=1,
    steps=4,
    batch_size=4,
    network="mlp",
    depth=2,
    epochs=1,
    eval_seeds=1,
    chunk=2,
    encoder_steps=1,
    encoder_width=4,
)
CELLS = [grid.Cell("cdigits", row, TINY) for row in ("random", "none")]
GRID = grid.Grid("tiny", lambda preset: CELLS, down=("dataset", "ipc"))


def names():
    """Experiments that are grids."""
    for path in sorted((pathlib.Path(grid.__file__).parent).glob("*.py")):
        if "GRID = " in path.read_text():
            yield path.stem


def test_cells_are_computed_once_and_make_the_table(tmp_path, monkeypatch):
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    (before,) = grid.tables(GRID, CELLS, where["folder"])
    assert before[-1] == "| cdigits, 1 | – | – |"
    grid.compute(GRID, CELLS, **where)
    results = [json.loads(grid.path(GRID, cell, where["folder"]).read_text()) for cell in CELLS]
    assert [result["config"]["row"] for result in results] == ["random", "none"]
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
    assert not grid.path(GRID, cells[0], where["folder"]).exists()
    grid.compute(GRID, cells, report=cut, **where)
    assert grid.path(GRID, cells[0], where["folder"]).exists()
    assert steps == [0, 2, 4, 2, 4]


@pytest.mark.parametrize("content", ["", '{"accuracy": {"mean"', "[1]", "{}"])
def test_a_damaged_result_is_computed_again(tmp_path, content):
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    grid.compute(GRID, CELLS[:1], **where)
    path = grid.path(GRID, CELLS[0], where["folder"])
    before = path.read_text()
    path.write_text(content)
    ((*_, line),) = grid.tables(GRID, CELLS[:1], where["folder"])
    assert line == "| cdigits, 1 | – |"
    grid.compute(GRID, CELLS[:1], **where)
    assert path.read_text() == before


def test_cells_of_one_address_do_not_share_what_is_half_done(tmp_path):
    """What a result does not depend on may still differ in a folder that is resumed."""
    other = CELLS[1]._replace(options=dataclasses.replace(TINY, chunk=4))
    assert grid.address(other) == grid.address(CELLS[1])
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    grid.compute(GRID, CELLS[:1], **where)
    grid.compute(GRID, [other], **where)
    assert grid.result(GRID, CELLS[1], where["folder"])["config"]["chunk"] == 4


def test_another_preset_is_named(tmp_path):
    paper = [cell._replace(options=dataclasses.replace(TINY, preset="paper")) for cell in CELLS]
    ((header, *_),) = grid.tables(GRID, paper, tmp_path)
    assert header.startswith("| dataset, ipc (all test samples; paper) |")
    grid.draw(GRID, paper, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-paper.png"]


def test_a_deadline_that_was_not_heard_is_repeated(monkeypatch):
    monkeypatch.setattr(grid, "_AGAIN", 0.05)
    heard = []
    with pytest.raises(KeyboardInterrupt), grid.deadline(0.05):
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            heard.append(1)
        time.sleep(30)
    assert heard == [1]


def test_a_deadline_does_what_ctrl_c_does():
    with pytest.raises(KeyboardInterrupt), grid.deadline(0.05):
        time.sleep(30)
    with grid.deadline(0.05):
        pass
    time.sleep(0.1)  # the timer is gone
    with grid.deadline(None):
        pass


@pytest.mark.parametrize("text", ["20", "m", "-5m", "1d", ""])
def test_a_budget_without_a_unit_is_refused(text):
    with pytest.raises(ValueError, match="a number and s, m or h"):
        grid.seconds(text)


@pytest.mark.parametrize("name", list(names()))
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_every_grid_has_cells_that_differ(name, preset):
    found = importlib.import_module(f"experiments.{name}").GRID
    cells = found.cells(preset)
    assert found.name == name
    assert len({grid.address(cell) for cell in cells}) == len(cells)
    assert {cell.row for cell in cells} <= {*pipeline.ROWS, *pipeline.DEBIAS}
    for lines in grid.tables(found, cells, pathlib.Path("absent")):
        assert len(lines) == len(set(lines)) > 2
