"""Is the verdict about a bias right on data sets that nobody tuned on?

    python -m experiments.decisions --data-dir DIR
    python -m experiments.decisions --test --seeds 3 --data-dir DIR
    python -m experiments.decisions --part rivals [--test] --data-dir DIR
    python -m experiments.decisions --part distil --data-dir DIR

For each data set and seed, `auto` decides on at most 15,000 training samples. The results are the
verdict and the candidates with their evidence. Bias labels measure how well each candidate detects
bias-conflicting samples and balances the bias groups (as in `experiments.shortcuts`). A sample with
a wrong label counts as bias-conflicting if it lacks the majority attribute of that label.

`rivals` runs other methods on the same samples: Cleanlab's Datalab, XRM, and SSA with 100 bias
labels (`experiments.tools.rivals`). `distil` distils eight sets with uniform weights, with those of
auto and of the best candidate, and with those from 20, 100 and all bias labels.

The data sets were named on 2026-11-25, before any of the test sets was measured.

DEVELOPMENT: all sets of `experiments.shortcuts`, and faces of 32 pixels whose classes are young and
old. In 96 % of the training images, gender goes with age. All thresholds and features were chosen
on these sets.

Early stopping was fixed on 2026-11-26 on development sets only, after the test sets had been
measured without it. The test sets were then measured once with it; all verdicts and choices, of all
seeds, were the same. The rules:

* A shortcut test ends if its z-score is below -1 with 5,000 samples. On six development sets with
  a shortcut, that z-score is 3.0 to 25.2 (fmnist-scale 3.0, ccifar10 5.7).
* A probe network check ends after one to three of its four sets if three standard deviations
  separate the decision from its opposite (`jaxdd.weights.probe_networks`). Between sets, the gain
  minus the limits for chance, gap and loss has the standard deviations 0.045, 0.095 and 0.052 for
  300 held-out conflicting samples, pooled over eight development sets: cmnist, cfmnist,
  cmnist-pairs, fmnist-texture, fmnist-turn, bgfmnist-few, faces and mnist. The rule uses 0.05, 0.12
  and 0.06. In all four cyclic orders of their sets, the eight decisions are those after four sets;
  2.7 sets are used on average.

TEST: the sets below. 5 % of the training samples are bias-conflicting unless stated otherwise. A
wrong label is that of another class, drawn uniformly.

Biased:

* cmnist, fmnist-turn, 5 % wrong labels: coloured digits and turned clothes, with wrong labels.
* ccifar10 1 %: corruptions with 1 % conflicting.
* cifar10-jpeg: classes 5–9 were compressed as JPEG of quality 10, the others were not.
* cifar10-balance: classes 0–4 are warmer, 5–9 colder, by 13 % ± 6 %.
* cifar10-ramp: one side is up to 30 % brighter and the opposite side darker, in ten directions.
* cifar10-blur: blur of one of five widths, up to 1.3 pixels; classes c and c + 5 share a width.
* fmnist-frame: a frame of two pixels in one of ten grey levels.
* mnist-stripes: weak stripes in one of ten orientations over digits.
* fmnist-tones: warm dresses and cold coats at 64 pixels, 96 of 12,000 conflicting, as in BFFHQ.
* cmnist-next: coloured digits; all conflicting samples of class c have the colour of class c + 1.
* cfmnist-solid-bg long tail: coloured backgrounds, class sizes falling geometrically to a
  twentieth.

Unbiased:

* mnist, fashion_mnist, cifar10 with 1 % and with 10 % wrong labels.
* cats and dogs: 4,750 cats and 250 dogs of CIFAR-10.
* fashion_mnist long tail: class sizes falling geometrically to a twentieth.
* turns, colours: quarter turns of clothes, colours of digits, independent of the class.
* equal faces: as many men as women, young and old, of the same photographs.

Special, not counted:

* cmnist without conflict: there is no bias-conflicting sample, so no weights can help.
* colour is the class: cmnist with class and attribute exchanged. The class is the colour, and 95 %
  of the samples of a class show the same digit. Tone shows the object here.
"""

import collections
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy import stats

