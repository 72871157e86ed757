"""Intervals for means over two kinds of seeds: of distillation, and of the networks that judge.

Networks trained on one synthetic set tell nothing of how another set would have done, so the sets
are drawn anew first and then, within each drawn set, its networks (the two-level bootstrap).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdd import _checks


class Interval(NamedTuple):
    """A mean and the percentile interval around it.

    Attributes:
        mean: of all scores.
        low: lower end.
        high: upper end.
    """

    mean: jax.Array
    low: jax.Array
    high: jax.Array


def bootstrap(
    key: jax.Array, scores: ArrayLike, *, level: float = 0.95, samples: int = 2000
) -> Interval:
    """Returns the mean of scores and its interval by the two-level bootstrap.

    Each of the samples draws s sets with replacement, then of each drawn set n networks with
    replacement, and is their mean; the ends are percentiles of the samples. With few sets it is too
    narrow. Of 2,000 simulations with normal scores, where sets differ as much as networks of one
    set do, 95 % intervals held the true mean in 80 to 85 % with three sets, in 86 to 89 % with five
    and in 90 to 93 % with ten, of ten and three networks; where sets differ three times as much,
    in 74 to 76, 84 to 85 and 90 to 92 %.

    Args:
        key: a random key; the same key gives the same interval.
        scores: `[s, n]` of s ≥ 2 sets, each with a distillation seed of its own, and n ≥ 1 networks
            trained on each.
        level: share of the samples inside, in (0, 1).
        samples: resamples, at least 2.

    Raises:
        TypeError: scores that are not floating, or samples that are no integer.
        ValueError: another shape, fewer than two sets, too few samples, a level out of range, or
            (where they are concrete) scores that are not finite, such as those by group where
            groups are not known.

    Source: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.
    """
    scores = _checks.finite("scores", _checks.floating("scores", scores))
    if scores.ndim != 2 or scores.shape[0] < 2 or not scores.shape[1]:
        raise ValueError(
            f"scores must be [sets, networks] with at least two sets, found shape {scores.shape}"
        )
    samples = _checks.count("samples", samples, minimum=2)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}")
    sets, networks = scores.shape
    key_sets, key_networks = jax.random.split(key)
    drawn = jax.random.randint(key_sets, (samples, sets, 1), 0, sets)
    within = jax.random.randint(key_networks, (samples, sets, networks), 0, networks)
    means = scores[drawn, within].mean((1, 2))
    low, high = jnp.quantile(means, jnp.array([(1 - level) / 2, (1 + level) / 2]))
    return Interval(scores.mean(), low, high)


def difference(
    key: jax.Array,
    scores: ArrayLike,
    others: ArrayLike,
    *,
    level: float = 0.95,
    samples: int = 2000,
) -> Interval:
    """Returns by how much scores exceed others on average, and its interval.

    Entry `[i, j]` of both comes from the same seeds, of distillation and of the network, as those
    of the rows of one comparison do: what the seeds have in common cancels.

    Args:
        key: a random key.
        scores: `[s, n]`, as for `bootstrap`.
        others: `[s, n]`, from the same seeds.
        level: share of the samples inside.
        samples: resamples.

    Raises:
        TypeError: as `bootstrap`.
        ValueError: as `bootstrap`, or shapes that differ.
    """
    scores, others = _checks.floating("scores", scores), _checks.floating("others", others)
    if scores.shape != others.shape:
        raise ValueError(
            f"paired scores must have one shape, found {scores.shape} and {others.shape}"
        )
    return bootstrap(key, scores - others, level=level, samples=samples)
