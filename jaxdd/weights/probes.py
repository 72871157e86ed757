"""Probes: what can be told of the classes from numbers of the images, never from a sample itself.

A probe is a linear head, cross-fitted: each sample's probabilities come from a head that has not
seen it, so that no exception is learnt by heart. From the views of `jaxdd.weights.blind_features`, which cannot see
the object, the class that a probe says is the bias attribute of a sample, or nearly so.

Where a probe that cannot see the object tells the classes at least as well as one that can, most of
what a network would learn of these data is not the object: `shortcut` looks for that.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.cluster import hierarchy

from jaxdd import _checks

_LARGEST = 2**25  # entries of scores, all folds together, before the folds go one by one


class Shortcut(NamedTuple):
    """How two probes tell the classes, or blocks of classes, apart.

    Attributes:
        blocks: block of each class, `[k]`.
        blind: share of samples that the probe which cannot see the object puts into a wrong block.
        baseline: the same of the probe that can.
        z_score: standard errors by which the first is the smaller one.
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
    """Returns the probabilities of the classes by multinomial logistic regression, `[n, k]`.

    The samples of each class are dealt out to the folds; the probabilities of a fold follow from
    the others, their temperature from all. The standardised features are cut off at eight
    deviations. Newton steps with Böhning's bound of the curvature (1992), which is the same in all
    steps, and Nesterov's momentum.

    With a power q the loss becomes the generalised cross-entropy (1 − p^q) / q of Zhang and Sabuncu
    (2018), whose gradient is that of the cross-entropy times p^q. Exceptions no longer pull the
    head, and it says what most samples of a class have in common: with a bias, the attribute alone
    (Nam et al., "Learning from Failure", 2020). The bound holds for it as well, since its curvature
    is p^q times that of the cross-entropy less a square. No temperature is fitted to these.

    Args:
        key: of the folds.
        features: `[n, d]` finite.
        labels: `[n]` integers in [0, num_classes).
        num_classes: k.
        folds: two or more. A class with fewer samples is missing in some of the heads.
        penalty: of the squared weights beside the mean loss.
        steps: of the optimiser along the cross-entropy.
        power: q in [0, 1] of the loss of twice as many further steps; 0 for none.

    Raises:
        TypeError: features are not floating or labels not integers.
        ValueError: shapes do not fit, features are not finite, labels are out of range, or folds
            are less than two or more than the samples, the penalty is not positive, there are no
            steps or the power is not in [0, 1].
    """
    features = _checks.floating("features", features)
    labels = _checks.integers("labels", labels, num_classes)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features must be [n, d] and labels [n], found {features.shape} and {labels.shape}"
        )
    folds, steps = _checks.count("folds", folds), _checks.count("steps", steps)
    if not 2 <= folds <= len(labels):
        raise ValueError(f"folds must lie in [2, {len(labels)}], the samples, found {folds}")
    if not 0 <= power <= 1:
        raise ValueError(f"power must lie in [0, 1], found {power}")
    _checks.finite("features", features)
    _checks.positive("penalty", penalty)
    options = dict(num_classes=num_classes, folds=folds, penalty=penalty, steps=steps, power=power)
    return _crossfit(key, features, labels, **options)


@functools.partial(jax.jit, static_argnames=("num_classes", "folds", "steps", "power"))
def _crossfit(key, features, labels, *, num_classes, folds, penalty, steps, power):
    fold, x = assign_folds(key, labels, folds=folds), _standardised(features)
    head = functools.partial(
        _scores, x, jax.nn.one_hot(labels, num_classes), penalty=penalty, steps=steps, power=power
    )
    at_once = min(folds, max(1, _LARGEST // (len(labels) * num_classes)))
    used = fold != jnp.arange(folds)[:, None]
    # One matrix after the other: programs at once that factorise several at once wait for each
    # other for good in jaxlib 0.10, whose LAPACK waits in a thread of XLA for XLA's threads.
    bounds = jax.lax.map(functools.partial(_inverse_bound, x, penalty=penalty), used)
    scores = jax.lax.map(lambda own: head(*own), (used, bounds), batch_size=at_once)
    scores = jnp.take_along_axis(scores, fold[None, :, None], 0)[0]
    return jax.nn.softmax(scores if power else scores * _temperature(scores, labels))


def _temperature(scores, labels):
    """The inverse one at which scores tell the labels best."""
    tried = 10 ** jnp.linspace(-1, 1, 41)
    own = lambda x: jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1).mean()
    return tried[jax.vmap(lambda t: own(scores * t))(tried).argmax()]


def assign_folds(key: jax.Array, labels: jax.Array, *, folds: int) -> jax.Array:
    """Returns the fold of each sample, `[n]`: those of a class are dealt out in turn.

    Args:
        key: of the order in which they are.
        labels: `[n]`.
        folds: number of them.
    """
    order = jax.random.permutation(key, len(labels))
    order = order[jnp.argsort(labels[order], stable=True)]
    return jnp.zeros(len(labels), int).at[order].set(jnp.arange(len(labels)) % folds)


def _standardised(features):
    """Features in deviations from their mean, at most eight, and a column of ones."""
    x = (features - features.mean(0)) / (features.std(0) + 1e-6)
    return jnp.concatenate([jnp.clip(x, -8, 8), jnp.ones((len(x), 1))], 1)


def _shrinkage(x, penalty):
    return jnp.full(x.shape[1], penalty).at[-1].set(1e-6)


def _inverse_bound(x, used, *, penalty):
    """The inverse of what bounds the curvature of the loss of some samples, `[d, d]`."""
    bound = 0.5 * (x * (used / used.sum())[:, None]).T @ x + jnp.diag(_shrinkage(x, penalty))
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(bound), jnp.eye(len(bound)))