from experiments import shortcuts
from experiments.tools import biased_sets, gains, grid, markdown, record, rivals, words
from jaxdd import weights
from jaxdd.data import benchmarks, bias, datasets
from jaxdd.runs import components, pipeline, programs, timing, weightings
from jaxdd.runs.options import make
from jaxdd.weights import blind_features, candidates, feature_weights, formulas

OUT, RIVALS, SETS = (
    grid.RESULTS / f"decisions{part}.json" for part in ("", "-rivals", "-distilled")
)

SAMPLES = 15_000
"""Maximum number of training samples to decide on, as in `jaxdd bias`."""

SEEN = 0.9
"""Minimum AUC within classes of a candidate that shows the bias."""

DISTILLED = (
    "faces", "fmnist-turn", "fmnist-texture", "cmnist-pairs", "bgfmnist-few", "ccifar10",
    "cmnist 5 % wrong labels", "cifar10-jpeg",
)  # fmt: skip
"""Data sets that are distilled."""

ROWS = "plain", "auto", "best candidate", "20 labels", "100 labels", "oracle"
"""Weights that they are distilled with."""

FEATURES = (*blind_features.NAMED, candidates.EMBEDDING)
"""Features that the rivals use."""


class DataSet(NamedTuple):
    """A data set to decide about.

    Attributes:
        source: name of a benchmark, or "faces".
        biased: whether it has a bias; None for a special set, which is not counted.
        change: `change(data, seed=seed)` returns the data set from the source; for "faces" from the
            folder of the faces.
        conflict: share of bias-conflicting samples of the source, None for its default.
        severity: severity of corruptions of the source, None for its default.
    """

    source: str
    biased: bool | None = True
    change: Callable[..., datasets.Benchmark] = lambda data, *, seed: data
    conflict: float | None = None
    severity: int | None = None


def load(
    dataset: DataSet, *, seed: int, data_dir: pathlib.Path | None = None
) -> datasets.Benchmark:
    """Load a data set.

    Args:
        dataset: the data set.
        seed: random seed of attributes, wrong labels and choice of samples.
        data_dir: folder with the original files.

    Raises:
        FileNotFoundError: there are no faces in `data_dir`.
    """
    if dataset.source == "faces":
        folder = pathlib.Path(data_dir or ".", "faces")
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist; the faces are not public")
        return dataset.change(folder, seed=seed)
    options = dict(conflict=dataset.conflict, severity=dataset.severity, seed=seed)
    return dataset.change(benchmarks.load(dataset.source, data_dir=data_dir, **options), seed=seed)


def _known(setting):
    change = lambda data, *, seed: setting.change(data)
    biased = setting.conflict is not None and setting.conflict < 0.5
    return DataSet(setting.name, biased, change, setting.conflict, setting.severity)


_wrong = lambda share: functools.partial(shortcuts.mislabelled, share=share)
_PLAIN = "mnist", "fashion_mnist", "cifar10"

DEVELOPMENT = {
    **{
        title: _known(setting)
        for title, setting in (shortcuts.DEVELOPMENT | shortcuts.HELD_OUT).items()
    },
    "faces": DataSet("faces", change=biased_sets.faces),
}
"""Data sets that all thresholds and features were chosen on."""

_BIASED = {
    "cmnist 5 % wrong labels": DataSet("cmnist", change=_wrong(0.05), conflict=0.05),
    "fmnist-turn 5 % wrong labels": DataSet("fmnist-turn", change=_wrong(0.05), conflict=0.05),
    "ccifar10 1 %": DataSet("ccifar10", conflict=0.01),
    "cifar10-jpeg": DataSet("cifar10", change=biased_sets.jpeg),
    "cifar10-balance": DataSet("cifar10", change=biased_sets.white_balance),
    "cifar10-ramp": DataSet("cifar10", change=biased_sets.ramp),
    "cifar10-blur": DataSet("cifar10", change=biased_sets.blur),
    "fmnist-frame": DataSet("fashion_mnist", change=biased_sets.frame),
    "mnist-stripes": DataSet("mnist", change=biased_sets.stripes),
    "fmnist-tones": DataSet("fashion_mnist", change=biased_sets.two_tones),
    "cmnist-next": DataSet("mnist", change=biased_sets.next_color),
    "cfmnist-solid-bg long tail": DataSet(
        "cfmnist-solid-bg", change=biased_sets.long_tailed, conflict=0.05
    ),
}
_CATS_AND_DOGS = functools.partial(biased_sets.keep_classes, classes=(3, 5), counts=(4750, 250))
_UNBIASED = {
    **{
        f"{name} {share} % wrong labels": DataSet(name, False, _wrong(share / 100))
        for name in _PLAIN
        for share in (1, 10)
    },
    "cats and dogs": DataSet("cifar10", False, _CATS_AND_DOGS),
    "fashion_mnist long tail": DataSet("fashion_mnist", False, biased_sets.long_tailed),
    "turns": DataSet("fashion_mnist", False, biased_sets.turns),
    "colours": DataSet("cmnist", False, conflict=0.9),
    "equal faces": DataSet("faces", False, biased_sets.equal_faces),
}
_SPECIAL = {
    "cmnist without conflict": DataSet("cmnist", None, conflict=0.0),
    "colour is the class": DataSet("cmnist", None, biased_sets.exchange, conflict=0.05),
}
TEST = _BIASED | _UNBIASED | _SPECIAL
"""Data sets on which no threshold was chosen."""


