"""What is said of a data set: by a view, by density, or nothing; the choice itself is faked."""

import numpy as np
import pytest

from jaxdd import weights
from jaxdd.data import datasets
from jaxdd.runs.reports import bias_page
from jaxdd.weights import probes

N, K = 60, 3
TOLD = {"tone": probes.Shortcut((0, 0, 1), 0.1, 0.2, 5.0)}


@pytest.fixture
def data():
    """Image i is i everywhere; the attribute is the class but for every tenth sample."""
    labels = np.arange(N) % K
    attributes = np.where(np.arange(N) % 10 == 0, (labels + 1) % K, labels)
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 6, 6, 1))
    return datasets.from_arrays(images.copy(), labels, attributes, test_fraction=0.2)


def choosing(monkeypatch, make):
    """Has `choose` return what `make(pool)` does."""

    def choose(key, pool, *, strategy, report):
        report(3, 3)
        return make(pool)

    monkeypatch.setattr(weights, "choose", choose)


def by_view(pool):
    """A head that is sure of the block for all but the darkest sample of each class."""
    blocks = np.array(TOLD["tone"].blocks)[np.asarray(pool.labels)]
    dark = np.asarray(pool.images).mean((1, 2, 3))
    darkest = [np.where(np.asarray(pool.labels) == k, dark, 999).argmin() for k in range(K)]
    blocks[darkest] = 1 - blocks[darkest]
    return seeing(pool, np.eye(2)[blocks])


def seeing(pool, groups):
    own = np.array(TOLD["tone"].blocks)[np.asarray(pool.labels)]
    seen = {"tone": weights.FeatureWeights(pool.weights, groups, own)}
    return weights.Choice(pool.weights, None, [], 0, {}, None, TOLD, seen)


def by_density(pool):
    values = dict(encoder_steps=30, bandwidth=0.2, temperature=1.0, evenness=0.9)
    log_density = np.asarray(pool.images).mean((1, 2, 3)) / 255
    weighed = weights.DensityWeights(pool.weights, log_density, None, None, None)
    trials = {name: weights.Trial(0.9, 0.9, 0.5, 40) for name in ("uniform", "best")}
    return weights.Choice(pool.weights, weighed, [values], 0, trials, None)


def unseen(pool):
    return nothing(pool)._replace(shortcuts={})


def nothing(pool):
    return by_density(pool)._replace(density=None, rejection="chance", shortcuts=TOLD)


@pytest.mark.parametrize(
    "make, headline, pictures",
    [
        (by_view, "a bias in the tone of the images", 2),
        (by_density, "a bias that is learnt before the classes", 2),
        (nothing, "no bias found", 0),
        (unseen, "no bias found, though no view of the images was compared", 0),
    ],
)
def test_what_was_found_is_said_and_drawn(make, headline, pictures, data, monkeypatch, tmp_path):
    choosing(monkeypatch, make)
    calls = []
    found = bias_page.find(data, progress=lambda *at: calls.append(at))
    assert calls == [(3, 3)] and bias_page.headline(found) == headline
    bias_page.write(tmp_path / "page.html", found, data)
    page = (tmp_path / "page.html").read_text()
    assert f"<h1>{data.name}: {headline}</h1>" in page and page.count("<img") == pictures
    assert (found.auc is None) == (pictures == 0)
    assert "standard errors" in page or make in (by_density, unseen)


def test_the_surest_conflicts_come_first(data, monkeypatch):
    """The darkest of each class conflict, by the view; by density the least dense."""
    for make in (by_view, by_density):
        choosing(monkeypatch, make)
        found = bias_page.find(data)
        labels = data.train.labels[found.samples]
        for k in range(K):
            own = np.flatnonzero(labels == k)
            surest = found.samples[own[found.doubt[own].argmax()]]
            darkest = np.flatnonzero(data.train.labels == k)
            brightness = data.train.images[darkest].mean((1, 2, 3))
            assert surest == darkest[brightness.argmin()]


def test_the_area_under_the_curve_is_that_of_the_attributes(data, monkeypatch):
    def told(pool):
        conflicts = np.isin(np.asarray(pool.images)[:, 0, 0, 0], np.arange(0, N, 10))
        own = np.array(TOLD["tone"].blocks)[np.asarray(pool.labels)]
        return seeing(pool, np.eye(2)[np.where(conflicts, 1 - own, own)])

    choosing(monkeypatch, told)
    assert bias_page.find(data).auc == 1
    unknown = datasets.from_arrays(*data.train[:2], test_fraction=0.2)
    assert bias_page.find(unknown).auc is None


def test_of_a_large_set_each_class_gives_its_share(data, monkeypatch):
    choosing(monkeypatch, nothing)
    found = bias_page.find(data, most=12)
    counts = np.bincount(data.train.labels[found.samples])
    expected = np.ceil(np.bincount(data.train.labels) * 12 / len(data.train.labels))
    np.testing.assert_array_equal(counts, expected)
    assert not np.array_equal(found.samples, bias_page.find(data, most=12, seed=1).samples)
    np.testing.assert_array_equal(found.samples, bias_page.find(data, most=12).samples)
