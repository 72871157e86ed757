"""Probe network check: do weights help networks that are trained on a few real images?

Samples that conflict with a candidate's bias groups are either bias-conflicting or, without a bias,
hard. Bias-conflicting samples become as easy as others once the groups have equal weight, whereas
hard samples remain hard. Small networks trained on images drawn by the weights distinguish the two
cases; `rejection` decides.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import _checks, augment, evaluate, networks, sampling, training
from jaxdd.devices import parallel

MIN_CONFLICTING = 20
"""Minimum number of bias-conflicting held-out samples."""

_HELD_OUT = 300
"""Number of held-out samples of either kind to aim for, by holding out up to half of them."""

_MARGIN_SD = np.array([0.05, 0.12, 0.06])
"""Standard deviation between sets of the margins over the limits of `required_gain`.

Pooled over the development sets of `experiments/decisions.py`, and rounded up.
"""

_STOPPING_Z = 3.0
"""Minimum z-score of a decision before all sets are used."""


class Trial(NamedTuple):
    """Mean accuracy of probe networks on held-out samples.

    Attributes:
        overall: mean of `aligned` and `conflicting`, weighted by their shares of the pool; nan if
            one of them is.
        aligned: accuracy on samples in the majority group of their class.
        conflicting: accuracy on the other samples.
        count: number of held-out conflicting samples.
        sets: number of sets that networks were trained on.
    """

    overall: float
    aligned: float
    conflicting: float
    count: int
    sets: int = 0


def rejection(uniform: Trial, weighted: Trial) -> str | None:
    """Return why weights are rejected, or None if they are accepted.

    The gain of weights on bias-conflicting samples must exceed that of `required_gain`.

    >>> biased, hard = Trial(0.95, 0.99, 0.1, 400), Trial(0.9, 0.91, 0.3, 400)
    >>> rejection(biased, Trial(0.7, 0.7, 0.7, 400)) is None
    True
    >>> rejection(hard, Trial(0.8, 0.82, 0.4, 400)) is None  # gains 0.10, the remaining gap is 0.42
    False
    """
    count = uniform.count
    if not count:
        return "no held-out sample is bias-conflicting"
    if count < MIN_CONFLICTING:
        return (
            f"only {count} held-out samples are bias-conflicting, at least {MIN_CONFLICTING} "
            "are required"
        )
    gain = weighted.conflicting - uniform.conflicting
    required, reason = required_gain(uniform, weighted)
    if gain > required:
        return None
    return (
        f"with them, the accuracy on conflicting images changes by {100 * gain:+.1f} percentage "
        f"points. It must rise by more than {100 * required:.1f}, because {reason}"
    )


def required_gain(uniform: Trial, weighted: Trial) -> tuple[float, str]:
    """Return the gain on bias-conflicting samples that weights must exceed, and the reason.

    It is the largest of three limits:

    * two standard errors of a difference of two proportions, at most √(2 / m) for m samples;
    * the gap that remains between bias-aligned and bias-conflicting samples. Without a bias the
      conflicting samples are hard, and no weights close this gap;
    * half of the loss of accuracy on all samples. Below this limit, even the accuracy on a test set
      of which two thirds are bias-conflicting would not rise.

    >>> required_gain(Trial(0.9, 0.91, 0.3, 400), Trial(0.8, 0.85, 0.35, 400))
    (0.5, 'conflicting images remain 50.0 points harder than typical ones')
    """
    error, gap, loss = _limits(uniform, weighted)
    limits = (
        (error, "a smaller gain can be due to chance (two standard errors)"),
        (gap, f"conflicting images remain {100 * gap:.1f} points harder than typical ones"),
        (loss, f"it must make up for half of the loss of {200 * loss:.1f} points on all images"),
    )
    return max(limits, key=lambda limit: limit[0])


def _limits(uniform, weighted):
    """Return the three limits of `required_gain`."""
    error = (2 / uniform.count) ** 0.5
    gap = weighted.aligned - weighted.conflicting
    return error, gap, (uniform.overall - weighted.overall) / 2


# Most decisions are clear after one or two of the sets. By how much the gain exceeds a limit is a
# mean over sets. If it is M_j after j of S sets, its value after all of them has the mean M_j and
# the variance σ² (1 / j − 1 / S). Training stops if the decision would change only if one of the
# margins were three of these standard deviations away, which is unlikely (about 1 % for all looks
# and margins together). This is stochastic curtailment: Lan, Simon and Halperin, "Stochastically
# curtailed tests in long-term clinical trials", 1982. σ was fixed on development sets. It grows for
# few held-out samples, because accuracies are then less exact.
def _is_decided(pairs, sets):
    """Return whether more sets would not change the decision about weights.

    Args:
        pairs: trials of uniform weights and of others, `(uniform, weighted)` for each set so far.
        sets: number of sets in all.
    """
    count = pairs[0][0].count
    if count < MIN_CONFLICTING:
        return True
    gain = [weighted.conflicting - uniform.conflicting for uniform, weighted in pairs]
    limits = [_limits(*pair) for pair in pairs]
    margin = np.mean(np.asarray(gain)[:, None] - limits, 0)
    deviation = _MARGIN_SD * max(1, _HELD_OUT / count) ** 0.5
    bound = _STOPPING_Z * deviation * (1 / len(pairs) - 1 / sets) ** 0.5
    return bool((margin > bound).all() or (margin <= -bound).any())


def check_with_probe_networks(
    key: jax.Array,
    pool: sampling.Pool,
    groups: jax.Array,
    blocks: Sequence[int] | None = None,
    *,
    strategy: augment.Strategy,
    network: networks.Network | None = None,
    sets: int = 4,
    ipc: int = 10,
    epochs: int = 60,
    max_held_out: int = 600,
) -> Callable[..., list[Trial]]:
    """Return a function that scores weights by training probe networks on a few real images.

    This function runs on the host and cannot be transformed by JAX.

    The images are drawn by the weights, as many as a distilled set would have. A fifth of the
    bias-aligned samples and a fifth of the bias-conflicting ones are held out and used for the
    scores only. If a fifth is less than 300 samples, up to a half is held out, but never more than
    half of a class. Nothing is trained if no sample is bias-conflicting.

    Args:
        key: random key for the held-out samples, the sets and the networks.
        pool: the samples.
        groups: `[n]` estimated bias group of each sample, integers in [0, k).
        blocks: `[k]` majority group of each class; samples in other groups are bias-conflicting. By
            default, group c is the majority group of class c.
        strategy: augmentation when the networks are trained.
        network: architecture of the networks. Defaults to a ConvNet of width 32.
        sets: number of drawn sets, each of which trains one network.
        ipc: images per class of a set.
        epochs: training epochs.
        max_held_out: largest number of held-out samples of either kind.

    Returns:
        A function from several weights `[n]` to a `Trial` of each. The networks of all weights
        start from the same parameters. For two weights, of which the first are uniform, it stops
        as soon as more sets are unlikely to change the result of `rejection`.
    """
    _checks.concrete("weights.check_with_probe_networks", key, pool, groups)
    strategy = augment.as_strategy(strategy)
    _checks.integers("groups", groups, pool.num_classes, length=len(pool.labels))
    for name, number in dict(sets=sets, ipc=ipc, epochs=epochs, max_held_out=max_held_out).items():
        _checks.count(name, number)
    k = pool.num_classes
    own_group = jnp.arange(k) if blocks is None else jnp.asarray(blocks)
    _checks.integers("blocks", own_group, k, length=k)
    agrees = np.asarray(groups == own_group[pool.labels])
    if network is None:
        network = networks.ConvNet(k, 32, networks.max_blocks(pool.images.shape))
    key, key_held_out = jax.random.split(key)
    held_out = _hold_out(key_held_out, np.asarray(pool.labels), agrees, max_held_out)
    test_images = parallel.to_local(pool.images[held_out])
    labels = np.asarray(pool.labels)[held_out]
    share, aligned = float(np.mean(agrees)), agrees[held_out]
    count = int((~aligned).sum())

    def trial(*weights: jax.Array) -> list[Trial]:
        if not count:
            return [Trial(float("nan"), float("nan"), float("nan"), 0) for _ in weights]
        # Held-out samples get weight 0. The floor keeps a class whose only weight was held out.
        remaining = [(jnp.asarray(x) + 1e-30).at[held_out].set(0) for x in weights]
        pools = [sampling.reweight(pool, x) for x in remaining]
        drawn = jnp.stack([_draw(key, x, sets, ipc) for x in pools], 1)
        networks.check_classes(network, drawn[0, 0, 0, :1], k)
        trials = []
        for key_set, images in zip(jax.random.split(key, sets), drawn, strict=True):
            keys = jnp.stack([key_set] * len(weights))
            params = _trainer(network, strategy, epochs)((keys, images))
            predicted = _predictor(network)(params, test_images, pool.mean, pool.std)
            trials.append([score(row) for row in np.asarray(predicted) == labels])
            if len(weights) == 2 and _is_decided(trials, sets):
                break
        means = np.mean(trials, 0).tolist()
        return [Trial(mean[0], mean[1], mean[2], count, len(trials)) for mean in means]

    def score(correct):
        parts = correct[aligned], correct[~aligned]
        same, other = (float(x.mean()) if x.size else float("nan") for x in parts)
        return Trial(share * same + (1 - share) * other, same, other, count)

    return trial


def _draw(key, pool, sets, ipc):
    """Return sets of real images drawn by the weights of a pool, `[sets, k, ipc, h, w, c]`."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(sets))
    indices = _draw_indices(keys, pool._replace(images=pool.mean), ipc)
    return parallel.to_local(sampling.take(pool, indices))


