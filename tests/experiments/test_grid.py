"""Grids compute each cell once, resume, and print stored results."""

import dataclasses
import json
import pathlib
import time

import numpy as np
import pytest

from experiments.tools import grid, record, table
from jaxdd.data import benchmarks, files
from jaxdd.runs import options, pipeline, results, weightings

TINY = options.make(
    ipc=1, steps=4, batch_size=4, network="mlp", depth=1, epochs=1, eval_seeds=1, chunk=2,
    encoder_steps=1, encoder_width=4,
)  # fmt: skip
CELLS = [grid.Cell("cdigits", row, TINY) for row in ("random", "plain")]
GRID = grid.Grid("tiny", lambda preset: CELLS, down=("dataset", "ipc"))
CLAIMS = {claim.name: claim for claim in table.grids()}


def line(cell, **fields):
    """Return a line of results as `compute` writes it."""
    score = {"mean": 0.25, "std": 0.0, "n": 1}
    return {"cell": grid.title(cell), "accuracy": score, **fields} | {
        "config": fields.get("config", grid.configuration(cell))
    }


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Folders of work and results after both cells were computed."""
    folder = tmp_path_factory.mktemp("grid")
    where = dict(work=folder / "work", folder=folder / "results")
    grid.compute(GRID, CELLS, **where)
    return where


def test_cells_are_computed_once_and_make_the_table(computed, monkeypatch):
    folder = computed["folder"]
    lines = files.read_lines(folder / "tiny.jsonl")
    assert [line["cell"] for line in lines] == [grid.title(cell) for cell in CELLS]
    numbers = [f"{100 * line['accuracy']['mean']:.1f}" for line in lines]
    expected = [
        "| in % (all test samples) | random | plain |",
        "|---|--:|--:|",
        f"| cdigits | {' | '.join(numbers)} |",
    ]
    assert grid.tables(GRID, CELLS, folder) == [expected]
    monkeypatch.delattr(pipeline, "compare")
    grid.compute(GRID, CELLS, **computed)  # nothing is left to do
    other = GRID._replace(name="other")  # reads what another claim has computed
    grid.compute(other, CELLS, **computed)
    assert grid.tables(other, CELLS, folder) == [expected]


def test_cells_are_computed_again_next_to_the_stored_results(computed, monkeypatch):
    lines = (computed["folder"] / "tiny.jsonl").read_text()
    compute = lambda *_, folder, **__: (folder / "tiny.jsonl").write_text(lines)
    monkeypatch.setattr(grid, "compute", compute)
    *_, row = grid.check(GRID, CELLS[:1], None)
    accuracy = results.percent(results.Result.from_dict(json.loads(lines.split("\n")[0])).accuracy)
    assert row == f"| {grid.title(CELLS[0])} | all test samples | – | {accuracy} |"


def test_missing_cells_are_dashes(computed):
    cells = [*CELLS, CELLS[0]._replace(row="density")]
    ((*_, last),) = grid.tables(GRID, cells, computed["folder"])
    assert last.endswith("| – |")


def test_a_stopped_cell_is_resumed(tmp_path):
    """A cell is stopped after the first of two chunks; the second attempt continues there."""
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    cells = [CELLS[1]._replace(options=dataclasses.replace(TINY, save_every=0.0))]
    steps = []

    def stop(task, done, total, **fields):
        if task == "plain":
            steps.append(done)
            if done == 4 and steps.count(4) == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grid.compute(GRID, cells, report=stop, **where)
    assert files.read_lines(where["folder"] / "tiny.jsonl") == []
    grid.compute(GRID, cells, report=stop, **where)
    assert len(files.read_lines(where["folder"] / "tiny.jsonl")) == 1
    assert steps == [0, 2, 4, 2, 4]


def test_paper_preset_runs(tmp_path, monkeypatch, capsys):
    """Run the preset with tiny numbers, to catch mistakes before they waste time on a GPU."""
    tiny = dict(steps=2, batch_size=4, width=4, epochs=1, eval_seeds=1, chunk=1)
    digits = benchmarks.load("cdigits", conflict=0.2)
    monkeypatch.setattr(grid, "load", lambda name, *_, **__: digits._replace(name=name))
    cells = [
        cell._replace(options=dataclasses.replace(cell.options, **tiny))
        for cell in CLAIMS["main_table"].cells("paper")[:3]
        if cell.row in ("random", "plain")
    ]
    claim = CLAIMS["main_table"]._replace(cells=lambda preset: cells)
    where = dict(work=tmp_path / "work", folder=tmp_path / "results")
    grid.run(claim, preset="paper", budget="9m", **where)
    assert "; paper)" in capsys.readouterr().out
    assert len(files.read_lines(where["folder"] / "main_table.jsonl")) == len(cells) == 2


@pytest.mark.parametrize("content", ['{"accuracy": {"mean"', "[1]", "{}", '{"config": {}}'])
def test_damaged_lines_are_rejected(tmp_path, content):
    (tmp_path / "tiny.jsonl").write_text(content + "\n")
    with pytest.raises(ValueError, match="tiny.jsonl"):
        grid.stored(tmp_path)


def test_an_unfinished_line_is_ignored(tmp_path):
    (tmp_path / "tiny.jsonl").write_text('{"accuracy": {"mean"')
    assert grid.stored(tmp_path) == []


def test_lines_without_a_score_are_left_out(tmp_path):
    """Without a bias there are no bias-conflicting samples."""
    cells = [grid.Cell(name, "plain", TINY) for name in ("mnist", "cmnist", "cdigits")]
    for cell, conflicting in zip(cells[:2], (None, 0.5), strict=True):
        score = {"mean": conflicting, "std": 0.0, "n": 1}
        files.append_line(tmp_path / "tiny.jsonl", line(cell, conflicting=score))
    claim = grid.Grid("tiny", lambda _: cells, ("dataset",), ("accuracy", "conflicting"))
    everything, biased = grid.tables(claim, cells, tmp_path)
    assert everything[2:] == ["| mnist | 25.0 |", "| cmnist | 25.0 |", "| cdigits | – |"]
    assert biased[2:] == ["| cmnist | 50.0 |", "| cdigits | – |"]


def test_missing_options_have_defaults_and_unknown_ones_are_ignored(tmp_path):
    config = {**grid.configuration(CELLS[1]), "tilt": 0.5}
    del config["zca"]
    files.append_line(tmp_path / "tiny.jsonl", line(CELLS[1], config=config))
    assert grid.result(CELLS[1], grid.stored(tmp_path)).accuracy.mean == 0.25
    other = CELLS[1]._replace(options=dataclasses.replace(TINY, encoder_steps=31))
    assert grid.result(other, grid.stored(tmp_path)) is None


def test_incidental_options_share_results_but_not_folders():
    other = CELLS[1]._replace(options=dataclasses.replace(TINY, chunk=4))
    assert grid.configuration(other) == grid.configuration(CELLS[1])
    work = pathlib.Path("work")
    assert grid.workplace(other, work) != grid.workplace(CELLS[1], work)


# --- time --------------------------------------------------------------------------------------


def test_deadline_interrupts_and_repeats():
    interrupts = []
    with pytest.raises(KeyboardInterrupt), record.deadline("0.05s", again=0.05):
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            interrupts.append(1)
        time.sleep(30)
    assert interrupts == [1]
    with record.deadline("0.05s"):
        pass
    time.sleep(0.1)  # the timer is gone


@pytest.mark.parametrize("text", ["20", "m", "-5m", "1d", ""])
def test_bad_budgets_are_rejected(text):
    with pytest.raises(ValueError, match=repr(text)):
        record.seconds(text)


# --- the claims --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("preset", options.PRESETS)
def test_every_grid_has_distinct_cells(name, preset):
    claim = CLAIMS[name]
    cells = claim.cells(preset)
    assert (pathlib.Path(grid.__file__).parents[1] / f"{name}.py").exists()
    assert len({json.dumps(grid.configuration(cell)) for cell in cells}) == len(cells)
    assert len({grid.title(cell) for cell in cells}) == len(cells)
    assert {cell.row for cell in cells} <= weightings.rows().keys() - {"custom"}
    for lines in grid.tables(claim, cells, pathlib.Path("absent")):
        assert len(lines) == len(set(lines)) > 2


def test_every_quick_cell_has_a_result():
    known = grid.stored()
    for claim in CLAIMS.values():
        missing = [c for c in claim.cells("quick") if grid.result(c, known) is None]
        assert not missing, [grid.title(cell) for cell in missing]


def test_every_line_is_a_unique_cell_of_its_claim():
    configs = [json.dumps(config) for config, _ in grid.stored()]
    assert len(set(configs)) == len(configs)
    for path in grid.RESULTS.glob("*.jsonl"):
        assert path.read_bytes().endswith(b"}\n")  # otherwise the last line counts as unfinished
        cells = [cell for preset in options.PRESETS for cell in CLAIMS[path.stem].cells(preset)]
        titles = {grid.title(cell): grid.configuration(cell) for cell in cells}
        for content in files.read_lines(path):
            config = content["config"]
            own = grid.Cell(config["dataset"], config["row"], options.from_config(config))
            assert grid.configuration(own) == titles[content["cell"]]
            assert np.isfinite(content["accuracy"]["mean"])
