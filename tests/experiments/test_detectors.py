"""The comparison of detectors on coloured digits, with small networks."""

import functools

import numpy as np
import pytest

from experiments import detectors
from experiments.tools import depths, record, truncated
from jaxdd import networks, weights
from jaxdd.data import benchmarks, datasets, files

SHORTCUTS = {"blocks": [0, 0, 1], "blind": 0.1, "baseline": 0.2}


@pytest.fixture
def small(monkeypatch):
    network = networks.ConvNet(10, 4, 2, norm=networks.BatchNorm)
    given = dict(network=network, steps=4, checkpoints=1, batch_size=20)
    encoder = functools.partial(weights.default_encoder, width=4, depth=1)
    monkeypatch.setattr(weights, "default_encoder", encoder)
    monkeypatch.setattr(weights, "encode", functools.partial(weights.encode, steps=2))
    monkeypatch.setattr(truncated, "crossfit", functools.partial(truncated.crossfit, **given))
    branches = functools.partial(depths.TwoDepths, width=2, blocks=1)
    monkeypatch.setattr(depths, "TwoDepths", branches)
    monkeypatch.setitem(detectors.DEEP, "steps", 4)
    monkeypatch.setattr(detectors, "blocks_of", lambda name, path, k: tuple(range(k)))


def test_every_detector_is_measured(small, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    monkeypatch.setattr(detectors, "DATASETS", ("cdigits",))
    rows = record.fill(out, detectors.tasks(None))
    assert list(rows) == [f"cdigits, {name}" for name in detectors.DETECTORS]
    for name, scores in rows.items():
        assert 0 <= scores["auc"] <= 1 and scores["seconds"] > 0
        assert ("share_error" in scores) == ("density" not in name)
    ((header, _, *lines),) = detectors.tables(out)
    assert len(lines) == 4 and all(line.count("|") == header.count("|") for line in lines)


@pytest.mark.parametrize("z_score, expected", [(9.0, (0, 0, 1)), (2.0, (0, 1, 2))])
def test_blocks_are_those_of_a_shortcut(tmp_path, z_score, expected):
    rows = {"tone": SHORTCUTS | {"z_score": z_score}, "border": SHORTCUTS | {"z_score": 0.0}}
    path = tmp_path / "shortcuts.json"
    files.write_json(path, {"measured": {"any, seed 0": {"features": rows}}})
    assert detectors.blocks_of("any", path, 3) == expected


def test_blocks_add_up_the_probabilities_of_their_classes(monkeypatch):
    data = benchmarks.load("cdigits", conflict=0.05)
    probabilities = np.eye(10, dtype=np.float32)[(data.train.labels + 5) % 10]
    monkeypatch.setattr(truncated, "crossfit", lambda key, pool: probabilities)
    pairs = tuple(i % 5 for i in range(10))
    _, score = detectors.detectors(None, datasets.pool(data), data, pairs)["networks"]()
    assert float(score.max()) < 1e-5
