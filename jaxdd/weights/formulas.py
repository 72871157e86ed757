"""Reweighting: from the density of the samples to the weights of a class mean.

Weights `[n]` are at least 0 and sum to one within each class. `inverse_density` is the method,
`uniform` switches it off, `oracle` is the target that bias labels would give, `balance_groups` comes near
it where groups are known by probabilities, `clip` bounds the variance. `diagnose` says what weights
did to the bias; it needs the attributes, so it is for reporting only and must never feed back into
the choice of weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdd import _checks

_LEAST = 1e-30  # A share of mass far below any that counts, whose logarithm is still finite.
_HALVINGS = 48  # Of an interval of about 70 nats: down to float32 rounding.


class Diagnostics(NamedTuple):
    """What weights did to the bias: scalars, nan where undefined; see `diagnose`."""

    conflict_auc: jax.Array
    conflict_weight_share: jax.Array
    group_evenness: jax.Array
    effective_sample_size: jax.Array


def uniform(labels: ArrayLike, *, num_classes: int) -> jax.Array:
    """Weigh every sample of a class alike: w_i = 1 / n_k, which is no reweighting at all.

    Args:
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes, static.

    Returns:
        `[n]` weights, float32.

    Raises:
        TypeError: labels are not integers.
        ValueError: labels are not `[n]` or (where concrete) out of range.

    >>> print(uniform(jnp.array([0, 1, 0]), num_classes=2))
    [0.5 1.  0.5]
    """
    labels = _as_codes("labels", labels, num_classes)
    return 1 / _class_sum(jnp.ones(labels.size), labels, num_classes)[labels]


def inverse_density(
    log_density: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    """Weigh by a power of the inverse density, normalised within each class.

    w_i = f_i^(-1/t) / sum_{j in class} f_j^(-1/t) = softmax over the class of -log f_i / t.

    A temperature t of 1 is the normalised inverse density N(1/f) of the paper: well separated bias
    groups get equal mass. t above 1 goes towards uniform weights, t below 1 further towards the
    sparse samples. Densities have units, which the normalisation cancels.

    A log density of -inf (an isolated sample left out of its own density) counts as the lowest
    finite one of its class, +inf as the highest; a class without finite ones is weighed uniformly.

    Args:
        log_density: `[n]` floating, in nats, such as from `kde.class_log_density`.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes, static.
        temperature: t > 0, a scalar; may be traced.

    Returns:
        `[n]` weights, float32 or wider.

    Raises:
        TypeError: log_density is not floating or labels not integers.
        ValueError: shapes do not fit and (where the values are concrete) labels out of range, a
            density that is nan or a temperature that is not positive and finite.

    Source: Cui et al., "Mitigating Bias in Dataset Distillation", ICML 2024; the temperature
    acts in log space here, where it cannot overflow.

    >>> log_f = jnp.log(jnp.array([3.0, 1.0, 7.0]))
    >>> weights = inverse_density(log_f, jnp.array([0, 0, 1]), num_classes=2)
    >>> [f"{w:.2f}" for w in weights]
    ['0.25', '0.75', '1.00']
    """
    labels = _as_codes("labels", labels, num_classes)
    log_density = _as_log_density(log_density, labels)
    temperature = _as_temperature(temperature)
    log_density = _finite(log_density, labels, num_classes)
    return _softmax(-log_density, labels, num_classes, temperature)


def softmax_inverse(
    log_density: ArrayLike,
    labels: ArrayLike,
    *,
    num_classes: int,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    """Weigh by the softmax of the inverse density: the literal reading of "normalise with t".

    w_i = softmax over the class of r_i / t,  r_i = (1/f_i) / mean_{j in class} (1/f_j).

    A density has a unit (length^-d), so t means nothing until f is measured in one: here the
    harmonic mean of f in the class, for then r has mean 1 and never exceeds n_k. (In units of the
    geometric mean the r of an isolated sample is exp of hundreds of nats, and t is meaningless.)

    r is as heavy-tailed as 1/f is: with t well below the gap between the two largest r all mass
    falls on one sample; with t well above the largest r, at most n_k, the weights are uniform.
    `inverse_density` has no such cliff and is what one normally wants.

    Args:
        log_density: `[n]` floating, in nats; infinite ones are treated as in `inverse_density`.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes, static.
        temperature: t > 0, a scalar in units of the mean inverse density; may be traced.

    Returns:
        `[n]` weights, float32 or wider.

    Raises:
        TypeError: log_density is not floating or labels not integers.
        ValueError: shapes do not fit and (where the values are concrete) labels out of range, a
            density that is nan or a temperature that is not positive and finite.
    """
    temperature = _as_temperature(temperature)
    inverse = inverse_density(log_density, labels, num_classes=num_classes)
    relative = inverse / uniform(labels, num_classes=num_classes)
    return _softmax(relative, jnp.asarray(labels), num_classes, temperature)


def clip(weights: ArrayLike, labels: ArrayLike, *, num_classes: int, limit: ArrayLike) -> jax.Array:
    """Let no weight exceed `limit` times the uniform one; its excess goes to the rest, in ratio.

    w'_i = min(c_k w_i, limit / n_k), with c_k such that each class still sums to one (found by
    bisection). The effective sample size is then at least n_k / limit. Where the cap leaves mass
    that samples of positive weight cannot take, those of weight 0 share it alike.

    Args:
        weights: `[n]` floating, at least 0; brought to sum one in each class.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes, static.
        limit: at least 1, in units of the uniform weight, a scalar; may be traced. 1 gives
            uniform weights, infinity changes nothing.

    Returns:
        `[n]` weights, float32 or wider.

    Raises:
        TypeError: weights are not floating or labels not integers.
        ValueError: shapes do not fit and (where the values are concrete) labels out of range,
            negative or non-finite weights, a class without any weight or a limit below 1.

    >>> weights, labels = jnp.array([0.7, 0.2, 0.1]), jnp.zeros(3, int)
    >>> print(clip(weights, labels, num_classes=1, limit=1.2).round(3))
    [0.4 0.4 0.2]
    """
    labels = _as_codes("labels", labels, num_classes)
    weights = _as_weights(weights, labels)
    _checks.class_weights(weights, labels, num_classes)
    limit = _as_scalar("limit", limit)
    values = _checks.values(limit)
    if values is not None and not values >= 1:
        raise ValueError(f"limit must be at least 1, found {values}")

    def per_class(values):
        return _class_sum(values, labels, num_classes)

    size = jnp.maximum(per_class(jnp.ones_like(weights)), 1)
    limit = jnp.minimum(limit, size)
    cap = (limit / size)[labels]
    total = per_class(weights)
    weights = jnp.maximum(weights / jnp.where(total > 0, total, 1)[labels], _LEAST)
    full = _overflowing(weights, cap, labels, num_classes)
    # With the full samples known, the rest is a ratio: exact, and with the right gradient.
    rest = jnp.where(full, 0, weights)
    room = (size - per_class(full.astype(weights.dtype)) * limit) / size
    spread = per_class(rest)
    scale = jnp.maximum(room, 0) / jnp.where(spread > 0, spread, 1)
    return jnp.where(full, cap, jnp.minimum(rest * scale[labels], cap))


def _overflowing(
    weights: jax.Array, cap: jax.Array, labels: jax.Array, num_classes: int
) -> jax.Array:
    """Which samples reach the cap at the smallest c_k with sum_i min(c_k w_i, cap) = 1."""
    log_weights, log_cap = map(jnp.log, jax.lax.stop_gradient((weights, cap)))
    # A little above the level that fills every sample, so that rounding cannot spare one.
    high = jax.ops.segment_max(log_cap - log_weights, labels, num_classes) + 1e-3
    low = jnp.zeros_like(high)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        filled = jnp.exp(jnp.minimum(log_weights + middle[labels], log_cap))
        enough = _class_sum(filled, labels, num_classes) >= 1
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    _, log_scale = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))
    return log_weights + log_scale[labels] >= log_cap


def oracle(
    labels: ArrayLike, attributes: ArrayLike, *, num_classes: int, num_attributes: int
) -> jax.Array:
    """Give every bias group that a class contains the same mass: what labelled bias would allow.

    w_i = 1 / (number of attributes present in the class * number of samples in the group of i).

    Args:
        labels: `[n]` integers in [0, num_classes).
        attributes: `[n]` integers in [0, num_attributes).
        num_classes: number of classes, static.
        num_attributes: number of values of the bias attribute, static.

    Returns:
        `[n]` weights, float32.

    Raises:
        TypeError: labels or attributes are not integers.
        ValueError: shapes do not fit or (where concrete) labels or attributes are out of range.

    >>> print(oracle(jnp.zeros(3, int), jnp.array([0, 0, 1]), num_classes=1, num_attributes=2))
    [0.25 0.25 0.5 ]
    """
    labels = _as_codes("labels", labels, num_classes)
    attributes = _as_codes("attributes", attributes, num_attributes, labels)
    count = _group_sum(jnp.ones(labels.size), labels, attributes, num_classes, num_attributes)
    present = (count > 0).sum(1)
    return 1 / (present[labels] * count[labels, attributes])


def balance_groups(labels: ArrayLike, memberships: ArrayLike, *, num_classes: int) -> jax.Array:
    """Give every bias group of a class the same mass where memberships are known by probabilities.

    w_i = Σ_g p_ig / max(N_g, 1), normalised within the class, where N_g = Σ p_ig over the class. A
    group that is expected to have less than one sample has less mass. With memberships of zero and
    one these are the weights of `oracle`. A class without memberships is weighed uniformly.

    Args:
        labels: `[n]` integers in [0, num_classes).
        memberships: `[n, g]` probabilities of the groups.
        num_classes: number of classes, static.

    Returns:
        `[n]` weights, each class sums to one.

    Raises:
        TypeError: labels are not integers or memberships not floating.
        ValueError: shapes do not fit or (where concrete) labels are out of range or memberships
            negative or not finite.

    >>> print(balance_groups(jnp.zeros(3, int), jnp.array([[1.0, 0], [1, 0], [0, 1]]), num_classes=1))
    [0.25 0.25 0.5 ]
    """
    labels = _as_codes("labels", labels, num_classes)
    memberships = _checks.nonnegative("memberships", _checks.floating("memberships", memberships))
    if memberships.ndim != 2 or len(memberships) != len(labels):
        raise ValueError(
            f"memberships must be [n, g] with n = {len(labels)}, found {memberships.shape}"
        )
    expected = _class_sum(memberships, labels, num_classes)
    mass = (memberships / jnp.maximum(expected, 1)[labels]).sum(1)
    total = _class_sum(mass, labels, num_classes)[labels]
    alike = uniform(labels, num_classes=num_classes)
    return jnp.where(total > 0, mass / jnp.where(total > 0, total, 1), alike)


def effective_sample_size(weights: ArrayLike, labels: ArrayLike, *, num_classes: int) -> jax.Array:
    """Number of equally weighted samples whose class mean would be as noisy.

    ess_k = (sum_i w_i)^2 / sum_i w_i^2, from 1 (one sample has it all) to n_k (uniform).

    Args:
        weights: `[n]` floating, at least 0.
        labels: `[n]` integers in [0, num_classes).
        num_classes: number of classes k, static.

    Returns:
        `[k]` effective sample sizes, 0 for a class without mass.

    Raises:
        TypeError: weights are not floating or labels not integers.
        ValueError: shapes do not fit and (where the values are concrete) labels out of range or
            negative or non-finite weights.

    Source: Kish, "Survey Sampling", 1965.

    >>> weights, labels = jnp.array([0.5, 0.5, 1.0]), jnp.array([0, 0, 1])
    >>> print(effective_sample_size(weights, labels, num_classes=2))
    [2. 1.]
    """
    labels = _as_codes("labels", labels, num_classes)
    weights = _as_weights(weights, labels)
    total = _class_sum(weights, labels, num_classes)
    # In shares of the class: squares of small weights would underflow.
    share = weights / jnp.where(total > 0, total, 1)[labels]
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
    """How evenly the mass of a class is spread over its groups, from 0 (one has it) to 1 (evenly).

    The entropy of the masses of the groups present in a class over the logarithm of their number;
    mean over the classes with mass and at least two groups.

    Args:
        weights: `[n]` floating, at least 0; only ratios within a class matter.
        labels: `[n]` integers in [0, num_classes).
        attributes: `[n]` integers in [0, num_attributes); a class and an attribute make a group.
        num_classes: number of classes, static.
        num_attributes: number of values of the attribute, static.

    Returns:
        A scalar, nan where no class has two groups.

    Raises:
        TypeError: weights are not floating or labels or attributes not integers.
        ValueError: shapes do not fit and (where the values are concrete) labels or attributes out
            of range, negative or non-finite weights, or weights that are all 0.

    >>> labels, attributes = jnp.zeros(3, int), jnp.array([0, 0, 1])
    >>> weights = jnp.array([0.25, 0.25, 0.5])
    >>> float(group_evenness(weights, labels, attributes, num_classes=1, num_attributes=2))
    1.0
    """
    labels = _as_codes("labels", labels, num_classes)
    attributes = _as_codes("attributes", attributes, num_attributes, labels)
    weights = _as_weights(weights, labels)
    _check_mass(weights)
    sums = (labels, attributes, num_classes, num_attributes)
    total = _class_sum(weights, labels, num_classes)
    mass = _group_sum(weights / jnp.where(total > 0, total, 1)[labels], *sums)
    groups = (_group_sum(jnp.ones_like(weights), *sums) > 0).sum(1)
    entropy = -(mass * jnp.log(jnp.where(mass > 0, mass, 1))).sum(1)
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
    """Say what weights did to the bias. For reporting only: it never feeds back into a method.

    A sample conflicts where attributes[i] != aligned[labels[i]].

    * conflict_auc: probability that a conflicting sample outweighs an aligned one of its class,
      ties counted half; mean over the classes that have both.
    * conflict_weight_share: share of the mass of a class on conflicting samples; mean over the classes.
    * group_evenness: see the function of this name.
    * effective_sample_size: mean over the classes.

    Args:
        weights: `[n]` floating, at least 0; only ratios within a class matter.
        labels: `[n]` integers in [0, num_classes).
        attributes: `[n]` integers in [0, num_attributes).
        aligned: `[num_classes]` integers, the attribute that is aligned with each class.
        num_classes: number of classes, static.
        num_attributes: number of values of the bias attribute, static.

    Returns:
        Diagnostics of four scalars. Classes without mass are left out of the means; nan where no
        class is left.

    Raises:
        TypeError: weights are not floating or labels, attributes or aligned not integers.
        ValueError: shapes do not fit and (where the values are concrete) labels, attributes or
            aligned out of range, negative or non-finite weights, or weights that are all 0.
    """
    labels = _as_codes("labels", labels, num_classes)
    attributes = _as_codes("attributes", attributes, num_attributes, labels)
    weights = _as_weights(weights, labels)
    _check_mass(weights)
    aligned = _as_codes("aligned", aligned, num_attributes)
    if aligned.shape != (num_classes,):
        raise ValueError(f"aligned must be one per class, found {aligned.size} for {num_classes}")

    total = _class_sum(weights, labels, num_classes)
    share = weights / jnp.where(total > 0, total, 1)[labels]
    conflicts = attributes != aligned[labels]
    conflict_weight_share = _class_sum(jnp.where(conflicts, share, 0), labels, num_classes)

    balance = group_evenness(
        weights, labels, attributes, num_classes=num_classes, num_attributes=num_attributes
    )
    auc, both = _conflict_auc(share, labels, conflicts, num_classes)
    ess = effective_sample_size(weights, labels, num_classes=num_classes)
    return Diagnostics(
        _mean_over(auc, both & (total > 0)),
        _mean_over(conflict_weight_share, total > 0),
        balance,
        _mean_over(ess, total > 0),
    )


def _conflict_auc(
    weights: jax.Array, labels: jax.Array, conflicts: jax.Array, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Area under the ROC curve `[k]`, and whether the class has both kinds, from one sort."""
    order = jnp.lexsort((weights, labels))
    weight, label, conflict = weights[order], labels[order], conflicts[order]
    new = (weight[1:] != weight[:-1]) | (label[1:] != label[:-1])
    tie = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(new)])

    num_aligned = _class_sum((~conflict).astype(int), label, num_classes)
    tied = _class_sum((~conflict).astype(int), tie, tie.size)
    lighter = (jnp.cumsum(tied) - tied)[tie] - (jnp.cumsum(num_aligned) - num_aligned)[label]

    beaten = (lighter + 0.5 * tied[tie]) / jnp.maximum(num_aligned, 1)[label]
    num_conflicting = _class_sum(conflict.astype(int), label, num_classes)
    auc = _class_sum(jnp.where(conflict, beaten, 0), label, num_classes)
    both = (num_aligned > 0) & (num_conflicting > 0)
    return auc / jnp.maximum(num_conflicting, 1), both


