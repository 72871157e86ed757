"""From a pool to the weights of its samples: by density, by a choice without labels, by labels.

`by_density` is the paper's way: embed the samples with a supervised contrastive encoder, estimate
their density within the class, weigh by its inverse. `encode`, `density` and `from_density` are its
three steps. `by_features` weighs by what numbers of the images say that cannot draw the object: tone,
texture and layout (`jaxdd.weights.blind_features`), `from_probabilities` by what any other probe says. `oracle` is
what bias labels would give.

`choose` finds the way for the data at hand. First it asks for a shortcut: where a head on such
numbers tells the classes, or blocks of them, better than one that sees the object does, it is the
bias that both of them learn, and the groups that follow from the numbers get equal mass. That finds
corruptions, grey images and places, of which the encoder sees little. It rests on the view alone:
classes that *are* textures look like a bias.

Elsewhere encoder length, bandwidth and temperature are searched. Good weights give every bias group
of a class the same mass, and nobody knows the groups. But a classifier that has
hardly been trained falls for the bias: the class whose mean is nearest in an early embedding is the
bias attribute of a sample, or nearly so (`experiments.auto_rules`). These pseudo-groups stand in
for the bias groups, and the weights that balance them best are chosen.

Where no bias is, the samples that disagree are those that are hard to tell. Which of both it is
shows in networks trained on a few real images drawn by the weights, as a distilled set would be
judged: conflicting samples are no harder than others once the bias is gone, hard ones remain hard.
Where `rejection` gives a reason, the choice is uniform weights.
"""

import functools
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxdd import _checks, augment, evaluate, kde, networks, sampling
from jaxdd.devices import parallel, split_pool
from jaxdd.weights import blind_features, contrastive, formulas, probes

Layer = Literal["projection", "features"]
"""The layer of an encoder in which the density is estimated."""

_LARGE = 2**32 - 1  # Folded into the key of a choice; encoders fold in the number of a step.


class Encoded(NamedTuple):
    """Parameters of a trained encoder, and its embeddings of a pool's samples, `[n, d]`."""

    params: Any
    embeddings: jax.Array


class Density(NamedTuple):
    """Log density `[n]` of the samples within their class, and the bandwidths `[k]`."""

    log_density: jax.Array
    bandwidth: jax.Array


class DensityWeights(NamedTuple):
    """Weights, and all that they follow from.

    Attributes:
        weights: `[n]`, each class sums to one.
        log_density: `[n]`, within the class.
        bandwidth: `[k]`.
        params: of the encoder.
        embeddings: `[n, d]`.
    """

    weights: jax.Array
    log_density: jax.Array
    bandwidth: jax.Array
    params: Any
    embeddings: jax.Array


def default_encoder(
    pool: sampling.Pool, *, width: int = 32, depth: int | None = None
) -> contrastive.Encoder:
    """Returns the encoder of a ConvNet without norm layers, which would remove most of a colour.

    Args:
        pool: the samples.
        width: channels.
        depth: blocks, each of which halves the sides; three, or as many as the images allow.
    """
    depth = networks.max_blocks(pool.images.shape) if depth is None else depth
    return contrastive.Encoder(networks.ConvNet(pool.num_classes, width, depth, norm=None))


def encode(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    strategy: augment.Strategy,
    encoder: contrastive.Encoder | None = None,
    steps: int = 30,
    layer: Layer = "projection",
) -> Encoded:
    """Trains an encoder on the classes and embeds all samples.

    Args:
        key: of the training.
        pool: the samples; their weights play no part.
        strategy: augmentation that leaves the class alone. Among names, "color" is left out, since
            it would teach the encoder to ignore the cue that it is here to find; a function should
            not change colours either.
        encoder: `default_encoder` where omitted.
        steps: of training. Few, since the bias is learned first.
        layer: whose embeddings are returned.

    Raises:
        TypeError: for a strategy that is a string.
        ValueError: for an unknown operation in it, a layer that is none, or a negative number of
            steps.
    """
    (found,) = _encoders(key, pool, strategy, encoder, [steps], layer)
    return found