@functools.partial(jax.jit, static_argnames="ipc")
def _draw_indices(keys, pool, ipc):
    draw = functools.partial(sampling.without_replacement, weighted=True)
    return jax.vmap(lambda key: draw(key, pool, ipc))(keys)


# Training and prediction are separate programs, because the number of held-out images differs
# between candidates. The functions are kept, so that all candidates use the same programs.
@functools.lru_cache(maxsize=8)
def _trainer(network, strategy, epochs):
    """Return a function that trains a network for each row of keys and sets of images."""

    def train_one(row):
        images, labels = sampling.flatten(row[1])
        options = dict(strategy=strategy, epochs=epochs)
        return training.train(row[0], network, images, labels, **options)

    return parallel.thread_rows(functools.partial(jax.lax.map, train_one))


@functools.lru_cache(maxsize=8)
def _predictor(network):
    """Return a function that predicts the classes of images by each row of parameters."""

    def predict(params, images, mean, std):
        one = lambda row: evaluate.predict(network, row, images, mean=mean, std=std)
        return jax.lax.map(one, params)

    return parallel.thread_rows(predict)


def _hold_out(key, labels, agrees, maximum):
    """Return the indices of the held-out samples, bias-conflicting ones first."""
    order = np.asarray(jax.random.permutation(key, len(labels)))
    parts = [order[agrees[order] == which] for which in (False, True)]
    share = lambda n: min(maximum, max(n // 5, min(_HELD_OUT, n // 2)))
    chosen = np.concatenate([part[: share(len(part))] for part in parts])
    own = labels[chosen]
    # Rank of each chosen sample in its class; keep ranks below half of the size of the class.
    rank = np.argsort(np.argsort(own, kind="stable")) - np.searchsorted(np.sort(own), own)
    return chosen[rank < np.bincount(labels)[own] // 2]
