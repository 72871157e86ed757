"""Registry of weightings: how a run weights the real samples.

To add a weighting, write a function from a `context.Run` to `SampleWeights` and add one entry to
`WEIGHTINGS`. The choices of the command line, the rows of a comparison, and the texts and citations
of reports come from this registry.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import augment, kde, networks, sampling, weights
from jaxdd.data import benchmarks
from jaxdd.runs import components, processes, results
from jaxdd.runs import methods as run_methods
from jaxdd.runs.context import Context, Run
from jaxdd.runs.folder import labels_file
from jaxdd.runs.options import DM, OWN_EMBEDDING
from jaxdd.weights import DensityWeights, blind_features, candidates

_MAX_VALUES = 20  # an attribute with more values is rejected if many of its groups are small


class SampleWeights(NamedTuple):
    """Weights of the training samples, with the density or the choice behind them.

    Attributes:
        weights: `[n]`, non-negative.
        density: the density of density weights, with embeddings and encoder.
        choice: JSON record of a choice, of `auto` and `labels`.
    """

    weights: jax.Array
    density: DensityWeights | None = None
    choice: dict[str, Any] | None = None


class Weighting(NamedTuple):
    """Registry entry of a weighting.

    Attributes:
        title: title in tables, figures and pages.
        description: description of a set distilled with these weights, for reports and help.
        compute: from a `context.Run` to `SampleWeights`; None for uniform weights.
        needs_bias_labels: whether the bias attributes of the training set must be known.
        check: `check(context)` raises ValueError if options or data do not allow the weighting.
        batch_sampler: `batch_sampler(context, sample_weights)` returns the sampler that weights
            each batch by its own density, for the option weighting="batch".
        group_loss: for batches drawn by bias group: "separate" for one loss per group (FairDD),
            "barycentre" for the distance to the mean of the groups (COBRA), "barycentre-l1" for the
            same with absolute differences. None for weighted batches.
        keeps_choice: whether the record of a choice is a product of the run, choice.json.
        citations: keys of `data.citations.BIBTEX`.
    """

    title: str
    description: str
    compute: Callable[[Run], SampleWeights] | None = None
    needs_bias_labels: bool = False
    check: Callable[[Context], None] | None = None
    batch_sampler: Callable[[Context, SampleWeights], sampling.Sampler] | None = None
    group_loss: Literal["separate", "barycentre", "barycentre-l1"] | None = None
    keeps_choice: bool = False
    citations: tuple[str, ...] = ()


class _Row(NamedTuple):
    """A row of a comparison.

    Attributes:
        weighting: key of `WEIGHTINGS`.
        distilled: whether its images are distilled; otherwise they are real.
        description: one sentence.
    """

    weighting: str
    distilled: bool
    description: str


DEFAULT_ROWS = ("random", "random-density", "plain", "density", "auto", "oracle")
"""Default rows of a comparison."""


def rows() -> dict[str, _Row]:
    """Return all rows that a comparison can have, in the order of its table."""
    real = {
        "random": _Row("plain", False, "real images, sampled uniformly"),
        "random-density": _Row("density", False, "real images, sampled by density weights"),
    }
    return real | {name: _Row(name, True, x.description) for name, x in WEIGHTINGS.items()}


# --- density -----------------------------------------------------------------------------------


def encoding(options: DM, pool: sampling.Pool) -> dict[str, Any]:
    """Return encoder and layer for embedding the training set, for `weights.encode`."""
    shape = dict(width=options.encoder_width, depth=options.depth)
    return dict(encoder=weights.default_encoder(pool, **shape), layer=options.encoder_layer)


def _bandwidth_rule(options: DM):
    median = functools.partial(kde.median_distance, components.key(options, "median"))
    rules = {"mean-distance": kde.mean_distance, "median-distance": median}
    return (rules | {"scott": kde.scott, "silverman": kde.silverman})[options.bandwidth_rule]


def _bandwidth(options: DM, embeddings: jax.Array, pool: sampling.Pool) -> Any:
    """Return the bandwidth: a number, one per class, or the rule that computes it."""
    if options.bandwidth_rule == "fixed":
        return options.bandwidth
    if options.bandwidth_rule == "likelihood":
        # 13 candidates from a tenth of the mean distance within a class to the mean distance.
        classes = dict(num_classes=pool.num_classes)
        widest = functools.partial(kde.mean_distance, factor=1.0)
        scale = kde.class_bandwidth(widest, embeddings, pool.labels, **classes)
        bandwidths = jnp.geomspace(0.01, 1, 13)[:, None] ** 0.5 * scale
        return kde.likelihood(embeddings, pool.labels, bandwidths, **classes)
    # By default each rule uses its own factor.
    factor = {} if options.bandwidth is None else dict(factor=options.bandwidth)
    return functools.partial(_bandwidth_rule(options), **factor)


def _by_density(run):
    context, options, pool = run.context, run.context.options, run.context.pool
    context.report("embedding", 0, 1)
    with run.timed("embed"):
        encoded = weights.encode(
            components.key(options, "encoder"), pool, steps=options.encoder_steps,
            strategy=context.components.strategy, **encoding(options, pool),
        )  # fmt: skip
        jax.block_until_ready(encoded)
    with run.timed("density"):
        bandwidth = _bandwidth(options, encoded.embeddings, pool)
        estimate = weights.density(encoded.embeddings, pool, bandwidth=bandwidth)
        values = weights.from_density(
            estimate.log_density, pool, temperature=options.temperature, clip=options.clip
        )
        density_weights = weights.DensityWeights(values, *estimate, *encoded)
        jax.block_until_ready(density_weights)
    context.report("embedding", 1, 1)
    result = processes.broadcast(density_weights)
    return SampleWeights(result.weights, result)


def _density_in_batches(context, sample_weights):
    options, density = context.options, sample_weights.density
    encoder = encoding(options, context.pool)["encoder"]
    embed = lambda images: getattr(encoder.apply(density.params, images), options.encoder_layer)
    return sampling.density_weighted(
        context.components.sampler, embed, bandwidth=density.bandwidth,
        temperature=options.temperature,
    )  # fmt: skip


# --- chosen, by features, by labels, custom -----------------------------------------------------


def choose(
    pool: sampling.Pool,
    options: DM,
    *,
    strategy: augment.Strategy,
    embedding: np.ndarray | None = None,
    **choosing: Any,
) -> weights.Choice:
    """Choose weights as "auto" does.

    Args:
        pool: the samples; their weights are ignored.
        options: options of the weights.
        strategy: augmentation of encoders and probe networks.
        embedding: `[n, d]` embedding of the user, or None.
        **choosing: options of `weights.choose` that replace those of `options`, and `report`.
    """
    network = networks.ConvNet(pool.num_classes, options.encoder_width, options.depth)
    check = functools.partial(
        weights.check_with_probe_networks, components.key(options, "auto"), strategy=strategy,
        network=network,
    )  # fmt: skip
    chosen: dict[str, Any] = dict(
        search=_search(options, pool), check=check, clip=options.clip, suspect=options.suspect,
        exclude=options.exclude, embeddings=_named(embedding), strategy=strategy,
    )  # fmt: skip
    return weights.choose(components.key(options, "encoder"), pool, **(chosen | choosing))


def _search(options: DM, pool: sampling.Pool) -> weights.Search:
    """Return the search of `auto`: multiples of the values in the options."""
    bandwidth = kde.FACTOR if options.bandwidth is None else options.bandwidth
    default = weights.Search()
    # The defaults of `Search` are for 30 steps of the encoder and temperature 1.
    return weights.Search(
        encoder_steps=tuple(options.encoder_steps * n // 30 for n in default.encoder_steps),
        bandwidth=tuple(bandwidth * factor for factor in (0.5, 1, 2, 4)),
        temperature=tuple(options.temperature * factor for factor in default.temperature),
        rule=_bandwidth_rule(options), **encoding(options, pool),
    )  # fmt: skip


def _named(embedding):
    """Return {name of the candidate: embedding of the user} for `weights.choose`, or {}."""
    return {} if embedding is None else {OWN_EMBEDDING: embedding}


def _check_auto(context):
    options = context.options
    searchable = "mean-distance", "median-distance"
    if options.bandwidth_rule not in searchable:
        raise ValueError(
            f"auto searches the factor of the bandwidth rules {' and '.join(searchable)}, "
            f"got {options.bandwidth_rule}; use debias='density'"
        )
    if context.embedding is None and OWN_EMBEDDING in (*options.suspect, *options.exclude):
        raise ValueError(f"suspect and exclude got {OWN_EMBEDDING}, but there is no embedding")
    if options.weighting == "batch":
        raise ValueError("auto chooses weights of the whole set, got weighting='batch'")


def _chosen(run):
    """Choose weights by bias labels if the data have some that are accepted, or without."""
    context, record = run.context, {}
    labels = labels_file.of_data(context.data)
    if labels is not None and _shows_features(context):
        result = _from_labels(run, labels)
        if result.rejection is None:
            return _accepted(result, labels, context)
        record = {"labels": result.record(context.data.class_names, labels.names)}
    with run.timed("choose"):
        choice = choose(
            context.pool, context.options, strategy=context.components.strategy,
            embedding=context.embedding,
            report=functools.partial(context.report, "choosing weights"),
        )  # fmt: skip
    record = choice.record() | record
    return SampleWeights(processes.broadcast(choice.weights), choice.density, record)


def _shows_features(context):
    n, h, w, _ = context.data.train.images.shape
    return n >= 3 and min(h, w) >= 4


def _check_features(context):
    if not _shows_features(context):
        n, h, w, _ = context.data.train.images.shape
        raise ValueError(
            "weights by features need at least 3 images with sides of at least 4 pixels, got "
            f"{n} of {h}×{w}"
        )


def _by_candidate(name, run):
    context, options = run.context, run.context.options
    embeddings = _named(context.embedding)
    if name == "embedding" and embeddings:
        name = OWN_EMBEDDING
    key = components.key(options, "encoder")
    with run.timed("choose"):
        # `choose` takes the blocks of classes from the shortcut test, so it is repeated here.
        comparisons = {x: y for x, y in blind_features.COMPARISONS.items() if x == name}
        tests = weights.shortcuts(candidates.folds_key(key), context.pool, comparisons=comparisons)
        candidate = weights.by_candidate(
            key, context.pool, name, shortcut=tests.get(name), clip=options.clip,
            encoder=encoding(options, context.pool)["encoder"], embeddings=embeddings,
            strategy=context.components.strategy,
        )  # fmt: skip
        return SampleWeights(processes.broadcast(candidate.weights))


def _labels(context):
    """Return the bias labels of the user, or those that the data have for some images, or None."""
    return context.bias_labels or labels_file.of_data(context.data)


def _check_labels(context):
    if _labels(context) is None:
        known = "none" if context.data.train.attributes is None else "those of all"
        raise ValueError(
            "debias='labels' requires bias labels of some training images, got "
            f"{known} for {context.data.name}; pass bias_labels="
        )
    _check_features(context)


def _by_labels(run):
    labels = _labels(run.context)
    result = _from_labels(run, labels)
    if result.rejection is not None:
        raise ValueError(
            f"the bias labels cannot be used: {result.rejection}. Label more images (`jaxdd "
            "bias --ask 100`), accept a candidate (`--debias NAME`), or add your own embedding"
        )
    return _accepted(result, labels, run.context)


def _from_labels(run, labels):
    context, options = run.context, run.context.options
    (indices,) = np.nonzero(labels.attributes >= 0)
    count = max(len(labels.names), int(labels.attributes.max()) + 1)
    context.report("using bias labels", 0, 1)
    with run.timed("choose"):
        result = weights.from_labels(
            components.key(options, "encoder"), context.pool, indices, labels.attributes[indices],
            num_attributes=count, clip=options.clip, strategy=context.components.strategy,
            encoder=encoding(options, context.pool)["encoder"],
            embeddings=_named(context.embedding), exclude=options.exclude,
        )  # fmt: skip
    context.report("using bias labels", 1, 1)
    return result


def _accepted(result, labels, context):
    """Return weights by bias labels, with a record in the form of `Choice.record`."""
    record = {
        "verdict": "biased", "uniform": False, "chosen": [result.features], "candidates": [],
        "best": None, "search": [],
        "labels": result.record(context.data.class_names, labels.names),
    }  # fmt: skip
    return SampleWeights(processes.broadcast(result.weights), None, record)


def _check_groups(context):
    """Raise ValueError for an attribute with many values and many small groups."""
    data = context.data
    counts = benchmarks.group_counts(data, data.train)
    sizes, values = counts[counts > 0], int(counts.any(0).sum())
    small = int((sizes < results.MIN_GROUP_SIZE).sum())
    if values > _MAX_VALUES and 4 * small > len(sizes):
        effective = benchmarks.oracle_sample_sizes(counts).sum()
        raise ValueError(
            f"weights by bias groups need groups of several images, got an attribute of {values} "
            f"values: {small} of {len(sizes)} groups have fewer than {results.MIN_GROUP_SIZE} "
            f"training images, and the effective sample size would be {effective:.0f} of "
            f"{len(data.train.labels):,}; merge values in a column of the table, for example "
            "ages into decades, or leave out the rows that use bias labels"
        )


def _check_l1(context):
    if context.options.method != "dm":
        raise ValueError(
            f"cobra-l1 compares mean features and requires method='dm', got "
            f"{context.options.method}; use cobra"
        )
    _check_groups(context)


def _oracle(run):
    data, pool = run.context.data, run.context.pool
    count = data.num_attributes
    return SampleWeights(weights.oracle(pool, data.train.attributes, num_attributes=count))


def _custom(run):
    return SampleWeights(sampling.reweight(run.context.pool, run.context.custom_weights).weights)


def _check_custom(context):
    if context.custom_weights is None:
        raise ValueError("debias='custom' requires weights=")


WEIGHTINGS: dict[str, Weighting] = {
    "plain": Weighting("plain distillation", "distilled with uniform weights"),
    "density": Weighting(
        "density weights",
        "distilled with density weights, without bias labels",
        _by_density,
        batch_sampler=_density_in_batches,
        citations=("weights", "encoder"),
    ),
    "auto": Weighting(
        "weights chosen without labels",
        "distilled with weights chosen without bias labels; uniform if no others help",
        _chosen,
        check=_check_auto,
        keeps_choice=True,
        citations=("weights", "encoder"),
    ),
    **{
        name: Weighting(
            f"{name} weights",
            f"distilled with weights by the {name} of the images, without bias labels",
            functools.partial(_by_candidate, name),
            check=_check_features,
            citations=("weights",),
        )
        for name in blind_features.NAMED
    },
    "embedding": Weighting(
        "embedding weights",
        "distilled with weights by an embedding of the images, without bias labels",
        functools.partial(_by_candidate, "embedding"),
        check=_check_features,
        citations=("weights", "encoder"),
    ),
    "labels": Weighting(
        "label weights",
        "distilled with weights from features selected by the bias labels of some images",
        _by_labels,
        check=_check_labels,
        keeps_choice=True,
        citations=("weights", "encoder"),
    ),
    "oracle": Weighting(
        "oracle weights",
        "distilled with weights computed from bias labels",
        _oracle,
        needs_bias_labels=True,
        check=_check_groups,
        citations=("weights",),
    ),
    "fairdd": Weighting(
        "FairDD",
        "distilled with one loss per bias group, using bias labels",
        _oracle,
        needs_bias_labels=True,
        check=_check_groups,
        group_loss="separate",
        citations=("fairdd",),
    ),
    "cobra": Weighting(
        "COBRA",
        "distilled towards the mean of the bias groups, using bias labels",
        _oracle,
        needs_bias_labels=True,
        check=_check_groups,
        group_loss="barycentre",
        citations=("cobra",),
    ),
    "cobra-l1": Weighting(
        "COBRA (L1)",
        "distilled towards the mean of the bias groups by the L1 distance, using bias labels",
        _oracle,
        needs_bias_labels=True,
        check=_check_l1,
        group_loss="barycentre-l1",
        citations=("cobra",),
    ),
    "custom": Weighting(
        "custom weights", "distilled with weights of your own", _custom, check=_check_custom
    ),
}
"""All weightings, by the value of `--debias`; each is also a row of a comparison."""


USING_EMBEDDING = ("auto", "embedding", "labels")
"""Weightings that use an embedding of the user."""


def check_embedding(names: Iterable[str], embedding: Any) -> None:
    """Raise ValueError for an embedding of the user that none of the weightings uses."""
    if embedding is not None and not {*names} & {*USING_EMBEDDING}:
        known, got = ", ".join(USING_EMBEDDING), ", ".join(names)
        raise ValueError(f"embedding requires one of the weightings {known}, got {got}")


def title(name: str) -> str:
    """Return the title of a row."""
    return WEIGHTINGS[name].title if name in WEIGHTINGS else name


def check(context: Context, name: str) -> None:
    """Raise ValueError if data, options or method do not allow a weighting, before any work."""
    if name not in WEIGHTINGS:
        raise ValueError(f"debias must be one of {', '.join(WEIGHTINGS)}, got {name!r}")
    weighting = WEIGHTINGS[name]
    if weighting.needs_bias_labels and context.data.train.attributes is None:
        some = context.data.bias_labels
        known = "none" if some is None else f"{(some >= 0).sum():,} of {len(some):,}"
        raise ValueError(
            f"{name} needs the bias attributes of all training images, got {known} for "
            f"{context.data.name}"
        )
    if weighting.group_loss and (context.own_method or context.follows):
        method = context.own_method or context.options.method
        raise ValueError(
            f"{name} needs a method with a loss per group: {run_methods.direct()}, got {method}"
        )
    if weighting.check is not None:
        weighting.check(context)


def diagnose(context: Context, values: jax.Array) -> dict[str, float | None]:
    """Return diagnostics of weights; those of bias groups are None for unknown attributes."""
    data, labels = context.data, context.pool.labels
    if data.train.attributes is None or data.aligned is None:
        size = weights.formulas.effective_sample_size(values, labels, num_classes=data.num_classes)
        unknown = dict.fromkeys(("conflict_auc", "conflict_weight_share", "group_evenness"))
        return {"effective_sample_size": float(size.mean()), **unknown}
    static = ("num_classes", "num_attributes")
    diagnose = jax.jit(weights.formulas.diagnose, static_argnames=static)
    attributes, aligned = jnp.asarray(data.train.attributes), jnp.asarray(data.aligned)
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
    diagnostics = diagnose(values, labels, attributes, aligned, **sizes)
    return {name: float(np.asarray(value)) for name, value in diagnostics._asdict().items()}