def _encoders(key, pool, strategy, encoder, lengths, layer):
    """Yields what one encoder makes of the samples after so many steps each, shortest first."""
    strategy = augment.as_strategy(strategy)
    lengths = [_checks.count("steps", steps, minimum=0) for steps in lengths]
    if layer not in contrastive.Embedding._fields[::-1]:
        raise ValueError(f"layer must be projection or features, found {layer!r}")
    encoder = default_encoder(pool) if encoder is None else encoder
    if not callable(strategy):
        strategy = tuple(name for name in strategy if name != "color")
    mesh = parallel.mesh_of(pool.images)
    state, done = _untrained(key, pool, strategy, encoder, mesh), 0
    for steps in lengths:
        state, done = _trained(key, pool, strategy, encoder, mesh, state, done, steps), steps
        embedded = _embed(encoder, state.params, pool)
        yield Encoded(state.params, getattr(embedded, layer))


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _untrained(key, pool, strategy, encoder, mesh):
    return parallel.constrain_replicated(
        contrastive.start(key, _trainer(strategy, encoder, mesh), pool), mesh
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _trained(key, pool, strategy, encoder, mesh, state, done, steps):
    """The state after so many steps; the numbers are traced, so that one program does them all."""
    trainer = _trainer(strategy, encoder, mesh)
    body = lambda i, state: contrastive.update(key, trainer, pool, state, i)[0]
    return parallel.constrain_replicated(jax.lax.fori_loop(done, steps, body, state), mesh)


def _trainer(strategy, encoder, mesh):
    return contrastive.trainer(encoder, optax.adam(1e-3), strategy=strategy, mesh=mesh)


def _embed(encoder, params, pool):
    images, index = pool.images, pool._replace(images=pool.mean)
    embed = functools.partial(_embedded, encoder)
    return parallel.apply_by_rows(embed, images, params, index)


@functools.partial(jax.jit, static_argnums=0)
def _embedded(encoder, images, params, index):
    return contrastive.embed(encoder, params, index._replace(images=images))


def density(
    embeddings: jax.Array,
    pool: sampling.Pool,
    *,
    bandwidth: Callable[..., jax.Array] | jax.Array | float = kde.mean_distance,
    mesh: Mesh | None = None,
) -> Density:
    """Estimates the density of every sample within its class.

    Args:
        embeddings: `[n, d]` of the pool's samples; anybody's.
        pool: the samples.
        bandwidth: h of the kernel: a number, one for each class `[k]`, or a rule that is called for
            each class as `rule(points, weights=mask)`, such as `kde.scott`.
        mesh: from `parallel.mesh`, whose devices share the work; those of a `spread.pool`
            do where omitted.

    Raises:
        TypeError: for embeddings that are not floating.
        ValueError: for shapes that disagree, embeddings that are not finite, or a bandwidth that is
            not positive and finite.
    """
    return densities(embeddings, pool, bandwidths=[bandwidth], mesh=mesh)[0]


def densities(
    embeddings: jax.Array,
    pool: sampling.Pool,
    *,
    bandwidths: Sequence[Callable[..., jax.Array] | jax.Array | float],
    mesh: Mesh | None = None,
) -> list[Density]:
    """Estimates what `density` does for several bandwidths, which share all distances.

    Args:
        embeddings: as in `density`.
        pool: as in `density`.
        bandwidths: each as in `density`.
        mesh: as in `density`.

    Raises:
        TypeError: as in `density`.
        ValueError: as in `density`.
    """
    k, embeddings = pool.num_classes, _checks.floating("embeddings", embeddings)
    _checks.finite("embeddings", embeddings)

    def values(bandwidth: Callable[..., jax.Array] | jax.Array | float) -> jax.Array:
        if callable(bandwidth):
            bandwidth = kde.class_bandwidth(bandwidth, embeddings, pool.labels, num_classes=k)
        return jnp.broadcast_to(_checks.positive("bandwidth", jnp.asarray(bandwidth)), (k,))

    each = jnp.stack([values(bandwidth) for bandwidth in bandwidths])
    mesh = parallel.mesh_of(pool.images) if mesh is None else mesh
    estimate = kde.class_log_density
    if mesh is not None and not parallel.is_one_cpu(mesh):  # which fills its cores without a ring
        estimate = functools.partial(split_pool.class_log_density, mesh=mesh)
    found = parallel.to_local(_log_densities(estimate, embeddings, pool.labels, each, k))
    return [Density(*pair) for pair in zip(found, each, strict=True)]


@functools.partial(jax.jit, static_argnums=(0, 4))
def _log_densities(estimate, embeddings, labels, bandwidths, num_classes):
    of = lambda bandwidth: estimate(embeddings, labels, bandwidth, num_classes=num_classes)
    return jax.vmap(of)(bandwidths)


def from_density(
    log_density: jax.Array,
    pool: sampling.Pool,
    *,
    temperature: jax.Array | float = 1.0,
    clip: float | None = None,
) -> jax.Array:
    """Turns log densities `[n]` into weights `[n]`.

    Args:
        log_density: within the class.
        pool: the samples.
        temperature: of `formulas.inverse_density`.
        clip: largest weight, as a multiple of the uniform one.
    """
    classes = dict(num_classes=pool.num_classes)
    found = formulas.inverse_density(log_density, pool.labels, temperature=temperature, **classes)
    return found if clip is None else formulas.clip(found, pool.labels, limit=clip, **classes)


def by_density(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    strategy: augment.Strategy,
    encoder: contrastive.Encoder | None = None,
    steps: int = 30,
    layer: Layer = "projection",
    bandwidth: Callable[..., jax.Array] | jax.Array | float = kde.mean_distance,
    temperature: jax.Array | float = 1.0,
    clip: float | None = None,
) -> DensityWeights:
    """Weighs every sample by the inverse density of its neighbourhood, without bias labels.

    The way of Cui et al., "Mitigating Bias in Dataset Distillation" (ICML 2024), for the whole set.
    `encode`, `density` and `from_density`, one after the other. They help where the encoder sees
    the bias; without a bias they cost, see `choose`.

    Args:
        key: of the encoder's training.
        pool: the samples, from `sampling.pool` or `jaxdd.data.datasets.pool`.
        strategy: as in `encode`.
        encoder: as in `encode`.
        steps: as in `encode`.
        layer: as in `encode`.
        bandwidth: as in `density`.
        temperature: as in `from_density`.
        clip: as in `from_density`.
    """
    _check_clip(clip)
    encoded = encode(key, pool, strategy=strategy, encoder=encoder, steps=steps, layer=layer)
    found = density(encoded.embeddings, pool, bandwidth=bandwidth)
    weights = from_density(found.log_density, pool, temperature=temperature, clip=clip)
    return DensityWeights(weights, *found, *encoded)


def oracle(pool: sampling.Pool, attributes: jax.Array, *, num_attributes: int) -> jax.Array:
    """Weights `[n]` that give every bias group of a class the same mass, by the bias labels.

    Args:
        pool: the samples.
        attributes: `[n]` integers in [0, num_attributes).
        num_attributes: number of bias attributes.
    """
    return formulas.oracle(
        pool.labels,
        jnp.asarray(attributes),
        num_classes=pool.num_classes,
        num_attributes=num_attributes,
    )


def _check_clip(clip):
    """Refuses a limit that `formulas.clip` would refuse once all else is computed."""
    known = None if clip is None else _checks.values(clip)
    if known is not None and not known >= 1:
        raise ValueError(f"clip must be at least 1, found {known}")


class FeatureWeights(NamedTuple):
    """Weights by what a view shows.

    Attributes:
        weights: `[n]`, each class sums to one.
        groups: `[n, b]` probabilities of the bias groups, by the view and the label.
        own_group: `[n]` the group that most samples of the class belong to.
    """

    weights: jax.Array
    groups: jax.Array
    own_group: jax.Array

    @property
    def conflict_score(self) -> jax.Array:
        """Probability `[n]` that a sample conflicts: that its group is not that of its class."""
        return 1 - jnp.take_along_axis(self.groups, self.own_group[:, None], 1)[:, 0]


def by_features(
    key: jax.Array,
    pool: sampling.Pool,
    features: blind_features.Features,
    *,
    blocks: Sequence[int] | None = None,
    conflict: float = 0.1,
    clip: float | None = None,
) -> FeatureWeights:
    """Gives the bias groups of a class equal mass, as far as a view of the samples shows them.

    A cross-fitted head tells the classes from numbers that cannot draw the object, along a loss
    that lets go of exceptions (`probes.crossfit`). The class that it says is a pseudo-label of the
    bias. Before looking, a sample shows its own class's attribute but for a small share of cases;
    what the head says is weighed against that, so that a view which says little changes little.

    Args:
        key: of the folds.
        pool: the samples; their weights play no part.
        features: numbers of images, such as `weights.blind_features.tone`.
        blocks: `[k]` block of each class, 0 to b - 1, where several classes share an attribute, as
            `probes.shortcut` finds them; each class is one where omitted.
        conflict: share of samples that is taken to conflict before looking. Shares of .02 to .2
            lead to about the same weights.
        clip: as in `from_density`.

    Raises:
        TypeError: blocks are not integers.
        ValueError: images are too small for a view or fewer than three, blocks are not those of
            the classes or leave numbers out, conflict is not between 0 and 1, clip is less than 1.
    """
    k, labels = pool.num_classes, pool.labels
    _check_conflict(conflict, clip)
    if len(labels) < 3:
        raise ValueError(f"weights of a view need at least 3 samples, found {len(labels)}")
    block = _blocks(blocks, k)
    own, count = jnp.asarray(block)[labels], int(block.max()) + 1
    seen = parallel.apply_by_rows(functools.partial(blind_features.of, view=features), pool.images)
    told = probes.crossfit(key, seen, own, num_classes=count, power=0.7)
    return from_probabilities(told, pool, blocks=blocks, conflict=conflict, clip=clip)


def from_probabilities(
    probabilities: jax.Array,
    pool: sampling.Pool,
    *,
    blocks: Sequence[int] | None = None,
    conflict: float = 0.1,
    clip: float | None = None,
) -> FeatureWeights:
    """Gives the bias groups of a class equal mass, as far as somebody's probabilities tell them.

    Args:
        probabilities: `[n, b]` of the classes or blocks, by a probe that has not seen the sample,
            such as `probes.crossfit` and `truncated.crossfit`.
        pool: the samples; their weights play no part.
        blocks: as in `by_features`; the probabilities of the classes of a block are to be added up.
        conflict: as in `by_features`.
        clip: as in `from_density`.

    Raises:
        TypeError: probabilities are not floating, or blocks no integers.
        ValueError: shapes do not fit, probabilities are negative or do not sum to one, or as in
            `by_features`.
    """
    _check_conflict(conflict, clip)
    block = _blocks(blocks, pool.num_classes)
    own, count = jnp.asarray(block)[pool.labels], int(block.max()) + 1
    told = _checks.nonnegative("probabilities", _checks.floating("probabilities", probabilities))
    if told.shape != (len(own), count):
        raise ValueError(
            f"probabilities must be [n, b], {(len(own), count)} here, found {told.shape}"
        )
    sums = _checks.values(told.sum(1))
    if sums is not None and len(off := sums[abs(sums - 1) > 0.01]):
        raise ValueError(f"a sample's probabilities must sum to 1, found {off[0]}")
    likelihood = told / jnp.maximum(jnp.bincount(own, length=count), 1)
    same = jnp.arange(count) == own[:, None]
    groups = likelihood * jnp.where(same, 1 - conflict, conflict / max(count - 1, 1))
    groups = groups / groups.sum(1, keepdims=True)
    return FeatureWeights(_by_groups(groups, pool, clip), groups, own)


def _blocks(blocks, k):
    """Block of each class; the class itself where there are none."""
    block = np.arange(k) if blocks is None else np.asarray(blocks)
    _checks.integers("blocks", block, k, length=k)
    if (np.bincount(block) == 0).any():
        raise ValueError(f"blocks must be 0 to b - 1 without gaps, found {block.tolist()}")
    return block


def _check_conflict(conflict, clip):
    _check_clip(clip)
    if not np.finfo(np.float32).tiny <= conflict < 1:
        raise ValueError(f"conflict must lie between 0 and 1, found {conflict}")


def _by_groups(groups, pool, clip):
    classes = dict(num_classes=pool.num_classes)
    found = formulas.balance_groups(pool.labels, groups, **classes)
    return found if clip is None else formulas.clip(found, pool.labels, limit=clip, **classes)


def by_feature_sets(
    pool: sampling.Pool, seen: Sequence[FeatureWeights], *, clip: float | None = None
) -> jax.Array:
    """Weights `[n]` that give every combination of the groups of some views the same mass.

    Where several biases are at once, each of them seen by another view. As in `formulas.balance_groups`,
    combinations that are expected to have less than one sample have less mass.

    Args:
        pool: the samples.
        seen: of each view, from `by_features`; at least one.
        clip: as in `from_density`.

    Raises:
        ValueError: no views, or a clip below 1.
    """
    _check_clip(clip)
    if not seen:
        raise ValueError("by_feature_sets needs what at least one view shows, found none")
    pairs = lambda one, other: (one[:, :, None] * other[:, None]).reshape(len(one), -1)
    return _by_groups(functools.reduce(pairs, [each.groups for each in seen]), pool, clip)


# --- the choice --------------------------------------------------------------------------------

CERTAIN = 3.0
"""Standard errors by which a view has to tell the classes better than what sees the object."""

WORTH = 0.01
"""Share of samples that it has to put into the right block besides, or little is to be undone."""

ALIKE = 0.5
"""Correlation within the classes from which on what two views doubt is the same bias."""

_COMBINED = 2**28  # probabilities of combined groups, beyond which the surest view has to do


def shortcuts(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    comparisons: Mapping[str, blind_features.Comparison] = blind_features.COMPARISONS,
    most: int = 15_000,
) -> dict[str, probes.Shortcut]:
    """Compares heads on views that cannot see the object with heads on rivals, which can.

    Args:
        key: of the samples, the patches and the folds.
        pool: the samples; their weights play no part.
        comparisons: views and their rivals by name.
        most: samples that are looked at, at least 1.

    Returns:
        What is found of each view; nothing where there are fewer than `FEWEST` samples, one class
        or images with a side of less than four pixels.
    """
    k, n, side = pool.num_classes, len(pool.labels), min(pool.images.shape[1:3])
    most = _checks.count("most", most)
    if k < 2 or n < FEWEST or side < 4 or not comparisons:
        return {}
    key_samples, key_patches, key_folds = jax.random.split(key, 3)
    chosen = jnp.sort(jax.random.permutation(key_samples, n)[:most])
    images, labels = parallel.to_local(pool.images[chosen]), pool.labels[chosen]
    rows = parallel.split_rows(images, parallel.mesh_of(pool.images))

    def told(view):
        seen = parallel.apply_by_rows(functools.partial(blind_features.of, view=view), rows)
        # No device begins with the next view while another has heads to fit.
        return jax.block_until_ready(probes.crossfit(key_folds, seen, labels, num_classes=k))

    rivals = dict.fromkeys(suspect.baseline for suspect in comparisons.values())
    seeing = {rival: told(rival(key_patches, images)) for rival in rivals}
    return {
        name: probes.shortcut(told(suspect.features), seeing[suspect.baseline], labels)
        for name, suspect in comparisons.items()
    }


def is_shortcut(found: probes.Shortcut) -> bool:
    """Whether a view tells the classes better than its rival, by `CERTAIN` and by `WORTH`.

    >>> is_shortcut(probes.Shortcut((0, 1), blind=0.05, baseline=0.07, z_score=4.0))
    True
    """
    return found.z_score > CERTAIN and found.baseline - found.blind > WORTH


class Search(NamedTuple):
    """Values that are tried in all combinations.

    Attributes:
        encoder_steps: of the encoder's training.
        bandwidth: factors of the rule.
        temperature: of the inverse density.
    """

    encoder_steps: tuple[int, ...] = (30, 90)
    bandwidth: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    temperature: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4, 2.0)


