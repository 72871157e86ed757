"""Formulas from density or groups to weights, and diagnostics of weights.

Weights `[n]` are float32 or wider, at least 0, and sum to one within each class. `inverse_density`
is the method, `uniform` switches it off, `oracle` balances known bias groups, `balance_groups`
balances groups that are known only as probabilities, and `clip` bounds the variance. `diagnose`
measures what weights do to the bias. It needs the bias labels, so it is for reporting only and must
not influence weights.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdd import _checks

_MIN_SHARE = 1e-30  # Far below any share that matters; its logarithm is finite.
_BISECTIONS = 48  # These narrow an interval of about 70 nats to float32 rounding.


class Diagnostics(NamedTuple):
    """Diagnostics of weights, scalars that are nan where undefined; see `diagnose`."""

    conflict_auc: jax.Array
    conflict_weight_share: jax.Array
    group_evenness: jax.Array
    effective_sample_size: jax.Array


def uniform(labels: ArrayLike, *, num_classes: int) -> jax.Array:
    """Weight all samples of a class the same: w_i = 1 / n_k.

    Args:
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes, static.

    >>> print(uniform(jnp.array([0, 1, 0]), num_classes=2))
    [0.5 1.  0.5]
    """
    labels = _as_codes("labels", labels, num_classes)
    return 1 / _class_sum(jnp.ones(labels.size), labels, num_classes)[labels]


def inverse_density(
    log_density: ArrayLike, labels: ArrayLike, *, num_classes: int, temperature: ArrayLike = 1.0
) -> jax.Array:
    """Weight by a power of the inverse density, normalised within each class.

    w_i = f_i^(-1/t) / sum_{j in class} f_j^(-1/t) = softmax over the class of -log f_i / t.

    A temperature t of 1 gives the normalised inverse density N(1/f) of the paper, under which well
    separated bias groups weigh the same. With t above 1 the weights are closer to uniform, with t
    below 1 they favour sparse samples even more. The unit of the density cancels.

    A log density of -inf (an isolated sample, with `leave_one_out`) counts as the lowest finite one
    of its class, +inf as the highest; a class without finite ones is weighted uniformly.

    Args:
        log_density: `[n]` floating, in nats, for example from `kde.class_log_density`.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes, static.
        temperature: t > 0, a scalar; may be traced.

    Source: Cui et al., "Mitigating Bias in Dataset Distillation", ICML 2024; the temperature
    acts in log space here, where it cannot overflow.

    >>> log_f = jnp.log(jnp.array([3.0, 1.0, 7.0]))
    >>> weights = inverse_density(log_f, jnp.array([0, 0, 1]), num_classes=2)
    >>> [f"{w:.2f}" for w in weights]
    ['0.25', '0.75', '1.00']
    """
    labels = _as_codes("labels", labels, num_classes)
    log_density = _as_floating("log_density", log_density, labels)
    known = _checks.values(log_density)
    if known is not None and (known != known).any():
        raise ValueError("log_density must be a number, got nan.")
    temperature = _checks.positive("temperature", _as_scalar("temperature", temperature))
    scores = -_replace_infinite(log_density, labels, num_classes)
    # The largest score of a class is subtracted before dividing by the temperature: what is divided
    # is at most 0, so that neither the quotient nor its exponential can overflow.
    top = _class_max(jax.lax.stop_gradient(scores), labels, num_classes)
    power = jnp.exp((scores - top[labels]) / temperature)
    return power / _class_sum(power, labels, num_classes)[labels]


def check_limit(name: str, limit: ArrayLike | None) -> None:
    """Raise ValueError for a limit of `clip` that is not a scalar of at least 1."""
    if limit is None:
        return
    known = _checks.values(_as_scalar(name, limit))
    if known is not None and not known >= 1:
        raise ValueError(f"{name} must be at least 1, got {known}.")


def clip(
    weights: ArrayLike, labels: ArrayLike, *, num_classes: int, limit: ArrayLike | None
) -> jax.Array:
    """Limit weights to a multiple of the uniform one; the others take the excess in proportion.

    w'_i = min(c_k w_i, limit / n_k), where c_k is such that each class still sums to one. The
    effective sample size is then at least n_k / limit. Samples of weight 0 share what the samples
    of positive weight cannot take.

    Args:
        weights: `[n]` floating, at least 0; normalised in each class.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes, static.
        limit: at least 1, in units of the uniform weight, a scalar; may be traced. 1 gives uniform
            weights, infinity changes nothing. None returns the weights as they are.

    >>> weights, labels = jnp.array([0.7, 0.2, 0.1]), jnp.zeros(3, int)
    >>> print(clip(weights, labels, num_classes=1, limit=1.2).round(3))
    [0.4 0.4 0.2]
    """
    labels = _as_codes("labels", labels, num_classes)
    weights = _as_weights(weights, labels)
    if limit is None:
        return weights
    _checks.class_weights(weights, labels, num_classes)
    check_limit("limit", limit)
    limit = _as_scalar("limit", limit)

    def per_class(values):
        return _class_sum(values, labels, num_classes)

    # Bisection finds which samples reach the cap. Once they are known, the scale of the others is a
    # ratio: exact up to rounding, and with the right gradient, which bisection does not have.
    size = jnp.maximum(per_class(jnp.ones_like(weights)), 1)
    limit = jnp.minimum(limit, size)
    cap = (limit / size)[labels]
    total = per_class(weights)
    weights = jnp.maximum(weights / jnp.where(total > 0, total, 1)[labels], _MIN_SHARE)
    full = _overflowing(weights, cap, labels, num_classes)
    rest = jnp.where(full, 0, weights)
    room = (size - per_class(full.astype(weights.dtype)) * limit) / size
    rest_total = per_class(rest)
    scale = jnp.maximum(room, 0) / jnp.where(rest_total > 0, rest_total, 1)
    return jnp.where(full, cap, jnp.minimum(rest * scale[labels], cap))


def _overflowing(
    weights: jax.Array, cap: jax.Array, labels: jax.Array, num_classes: int
) -> jax.Array:
    """Return which samples reach the cap at the smallest c_k with sum_i min(c_k w_i, cap) = 1.

    The sum grows with c_k, so log c_k is computed by bisection, for all classes at once.
    """
    log_weights, log_cap = map(jnp.log, jax.lax.stop_gradient((weights, cap)))
    # Slightly above the level at which every sample reaches the cap, in spite of rounding.
    high = _class_max(log_cap - log_weights, labels, num_classes) + 1e-3
    low = jnp.zeros_like(high)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        filled = jnp.exp(jnp.minimum(log_weights + middle[labels], log_cap))
        enough = _class_sum(filled, labels, num_classes) >= 1
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    _, log_scale = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    return log_weights + log_scale[labels] >= log_cap


def oracle(
    labels: ArrayLike, attributes: ArrayLike, *, num_classes: int, num_attributes: int
) -> jax.Array:
    """Balance known bias groups: every group that a class contains weighs the same.

    w_i = 1 / (number of attributes present in the class * number of samples in the group of i).

    Args:
        labels: `[n]` integers in [0, num_classes).
        attributes: `[n]` integers in [0, num_attributes).
        num_classes: number of classes, static.
        num_attributes: number of values of the bias attribute, static.

    >>> print(oracle(jnp.zeros(3, int), jnp.array([0, 0, 1]), num_classes=1, num_attributes=2))
    [0.25 0.25 0.5 ]
    """
    labels = _as_codes("labels", labels, num_classes)
    attributes = _as_codes("attributes", attributes, num_attributes, labels)
    count = _group_sum(jnp.ones(labels.size), labels, attributes, num_classes, num_attributes)
    present = (count > 0).sum(1).astype(count.dtype)
    return 1 / (present[labels] * count[labels, attributes])


def balance_groups(labels: ArrayLike, memberships: ArrayLike, *, num_classes: int) -> jax.Array:
    """Balance bias groups that are known as probabilities.

    w_i = Σ_g p_ig / max(N_g, 1), normalised within the class, where N_g = Σ p_ig over the class.
    This is the expectation of the oracle's weight if N_g is close to its mean. The maximum bounds
    the weight of a group that is expected to have less than one sample, which would otherwise be
    balanced although it is probably empty. With memberships of zero and one these are the weights
    of `oracle`. A class without memberships is weighted uniformly.

    Args:
        labels: `[n]` integers in [0, num_classes).
        memberships: `[n, g]` probabilities of the groups.
        num_classes: number of classes, static.

    >>> memberships = jnp.array([[1.0, 0], [1, 0], [0, 1]])
    >>> print(balance_groups(jnp.zeros(3, int), memberships, num_classes=1))
    [0.25 0.25 0.5 ]
    """
    labels = _as_codes("labels", labels, num_classes)
    memberships = _checks.nonnegative("memberships", _checks.floating("memberships", memberships))
    if memberships.ndim != 2 or len(memberships) != len(labels):
        raise ValueError(
            f"memberships must have shape [{len(labels)}, g], got {memberships.shape}."
        )
    expected = _class_sum(memberships, labels, num_classes)
    weights = (memberships / jnp.maximum(expected, 1)[labels]).sum(1)
    total = _class_sum(weights, labels, num_classes)[labels]
    equal = uniform(labels, num_classes=num_classes)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), equal)


def effective_sample_size(weights: ArrayLike, labels: ArrayLike, *, num_classes: int) -> jax.Array:
    """Return the number of equally weighted samples with the same variance of the class mean.

    ess_k = (sum_i w_i)^2 / sum_i w_i^2, from 1 (all weight on one sample) to n_k (uniform).

    Args:
        weights: `[n]` floating, at least 0.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes k, static.

    Returns:
        `[k]` effective sample sizes, 0 for a class without weight.

    Source: Kish, "Survey Sampling", 1965.

    >>> weights, labels = jnp.array([0.5, 0.5, 1.0]), jnp.array([0, 0, 1])
    >>> print(effective_sample_size(weights, labels, num_classes=2))
    [2. 1.]
    """
    labels = _as_codes("labels", labels, num_classes)
    weights = _as_weights(weights, labels)
    # In shares of the class: squares of small weights would underflow.
    share = _class_shares(weights, labels, num_classes)[0]
    squares = _class_sum(share**2, labels, num_classes)
    return jnp.where(squares > 0, 1 / jnp.where(squares > 0, squares, 1), 0)


def group_evenness(
    weights: ArrayLike,
    labels: ArrayLike,
    attributes: ArrayLike,
    *,
    num_classes: int,
    num_attributes: int,
) -> jax.Array:
    """Return how evenly the weight of a class is spread over its groups, from 0 to 1.

    The entropy of the weights of the groups in a class, divided by the logarithm of their number;
    averaged over the classes with weight and at least two groups. 0 means that one group has all
    the weight.

    Args:
        weights: `[n]` floating, at least 0; only ratios within a class matter.
        labels: `[n]` integers in [0, num_classes).
        attributes: `[n]` integers in [0, num_attributes); a class and an attribute make a group.
        num_classes: number of classes, static.
        num_attributes: number of values of the attribute, static.

    Returns:
        A scalar, nan if no class has two groups.

    >>> labels, attributes = jnp.zeros(3, int), jnp.array([0, 0, 1])
    >>> weights = jnp.array([0.25, 0.25, 0.5])
    >>> float(group_evenness(weights, labels, attributes, num_classes=1, num_attributes=2))
    1.0
    """
    labels = _as_codes("labels", labels, num_classes)
    attributes = _as_codes("attributes", attributes, num_attributes, labels)
    weights = _as_nonzero_weights(weights, labels)
    sums = (labels, attributes, num_classes, num_attributes)
    share, total = _class_shares(weights, labels, num_classes)
    group_weight = _group_sum(share, *sums)
    groups = (_group_sum(jnp.ones_like(weights), *sums) > 0).sum(1)
    log_weight = jnp.log(jnp.where(group_weight > 0, group_weight, 1))
    entropy = -(group_weight * log_weight).sum(1)
    several = (total > 0) & (groups >= 2)
    return _mean_over(entropy / jnp.log(jnp.where(several, groups, 2)), several)


def diagnose(
    weights: ArrayLike,
    labels: ArrayLike,
    attributes: ArrayLike,
    aligned: ArrayLike,
    *,
    num_classes: int,
    num_attributes: int,
) -> Diagnostics:
    """Measure what weights do to the bias, for reporting only.

    A sample is bias-conflicting if attributes[i] != aligned[labels[i]].

    * conflict_auc: probability that a bias-conflicting sample weighs more than a bias-aligned one
      of its class, ties counted half; mean over the classes that have both.
    * conflict_weight_share: share of the weight of a class on bias-conflicting samples; mean over
      the classes.
    * group_evenness: see `group_evenness`.
    * effective_sample_size: mean over the classes.

    Args:
        weights: `[n]` floating, at least 0; only ratios within a class matter.
        labels: `[n]` integers in [0, num_classes).
        attributes: `[n]` integers in [0, num_attributes).
        aligned: `[num_classes]` integers, the attribute that is aligned with each class.
        num_classes: number of classes, static.
        num_attributes: number of values of the bias attribute, static.

    Returns:
        Diagnostics of four scalars. Classes without weight are left out of the means; nan if no
        class is left.
    """
    labels = _as_codes("labels", labels, num_classes)
    attributes = _as_codes("attributes", attributes, num_attributes, labels)
    weights = _as_nonzero_weights(weights, labels)
    aligned = _checks.integers("aligned", aligned, num_attributes, length=num_classes)
    sizes = dict(num_classes=num_classes, num_attributes=num_attributes)

    share, total = _class_shares(weights, labels, num_classes)
    conflicts = attributes != aligned[labels]
    conflict_share = _class_sum(jnp.where(conflicts, share, 0), labels, num_classes)
    auc, has_both = _conflict_auc(share, labels, conflicts, num_classes)
    ess = effective_sample_size(weights, labels, num_classes=num_classes)
    return Diagnostics(
        conflict_auc=_mean_over(auc, has_both & (total > 0)),
        conflict_weight_share=_mean_over(conflict_share, total > 0),
        group_evenness=group_evenness(weights, labels, attributes, **sizes),
        effective_sample_size=_mean_over(ess, total > 0),
    )


# The area under the ROC curve is the Mann-Whitney statistic: the mean, over the conflicting samples
# of a class, of the share of its aligned samples that weigh less. Sorting all samples by class and
# weight makes that a difference of cumulative counts, in O(n log n) instead of a sum over pairs.
def _conflict_auc(
    weights: jax.Array, labels: jax.Array, conflicts: jax.Array, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Return the area under the ROC curve `[k]`, and whether the class has both kinds."""
    order = jnp.lexsort((weights, labels))
    weight, label, conflict = weights[order], labels[order], conflicts[order]
    is_new = (weight[1:] != weight[:-1]) | (label[1:] != label[:-1])
    tie = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(is_new)])

    num_aligned = _class_sum((~conflict).astype(int), label, num_classes)
    tied = _class_sum((~conflict).astype(int), tie, tie.size)
    lighter = (jnp.cumsum(tied) - tied)[tie] - (jnp.cumsum(num_aligned) - num_aligned)[label]

    lighter, tied, num_aligned = (x.astype(float) for x in (lighter, tied, num_aligned))
    share_lighter = (lighter + 0.5 * tied[tie]) / jnp.maximum(num_aligned, 1)[label]
    num_conflicting = _class_sum(conflict.astype(float), label, num_classes)
    auc = _class_sum(jnp.where(conflict, share_lighter, 0), label, num_classes)
    has_both = (num_aligned > 0) & (num_conflicting > 0)
    return auc / jnp.maximum(num_conflicting, 1), has_both


