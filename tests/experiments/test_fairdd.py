"""Rows with and without bias labels distilled in one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import fairdd
from jaxdd import matching, sampling
from jaxdd.data import datasets, files

KEY = jax.random.key(0)
LABELS = np.arange(40) % 2
GROUPS = np.where(np.arange(40) % 5, LABELS, 1 - LABELS)
FIRST = fairdd.ROWS.index("plain")


@pytest.fixture(scope="module")
def data():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    whole = images, LABELS, GROUPS
    return datasets.from_arrays(*whole, test=whole, strategy=("color",))


@pytest.fixture(scope="module")
def batch(data):
    """A batch of one row of weights for every row, and the groups of its images."""
    pool = datasets.pool(data)
    weights = jnp.stack([pool.weights] * len(fairdd.ROWS))
    groups = jnp.asarray(GROUPS).at[jnp.flatnonzero(LABELS == 0)].set(2)  # class 0: one group
    drawn = fairdd.sample(KEY, fairdd.Pools(pool, weights, groups), num_groups=3, size=64)
    own = groups[sampling.with_replacement(KEY, pool, 64)]
    return drawn, np.asarray(own)


def test_fairdd_has_one_target_per_group_and_cobra_their_mean(batch):
    drawn, groups = batch
    k, b = groups.shape
    weights = drawn.weights.reshape(len(fairdd.ROWS), k, 3, b)
    by_group = weights[fairdd.ROWS.index("fairdd")]
    for c, group in ((0, 2), (1, 0), (1, 1)):
        expected = np.where(groups[c] == group, 1 / np.sum(groups[c] == group), 0)
        np.testing.assert_allclose(by_group[c, group], expected, rtol=1e-5)
    assert not by_group[0, :2].any() and not by_group[1, 2].any()
    cobra = weights[fairdd.ROWS.index("cobra-l1")]
    np.testing.assert_allclose(cobra[0, 0], by_group[0, 2], rtol=1e-5)
    np.testing.assert_allclose(cobra[1, 0], by_group[1, :2].mean(0), rtol=1e-5)
    assert not cobra[:, 1:].any() and not weights[FIRST, :, 1:].any()


def test_distance_by_hand():
    real = jnp.array([[[0.0], [4.0], [10.0]]])
    synthetic = jnp.array([[[1.0], [3.0]]])  # mean 2
    weights = jnp.array([[1.0, 0, 0, 0, 2, 2, 0, 0, 0]])  # targets 0 and 7, and one without images
    distance = functools.partial(fairdd.distance, real, synthetic, weights)
    assert float(distance(is_l1=jnp.array(False))) == pytest.approx(2**2 + 5**2)
    assert float(distance(is_l1=jnp.array(True))) == pytest.approx(2 + 5)


def test_rows_with_one_target_have_the_loss_of_distribution_matching(batch):
    drawn, groups = batch
    real = jax.random.normal(KEY, (*groups.shape, 5))
    synthetic = jax.random.normal(jax.random.key(1), (2, 3, 5))
    weights = drawn.weights[FIRST]
    expected = matching.distribution(real, synthetic, weights[:, : groups.shape[1]])
    actual = fairdd.distance(real, synthetic, weights, is_l1=jnp.array(False))
    assert float(actual) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("preset", ["long", "paper"])
def test_a_stopped_run_ends_with_the_same_numbers(data, tmp_path, monkeypatch, preset):
    monkeypatch.setitem(fairdd.SCALES, preset, fairdd.long.Scale(4, 8, 1, 2))
    for name in ("CHUNK", "SAVED"):
        monkeypatch.setattr(fairdd.long, name, 2)
    monkeypatch.setattr(fairdd, "IPC", 2)
    monkeypatch.setattr(fairdd, "SETS", ("cmnist-fg",))
    monkeypatch.setattr(fairdd, "SEEDS", 2)
    monkeypatch.setattr(fairdd.benchmarks, "load", lambda *_, **__: data)
    monkeypatch.setattr(fairdd.programs, "prepare", lambda: None)
    by_group = jnp.asarray(np.where(LABELS == GROUPS, 1.0, 4.0))
    weigh = lambda row, key, pool, data: sampling.reweight(pool, by_group).weights
    monkeypatch.setattr(fairdd.small, "weigh", weigh)
    outs = tmp_path / "at-once.json", tmp_path / "resumed.json"
    for steps, name, out in (
        (4, "a", outs[0]),
        (2, "b", tmp_path / "half.json"),
        (4, "b", outs[1]),
    ):
        monkeypatch.setitem(fairdd.STEPS, preset, steps)
        fairdd.main(preset=preset, work=tmp_path / name, out=out)
    whole, resumed = (files.read_json(out)["measured"] for out in outs)
    assert whole == resumed and set(whole) == {"cmnist-fg, seed 0", "cmnist-fg, seed 1"}
    assert list(whole["cmnist-fg, seed 0"]) == ["random", *fairdd.ROWS]
    accuracy, gap = fairdd.tables(outs[0])
    assert "30.8" in accuracy[3] and len(gap) == 3
