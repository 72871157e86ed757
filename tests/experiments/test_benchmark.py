"""The benchmark counts FLOPs correctly and times its candidates in turn."""

import json

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments.speed import benchmark, workloads
from jaxdd import matching, methods, networks, sampling, training

KEY = jax.random.key(0)
TINY = workloads.Sizes(
    classes=2,
    real=4,
    ipc=2,
    side=8,
    width=4,
    steps=1,
    epochs=1,
    test=4,
    batch=4,
    encoder_width=4,
    points=40,
    dimension=12,
)


def xla_flops(function, *arguments):
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def test_forward_count_equals_xla_within_five_per_cent():
    """XLA also counts elementwise operations."""
    network = networks.ConvNet(10, width=128, norm=None)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(network.init, KEY, images)
    ratio = xla_flops(network.apply, params, images) / workloads.convnet_cost(128, 32).flops
    assert 1 <= ratio < 1.05


def test_step_counts_equal_xla_within_fifteen_per_cent():
    """Norms, losses and augmentation are elementwise and not counted by hand.

    Real batches fit one micro-batch, so that no loop hides work from XLA.
    """
    network, sizes = networks.ConvNet(2, width=128), TINY._replace(width=128, side=32, real=8)
    cost = workloads.convnet_cost(128, 32)
    images = jnp.zeros((2, 2, 32, 32, 3))
    batch = sampling.Batch(jnp.zeros((2, 8, 32, 32, 3)), jnp.ones((2, 8)))
    method = methods.distribution_matching(network, optax.sgd(1.0))
    flops = xla_flops(method.step, KEY, method.init(images), batch)
    counted = sizes.classes * (sizes.real + 2 * sizes.ipc) * cost.flops
    assert counted < flops < 1.15 * counted
    params = network.init(KEY, images[0])
    slope = lambda params, x: training.gradient(network, params, x, 0, jnp.ones(len(x)))
    flops = xla_flops(slope, params, batch.images[0, :2])  # few enough for a single micro-batch
    assert flops == pytest.approx(2 * (3 * cost.flops - cost.first_flops), rel=0.15)

    def distance(x, params, target):
        loss = lambda params: training.cross_entropy(network, params, x, 0, jnp.ones(len(x)))
        return matching.cosine_rows(target, jax.grad(loss)(params))

    flops = xla_flops(jax.grad(distance), images[0], params, params)
    assert flops == pytest.approx(2 * (7 * cost.flops - 2 * cost.first_flops), rel=0.15)


def test_paper_preset_writes_complete_rows(tmp_path, monkeypatch):
    monkeypatch.setitem(benchmark.PRESETS, "paper", TINY)
    monkeypatch.setattr(benchmark, "MILLION", 80)
    monkeypatch.setattr(workloads, "HAS_TORCH", False)
    benchmark.main(only="kde", preset="paper", out=tmp_path / "out.json", rounds=1, sweep=True)
    report = json.loads((tmp_path / "out.json").read_text())
    assert {"device", "versions", "date", "rows"} <= set(report)
    rows = {(row["name"], row["peer"]) for row in report["rows"]}
    names = "KDE per class", "KDE, all in one class", "KDE per class, a million samples"
    assert rows == {(name, peer) for name in names for peer in ("numpy", "scikit-learn")}
    for row in report["rows"]:
        assert row["ratio"] > 0
        # Two FLOPs per product of two numbers, for half of the n · n/k pairs.
        flops = (12 * 40 * 20, 12 * 40 * 40, 512 * 80 * 40)
        assert row["flops"] == flops[names.index(row["name"])]
        assert 0 < row["share_of_peak"] and row["peak_bytes"] >= 40 * 12 * 4
    assert [s["values"] for s in report["sweeps"]] == [[10, 20, 40], [3, 6, 12], [1, 1, 2]]


def test_paper_preset_has_rows_in_bfloat16(tmp_path, monkeypatch):
    monkeypatch.setitem(benchmark.PRESETS, "paper", TINY)
    monkeypatch.setattr(workloads, "HAS_TORCH", False)
    benchmark.main(only="dm,evaluate", preset="paper", out=tmp_path / "out.json", rounds=1)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    titles = "DM step", "evaluation of five seeds"
    assert [row["name"] for row in rows] == [*titles, *(f"{name}, bfloat16" for name in titles)]
    assert all(row["seconds"] > 0 and row["peer"] is None for row in rows)


def test_unknown_work_is_rejected():
    with pytest.raises(SystemExit, match="got nonsense"):
        benchmark.main(only="dm,nonsense")


def test_candidates_take_turns():
    order = []
    run = lambda name: workloads.Timed(lambda: order.append(name), 0.5)
    times = benchmark.time_in_turn({"a": run("a"), "b": run("b")}, rounds=2, least=0.0)
    assert order[-4:] == ["a", "b", "a", "b"] and len(times["a"]) == 2
