"""Choose weights for a pool without bias labels, or keep uniform weights.

`choose` works in three stages and stops at the first one that succeeds:

1. Shortcut tests. If object-blind features predict the classes better than baseline features that
   show the object, they show a bias, and their groups are balanced. This detects corruptions, grey
   images and backgrounds, which the encoder hardly sees. It depends on the features alone: classes
   that *are* textures look like a bias.
2. Density search. Encoder steps, bandwidth and temperature are searched for the density weights
   that balance the bias groups best. The groups are unknown, so the predictions of an early
   classifier are used as pseudo-groups: it learns the bias before the classes, and the class whose
   mean embedding is nearest is almost the bias attribute (`experiments/auto_rules.py`).
3. Probe network check. Without a bias, the samples that disagree with the early classifier are the
   hard ones, and weights towards them cost accuracy. Small networks trained on a few images drawn
   by the weights distinguish the two cases: bias-conflicting samples are as easy as others once the
   bias is gone, whereas hard samples remain hard. `rejection` decides.
"""

import functools
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import _checks, augment, evaluate, networks, sampling
from jaxdd.devices import parallel
from jaxdd.weights import blind_features, formulas, probes
from jaxdd.weights.density_weights import DensityWeights, Search, density_candidates
from jaxdd.weights.feature_weights import (
    FeatureWeights,
    by_feature_sets,
    by_features,
    is_shortcut,
    shortcuts,
)

_MAX_CORRELATION = 0.5
"""Maximum correlation of conflict scores within classes of feature sets that show two biases."""

_MIN_CONFLICTING = 20
"""Minimum number of bias-conflicting held-out samples for the probe network check."""

_MAX_COMBINED = 2**28  # Maximum size of the probabilities of combined groups, for memory.
_MAX_FOLD = 2**32 - 1  # For `fold_in`; differs from the step numbers of encoders, which are small.


class Trial(NamedTuple):
    """Mean accuracy of probe networks on held-out samples.

    Attributes:
        overall: mean of the two below, by their shares of the pool; nan if one of them is empty.
        aligned: on samples whose label agrees with the early classifier.
        conflicting: on samples whose label disagrees with it.
        count: number of held-out conflicting samples.
    """

    overall: float
    aligned: float
    conflicting: float
    count: int


class Choice(NamedTuple):
    """The chosen weights and the reasons for them; `kind` is the stage that they come from.

    Attributes:
        weights: `[n]`.
        density: density weights with their embeddings, if chosen.
        candidates: values of each searched candidate, and the group evenness of its weights by the
            pseudo-groups. Empty if a shortcut was detected.
        best: position of the most even candidate.
        trials: results of the probe network check for "uniform" weights and for the "best".
        rejection: why uniform weights were kept, or None.
        shortcuts: result of the shortcut test of each feature set.
        features: the feature sets whose groups are balanced, most significant first, if chosen.
    """

    weights: jax.Array
    density: DensityWeights | None = None
    candidates: Sequence[dict[str, float]] = ()
    best: int = 0
    trials: Mapping[str, Trial] = types.MappingProxyType({})
    rejection: str | None = None
    shortcuts: Mapping[str, probes.Shortcut] = types.MappingProxyType({})
    features: Mapping[str, FeatureWeights] = types.MappingProxyType({})

    @property
    def kind(self) -> Literal["features", "density", "uniform"]:
        """The stage that the weights come from."""
        if self.features:
            return "features"
        return "density" if self.rejection is None else "uniform"

    @property
    def feature_names(self) -> str | None:
        """Names of the balanced feature sets, for example "tone" or "layout and tone"."""
        return " and ".join(self.features) or None

    def record(self) -> dict[str, Any]:
        """Return the choice without its arrays, for JSON."""
        return {
            "uniform": self.kind == "uniform",
            "rejection": self.rejection,
            "features": self.feature_names,
            "shortcuts": {name: test._asdict() for name, test in self.shortcuts.items()},
            "best": self.candidates[self.best] if self.candidates else None,
            "trials": {name: trial._asdict() for name, trial in self.trials.items()},
            "candidates": list(self.candidates),
        }