def _mean_over(values: jax.Array, valid: jax.Array) -> jax.Array:
    return jnp.where(valid, values, 0).sum() / valid.sum()  # 0 / 0 is the documented nan.


def _class_sum(values: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    return jax.ops.segment_sum(values, labels, num_classes)


def _group_sum(values, labels, attributes, num_classes: int, num_attributes: int) -> jax.Array:
    group = labels * num_attributes + attributes
    return _class_sum(values, group, num_classes * num_attributes).reshape(num_classes, -1)


def _softmax(scores: jax.Array, labels: jax.Array, num_classes: int, temperature) -> jax.Array:
    """Over each class; the temperature divides what is at most 0 and so cannot overflow."""
    top = jax.ops.segment_max(jax.lax.stop_gradient(scores), labels, num_classes)
    power = jnp.exp((scores - top[labels]) / temperature)
    return power / _class_sum(power, labels, num_classes)[labels]


def _finite(log_density: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Replace infinite log densities by the nearest finite one of the class, or by 0."""
    infinite = jnp.isinf(log_density)
    known = jax.lax.stop_gradient(log_density)
    low = jax.ops.segment_min(jnp.where(infinite, jnp.inf, known), labels, num_classes)[labels]
    high = jax.ops.segment_max(jnp.where(infinite, -jnp.inf, known), labels, num_classes)[labels]
    nearest = jnp.where(log_density > 0, high, low)
    return jnp.where(infinite, jnp.where(jnp.isinf(nearest), 0, nearest), log_density)


def _as_codes(name: str, codes: ArrayLike, size: int, labels: jax.Array | None = None) -> jax.Array:
    shape = jnp.shape(codes)
    if len(shape) != 1 or not shape[0]:
        raise ValueError(f"{name} must be a non-empty [n] array, found shape {shape}")
    if labels is not None and shape != labels.shape:
        raise ValueError(
            f"{name} and labels must have the same length, found {shape[0]} and {labels.size}"
        )
    return _checks.integers(name, codes, size)


def _as_floating(name: str, values: ArrayLike, labels: jax.Array) -> jax.Array:
    values = _checks.floating(name, values)
    if values.shape != labels.shape:
        raise ValueError(
            f"{name} and labels must have the same shape, found {values.shape} and {labels.shape}"
        )
    return values


def _as_log_density(log_density: ArrayLike, labels: jax.Array) -> jax.Array:
    log_density = _as_floating("log_density", log_density, labels)
    values = _checks.values(log_density)
    if values is not None and (values != values).any():
        raise ValueError(f"log_density must not be nan, found {(values != values).sum()} nan")
    return log_density


def _as_weights(weights: ArrayLike, labels: jax.Array) -> jax.Array:
    return _checks.nonnegative("weights", _as_floating("weights", weights, labels))


def _check_mass(weights: jax.Array) -> None:
    known = _checks.values(weights)
    if known is not None and not (known >= jnp.finfo(known.dtype).tiny).any():  # else 0 to XLA
        raise ValueError(f"weights must not all be 0 to be diagnosed, found up to {known.max()}")


def _as_scalar(name: str, number: ArrayLike) -> jax.Array:
    number = jnp.asarray(number, jnp.result_type(number, float))
    if number.ndim:
        raise ValueError(f"{name} must be a scalar, found shape {number.shape}")
    return number


def _as_temperature(temperature: ArrayLike) -> jax.Array:
    return _checks.positive("temperature", _as_scalar("temperature", temperature))
