"""Weights against values derived by hand, their limits, and diagnostics against scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxdd import kde
from jaxdd.weights import formulas

SIZES = [6, 0, 1, 20, 3]  # Class sizes: one class is empty, one a single sample.
K = len(SIZES)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(K), SIZES))
LOG_DENSITY = np.random.default_rng(1).normal(0, 3, LABELS.size).astype(np.float32)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
clip = jax.jit(formulas.clip, static_argnames="num_classes")
class_log_density = jax.jit(kde.class_log_density, static_argnames="num_classes")
oracle = jax.jit(formulas.oracle, static_argnames=("num_classes", "num_attributes"))
balance_groups = jax.jit(formulas.balance_groups, static_argnames="num_classes")
inverse_density = jax.jit(formulas.inverse_density, static_argnames="num_classes")
uniform = jax.jit(formulas.uniform, static_argnames="num_classes")
effective_sample_size = jax.jit(formulas.effective_sample_size, static_argnames="num_classes")
group_evenness = jax.jit(formulas.group_evenness, static_argnames=("num_classes", "num_attributes"))


def class_sums(weights, labels=LABELS):
    return np.bincount(labels, np.asarray(weights, float), minlength=labels.max() + 1)


def random_weights(seed=0, labels=LABELS):
    weights = np.random.default_rng(seed).exponential(size=labels.size) ** 2
    return (weights / class_sums(weights, labels)[labels]).astype(np.float32)


def test_uniform():
    close(formulas.uniform(LABELS, num_classes=K), 1 / np.array(SIZES)[LABELS])


def test_inverse_density_by_hand():
    """For f = 1, 2, 4 the weights 1/f are 4:2:1, with t = 1/2 their squares 16:4:1.

    The other class is a single sample of weight one, however small its density."""
    log_f, labels = np.log(np.float32([1, 2, 4, 1e-30])), np.array([0, 0, 0, 1])
    weigh = functools.partial(inverse_density, log_f, labels, num_classes=2)
    close(weigh(), [4 / 7, 2 / 7, 1 / 7, 1])
    close(weigh(temperature=0.5), [16 / 21, 4 / 21, 1 / 21, 1])


def test_inverse_density_is_normalised_monotone_and_invariant():
    """Weights sum to one, decrease with density, and ignore units, order and class names."""
    weigh = functools.partial(inverse_density, num_classes=K, temperature=2.0)
    weights = weigh(LOG_DENSITY, LABELS)
    close(class_sums(weights), np.array(SIZES) > 0)
    own = LABELS == 3
    ranks = np.argsort(LOG_DENSITY[own])
    assert (np.diff(weights[own][ranks]) <= 0).all()
    close(weigh(LOG_DENSITY + 300 * LABELS.astype(np.float32), LABELS), weights, rtol=1e-3)
    order = np.random.default_rng(2).permutation(LABELS.size)
    close(weigh(LOG_DENSITY[order], LABELS[order]), weights[order])
    close(weigh(LOG_DENSITY, np.array([4, 2, 0, 1, 3])[LABELS]), weights)


def test_temperature_limits():
    """High temperatures give uniform weights, low ones all weight to the sparsest sample."""
    weigh = functools.partial(inverse_density, LOG_DENSITY, LABELS, num_classes=K)
    close(weigh(temperature=1e6), formulas.uniform(LABELS, num_classes=K), rtol=1e-4)
    sparsest = [LOG_DENSITY[LABELS == k].min(initial=np.inf) for k in range(K)]
    collapsed = (LOG_DENSITY == np.array(sparsest)[LABELS]).astype(float)
    for t in (1e-3, 1e-37):
        close(weigh(temperature=t), collapsed, atol=1e-6)


def test_transformations():
    def weights(log_f, t):
        return formulas.inverse_density(log_f, LABELS, num_classes=K, temperature=t)

    temperatures = jnp.array([0.5, 1.0, 7.0])
    loop = jnp.stack(
        [inverse_density(LOG_DENSITY, LABELS, num_classes=K, temperature=t) for t in temperatures]
    )
    close(weights(LOG_DENSITY, 1.0), loop[1])
    close(jax.jit(jax.vmap(weights, (None, 0)))(LOG_DENSITY, temperatures), loop)
    over_labels = jax.vmap(lambda labels: inverse_density(LOG_DENSITY, labels, num_classes=K))
    close(over_labels(LABELS[None]), loop[1:2])


def test_infinite_densities():
    """-inf counts as the lowest finite log density of the class (here 1), +inf as the highest (2);
    a class without any finite one is uniform. No gradient is nan."""
    inf, weigh = jnp.inf, inverse_density
    log_f = jnp.array([1.0, -inf, 2.0, inf, -inf, -inf, inf])
    labels = jnp.array([0, 0, 0, 0, 1, 1, 2])
    result = weigh(log_f, labels, num_classes=4)
    same = weigh(jnp.array([1.0, 1, 2, 2, 0, 0, 0]), labels, num_classes=4)
    close(result, same)
    close(result[4:], [0.5, 0.5, 1])
    gradient = jax.grad(lambda x: (weigh(x, labels, num_classes=4) ** 2).sum())(log_f)
    assert np.isfinite(gradient).all()


def test_extreme_densities():
    """Log densities at d = 2048 span thousands of nats, and exp of them is 0 or inf."""
    log_f = np.linspace(-9000, 9000, LABELS.size, dtype=np.float32)
    weights = inverse_density(log_f, LABELS, num_classes=K)
    assert np.isfinite(weights).all()
    close(class_sums(weights), np.array(SIZES) > 0)


def test_nan_is_not_spread_over_other_classes():
    log_f = jnp.where(LABELS == 0, jnp.nan, LOG_DENSITY)
    result = inverse_density(log_f, LABELS, num_classes=K)
    np.testing.assert_array_equal(np.isnan(result), LABELS == 0)


def test_density_gradients():
    def weights(log_f, t):
        return formulas.inverse_density(log_f, LABELS, num_classes=K, temperature=t)

    args = jnp.asarray(LOG_DENSITY) / 3, jnp.array(2.0)
    check_grads(jax.jit(weights), args, order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def two_clusters():
    """Return 90 samples around 0 and 10 around (30, 0) of the same shape, in one class."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    shape = np.stack([np.cos(angle), np.sin(angle)], 1)
    points = np.concatenate([np.tile(shape, (9, 1)), shape + [30, 0]])
    return points.astype(np.float32), np.arange(100) >= 90


