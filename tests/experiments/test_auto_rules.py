"""Rules for weights, their map and the recognition of attributes, on real digits with few steps."""

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
JUDGING = dict(epochs=2, sets=1)


@pytest.fixture(scope="module")
def data():
    return benchmarks.load("cdigits", conflict=0.1)


def test_unequal_classes(data):
    """Class k keeps one in k + 1, rounded up, with its attributes."""
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


def test_rules_choose_what_they_may(data):
    data = data._replace(strategy=())
    found = auto_rules.judged(data, TINY, search=SEARCH, **JUDGING)
    rules, start = found["rules"], auto_rules.defaults(TINY)
    assert rules["default"]["values"] == start
    for rule, free in {
        "likelihood": {"bandwidth"},
        "stability": {"encoder_steps", "bandwidth"},
        "worst": set(start),
        "balance": set(start),
    }.items():
        values = rules[rule]["values"]
        assert {name for name in start if values[name] != start[name]} <= free
        assert rules[rule]["balance"] <= found["best"]
    assert rules["oracle"]["balance"] == pytest.approx(1, abs=1e-5)
    assert rules["uniform"]["conflict_weight_share"] == pytest.approx(0.1, abs=0.01)
    pool = datasets.pool(data)
    judge = functools.partial(
        weights.check_with_probe_networks,
        components.key(TINY, "auto"),
        strategy=data.strategy,
        network=networks.ConvNet(10, 4, 1),
        **JUDGING,
    )
    choice = weights.choose(
        components.key(TINY, "encoder"),
        pool,
        strategy=data.strategy,
        search=SEARCH._replace(encoder=weights.default_encoder(pool, width=4, depth=1)),
        comparisons={},
        check=judge,
    )
    assert rules["balance"]["values"].items() <= choice.candidates[choice.best].items()
    assert found["pays"] == (choice.density is not None)


def test_what_is_tried_are_the_values_of_auto():
    """The default search holds the default options, and multiples of them."""
    assert auto_rules.defaults(options.make()) == dict(
        encoder_steps=30, bandwidth=kde.FACTOR, temperature=1.0
    )
    usual = weights.Search()
    for name, value in auto_rules.defaults(options.make()).items():
        assert value in getattr(usual, name)


def test_benchmarks_are_judged_once(data, tmp_path, monkeypatch):
    """The command judges those that its file lacks, the unequal one with fewer samples."""
    out, rules = tmp_path / "out.json", {"balance": {"balance": 0.5}}
    asked = []

    def judged(data, options):
        asked.append((len(data.train.labels), options.conflict))
        return {"rules": rules, "best": 0.5, "pays": True}

    monkeypatch.setattr(auto_rules, "judged", judged)
    monkeypatch.setattr(auto_rules.grid, "load", lambda *_, **__: data)
    for names in ("cmnist-bg", "cmnist-bg,cmnist unequal classes"):
        auto_rules.main(out=out, only=names)
    (all_samples, _), (fewer, conflict) = asked
    assert all_samples == len(data.train.labels) > 2 * fewer and conflict == 0.05
    found = files.read_json(out)["judged"]
    assert list(found) == ["cmnist-bg", "cmnist unequal classes"]
    assert found["cmnist-bg"]["rules"] == rules and found["cmnist-bg"]["versions"]["jax"]


def test_the_map_holds_what_the_weights_do(data, tmp_path, monkeypatch):
    """Of two bandwidths and temperatures; that of the defaults is what the default weights do."""
    monkeypatch.setattr(bandwidth, "make", lambda: TINY)
    monkeypatch.setattr(bandwidth, "SWEPT", ("cdigits",))
    monkeypatch.setattr(bandwidth, "FACTORS", (kde.FACTOR, 0.8))
    monkeypatch.setattr(bandwidth, "TEMPERATURES", (1.0, 2.0))
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    bandwidth.maps(None)
    assert (tmp_path / "bandwidth-cdigits.png").exists()
    found = files.read_json(tmp_path / "bandwidth-cdigits.json")
    assert found["rows"]["defaults"]["config"]["dataset"] == "cdigits"
    cells = [(row["factor"], row["temperature"]) for row in found["table"]]
    assert cells == [(kde.FACTOR, 1.0), (kde.FACTOR, 2.0), (0.8, 1.0), (0.8, 2.0)]
    pool = datasets.pool(data)
    encoder = weights.default_encoder(pool, width=4, depth=1)
    key = components.key(TINY, "encoder")
    default = weights.by_density(key, pool, strategy=data.strategy, encoder=encoder, steps=2)
    expected = auto_rules.diagnosed(data, default.weights)._asdict()
    shown = {name: found["table"][0][name] for name in expected}
    assert shown == pytest.approx({name: float(x) for name, x in expected.items()}, rel=1e-4)
    sharp, flat = (row["effective_sample_size"] for row in found["table"][:2])
    assert sharp < flat


def test_recognition_looks_at_what_cells_left(tmp_path, monkeypatch):
    """Real images come back in [0, 1]; of a row that was not computed it says so."""
    small = dataclasses.replace(
        TINY, ipc=1, steps=2, batch_size=4, epochs=1, eval_seeds=1, network="mlp", strategy=()
    )
    cells = [grid.Cell("cdigits", row, small) for row in ("random", "none")]
    monkeypatch.setattr(recognition.amplification, "cells", lambda preset: cells)
    looked = lambda data, options, sets: {
        name: [list(images.shape), float(images.min()), float(images.max())]
        for name, images in sets.items()
    }
    monkeypatch.setattr(recognition, "measured", looked)
    where = dict(work=tmp_path / "work", out=tmp_path / "out.json")
    with pytest.raises(FileNotFoundError, match="computing a cell leaves there"):
        recognition.main(**where)
    claim = grid.Grid("tiny", lambda preset: cells, down=("dataset",))
    grid.compute(claim, cells, work=where["work"], folder=tmp_path / "results")
    recognition.main(**where)
    found = files.read_json(where["out"])["found"]["cdigits"]
    shape, low, high = found["random"]
    assert shape == found["none"][0] and shape[:2] == [10, 1]
    assert (low, high) == pytest.approx((0, 1), abs=1e-5)


def test_the_attribute_is_recognised(data):
    """A network sees colours in real digits: in all of those drawn by it, in none of the others."""
    train, aligned = data.train, np.array(data.aligned)
    agrees = train.attributes == aligned[train.labels]
    chosen = lambda which: (
        np.stack([train.images[(train.labels == k) & which][:3] for k in range(10)])
        / np.float32(255)
    )
    sets = {"aligned": chosen(agrees), "conflicting": chosen(~agrees)}
    found = recognition.measured(data._replace(strategy=()), TINY, sets)
    assert agrees.mean() == pytest.approx(0.9, abs=0.01)
    assert found["showing"]["training set"] == pytest.approx(0.9, abs=0.05)
    assert found["showing"]["aligned"] > 0.5 > found["showing"]["conflicting"]
    assert 0 <= found["all images"] <= 1
