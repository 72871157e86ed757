"""The experiment on curriculum frequency matching, dry: at a tiny size from data to table."""

import numpy as np
import pytest

from experiments import curriculum
from jaxdd.data import datasets, files
from jaxdd.runs import options
from jaxdd.runs.scoring import matrix

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
DATA = datasets.from_arrays(IMAGES, np.arange(40) % 2, name="tiny", strategy=())


def bench(work, **given):
    tiny = dict(preset="quick", steps=4, batch_size=4, width=4, depth=2, epochs=1, chunk=2)
    return curriculum.Bench(DATA, work, ipc=2, teacher="convnet-bn", **tiny | given)


def test_every_set_is_scored_by_hard_and_by_soft_labels_and_only_once(tmp_path, monkeypatch):
    work, out = tmp_path / "work", tmp_path / "out.json"
    found = matrix.fill(out, bench(work).cells())
    assert len(found) == 3 * (1 + curriculum.NETWORKS)
    soft = [found[f"tiny 2 {name} soft 0"] for name in curriculum.SETS]
    assert all(row["extra_bytes"]["teacher"] for row in soft) and soft[0]["labels"] == "soft"
    header, rule, *lines = curriculum.lines(out)
    assert "hard labels | soft labels" in header
    assert [line.split(" | ")[2] for line in lines] == list(curriculum.SETS)
    assert not any("–" in line for line in lines)
    monkeypatch.delattr(curriculum.pipeline, "compare")
    matrix.fill(out, bench(work).cells())
    with pytest.raises(AttributeError):  # other options are other cells
        matrix.fill(out, bench(work, epochs=2).cells())


def test_what_was_stopped_is_kept(tmp_path, monkeypatch):
    work, out = tmp_path / "work", tmp_path / "out.json"
    made = bench(work)
    monkeypatch.setattr(made, "soft", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        matrix.fill(out, made.cells())
    assert files.read_json(out).keys() == {"tiny 2 random hard"}
    assert list(curriculum.lines(out))[-1].endswith("– |")


@pytest.mark.parametrize("preset", options.PRESETS)
def test_each_preset_can_be_asked(tmp_path, preset):
    """By its options alone; nothing is computed."""
    plan = curriculum.PLANS[preset]
    made = curriculum.Bench(DATA, tmp_path, ipc=10, teacher=plan.teacher, preset=preset)
    assert made.asked["cfm"].steps == {"quick": 1000, "paper": 10000}[preset]
    assert len(list(made.cells())) == 12 and not any(tmp_path.iterdir())