# --- measurements ------------------------------------------------------------------------------


def decide(data: datasets.Benchmark, *, seed: int, biased: bool | None) -> dict[str, Any]:
    """Return the record of the choice for a data set, with scores by its bias labels.

    Args:
        data: the data set.
        seed: random seed of the choice.
        biased: see `DataSet`; candidates of unbiased sets have no scores.
    """
    pool, options = datasets.pool(data), make(seed=seed)
    choice = weightings.choose(pool, options, strategy=data.strategy)
    row = choice.record() | {"samples": len(data.train.labels)}
    if biased is not False:
        for entry, candidate in zip(row["candidates"], choice.candidates, strict=True):
            entry |= _scores(candidate.weights, candidate.conflict_score, data)
        row["evenness"] = _evenness(choice.weights, data)
    return row


def _scores(sample_weights, conflict_score, data):
    conflicting = data.train.attributes != np.asarray(data.aligned)[data.train.labels]
    if not conflicting.any():
        return {}
    return shortcuts.score(sample_weights, conflict_score, data)


def _evenness(sample_weights, data):
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)
    arrays = sample_weights, data.train.labels, data.train.attributes
    return float(formulas.group_evenness(*map(jnp.asarray, arrays), **sizes))


def compare(data: datasets.Benchmark, *, seed: int, biased: bool | None) -> dict[str, Any]:
    """Return the results of the rivals for a data set, see `decide`."""
    pool, key = datasets.pool(data), components.key(make(seed=seed), "encoder")
    labels, k, row = data.train.labels, data.num_classes, {}
    try:
        with timing.timed(spent := {}, "seconds"):
            row["datalab"] = rivals.datalab(data.train.images, labels)
        row["datalab"] |= spent
    except ImportError as error:
        print(f"without Datalab: {error}", file=sys.stderr)
    if biased is False:
        return row
    values = candidates.feature_values(key, pool, FEATURES, strategy=data.strategy)
    with timing.timed(spent := {}, "seconds"):
        twins = {name: rivals.xrm(key, x, pool.labels, num_classes=k) for name, x in values.items()}
    row["xrm"] = spent | {"features": {}}
    for name, result in twins.items():
        by_twins = weights.from_probabilities(result.probabilities, pool)
        scores = _scores(by_twins.weights, by_twins.conflict_score, data)
        row["xrm"]["features"][name] = {"flipped": result.flipped} | scores
    labelled = np.random.default_rng(seed).permutation(len(labels))[:100]
    with timing.timed(spent := {}, "seconds"):
        probabilities = rivals.ssa(
            key, jnp.concatenate(list(values.values()), 1), labels, data.train.attributes, labelled,
            num_attributes=data.num_attributes,
        )  # fmt: skip
    sizes = dict(num_classes=k, num_attributes=data.num_attributes)
    aligned = bias.majority(labels, probabilities.argmax(1), **sizes)
    own = jnp.take_along_axis(probabilities, aligned[pool.labels][:, None], 1)[:, 0]
    groups = jax.nn.one_hot(probabilities.argmax(1), data.num_attributes)
    balanced = formulas.balance_groups(pool.labels, groups, num_classes=k)
    row["ssa"] = spent | _scores(balanced, 1 - own, data)
    return row