def _mean_over(values: jax.Array, valid: jax.Array) -> jax.Array:
    # 0 / 0 is the documented nan.
    return jnp.where(valid, values, 0).sum() / valid.sum().astype(values.dtype)


_class_sum = jax.ops.segment_sum


# The two below start from infinity. They are compiled because `jax_debug_infs` would stop at it.
@functools.partial(jax.jit, static_argnames="num_classes")
def _class_max(values, labels, num_classes):
    """Return the maximum of each class `[k]`, finite also for a class without samples."""
    maximum = jax.ops.segment_max(values, labels, num_classes)
    return jnp.maximum(maximum, jnp.finfo(maximum.dtype).min)


@functools.partial(jax.jit, static_argnames="num_classes")
def _replace_infinite(log_density, labels, num_classes):
    """Replace infinite log densities by the nearest finite one of the class, or by 0."""
    infinite = jnp.isinf(log_density)
    constant = jax.lax.stop_gradient(log_density)
    low = jax.ops.segment_min(jnp.where(infinite, jnp.inf, constant), labels, num_classes)
    high = jax.ops.segment_max(jnp.where(infinite, -jnp.inf, constant), labels, num_classes)
    nearest = jnp.where(log_density > 0, high[labels], low[labels])
    return jnp.where(infinite, jnp.where(jnp.isinf(nearest), 0, nearest), log_density)