def _check_search(search):
    """Refuses values that would fail once an encoder has been trained."""
    for name, tried in search._asdict().items():
        if not len(tried):
            raise ValueError(f"{name} of a search must have at least one value, found none")
    for steps in search.encoder_steps:
        _checks.count("encoder_steps", steps, minimum=0)
    for name in ("bandwidth", "temperature"):
        _checks.positive(name, np.asarray(getattr(search, name), float))


class Trial(NamedTuple):
    """Mean accuracy on held-out samples.

    Attributes:
        overall: of the two below, by their shares of the training set; nan if there is none of one.
        aligned: where the early classifier agrees with the label.
        conflicting: where it does not.
        count: number of disagreeing samples.
    """

    overall: float
    aligned: float
    conflicting: float
    count: int


class Choice(NamedTuple):
    """What was chosen, and why.

    Attributes:
        weights: `[n]`.
        density: the density that they follow from; None for groups of a view and uniform weights.
        candidates: the values that were tried, and the "evenness" of the pseudo-groups with them;
            empty where a view was found.
        best: place of the best among these.
        trials: of "uniform" weights and of the "best"; empty where a view was found.
        rejection: why uniform weights were kept, None where they were not.
        shortcuts: what was found of each view.
        features: what the views show whose groups have equal mass, the surest first; empty for density
            and uniform weights.
    """

    weights: jax.Array
    density: DensityWeights | None
    candidates: list[dict[str, float]]
    best: int
    trials: dict[str, Trial]
    rejection: str | None
    shortcuts: Mapping[str, probes.Shortcut] = types.MappingProxyType({})
    features: Mapping[str, FeatureWeights] = types.MappingProxyType({})

    @property
    def feature_names(self) -> str | None:
        """The view whose groups have equal mass, as "tone" or "layout and tone"."""
        return " and ".join(self.features) or None

    def record(self) -> dict[str, Any]:
        """Returns what JSON can hold of it: all but weights, density and groups."""
        return {
            "uniform": self.rejection is not None,
            "rejection": self.rejection,
            "features": self.feature_names,
            "shortcuts": {name: found._asdict() for name, found in self.shortcuts.items()},
            "best": self.candidates[self.best] if self.candidates else None,
            "trials": {name: trial._asdict() for name, trial in self.trials.items()},
            "candidates": self.candidates,
        }