def distil(data: datasets.Benchmark, row: str, folder: pathlib.Path) -> dict[str, Any]:
    """Return the scores of a set that is distilled with the weights of a row.

    Args:
        data: the data set.
        row: "plain", "auto", "oracle", the name of a candidate, or for example "20 labels" for
            weights from 20 bias labels.
        folder: run folder, from which a stopped run is resumed.
    """
    options = make()
    setup = components.cpu_devices(options)
    if "labels" in row:
        setup |= {"weights": _few_labels(data, components.key(options, "encoder"), int(row[:-7]))}
    else:
        setup |= {"debias": row}
    result = pipeline.run(data, folder, options, resume=True, report=record.log, **setup).to_dict()
    return {name: x for name, x in result.items() if name not in ("by_class", "by_group", "random")}


def _few_labels(data, key, count):
    """Return weights from the bias labels of the samples that `weights.to_label` selects."""
    pool, folds = datasets.pool(data), candidates.folds_key(key)
    values = candidates.feature_values(key, pool, FEATURES, strategy=data.strategy)
    shown = [candidates.from_features(folds, pool, x, name=name) for name, x in values.items()]
    predict = functools.partial(feature_weights.predict_groups, num_groups=pool.num_classes)
    probabilities = {name: predict(folds, x, pool.labels) for name, x in values.items()}
    rows = weights.to_label(key, shown, pool.labels, count=count)
    labelled = weights.from_labels(
        key, pool, rows, data.train.attributes[rows], strategy=data.strategy,
        num_attributes=data.num_attributes, probabilities=probabilities,
    )  # fmt: skip
    return labelled.weights


def _distil_tasks(data_dir):
    """Return functions that compute the cells of distilled sets."""

    def task(title, row):
        data = load((DEVELOPMENT | TEST)[title], seed=0, data_dir=data_dir)
        name = best_candidate(title) if row == "best candidate" else row
        return {"weighting": name} | distil(data, name, grid.WORK / "decisions" / title / row)

    cells = itertools.product(DISTILLED, ROWS)
    return {f"{title}, {row}": functools.partial(task, title, row) for title, row in cells}


def best_candidate(title: str) -> str:
    """Return the name of the candidate whose weights balance the groups of a data set best."""
    evenness = collections.defaultdict(list)
    for candidate in itertools.chain(*(row["candidates"] for row in _by_title(OUT)[title])):
        if candidate["name"] != "density":
            evenness[candidate["name"]].append(candidate["evenness"])
    return max(evenness, key=lambda name: np.mean(evenness[name]))


# --- tables ------------------------------------------------------------------------------------


def tables() -> list[list[str]]:
    """Return tables of the sets, of the verdicts, of the rivals and of the distilled sets."""
    measured, compared = (_by_title(path) if path.exists() else {} for path in (OUT, RIVALS))
    titles = [
        "verdicts of the seeds", "balanced", "largest bimodality", "candidate with the largest AUC",
        "its AUC", "its group evenness", "group evenness of the weights",
    ]  # fmt: skip
    result = []
    for kind, sets in (("development", DEVELOPMENT), ("test", TEST)):
        known = {title: measured[title] for title in sets if title in measured}
        if known:
            link = markdown.link(f"{kind} set", OUT)
            rows = [[words.title(title), *_describe(rows)] for title, rows in known.items()]
            result.append(markdown.table([link, *titles], rows, left=(0, 1, 2, 4)))
            result.append(_rates(kind, known))
    if compared:
        titles = ["Datalab reports", "XRM chooses", "AUC", "evenness", "best AUC", "SSA: AUC",
                  "evenness"]  # fmt: skip
        rows = [[words.title(title), *_describe_rivals(rows)] for title, rows in compared.items()]
        link = markdown.link("data set", RIVALS)
        result += [markdown.table([link, *titles], rows, left=(0, 1, 2)), _summary(compared)]
    if SETS.exists():
        cells = record.measured(SETS)
        result.append(_shares(cells))
        result += [_distilled_table(cells, score) for score in ("accuracy", "conflicting")]
    return result


def _distilled_table(cells, score):
    rows = [
        [
            words.title(title),
            *(record.percent(cells.get(f"{title}, {row}", {}).get(score)) for row in ROWS),
        ]
        for title in DISTILLED
    ]
    return markdown.table([markdown.link(grid.score_title(score), SETS), *ROWS], rows)


