"""Which samples to label, and weights from a few bias labels, on probabilities that are known."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import sampling, weights
from jaxdd.weights import formulas, label_weights

KEY = jax.random.key(0)


def make_pool(labels):
    images = np.zeros((len(labels), 4, 4, 1), np.uint8)
    moments = dict(mean=(0.5,), std=(0.5,))
    return sampling.pool(images, labels, num_classes=int(max(labels)) + 1, **moments)


def candidate(name, score):
    return types.SimpleNamespace(name=name, conflict_score=jnp.asarray(score))


def biased(n=400, k=4, conflict=0.1, seed=0):
    """Return classes, attributes with one value per class, and probabilities of two feature sets.

    "seeing" shows the attribute with some noise, "blind" shows nothing.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    others = (labels + rng.integers(1, k, n)) % k
    attributes = np.where(rng.random(n) < conflict, others, labels)
    seeing = np.full((n, k), 0.04 / (k - 1))
    seeing[np.arange(n), attributes] = 0.96
    unsure = rng.random(n) < 0.2
    seeing[unsure] = rng.dirichlet(np.ones(k), unsure.sum())
    blind = rng.dirichlet(np.full(k, 5.0), n)
    return labels, attributes, {"blind": blind, "seeing": seeing}


LABELS, ATTRIBUTES, PROBABILITIES = biased()
POOL = make_pool(LABELS)
SCORES = {name: 1 - p[np.arange(400), LABELS] for name, p in PROBABILITIES.items()}
CANDIDATES = [candidate(name, score) for name, score in SCORES.items()]


ALL_FEATURES = [*weights.blind_features.NAMED, "embedding"]


def from_labels(indices, attributes, pool=POOL, probabilities=PROBABILITIES, **options):
    options = dict(strategy=(), probabilities=probabilities) | options
    return weights.from_labels(KEY, pool, indices, attributes, **options)


# --- which samples to label ----------------------------------------------------------------------


def test_typical_samples_come_first_and_then_those_with_high_scores():
    chosen = weights.to_label(KEY, CANDIDATES, LABELS, count=20)
    assert len(set(chosen.tolist())) == 20
    assert sorted(LABELS[chosen[:4]]) == [0, 1, 2, 3]
    for score in SCORES.values():
        for i in chosen[:4]:
            own = score[LABELS == LABELS[i]]
            assert np.mean(own < score[i]) < 0.5
    # Three with a high score, by one or the other features, and then a random one.
    conflicting = np.delete(np.arange(4, 20), np.arange(3, 16, 4))
    rank = lambda score, i: int(np.sum(score[LABELS == LABELS[i]] > score[i]))
    best = [min(rank(score, i) for score in SCORES.values()) for i in chosen[conflicting]]
    assert max(best) <= 2
    assert {int(x) for x in LABELS[chosen[conflicting]]} == {0, 1, 2, 3}
    by_seeing = sum(rank(SCORES["seeing"], i) <= 2 for i in chosen[conflicting])
    assert 4 <= by_seeing <= 8


def test_more_samples_only_continue_the_list():
    """Someone who stops early has labelled the most useful samples."""
    few, many = (weights.to_label(KEY, CANDIDATES, LABELS, count=count) for count in (20, 50))
    np.testing.assert_array_equal(few, many[:20])


def test_fewer_samples_than_classes():
    labels = np.arange(3000) % 1000
    scores = np.random.default_rng(0).random(3000)
    chosen = weights.to_label(KEY, [candidate("tone", scores)], labels, count=15)
    assert len(set(chosen)) == 15
    assert len(set(labels[chosen[:8]])) == 8
    assert {*labels[chosen[8:11]]} <= {*labels[chosen[:8]]}  # of the classes with typical samples


def test_no_more_than_all_samples():
    labels = np.array([0, 0, 2, 2, 2])
    scores = np.zeros(5)
    chosen = weights.to_label(KEY, [candidate("tone", scores)], labels, count=20)
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4]
    assert weights.to_label(KEY, [candidate("tone", scores)], labels, count=1).shape == (1,)


def test_density_asks_only_without_other_candidates():
    ranks = candidate("density", np.linspace(0, 1, 400))
    chosen = weights.to_label(KEY, [*CANDIDATES, ranks], LABELS, count=30)
    np.testing.assert_array_equal(chosen, weights.to_label(KEY, CANDIDATES, LABELS, count=30))
    assert 399 in weights.to_label(KEY, [ranks], LABELS, count=30)


