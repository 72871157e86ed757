"""Weights from object-blind features: predict each sample's bias group, then balance the groups.

`shortcuts` tests whether features that cannot show the object predict the classes better than
features that can. `by_features` weights the samples by the groups that such features show,
`from_probabilities` by those that any other out-of-fold classifier predicts.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import _checks, sampling
from jaxdd.devices import parallel
from jaxdd.weights import blind_features, formulas, probes

MIN_Z_SCORE = 3.0
"""Minimum z-score of the gain of object-blind features over their baseline."""

MIN_ACCURACY_GAIN = 0.01
"""Minimum gain in accuracy of these features; a smaller bias is not worth removing."""

_MIN_SAMPLES = 20  # Minimum number of samples for a shortcut test.
_MAX_SAMPLES = 15_000  # Maximum number of samples that a shortcut test uses.
# Maximum z-score of a first test on part of the samples that ends a test. Z-scores grow with the
# square root of the number of samples. A test that ends at 3 with 15,000 samples is expected to be
# at 3 / √3 = 1.7 with 5,000, with a standard error of 1, and so below -1 in 0.3 % of all cases.
_MAX_FIRST_Z = -1.0
_POWER = 0.7  # Power q of the generalised cross-entropy, see `probes.crossfit`.


class FeatureWeights(NamedTuple):
    """Weights from object-blind features.

    Attributes:
        weights: `[n]`, each class sums to one.
        groups: `[n, b]` probabilities of the bias groups, given the features and the label.
        own_group: `[n]` the bias group of most samples of the class.
    """

    weights: jax.Array
    groups: jax.Array
    own_group: jax.Array

    @property
    def conflict_score(self) -> jax.Array:
        """Bias-conflict score `[n]`: probability that a sample is not in its class's own group."""
        return conflict_score(self.groups, self.own_group)


def by_features(
    key: jax.Array,
    pool: sampling.Pool,
    features: blind_features.Features,
    *,
    blocks: Sequence[int] | None = None,
    conflict: float = 0.1,
    clip: float | None = None,
) -> FeatureWeights:
    """Balance the bias groups of each class as far as object-blind features show them.

    A cross-fitted linear probe predicts the class from the features, with a loss that ignores
    exceptions (`probes.crossfit`). The predicted class is a pseudo-label of the bias attribute:
    the features cannot show the object, so the probe can only have learned the bias attributes that
    are correlated with the class.

    Args:
        key: random key for the folds.
        pool: at least three samples; their weights are ignored.
        features: function from images to numbers, for example `blind_features.tone`.
        blocks: `[k]` block of each class, 0 to b - 1, for biases whose attribute several classes
            share; `probes.shortcut` detects them. Defaults to one block per class.
        conflict: prior share of bias-conflicting samples, between 0 and 1. Values of 0.02 to 0.2
            lead to similar weights.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
    """
    _check_groups(blocks, conflict, clip, pool.num_classes)
    if len(pool.labels) < 3:
        raise ValueError(f"by_features requires at least 3 samples, got {len(pool.labels)}.")
    compute = functools.partial(blind_features.compute, features=features)
    values = parallel.apply_by_rows(compute, pool.images)
    return by_values(key, pool, values, blocks=blocks, conflict=conflict, clip=clip)


def by_values(
    key: jax.Array,
    pool: sampling.Pool,
    values: jax.Array,
    *,
    blocks: Sequence[int] | None = None,
    conflict: float = 0.1,
    clip: float | None = None,
) -> FeatureWeights:
    """Balance the bias groups of each class as far as features show them, see `by_features`.

    Args:
        key: random key for the folds.
        pool: at least three samples; their weights are ignored.
        values: `[n, d]` features of the samples.
        blocks: `[k]` block of each class, 0 to b - 1. Defaults to one block per class.
        conflict: prior share of bias-conflicting samples, between 0 and 1.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
    """
    block = _check_groups(blocks, conflict, clip, pool.num_classes)
    own_group = jnp.asarray(block)[pool.labels]
    probabilities = predict_groups(key, values, own_group, num_groups=int(block.max()) + 1)
    return from_probabilities(probabilities, pool, blocks=blocks, conflict=conflict, clip=clip)


