"""Confidence intervals for means over two levels of seeds: distillation and evaluation.

Networks trained on one synthetic set contain no information about other sets. The two-level
bootstrap draws sets first, and then networks within each drawn set (Davison and Hinkley, "Bootstrap
Methods and their Application", 1997, section 3.8).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Interval(NamedTuple):
    """The mean of all scores and the ends of the percentile interval around it."""

    mean: jax.Array
    low: jax.Array
    high: jax.Array


def bootstrap(
    key: jax.Array, scores: ArrayLike, *, level: float = 0.95, samples: int = 2000
) -> Interval:
    """Return the mean of scores and its interval by the two-level bootstrap.

    With few sets the interval is too narrow. In 2,000 simulations with normal scores and equal
    variance between sets and between networks, 95 % intervals covered the true mean in 80 to 85 %
    of the cases with three sets, 86 to 89 % with five and 90 to 93 % with ten. With nine times the
    variance between sets, the coverage was 74 to 76, 84 to 85 and 90 to 92 %.

    Args:
        key: a random key.
        scores: `[s, n]` of s ≥ 2 sets with distillation seeds of their own, and n networks each.
        level: coverage, in (0, 1).
        samples: number of resamples.
    """
    scores = jnp.asarray(scores)
    if scores.ndim != 2 or scores.shape[0] < 2 or not scores.shape[1]:
        raise ValueError(f"scores must be [sets, networks] with two sets, got {scores.shape}")
    sets, networks = scores.shape
    key_sets, key_networks = jax.random.split(key)
    # Sets are drawn first, then networks within each drawn set.
    drawn = jax.random.randint(key_sets, (samples, sets, 1), 0, sets)
    within = jax.random.randint(key_networks, (samples, sets, networks), 0, networks)
    means = scores[drawn, within].mean((1, 2))
    low, high = jnp.quantile(means, jnp.array([(1 - level) / 2, (1 + level) / 2]))
    return Interval(scores.mean(), low, high)


def difference(key: jax.Array, scores: ArrayLike, others: ArrayLike, **options: float) -> Interval:
    """Return the mean difference of paired scores and its interval.

    Entries `[i, j]` of both must come from the same seeds, so that what these have in common
    cancels. `options` are those of `bootstrap`.
    """
    scores, others = jnp.asarray(scores), jnp.asarray(others)
    if scores.shape != others.shape:
        raise ValueError(f"paired scores must have one shape, got {scores.shape}, {others.shape}")
    return bootstrap(key, scores - others, **options)
