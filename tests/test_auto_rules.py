"""Rules for weights on real digits with few steps: each stays inside of what it may choose."""

import dataclasses

import numpy as np
import pytest

from experiments import auto_rules, recognition
from jaxdd.data import benchmarks
from jaxdd.runs import auto, jobs

OPTIONS = jobs.Options(encoder_steps=2, encoder_width=4, width=4, depth=2, conflict=0.1)


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setattr(auto, "_EPOCHS", 2)
    monkeypatch.setattr(auto, "_DRAWS", 1)
    few = {"encoder_steps": (1, 3), "bandwidth": (1, 4), "temperature": (1, 2)}
    monkeypatch.setattr(auto, "SEARCH", few)
    job = jobs.prepare(benchmarks.load("cdigits", conflict=0.1), OPTIONS)
    return job._replace(options=auto.checked(job.options))


def test_unequal_classes():
    """Class k keeps one in k + 1, rounded up, with its attributes."""
    data = benchmarks.load("cdigits", conflict=0.1)
    few = auto_rules.unequal(data)
    counts = np.bincount(data.train.labels)
    assert np.bincount(few.train.labels).tolist() == [
        -(-n // (k + 1)) for k, n in enumerate(counts)
    ]
    rows = {image.tobytes(): attribute for image, attribute in zip(*data.train[::2], strict=True)}
    assert all(
        rows[image.tobytes()] == attribute for image, attribute in zip(*few.train[::2], strict=True)
    )


def test_rules_choose_what_they_may(job):
    found = auto_rules.judged(job)
    rules = found["rules"]
    start = {name: getattr(job.options, name) for name in auto.SEARCH}
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
    assert rules["uniform"]["conflict_mass"] == pytest.approx(0.1, abs=0.01)
    choice = auto.choose(job._replace(options=dataclasses.replace(job.options)))
    assert rules["balance"]["values"].items() <= choice.balances[choice.best].items()
    assert found["pays"] == (choice.weighed is not None)


def test_the_attribute_is_recognised(job):
    """A network sees colours in real digits: in all of those drawn by it, in none of the others."""
    train, aligned = job.benchmark.train, np.array(job.benchmark.aligned)
    agrees = train.attributes == aligned[train.labels]
    chosen = lambda which: (
        np.stack([train.images[(train.labels == k) & which][:3] for k in range(10)])
        / np.float32(255)
    )
    found = recognition.measured(job, {"aligned": chosen(agrees), "conflicting": chosen(~agrees)})
    assert agrees.mean() == pytest.approx(0.9, abs=0.01)
    assert found["showing"]["training set"] == pytest.approx(0.9, abs=0.05)
    assert found["showing"]["aligned"] > 0.5 > found["showing"]["conflicting"]
    assert 0 <= found["all images"] <= 1
