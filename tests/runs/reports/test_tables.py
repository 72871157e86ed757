"""Tests of the tables of a report: every number is one of the result, small groups are hidden."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from jaxdd.runs import results
from jaxdd.runs.reports import tables


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def breakdown(test, mean, names=()):
    test, mean = np.array(test), np.array(mean)
    return results.Breakdown(names, 2 * test, test, mean, np.zeros(mean.shape))


def make_row(mean=0.9, **fields):
    score = results.Score(mean, 0.01, 3)
    return results.Result(accuracy=score, aligned=score, conflicting=score, **fields)


def test_accuracies_have_confidence_intervals():
    """3 networks: 4.3027 · 0.01 / √3 = 0.0248 on either side."""
    rows = {"density": make_row(), "plain": results.Result(accuracy=results.Score(0.25, 0.0, 1))}
    table = tables.accuracy(rows, {"accuracy": "all", "aligned": "aligned"})
    assert texts(table) == [
        ["density", "90.0 ± 1.0", "90.0 ± 1.0", "3"],
        ["plain", "25.0", "–", "1"],
    ]
    assert table.rows[0][1].small == "87.5 to 92.5" and table.rows[1][1].small == ""
    assert table.header == ["row", "all", "aligned", "networks"] and "interval" in table.caption


def test_classes_with_few_test_images_have_no_accuracy():
    row = make_row(by_class=breakdown([1012, 9], [0.875, 0.25], ("cat", "dog")))
    table = tables.by_class({"density": row, "plain": make_row()})
    assert texts(table) == [["cat", "2,024", "1,012", "87.5 ± 0.0"], ["dog", "18", "9", "–"]]
    assert table.header == ["class", "training images", "test images", "density"]
    assert "fewer than 10" in table.caption
    assert tables.by_class({"plain": make_row()}) is None


def test_groups_with_few_test_images_have_sizes_only():
    groups = breakdown([[1003, 9], [40, 12]], [[0.9, 0.5], [0.222, 0.333]], ("red", "blue"))
    table = tables.by_group("density", make_row(by_group=groups))
    assert texts(table) == [["0", "90.0", "–"], ["1", "22.2", "33.3"]]
    assert [cell.small for cell in table.rows[0]] == ["", "2,006 / 1,003", "18 / 9"]
    assert table.header == ["class", "red", "blue"] and table.name == "groups-density"
    small = breakdown([[3, 4], [4, 3]], [[0.9, 0.5], [0.2, 0.3]])
    table = tables.by_group("density", make_row(by_group=small))
    assert texts(table) == [["0", "6 / 3", "8 / 4"], ["1", "8 / 4", "6 / 3"]]
    gap = make_row(by_group=groups, deo_mean=results.Score(0.25, 0.0, 1), deo_classes=2)
    assert "gap" not in tables.by_group("density", gap).caption  # a group of 9
    large = gap.by_group._replace(test=np.array([[100, 0], [20, 30]]))
    gap = dataclasses.replace(gap, by_group=large, deo_classes=1)
    assert "25.0 on average over the 1 of 2 classes" in tables.by_group("density", gap).caption
    table = tables.by_group("density", make_row(by_group=groups._replace(train=None)))
    assert [cell.small for cell in table.rows[0]] == ["", "– / 1,003", "– / 9"]
    assert table.rows[0][1].values["training"] == ""
    assert tables.by_group("density", make_row()) is None


def test_weight_diagnostics_that_are_unknown_have_no_column():
    known = {
        "conflict_auc": 0.987, "conflict_weight_share": 0.854, "group_evenness": 0.91,
        "effective_sample_size": 1218.4,
    }  # fmt: skip
    table = tables.weights({"density": make_row(weights=known), "plain": make_row()})
    assert texts(table) == [["density", "0.987", "0.85", "0.91", "1,218"]]
    unknown = dict.fromkeys(known) | {"effective_sample_size": 12.0}
    table = tables.weights({"density": make_row(weights=unknown)})
    assert texts(table) == [["density", "12"]] and len(table.header) == 2
    assert tables.weights({"plain": make_row()}) is None


TRIAL = dict(overall=0.953, aligned=0.991, conflicting=0.127, count=641)
SEARCH = [
    dict(encoder_steps=steps, bandwidth=0.2, temperature=temperature, evenness=evenness)
    for steps, temperature, evenness in ((30, 0.7, 0.62), (30, 1.0, 0.93), (90, 0.7, 0.5))
]


def candidate(name, **fields):
    """Return the record of a candidate."""
    evidence = dict(bimodality=0.561, confident_share=0.0234, effective_sample_size=1234.5)
    record = dict(name=name, blocks=[0, 1, 1], shortcut=None, trials={}, rejection=None)
    return record | evidence | fields


def test_a_choice_by_density_shows_trials_and_evenness():
    unknown = dict(bimodality=None, confident_share=None)
    density = candidate("density", trials={"weighted": TRIAL}, **unknown)
    record = dict(candidates=[density], search=SEARCH)
    table, trials, evenness = tables.choice(record, "choice-auto")
    assert texts(table) == [["density", "2", "–", "–", "–", "–", "–", "1,234"]]
    assert texts(trials) == [["density, weighted", "95.3", "99.1", "12.7", "641"]]
    assert texts(evenness) == [["30, 0.2", "0.62", "0.93"], ["90, 0.2", "0.50"]]
    assert evenness.header[1:] == ["0.7", "1"] and evenness.name == "choice-auto-evenness"


def test_a_choice_by_features_shows_the_shortcut_test():
    shortcut = dict(blocks=[0, 1, 1], blind=0.053, baseline=0.104, z_score=22.31)
    (table,) = tables.choice(dict(candidates=[candidate("tone", shortcut=shortcut)], search=[]))
    assert texts(table) == [["tone", "2", "0.56", "2.3", "5.3", "10.4", "+22.3", "1,234"]]
    assert not tables.choice(dict(candidates=[], search=[]))


def test_a_choice_by_bias_labels_shows_gains_and_attributes():
    labels = dict(
        labels=40, conflicting=12, own_attribute={"cat": "indoors", "dog": "outdoors"},
        gains={"tone": dict(nats=1.23, share=0.052), "layout": dict(nats=17.5, share=0.84)},
        coefficients={"tone": 0.1, "layout": 0.95},
    )  # fmt: skip
    record = dict(candidates=[], search=[], labels=labels)
    gains, own = tables.choice(record, "choice-labels")
    assert texts(gains) == [["tone", "1.2", "5.2", "0.10"], ["layout", "17.5", "84.0", "0.95"]]
    assert gains.caption.startswith("40 bias labels, 12 of them")
    assert texts(own) == [["cat", "indoors"], ["dog", "outdoors"]]


def test_evaluations_show_network_protocol_and_set():
    row = dict(network="vgg11", protocol="standard", set="set", eval_seeds=3, epochs=40)
    row |= {"accuracy": dict(mean=0.123, std=0.004, n=3), "conflicting": dict(mean=0.05)}
    table = tables.evaluations({"vgg11 standard set": row})
    assert texts(table) == [["vgg11", "standard", "set", "12.3 ± 0.4", "5.0", "3", "40"]]


def test_spectra_compare_the_set_with_random_images():
    band = dict(directions=2, share=0.99, variance=0.75, error=0.25)
    sets = {"set": {"bands": [band]}, "random": {"bands": [band | dict(variance=0.5)]}}
    (table,) = tables.spectra({"profiles": {"random": {"sets": sets}}})
    assert texts(table) == [["2", "99.0", "0.75", "0.50", "0.25", "0.25"]]
    assert "random networks" in table.caption and table.name == "spectrum-random"


def test_seconds_have_a_column_for_each_recorded_stage():
    rows = {
        "plain": make_row(seconds={"data": 4.25, "distill": 1000.0}),
        "density": make_row(seconds={"data": 4.25, "density": 2.0, "compile": 9.0}),
    }
    table = tables.seconds(rows)
    assert table.header == ["row", "data", "density", "distill", "compile"]
    assert texts(table)[0] == ["plain", "4.2", "–", "1,000.0", "–"]
    assert f"{4.25 + 2 + 1000:,.0f} s" in table.caption
    assert tables.seconds({"plain": make_row()}) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "text"])
def test_unknown_numbers_are_dashes(value):
    record = dict(candidates=[candidate("tone", bimodality=value)], search=[])
    assert texts(tables.choice(record)[0])[0][2] == "–"


# --- formats ---------------------------------------------------------------------------------

ACCURACY = tables.Table(
    "accuracy",
    "In %, 5\u00a0networks",
    ["row", "all", "n", "red"],
    [
        [
            tables._label("a_b & c"),
            tables._score(results.Score(0.916, 0.007, 5), interval=True),
            tables._number(1234, ",.0f"),
            tables._sizes(9, 1200, below=tables._percent(0.5)),
        ],
        [
            tables._label("=1+1"),
            tables._score(None),
            tables._number(None, ".0f"),
            tables._sizes(9, 1200, below=tables._percent(None)),
        ],
    ],
)


def test_csv_has_a_column_for_each_number():
    """The interval is 0.916 ± 2.7764 · 0.007 / √5 = 0.916 ± 0.00869."""
    header, *lines = csv.reader(io.StringIO(tables.as_csv(ACCURACY)))
    assert header == [
        "row", "all", "all std", "all low", "all high", "n", "red", "red training", "red test",
    ]  # fmt: skip
    assert lines == [
        ["a_b & c", "91.6", "0.7", "90.7", "92.5", "1234", "50.0", "9", "1200"],
        ["=1+1", "", "", "", "", "", "", "9", "1200"],
    ]


def test_latex_is_escaped_and_shows_what_the_page_shows():
    text = tables.as_latex(ACCURACY)
    assert r"a\_b \& c & 91.6 $\pm$ 0.7 (90.7 to 92.5) & 1,234 & 50.0 (9 / 1,200) \\" in text
    assert r"=1+1 & -- & -- & -- (9 / 1,200) \\" in text
    assert r"\caption{In \%, 5~networks}" in text and r"\label{tab:accuracy}" in text
    assert r"\begin{tabular}{lrrr}" in text


def test_a_table_without_rows_has_a_header():
    assert tables.as_csv(tables.Table("x", "", ["a", "b"], [])) == "a,b\n"