def choose(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    strategy: augment.Strategy,
    search: Search = Search(),
    clip: float | None = None,
    comparisons: Mapping[str, blind_features.Comparison] = blind_features.COMPARISONS,
    check: Callable[[sampling.Pool, jax.Array], Callable[[jax.Array], Trial]] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Choice:
    """Choose weights of shortcut features, else the best density weights, else uniform weights.

    This function runs on the host and cannot be transformed by JAX.

    Args:
        key: random key for encoders, probes and probe networks.
        pool: the samples; their weights are ignored.
        strategy: augmentation of encoders and probe networks; it must preserve the class.
        search: density weights to search.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
        comparisons: object-blind features and their baselines by name, see `shortcuts`; {} to skip
            the shortcut tests.
        check: tests whether weights help: from a pool and its pseudo-groups `[n]` to a function
            from weights `[n]` to a `Trial`. Defaults to `check_with_probe_networks`.
        report: called as `report(done, total)` after each stage.
    """
    formulas.check_limit("clip", clip)
    _check_search(search)
    _checks.concrete("weights.choose", key, pool)
    key_check, key_features = (jax.random.fold_in(key, _MAX_FOLD - i) for i in range(2))
    if check is None:
        check = functools.partial(check_with_probe_networks, key_check, strategy=strategy)
    report(0, 3)
    tests = shortcuts(key_features, pool, comparisons=comparisons)
    features = _distinct_features(key_features, pool, tests, comparisons, clip)
    if features:
        report(3, 3)
        weights = by_feature_sets(pool, list(features.values()), clip=clip)
        return Choice(weights, shortcuts=tests, features=features)
    report(1, 3)
    candidates = list(density_candidates(key, pool, strategy=strategy, search=search, clip=clip))
    choice, groups = _most_even(candidates, pool)
    report(2, 3)
    trial = check(pool, groups)
    uniform = formulas.uniform(pool.labels, num_classes=pool.num_classes)
    trials = {"uniform": trial(uniform), "best": trial(choice.weights)}
    report(3, 3)
    choice = choice._replace(trials=trials, shortcuts=tests)
    reason = rejection(trials["uniform"], trials["best"])
    if reason is None:
        return choice
    return choice._replace(weights=uniform, density=None, rejection=reason)


def _check_search(search):
    """Raise ValueError for values that would fail only after an encoder was trained."""
    for name in ("encoder_steps", "bandwidth", "temperature"):
        if not len(getattr(search, name)):
            raise ValueError(f"{name} of a search must have at least one value, got ().")
    for steps in search.encoder_steps:
        _checks.count("encoder_steps", steps, minimum=0)
    for name in ("bandwidth", "temperature"):
        _checks.positive(name, np.asarray(getattr(search, name), float))


# Two feature sets often show one bias: grey images differ in tone and in texture. Balancing both
# would split the samples into needlessly many groups. The two count as one bias if their conflict
# scores correlate within the classes.
def _distinct_features(key, pool, tests, comparisons, clip):
    """Return the weights of each shortcut that shows a separate bias, most significant first."""
    features = {}
    passed = [name for name, test in tests.items() if is_shortcut(test)]
    for name in sorted(passed, key=lambda name: -tests[name].z_score):
        weights = by_features(
            key, pool, comparisons[name].features, blocks=tests[name].blocks, clip=clip
        )
        others = features.values()
        size = math.prod(x.groups.shape[1] for x in (weights, *others))
        is_distinct = all(_correlation(weights, x, pool) < _MAX_CORRELATION for x in others)
        if not features or (is_distinct and size * len(pool.labels) <= _MAX_COMBINED):
            features[name] = weights
    return features


def _correlation(first, second, pool):
    """Return the correlation of two conflict scores within the classes."""
    count = jnp.maximum(pool.count, 1)

    def centred(score):
        total = jax.ops.segment_sum(score, pool.labels, pool.num_classes)
        return score - (total / count)[pool.labels]

    x, y = centred(first.conflict_score), centred(second.conflict_score)
    return (x @ y) / jnp.maximum(jnp.sqrt((x @ x) * (y @ y)), 1e-12)


def pseudo_groups(embeddings: jax.Array, labels: jax.Array, *, num_classes: int) -> jax.Array:
    """Return for every sample the class whose mean embedding is nearest, `[n]`.

    These predictions of an early classifier approximate the bias attribute: an encoder that was
    trained for a short time has learned the bias rather than the classes.

    Args:
        embeddings: `[n, d]` of an encoder trained for a short time.
        labels: `[n]`.
        num_classes: k, static; classes without samples are never the nearest.

    >>> embeddings = jnp.array([[0.0], [0.2], [1.0], [0.9], [1.1]])
    >>> pseudo_groups(embeddings, jnp.array([0, 0, 0, 1, 1]), num_classes=2).tolist()
    [0, 0, 1, 1, 1]
    """
    count = jax.ops.segment_sum(jnp.ones(len(labels)), labels, num_classes)
    mean = jax.ops.segment_sum(embeddings, labels, num_classes) / jnp.maximum(count, 1)[:, None]
    # |x|² is left out of the squared distance, because it does not change which mean is nearest.
    squared = (mean**2).sum(1)[None] - 2 * jnp.matmul(embeddings, mean.T, precision="highest")
    return jnp.where((count > 0)[None], squared, jnp.inf).argmin(1)


def _most_even(candidates, pool) -> tuple[Choice, jax.Array]:
    """Return the choice of the candidate that balances the pseudo-groups best, and the groups.

    The pseudo-groups are those of the longest encoder, the last one.
    """
    k = pool.num_classes
    groups = pseudo_groups(candidates[-1][1].embeddings, pool.labels, num_classes=k)
    sizes = dict(num_classes=k, num_attributes=k)
    evenness = [
        float(formulas.group_evenness(density.weights, pool.labels, groups, **sizes))
        for _, density in candidates
    ]
    best = int(np.argmax(evenness))
    records = [
        {**values, "evenness": score}
        for (values, _), score in zip(candidates, evenness, strict=True)
    ]
    density = candidates[best][1]
    return Choice(density.weights, density, records, best), groups


def rejection(uniform: Trial, weighted: Trial) -> str | None:
    """Return why weights are rejected, or None if they are accepted.

    The gain of weights on bias-conflicting samples must exceed three limits:

    * two standard errors of a difference of two proportions, at most √(2 / m) for m samples;
    * the gap that remains between bias-aligned and bias-conflicting samples. Without a bias the
      conflicting samples are hard, and no weights close this gap;
    * half of the loss on all samples. Below it, even a test set of which two thirds are
      bias-conflicting would not gain.

    >>> biased, hard = Trial(0.95, 0.99, 0.1, 400), Trial(0.9, 0.91, 0.3, 400)
    >>> rejection(biased, Trial(0.7, 0.7, 0.7, 400))
    >>> rejection(hard, Trial(0.8, 0.82, 0.4, 400))
    'bias-conflicting samples gain 0.100, not more than the remaining gap to aligned ones (0.420)'
    """
    count = uniform.count
    if not count:
        return "no held-out sample disagrees with the early classifier"
    if count < _MIN_CONFLICTING:
        return (
            f"only {count} held-out samples disagree with the early classifier, "
            f"at least {_MIN_CONFLICTING} are needed"
        )
    gain = weighted.conflicting - uniform.conflicting
    limits = {
        "two standard errors": (2 / count) ** 0.5,
        "the remaining gap to aligned ones": weighted.aligned - weighted.conflicting,
        "half of the overall loss": (uniform.overall - weighted.overall) / 2,
    }
    name, limit = max(limits.items(), key=lambda item: item[1])
    if gain > limit:
        return None
    return f"bias-conflicting samples gain {gain:.3f}, not more than {name} ({limit:.3f})"


def check_with_probe_networks(
    key: jax.Array,
    pool: sampling.Pool,
    groups: jax.Array,
    *,
    strategy: augment.Strategy,
    network: networks.Network | None = None,
    sets: int = 4,
    ipc: int = 10,
    epochs: int = 100,
    max_held_out: int = 1000,
) -> Callable[[jax.Array], Trial]:
    """Return a function that scores weights by training probe networks on a few real images.

    This function runs on the host and cannot be transformed by JAX.

    The images are drawn by the weights, as many as a distilled set would have. A fifth of the
    samples that agree with their pseudo-group, and a fifth of those that disagree, are held out and
    used for the scores only. If a fifth is less than 20 samples, up to a half is held out, but
    never more than half of a class. Nothing is trained if no sample disagrees.

    Args:
        key: random key for the held-out samples, the sets and the networks.
        pool: the samples.
        groups: `[n]` from `pseudo_groups`.
        strategy: augmentation when the networks are trained.
        network: architecture of the networks. Defaults to a ConvNet of width 32.
        sets: number of drawn sets, each of which trains one network.
        ipc: images per class of a set.
        epochs: training epochs.
        max_held_out: largest number of held-out samples of either kind.

    Returns:
        A function from weights `[n]` to a `Trial`.
    """
    _checks.concrete("weights.check_with_probe_networks", key, pool, groups)
    strategy = augment.as_strategy(strategy)
    _checks.integers("groups", groups, pool.num_classes, length=len(pool.labels))
    for name, number in dict(sets=sets, ipc=ipc, epochs=epochs, max_held_out=max_held_out).items():
        _checks.count(name, number)
    k, agrees = pool.num_classes, np.asarray(groups == pool.labels)
    if network is None:
        network = networks.ConvNet(k, 32, networks.max_blocks(pool.images.shape))
    key, key_held_out = jax.random.split(key)
    held_out = _hold_out(key_held_out, np.asarray(pool.labels), agrees, max_held_out)
    # The pseudo-group of a sample is a class. It serves as the bias attribute of the task, and a
    # sample is bias-aligned if it is the sample's own class.
    images, attributes = parallel.to_local(pool.images[held_out]), jnp.asarray(groups)[held_out]
    test = images, pool.labels[held_out], attributes, jnp.arange(k)
    task = evaluate.Task(*test, pool.mean, pool.std, k, k, strategy)

    # The task is an argument: XLA would fold held-out images that the function closes over.
    def score(rows, task):
        def score_one(row):
            key, images = row
            scores = evaluate.evaluate(key[None], network, images, task, epochs=epochs)
            return scores.aligned[0], scores.conflicting[0]

        return jax.lax.map(score_one, rows)

    score_all = parallel.thread_rows(score)
    share, count = np.mean(agrees), int((~agrees[held_out]).sum())

    def trial(weights: jax.Array) -> Trial:
        if not count:
            return Trial(float("nan"), float("nan"), float("nan"), 0)
        # Held-out samples get weight 0. The floor keeps a class whose only weight was held out.
        remaining = (jnp.asarray(weights) + 1e-30).at[held_out].set(0)
        train_pool = sampling.reweight(pool, remaining)
        draw = functools.partial(sampling.initial_real, pool=train_pool, ipc=ipc, weighted=True)
        drawn = [draw(jax.random.fold_in(key, i)) for i in range(sets)]
        images = jnp.stack(parallel.to_local(drawn))
        scores = score_all((jax.random.split(key, sets), images), task)
        aligned, conflicting = (float(accuracy.mean()) for accuracy in scores)
        overall = share * aligned + (1 - share) * conflicting
        return Trial(float(overall), aligned, conflicting, count)

    return trial


def _hold_out(key, labels, agrees, maximum):
    """Return the indices of the held-out samples, those that agree first."""
    order = np.asarray(jax.random.permutation(key, len(labels)))
    parts = [order[agrees[order] == which] for which in (True, False)]
    share = lambda n: min(maximum, max(n // 5, min(_MIN_CONFLICTING, n // 2)))
    chosen = np.concatenate([part[: share(len(part))] for part in parts])
    own = labels[chosen]
    # Rank of each chosen sample in its class; keep ranks below half of the size of the class.
    rank = np.argsort(np.argsort(own, kind="stable")) - np.searchsorted(np.sort(own), own)
    return chosen[rank < np.bincount(labels)[own] // 2]