@pytest.mark.parametrize(
    "change, value",
    [
        (dict(count=0), "got 0"),
        (dict(candidates=[]), r"\(400,\)"),
        (dict(candidates=[candidate("tone", np.zeros(3))]), r"\(3,\)"),
    ],
)
def test_bad_candidates_are_rejected(change, value):
    with pytest.raises(ValueError, match=value):
        weights.to_label(KEY, **(dict(candidates=CANDIDATES, labels=LABELS, count=5) | change))


# --- weights from labels -------------------------------------------------------------------------


def test_labels_select_the_features_that_show_the_attribute():
    chosen = weights.to_label(KEY, CANDIDATES, LABELS, count=40)
    result = from_labels(chosen, ATTRIBUTES[chosen])
    assert result.rejection is None and result.features == "seeing"
    assert result.own_attribute.tolist() == [0, 1, 2, 3]
    assert result.gains["blind"].share < 0.2 < 0.5 < result.gains["seeing"].share <= 1
    assert result.coefficients["blind"] < 0.3
    assert result.num_conflicting == int((LABELS != ATTRIBUTES)[chosen].sum())
    np.testing.assert_array_equal(result.groups[chosen], np.eye(4)[ATTRIBUTES[chosen]])
    np.testing.assert_allclose(result.groups.sum(1), 1, rtol=1e-5)
    sizes = dict(num_classes=4, num_attributes=4)
    evenness = lambda w: float(formulas.group_evenness(w, LABELS, ATTRIBUTES, **sizes))
    assert evenness(result.weights) > 0.85 > 0.6 > evenness(POOL.weights)
    clipped = from_labels(chosen, ATTRIBUTES[chosen], clip=1.5).weights
    assert float(clipped.max()) <= 1.5 / 100 * (1 + 1e-5) < float(result.weights.max())


def test_features_that_show_nothing_are_rejected():
    chosen = weights.to_label(KEY, CANDIDATES, LABELS, count=60)
    blind = {"blind": PROBABILITIES["blind"]}
    result = from_labels(chosen, ATTRIBUTES[chosen], probabilities=blind)
    assert "blind" in result.rejection and "60 labels" in result.rejection
    np.testing.assert_array_equal(result.weights, formulas.uniform(LABELS, num_classes=4))


def test_few_conflicting_labels_are_no_evidence():
    aligned = np.flatnonzero(LABELS == ATTRIBUTES)[:12]
    conflicting = np.flatnonzero(LABELS != ATTRIBUTES)[:1]
    assert "12" in from_labels(aligned, ATTRIBUTES[aligned]).rejection
    chosen = np.concatenate([aligned, conflicting])
    assert "13 labels, 1 of them" in from_labels(chosen, ATTRIBUTES[chosen]).rejection


def test_samples_with_high_scores_do_not_decide_the_own_attribute():
    """In class 0, nine conflicting labels outnumber two aligned ones."""
    conflicting = np.flatnonzero((LABELS == 0) & (ATTRIBUTES != 0) & (SCORES["seeing"] > 0.9))[:9]
    attributes = np.full(9, 1)
    aligned = np.flatnonzero((LABELS == ATTRIBUTES) & (SCORES["seeing"] < 0.1))[:12]
    probabilities = {"seeing": PROBABILITIES["seeing"]}
    result = from_labels(
        np.concatenate([conflicting, aligned]), np.concatenate([attributes, ATTRIBUTES[aligned]]),
        probabilities=probabilities,
    )  # fmt: skip
    assert result.own_attribute.tolist() == [0, 1, 2, 3]


def test_classes_that_share_an_attribute():
    """Classes 0 and 1 are mostly grey, 2 and 3 mostly coloured; class 3 has no label."""
    labels, attributes, probabilities = biased(k=2, n=400)
    four = 2 * labels + np.arange(400) // 2 % 2
    # A class is not visible, only its attribute.
    p = {name: np.repeat(x, 2, axis=1) / 2 for name, x in probabilities.items()}
    chosen = np.flatnonzero(four != 3)[:60]
    result = from_labels(chosen, attributes[chosen], make_pool(four), p)
    assert result.own_attribute.tolist() == [0, 0, 1, 1]
    assert result.unlabelled_classes == (3,) and result.rejection is None
    sizes = dict(num_classes=4, num_attributes=2)
    assert formulas.group_evenness(result.weights, four, attributes, **sizes) > 0.85