def predict_groups(
    key: jax.Array, values: jax.Array, labels: jax.Array, *, num_groups: int
) -> jax.Array:
    """Return out-of-fold probabilities of the groups `[n, b]` by a probe that ignores exceptions.

    Args:
        key: random key for the folds.
        values: `[n, d]` features.
        labels: `[n]` class or block of each sample, integers in [0, b).
        num_groups: b.
    """
    return probes.crossfit(key, values, labels, num_classes=num_groups, power=_POWER)


def from_probabilities(
    probabilities: jax.Array,
    pool: sampling.Pool,
    *,
    blocks: Sequence[int] | None = None,
    conflict: float = 0.1,
    clip: float | None = None,
) -> FeatureWeights:
    """Balance the bias groups of each class as far as out-of-fold probabilities show them.

    Args:
        probabilities: `[n, b]` of the classes or blocks, by a classifier that was not fitted to
            the sample, for example `probes.crossfit`.
        pool: the samples; their weights are ignored.
        blocks: `[k]` block of each class, 0 to b - 1; add up the probabilities of the classes of a
            block. Defaults to one block per class.
        conflict: prior share of bias-conflicting samples, between 0 and 1.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
    """
    block = _check_groups(blocks, conflict, clip, pool.num_classes)
    own_group, count = jnp.asarray(block)[pool.labels], int(block.max()) + 1
    probabilities = _checks.floating("probabilities", probabilities)
    _checks.nonnegative("probabilities", probabilities)
    if probabilities.shape != (len(own_group), count):
        raise ValueError(
            f"probabilities must have shape {(len(own_group), count)}, got {probabilities.shape}."
        )
    sums = _checks.values(probabilities.sum(1))
    if sums is not None and len(wrong := sums[abs(sums - 1) > 0.01]):
        raise ValueError(f"The probabilities of a sample must sum to 1, got {wrong[0]}.")
    groups = posterior(probabilities, own_group, conflict=conflict)
    return FeatureWeights(_balance(groups, pool, clip), groups, own_group)


# Bayes' rule with another prior. The prior of the classifier is the size of the blocks; divided by
# it, its probabilities are likelihoods of the groups. In the new prior, a sample is in the group of
# its own class with probability 1 - `conflict`. Features that show little then leave the weights
# nearly uniform.
def posterior(
    probabilities: jax.Array,
    own_group: jax.Array,
    *,
    conflict: float = 0.1,
    num_groups: jax.Array | int | None = None,
) -> jax.Array:
    """Return the probabilities of the bias groups `[n, b]`, given features and label.

    Args:
        probabilities: `[n, b]` of the groups by an out-of-fold classifier.
        own_group: `[n]` group of most samples of the class, integers in [0, b).
        conflict: prior share of bias-conflicting samples.
        num_groups: number of groups if only the first ones occur. Defaults to b.
    """
    count = probabilities.shape[1]
    others = max(count - 1, 1)
    if num_groups is not None:
        others = jnp.maximum(num_groups - 1, 1).astype(probabilities.dtype)
    size = jnp.maximum(jnp.bincount(own_group, length=count), 1).astype(probabilities.dtype)
    likelihood = probabilities / size[None]
    is_own = jnp.arange(count)[None] == own_group[:, None]
    groups = likelihood * jnp.where(is_own, 1 - conflict, conflict / others)
    return groups / groups.sum(1, keepdims=True)


def conflict_score(groups: jax.Array, own_group: jax.Array) -> jax.Array:
    """Return the probability `[n]` that a sample is not in its class's own group.

    Args:
        groups: `[n, b]` probabilities of the groups.
        own_group: `[n]` group of most samples of the class, integers in [0, b).
    """
    return 1 - jnp.take_along_axis(groups, own_group[:, None], 1)[:, 0]


def by_feature_sets(
    pool: sampling.Pool, sets: Sequence[FeatureWeights], *, clip: float | None = None
) -> jax.Array:
    """Return weights `[n]` that balance every combination of the groups of several feature sets.

    Use it for data with several biases that different features show. Combinations that are
    expected to have less than one sample weigh less, see `formulas.balance_groups`.

    Args:
        pool: the samples.
        sets: weights from `by_features`, at least one.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
    """
    formulas.check_limit("clip", clip)
    if not sets:
        raise ValueError("by_feature_sets requires at least one FeatureWeights, got none.")
    pair = lambda a, b: (a[:, :, None] * b[:, None]).reshape(len(a), -1)
    return _balance(functools.reduce(pair, [x.groups for x in sets]), pool, clip)


