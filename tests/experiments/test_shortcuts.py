"""What views see of real digits, with one view and one pixel in the place of its rival."""

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
        shortcuts, "ASKED", {"tone": blind_features.Comparison(blind_features.tone, pixel)}
    )


def test_colours_of_digits_are_found(cheap, tmp_path, monkeypatch):
    """Tone tells the colour: nearly all conflicting samples stand out. The record is complete."""
    monkeypatch.setitem(shortcuts.DEVELOPMENT, "cdigits", shortcuts.Look("cdigits", 0.05))
    out = tmp_path / "out.json"
    shortcuts.main(out=out, only="cdigits")
    row = files.read_json(out)["judged"]["cdigits, seed 0"]
    found = row["views"]["tone"]
    assert row["samples"] == 1437 and row["device"] and found["weigh"] > 0
    assert found["auc"] > 0.98 and found["precision"] > 0.9 and found["balance"] > 0.9
    assert found["conflict_weight_share"] > 0.7 and found["z_score"] > 0
    before = out.read_bytes()
    shortcuts.main(out=out, only="cdigits")
    assert out.read_bytes() == before


def test_without_attributes_nothing_is_judged(cheap):
    data = benchmarks.load("digits")
    found = shortcuts.seen(jax.random.key(0), datasets.pool(data), data)
    assert set(found["views"]["tone"]) == {"blocks", "blind", "baseline", "z_score", "weigh"}
    assert np.isfinite(found["views"]["tone"]["z_score"])


def test_a_share_of_the_labels_is_wrong():
    """72 of 1,437 to the sample; no other array changes, and every wrong class takes part."""
    data = benchmarks.load("digits")
    found = shortcuts.mislabelled(data, share=0.05)
    wrong = found.train.labels != data.train.labels
    assert wrong.sum() == 72 and found.train.labels.dtype == data.train.labels.dtype
    assert (found.train.images is data.train.images) and found.test is data.test
    assert set((found.train.labels - data.train.labels)[wrong] % 10) == set(range(1, 10))


def test_no_set_is_both_for_development_and_held_out():
    looks = [*shortcuts.DEVELOPMENT.values(), *shortcuts.HELD_OUT.values()]
    assert len(set(looks)) == len(looks)