def _class_shares(
    weights: jax.Array, labels: jax.Array, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Return weights `[n]` as shares of their class, and the total of each class `[k]`."""
    total = _class_sum(weights, labels, num_classes)
    return weights / jnp.where(total > 0, total, 1)[labels], total


def _group_sum(values, labels, attributes, num_classes: int, num_attributes: int) -> jax.Array:
    group = labels * num_attributes + attributes
    return _class_sum(values, group, num_classes * num_attributes).reshape(num_classes, -1)


def _as_codes(name: str, codes: ArrayLike, size: int, labels: jax.Array | None = None) -> jax.Array:
    if jnp.shape(codes) == (0,):
        raise ValueError(f"{name} must not be empty, got shape (0,).")
    return _checks.integers(name, codes, size, length=None if labels is None else labels.size)


def _as_floating(name: str, values: ArrayLike, labels: jax.Array) -> jax.Array:
    values = _checks.floating(name, values)
    if values.shape != labels.shape:
        raise ValueError(
            f"{name} must have the shape of labels {labels.shape}, got {values.shape}."
        )
    return values


def _as_weights(weights: ArrayLike, labels: jax.Array) -> jax.Array:
    return _checks.nonnegative("weights", _as_floating("weights", weights, labels))


def _as_nonzero_weights(weights: ArrayLike, labels: jax.Array) -> jax.Array:
    weights = _as_weights(weights, labels)
    known = _checks.values(weights)
    # XLA flushes numbers below `tiny` to 0.
    if known is not None and not (known >= jnp.finfo(known.dtype).tiny).any():
        raise ValueError(f"weights must not all be 0, got a maximum of {known.max()}.")
    return weights


def _as_scalar(name: str, number: ArrayLike) -> jax.Array:
    number = jnp.asarray(number, jnp.result_type(number, float))
    if number.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {number.shape}.")
    return number
