"""Tables of a report, as data that the templates write as HTML, and as CSV or LaTeX.

A cell holds the text that readers see and the numbers that programs read. In CSV, a mean with its
standard deviation takes two columns, and its confidence interval two more.
"""

import csv
import functools
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from jaxdd.runs import results
from jaxdd.runs.reports import plot
from jaxdd.runs.results import MIN_GROUP_SIZE, Result


class Cell(NamedTuple):
    """Text, small text below it or "", and the columns of CSV: suffix of the name -> value."""

    text: str
    small: str
    values: Mapping[str, str]


class Table(NamedTuple):
    """A table: name of its file without a suffix, text above it, column names, and cells by row."""

    name: str
    caption: str
    header: list[str]
    rows: list[list[Cell]]


def _label(value: Any) -> Cell:
    """Return a cell with text."""
    return Cell(str(value), "", {"": str(value)})


def _number(value: Any, form: str) -> Cell:
    """Return a cell with a number, or a dash if the number is unknown.

    >>> _number(1234, ",.0f").text, dict(_number(1234, ",.0f").values), _number(None, ".1f").text
    ('1,234', {'': '1234'}, '–')
    """
    text = results.number(value, form)
    return Cell(text, "", {"": _plain(text)})


def _percent(share: float | None) -> Cell:
    """Return a cell with a share in percent, without a unit."""
    known = results.finite(share)
    return _number(None if known is None else 100 * known, ".1f")


def _score(value: results.Score | None, *, interval: bool = False) -> Cell:
    """Return a cell with mean ± standard deviation in percent, a dash if they are unknown.

    With `interval`, the 95 % confidence interval of the mean is below.

    >>> cell = _score(results.Score(0.5, 0.01, 3), interval=True)
    >>> cell.text, cell.small
    ('50.0 ± 1.0', '47.5 to 52.5')
    """
    text = results.percent(value)
    mean, _, std = text.partition(" ± ")
    values = {"": _plain(mean)} | ({"std": std} if std else {})
    if not interval or (ends := results.interval(value)) is None:
        return Cell(text, "", values)
    low, high = (f"{100 * end:.1f}" for end in ends)
    return Cell(text, f"{low} to {high}", {**values, "low": low, "high": high})


def _sizes(train: int | None, test: int, *, below: Cell | None = None) -> Cell:
    """Return a cell with numbers of training and test images, below another cell if there is one.

    The number of training images may be unknown.

    >>> _sizes(1003, 9).text, _sizes(1003, 9, below=_percent(0.5)).small
    ('1,003 / 9', '1,003 / 9')
    """
    sizes = results.number(train, ","), f"{test:,}"
    text, values = " / ".join(sizes), {"training": _plain(sizes[0]), "test": _plain(sizes[1])}
    return Cell(below.text, text, {**below.values, **values}) if below else Cell(text, "", values)


def _training_size(sizes, *index):
    return None if sizes.train is None else int(sizes.train[index])


def _plain(text):
    """Return a number as programs read it; unknown numbers are empty."""
    return text.replace("–", "").replace(",", "")


_integer = functools.partial(_number, form=",.0f")
_two_digits = functools.partial(_number, form=".2f")


def _table(
    name: str,
    caption: str,
    first: str,
    records: Iterable[tuple[Any, Any]],
    columns: Mapping[str, Callable[[Any], Cell]],
) -> Table:
    """Return a table with a row per (label, record); columns: title -> function of a record."""
    rows = [[_label(key), *(cell(x) for cell in columns.values())] for key, x in records]
    return Table(name, caption, [first, *columns], rows)


def _field(key, cell):
    """Return a function from a record to the cell of one of its fields."""
    return lambda record: cell(record.get(key))


