"""Tests of the page about a bias, with a stub for the choice: by features, by density, or none."""

import numpy as np
import pytest

from jaxdd import weights
from jaxdd.data import datasets
from jaxdd.runs import bias
from jaxdd.runs.reports import bias_page
from jaxdd.weights import probes

N, K = 60, 3
SHORTCUTS = {"tone": probes.Shortcut((0, 0, 1), 0.1, 0.2, 5.0)}


@pytest.fixture(scope="module")
def data():
    """Return images of brightness i whose attribute is the class, except for every tenth sample."""
    labels = np.arange(N) % K
    attributes = np.where(np.arange(N) % 10 == 0, (labels + 1) % K, labels)
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 6, 6, 1))
    return datasets.from_arrays(images.copy(), labels, attributes, test_fraction=0.2)


@pytest.fixture
def find(data, monkeypatch):
    """Return `find(make)`, in which `weights.choose` returns `make(pool)`."""

    def find(make, data=data, **options):
        def choose(key, pool, *, strategy, report):
            report(3, 3)
            return make(pool)

        monkeypatch.setattr(weights, "choose", choose)
        return bias.find(data, **options)

    return find


def by_features(pool):
    """Return a choice by features in which the darkest sample of each class conflicts."""
    labels, brightness = np.asarray(pool.labels), np.asarray(pool.images).mean((1, 2, 3))
    darkest = [np.where(labels == k, brightness, 999).argmin() for k in range(K)]
    return with_conflicts(pool, np.isin(np.arange(len(labels)), darkest))


def with_conflicts(pool, conflicts):
    own = np.array(SHORTCUTS["tone"].blocks)[np.asarray(pool.labels)]
    groups = np.eye(2)[np.where(conflicts, 1 - own, own)]
    features = {"tone": weights.FeatureWeights(pool.weights, groups, own)}
    return weights.Choice(pool.weights, None, [], 0, {}, None, SHORTCUTS, features)


def by_density(pool):
    candidate = dict(encoder_steps=30, bandwidth=0.2, temperature=1.0, evenness=0.9)
    log_density = np.asarray(pool.images).mean((1, 2, 3)) / 255
    density = weights.DensityWeights(pool.weights, log_density, None, None, None)
    trials = {name: weights.Trial(0.9, 0.9, 0.5, 40) for name in ("uniform", "best")}
    return weights.Choice(pool.weights, density, [candidate], 0, trials, None)


def no_bias(pool):
    return by_density(pool)._replace(density=None, rejection="no gain", shortcuts=SHORTCUTS)


def untested(pool):
    return no_bias(pool)._replace(shortcuts={})


@pytest.mark.parametrize(
    "make, headline, pictures",
    [
        (by_features, "a bias in the tone of the images", 2),
        (by_density, "a bias that is learned before the classes", 2),
        (no_bias, "no bias detected", 0),
        (untested, "no bias detected, but the shortcut test was not possible", 0),
    ],
)
def test_the_page_shows_the_finding(make, headline, pictures, data, find, tmp_path):
    calls = []
    finding = find(make, progress=lambda *progress: calls.append(progress))
    assert calls == [(3, 3)] and bias.headline(finding) == headline
    bias_page.write(tmp_path / "page.html", finding, data)
    page = (tmp_path / "page.html").read_text()
    assert f"<h1>{data.name}: {headline}</h1>" in page and page.count("<img") == pictures
    assert (finding.auc is None) == (pictures == 0)
    assert ("z-score" in page) == (make in (by_features, no_bias))
    assert ("no gain" in page) == (make in (no_bias, untested))


@pytest.mark.parametrize("make", [by_features, by_density])
def test_the_largest_conflict_score_is_that_of_the_darkest_sample(make, data, find):
    """By features, the darkest sample of a class conflicts; by density, it is the least dense."""
    finding = find(make)
    labels = data.train.labels[finding.samples]
    for k in range(K):
        members = np.flatnonzero(labels == k)
        largest = finding.samples[members[finding.conflict_score[members].argmax()]]
        of_class = np.flatnonzero(data.train.labels == k)
        assert largest == of_class[data.train.images[of_class].mean((1, 2, 3)).argmin()]


def test_the_area_under_the_curve_uses_the_bias_labels(data, find):
    def perfect(pool):
        conflicts = np.isin(np.asarray(pool.images)[:, 0, 0, 0], np.arange(0, N, 10))
        return with_conflicts(pool, conflicts)

    assert find(perfect).auc == {"all": 1}
    unlabelled = datasets.from_arrays(*data.train[:2], test_fraction=0.2)
    assert find(perfect, unlabelled).auc is None


def test_every_class_contributes_its_share_of_samples(data, find):
    finding = find(no_bias, max_samples=12)
    counts = np.bincount(data.train.labels[finding.samples])
    expected = np.ceil(np.bincount(data.train.labels) * 12 / len(data.train.labels))
    np.testing.assert_array_equal(counts, expected)
    again, other = (find(no_bias, max_samples=12, seed=seed).samples for seed in (0, 1))
    np.testing.assert_array_equal(finding.samples, again)
    assert not np.array_equal(finding.samples, other)
