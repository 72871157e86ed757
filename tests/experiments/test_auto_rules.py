"""Rules for weights, their map and the recognition of attributes, on small digits."""

import dataclasses
import functools

import numpy as np
import pytest

from experiments import auto_rules, bandwidth, recognition
from experiments.tools import grid
from jaxdd import kde, networks, weights
from jaxdd.data import benchmarks, datasets, files
from jaxdd.runs import components, options

TINY = options.make(encoder_steps=2, encoder_width=4, width=4, depth=1, conflict=0.1)
SEARCH = weights.Search((2, 6), (kde.FACTOR, 4 * kde.FACTOR), (1.0, 2.0))
CHECK = dict(epochs=2, sets=1)


@pytest.fixture(scope="module")
def data():
    return benchmarks.load("cdigits", conflict=0.1)


def test_unequal_classes(data):
    """Class k keeps one of k + 1 samples, rounded up, with their attributes."""
    few = auto_rules.unequal(data)
    counts = np.bincount(data.train.labels)
    assert np.bincount(few.train.labels).tolist() == [
        -(-n // (k + 1)) for k, n in enumerate(counts)
    ]
    rows = {image.tobytes(): attribute for image, attribute in zip(*data.train[::2], strict=True)}
    assert all(
        rows[image.tobytes()] == attribute for image, attribute in zip(*few.train[::2], strict=True)
    )
    plain = auto_rules.unequal(benchmarks.load("digits"))
    assert plain.train.attributes is None and len(plain.train.labels) < len(data.train.labels) / 2


def test_rules_vary_only_their_own_values(data):
    data = data._replace(strategy=())
    measured = auto_rules.measure(data, TINY, search=SEARCH, **CHECK)
    rules, start = measured["rules"], auto_rules.defaults(TINY)
    assert rules["default"]["values"] == start
    for rule, free in {
        "likelihood": {"bandwidth"},
        "stability": {"encoder_steps", "bandwidth"},
        "worst": set(start),
        "evenness": set(start),
    }.items():
        values = rules[rule]["values"]
        assert {name for name in start if values[name] != start[name]} <= free
        assert rules[rule]["evenness"] <= measured["best"]
    assert rules["oracle"]["evenness"] == pytest.approx(1, abs=1e-5)
    assert rules["uniform"]["conflict_weight_share"] == pytest.approx(0.1, abs=0.01)
    pool = datasets.pool(data)
    check = functools.partial(
        weights.check_with_probe_networks,
        components.key(TINY, "auto"),
        strategy=data.strategy,
        network=networks.ConvNet(10, 4, 1),
        **CHECK,
    )
    choice = weights.choose(
        components.key(TINY, "encoder"),
        pool,
        strategy=data.strategy,
        search=SEARCH._replace(encoder=weights.default_encoder(pool, width=4, depth=1)),
        comparisons={},
        exclude=["tone", "texture", "layout", "embedding"],
        check=check,
    )
    assert rules["evenness"]["values"].items() <= choice.search[choice.best].items()
    assert measured["helps"] == (choice.density is not None)


def test_search_contains_the_defaults():
    assert auto_rules.defaults(options.make()) == dict(
        encoder_steps=30, bandwidth=kde.FACTOR, temperature=1.0
    )
    usual = weights.Search()
    for name, value in auto_rules.defaults(options.make()).items():
        assert value in getattr(usual, name)


def test_benchmarks_with_unequal_classes_have_fewer_samples(data, monkeypatch):
    measure = lambda data, options: {"all": len(data.train.labels), "conflict": options.conflict}
    monkeypatch.setattr(auto_rules, "measure", measure)
    monkeypatch.setattr(auto_rules.grid, "load", lambda *_, **__: data)
    tasks = auto_rules.tasks(None)
    whole, fewer = (tasks[name]() for name in ("cmnist-bg", "cmnist unequal classes"))
    assert whole["all"] == len(data.train.labels) > 2 * fewer["all"] and fewer["conflict"] == 0.05


def test_map_contains_the_default_weights(data, tmp_path, monkeypatch):
    monkeypatch.setattr(bandwidth, "make", lambda: TINY)
    monkeypatch.setattr(bandwidth, "DATASETS", ("cdigits",))
    monkeypatch.setattr(bandwidth, "FACTORS", (kde.FACTOR, 0.8))
    monkeypatch.setattr(bandwidth, "TEMPERATURES", (1.0, 2.0))
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    bandwidth.maps(None)
    content = files.read_json(tmp_path / "bandwidth-cdigits.json")
    assert content["config"]["dataset"] == "cdigits"
    cells = [(row["factor"], row["temperature"]) for row in content["table"]]
    assert cells == [(kde.FACTOR, 1.0), (kde.FACTOR, 2.0), (0.8, 1.0), (0.8, 2.0)]
    pool = datasets.pool(data)
    encoder = weights.default_encoder(pool, width=4, depth=1)
    key = components.key(TINY, "encoder")
    default = weights.by_density(key, pool, strategy=data.strategy, encoder=encoder, steps=2)
    expected = auto_rules.diagnose(data, default.weights)._asdict()
    shown = {name: content["table"][0][name] for name in expected}
    assert shown == pytest.approx({name: float(x) for name, x in expected.items()}, rel=1e-4)
    sharp, flat = (row["effective_sample_size"] for row in content["table"][:2])
    assert sharp < flat


def test_recognition_reads_the_sets_of_the_grid(tmp_path, monkeypatch):
    small = dataclasses.replace(
        TINY, ipc=1, steps=2, batch_size=4, epochs=1, eval_seeds=1, network="mlp", strategy=()
    )
    cells = [grid.Cell("cdigits", row, small) for row in ("random", "plain")]
    monkeypatch.setattr(recognition.amplification, "cells", lambda preset: cells)
    measure = lambda data, options, sets: {
        name: [list(images.shape), float(images.min()), float(images.max())]
        for name, images in sets.items()
    }
    monkeypatch.setattr(recognition, "measure", measure)
    work = tmp_path / "work"
    task = recognition.tasks(None, work)["cdigits"]
    with pytest.raises(FileNotFoundError, match="synthetic.npz"):
        task()
    claim = grid.Grid("tiny", lambda preset: cells, down=("dataset",))
    grid.compute(claim, cells, work=work, folder=tmp_path / "results")
    row = task()
    shape, low, high = row["random"]
    assert shape == row["plain"][0] and shape[:2] == [10, 1]
    assert (low, high) == pytest.approx((0, 1), abs=1e-5)


def test_the_attribute_is_recognised(data):
    """A network recognises colours in aligned digits, and others in conflicting ones."""
    train, aligned = data.train, np.array(data.aligned)
    agrees = train.attributes == aligned[train.labels]
    chosen = lambda which: (
        np.stack([train.images[(train.labels == k) & which][:3] for k in range(10)])
        / np.float32(255)
    )
    sets = {"aligned": chosen(agrees), "conflicting": chosen(~agrees)}
    row = recognition.measure(data._replace(strategy=()), TINY, sets)
    assert agrees.mean() == pytest.approx(0.9, abs=0.01)
    assert row["showing"]["training set"] == pytest.approx(0.9, abs=0.05)
    assert row["showing"]["aligned"] > 0.5 > row["showing"]["conflicting"]
    assert 0 <= row["all images"] <= 1
