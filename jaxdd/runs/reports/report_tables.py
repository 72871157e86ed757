"""Build the tables of a report from results."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxdd.runs import results
from jaxdd.runs.reports import plot
from jaxdd.runs.reports.tables import Cell, Table, label, number, percent, score, sizes
from jaxdd.runs.results import MIN_GROUP_SIZE, Result

_integer = functools.partial(number, form=",.0f")
_two_digits = functools.partial(number, form=".2f")


def _table(
    name: str,
    caption: str,
    first: str,
    records: Iterable[tuple[Any, Any]],
    columns: Mapping[str, Callable[[Any], Cell]],
) -> Table:
    """Return a table with a row per (label, record); columns: title -> function of a record."""
    rows = [[label(key), *(cell(x) for cell in columns.values())] for key, x in records]
    return Table(name, caption, [first, *columns], rows)


def _field(key, cell):
    """Return a function from a record to the cell of one of its fields."""
    return lambda record: cell(record.get(key))


def accuracy(rows: Mapping[str, Result], scores: Mapping[str, str]) -> Table:
    """Return the accuracies of all rows; `scores` maps names of scores to titles of columns."""
    interval = lambda key: lambda row: score(getattr(row, key), interval=True)
    columns = {title: interval(key) for key, title in scores.items()}
    columns["networks"] = lambda row: _integer(row.accuracy.n or None)
    caption = "Test accuracy in %, mean ± standard deviation over networks trained from scratch."
    table = _table("accuracy", caption, "row", rows.items(), columns)
    if any(cell.small for row in table.rows for cell in row):
        caption += (
            " Below it the 95\u00a0% confidence interval of the mean (Student’s t) over networks, "
            "not over repeated distillations."
        )
    return table._replace(caption=caption)


def by_class(rows: Mapping[str, Result]) -> Table | None:
    """Return the accuracies by class, or None if no row has them."""
    # Rows of a comparison have the same classes and sizes, which are read from the first of them.
    known = {name: (row, row.by_class) for name, row in rows.items() if row.by_class is not None}
    if not known:
        return None
    _, first = next(iter(known.values()))
    lines = []
    for i, (train, test) in enumerate(zip(first.train, first.test, strict=True)):
        scores = [results.Score(x.mean[i], x.std[i], row.accuracy.n) for row, x in known.values()]
        cells = [score(x if test >= MIN_GROUP_SIZE else None) for x in scores]
        name = label(first.names[i] if first.names else i)
        lines.append([name, _integer(int(train)), _integer(int(test)), *cells])
    caption = "Test accuracy in % on the images of each class, and the number of its images."
    if first.test.min() < MIN_GROUP_SIZE:
        caption += f" Not shown for classes with fewer than {MIN_GROUP_SIZE} test images."
    header = ["class", "training images", "test images", *known]
    return Table("accuracy-by-class", caption, header, lines)


def by_group(name: str, row: Result) -> Table | None:
    """Return the accuracies of one row by class and attribute, or None if they are unknown.

    Without a group that has enough test images, the table shows sizes only.
    """
    groups = row.by_group
    if groups is None:
        return None
    has_scores = groups.test.max() >= MIN_GROUP_SIZE
    class_names = row.by_class.names if row.by_class is not None else ()
    lines = []
    for i, counts in enumerate(groups.test):
        lines.append([label(class_names[i] if class_names else i)])
        for j, test in enumerate(counts):
            known = percent(groups.mean[i, j] if test >= MIN_GROUP_SIZE else None)
            below = known if has_scores else None
            lines[-1].append(sizes(int(groups.train[i, j]), int(test), below=below))
    caption = (
        "Test accuracy in % of each group, with the numbers of its training and test images below; "
        f"not shown for fewer than {MIN_GROUP_SIZE} test images."
    )
    if not has_scores:
        caption = (
            "Training and test images of each group; no group has the "
            f"{MIN_GROUP_SIZE} test images that are required to show an accuracy."
        )
    header = ["class", *map(str, groups.names or range(groups.test.shape[1]))]
    return Table(f"groups-{name}", caption, header, lines)


def evaluations(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the rows of evaluation.json."""
    scores = lambda key: lambda row: score(getattr(results.Scores.from_dict(row), key))
    caption = (
        "Test accuracy in %, mean ± standard deviation, of other networks trained on the synthetic "
        "set of this run, on as many random real images, or on noise."
    )
    columns = {
        "protocol": _field("protocol", label), "set": _field("set", label),
        "all": scores("accuracy"), "conflicting": scores("conflicting"),
        "networks": _field("eval_seeds", _integer), "epochs": _field("epochs", _integer),
    }  # fmt: skip
    records = [(row["network"], row) for row in rows.values()]
    return _table("other-networks", caption, "network", records, columns)


