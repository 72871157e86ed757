"""Choose weights for a pool without bias labels, or keep uniform weights.

`choose` collects candidate biases and stops at the first stage that succeeds:

1. Shortcut tests. If object-blind features predict the classes better than baseline features that
   show the object, they show a bias, and their groups are balanced. This detects corruptions, grey
   images and marks. Classes that *are* textures, for example, also look like a bias.
2. Bimodal candidates. Features whose bias-conflict scores have two modes show a bias or wrong
   labels (`jaxdd.weights.candidates`). The probe network check of their weights decides.
3. Density search, if no candidate is bimodal. Encoder steps, bandwidth and temperature are searched
   for the density weights that balance the bias groups best. The groups are unknown, so the
   predictions of an early classifier are used as pseudo-groups. A network learns the bias before
   the classes, so the class whose mean embedding is nearest approximates the bias attribute
   (`experiments/auto_rules.py`). The probe network check decides.

Otherwise weights stay uniform. If a candidate is bimodal, the verdict is "undecided": a user can
distinguish a bias from wrong labels by looking at the images.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import _checks, augment, sampling
from jaxdd.devices import parallel
from jaxdd.weights import blind_features, candidates, formulas
from jaxdd.weights.candidates import DENSITY, EMBEDDING, Candidate
from jaxdd.weights.density_weights import (
    DensityWeights,
    EncoderTraining,
    Search,
    density,
    from_density,
)
from jaxdd.weights.feature_weights import by_feature_sets, by_values, shortcuts
from jaxdd.weights.probe_networks import Trial, check_with_probe_networks, rejection

_MAX_CORRELATION = 0.5
"""Maximum correlation of conflict scores within classes of feature sets that show two biases."""

_MAX_CHECKED = 2
"""Maximum number of bimodal candidates that the probe network check tests."""

_MAX_SAMPLES = 15_000  # Maximum number of samples for candidates.
_FIRST_TEST = 5000  # Number of samples of the first shortcut test.
_MIN_SAMPLES = 20  # Minimum number of samples for candidates.
_MAX_COMBINED = 2**28  # Maximum size of the probabilities of combined groups, for memory.
_CHECK, _SAMPLES = 2**32 - 1, 2**32 - 3  # For `fold_in`; larger than steps of encoders.
_OBJECT = ("border",)  # Features that may show the object; chosen only if they are suspected.

Check = Callable[[sampling.Pool, jax.Array, Sequence[int]], Callable[..., Sequence[Trial]]]
"""Takes a pool, groups `[n]` and the majority group of each class `[k]`.

