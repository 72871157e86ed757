"""Several sets distilled in one program, each with its own weights, and interruptions."""

import functools

import jax
import numpy as np
import optax
import pytest

from experiments import long
from jaxdd import methods, networks, sampling
from jaxdd.data import datasets, files

KEY = jax.random.key(0)
STUDENT = networks.ConvNet(2, 4, 2)
METHOD = methods.distribution_matching(STUDENT, optax.sgd(1.0), strategy=("color",))
LABELS = np.arange(40) % 2


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    marks = np.where(np.arange(40) % 5, LABELS, 1 - LABELS)
    whole = images, LABELS, marks
    return datasets.from_arrays(*whole, test=whole, strategy=("color",))


@pytest.fixture(scope="module")
def row_weights():
    return np.random.default_rng(1).uniform(0.1, 1, (4, 40)).astype(np.float32)


def test_joint_steps_equal_single_steps(data, row_weights):
    """The loss divides by the sum of the weights of a class, so they are normalised here."""
    mixture = sampling.mixture(datasets.pool(data), row_weights)
    batch = sampling.mixture_batch(KEY, mixture, size=64)
    batch = batch._replace(weights=batch.weights / batch.weights.sum(1, keepdims=True))
    first = jax.random.normal(KEY, (4, 2, 3, 8, 8, 3))
    together = long.joint(METHOD, methods.mean_features(STUDENT, strategy=("color",)), long.ROWS)
    state, info = jax.jit(together.step)(KEY, together.init(first), batch)
    step = jax.jit(METHOD.step)
    for i, row in enumerate(long.ROWS):
        alone = sampling.Batch(batch.images, batch.weights[..., i])
        expected, single = step(KEY, METHOD.init(first[i]), alone)
        np.testing.assert_allclose(state.images[i], expected.images, atol=1e-5)
        assert info[row] == pytest.approx(float(single["loss"]), rel=1e-4)


def test_a_stopped_run_ends_with_the_same_numbers(data, row_weights, tmp_path, monkeypatch):
    scales = {"quick": long.Scale(4, 8, 1, 2), "paper": long.Scale(6, 8, 1, 2)}
    small = dict(SCALES=scales, STEPS=(0, 2, 4), CHUNK=2, SAVED=2)
    run = functools.partial(long.main, ipc=2, steps=4)
    for name, value in small.items():
        monkeypatch.setattr(long, name, value)
    monkeypatch.setattr(long.benchmarks, "load", lambda *_, **__: data)
    monkeypatch.setattr(long.programs, "prepare", lambda: None)
    by_row = dict(zip(long.ROWS, row_weights, strict=True))
    weigh = lambda row, key, pool, data: sampling.reweight(pool, by_row[row]).weights
    monkeypatch.setattr(long.small, "weigh", weigh)
    run(steps=2, work=tmp_path / "one", out=tmp_path)
    half = files.read_json(tmp_path / "long-2.json")
    run(work=tmp_path / "one", out=tmp_path)
    whole = files.read_json(tmp_path / "long-2.json")
    assert [point["step"] for point in whole["way"]] == [0, 2, 4]
    assert half["way"] == whole["way"][:2]
    table = long.table(tmp_path / "long-2.json", "conflicting")
    assert [line.split(" | ")[0] for line in table[2:]] == ["| 0", "| 2", "| 4"]

    def stop(*_):
        raise KeyboardInterrupt

    for stopped in (
        (long.checkpoint, "save"),
        (long, "score_sets"),
    ):  # interrupt after and before a line is written
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(*stopped, stop)
            run(work=tmp_path / "two", out=tmp_path / "again")
    run(work=tmp_path / "two", out=tmp_path / "again")
    again = files.read_json(tmp_path / "again" / "long-2.json")
    assert again["way"] == whole["way"]
    run(preset="paper", work=tmp_path / "one", out=tmp_path)
    paper = files.read_json(tmp_path / "long-paper-2.json")
    assert [point["step"] for point in paper["way"]] == [0, 2, 4] and paper["way"] != whole["way"]


def test_rows_of_two_processes_are_merged(tmp_path, monkeypatch):
    def distil(data, work, ipc, rows, steps, scale):
        for step in (0, 200, 500):
            yield step, None, {row: 1.0 + long.ROWS.index(row) for row in rows} if step else {}

    score = {"conflicting": {"mean": 0.5, "std": 0.1, "n": 3}}
    monkeypatch.setattr(long, "distil", distil)
    monkeypatch.setattr(
        long, "score_sets", lambda images, data, rows, scale: dict.fromkeys(rows, score)
    )
    monkeypatch.setattr(long.benchmarks, "load", lambda *_, **__: None)
    monkeypatch.setattr(long.programs, "prepare", lambda: None)
    for rows in (("plain", "density"), ("auto", "oracle")):
        long.main(ipc=2, rows=rows, work=tmp_path / "work", out=tmp_path)
    way = files.read_json(tmp_path / "long-2.json")["way"]
    assert [point["step"] for point in way] == [0, 200, 500]
    assert way[2]["loss"] == {"plain": 1.0, "density": 2.0, "auto": 3.0, "oracle": 4.0}
    assert set(way[1]["scores"]) == set(long.ROWS) and way[2]["scores"] == {}