def kde_weights(x, bandwidth):
    labels = np.zeros(len(x), int)
    log_f = class_log_density(x, labels, bandwidth, num_classes=1)
    return inverse_density(log_f, labels, num_classes=1)


def test_separated_clusters_get_equal_weight():
    """The small cluster has a ninth of the size and of the density of the big one."""
    x, small = two_clusters()
    weights = kde_weights(x, 2.0)
    close(weights[small].sum(), 0.5, rtol=1e-4)
    groups = oracle(np.zeros(100, int), small.astype(int), num_classes=1, num_attributes=2)
    close(weights, groups, rtol=1e-4)


@pytest.mark.parametrize("bandwidth", [1e-3, 1e4])
def test_extreme_bandwidths_give_uniform_weights(bandwidth):
    x, _ = two_clusters()
    x = x + np.random.default_rng(0).normal(0, 0.3, x.shape).astype(np.float32)
    close(kde_weights(x, bandwidth), np.full(100, 0.01), rtol=1e-3)
    assert np.ptp(kde_weights(x, 2.0)) > 0.01


def clip_reference(weights, limit):
    """Clip by sorting, in float64: set the largest to the cap until the others fit."""
    weights, cap = np.asarray(weights, float), limit / len(weights)
    order = np.argsort(-weights)
    for filled in range(len(weights)):
        rest = weights[order[filled:]]
        scaled = rest * (1 - filled * cap) / rest.sum()
        if scaled[0] <= cap * (1 + 1e-12):
            break
    result = np.full(len(weights), cap)
    result[order[filled:]] = scaled
    return result


def test_clip_by_hand():
    """With cap 1.2/3 = .4, .7 is cut to .4 and the others get .6 in ratio 2:1, at most .4."""
    result = clip(jnp.array([0.7, 0.2, 0.1]), jnp.zeros(3, int), num_classes=1, limit=1.2)
    close(result, [0.4, 0.4, 0.2])


