"""Tables read from a page: what programs and papers get is what the page shows."""

import csv
import io

import pytest

from jaxdd.runs.reports import tables

PAGE = """<h2>Accuracy &amp; more</h2>
<table aria-label="In %, 5&nbsp;networks"><thead><tr><th>row</th><th>all</th><th>n</th></tr></thead>
<tbody><tr><th>a_b &amp; c</th><td>91.6 ± 0.7<small>90.1 to 93.1</small></td><td>1,234</td></tr>
<tr><th>=1+1</th><td>–</td><td>5</td></tr></tbody></table>
<h3>no table</h3><table aria-label=""><thead><tr><th>x</th></tr></thead></table>
<h2>Groups</h2><table aria-label="g"><thead><tr><th>class</th><th>red</th></tr></thead>
<tbody><tr><th>cat</th><td>50.0
  <small>9 / 1,200</small></td></tr></tbody></table>"""


@pytest.fixture
def found():
    return tables.read(PAGE)


def test_tables_are_named_by_their_headings(found):
    assert [each.name for each in found] == ["accuracy-more", "accuracy-more-2", "groups"]
    assert found[0].caption == "In %, 5\u00a0networks" and found[1].rows == []
    assert found[0].rows[0][1] == tables.Cell("91.6 ± 0.7", "90.1 to 93.1")


def test_csv_has_a_column_for_each_number(found):
    lines = list(csv.reader(io.StringIO(tables.as_csv(found[0]))))
    assert lines[0] == ["row", "all", "all std", "all low", "all high", "n"]
    assert lines[1] == ["a_b & c", "91.6", "0.7", "90.1", "93.1", "1234"]
    assert lines[2] == ["=1+1", "", "", "", "", "5"]
    lines = list(csv.reader(io.StringIO(tables.as_csv(found[2]))))
    assert lines == [["class", "red", "red training", "red test"], ["cat", "50.0", "9", "1200"]]


def test_latex_escapes_what_tex_would_read(found):
    text = tables.as_latex(found[0])
    assert r"a\_b \& c & 91.6 $\pm$ 0.7 (90.1 to 93.1) & 1,234 \\" in text
    assert r"\caption{In \%, 5~networks}" in text and r"=1+1 & -- & 5 \\" in text
    assert text.count("{") == text.count("}")
    hostile = tables.Table("t", r"\input{x}", ["~^#$"], [])
    assert r"\textbackslash{}input\{x\}" in tables.as_latex(hostile)
    assert r"\textasciitilde{}\textasciicircum{}\#\$" in tables.as_latex(hostile)
