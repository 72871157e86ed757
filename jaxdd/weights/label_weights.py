"""Weights from the bias labels of a few samples.

A few dozen bias labels are too few to train a classifier of the bias attribute, but they can select
and calibrate classifiers that need no bias labels. These are probes that are fitted to the classes,
with a loss that ignores exceptions, and predict the class that a sample resembles
(`candidates.feature_probabilities`). If most samples of each class share an attribute, the class
that a sample resembles predicts its attribute.

`to_label` returns the samples whose labels help most, `from_labels` turns labels into weights.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.typing import ArrayLike

from jaxdd import _checks, augment, sampling
from jaxdd.weights import blind_features, contrastive, feature_weights, formulas
from jaxdd.weights.candidates import DENSITY, EMBEDDING, Candidate, feature_probabilities

_CONFLICT = 0.1  # Prior share of bias-conflicting samples.
_MIN_PROBABILITY = 1e-5  # Added to the probability of each attribute.
_MIN_LIKELIHOOD = 1e-3  # Added to the likelihood of each label, which may be wrong.
_MAX_COEFFICIENT = 3.0
_PENALTY = 10.0  # Of the squared distance from coefficients 1 (selected features) and 0 (others).
_MIN_GAIN = 5.0  # Minimum gain of the log-likelihood of all labels, in nats.
_MIN_SHARE = 0.25  # Minimum gain as a share of the largest possible gain.


class Gain(NamedTuple):
    """How much better bias labels are predicted with features than without.

    Attributes:
        nats: gain of the log-likelihood of all labels.
        share: the gain divided by the largest possible gain (McFadden's pseudo-R²); 1 if the
            features predict all labels with certainty.
    """

    nats: float
    share: float


class LabelWeights(NamedTuple):
    """Weights from the bias labels of a few samples.

    Attributes:
        weights: `[n]`, each class sums to one; uniform if `rejection` is not None.
        groups: `[n, a]` probabilities of the attributes; those of labelled samples are 0 and 1.
        own_attribute: `[k]` the majority attribute of each class.
        features: name of the selected features.
        coefficients: for each kind of features, the coefficient of its log-likelihoods in `groups`.
        gains: gain of each kind of features alone.
        num_labels: number of labels.
        num_conflicting: number of labelled samples without the own attribute of their class.
        unlabelled_classes: classes without labels. Their own attribute is that of the classes that
            their samples resemble.
        unbalanced: attributes that occur in labels but are not the own attribute of any class.
            Nothing predicts them, so unlabelled samples count as members of the group that they
            resemble.
        rejection: why the weights are uniform, or None.
    """

    weights: jax.Array
    groups: jax.Array
    own_attribute: np.ndarray
    features: str
    coefficients: Mapping[str, float]
    gains: Mapping[str, Gain]
    num_labels: int
    num_conflicting: int
    unlabelled_classes: tuple[int, ...]
    unbalanced: tuple[int, ...]
    rejection: str | None

    def record(
        self, class_names: Sequence[str] = (), attribute_names: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the result without its arrays, for JSON, with names where there are any."""
        class_name = lambda c: class_names[c] if class_names else str(c)
        attribute_name = lambda a: attribute_names[a] if attribute_names else str(a)
        return {
            "features": self.features,
            "rejection": self.rejection,
            "labels": self.num_labels,
            "conflicting": self.num_conflicting,
            "own_attribute": {
                class_name(c): attribute_name(a) for c, a in enumerate(self.own_attribute.tolist())
            },
            "unlabelled_classes": [class_name(c) for c in self.unlabelled_classes],
            "unbalanced": [attribute_name(a) for a in self.unbalanced],
            "coefficients": dict(self.coefficients),
            "gains": {name: gain._asdict() for name, gain in self.gains.items()},
        }


# --- which samples to label ----------------------------------------------------------------------


def to_label(
    key: jax.Array, candidates: Sequence[Candidate], labels: ArrayLike, *, count: int
) -> np.ndarray:
    """Return the samples whose bias labels help `from_labels` most, indices `[count]`.

    First comes one typical sample of each class. Then three samples with a high bias-conflict score
    alternate with one random sample. The samples with high scores cycle through all kinds of
    features and all classes. So the first samples are useful without the rest. If there are more
    classes than half of `count`, half of `count` classes are drawn at random.

    Args:
        key: random key.
        candidates: kinds of features with the scores of all samples. Those of "density" are used
            only without others, because `from_labels` does not use density.
        labels: `[n]` classes.
        count: number of samples; all n if there are fewer.
    """
    _checks.concrete("weights.to_label", key, labels)
    count = _checks.count("count", count)
    labels = np.asarray(_checks.integers("labels", labels, 2**31 - 1))
    named = {x.name: np.asarray(x.conflict_score) for x in candidates}
    scores = [score for name, score in named.items() if name != DENSITY] or list(named.values())
    if not scores or any(score.shape != labels.shape for score in scores):
        shapes = [score.shape for score in scores]
        raise ValueError(
            f"candidates must have conflict scores of shape {labels.shape}, got {shapes}."
        )
    order = np.asarray(jax.random.permutation(key, len(labels)))
    present, first = np.unique(labels[order], return_index=True)
    classes = present[np.argsort(first)][: (count + 1) // 2]
    members = [order[labels[order] == c] for c in classes]
    highest = _highest_rank(scores, labels)
    chosen = dict.fromkeys(_most_typical(rows, highest) for rows in members)
    conflicting, drawn = _most_conflicting(scores, members), iter(order)
    for source in itertools.cycle((conflicting, conflicting, conflicting, drawn)):
        if len(chosen) >= min(count, len(labels)):
            return np.array(list(chosen)[:count], int)
        sample = next((i for i in source if i not in chosen), None)
        if sample is not None:
            chosen[sample] = None
    raise AssertionError  # the cycle does not end


def _highest_rank(scores, labels):
    """Return the highest rank that any score gives a sample within its class, `[n]` in (0, 1)."""
    count = np.bincount(labels)
    start = np.cumsum(count) - count
    ranks = [np.argsort(np.lexsort((score, labels))) - start[labels] + 0.5 for score in scores]
    return np.max(ranks, 0) / count[labels]


def _most_typical(rows, highest):
    """Return the first of the `rows` of a class that is in its least conflicting fifth."""
    lowest = np.argsort(highest[rows], kind="stable")[: max(1, len(rows) // 5)]
    return int(rows[lowest.min()])


def _most_conflicting(scores, members) -> Iterator[int]:
    """Yield samples with high scores, cycling through the scores and the classes."""
    queues = [
        [iter(rows[np.argsort(-score[rows], kind="stable")].tolist()) for rows in members]
        for score in scores
    ]
    s, k = len(scores), len(members)
    for turn in range(s * k * max(map(len, members))):
        # Each score starts with another class, so that no score always meets the same classes.
        which, position = turn % s, turn // s + turn % s * k // s
        yield from itertools.islice(queues[which][position % k], 1)


# --- from labels to weights ----------------------------------------------------------------------


def from_labels(
    key: jax.Array,
    pool: sampling.Pool,
    indices: ArrayLike,
    attributes: ArrayLike,
    *,
    strategy: augment.Strategy,
    num_attributes: int | None = None,
    encoder: contrastive.Encoder | None = None,
    embeddings: Mapping[str, ArrayLike] = {},
    exclude: Sequence[str] = (),
    probabilities: Mapping[str, ArrayLike] | None = None,
    clip: float | None = None,
) -> LabelWeights:
    """Balance the bias groups that features predict; a few bias labels select the features.

    The own attribute of a class is the majority attribute of its labels. Samples with a high
    bias-conflict score hardly count in this vote, because `to_label` prefers them. The probability
    of an attribute is the probability that a sample resembles a class with this own attribute. The
    features that make the labels most likely are selected. The log-likelihoods of other features
    are added with coefficients that are fitted to the labels, with a penalty that keeps them near
    zero. Labelled samples are in the groups of their labels.

    The labels are rejected, and the weights are uniform, if no features predict the labels well
    enough: the log-likelihood must rise by at least five nats, and by at least a quarter of the
    largest possible gain. They are also rejected if no labelled sample is bias-conflicting, or if
    all classes have the same own attribute.

    This function runs on the host and cannot be transformed by JAX.

    Args:
        key: random key for the encoder and the folds.
        pool: the samples; their weights are ignored.
        indices: `[m]` labelled samples, all different.
        attributes: `[m]` bias labels, integers in [0, num_attributes), of two values at least.
        strategy: augmentation of the encoder; it must preserve the class.
        num_attributes: a. Defaults to the largest label plus one.
        encoder: network to train for "embedding". Defaults to `default_encoder`.
        embeddings: embeddings of the user by name, `[n, d]`, which are used as further features.
        exclude: names of features that are the object. They are not used.
        probabilities: out-of-fold probabilities of the classes by name of the features, `[n, k]`.
            Defaults to `feature_probabilities` of all features but the excluded ones.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
    """
    formulas.check_limit("clip", clip)
    _checks.concrete("weights.from_labels", key, pool, indices, attributes)
    n, k, labels = len(pool.labels), pool.num_classes, np.asarray(pool.labels)
    indices = np.asarray(_checks.integers("indices", indices, n))
    a = 2**16 if num_attributes is None else num_attributes
    attributes = np.asarray(_checks.integers("attributes", attributes, a, length=len(indices)))
    values = np.unique(attributes)
    if len(values) < 2:
        raise ValueError(f"attributes must have at least two values, got {values.tolist()}.")
    repeated = np.flatnonzero(np.bincount(indices) > 1)
    if len(repeated):
        raise ValueError(f"indices must be different, got {repeated[0]} more than once.")
    a = int(values[-1]) + 1 if num_attributes is None else num_attributes
    if probabilities is None:
        known = [*blind_features.NAMED, EMBEDDING, *embeddings]
        names = [name for name in known if name not in exclude]
        if not names:
            raise ValueError(f"exclude must not have all features, got {', '.join(exclude)}.")
        options: dict[str, Any] = dict(strategy=strategy, encoder=encoder, embeddings=embeddings)
        probabilities = feature_probabilities(key, pool, names, **options)
    probabilities = {name: _class_probabilities(name, p, n, k) for name, p in probabilities.items()}
    scores = [_conflict_score(p, labels) for p in probabilities.values()]
    typicality = 1 - _highest_rank(scores, labels)
    votes = np.zeros((k, a))
    np.add.at(votes, (labels[indices], attributes), typicality[indices])
    return _from_votes(pool, indices, attributes, votes, probabilities, clip)


def _class_probabilities(name, probabilities, n, k):
    array = np.asarray(_checks.floating(f"probabilities of {name}", probabilities))
    if array.shape != (n, k):
        raise ValueError(f"probabilities of {name} must have shape {(n, k)}, got {array.shape}.")
    return _checks.nonnegative(f"probabilities of {name}", array)


def _conflict_score(probabilities, labels):
    own = jnp.asarray(labels)
    groups = feature_weights.posterior(jnp.asarray(probabilities, float), own)
    return np.asarray(feature_weights.conflict_score(groups, own))


def _from_votes(pool, indices, attributes, votes, probabilities, clip):
    """Return the weights, given the votes for the own attribute of each class, `[k, a]`."""
    labels, (k, a) = np.asarray(pool.labels), votes.shape
    labelled = votes.sum(1) > 0
    owned = np.unique(votes[labelled].argmax(1))  # the attributes that are balanced, b
    own, log_likelihood = {}, {}
    for name, p in probabilities.items():
        own[name] = _own_groups(p, votes[:, owned], labelled, labels)
        log_likelihood[name] = _log_likelihood(p, own[name], labels, len(owned))
    # Labelled samples are in labelled classes, whose own groups do not depend on the features.
    own_group = next(iter(own.values()))[labels[indices]]
    used = np.isin(attributes, owned)
    rows, codes = indices[used], np.searchsorted(owned, attributes[used])
    evidence = [log_likelihood[name][rows] for name in probabilities]
    gains = dict(zip(probabilities, _gains(evidence, own_group[used], codes), strict=True))
    best = max(gains, key=lambda name: gains[name].nats)
    coefficients = _coefficients(
        np.stack(evidence, -1), own_group[used], codes, list(probabilities).index(best)
    )
    total = sum(c * x for c, x in zip(coefficients, log_likelihood.values(), strict=True))
    groups = np.zeros((len(labels), a))
    groups[:, owned] = np.exp(_log_posterior(total, own[best][labels], _CONFLICT))
    groups[rows] = np.eye(a)[attributes[used]]
    conflicting = int((owned[own_group] != attributes).sum())
    classes = dict(num_classes=k)
    reason = _rejection(gains[best], best, len(indices), conflicting, owned)
    if reason is None:
        weights = formulas.balance_groups(pool.labels, jnp.asarray(groups, float), **classes)
        weights = formulas.clip(weights, pool.labels, limit=clip, **classes)
    else:
        weights = formulas.uniform(pool.labels, **classes)
    return LabelWeights(
        weights, jnp.asarray(groups, float), owned[own[best]], best,
        dict(zip(probabilities, coefficients.tolist(), strict=True)), gains, len(indices),
        conflicting, tuple(np.flatnonzero(~labelled).tolist()),
        tuple(np.setdiff1d(attributes, owned).tolist()), reason,
    )  # fmt: skip


def _own_groups(probabilities, votes, labelled, labels):
    """Return the own group of each class `[k]`, for classes without labels by resemblance."""
    own = votes.argmax(1)
    if labelled.all():
        return own
    members = np.eye(votes.shape[1], dtype=probabilities.dtype)[own] * labelled[:, None]
    size = np.bincount(labels, minlength=len(votes)) @ members
    resemblance = np.zeros(votes.shape)
    np.add.at(resemblance, labels, probabilities @ members / np.maximum(size, 1))
    return np.where(labelled, own, resemblance.argmax(1))


def _log_likelihood(probabilities, own, labels, count):
    """Return the log likelihood of each group, up to a constant per sample, `[n, b]`.

    The probability of a group is that of its classes; divided by their size it is a likelihood.
    """
    members = np.eye(count, dtype=probabilities.dtype)[own]
    size = np.bincount(labels, minlength=len(own)) @ members
    return np.log((probabilities @ members + _MIN_PROBABILITY) / np.maximum(size, 1))


def _log_posterior(log_likelihood, own_group, conflict):
    """Return log probabilities of the groups `[n, b]`, given the share of conflicting samples."""
    b = log_likelihood.shape[1]
    is_own = np.arange(b)[None] == own_group[:, None]
    prior = np.where(is_own, np.log(1 - conflict), np.log(conflict / max(b - 1, 1)))
    return scipy.special.log_softmax(log_likelihood + prior, 1)


def _score(log_likelihood, own_group, codes, conflict):
    """Return the log likelihood of the labels, robust to wrong ones."""
    posterior = np.exp(_log_posterior(log_likelihood, own_group, conflict))
    return float(np.log(posterior[np.arange(len(codes)), codes] + _MIN_LIKELIHOOD).sum())


# The share of conflicting samples among labelled ones is not that of all samples, because
# `to_label` prefers high scores. It is fitted both with and without the features. A factor of the
# log-likelihoods is fitted as well, because probes are overconfident. Features that show nothing
# then gain nothing.
def _gains(evidence, own_group, codes):
    """Return the gain of each kind of features."""

    def fit(x, bounds):
        loss = lambda p: -_score(p[0] * x, own_group, codes, scipy.special.expit(p[1]))
        starts = [(bounds[0][1] * start, -1.0) for start in (0.05, 0.3)]
        results = [scipy.optimize.minimize(loss, start, bounds=bounds) for start in starts]
        return -min(result.fun for result in results)

    logit = (-7.0, 3.0)  # conflicting shares of 0.001 to 0.95
    without = fit(np.zeros_like(evidence[0]), [(0.0, 0.0), logit])
    gains = []
    for x in evidence:
        gain = max(fit(x, [(0.0, _MAX_COEFFICIENT), logit]) - without, 0.0)
        gains.append(Gain(gain, gain / max(-without, gain, _MIN_LIKELIHOOD)))
    return gains


def _coefficients(evidence, own_group, codes, best):
    """Return the coefficients of the features, near 1 for the best and near 0 for the others."""
    centre = np.zeros(evidence.shape[-1])
    centre[best] = 1

    def loss(coefficients):
        fit = _score(evidence @ coefficients, own_group, codes, _CONFLICT)
        return _PENALTY * ((coefficients - centre) ** 2).sum() - fit

    bounds = [(0.0, _MAX_COEFFICIENT)] * len(centre)
    return scipy.optimize.minimize(loss, centre, bounds=bounds).x


def _rejection(gain, name, count, conflicting, owned):
    """Return why weights by the best features are rejected, or None."""
    if len(owned) == 1:
        return "the majority attribute of the labelled samples is the same in every class"
    if not conflicting:
        return f"none of the {count} labelled samples is bias-conflicting"
    if gain.share < _MIN_SHARE or gain.nats < _MIN_GAIN:
        return (
            f"{count} labels, {conflicting} of them bias-conflicting, do not show that any "
            f"features predict the attribute: the best, {name}, have a pseudo-R² of "
            f"{gain.share:.2f} and raise the log-likelihood by {gain.nats:.1f}; at least "
            f"{_MIN_SHARE} and {_MIN_GAIN:g} are required"
        )
    return None