def _shares(cells):
    """The shares of the oracle's gain on conflicting samples, and what auto changes on all."""
    rows = []
    for title in DISTILLED:
        mean = lambda row, score, title=title: (
            cells.get(f"{title}, {row}", {}).get(score, {}).get("mean", np.nan)
        )
        by_row = {row: gains.gain(mean, row) for row in ROWS[1:-1]}
        shares = [gains.percent(gains.share([gain])) for gain in by_row.values()]
        rows.append([words.title(title), *shares, gains.points(by_row["auto"].change)])
    link = markdown.link("share of the oracle's gain", SETS)
    return markdown.table([link, *ROWS[1:-1], "auto − plain on all test samples"], rows)


def _by_title(path):
    """Return the measured rows of each data set."""
    rows = collections.defaultdict(list)
    for name, row in record.measured(path).items():
        rows[name.rpartition(", seed ")[0]].append(row)
    return rows


def _describe(rows):
    verdicts = collections.Counter(row["verdict"] for row in rows)
    verdict = ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
    chosen = {" and ".join(row["chosen"]) or "–" for row in rows}
    bimodality = np.mean([max(x["bimodality"] or 0 for x in row["candidates"]) for row in rows])
    name, auc, evenness = _best(rows)
    best = [name, f"{auc:.3f}", f"{evenness:.2f}"] if name else ["–"] * 3
    return [
        verdict, ", ".join(sorted(chosen)), f"{bimodality:.2f}", *best,
        *_means(rows, "evenness", ".2f"),
    ]  # fmt: skip


def _best(rows):
    """Return name, AUC and evenness of the candidate with the largest mean AUC, None without."""
    scores = collections.defaultdict(list)
    for candidate in itertools.chain(*(row["candidates"] for row in rows)):
        if candidate.get("auc") is not None:
            scores[candidate["name"]].append((candidate["auc"], candidate["evenness"]))
    means = [(name, *np.mean(values, 0)) for name, values in scores.items()]
    return max(means, key=lambda mean: mean[1], default=(None, 0.0, 0.0))


def _means(rows, name, form):
    values = [row[name] for row in rows if row.get(name) is not None]
    return [format(np.mean(values), form) if values else "–"]


def _rates(kind, measured):
    """Return the table of verdicts: the most frequent one of the seeds of a set."""
    sets, lines = DEVELOPMENT | TEST, []
    verdicts = {
        title: collections.Counter(row["verdict"] for row in rows).most_common(1)[0][0]
        for title, rows in measured.items()
    }
    groups = {
        "biased": [x for x in measured if sets[x].biased],
        "unbiased": [x for x in measured if sets[x].biased is False],
    }
    groups["biased, shown by a candidate"] = [
        x for x in groups["biased"] if _best(measured[x])[1] > SEEN
    ]
    for title, members in groups.items():
        counts = (sum(verdicts[x] == verdict for x in members) for verdict in VERDICTS)
        runs = [row["verdict"] for x in members for row in measured[x]]
        lines.append(
            [title, *(_rate(count, len(members)) for count in counts),
             f"{runs.count('biased')} of {len(runs)}" if runs else "–"]
        )  # fmt: skip
    detected = [x for x in measured if sets[x].biased is not None and verdicts[x] == "biased"]
    right = sum(bool(sets[x].biased) for x in detected)
    lines.append(["called biased, of which biased", _rate(right, len(detected)), "–", "–", "–"])
    titles = [*(f"called {verdict}" for verdict in VERDICTS), "runs called biased"]
    return markdown.table([markdown.link(f"{kind} sets", OUT), *titles], lines)


VERDICTS = "biased", "undecided", "none"


def _rate(count, total):
    """Return a count and its Wilson interval in percent.

    >>> _rate(9, 10)
    '9 of 10 (60–98 %)'
    """
    if not total:
        return "–"
    low, high = stats.binomtest(count, total).proportion_ci(method="wilson")
    return f"{count} of {total} ({100 * low:.0f}–{100 * high:.0f} %)"