@pytest.mark.parametrize("limit", [1.0, 1.3, 2.0, 4.5, 1e9, np.inf])
def test_clip(limit):
    weights = random_weights()
    result = np.asarray(clip(weights, LABELS, num_classes=K, limit=limit))
    for k in (0, 2, 3, 4):
        own = LABELS == k
        capped = min(limit, own.sum())
        close(result[own], clip_reference(weights[own], capped), rtol=1e-4)
        assert result[own].max() <= capped / own.sum() * (1 + 1e-6)
    close(class_sums(result), np.array(SIZES) > 0)
    ess = np.asarray(effective_sample_size(result, LABELS, num_classes=K))
    assert (ess >= np.array(SIZES) / limit * (1 - 1e-5)).all()
    again = clip(result, LABELS, num_classes=K, limit=limit)
    close(again, result, rtol=1e-4)
    close(clip(7 * weights, LABELS, num_classes=K, limit=limit), result, rtol=1e-4)


def test_clip_in_a_large_class():
    """Weights of 60,000 samples that span 20 nats still sum to one in float32."""
    labels = np.repeat([0, 1], [59_000, 1000])
    weights = np.exp(np.random.default_rng(0).uniform(-20, 0, labels.size)).astype(np.float32)
    for limit in (1.0, 1.5, 10.0):
        result = np.asarray(clip(weights, labels, num_classes=2, limit=limit))
        close(class_sums(result, labels), [1, 1], rtol=1e-4)  # A float32 sum of 59,000 terms.
        relative = result * np.array([59_000, 1000])[labels]
        assert relative.max() <= limit * (1 + 1e-5)
        if limit == 1:
            close(relative, 1, rtol=1e-3)


def test_clip_gives_the_rest_to_samples_without_weight():
    """With cap 2/4 the only positive sample gets .5; three of weight zero share the other .5."""
    result = clip(jnp.array([1.0, 0, 0, 0]), jnp.zeros(4, int), num_classes=1, limit=2)
    close(result, [1 / 2, 1 / 6, 1 / 6, 1 / 6])
    nothing = clip(jnp.zeros(4), jnp.zeros(4, int), num_classes=1, limit=3)
    close(nothing, [0.25] * 4)


def test_clip_transformations():
    weights = random_weights()

    def to(weights, limit):
        return formulas.clip(weights, LABELS, num_classes=K, limit=limit)

    limits = jnp.array([1.0, 1.7, 3.0])
    loop = jnp.stack([clip(weights, LABELS, num_classes=K, limit=limit) for limit in limits])
    close(to(weights, 1.7), loop[1])
    close(jax.jit(jax.vmap(to, (None, 0)))(weights, limits), loop)
    args = jnp.asarray(weights) + 0.01, jnp.array(1.7)
    check_grads(jax.jit(to), args, order=1, modes=["rev"], atol=1e-2, rtol=1e-2, eps=1e-3)


def test_oracle():
    """Class 0 has groups of 3, 1 and 0 samples: both groups that occur get weight 1/2."""
    labels = jnp.array([0, 0, 0, 0, 2])
    attributes = jnp.array([1, 1, 0, 1, 2])
    result = formulas.oracle(labels, attributes, num_classes=3, num_attributes=3)
    close(result, [1 / 6, 1 / 6, 1 / 2, 1 / 6, 1])


def test_narrow_integers_do_not_overflow():
    """30 classes with 10 attributes have 300 groups, more than a byte can count."""
    labels = np.arange(30).repeat(4).astype(np.uint8)
    attributes = np.tile([0, 0, 0, 9], 30).astype(np.int8)
    result = oracle(labels, attributes, num_classes=30, num_attributes=10)
    close(result, np.tile([1 / 6, 1 / 6, 1 / 6, 1 / 2], 30))
    balance = group_evenness(result, labels, attributes, num_classes=30, num_attributes=10)
    close(balance, 1)


def test_effective_sample_size():
    """Uniform weights give n_k, a single one 1, weights 3:1 16/10, an empty class 0."""
    labels = jnp.array([0, 0, 0, 1, 1, 2, 2])
    weights = jnp.array([0.2, 0.2, 0.2, 0, 5, 3e-25, 1e-25])
    close(effective_sample_size(weights, labels, num_classes=4), [3, 1, 1.6, 0])


fast = jax.jit(formulas.diagnose, static_argnames=("num_classes", "num_attributes"))


def diagnose(weights, labels, attributes, aligned, groups=3):
    arrays = map(jnp.asarray, (weights, labels, attributes, aligned))
    return fast(*arrays, num_classes=len(aligned), num_attributes=groups)


