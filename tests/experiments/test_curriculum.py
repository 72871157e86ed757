"""Curriculum frequency matching at a tiny size, from data to table."""

import jax
import numpy as np
import pytest

from experiments import curriculum
from experiments.tools import record
from jaxdd import networks
from jaxdd.data import datasets
from jaxdd.methods import cfm
from jaxdd.runs import methods, options

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
DATA = datasets.from_arrays(IMAGES, np.arange(40) % 2, name="tiny", strategy=())


def bench(work, **given):
    tiny = dict(preset="quick", steps=4, batch_size=4, width=4, depth=2, epochs=1, chunk=2)
    return curriculum.Bench("tiny", lambda: DATA, work, ipc=2, teacher="convnet-bn", **tiny | given)


def test_every_set_is_scored_once_with_hard_and_soft_labels(tmp_path, monkeypatch):
    work, out = tmp_path / "work", tmp_path / "out.json"
    measured = record.fill(out, dict(bench(work).tasks()))
    assert len(measured) == 3 * (1 + curriculum.NETWORKS)
    soft = [measured[f"tiny 2 {name} soft 0"] for name in curriculum.SETS]
    assert all(row["extra_bytes"]["teacher"] for row in soft) and soft[0]["labels"] == "soft"
    header, rule, *lines = curriculum.tables(out)[0]
    assert "hard labels, % | soft labels, %" in header
    assert [line.split(" | ")[2] for line in lines] == list(curriculum.TITLES.values())
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


def test_pieces_of_a_preset_by_name(tmp_path, monkeypatch):
    """No other data are read than those of the piece."""
    read, out = [], tmp_path / "out.json"
    monkeypatch.setattr(curriculum.benchmarks, "load", lambda name, **_: read.append(name))
    monkeypatch.setattr(curriculum.Bench, "hard", lambda self, name: {"data": self.load()})
    monkeypatch.setattr(curriculum, "tables", lambda path: [])
    curriculum.main(preset="paper", only="cifar100 50 cfm hard", work=tmp_path, out=out)
    assert record.measured(out).keys() == {"cifar100 50 cfm hard"} and read == ["cifar100"]


@pytest.mark.parametrize("preset", options.PRESETS)
def test_each_preset_has_its_options(tmp_path, preset):
    plan, load = curriculum.PLANS[preset], lambda: pytest.fail("data are read")
    fields = dict(ipc=10, teacher=plan.teacher, preset=preset)
    planned = curriculum.Bench("tiny", load, tmp_path, **fields)
    chosen = planned.options["cfm"]
    assert chosen.steps == {"quick": 1000, "paper": 10000}[preset]
    names = list(dict(planned.tasks()))
    assert len(names) == 12 and not any(tmp_path.iterdir())
    assert names[0] == "tiny 10 random hard" and "tiny 10 random soft 2" in names
    # One step of the preset is traced, not computed.
    teacher = methods.teacher_network(chosen, 2)
    method = methods.build(chosen, teacher, ("crop", "flip"))
    wide = datasets.from_arrays(np.zeros((4, 32, 32, 3), np.uint8), [0, 1, 0, 1], strategy=())

    def step(key, images):
        params, pool = teacher.init(key, images[:, 0]), datasets.pool(wide)
        return method.step(key, method.init(images), cfm.guide(teacher, params, pool))

    state, info = jax.eval_shape(step, jax.random.key(0), np.zeros((2, 10, 32, 32, 3), np.float32))
    assert state.images.shape == (2, 10, 32, 32, 3) and info["loss"].shape == ()
    assert isinstance(teacher, {"quick": networks.ConvNet, "paper": networks.ResNet18}[preset])