ProbeCheck = Callable[[sampling.Pool, jax.Array], Callable[[jax.Array], Trial]]
"""From a pool and its pseudo-groups `[n]` to the function from weights `[n]` to their `Trial`."""

FEWEST = 20
"""Held-out samples that have to disagree before anything can be said of weights."""


def pseudo_groups(embeddings: jax.Array, labels: jax.Array, *, num_classes: int) -> jax.Array:
    """Returns for every sample the class whose mean embedding is nearest, `[n]`.

    Args:
        embeddings: `[n, d]` of an encoder trained for a short time.
        labels: `[n]`.
        num_classes: k, static; a class without samples is nobody's.

    >>> embeddings = jnp.array([[0.0], [0.2], [1.0], [0.9], [1.1]])
    >>> pseudo_groups(embeddings, jnp.array([0, 0, 0, 1, 1]), num_classes=2).tolist()
    [0, 0, 1, 1, 1]
    """
    count = jax.ops.segment_sum(jnp.ones(len(labels)), labels, num_classes)
    mean = jax.ops.segment_sum(embeddings, labels, num_classes) / jnp.maximum(count, 1)[:, None]
    squared = (mean**2).sum(1) - 2 * jnp.matmul(embeddings, mean.T, precision="highest")
    return jnp.where(count > 0, squared, jnp.inf).argmin(1)


