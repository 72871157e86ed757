"""Candidate biases: groups of samples that one kind of features shows, and evidence of a bias.

For each kind of features, a cross-fitted probe predicts the class with a loss that ignores
exceptions (`probes.crossfit`). A sample resembles the predicted class. With a bias, the features
show the bias attribute, and a bias-conflicting sample clearly has the attribute of another class.
Without a bias, the features show only a little of the object, and most samples that resemble
another class are ambiguous. So only with a bias do the bias-conflict scores have two modes. The
`bimodality` is the number of confidently conflicting samples divided by that of ambiguous ones.

Samples with a wrong label are confidently conflicting as well. `probe_networks` distinguishes them
from a bias.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import _checks, augment, sampling
from jaxdd.devices import parallel
from jaxdd.weights import blind_features, contrastive, feature_weights, formulas, probes
from jaxdd.weights.density_weights import encode
from jaxdd.weights.probe_networks import Trial

MIN_BIMODALITY = 0.4
"""Minimum bimodality of a bias; fixed on 2026-11-25 on the development sets of decisions.py."""

MIN_CONFIDENT_SHARE = 0.01
"""Minimum share of samples that are confidently bias-conflicting."""

CONFIDENT = 0.9
"""Bias-conflict score above which a sample is confidently bias-conflicting."""

_MIN_ALIGNED = 4  # Minimum number of confidently aligned samples per confidently conflicting one.
_AMBIGUOUS = 0.1, 0.9  # Scores between these two are ambiguous.
_MIN_CLASS_BIMODALITY = 0.3  # Below it, blocks of classes are preferred to single classes.

_FOLDS = 2**32 - 2  # For `fold_in`; differs from the step numbers of encoders, which are small.

EMBEDDING = "embedding"
"""Name of the candidate of a probe on the embedding of an encoder."""

DENSITY = "density"
"""Name of the candidate of density weights."""


class Candidate(NamedTuple):
    """Bias groups that one kind of features shows, weights that balance them, and the evidence.

    Attributes:
        name: key of `blind_features.NAMED`, "embedding" for the embedding of an encoder, "density"
            for density weights, or the name of an embedding of the user.
        weights: `[n]`, each class sums to one.
        conflict_score: `[n]` in [0, 1], probability that a sample is bias-conflicting; for
            "density" the rank of the weight within the class.
        groups: `[n]` most likely bias group of each sample, integers in [0, b).
        blocks: `[k]` majority group of each class; 0 to k - 1 unless classes share a group.
        bimodality: confidently conflicting samples divided by ambiguous ones; nan for "density".
        confident_share: share of the samples that are confidently conflicting; nan for "density".
        shortcut: result of the shortcut test, or None if these features are not tested.
        trials: results of the probe network check for "uniform" weights and for the "weighted"
            ones; empty if it was not made.
        rejection: why the check rejects the weights, or None.
        effective_sample_size: effective sample size of the weights, mean over classes, see
            `formulas`.
    """

    name: str
    weights: jax.Array
    conflict_score: jax.Array
    groups: jax.Array
    blocks: tuple[int, ...]
    bimodality: float = float("nan")
    confident_share: float = float("nan")
    shortcut: probes.Shortcut | None = None
    trials: Mapping[str, Trial] = {}
    rejection: str | None = None
    effective_sample_size: float = float("nan")

    @property
    def is_shortcut(self) -> bool:
        """Whether the shortcut test was made and detected a bias."""
        return self.shortcut is not None and feature_weights.is_shortcut(self.shortcut)

    @property
    def is_bimodal(self) -> bool:
        """Whether the bias-conflict scores look like those of a bias."""
        is_frequent = self.confident_share >= MIN_CONFIDENT_SHARE
        return is_frequent and self.bimodality >= MIN_BIMODALITY

    def record(self) -> dict[str, Any]:
        """Return the evidence without arrays, for JSON."""
        arrays = "weights", "conflict_score", "groups"
        record = {name: value for name, value in self._asdict().items() if name not in arrays}
        return record | {
            "blocks": list(self.blocks),
            "shortcut": None if self.shortcut is None else self.shortcut._asdict(),
            "trials": {name: trial._asdict() for name, trial in self.trials.items()},
        }


def feature_values(
    key: jax.Array,
    pool: sampling.Pool,
    names: Sequence[str],
    *,
    strategy: augment.Strategy,
    encoder: contrastive.Encoder | None = None,
    embeddings: Mapping[str, ArrayLike] = {},
    features: Mapping[str, blind_features.Features] = blind_features.NAMED,
) -> dict[str, jax.Array]:
    """Return the features of each candidate by name, `[n, d]`.

    Args:
        key: random key of the encoder.
        pool: the samples.
        names: keys of `features`, "embedding", or keys of `embeddings`.
        strategy: augmentation of the encoder, see `encode`.
        encoder: network to train for "embedding". Defaults to `default_encoder`.
        embeddings: embeddings of the user by name, `[n, d]`.
        features: feature functions by name.
    """
    known = {*features, EMBEDDING, *embeddings}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"Names of features must be in {sorted(known)}, got {unknown[0]!r}.")
    check_embeddings(embeddings, len(pool.labels))

    def compute(name):
        if name in embeddings:
            return jnp.asarray(embeddings[name], jnp.float32)
        if name == EMBEDDING:
            return encode(key, pool, strategy=strategy, encoder=encoder).embeddings
        function = functools.partial(blind_features.compute, features=features[name])
        return parallel.apply_by_rows(function, pool.images)

    return {name: compute(name) for name in names}


def check_embeddings(embeddings: Mapping[str, ArrayLike], count: int) -> None:
    """Raise an error for embeddings that are not finite and floating of shape `[count, d]`."""
    for name, embedding in embeddings.items():
        embedding = _checks.floating(f"embedding {name!r}", embedding)
        _checks.finite(f"embedding {name!r}", embedding)
        if embedding.ndim != 2 or len(embedding) != count:
            raise ValueError(
                f"embedding {name!r} must have shape [{count}, d], one row per training sample, "
                f"got {embedding.shape}."
            )


def from_features(
    key: jax.Array,
    pool: sampling.Pool,
    values: jax.Array,
    *,
    name: str,
    shortcut: probes.Shortcut | None = None,
    clip: float | None = None,
) -> Candidate:
    """Return the candidate of features `[n, d]`.

    Args:
        key: random key of the folds.
        pool: the samples; their weights are ignored.
        values: `[n, d]` features.
        name: name of the candidate.
        shortcut: result of the shortcut test of these features. If it detects a shortcut, its
            blocks of classes are used. Otherwise the bimodality decides between classes and blocks.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
    """
    _checks.concrete("weights.from_features", key, pool, values)
    classes = feature_weights.predict_groups(key, values, pool.labels, num_groups=pool.num_classes)
    blocks, bimodality, share = find_blocks(classes, pool.labels)
    if shortcut is not None and feature_weights.is_shortcut(shortcut):
        blocks = shortcut.blocks
    if blocks != tuple(range(pool.num_classes)):
        own_group = jnp.asarray(blocks)[pool.labels]
        classes = feature_weights.predict_groups(key, values, own_group, num_groups=max(blocks) + 1)
    without_images = pool._replace(images=pool.mean)
    result, groups, size = _balance(classes, without_images, blocks=tuple(blocks), clip=clip)
    return Candidate(
        name, result.weights, result.conflict_score, groups, tuple(blocks), bimodality, share,
        shortcut, effective_sample_size=float(size),
    )  # fmt: skip


# Compiled, because executing the operations one by one takes a second on the first call.
@functools.partial(jax.jit, static_argnames=("blocks", "clip"))
def _balance(probabilities, pool, *, blocks, clip):
    """Return weights that balance the groups, the most likely groups, and the mean sample size."""
    result = feature_weights.from_probabilities(probabilities, pool, blocks=blocks, clip=clip)
    return result, result.groups.argmax(1), _effective_sample_size(result.weights, pool)


def from_density(sample_weights: jax.Array, groups: jax.Array, pool: sampling.Pool) -> Candidate:
    """Return the candidate of density weights `[n]` and pseudo-groups `[n]`."""
    _checks.concrete("weights.from_density", sample_weights, groups, pool)
    rank, size = _rank(sample_weights, pool._replace(images=pool.mean))
    return Candidate(
        DENSITY, sample_weights, rank, groups, tuple(range(pool.num_classes)),
        effective_sample_size=float(size),
    )  # fmt: skip


@jax.jit
def _rank(sample_weights, pool):
    """Return the ranks of weights within the class, from 0 to 1, and the mean sample size."""
    order = jnp.lexsort((sample_weights, pool.labels))
    rank = (jnp.argsort(order) - pool.start[pool.labels] + 0.5) / pool.count[pool.labels]
    return rank, _effective_sample_size(sample_weights, pool)


def _effective_sample_size(sample_weights, pool):
    """Return the effective sample size of weights `[n]`, mean over classes."""
    size = formulas.effective_sample_size(sample_weights, pool.labels, num_classes=pool.num_classes)
    return size.mean()


def find_blocks(
    probabilities: ArrayLike, labels: ArrayLike
) -> tuple[tuple[int, ...], float, float]:
    """Return the blocks of classes whose conflict scores are most bimodal, and their bimodality.

    Classes that the probe confuses are merged one after the other, as in `probes.shortcut`. One
    half of the samples of each class determines the order of merging, the other half the bimodality
    of each partition. Blocks of several classes are returned only if single classes are not
    bimodal.

    Args:
        probabilities: `[n, k]` out-of-fold, from `feature_weights.predict_groups`.
        labels: `[n]` integers in [0, k).

    Returns:
        Block of each class `[k]`, the largest bimodality of a partition, and the share of
        confidently conflicting samples in that partition. The bimodality is 0 if no partition has
        enough of them.
    """
    _checks.concrete("weights.find_blocks", probabilities, labels)
    predicted, classes_of = np.asarray(probabilities), np.asarray(labels)
    classes = tuple(range(predicted.shape[1]))
    decides, partitions = probes.partitions(predicted, classes_of)
    testing, own = predicted[~decides], classes_of[~decides]
    if not len(own):
        return classes, 0.0, 0.0
    best, by_classes = (classes, 0.0, 0.0), 0.0
    for blocks in partitions:
        score = np.asarray(_conflict_score(testing, own, blocks, blocks.max() + 1))
        share = float(np.mean(score > CONFIDENT))
        # With few samples, probes are as often confident about the wrong class as about the own.
        aligned = np.mean(score < _AMBIGUOUS[0])
        if not MIN_CONFIDENT_SHARE <= share <= aligned / _MIN_ALIGNED:
            continue
        ambiguous = np.mean((score > _AMBIGUOUS[0]) & (score < _AMBIGUOUS[1]))
        bimodality = share / max(float(ambiguous), 1 / len(own))
        if len(blocks) == blocks.max() + 1:
            by_classes = bimodality
        if bimodality > best[1]:
            best = tuple(blocks.tolist()), bimodality, share
    if by_classes > _MIN_CLASS_BIMODALITY or best[1] < MIN_BIMODALITY:
        best = classes, *best[1:]
    return best


# One program for all partitions: groups that a partition lacks have probability 0.
@jax.jit
def _conflict_score(probabilities, labels, blocks, num_groups):
    """Return the conflict score `[n]` of a partition of the classes."""
    by_block = jnp.zeros_like(probabilities).at[:, blocks].add(probabilities)
    groups = feature_weights.posterior(by_block, blocks[labels], num_groups=num_groups)
    return feature_weights.conflict_score(groups, blocks[labels])


def by_candidate(
    key: jax.Array,
    pool: sampling.Pool,
    name: str,
    *,
    strategy: augment.Strategy,
    encoder: contrastive.Encoder | None = None,
    embeddings: Mapping[str, ArrayLike] = {},
    shortcut: probes.Shortcut | None = None,
    clip: float | None = None,
) -> Candidate:
    """Return the candidate of one kind of features, without tests.

    Use it to balance groups of a known kind, for example after looking at the candidates of
    `choose`. This function runs on the host and cannot be transformed by JAX.

    Args:
        key: random key of encoder and folds.
        pool: at least three samples; their weights are ignored.
        name: key of `blind_features.NAMED`, "embedding", or key of `embeddings`.
        strategy: augmentation of the encoder.
        encoder: network to train for "embedding". Defaults to `default_encoder`.
        embeddings: embeddings of the user by name, `[n, d]`.
        shortcut: result of the shortcut test of these features, which `choose` makes for
            object-blind features. If it detects a shortcut, its blocks of classes are used.
        clip: largest weight as a multiple of the uniform one, at least 1. Defaults to no limit.
    """
    formulas.check_limit("clip", clip)
    _checks.concrete("weights.by_candidate", key, pool)
    options: dict[str, Any] = dict(strategy=strategy, encoder=encoder, embeddings=embeddings)
    values = feature_values(key, pool, [name], **options)[name]
    key_folds = folds_key(key)
    return from_features(key_folds, pool, values, name=name, shortcut=shortcut, clip=clip)


def folds_key(key: jax.Array) -> jax.Array:
    """Return the random key of the folds, derived from the key of `choose` or `by_candidate`."""
    return jax.random.fold_in(key, _FOLDS)


def feature_probabilities(
    key: jax.Array,
    pool: sampling.Pool,
    names: Sequence[str],
    *,
    strategy: augment.Strategy,
    encoder: contrastive.Encoder | None = None,
    embeddings: Mapping[str, ArrayLike] = {},
) -> dict[str, jax.Array]:
    """Return out-of-fold class probabilities `[n, k]` by the features of each candidate.

    The arguments are those of `feature_values`.
    """
    options: dict[str, Any] = dict(strategy=strategy, encoder=encoder, embeddings=embeddings)
    values = feature_values(key, pool, names, **options)
    predict = functools.partial(
        feature_weights.predict_groups, folds_key(key), labels=pool.labels,
        num_groups=pool.num_classes,
    )  # fmt: skip
    return {name: predict(values=x) for name, x in values.items()}