def _summary(compared):
    """The table of the rivals: sets that they report, and means over the biased sets."""
    sets = DEVELOPMENT | TEST
    firsts = {title: rows[0] for title, rows in compared.items()}
    biased, unbiased = (
        [row for title, row in firsts.items() if sets[title].biased is flag]
        for flag in (True, False)
    )
    reported = lambda rows: [bool(row["datalab"]["reported"]) for row in rows if "datalab" in row]
    counts = [f"{sum(hits)} of {len(hits)}" for hits in map(reported, (biased, unbiased))]
    twins = [row["xrm"]["features"] for row in biased if "xrm" in row]
    chosen = [max(x.values(), key=lambda scores: scores["flipped"]) for x in twins]
    best = [max(x.values(), key=lambda scores: scores.get("auc", 0)) for x in twins]
    agree = sum(one is other for one, other in zip(chosen, best, strict=True))
    lines = {
        "XRM, features that its criterion selects": chosen,
        "XRM, best features": best,
        "SSA, 100 bias labels": [row["ssa"] for row in biased if "ssa" in row],
    }
    return markdown.table(
        [markdown.link("method", RIVALS), "biased sets reported", "unbiased sets reported", "AUC",
         "group evenness", "selects the best features"],
        [["Datalab", *counts, "–", "–", "–"]] + [
            [title, "–", "–", *_means(rows, "auc", ".2f"), *_means(rows, "evenness", ".2f"),
             f"{agree} of {len(twins)}" if rows is chosen else "–"]
            for title, rows in lines.items()
        ],
    )  # fmt: skip


def _describe_rivals(rows):
    reported = [row["datalab"]["reported"] for row in rows if "datalab" in row]
    names = sorted(set(itertools.chain(*reported))) if reported else ["not run"]
    twins = [row["xrm"]["features"] for row in rows if "xrm" in row]
    chosen = [max(features, key=lambda name: features[name]["flipped"]) for features in twins]
    picked = [features[name] for features, name in zip(twins, chosen, strict=True)]
    best = [max(features.values(), key=lambda x: x.get("auc", 0)) for features in twins]
    ssa = [row["ssa"] for row in rows if "ssa" in row]
    return [
        ", ".join(names) or "–", ", ".join(sorted(set(chosen))) or "–",
        *_means(picked, "auc", ".3f"), *_means(picked, "evenness", ".2f"),
        *_means(best, "auc", ".3f"), *_means(ssa, "auc", ".3f"), *_means(ssa, "evenness", ".2f"),
    ]  # fmt: skip


def main(
    *,
    part: Literal["decide", "rivals", "distil"] = "decide",
    test: bool = False,
    seeds: int = 1,
    data_dir: pathlib.Path | None = None,
    only: str | None = None,
    out: pathlib.Path | None = None,
) -> None:
    """Measure the data sets and seeds that the file of results lacks, and print the tables.

    Args:
        part: decide about the sets, run the rivals, or distil some of the sets.
        test: measure `TEST` instead of `DEVELOPMENT`; `distil` has sets of both.
        seeds: number of seeds of data and choice.
        data_dir: folder with the original files.
        only: titles of data sets, separated by commas.
        out: JSON file. Defaults to the file of results of the part.
    """
    programs.prepare()
    sets = DEVELOPMENT | TEST
    titles = only.split(",") if only else [*(TEST if test else DEVELOPMENT)]

    def task(measure, title, seed):
        jax.clear_caches()  # Programs of many data sets would exhaust the memory maps.
        data = load(sets[title], seed=seed, data_dir=data_dir)
        data = biased_sets.subsample(data, seed=seed, samples=SAMPLES)
        return measure(data, seed=seed, biased=sets[title].biased)

    measure = compare if part == "rivals" else decide
    runs = itertools.product(range(seeds), titles)
    tasks = {f"{x}, seed {seed}": functools.partial(task, measure, x, seed) for seed, x in runs}
    if part == "distil":
        tasks = _distil_tasks(data_dir)
    if not pathlib.Path(data_dir or ".", "faces").is_dir():
        print("without the faces, which are not in the data folder", file=sys.stderr)
        tasks = {name: x for name, x in tasks.items() if "faces" not in name}
    path = out or {"decide": OUT, "rivals": RIVALS, "distil": SETS}[part]
    record.fill(path.expanduser(), tasks)
    record.show(tables())


if __name__ == "__main__":
    tyro.cli(main)
