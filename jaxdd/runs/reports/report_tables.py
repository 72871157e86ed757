"""Build the tables of a report from results."""

from collections.abc import Mapping
from typing import Any

from jaxdd.runs import results
from jaxdd.runs.reports import plot
from jaxdd.runs.reports.tables import Cell, Table, label, number, percent, score, sizes

MIN_SIZE = results.MIN_GROUP_SIZE

Rows = Mapping[str, results.Result]


def accuracy(rows: Rows, scores: Mapping[str, str]) -> Table:
    """Return the accuracies of all rows.

    Args:
        rows: Results by row.
        scores: Name of a score -> title of its column.
    """
    lines = [
        [
            label(name),
            *(score(getattr(row, key), interval=True) for key in scores),
            number(row.accuracy.n or None, ".0f"),
        ]
        for name, row in rows.items()
    ]
    caption = "Test accuracy in %, mean ± standard deviation over networks trained from scratch."
    if any(cell.small for line in lines for cell in line):
        caption += (
            " Below it the 95\u00a0% confidence interval of the mean (Student’s t) over networks, "
            "not over repeated distillations."
        )
    return Table("accuracy", caption, ["row", *scores.values(), "networks"], lines)


def by_class(rows: Rows) -> Table | None:
    """Return the accuracies by class, or None if no row has them."""
    known = {name: (row, row.by_class) for name, row in rows.items() if row.by_class is not None}
    if not known:
        return None
    _, first = next(iter(known.values()))
    lines = []
    for i, (train, test) in enumerate(zip(first.train, first.test, strict=True)):
        scores = [
            results.Score(part.mean[i], part.std[i], row.accuracy.n) for row, part in known.values()
        ]
        cells = [score(x if test >= MIN_SIZE else None) for x in scores]
        sizes = (number(int(n), ",.0f") for n in (train, test))
        lines.append([label(first.names[i] if first.names else i), *sizes, *cells])
    caption = "Test accuracy in % on the images of each class, and the number of its images."
    if first.test.min() < MIN_SIZE:
        caption += f" Not shown for classes with fewer than {MIN_SIZE} test images."
    header = ["class", "training images", "test images", *known]
    return Table("accuracy-by-class", caption, header, lines)


def by_group(name: str, row: results.Result) -> Table | None:
    """Return the accuracies of one row by class and attribute, or None if they are unknown.

    Without a group that has enough test images, the table shows sizes only.
    """
    groups = row.by_group
    if groups is None:
        return None
    has_scores = groups.test.max() >= MIN_SIZE
    class_names = row.by_class.names if row.by_class is not None else ()
    lines = []
    for i, counts in enumerate(groups.test):
        cells: list[Cell] = []
        for j, test in enumerate(counts):
            known = percent(groups.mean[i, j] if test >= MIN_SIZE else None)
            below = known if has_scores else None
            cells.append(sizes(int(groups.train[i, j]), int(test), below=below))
        lines.append([label(class_names[i] if class_names else i), *cells])
    if has_scores:
        caption = (
            "Test accuracy in % of each group, with the numbers of its training and test images "
            f"below; not shown for fewer than {MIN_SIZE} test images."
        )
    else:
        caption = (
            "Training and test images of each group; no group has the "
            f"{MIN_SIZE} test images that are required to show an accuracy."
        )
    header = ["class", *map(str, groups.names or range(groups.test.shape[1]))]
    return Table(f"groups-{name}", caption, header, lines)