Returns a function from several weights `[n]` to a `Trial` of each.
"""


class Choice(NamedTuple):
    """The chosen weights and all candidate biases.

    Attributes:
        weights: `[n]`.
        verdict: "biased" if weights were chosen, "undecided" if a candidate is bimodal but was not
            chosen, "none" without evidence of a bias. Weights are uniform in the last two cases.
        chosen: names of the candidates whose groups are balanced.
        candidates: all candidates, strongest evidence first; their arrays have one entry for each
            of `samples`.
        samples: `[m]` indices of the samples that were analysed.
        density: density weights with their embeddings, if chosen.
        search: values of each combination of the density search, and the group evenness of its
            weights by the pseudo-groups. Empty if the search was not reached.
        best: index in `search` of the combination with the largest evenness.
    """

    weights: jax.Array
    verdict: Literal["biased", "undecided", "none"] = "none"
    chosen: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    samples: np.ndarray = np.empty(0, int)
    density: DensityWeights | None = None
    search: Sequence[dict[str, float]] = ()
    best: int = 0

    def record(self) -> dict[str, Any]:
        """Return the choice without its arrays, for JSON."""
        return {
            "verdict": self.verdict,
            "uniform": not self.chosen,
            "chosen": list(self.chosen),
            "candidates": [candidate.record() for candidate in self.candidates],
            "best": self.search[self.best] if self.search else None,
            "search": list(self.search),
        }


def choose(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    strategy: augment.Strategy,
    search: Search = Search(),
    clip: float | None = None,
    comparisons: Mapping[str, blind_features.Comparison] = blind_features.COMPARISONS,
    embeddings: Mapping[str, ArrayLike] = {},
    suspect: Sequence[str] = (),
    exclude: Sequence[str] = (),
    check: Check | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
    preview: Callable[[Choice], None] = lambda choice: None,
) -> Choice:
    """Choose weights against the bias that candidates show, or keep uniform weights.

    This function runs on the host and cannot be transformed by JAX.

    Args:
        key: random key for encoders, probes and probe networks.
        pool: the samples; their weights are ignored.
        strategy: augmentation of encoders and probe networks; it must preserve the class.
        search: density weights to search; its encoder is also that of the candidate "embedding".
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
        comparisons: object-blind features and their baselines by name, see `shortcuts`; {} to skip
            the shortcut tests.
        embeddings: embeddings `[n, d]` of the user by name, for example of a pretrained network.
            Each is one more candidate.
        suspect: names of candidates that may be chosen although their features usually show the
            object: "border".
        exclude: names of candidates whose features are the object. They are not chosen.
        check: tests whether weights help, see `Check`. Defaults to `check_with_probe_networks`.
        report: called as `report(done, total)` after each stage.
        preview: called with the candidates and uniform weights before the probe network check,
            which takes most of the time.
    """
    formulas.check_limit("clip", clip)
    _check_search(search)
    _checks.concrete("weights.choose", key, pool)
    _check_names(embeddings, suspect, exclude)
    candidates.check_embeddings(embeddings, len(pool.labels))
    if check is None:
        key_check = jax.random.fold_in(key, _CHECK)
        check = functools.partial(check_with_probe_networks, key_check, strategy=strategy)
    report(0, 4)
    samples, part = _subsample(key, pool)
    training = EncoderTraining(key, pool, strategy=strategy, encoder=search.encoder)
    named = {name: comparison.features for name, comparison in comparisons.items()}
    features = blind_features.NAMED | named
    compute = functools.partial(
        _feature_values, key, training=training, embeddings=embeddings, features=features,
        strategy=strategy,
    )  # fmt: skip
    blind, others = _names(part, features, embeddings)
    values = compute(part, samples, blind)
    tested = {name: x for name, x in comparisons.items() if name not in exclude}
    key_folds = candidates.folds_key(key)
    tests = shortcuts(key_folds, part, comparisons=tested, values=values, first=_FIRST_TEST)
    report(1, 4)
    shown = _candidates(key, part, values | compute(part, samples, others), tests, clip)
    choice = Choice(formulas.uniform(pool.labels, num_classes=pool.num_classes), samples=samples)
    preview(choice._replace(candidates=_rank(shown, exclude)))
    report(2, 4)
    chosen = _shortcut_names(shown, part)
    if not chosen:
        shown, chosen = _check_bimodal(shown, part, check, suspect, exclude)
    report(3, 4)
    if chosen:
        sample_weights = _weigh(key, pool, part, shown, chosen, compute, clip)
        choice = choice._replace(weights=sample_weights)
    elif not any(x.rejection for x in shown):
        choice, candidate = _search(choice, training, pool, part, search, clip, check)
        shown = [candidate, *(x for x in shown if x.name != DENSITY)]
        if candidate.rejection is None and DENSITY not in exclude:
            chosen = (DENSITY,)
            choice = choice._replace(weights=choice.density.weights)
    report(4, 4)
    open_names = [x.name for x in shown if x.is_bimodal and x.name not in exclude]
    return choice._replace(
        verdict="biased" if chosen else "undecided" if open_names else "none",
        chosen=chosen,
        candidates=_rank(shown, exclude, chosen),
        density=choice.density if chosen else None,
    )


def _check_search(search):
    """Raise ValueError for values that would fail only after an encoder was trained."""
    for name in ("encoder_steps", "bandwidth", "temperature"):
        if not len(getattr(search, name)):
            raise ValueError(f"{name} of a search must have at least one value, got ().")
    for steps in search.encoder_steps:
        _checks.count("encoder_steps", steps, minimum=0)
    for name in ("bandwidth", "temperature"):
        _checks.positive(name, np.asarray(getattr(search, name), float))


def _check_names(embeddings, suspect, exclude):
    """Raise ValueError for unknown or contradictory names of candidates."""
    own = {*blind_features.NAMED, EMBEDDING, DENSITY}
    if taken := own & {*embeddings}:
        raise ValueError(f"Names of embeddings must not be in {sorted(own)}, got {min(taken)!r}.")
    known = own | {*embeddings}
    for option, names in (("suspect", suspect), ("exclude", exclude)):
        if unknown := {*names} - known:
            raise ValueError(f"{option} must be in {sorted(known)}, got {min(unknown)!r}.")
    if both := {*suspect} & {*exclude}:
        raise ValueError(f"suspect and exclude must not share names, got {min(both)!r} in both.")


def _subsample(key, pool):
    """Return indices of at most 15,000 samples, an equal share of each class, and their pool."""
    n, k = len(pool.labels), pool.num_classes
    if n <= _MAX_SAMPLES:
        return np.arange(n), pool
    labels = np.asarray(pool.labels)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key, _SAMPLES), n))
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels, minlength=k)
    rank = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    samples = np.sort(order[rank < np.repeat(np.ceil(counts * (_MAX_SAMPLES / n)), counts)])
    arrays = parallel.to_local(pool.images[samples]), pool.labels[samples]
    return samples, sampling.pool(*arrays, num_classes=k, mean=pool.mean, std=pool.std)


def _names(pool, features, embeddings):
    """Return the names of object-blind features, and those of embeddings."""
    if pool.num_classes < 2 or len(pool.labels) < _MIN_SAMPLES:
        return [], []
    if min(pool.images.shape[1:3]) < 4:
        return [], [*embeddings]
    return [*features], [EMBEDDING, *embeddings]


def _feature_values(key, pool, samples, names, *, training, embeddings, **options):
    """Return the features of the pool of some samples by name."""
    known = {name: np.asarray(embeddings[name])[samples] for name in names if name in embeddings}
    if EMBEDDING in names:
        known[EMBEDDING] = training.embed(pool)
    return candidates.feature_values(key, pool, names, embeddings=known, **options)


def _candidates(key, pool, values, tests, clip):
    """Return the candidates of all kinds of features."""
    key_folds = candidates.folds_key(key)
    shown = [
        candidates.from_features(key_folds, pool, x, name=name, shortcut=tests.get(name), clip=clip)
        for name, x in values.items()
    ]
    if EMBEDDING in values:
        x = values[EMBEDDING]
        sample_weights = from_density(density(x, pool).log_density, pool, clip=clip)
        groups = pseudo_groups(x, pool.labels, num_classes=pool.num_classes)
        shown.append(candidates.from_density(sample_weights, groups, pool))
    return shown


def _rank(shown, exclude, chosen=()):
    """Sort candidates by their evidence: chosen ones first, excluded ones last.

    Others are sorted by shortcut test, bimodality of at least the minimum, gain of bias-conflicting
    samples in the probe network check, and bimodality.
    """

    def key(candidate):
        bimodality = -1.0 if math.isnan(candidate.bimodality) else candidate.bimodality
        gain = 0.0
        if candidate.trials and candidate.trials["uniform"].count:
            uniform, weighted = candidate.trials.values()
            gain = weighted.conflicting - uniform.conflicting
        evidence = not candidate.is_shortcut, not candidate.is_bimodal, -gain, -bimodality
        return candidate.name in exclude, candidate.name not in chosen, *evidence

    return tuple(sorted(shown, key=key))


# Two feature sets often show one bias: grey images differ in tone and in texture. Balancing both
# would split the samples into needlessly many groups. The two count as one bias if their conflict
# scores correlate within the classes.
def _shortcut_names(shown, pool):
    """Return the names of the shortcuts that show separate biases, most significant first."""
    chosen = []
    passed = [x for x in shown if x.is_shortcut]
    for candidate in sorted(passed, key=lambda x: -x.shortcut.z_score):
        size = math.prod(max(x.blocks) + 1 for x in (candidate, *chosen))
        is_distinct = all(_correlation(candidate, x, pool) < _MAX_CORRELATION for x in chosen)
        if not chosen or (is_distinct and size * len(pool.labels) <= _MAX_COMBINED):
            chosen.append(candidate)
    return tuple(x.name for x in chosen)


def _correlation(first, second, pool):
    """Return the correlation of two conflict scores within the classes."""
    count = jnp.maximum(pool.count, 1)

    def centred(score):
        total = jax.ops.segment_sum(score, pool.labels, pool.num_classes)
        return score - (total / count)[pool.labels]

    x, y = centred(first.conflict_score), centred(second.conflict_score)
    return (x @ y) / jnp.maximum(jnp.sqrt((x @ x) * (y @ y)), 1e-12)


def _check_bimodal(shown, pool, check, suspect, exclude):
    """Check the most bimodal candidates; return all candidates and the name of an accepted one."""
    hidden = {*exclude, *_OBJECT} - {*suspect}
    allowed = [x for x in shown if x.is_bimodal and x.name not in hidden]
    strongest = sorted(allowed, key=lambda x: -x.bimodality)[:_MAX_CHECKED]
    for candidate in strongest:
        trial = check(pool, candidate.groups, candidate.blocks)
        trials = _run_trials(trial, candidate.weights, pool)
        checked = candidate._replace(trials=trials, rejection=rejection(*trials.values()))
        shown = [checked if x.name == candidate.name else x for x in shown]
        if checked.rejection is None:
            return shown, (candidate.name,)
    return shown, ()


def _run_trials(trial, sample_weights, pool):
    """Return the results of the check for uniform weights and for `sample_weights`."""
    uniform = formulas.uniform(pool.labels, num_classes=pool.num_classes)
    return dict(zip(("uniform", "weighted"), trial(uniform, sample_weights), strict=True))


def _weigh(key, pool, part, shown, chosen, compute, clip):
    """Return weights of the whole pool that balance the groups of the chosen candidates."""
    by_name = {candidate.name: candidate for candidate in shown}
    if part is pool and len(chosen) == 1:
        return by_name[chosen[0]].weights
    values = compute(pool, np.arange(len(pool.labels)), chosen)
    key_folds = candidates.folds_key(key)
    sets = [
        by_values(key_folds, pool, values[name], blocks=by_name[name].blocks, clip=clip)
        for name in chosen
    ]
    return by_feature_sets(pool, sets, clip=clip)


def _search(choice, training, pool, part, search, clip, check):
    """Return the choice with the most even density weights, and their candidate after the check.

    The pseudo-groups are those of the encoder that was trained longest, the last one.
    """
    k = pool.num_classes
    tried = list(training.search(search, clip=clip))
    groups = pseudo_groups(tried[-1][1].embeddings, pool.labels, num_classes=k)
    sizes = dict(num_classes=k, num_attributes=k)
    evenness = [
        float(formulas.group_evenness(density.weights, pool.labels, groups, **sizes))
        for _, density in tried
    ]
    best = int(np.argmax(evenness))
    records = [
        {**values, "evenness": score} for (values, _), score in zip(tried, evenness, strict=True)
    ]
    density, samples = tried[best][1], choice.samples
    trials = _run_trials(check(pool, groups, range(k)), density.weights, pool)
    weights = sampling.reweight(part, density.weights[samples]).weights
    candidate = candidates.from_density(weights, groups[samples], part)
    candidate = candidate._replace(trials=trials, rejection=rejection(*trials.values()))
    return choice._replace(density=density, search=records, best=best), candidate


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