def _balance(groups, pool, clip):
    classes = dict(num_classes=pool.num_classes)
    weights = formulas.balance_groups(pool.labels, groups, **classes)
    return formulas.clip(weights, pool.labels, limit=clip, **classes)


def _check_groups(blocks, conflict, clip, num_classes) -> np.ndarray:
    """Return the block of each class after checking the options."""
    formulas.check_limit("clip", clip)
    if not np.finfo(np.float32).tiny <= conflict < 1:
        raise ValueError(f"conflict must lie between 0 and 1, got {conflict}.")
    block = np.arange(num_classes) if blocks is None else np.asarray(blocks)
    _checks.integers("blocks", block, num_classes, length=num_classes)
    if (np.bincount(block) == 0).any():
        raise ValueError(f"blocks must be 0 to b - 1 without gaps, got {block.tolist()}.")
    return block


def shortcuts(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    comparisons: Mapping[str, blind_features.Comparison] = blind_features.COMPARISONS,
    values: Mapping[str, jax.Array] = {},
    first: int | None = None,
) -> dict[str, probes.Shortcut]:
    """Test whether object-blind features predict the classes better than baseline features do.

    This function runs on the host and cannot be transformed by JAX.

    Args:
        key: random key for the samples, the baseline features and the folds.
        pool: the samples, of which at most 15,000 are used; their weights are ignored.
        comparisons: object-blind features and their baselines by name.
        values: `[n, d]` object-blind features by name, as far as they are already computed.
        first: number of samples of a first test, which saves time. Features that are clearly worse
            than their baseline in it are not tested on more samples. It is made if there are at
            least twice as many samples. None for no first test.

    Returns:
        The result of each test; empty for fewer than 20 samples, one class, or images
        with a side of less than four pixels.
    """
    _checks.concrete("weights.shortcuts", key, pool)
    k, n, side = pool.num_classes, len(pool.labels), min(pool.images.shape[1:3])
    if k < 2 or n < _MIN_SAMPLES or side < 4 or not comparisons:
        return {}
    key_samples, key_baseline, key_folds = jax.random.split(key, 3)
    order = jax.random.permutation(key_samples, n)[:_MAX_SAMPLES]
    test = functools.partial(_shortcuts, key_baseline, key_folds, pool, values)
    if first is None or len(order) < 2 * first:
        return test(jnp.sort(order), comparisons)
    tests = test(jnp.sort(order[:first]), comparisons)
    rest = {name: comparisons[name] for name, x in tests.items() if x.z_score > _MAX_FIRST_Z}
    return tests | test(jnp.sort(order), rest) if rest else tests


def _shortcuts(key_baseline, key_folds, pool, values, chosen, comparisons):
    """Return the results of the tests on some samples of the pool."""
    k = pool.num_classes
    images, labels = parallel.to_local(pool.images[chosen]), pool.labels[chosen]
    rows = parallel.split_rows(images, parallel.mesh_of(pool.images))

    def compute(features):
        function = functools.partial(blind_features.compute, features=features)
        return parallel.apply_by_rows(function, rows)

    def predict(features):
        # Wait, so that all devices have fitted their probes before any starts on other features.
        return jax.block_until_ready(probes.crossfit(key_folds, features, labels, num_classes=k))

    baselines = dict.fromkeys(comparison.baseline for comparison in comparisons.values())
    predicted = {make: predict(compute(make(key_baseline, images))) for make in baselines}

    def test(name, comparison):
        blind = values[name][chosen] if name in values else compute(comparison.features)
        return probes.shortcut(predict(blind), predicted[comparison.baseline], labels)

    return {name: test(name, comparison) for name, comparison in comparisons.items()}


def is_shortcut(test: probes.Shortcut) -> bool:
    """Return whether features are better by three standard errors and 1 % of the samples.

    >>> is_shortcut(probes.Shortcut((0, 1), blind=0.05, baseline=0.07, z_score=4.0))
    True
    """
    return test.z_score > MIN_Z_SCORE and test.baseline - test.blind > MIN_ACCURACY_GAIN