def test_an_attribute_of_no_class_is_reported_and_not_balanced():
    chosen = weights.to_label(KEY, CANDIDATES, LABELS, count=60)
    attributes = ATTRIBUTES[chosen].copy()
    rare = np.flatnonzero(attributes != LABELS[chosen])[:2]
    attributes[rare] = 5
    result = from_labels(chosen, attributes, num_attributes=7)
    assert result.unbalanced == (5,) and result.groups.shape == (400, 7)
    assert float(result.groups[:, 4:].max()) == 0
    assert float(result.weights[chosen[rare]].min()) > 0
    assert result.record(attribute_names="abcdefg")["unbalanced"] == ["f"]


def test_one_own_attribute_for_all_classes_leaves_nothing_to_balance():
    attributes = np.zeros(20, int)
    attributes[3] = 1
    result = from_labels(np.arange(20), attributes)
    assert "every class" in result.rejection


def test_record_is_json_with_names():
    chosen = weights.to_label(KEY, CANDIDATES, LABELS, count=40)
    record = from_labels(chosen, ATTRIBUTES[chosen]).record(
        "abcd", ("red", "blue", "grey", "green")
    )
    own = {"a": "red", "b": "blue", "c": "grey", "d": "green"}
    assert record["own_attribute"] == own and record["labels"] == 40
    assert record["gains"]["seeing"]["nats"] > 5


def test_probabilities_are_computed_from_images_and_embeddings():
    """The attribute is visible in an embedding only."""
    onehot = np.eye(4, dtype=np.float32)[ATTRIBUTES]
    chosen = weights.to_label(KEY, CANDIDATES, LABELS, count=40)
    options = dict(probabilities=None, embeddings={"mine": onehot}, encoder=None)
    result = from_labels(chosen, ATTRIBUTES[chosen], **options)
    assert result.features == "mine" and result.gains["tone"].share < 0.1
    oracle = weights.oracle(POOL, ATTRIBUTES, num_attributes=4)
    np.testing.assert_allclose(result.weights, oracle, rtol=0.1)
    excluded = from_labels(chosen, ATTRIBUTES[chosen], exclude=["mine", "tone"], **options)
    assert excluded.gains.keys() == result.gains.keys() - {"mine", "tone"} and excluded.rejection


@pytest.mark.parametrize(
    "indices, attributes, options, value",
    [
        ([0, 400], [0, 1], {}, "0..399"),
        ([0, 0], [0, 1], {}, "got 0"),
        ([0, 1], [2, 2], {}, r"got \[2\]"),
        ([0, 1], [0, 2], dict(num_attributes=2), "got 0..2"),
        ([0, 1], [0], {}, r"\(2,\)"),
        ([], [], {}, r"got \[\]"),
        ([0, 1], [0, 1], dict(clip=0.5), "0.5"),
        ([0, 1], [0, 1], dict(exclude=ALL_FEATURES, probabilities=None), "embedding"),
        ([0, 1], [0, 1], dict(probabilities={"tone": np.ones((400, 3))}), r"\(400, 3\)"),
    ],
)
def test_bad_labels_are_rejected(indices, attributes, options, value):
    with pytest.raises(ValueError, match=value):
        from_labels(np.array(indices, int), np.array(attributes, int), **options)


def test_gains_by_hand():
    """Four labels, one conflicting, whose features are certain: everything lacking is gained.

    Without features the best share of conflicting samples is 1/4, and the log-likelihood is
    3 ln(3/4) + ln(1/4) = -2.249, a little more with the tolerance of 0.001 for wrong labels.
    """
    evidence = np.log(np.array([[1, 1e-9], [1, 1e-9], [1e-9, 1], [1e-9, 1]]))
    own, codes = np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1])
    useless = np.zeros((4, 2))
    certain, nothing = label_weights._gains([evidence, useless], own, codes)
    assert certain.nats == pytest.approx(2.249, abs=0.02)
    assert certain.share == pytest.approx(1, abs=0.01)
    assert nothing.nats == pytest.approx(0, abs=1e-3)