def spectra(profile: Mapping[str, Any]) -> list[Table]:
    """Return the bands of spectral profiles, one table per kind of network."""
    tables = []
    for name, values in profile["profiles"].items():
        bands = (values["sets"][x]["bands"] for x in ("set", "random"))
        records = [(pair[0]["directions"], pair) for pair in zip(*bands, strict=True)]
        columns = {
            "share of the real variance, %": lambda pair: percent(pair[0]["share"]),
            "variance, set": lambda pair: _two_digits(pair[0]["variance"]),
            "variance, random": lambda pair: _two_digits(pair[1]["variance"]),
            "error, set": lambda pair: _two_digits(pair[0]["error"]),
            "error, random": lambda pair: _two_digits(pair[1]["error"]),
        }  # fmt: skip
        caption = f"Features of {plot.FEATURES[name]}."
        tables.append(_table(f"spectrum-{name}", caption, "directions", records, columns))
    return tables


def weights(rows: Mapping[str, Result]) -> Table | None:
    """Return the diagnostics of sample weights, or None if no row has them."""
    known = {name: row.weights for name, row in rows.items() if row.weights}
    if not known:
        return None
    columns, caption = {}, "Diagnostics of the sample weights."
    if any(x.get("conflict_auc") is not None for x in known.values()):
        columns = {
            "AUC for conflicting samples": _field("conflict_auc", lambda x: number(x, ".3f")),
            "weight on conflicting samples": _field("conflict_weight_share", _two_digits),
            "group evenness": _field("group_evenness", _two_digits),
        }
        caption += (
            " AUC: probability that a conflicting sample has a larger weight than an aligned "
            "sample of its class; 0.5 is chance. Evenness 1: groups of a class have equal weight."
        )
    columns["effective samples per class"] = _field("effective_sample_size", _integer)
    caption += (
        " Effective samples: as many samples of equal weight give batches of the same variance."
    )
    return _table("weights", caption, "row", known.items(), columns)


def choice(record: Mapping[str, Any], name: str = "choice") -> list[Table]:
    """Return the tables of a `weights.Choice.record`; `name` begins their names."""
    tables = []
    if record.get("shortcuts"):
        caption = (
            "Shortcut test: samples in % that a linear classifier assigns to a wrong block of "
            "classes, from object-blind features and from baseline features that show the object. "
            "A large positive z-score means that object-blind features predict the classes better: "
            "a bias."
        )
        columns = {
            "blocks": lambda test: label(len(set(test["blocks"]))),
            "object-blind": _field("blind", percent), "baseline": _field("baseline", percent),
            "z-score": _field("z_score", lambda z_score: number(z_score, "+.1f")),
        }  # fmt: skip
        tests = record["shortcuts"].items()
        tables.append(_table(f"{name}-shortcuts", caption, "features", tests, columns))
    if not record.get("features"):
        caption = (
            "Probe network check: accuracy in % of networks trained on real images sampled by the "
            "weights, on held-out samples whose label an early classifier predicts (aligned) or "
            "does not predict (conflicting)."
        )
        columns = {
            "all": _field("overall", percent), "aligned": _field("aligned", percent),
            "conflicting": _field("conflicting", percent),
            "conflicting samples": _field("count", _integer),
        }  # fmt: skip
        trials = record["trials"].items()
        tables.append(_table(f"{name}-probe-networks", caption, "weights", trials, columns))
        tables.append(_evenness(record, f"{name}-evenness"))
    return tables


def _evenness(record, name):
    """Return the evenness of every candidate: rows are encoders, columns temperatures."""
    text = functools.partial(results.number, form="g")
    encoders: dict[str, list[Cell]] = {}
    for candidate in record["candidates"]:
        encoder = ", ".join(text(candidate[key]) for key in ("encoder_steps", "bandwidth"))
        encoders.setdefault(encoder, []).append(_two_digits(candidate["evenness"]))
    temperatures = dict.fromkeys(text(x["temperature"]) for x in record["candidates"])
    caption = (
        "Evenness of the pseudo-groups (1: all have the same weight) by encoder steps and "
        "bandwidth factor (down) and temperature (across)."
    )
    lines = [[label(encoder), *cells] for encoder, cells in encoders.items()]
    return Table(name, caption, ["encoder steps, bandwidth", *temperatures], lines)


def seconds(rows: Mapping[str, Result]) -> Table | None:
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
    columns = {x: _field(x, functools.partial(number, form=",.1f")) for x in stages}
    return _table("seconds", caption, "row", known.items(), columns)