def choose(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    strategy: augment.Strategy,
    encoder: contrastive.Encoder | None = None,
    search: Search = Search(),
    layer: Layer = "projection",
    rule: Callable[..., jax.Array] = kde.mean_distance,
    clip: float | None = None,
    comparisons: Mapping[str, blind_features.Comparison] = blind_features.COMPARISONS,
    check: ProbeCheck | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Choice:
    """Returns the weights of a view that is a shortcut, else the best of a search, or uniform ones.

    The pseudo-groups of the search are those of the longest encoder; for one length, an encoder is
    that of `by_density` with the same key.

    Args:
        key: of encoders and judge.
        pool: the samples.
        strategy: as in `encode`.
        encoder: as in `encode`.
        search: values to try.
        layer: as in `encode`.
        rule: of the bandwidth, called for each class as `rule(points, weights=mask, factor=…)`.
        clip: as in `from_density`.
        comparisons: views that cannot see the object, by name, as in `shortcuts`; {} for none.
        check: says what weights of the search are worth; `check_with_probe_networks` where omitted.
        report: called as `report(done, total)`.

    Raises:
        TypeError: as in `encode`.
        ValueError: as in `encode`, or for a clip below 1 or a search without values.
    """
    k, labels = pool.num_classes, pool.labels
    _check_clip(clip)
    _check_search(search)
    key_judge, key_views = (jax.random.fold_in(key, _LARGE - i) for i in range(2))
    if check is None:
        check = functools.partial(check_with_probe_networks, key_judge, strategy=strategy)
    report(0, 3)
    told = shortcuts(key_views, pool, comparisons=comparisons)
    passed = {
        name: comparisons[name].features for name, found in told.items() if is_shortcut(found)
    }
    if passed:
        seen = _apart(key_views, pool, passed, told, clip)
        report(3, 3)
        found = by_feature_sets(pool, list(seen.values()), clip=clip)
        return Choice(found, None, [], 0, {}, None, told, seen)
    report(1, 3)
    found = density_candidates(
        key,
        pool,
        strategy=strategy,
        encoder=encoder,
        search=search,
        layer=layer,
        rule=rule,
        clip=clip,
    )
    tried = list(found)
    groups = pseudo_groups(tried[-1][1].embeddings, labels, num_classes=k)
    sizes = dict(num_classes=k, num_attributes=k)
    balances = [
        {
            **values,
            "evenness": float(formulas.group_evenness(found.weights, labels, groups, **sizes)),
        }
        for values, found in tried
    ]
    best = int(np.argmax([each["evenness"] for each in balances]))
    report(2, 3)
    uniform, judged = formulas.uniform(labels, num_classes=k), check(pool, groups)
    trials = {"uniform": judged(uniform), "best": judged(tried[best][1].weights)}
    report(3, 3)
    objected = rejection(trials["uniform"], trials["best"])
    found = tried[best][1] if objected is None else None
    weights = uniform if found is None else found.weights
    return Choice(weights, found, balances, best, trials, objected, told)


def _apart(key, pool, passed, told, clip):
    """What views show that see another bias than those before, the surest first."""
    seen = {}
    for name in sorted(passed, key=lambda name: -told[name].z_score):
        found = by_features(key, pool, passed[name], blocks=told[name].blocks, clip=clip)
        size = math.prod(each.groups.shape[1] for each in (found, *seen.values()))
        apart = all(_correlation(found, other, pool) < ALIKE for other in seen.values())
        if not seen or (apart and size * len(pool.labels) <= _COMBINED):
            seen[name] = found
    return seen


def _correlation(one, other, pool):
    """Of the doubts of two views, within the classes."""
    count = jnp.maximum(pool.count, 1)
    total = lambda doubt: jax.ops.segment_sum(doubt, pool.labels, pool.num_classes)
    first, second = (
        each.conflict_score - (total(each.conflict_score) / count)[pool.labels]
        for each in (one, other)
    )
    return (first @ second) / jnp.maximum(jnp.sqrt((first @ first) * (second @ second)), 1e-12)


def density_candidates(
    key: jax.Array,
    pool: sampling.Pool,
    *,
    strategy: augment.Strategy,
    encoder: contrastive.Encoder | None = None,
    search: Search = Search(),
    layer: Layer = "projection",
    rule: Callable[..., jax.Array] = kde.mean_distance,
    clip: float | None = None,
) -> Iterator[tuple[dict[str, float], DensityWeights]]:
    """Yields all combinations of a search with the weights that follow, the shortest encoder first.

    The arguments are those of `choose`.
    """
    lengths = sorted(set(search.encoder_steps))
    encoders = _encoders(key, pool, strategy, encoder, lengths, layer)
    for steps, encoded in zip(lengths, encoders, strict=True):
        kernels = [functools.partial(rule, factor=factor) for factor in search.bandwidth]
        each = densities(encoded.embeddings, pool, bandwidths=kernels)
        for factor, found in zip(search.bandwidth, each, strict=True):
            for temperature in search.temperature:
                values = dict(encoder_steps=steps, bandwidth=factor, temperature=temperature)
                weights = from_density(found.log_density, pool, temperature=temperature, clip=clip)
                yield values, DensityWeights(weights, *found, *encoded)


def rejection(plain: Trial, weighed: Trial) -> str | None:
    """Returns what speaks against weights, or None where they pay.

    They have to bring the disagreeing samples near the agreeing ones, at a bearable price. What
    they gain on disagreeing samples has to be more than chance; more than what these still lie
    behind; and more than half of what is lost on all, or a test set of which two thirds disagree
    would not gain. Chance is two standard errors of the difference of two proportions, at most
    √(2 / m) for m disagreeing samples.

    >>> biased, hard = Trial(0.95, 0.99, 0.1, 400), Trial(0.9, 0.91, 0.3, 400)
    >>> rejection(biased, Trial(0.7, 0.7, 0.7, 400))
    >>> rejection(hard, Trial(0.8, 0.82, 0.4, 400))
    'bias-conflicting samples gain less (0.100) than they still lie behind (0.420)'
    """
    few = plain.count
    if not few:
        return "no held-out sample disagrees with the early classifier"
    if few < FEWEST:
        return f"could not be judged: {few} held-out samples disagree, at least {FEWEST} are needed"
    gain, loss = weighed.conflicting - plain.conflicting, plain.overall - weighed.overall
    limits = {
        "chance allows": (2 / few) ** 0.5,
        "they still lie behind": weighed.aligned - weighed.conflicting,
        "half of what all lose": loss / 2,
    }
    what, limit = max(limits.items(), key=lambda entry: entry[1])
    if gain > limit:
        return None
    return f"bias-conflicting samples gain less ({gain:.3f}) than {what} ({limit:.3f})"


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
    most: int = 1000,
) -> Callable[[jax.Array], Trial]:
    """Returns the function from weights `[n]` to what networks trained on few images make of them.

    Of the samples that agree with their pseudo-group and of those that disagree, a fifth is held
    out, or of less than a hundred as many as `FEWEST`, up to a half; no more than half of a class.
    No set has them, and each set is scored on them. Where none disagrees nothing is trained.

    Args:
        key: of the samples held out, the sets and the networks.
        pool: the samples.
        groups: `[n]` from `pseudo_groups`.
        strategy: augmentation of the networks' training.
        network: a `networks.Network`; a ConvNet of width 32 where omitted.
        sets: sets of real images drawn by the weights, each of which trains one network.
        ipc: images per class of a set.
        epochs: of training.
        most: samples of either kind that are held out.

    Raises:
        TypeError: for a strategy that is a string.
        ValueError: for an unknown operation in it, groups that are not `[n]` classes, or numbers
            below 1.
    """
    strategy = augment.as_strategy(strategy)
    _checks.integers("groups", groups, pool.num_classes, length=len(pool.labels))
    for name, number in dict(sets=sets, ipc=ipc, epochs=epochs, most=most).items():
        _checks.count(name, number)
    k, agrees = pool.num_classes, np.asarray(groups == pool.labels)
    if network is None:
        network = networks.ConvNet(k, 32, networks.max_blocks(pool.images.shape))
    key, key_held = jax.random.split(key)
    held = _held_out(key_held, np.asarray(pool.labels), agrees, most=most)
    images, groups = parallel.to_local(pool.images[held]), jnp.asarray(groups)
    test = (images, pool.labels[held], groups[held], jnp.arange(k))
    task = evaluate.Task(*test, pool.mean, pool.std, k, k, strategy)

    def one(row):
        scores = evaluate.evaluate(row[0][None], network, row[1], task, epochs=epochs)
        return scores.aligned[0], scores.conflicting[0]

    scored = parallel.thread_rows(functools.partial(jax.lax.map, one))
    share, counted = np.mean(agrees), int((~agrees[held]).sum())

    def trial(weights: jax.Array) -> Trial:
        if not counted:
            return Trial(float("nan"), float("nan"), float("nan"), 0)
        left = (jnp.asarray(weights) + 1e-30).at[held].set(0)  # a class's only weight may be held
        rest = sampling.reweight(pool, left)
        draw = functools.partial(sampling.initial_real, pool=rest, ipc=ipc, weighted=True)
        drawn = [draw(jax.random.fold_in(key, i)) for i in range(sets)]
        images = jnp.stack(parallel.to_local(drawn))
        found = scored((jax.random.split(key, sets), images))
        agreeing, disagreeing = (float(each.mean()) for each in found)
        overall = share * agreeing + (1 - share) * disagreeing
        return Trial(float(overall), agreeing, disagreeing, counted)

    return trial


def _held_out(key, labels, agrees, *, most):
    """Indices of the samples that are held out, those that agree first."""
    order = np.asarray(jax.random.permutation(key, len(labels)))
    parts = [order[agrees[order] == which] for which in (True, False)]
    share = lambda n: min(most, max(n // 5, min(FEWEST, n // 2)))
    held = np.concatenate([part[: share(len(part))] for part in parts])
    own = labels[held]
    place = np.argsort(np.argsort(own, kind="stable")) - np.searchsorted(np.sort(own), own)
    return held[place < np.bincount(labels)[own] // 2]
