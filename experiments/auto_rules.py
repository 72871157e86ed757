"""Which rule finds good weights without bias labels? Five of them on eight benchmarks.

    python -m experiments.auto_rules --preset quick --data-dir DIR

All of them choose among the same weights, those of `weights.Search`: two encoder lengths, four
bandwidths, five temperatures.

* default: what `options.DM` says, found on cfmnist with the attributes of that set.
* likelihood: the bandwidth under which every sample is likeliest given the others of its class. It
  says nothing of encoder and temperature, which are the default's.
* stability: the encoder and bandwidth whose densities rank the samples most alike for two seeds of
  the encoder. It says nothing of the temperature.
* worst: the weights by which a few real images are drawn that teach a network most about the worse
  of two kinds of held-out samples: those whose class an early classifier gets right, and the
  others. Each trial trains networks, so the temperature is tried for the best encoder and bandwidth
  only.
* balance: the weights under which these two kinds, or rather all pairs of a class and a class that
  the early classifier says, weigh alike. `--debias auto` goes by this rule, after asking by
  networks whether weights pay at all.

What a rule chose is judged by the attributes: balance of the bias groups (1 is uniform), and
accuracy on held-out conflicting samples of networks trained on real images drawn by the weights.
"best" is the largest balance among all weights. About nine minutes for a benchmark of MNIST on two
cores, so that the quick preset has three of them; every benchmark is written when it is done, and a
repeated command computes those that are missing (`--only` names others).

Balance finds the best of all weights where they pay, or nearly so, also where conflict is rare or
classes are unequal, of which default, likelihood and stability lose more. Among corruptions,
natural backgrounds and grey images the early classifier falls for something else than the bias, no
rule finds weights that are better than uniform ones, and what networks say of them is that they do
not pay.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy import stats

from experiments.tools import grid
from jaxdd import kde, networks, sampling, weights
from jaxdd.data import datasets, files
from jaxdd.runs import components, timing
from jaxdd.runs import old_results as results
from jaxdd.runs.options import Options, make
from jaxdd.weights import formulas

BENCHMARKS = {
    "cmnist-bg": ("cmnist-bg", 0.05),
    "cmnist-fg": ("cmnist-fg", 0.05),
    "cfmnist-bg": ("cfmnist-bg", 0.05),
    "cmnist .5 % conflict": ("cmnist", 0.005),
    "cmnist unequal classes": ("cmnist", 0.05),
    "cifar10-s": ("cifar10-s", 0.05),
    "ccifar10": ("ccifar10", 0.05),
    "bgfmnist": ("bgfmnist", 0.05),
}
"""Name and share of conflicting samples.