def _scores(x, onehot, used, inverse_bound, *, penalty, steps, power):
    """Scores of all samples by a head that is fitted to some, `[n, k]`."""
    share, shrink = used / used.sum(), _shrinkage(x, penalty)[:, None]

    def step(carry, count):
        old, ahead, pace = carry
        told = jax.nn.softmax(x @ ahead)
        pull = share * jnp.where(count < steps, 1.0, (told * onehot).sum(1) ** power)
        slope = x.T @ (pull[:, None] * (told - onehot)) + shrink * ahead
        new = ahead - inverse_bound @ slope
        turned = jnp.vdot(ahead - new, new - old) > 0  # O'Donoghue and Candès (2015)
        faster = jnp.where(turned, 1.0, (1 + jnp.sqrt(1 + 4 * pace**2)) / 2)
        ahead = new + jnp.where(turned, 0.0, (pace - 1) / faster) * (new - old)
        return (new, ahead, faster), None

    start = jnp.zeros((x.shape[1], onehot.shape[1]))
    counts = jnp.arange(3 * steps if power else steps)
    (fitted, _, _), _ = jax.lax.scan(step, (start, start, jnp.ones(())), counts)
    return x @ fitted


def shortcut(blind: ArrayLike, seeing: ArrayLike, labels: ArrayLike) -> Shortcut:
    """Returns the blocks of classes which a blind probe tells best, compared with a seeing one.

    An attribute that several classes share, such as grey images, tells blocks of classes apart.
    Classes that the blind probe takes for each other are joined one after the other (average
    linkage), down to two blocks; blocks of which one has more than three quarters of the samples
    are passed over, since little is to be told there. Of the others the smallest blocks are taken
    that the blind probe tells at least three quarters as surely as those that it tells best. Every
    other sample of a class decides about the blocks and the rest about the numbers, or many classes
    would always have blocks that chance favours.

    Args:
        blind: `[n, k]` probabilities by a view that cannot see the object.
        seeing: `[n, k]` by one that can, of the same samples.
        labels: `[n]` integers in [0, k).

    Raises:
        TypeError: labels are not integers or probabilities not floating.
        ValueError: shapes do not fit, labels are out of range or probabilities not finite.
    """
    blind, seeing, labels = (np.asarray(each) for each in (blind, seeing, labels))
    if blind.ndim != 2 or seeing.shape != blind.shape:
        raise ValueError(f"blind and seeing must be [n, k], found {blind.shape}, {seeing.shape}")
    _checks.integers("labels", labels, blind.shape[1], length=len(blind))
    for name, each in (("blind", blind), ("seeing", seeing)):
        _checks.finite(name, _checks.floating(name, each))
    decides = np.zeros(len(labels), bool)
    decides[np.argsort(labels, kind="stable")[::2]] = True
    sides = [[each[part] for each in (blind, seeing, labels)] for part in (decides, ~decides)]
    found = []
    for blocks in _joined(sides[0][0], sides[0][2]):
        if np.bincount(blocks[labels]).max() <= 0.75 * len(labels):
            found.append((blocks, _compared(blocks, *sides[0]).z_score))
    if not found or not len(sides[1][2]):
        return Shortcut((0,) * blind.shape[1], 0.0, 0.0, 0.0)
    best = max(deviations for _, deviations in found)
    least = min(best, 0.75 * best)
    return _compared(next(blocks for blocks, each in found if each >= least), *sides[1])


def _compared(blocks, blind, seeing, labels):
    own, of = blocks[labels], np.eye(blocks.max() + 1)[blocks]
    wrong = [(each @ of).argmax(1) != own for each in (blind, seeing)]
    differ = wrong[1].astype(float) - wrong[0]
    error = np.sqrt(np.maximum(np.mean(differ**2), 1 / len(own)) / len(own))
    first, second = (float(each.mean()) for each in wrong)
    return Shortcut(tuple(blocks.tolist()), first, second, float(differ.mean() / error))


def _joined(probabilities, labels):
    """Blocks `[k]` of the classes, from all apart to two, in at most 32 stages."""
    k = probabilities.shape[1]
    if k < 2:
        return
    of = np.eye(k)[labels]
    taken = of.T @ probabilities / np.maximum(of.sum(0), 1)[:, None]
    alike = (taken + taken.T)[np.triu_indices(k, 1)]
    tree = hierarchy.linkage(alike.max() - alike, "average")
    for count in np.unique(np.rint(np.geomspace(2, k, 32)).astype(int))[::-1]:
        yield hierarchy.cut_tree(tree, count)[:, 0]
