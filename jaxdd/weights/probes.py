"""Cross-fitted linear probes, and the shortcut test that compares two of them.

A probe is a multinomial logistic regression from features to classes. Its predictions are
out-of-fold: the probabilities of a sample come from a probe that was not fitted to the sample, so
that no exception is memorised. On object-blind features (`jaxdd.weights.blind_features`) the
predicted class is nearly the bias attribute of a sample.

If a probe on object-blind features predicts the classes better than one on features that show the
object, most of what a network would learn from the data is not the object. `shortcut` tests that.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.typing import ArrayLike

from jaxdd import _axes, _checks

_BLOCK = 128  # Samples whose products are summed without correction on a GPU.
_MAX_SCORES = 2**25  # Maximum size of all scores; above it, folds are fitted one by one.
_MAX_SHARE = 0.75  # Maximum share of the samples in one block of a partition.
_MIN_RELATIVE_Z = 0.75  # Minimum z-score of the chosen partition, relative to the best.


class Shortcut(NamedTuple):
    """Result of a shortcut test: the errors of two probes of blocks of classes.

    Attributes:
        blocks: block of each class, `[k]`.
        blind: error of the probe on object-blind features: share of samples in a wrong block.
        baseline: error of the probe on baseline features.
        z_score: difference of the errors in standard errors; positive if `blind` is smaller.
    """

    blocks: tuple[int, ...]
    blind: float
    baseline: float
    z_score: float


def crossfit(
    key: jax.Array,
    features: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int,
    folds: int = 3,
    penalty: float = 1e-3,
    steps: int = 40,
    power: float = 0.0,
) -> jax.Array:
    """Return out-of-fold probabilities of the classes by logistic regression, `[n, k]`.

    Each fold has its share of every class. Features are standardised and cut off at eight standard
    deviations. A temperature is fitted to all samples, so that the probabilities are calibrated.

    With a power q, fitting continues with the generalised cross-entropy (1 − p^q) / q of Zhang and
    Sabuncu (2018), whose gradient is that of the cross-entropy times p^q. Samples with a small p
    lose their influence, and the probe predicts what most samples of a class have in common: with a
    bias, the attribute alone (Nam et al., "Learning from Failure", 2020). No temperature is fitted.

    Args:
        key: random key for the folds.
        features: `[n, d]` finite.
        labels: `[n]` integers in [0, num_classes).
        num_classes: k.
        folds: two or more. A class with fewer samples is missing from some of the probes.
        penalty: penalty of the squared weights, relative to the mean loss.
        steps: optimiser steps on the cross-entropy.
        power: q in [0, 1] of the loss of twice as many further steps; 0 for none.
    """
    features = _checks.finite("features", _checks.floating("features", features))
    if features.ndim != 2:
        raise ValueError(f"features must have shape [n, d], got {features.shape}.")
    labels = _checks.integers("labels", labels, num_classes, length=len(features))
    folds, steps = _checks.count("folds", folds, minimum=2), _checks.count("steps", steps)
    if folds > len(labels):
        raise ValueError(f"folds must be at most the {len(labels)} samples, got {folds}.")
    if not 0 <= power <= 1:
        raise ValueError(f"power must lie in [0, 1], got {power}.")
    _checks.positive("penalty", penalty)
    options = dict(num_classes=num_classes, folds=folds, penalty=penalty, steps=steps, power=power)
    return _crossfit(key, features, labels, **options)


@functools.partial(jax.jit, static_argnames=("num_classes", "folds", "steps", "power"))
@jax.default_matmul_precision("highest")  # TF32 of GPUs makes the bound of the Hessian indefinite.
def _crossfit(key, features, labels, *, num_classes, folds, penalty, steps, power):
    fold, x = assign_folds(key, labels, folds=folds), _standardise(features)
    onehot = jax.nn.one_hot(labels, num_classes)
    fit = functools.partial(_fit, x, onehot, penalty=penalty, steps=steps, power=power)
    together = min(folds, max(1, _MAX_SCORES // (len(labels) * num_classes)))
    used = fold[None] != jnp.arange(folds)[:, None]
    # Matrices are factorised one after the other: programs that factorise several at once can
    # deadlock in jaxlib 0.10, whose LAPACK waits in a thread of XLA for the other threads of XLA.
    bounds = jax.lax.map(functools.partial(_inverse_bound, x, penalty=penalty), used)
    scores = jax.lax.map(lambda row: fit(*row), (used, bounds), batch_size=together)
    scores = jnp.take_along_axis(scores, fold[None, :, None], 0)[0]
    return jax.nn.softmax(scores if power else scores * _inverse_temperature(scores, labels))


def _inverse_temperature(scores, labels):
    """Return the factor of the scores, on a grid, that maximises the likelihood of the labels."""
    grid = 10 ** jnp.linspace(-1, 1, 41)
    log_likelihood = lambda x: jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1).mean()
    return grid[jax.vmap(lambda factor: log_likelihood(scores * factor))(grid).argmax()]


def assign_folds(key: jax.Array, labels: jax.Array, *, folds: int) -> jax.Array:
    """Return the fold of each sample, `[n]`, with the samples of each class spread evenly.

    Args:
        key: random key for the order of the samples.
        labels: `[n]`.
        folds: number of folds.
    """
    labels = jnp.asarray(labels)
    order = jax.random.permutation(key, len(labels))
    order = order[jnp.argsort(labels[order], stable=True)]
    return jnp.zeros(len(labels), int).at[order].set(jnp.arange(len(labels)) % folds)


def _standardise(features):
    """Standardise features, clip them to ±8 standard deviations, and append a column of ones."""
    x = (features - features.mean(0, keepdims=True)) / (features.std(0, keepdims=True) + 1e-6)
    return jnp.concatenate([jnp.clip(x, -8, 8), jnp.ones((len(x), 1))], 1)


def _share(used, x):
    return used.astype(x.dtype) / used.sum().astype(x.dtype)


def _shrinkage(x, penalty):
    return jnp.full(x.shape[1], penalty).at[-1].set(1e-6)


# The Hessian of the cross-entropy is at most B = Σ_i s_i x_i x_iᵀ / 2 + penalty, whatever the
# parameters (Böhning, 1992). So Newton steps with B in place of the Hessian never overshoot, and B
# is inverted once and not in every step; Nesterov's momentum makes up for the smaller steps. The
# generalised cross-entropy has the same bound: its curvature is p^q times that of the cross-entropy
# less a square.
def _inverse_bound(x, used, *, penalty):
    """Return the inverse of a matrix that bounds the Hessian of the loss on the used samples."""
    products = jax.lax.platform_dependent(
        x, _share(used, x), cpu=_weighted_products, default=_products_by_blocks
    )
    bound = 0.5 * products + jnp.diag(_shrinkage(x, penalty))
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(bound), jnp.eye(len(bound)))


def _weighted_products(x, share):
    return (x * share[:, None]).T @ x


# A GPU adds the products of all samples one after the other. With thousands of correlated features
# the rounding error exceeds the penalty, so that the bound is indefinite and all scores are NaN.
# Sums over blocks, added with Kahan's correction, are as exact as a single float32 product.
def _products_by_blocks(x, share):
    blocks = -(-len(x) // _BLOCK)
    pad = lambda a: jnp.pad(a, [(0, blocks * _BLOCK - len(a))] + [(0, 0)] * (a.ndim - 1))
    cut = lambda a: pad(a).reshape(blocks, _BLOCK, *a.shape[1:])

    def add(carry, block):
        total, excess = carry
        part = _weighted_products(*block) - excess
        new = total + part
        return (new, (new - total) - part), None

    zero = _axes.match(jnp.zeros((x.shape[1],) * 2, x.dtype), (x, share))
    return jax.lax.scan(add, (zero, zero), (cut(x), cut(share)))[0][0]


def _fit(x, onehot, used, inverse_bound, *, penalty, steps, power):
    """Return the scores of all samples by a probe fitted to the used ones, `[n, k]`."""
    chex.assert_equal_shape_prefix([x, onehot, used], 1)
    share, shrink = _share(used, x), _shrinkage(x, penalty)[:, None]

    def step(carry, count):
        old, ahead, pace = carry
        probability = jax.nn.softmax(x @ ahead)
        own = (probability * onehot).sum(1)
        weight = share * jnp.where(count < steps, 1.0, own**power)
        gradient = x.T @ (weight[:, None] * (probability - onehot)) + shrink * ahead
        new = ahead - inverse_bound @ gradient
        # Momentum restarts once it points uphill: O'Donoghue and Candès (2015).
        restart = jnp.vdot(ahead - new, new - old) > 0
        next_pace = jnp.where(restart, 1.0, (1 + jnp.sqrt(1 + 4 * pace**2)) / 2)
        ahead = new + jnp.where(restart, 0.0, (pace - 1) / next_pace) * (new - old)
        return (new, ahead, next_pace), None

    start, pace = jnp.zeros((x.shape[1], onehot.shape[1]), x.dtype), jnp.ones((), x.dtype)
    carry = _axes.match((start, start, pace), (x, used))
    counts = jnp.arange(3 * steps if power else steps)
    (params, _, _), _ = jax.lax.scan(step, carry, counts)
    return x @ params


# An attribute that several classes share, such as being grey, separates blocks of classes but not
# the classes within a block. The blocks are not known, so they are estimated as well. Classes that
# the blind probe confuses are merged one after the other (average linkage), down to two blocks. Of
# these partitions, the finest one with a z-score near the best is used, because finer blocks give
# more information about a sample. Choosing the best of many partitions would bias the test, so half
# of the samples of each class choose the partition, and the other half are used for the test.
def shortcut(blind: ArrayLike, baseline: ArrayLike, labels: ArrayLike) -> Shortcut:
    """Test whether object-blind features predict blocks of classes better than the baseline.

    This function runs on the host and cannot be transformed by JAX.

    Partitions in which one block has more than three quarters of the samples are not considered.

    Args:
        blind: `[n, k]` out-of-fold probabilities from object-blind features.
        baseline: `[n, k]` from baseline features, of the same samples.
        labels: `[n]` integers in [0, k).
    """
    _checks.concrete("probes.shortcut", blind, baseline, labels)
    blind, baseline, labels = np.asarray(blind), np.asarray(baseline), np.asarray(labels)
    if blind.ndim != 2 or baseline.shape != blind.shape:
        raise ValueError(
            f"blind and baseline must have shape [n, k], got {blind.shape} and {baseline.shape}."
        )
    _checks.integers("labels", labels, blind.shape[1], length=len(blind))
    for name, array in (("blind", blind), ("baseline", baseline)):
        _checks.finite(name, _checks.floating(name, array))
    decides, all_blocks = partitions(blind, labels)
    deciding, testing = (
        (blind[half], baseline[half], labels[half]) for half in (decides, ~decides)
    )
    if not all_blocks or not len(testing[2]):
        return Shortcut((0,) * blind.shape[1], 0.0, 0.0, 0.0)
    z_scores = [_compare(blocks, *deciding).z_score for blocks in all_blocks]
    threshold = min(max(z_scores), _MIN_RELATIVE_Z * max(z_scores))
    finest = next(x for x, z in zip(all_blocks, z_scores, strict=True) if z >= threshold)
    return _compare(finest, *testing)


def _compare(blocks, blind, baseline, labels):
    """Compare the errors of two probes on the same samples, paired."""
    own, members = blocks[labels], np.eye(blocks.max() + 1)[blocks]
    blind_wrong, baseline_wrong = (
        (probabilities @ members).argmax(1) != own for probabilities in (blind, baseline)
    )
    difference = baseline_wrong.astype(float) - blind_wrong
    error = np.sqrt(np.maximum(np.mean(difference**2), 1 / len(own)) / len(own))
    return Shortcut(
        tuple(blocks.tolist()),
        float(blind_wrong.mean()),
        float(baseline_wrong.mean()),
        float(difference.mean() / error),
    )


def partitions(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, list[np.ndarray]]:
    """Partition the classes into blocks of classes that the probabilities confuse.

    This function runs on the host and cannot be transformed by JAX.

    Args:
        probabilities: `[n, k]` out-of-fold.
        labels: `[n]` integers in [0, k).

    Returns:
        The half of the samples of each class that determines the partitions, bool `[n]`; and at
        most 32 partitions, blocks of the classes `[k]`, the finest one first. No block has more
        than three quarters of the samples.
    """
    _checks.concrete("probes.partitions", probabilities, labels)
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    decides = np.zeros(len(labels), bool)
    decides[np.argsort(labels, kind="stable")[::2]] = True
    return decides, [
        blocks
        for blocks in _merge(probabilities[decides], labels[decides])
        if np.bincount(blocks[labels]).max() <= _MAX_SHARE * len(labels)
    ]


def _merge(probabilities, labels):
    """Merge the classes step by step into two blocks; yield at most 32 partitions `[k]`."""
    k = probabilities.shape[1]
    if k < 2:
        return
    onehot = np.eye(k)[labels]
    confusion = onehot.T @ probabilities / np.maximum(onehot.sum(0), 1)[:, None]
    similarity = (confusion + confusion.T)[np.triu_indices(k, 1)]
    tree = scipy.cluster.hierarchy.linkage(similarity.max() - similarity, "average")
    for count in np.unique(np.rint(np.geomspace(2, k, 32)).astype(int))[::-1]:
        yield scipy.cluster.hierarchy.cut_tree(tree, count)[:, 0]