def test_diagnose_by_hand():
    """Weights of class 0 are .1 and .2 for aligned samples, .2 and .5 for conflicting ones.

    In three of the four pairs the conflicting sample is heavier, and one pair is a tie: the AUC is
    3.5/4, the conflict weight share .7. Groups 0, 1 and 2 have weights .3, .2 and .5. Class 1 is a
    single aligned sample: AUC and evenness are undefined, the share is 0, the effective sample size
    1. Class 2 is empty.
    """
    result = diagnose(
        [0.1, 0.2, 0.2, 0.5, 1.0], [0, 0, 0, 0, 1], [0, 0, 1, 2, 1], aligned=[0, 1, 2]
    )
    entropy = -sum(p * np.log(p) for p in (0.3, 0.2, 0.5)) / np.log(3)
    ess = (1 / (0.01 + 0.04 + 0.04 + 0.25) + 1) / 2
    close(result, [3.5 / 4, 0.7 / 2, entropy, ess])


def test_diagnose_known_weights():
    """Uniform weights have an AUC of 1/2 and do not change shares.

    The oracle balances the groups of every class, so that the conflicting ones get nine tenths."""
    n, k = 20_000, 10
    rng = np.random.default_rng(0)
    labels = rng.integers(0, k, n)
    attributes = np.where(rng.uniform(size=n) < 0.2, rng.integers(0, k, n), labels)
    plain = uniform(labels, num_classes=k)
    result = diagnose(plain, labels, attributes, np.arange(k), k)
    share = np.mean([(attributes != labels)[labels == c].mean() for c in range(k)])
    close(result.conflict_auc, 0.5)
    close(result.conflict_weight_share, share, rtol=1e-4)
    close(result.effective_sample_size, n / k, rtol=1e-4)
    best = oracle(labels, attributes, num_classes=k, num_attributes=k)
    result = diagnose(best, labels, attributes, np.arange(k), k)
    close(result[:3], [1, 0.9, 1], rtol=1e-4)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_equals_scikit_learn(ties):
    metrics = pytest.importorskip("sklearn.metrics")
    n, k = 60_000, 100
    rng = np.random.default_rng(0)
    labels, attributes = rng.integers(0, k, n), rng.integers(0, 3, n)
    weights = rng.exponential(1 + attributes).astype(np.float32)
    weights = np.ceil(weights * 2) if ties else weights
    aligned = np.arange(k) % 3
    conflicts = attributes != aligned[labels]
    expected = [
        metrics.roc_auc_score(conflicts[labels == c], weights[labels == c]) for c in range(k)
    ]
    result = diagnose(weights, labels, attributes, aligned)
    close(result.conflict_auc, np.mean(expected))


def test_diagnose_is_nan_where_undefined():
    result = diagnose([0.5, 0.5], [0, 0], [1, 1], aligned=[1, 0])
    np.testing.assert_array_equal(np.isnan(result), [True, False, True, False])
    close(result.conflict_weight_share, 0)
    assert np.isnan(diagnose([0.0, 0.0], [0, 0], [1, 0], aligned=[1, 0])).all()


def test_diagnose_is_invariant_and_transformable():
    rng = np.random.default_rng(3)
    attributes, weights = rng.integers(0, 3, LABELS.size), random_weights()
    aligned = np.arange(K) % 3
    result = np.asarray(diagnose(weights, LABELS, attributes, aligned))
    order = rng.permutation(LABELS.size)
    close(diagnose(weights[order], LABELS[order], attributes[order], aligned), result)
    close(diagnose(100 * weights, LABELS, attributes, aligned), result)
    each = jax.jit(jax.vmap(diagnose, (0, None, None, None)))
    batch = each(np.stack([weights, weights[::-1]]), LABELS, attributes, aligned)
    close([b[0] for b in batch], result)


