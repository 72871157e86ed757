"""Tests of tables as CSV and LaTeX: the numbers of a page in machine-readable form."""

import csv
import io

from jaxdd.runs import results
from jaxdd.runs.reports import tables
from jaxdd.runs.reports.tables import Table, label, number, percent, score, sizes

ACCURACY = Table(
    "accuracy",
    "In %, 5\u00a0networks",
    ["row", "all", "n", "red"],
    [
        [
            label("a_b & c"),
            score(results.Score(0.916, 0.007, 5), interval=True),
            number(1234, ",.0f"),
            sizes(9, 1200, below=percent(0.5)),
        ],
        [label("=1+1"), score(None), number(None, ".0f"), sizes(9, 1200, below=percent(None))],
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
    assert tables.as_csv(Table("x", "", ["a", "b"], [])) == "a,b\n"