def accuracy(rows: Mapping[str, Result], scores: Mapping[str, str]) -> Table:
    """Return the accuracies of all rows; `scores` maps names of scores to titles of columns."""
    interval = lambda key: lambda row: _score(getattr(row, key), interval=True)
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
    for i, test in enumerate(first.test):
        scores = [results.Score(x.mean[i], x.std[i], row.accuracy.n) for row, x in known.values()]
        cells = [_score(x if test >= MIN_GROUP_SIZE else None) for x in scores]
        name = _label(first.names[i] if first.names else i)
        lines.append([name, _integer(_training_size(first, i)), _integer(int(test)), *cells])
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
        lines.append([_label(class_names[i] if class_names else i)])
        for j, test in enumerate(counts):
            known = _percent(groups.mean[i, j] if test >= MIN_GROUP_SIZE else None)
            below = known if has_scores else None
            lines[-1].append(_sizes(_training_size(groups, i, j), int(test), below=below))
    caption = (
        "Test accuracy in % of each group, with the numbers of its training and test images below; "
        f"not shown for fewer than {MIN_GROUP_SIZE} test images."
    )
    if row.deo_classes and (results.smallest_group(row) or 0) >= MIN_GROUP_SIZE:
        caption += (
            f" The gap between the best and the worst group of a class is "
            f"{results.percent(row.deo_mean)} on average over the {row.deo_classes} of "
            f"{len(groups.test)} classes with test images of at least two groups."
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
    scores = lambda key: lambda row: _score(getattr(results.Scores.from_dict(row), key))
    caption = (
        "Test accuracy in %, mean ± standard deviation, of other networks trained on the synthetic "
        "set of this run, on as many random real images, or on noise."
    )
    columns = {
        "protocol": _field("protocol", _label), "set": _field("set", _label),
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
            "share of the real variance, %": lambda pair: _percent(pair[0]["share"]),
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
            "AUC for conflicting samples": _field("conflict_auc", lambda x: _number(x, ".3f")),
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
    candidates = {candidate["name"]: candidate for candidate in record["candidates"]}
    tables = []
    if candidates:
        caption = (
            "Candidate biases, strongest evidence first. Bimodality: number of clear conflicts "
            "divided by the number of ambiguous samples; clear: share of clear conflicts in %. "
            "Object-blind and baseline: error in % of a linear classifier of the groups of classes "
            "on features that cannot show the object, and on features that can. A large positive "
            "z-score means that the former have the smaller error. Effective: effective sample "
            "size of the weights."
        )
        test = lambda field, cell: lambda x: cell((x["shortcut"] or {}).get(field))
        columns = {
            "groups": lambda x: _label(len(set(x["blocks"]))),
            "bimodality": _field("bimodality", functools.partial(_number, form=".2f")),
            "clear": _field("confident_share", _percent),
            "object-blind": test("blind", _percent), "baseline": test("baseline", _percent),
            "z-score": test("z_score", functools.partial(_number, form="+.1f")),
            "effective": _field("effective_sample_size", _integer),
        }  # fmt: skip
        tables.append(
            _table(f"{name}-candidates", caption, "candidate", candidates.items(), columns)
        )
    trials = {
        f"{candidate}, {weights}": trial
        for candidate, x in candidates.items()
        for weights, trial in x["trials"].items()
    }
    if trials:
        caption = (
            "Probe network check: accuracy in % of networks trained on real images sampled by "
            "uniform weights and by those of a candidate, on held-out samples that are aligned or "
            "conflicting by its groups."
        )
        columns = {
            "all": _field("overall", _percent), "aligned": _field("aligned", _percent),
            "conflicting": _field("conflicting", _percent),
            "conflicting samples": _field("count", _integer),
        }  # fmt: skip
        tables.append(_table(f"{name}-probe-networks", caption, "weights", trials.items(), columns))
    if record["search"]:
        tables.append(_evenness(record["search"], f"{name}-evenness"))
    if "labels" in record:
        tables += _labels(record["labels"], name)
    return tables


def _labels(record, name):
    """Return the tables of `weights.LabelWeights.record`."""
    caption = (
        f"{record['labels']} bias labels, {record['conflicting']} of them bias-conflicting. Gain: "
        "by how much one kind of features raises the log-likelihood of the labels, in nats; share: "
        "the gain in % of the largest possible gain. Coefficient: how much the features contribute "
        "to the groups."
    )
    features = {
        feature: gain | {"coefficient": record["coefficients"][feature]}
        for feature, gain in record["gains"].items()
    }
    columns = {
        "gain": _field("nats", functools.partial(_number, form=".1f")),
        "share": _field("share", _percent),
        "coefficient": _field("coefficient", functools.partial(_number, form=".2f")),
    }
    own = {"majority attribute": _label}
    return [
        _table(f"{name}-labels", caption, "features", features.items(), columns),
        _table(
            f"{name}-attributes", "Majority attribute of each class, by the bias labels.", "class",
            record["own_attribute"].items(), own,
        ),
    ]  # fmt: skip


def _evenness(search, name):
    """Return the evenness of every density tried: rows are encoders, columns temperatures."""
    text = functools.partial(results.number, form="g")
    encoders: dict[str, list[Cell]] = {}
    for tried in search:
        encoder = ", ".join(text(tried[key]) for key in ("encoder_steps", "bandwidth"))
        encoders.setdefault(encoder, []).append(_two_digits(tried["evenness"]))
    temperatures = dict.fromkeys(text(x["temperature"]) for x in search)
    caption = (
        "Density search: evenness of the pseudo-groups (1: all have the same weight) by encoder "
        "steps and bandwidth factor (down) and temperature (across)."
    )
    lines = [[_label(encoder), *cells] for encoder, cells in encoders.items()]
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
    columns = {x: _field(x, functools.partial(_number, form=",.1f")) for x in stages}
    return _table("seconds", caption, "row", known.items(), columns)


# --- formats -----------------------------------------------------------------------------------


def as_csv(table: Table) -> str:
    """Return a table as CSV; unknown numbers are empty.

    >>> rows = [[_label("density"), _score(results.Score(0.5, 0.01, 3), interval=True)]]
    >>> print(as_csv(Table("accuracy", "", ["row", "all"], rows)), end="")
    row,all,all std,all low,all high
    density,50.0,1.0,47.5,52.5
    """
    # A column of the table takes as many columns of CSV as any of its cells has values.
    suffixes = [
        list(dict.fromkeys(suffix for row in table.rows for suffix in row[i].values)) or [""]
        for i in range(len(table.header))
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = zip(table.header, suffixes, strict=True)
    writer.writerow(f"{name} {suffix}".strip() for name, group in columns for suffix in group)
    for row in table.rows:
        cells = zip(row, suffixes, strict=True)
        writer.writerow(cell.values.get(suffix, "") for cell, group in cells for suffix in group)
    return text.getvalue()


_TEX: dict[str, str] = {
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--", "×": r"$\times$", "²": r"$^2$", "\u00a0": "~",
}  # fmt: skip
_LATEX = r"""\begin{{table}}
  \centering
  \caption{{{caption}}}
  \label{{tab:{name}}}
  \begin{{tabular}}{{{columns}}}
    \toprule
{header}
    \midrule
{rows}
    \bottomrule
  \end{{tabular}}
\end{{table}}"""


def as_latex(table: Table) -> str:
    """Return a table as LaTeX, for the package booktabs."""
    line = lambda texts: "    " + " & ".join(map(_escape, texts)) + r" \\"
    text = lambda cell: f"{cell.text} ({cell.small})" if cell.small else cell.text
    return _LATEX.format(
        caption=_escape(table.caption), name=table.name, header=line(table.header),
        columns="l" + "r" * (len(table.header) - 1),
        rows="\n".join(line(map(text, row)) for row in table.rows),
    )  # fmt: skip


def _escape(text):
    return " ".join(text.translate(str.maketrans(_TEX)).split())