def evaluations(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the rows of evaluation.json."""
    lines = []
    for row in rows.values():
        scores = results.Scores.from_dict(row)
        lines.append([
            *(label(row[key]) for key in ("network", "protocol", "set")),
            score(scores.accuracy),
            score(scores.conflicting),
            *(number(row[key], ",.0f") for key in ("eval_seeds", "epochs")),
        ])  # fmt: skip
    caption = (
        "Test accuracy in %, mean ± standard deviation, of other networks trained on the synthetic "
        "set of this run, on as many random real images, or on noise."
    )
    header = ["network", "protocol", "set", "all", "conflicting", "networks", "epochs"]
    return Table("other-networks", caption, header, lines)


def spectra(profile: Mapping[str, Any]) -> list[Table]:
    """Return the bands of spectral profiles, one table per kind of network."""
    header = [
        "directions", "share of the real variance, %", "variance, set", "variance, random",
        "error, set", "error, random",
    ]  # fmt: skip
    tables = []
    for name, values in profile["profiles"].items():
        bands = (values["sets"][x]["bands"] for x in ("set", "random"))
        lines = [
            [
                label(band["directions"]),
                percent(band["share"]),
                *(number(x["variance"], ".2f") for x in (band, other)),
                *(number(x["error"], ".2f") for x in (band, other)),
            ]
            for band, other in zip(*bands, strict=True)
        ]
        caption = f"Features of {plot.FEATURES[name]}."
        tables.append(Table(f"spectrum-{name}", caption, header, lines))
    return tables


def weights(rows: Rows) -> Table | None:
    """Return the diagnostics of sample weights, or None if no row has them."""
    known = {name: row.weights for name, row in rows.items() if row.weights}
    if not known:
        return None
    columns = {"effective_sample_size": ("effective samples per class", ",.0f")}
    caption = "Diagnostics of the sample weights."
    if any(x.get("conflict_auc") is not None for x in known.values()):
        columns = {
            "conflict_auc": ("AUC for conflicting samples", ".3f"),
            "conflict_weight_share": ("weight on conflicting samples", ".2f"),
            "group_evenness": ("group evenness", ".2f"),
            **columns,
        }
        caption += (
            " AUC: probability that a conflicting sample has a larger weight than an aligned "
            "sample of its class; 0.5 is chance. Evenness 1: groups of a class have equal weight."
        )
    caption += (
        " Effective samples: as many samples of equal weight give batches of the same variance."
    )
    lines = [
        [label(name), *(number(values.get(key), form) for key, (_, form) in columns.items())]
        for name, values in known.items()
    ]
    return Table("weights", caption, ["row", *(title for title, _ in columns.values())], lines)


def choice(record: Mapping[str, Any], name: str = "choice") -> list[Table]:
    """Return the tables of a record of a choice of weights.

    Args:
        record: The record, from `weights.Choice.record`.
        name: Beginning of the names of the tables.
    """
    tables = []
    if record.get("shortcuts"):
        lines = [
            [
                label(features),
                label(len(set(test["blocks"]))),
                percent(test["blind"]),
                percent(test["baseline"]),
                number(test["z_score"], "+.1f"),
            ]
            for features, test in record["shortcuts"].items()
        ]
        caption = (
            "Shortcut test: samples in % that a linear classifier assigns to a wrong block of "
            "classes, from object-blind features and from baseline features that show the object. "
            "A large positive z-score means that object-blind features predict the classes better: "
            "a bias."
        )
        header = ["features", "blocks", "object-blind", "baseline", "z-score"]
        tables.append(Table(f"{name}-shortcuts", caption, header, lines))
    if not record.get("features"):
        tables += [_trials(record, name), _evenness(record, name)]
    return tables


def _trials(record, name):
    lines = [
        [
            label(kind),
            *(percent(trial[part]) for part in ("overall", "aligned", "conflicting")),
            number(trial["count"], ",.0f"),
        ]
        for kind, trial in record["trials"].items()
    ]
    return Table(
        f"{name}-probe-networks",
        "Probe network check: accuracy in % of networks trained on real images sampled by the "
        "weights, on held-out samples whose label an early classifier predicts (aligned) or does "
        "not predict (conflicting).",
        ["weights", "all", "aligned", "conflicting", "conflicting samples"],
        lines,
    )


def _evenness(record, name):
    """Return the evenness of every candidate: encoders down, temperatures across."""
    encoders: dict[str, list[Cell]] = {}
    for candidate in record["candidates"]:
        numbers = (results.number(candidate[key], "g") for key in ("encoder_steps", "bandwidth"))
        cell = number(candidate["evenness"], ".2f")
        encoders.setdefault(", ".join(numbers), []).append(cell)
    temperatures = dict.fromkeys(
        results.number(candidate["temperature"], "g") for candidate in record["candidates"]
    )
    lines = [[label(name), *cells] for name, cells in encoders.items()]
    return Table(
        f"{name}-evenness",
        "Evenness of the pseudo-groups (1: all have the same weight) by encoder steps and "
        "bandwidth factor (down) and temperature (across).",
        ["encoder steps, bandwidth", *temperatures],
        lines,
    )


def seconds(rows: Rows) -> Table | None:
    """Return the wall time of each stage, or None if it was not recorded."""
    known = {name: row.seconds for name, row in rows.items() if row.seconds}
    if not known:
        return None
    stages = [x for x in (*results.STAGES, "compile") if any(x in row for row in known.values())]
    caption = (
        "Wall time in seconds. The rows of a comparison share data, embed and density; compile is "
        "the part of all stages that XLA spent on compilation. "
        f"Total {results.total_seconds(rows):,.0f} s."
    )
    lines = [
        [label(name), *(number(values.get(stage), ",.1f") for stage in stages)]
        for name, values in known.items()
    ]
    return Table("seconds", caption, ["row", *stages], lines)
