"""The verdict about a bias on digits, with one candidate; and rivals on two numbers per sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import decisions
from experiments.tools import biased_sets, rivals
from jaxdd import weights
from jaxdd.data import files


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Decide by tone alone, about coloured digits, and about digits that are called unbiased."""
    sets = {
        "coloured": decisions.DataSet("cdigits", conflict=0.05),
        "uncoloured": decisions.DataSet("digits", False),
        "all aligned": decisions.DataSet("cdigits", None, conflict=0.0),
    }
    for name in ("OUT", "RIVALS", "SETS"):
        monkeypatch.setattr(decisions, name, tmp_path / f"{name.lower()}.json")
    monkeypatch.setattr(decisions, "DEVELOPMENT", sets)
    monkeypatch.setattr(decisions, "FEATURES", ("tone",))

    def choose(key, pool, *, strategy, **options):
        tone = weights.by_candidate(key, pool, "tone", strategy=strategy)
        if tone.bimodality > 1:
            return weights.Choice(tone.weights, "biased", ("tone",), (tone,))
        uniform = weights.formulas.uniform(pool.labels, num_classes=10)
        return weights.Choice(uniform, candidates=(tone,))

    monkeypatch.setattr(weights, "choose", choose)
    return tmp_path


def test_verdicts_are_counted(results, capsys):
    decisions.main(seeds=2)
    measured = files.read_json(results / "out.json")["measured"]
    assert len(measured) == 6
    row = measured["coloured, seed 1"]
    assert row["verdict"] == "biased" and row["samples"] == 1437 and row["evenness"] > 0.9
    assert row["candidates"][0]["auc"] > 0.98
    plain = measured["uncoloured, seed 0"]
    assert plain["verdict"] == "none" and "auc" not in plain["candidates"][0]
    sets, rates = decisions.tables()
    assert "1 of 1" in rates[2] and [
        line for line in sets if line.startswith("| coloured | 2 biased")
    ]
    assert decisions.best_candidate("coloured") == "tone"
    assert rates[2] in capsys.readouterr().out
    before = (results / "out.json").read_bytes()
    decisions.main(seeds=2)
    assert (results / "out.json").read_bytes() == before


def test_rivals_run_on_the_same_sets(results, monkeypatch):
    report = {"reported": ["dark"], "scores": {"dark": 0.1}}
    monkeypatch.setattr(rivals, "datalab", lambda images, labels: report)
    decisions.main(part="rivals", only="coloured,uncoloured")
    measured = files.read_json(results / "rivals.json")["measured"]
    row = measured["coloured, seed 0"]
    assert row["xrm"]["features"]["tone"]["auc"] > 0.9 and row["ssa"]["auc"] > 0.6
    assert set(measured["uncoloured, seed 0"]) == {"datalab"}
    decisions.main(only="coloured")
    *_, compared, summary = decisions.tables()
    assert "dark" in compared[2] and summary[2].startswith("| Datalab | 1 of 1 | 1 of 1 |")


def test_a_hundred_labels_balance_the_groups(results):
    data = decisions.load(decisions.DEVELOPMENT["coloured"], seed=0)
    by_labels = decisions._few_labels(data, jax.random.key(0), 100)
    assert decisions._evenness(by_labels, data) > 0.9


def biased_numbers(n=2000, *, conflict=0.05):
    """Return two classes, an attribute that follows them, and numbers that show both."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    attributes = np.where(rng.random(n) < conflict, 1 - labels, labels)
    shown = np.stack([4 * attributes, 0.5 * labels, 0 * labels], 1) + rng.normal(size=(n, 3))
    return jnp.asarray(shown, jnp.float32), labels, attributes


def test_twins_predict_the_attribute():
    features, labels, attributes = biased_numbers()
    twins = rivals.xrm(jax.random.key(0), features, jnp.asarray(labels), num_classes=2)
    predicted = np.asarray(twins.probabilities).argmax(1)
    assert (predicted == attributes).mean() > 0.93 and 0.02 < twins.flipped < 0.2


def test_few_labels_name_the_attribute():
    features, labels, attributes = biased_numbers()
    labelled = np.random.default_rng(0).permutation(2000)[:200]
    arguments = jax.random.key(0), features, labels, attributes
    predicted = np.asarray(rivals.ssa(*arguments, labelled, num_attributes=2))
    assert (predicted.argmax(1) == attributes).mean() > 0.93
    others = np.setdiff1d(np.arange(2000), labelled)
    hidden = attributes.copy()
    hidden[others] = 0
    again = rivals.ssa(*arguments[:3], hidden, labelled, num_attributes=2)
    assert np.array_equal(predicted[others], np.asarray(again)[others])


def test_datalab_reports_brightness():
    pytest.importorskip("cleanlab")
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    noise = rng.integers(0, 100, (200, 16, 16, 3), np.uint8)
    shifted = noise + (100 * labels).astype(np.uint8)[:, None, None, None]
    assert "dark" in rivals.datalab(shifted, labels)["reported"]
    assert rivals.datalab(noise, labels)["reported"] == []


def test_intervals():
    assert decisions._rate(0, 0) == "–" and decisions._rate(9, 10) == "9 of 10 (60–98 %)"


def test_subsamples_keep_the_shares_of_classes():
    data = decisions.load(decisions.DataSet("digits", False), seed=0)
    part = biased_sets.subsample(data, seed=0, samples=200)
    counts, before = (np.bincount(x.train.labels) for x in (part, data))
    assert (counts == before * 200 // 1437).all() and part.test is data.test
    whole = biased_sets.subsample(data, seed=0, samples=1437)
    assert np.array_equal(whole.train.images, data.train.images)