None of them led to the defaults; the first five and cifar10-s did not lead to the rule of auto
either, while the last two were looked at; cfmnist-bg led to how it decides whether weights pay.
"""

QUICK = "cmnist-bg", "cmnist .5 % conflict", "ccifar10"

Values = dict[str, float]
Tried = Sequence[tuple[Values, weights.DensityWeights]]
"""What `weights.density_candidates` yields."""


def unequal(data: datasets.Benchmark) -> datasets.Benchmark:
    """Keeps all of the first class, a half of the second, a third of the third, and so on."""
    train = data.train
    place = np.empty(len(train.labels), int)  # of each sample among those of its class
    for k in range(data.num_classes):
        own = np.flatnonzero(train.labels == k)
        place[own] = np.random.default_rng(k).permutation(len(own))
    kept = place * (1 + train.labels) < np.bincount(train.labels)[train.labels]
    return data._replace(train=datasets.select(train, kept))


def defaults(options: Options) -> Values:
    """The values that the default rule chooses."""
    bandwidth = kde.FACTOR if options.bandwidth is None else options.bandwidth
    steps, temperature = options.encoder_steps, options.temperature
    return dict(encoder_steps=steps, bandwidth=bandwidth, temperature=temperature)


def likelihood(pool: sampling.Pool, tried: Tried, default: Values) -> int:
    """Place of the bandwidth with the largest leave-one-out likelihood."""

    def score(values, found):
        if not _agree(values, default, "encoder_steps", "temperature"):
            return -np.inf
        classes = dict(num_classes=pool.num_classes, leave_one_out=True)
        embedded = found.embeddings, pool.labels, found.bandwidth
        return float(kde.class_log_density(*embedded, **classes).mean())

    return int(np.argmax([score(*each) for each in tried]))


def stability(pool: sampling.Pool, tried: Tried, others: Tried, default: Values) -> int:
    """Place of the encoder and bandwidth whose densities depend least on the seed.

    Args:
        pool: the samples.
        tried: with one seed.
        others: the same values with another.
        default: see `defaults`.
    """
    classes = [np.flatnonzero(pool.labels == k) for k in range(pool.num_classes)]

    def score(values, one, other):
        if not _agree(values, default, "temperature"):
            return -np.inf
        one, other = (np.asarray(each.log_density) for each in (one, other))
        return np.mean([stats.spearmanr(one[own], other[own]).statistic for own in classes])

    pairs = zip(tried, others, strict=True)
    return int(np.argmax([score(values, one, other) for (values, one), (_, other) in pairs]))


def worst(tried: Tried, judge: Callable[[jax.Array], weights.Trial], default: Values) -> int:
    """Place of the weights with the best accuracy on the worse of two kinds of held-out samples."""

    @functools.cache
    def score(place):
        trial = judge(tried[place][1].weights)
        return min(trial.aligned, trial.conflicting)

    at_default = [
        i for i, (values, _) in enumerate(tried) if _agree(values, default, "temperature")
    ]
    first = tried[max(at_default, key=score)][0]
    alike = [i for i, (v, _) in enumerate(tried) if _agree(v, first, "encoder_steps", "bandwidth")]
    return max(alike, key=score)


def balanced(pool: sampling.Pool, tried: Tried, groups: jax.Array) -> int:
    """Place of the weights under which the groups of every class weigh most alike."""
    sizes = dict(num_classes=pool.num_classes, num_attributes=pool.num_classes)
    balance = functools.partial(formulas.group_evenness, labels=pool.labels, **sizes)
    return int(np.argmax([balance(found.weights, attributes=groups) for _, found in tried]))


def _agree(one, other, *names):
    return all(one[name] == other[name] for name in names)


def candidates(
    data: datasets.Benchmark, pool: sampling.Pool, options: Options, search: weights.Search
) -> Tried:
    """What the rules choose among."""
    encoder = weights.default_encoder(pool, width=options.encoder_width, depth=options.depth)
    how = dict(strategy=data.strategy, encoder=encoder, search=search)
    return list(weights.density_candidates(components.key(options, "encoder"), pool, **how))


def judged(
    data: datasets.Benchmark,
    options: Options,
    *,
    search: weights.Search = weights.Search(),
    **judging: Any,
) -> dict[str, Any]:
    """What every rule chooses for a benchmark, and what that is worth.

    Args:
        data: with attributes.
        options: resolved.
        search: what the rules choose among, `defaults` included.
        **judging: options of `weights.check_with_probe_networks`.
    """
    pool, classes, labels = datasets.pool(data), data.num_classes, data.train.labels
    judge = functools.partial(
        weights.check_with_probe_networks,
        components.key(options, "auto"),
        pool,
        strategy=data.strategy,
        network=networks.ConvNet(classes, options.encoder_width, options.depth),
        **judging,
    )
    tried, others = (
        candidates(data, pool, dataclasses.replace(options, seed=seed), search)
        for seed in (options.seed, options.seed + 1)
    )
    early = weights.pseudo_groups(tried[-1][1].embeddings, pool.labels, num_classes=classes)
    by_early, default = judge(early), defaults(options)
    places = {
        "default": [values for values, _ in tried].index(default),
        "likelihood": likelihood(pool, tried, default),
        "stability": stability(pool, tried, others, default),
        "worst": worst(tried, by_early, default),
        "balance": balanced(pool, tried, early),
    }
    uniform = formulas.uniform(pool.labels, num_classes=classes)
    best = tried[places["balance"]][1].weights
    conflicts = data.train.attributes != np.asarray(data.aligned)[labels]
    disagrees = np.asarray(early) != labels
    by_attributes = judge(jnp.asarray((labels + conflicts) % classes))
    return {
        "rules": rows(data, pool, tried, places, by_attributes),
        "best": max(float(diagnosed(data, found.weights).group_evenness) for _, found in tried),
        "pays": weights.rejection(by_early(uniform), by_early(best)) is None,
        "purity": float(conflicts[disagrees].mean()),
        "coverage": float(disagrees[conflicts].mean()),
        "samples": len(labels),
    }


def rows(
    data: datasets.Benchmark,
    pool: sampling.Pool,
    tried: Tried,
    places: dict[str, int],
    judge: Callable[[jax.Array], weights.Trial],
) -> dict[str, dict[str, Any]]:
    """What uniform weights, those of the oracle and those that rules chose are worth.

    Args:
        data: with attributes.
        pool: of the data.
        tried: what the rules chose among.
        places: of what they chose.
        judge: by the attributes.
    """

    def row(values, found):
        diagnosis = diagnosed(data, found)
        return {
            "values": values,
            "conflicting": judge(found).conflicting,
            "balance": float(diagnosis.group_evenness),
            "conflict_weight_share": float(diagnosis.conflict_weight_share),
        }

    attributes, count = data.train.attributes, data.num_attributes
    uniform = formulas.uniform(pool.labels, num_classes=data.num_classes)
    oracle = weights.oracle(pool, attributes, num_attributes=count)
    chosen = {place: row(tried[place][0], tried[place][1].weights) for place in places.values()}
    return {
        "uniform": row(None, uniform),
        "oracle": row(None, oracle),
        **{rule: chosen[place] for rule, place in places.items()},
    }


def diagnosed(data: datasets.Benchmark, found: jax.Array) -> formulas.Diagnostics:
    """What weights did to the bias."""
    known = data.train.labels, data.train.attributes, np.asarray(data.aligned)
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
    return formulas.diagnose(found, *known, **sizes)


def main(
    *,
    preset: Literal["quick", "paper"] = "quick",
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path = grid.RESULTS / "auto_rules.json",
    only: str | None = None,
) -> None:
    """Judges the rules on every benchmark that `out` does not hold yet.

    Args:
        preset: quick has the benchmarks in `QUICK`, paper has all.
        data_dir: folder with the original files.
        out: JSON file.
        only: names of benchmarks, separated by commas, instead of those of the preset.
    """
    out = out.expanduser()
    names = QUICK if preset == "quick" else tuple(BENCHMARKS)
    names = names if only is None else only.split(",")
    if unknown := set(names) - BENCHMARKS.keys():
        raise ValueError(f"unknown benchmark {min(unknown)!r}; known are {', '.join(BENCHMARKS)}")
    report = files.read_json(out) if out.exists() else {"judged": {}}
    for name in names:
        if name in report["judged"]:
            continue
        dataset, conflict = BENCHMARKS[name]
        options = make(conflict=conflict)
        data = grid.load(dataset, options, data_dir=data_dir)
        data = unequal(data) if "unequal" in name else data
        with timing.timed(seconds := {}, "all"):
            found = judged(data, options)
        report["judged"][name] = {
            **found,
            "seconds": seconds["all"],
            **results.circumstances(),
        }
        files.write_json(out, report)
        print(
            name,
            {rule: round(each["balance"], 3) for rule, each in found["rules"].items()},
            f"best {found['best']:.3f}, weights {'pay' if found['pays'] else 'do not pay'}",
        )


if __name__ == "__main__":
    tyro.cli(main)
