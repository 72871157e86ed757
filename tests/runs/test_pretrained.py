"""Experts and teachers: trained once, resumed, repaired, and rejected for other settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd.data import datasets, files
from jaxdd.runs import options, pipeline, pretrained
from jaxdd.runs.folder import manifest, store

SETTINGS = {"network": "convnet", "data": "abc"}
NAMES = [f"expert-{i:03d}.npz" for i in range(3)]


def expert(i, shape=(2, 2)):
    return {"layer": {"kernel": np.full((4, *shape), float(i)), "bias": np.arange(4.0) + i}}


def load(folder, *, settings=SETTINGS, train=expert, like=None, **fields):
    return pretrained._load_or_train(
        folder, settings, train, NAMES, like=like or expert(0), **fields
    )


def test_networks_are_trained_once(tmp_path):
    done = []
    trees = load(tmp_path / "new", report=lambda i, n: done.append((i, n)))
    assert done == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [tree["layer"]["kernel"].mean() for tree in trees] == [0, 1, 2]
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "new", train=None), trees)


def test_interrupted_and_damaged_networks_are_trained_again(tmp_path):
    trained = []

    def train(i):
        trained.append(i)
        if trained == [0, 1, 2]:
            raise KeyboardInterrupt
        return expert(i)

    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, train=train)
    (tmp_path / NAMES[1]).write_bytes(b"half")
    trees = load(tmp_path, train=train)
    assert trained == [0, 1, 2, 1, 2]
    assert [tree["layer"]["kernel"].mean() for tree in trees] == [0, 1, 2]


def test_other_settings_shapes_and_divergence_are_errors(tmp_path):
    load(tmp_path)
    with pytest.raises(ValueError, match="'abc'.*'xyz'"):
        load(tmp_path, settings=SETTINGS | {"data": "xyz"})
    with pytest.raises(ValueError, match="kernel"):
        load(tmp_path, like=expert(0, (3, 2)))
    with pytest.raises(ValueError, match="other"):
        load(tmp_path, like={"other": np.zeros(4)})
    with pytest.raises(ValueError, match="expert-000.*x.*lr_teacher"):
        load(
            tmp_path / "new", train=lambda i: {"x": np.array([0, np.inf])}, like={"x": np.zeros(2)}
        )
    assert not list((tmp_path / "new").glob("expert-*"))


MTT = options.MTT(
    ipc=2, batch_size=8, epochs=2, chunk=2, steps=2, eval_seeds=2, syn_steps=2, num_experts=2,
    train_epochs=2, expert_updates=2, expert_epochs=1, max_start_epoch=1,
)  # fmt: skip


def test_runs_share_the_experts_of_a_folder(fake, tmp_path):
    """A run with another IPC reads them; one with another learning rate is rejected."""
    chosen = dataclasses.replace(MTT, buffer_path=str(tmp_path / "buffer"))
    fields = dict(debias="plain", network=fake.NETWORK)
    pipeline.run(fake.shades(), tmp_path / "a", chosen, **fields)
    folder = tmp_path / "buffer/plain"
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert len(written) == 2
    other = dataclasses.replace(chosen, ipc=1)
    result = pipeline.run(fake.shades(), tmp_path / "b", other, **fields)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert {"experts", "distill"} <= result.seconds.keys()
    with pytest.raises(ValueError, match="0.01.*0.02"):
        changed = dataclasses.replace(chosen, lr_teacher=0.02)
        pipeline.run(fake.shades(), tmp_path / "c", changed, **fields)
    with pytest.raises(ValueError, match="mtt"):
        pipeline.run(fake.shades(), tmp_path / "d", other, debias="fairdd")
    assert not (tmp_path / "d").exists()


CFM = options.CFM(
    ipc=2, batch_size=4, width=2, depth=1, epochs=1, chunk=2, steps=4, eval_seeds=1,
    teacher_steps=4, save_every=0.0, weighted=("signal",),
)  # fmt: skip


def test_the_teacher_resumes_bit_for_bit_and_weights_enter_the_signal_alone(fake, tmp_path):
    def cut(task, done, total, **_):
        if (task, done) == ("oracle teacher", 4):
            raise InterruptedError

    fields = dict(debias="oracle", network=fake.NETWORK)
    with pytest.raises(InterruptedError):
        pipeline.run(fake.shades(), tmp_path / "a", CFM, report=cut, **fields)
    assert (tmp_path / "a/teacher/checkpoint").exists()
    pipeline.run(fake.shades(), tmp_path / "a", CFM, resume=True, **fields)
    assert not (tmp_path / "a/teacher/checkpoint").exists()
    result = pipeline.run(fake.shades(), tmp_path / "b", CFM, **fields)
    a, b = (store.read_synthetic(tmp_path / side / "synthetic.npz").images for side in "ab")
    np.testing.assert_array_equal(a, b)
    assert np.isfinite(a).all()
    weights = files.read_json(tmp_path / "b/teacher/settings.json")["weights"]
    assert weights["teacher"] == weights["covariance"] != weights["signal"]
    assert result.config["weighted"] == ["signal"] and "experts" in result.seconds
    steps = store.progress(tmp_path / "b")
    assert [row["step"] for row in steps] == [2, 4] and steps[0]["beta"] > steps[1]["beta"]

    data, folder = fake.shades(), tmp_path / "b/teacher"
    read = lambda digest: pretrained.read_teacher(folder, datasets.pool(data), 2, data=digest)
    logits = read(datasets.digest(data)).network
    assert logits is not None and jnp.ndim(jax.tree.leaves(read(datasets.digest(data)).params)[0])
    with pytest.raises(ValueError, match="0" * 32):
        read("0" * 32)
    (folder / "teacher-000.npz").write_bytes(b"")
    assert not manifest.is_intact(folder, "teacher-000.npz")
    with pytest.raises(FileNotFoundError, match="teacher-000.npz"):
        read(datasets.digest(data))
