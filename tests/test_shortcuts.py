"""What views see of real digits, with one view and one pixel in the place of patches."""

import jax
import numpy as np
import pytest

from experiments import shortcuts
from jaxdd import views
from jaxdd.data import benchmarks, datasets, files


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setattr(views, "NAMED", {"tone": views.tone})
    monkeypatch.setattr(views, "patches", lambda key, images: lambda seen: seen[:, 8, 8])


def test_colours_of_digits_are_found(cheap, tmp_path, monkeypatch):
    """Tone tells the colour: nearly all conflicting samples stand out. The record is complete."""
    monkeypatch.setattr(shortcuts, "BIASED", ("cdigits",))
    out = tmp_path / "out.json"
    shortcuts.main(out=out, only="cdigits")
    row = files.read_json(out)["judged"]["cdigits, seed 0"]
    found = row["views"]["tone"]
    assert row["samples"] == 1437 and row["device"] and found["weigh"] > 0
    assert found["auc"] > 0.98 and found["precision"] > 0.9 and found["balance"] > 0.9
    assert found["conflict_mass"] > 0.7 and found["deviations"] > 0
    before = out.read_bytes()
    shortcuts.main(out=out, only="cdigits")
    assert out.read_bytes() == before


def test_without_attributes_nothing_is_judged(cheap):
    data = benchmarks.load("digits")
    found = shortcuts.seen(jax.random.key(0), datasets.pool(data), data)
    assert set(found["views"]["tone"]) == {"blocks", "blind", "seeing", "deviations", "weigh"}
    assert np.isfinite(found["views"]["tone"]["deviations"])
