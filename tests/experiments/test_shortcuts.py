"""Object-blind features on real digits, with one pixel as baseline features."""

import jax
import numpy as np
import pytest

from experiments import shortcuts
from jaxdd.data import benchmarks, datasets, files
from jaxdd.weights import blind_features


@pytest.fixture
def cheap(monkeypatch):
    pixel = lambda key, images: lambda seen: seen[:, 8, 8]
    monkeypatch.setattr(
        shortcuts, "COMPARISONS", {"tone": blind_features.Comparison(blind_features.tone, pixel)}
    )


def test_colours_of_digits_are_detected(cheap, tmp_path, monkeypatch):
    """Tone shows the colour, so nearly all bias-conflicting samples have the highest scores."""
    monkeypatch.setitem(shortcuts.DEVELOPMENT, "cdigits", shortcuts.Setting("cdigits", 0.05))
    out = tmp_path / "out.json"
    shortcuts.main(out=out, only="cdigits")
    row = files.read_json(out)["measured"]["cdigits, seed 0"]
    tone = row["features"]["tone"]
    assert row["samples"] == 1437 and tone["weigh"] > 0
    assert tone["auc"] > 0.98 and tone["precision"] > 0.9 and tone["evenness"] > 0.9
    assert tone["conflict_weight_share"] > 0.7 and tone["z_score"] > 0
    before = out.read_bytes()
    shortcuts.main(out=out, only="cdigits")
    assert out.read_bytes() == before


def test_without_attributes_only_the_shortcut_is_tested(cheap):
    data = benchmarks.load("digits")
    row = shortcuts.measure(jax.random.key(0), datasets.pool(data), data)
    assert set(row["features"]["tone"]) == {"blocks", "blind", "baseline", "z_score", "weigh"}
    assert np.isfinite(row["features"]["tone"]["z_score"])


def test_a_share_of_the_labels_is_wrong():
    """72 of 1,437 labels change, to any other class; other arrays do not change."""
    data = benchmarks.load("digits")
    changed = shortcuts.mislabelled(data, share=0.05)
    wrong = changed.train.labels != data.train.labels
    assert wrong.sum() == 72 and changed.train.labels.dtype == data.train.labels.dtype
    assert (changed.train.images is data.train.images) and changed.test is data.test
    assert set((changed.train.labels - data.train.labels)[wrong] % 10) == set(range(1, 10))


def test_no_set_is_both_for_development_and_held_out():
    looks = [*shortcuts.DEVELOPMENT.values(), *shortcuts.HELD_OUT.values()]
    assert len(set(looks)) == len(looks)