y, w, a = np.array([0, 1, 1]), np.ones(3, np.float32), np.array([2, 0, 1])
inverse = functools.partial(formulas.inverse_density, num_classes=2)
cut = functools.partial(formulas.clip, num_classes=2, limit=2.0)
best = functools.partial(formulas.oracle, num_classes=2, num_attributes=3)
report = functools.partial(formulas.diagnose, num_classes=2, num_attributes=3)
INVALID = [
    (lambda: formulas.uniform(y, num_classes=1), ValueError, r"got 0\.\.1"),
    (lambda: formulas.uniform(y - 1, num_classes=1), ValueError, r"got -1\.\.0"),
    (lambda: formulas.uniform(w, num_classes=2), TypeError, "float32"),
    (lambda: formulas.uniform(y[None], num_classes=2), ValueError, r"got \(1, 3\)"),
    (lambda: formulas.uniform(y, num_classes=0), ValueError, "got 0"),
    (lambda: formulas.uniform(y[:0], num_classes=2), ValueError, r"got shape \(0,\)"),
    (lambda: inverse(w[:2], y), ValueError, r"log_density .* got \(2,\)"),
    (lambda: inverse(y, y), TypeError, "int32"),
    (lambda: inverse(w * np.nan, y), ValueError, "got nan"),
    (lambda: inverse(w, y, temperature=0.0), ValueError, "got 0.0"),
    (lambda: inverse(w, y, temperature=np.inf), ValueError, "got inf"),
    (lambda: inverse(w, y, temperature=np.nan), ValueError, "got nan"),
    (lambda: inverse(w, y, temperature=w), ValueError, r"got shape \(3,\)"),
    (lambda: inverse(w, y, temperature=1e-40), ValueError, "e-41"),
    (lambda: cut(w, y, limit=0.5), ValueError, "got 0.5"),
    (lambda: cut(w, y, limit=np.nan), ValueError, "got nan"),
    (lambda: cut(w, y, limit=w), ValueError, r"got shape \(3,\)"),
    (lambda: cut(-w, y), ValueError, "got -1.0"),
    (lambda: cut(w * np.nan, y), ValueError, "got nan"),
    (lambda: cut(w * (y == 1), y), ValueError, "class sum of 0"),
    (lambda: best(y, a[:, None]), ValueError, r"got \(3, 1\)"),
    (lambda: best(y, a[:2]), ValueError, r"got \(2,\)"),
    (lambda: best(y, a + 1), ValueError, r"got 1\.\.3"),
    (lambda: formulas.balance_groups(y, w, num_classes=2), ValueError, r"got \(3,\)"),
    (lambda: formulas.effective_sample_size(w[:2], y, num_classes=2), ValueError, r"got \(2,\)"),
    (lambda: report(w, y, a, a), ValueError, r"got \(3,\)"),
    (lambda: report(w, y, a, a[:2] + 2), ValueError, r"got 2\.\.4"),
    (lambda: report(-w, y, a, a[:2]), ValueError, "got -1.0"),
    (lambda: report(0 * w, y, a, a[:2]), ValueError, "maximum of 0.0"),
    (lambda: report(w * np.float32(1e-45), y, a, a[:2]), ValueError, "maximum of"),
]


@pytest.mark.parametrize("call, error, value", INVALID)
def test_invalid_arguments_are_rejected(call, error, value):
    with pytest.raises(error, match=value):
        call()


def test_certain_memberships_give_the_oracle():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    groups = np.array([0, 0, 2, 1, 1, 1, 0])
    result = balance_groups(labels, np.eye(3)[groups], num_classes=2)
    close(result, oracle(labels, groups, num_classes=2, num_attributes=3))


def test_uncertain_memberships_by_hand():
    """N is (1.5, .5) in the class: the second group has half the weight of the first."""
    memberships = np.array([[1.0, 0.0], [0.5, 0.5]])
    result = balance_groups(np.zeros(2, int), memberships, num_classes=1)
    first, second = 1 / 1.5, 0.5 / 1.5 + 0.5 / 1
    close(result, np.array([first, second]) / (first + second))
    same = balance_groups(np.zeros(4, int), np.full((4, 3), 1 / 3), num_classes=1)
    close(same, np.full(4, 0.25))


@pytest.mark.parametrize("groups", [0, 2])
def test_class_without_memberships_gets_uniform_weights(groups):
    memberships = np.zeros((3, groups), np.float32)
    memberships[2:] = 1
    result = balance_groups(np.array([0, 0, 1]), memberships, num_classes=2)
    close(result, np.array([0.5, 0.5, 1]))


def test_concrete_values_are_checked_inside_a_trace():
    """A constant in the closure of a jitted function is not a tracer, so it can be checked."""
    labels, wrong = jnp.asarray(y), jnp.asarray(y + 1)
    close(jax.jit(lambda x: inverse(x, labels))(w), [1, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"got 1\.\.2"):
        jax.jit(lambda x: inverse(x, wrong))(w)
