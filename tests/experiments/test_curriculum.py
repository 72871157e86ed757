"""Curriculum frequency matching at a tiny size, from data to table."""

import numpy as np
import pytest

from experiments import curriculum
from experiments.tools import record
from jaxdd.data import datasets
from jaxdd.runs import options

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
DATA = datasets.from_arrays(IMAGES, np.arange(40) % 2, name="tiny", strategy=())


def bench(work, **given):
    tiny = dict(preset="quick", steps=4, batch_size=4, width=4, depth=2, epochs=1, chunk=2)
    return curriculum.Bench(DATA, work, ipc=2, teacher="convnet-bn", **tiny | given)


def test_every_set_is_scored_once_with_hard_and_soft_labels(tmp_path, monkeypatch):
    work, out = tmp_path / "work", tmp_path / "out.json"
    measured = record.fill(out, dict(bench(work).tasks()))
    assert len(measured) == 3 * (1 + curriculum.NETWORKS)
    soft = [measured[f"tiny 2 {name} soft 0"] for name in curriculum.SETS]
    assert all(row["extra_bytes"]["teacher"] for row in soft) and soft[0]["labels"] == "soft"
    header, rule, *lines = curriculum.tables(out)[0]
    assert "hard labels | soft labels" in header
    assert [line.split(" | ")[2] for line in lines] == list(curriculum.SETS)
    assert not any("–" in line for line in lines)
    monkeypatch.delattr(curriculum.pipeline, "compare")
    record.fill(out, dict(bench(work).tasks()))


def test_a_stopped_run_keeps_its_results(tmp_path, monkeypatch):
    work, out = tmp_path / "work", tmp_path / "out.json"
    stopped = bench(work)
    monkeypatch.setattr(stopped, "soft", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        record.fill(out, dict(stopped.tasks()))
    assert record.measured(out).keys() == {"tiny 2 random hard"}
    assert curriculum.tables(out)[0][-1].endswith("– |")


@pytest.mark.parametrize("preset", options.PRESETS)
def test_each_preset_has_its_options(tmp_path, preset):
    plan = curriculum.PLANS[preset]
    planned = curriculum.Bench(DATA, tmp_path, ipc=10, teacher=plan.teacher, preset=preset)
    assert planned.options["cfm"].steps == {"quick": 1000, "paper": 10000}[preset]
    assert len(list(planned.tasks())) == 12 and not any(tmp_path.iterdir())
