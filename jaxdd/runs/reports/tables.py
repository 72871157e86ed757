r"""Tables of a report as data, written as HTML by the templates and as CSV or LaTeX here.

A cell holds the text that readers see and the numbers that programs read. In CSV, a mean with its
standard deviation takes two columns, and its confidence interval two more.
"""

import csv
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxdd.runs import results

_TEX: dict[str, str] = {
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--", "×": r"$\times$", "²": r"$^2$", "\u00a0": "~",
}  # fmt: skip


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


def label(value: Any) -> Cell:
    """Return a cell with text."""
    return Cell(str(value), "", {"": str(value)})


def number(value: Any, form: str) -> Cell:
    """Return a cell with a number, or a dash if the number is unknown.

    >>> number(1234, ",.0f").text, dict(number(1234, ",.0f").values), number(None, ".1f").text
    ('1,234', {'': '1234'}, '–')
    """
    text = results.number(value, form)
    return Cell(text, "", {"": _plain(text)})


def percent(share: float | None) -> Cell:
    """Return a cell with a share in percent, without a unit."""
    known = results.finite(share)
    return number(None if known is None else 100 * known, ".1f")


def score(value: results.Score | None, *, interval: bool = False) -> Cell:
    """Return a cell with mean ± standard deviation in percent, a dash if they are unknown.

    With `interval`, the 95 % confidence interval of the mean is below.

    >>> cell = score(results.Score(0.5, 0.01, 3), interval=True)
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


def sizes(train: int, test: int, *, below: Cell | None = None) -> Cell:
    """Return a cell with numbers of training and test images, below another cell if there is one.

    >>> sizes(1003, 9).text, sizes(1003, 9, below=percent(0.5)).small
    ('1,003 / 9', '1,003 / 9')
    """
    text, values = f"{train:,} / {test:,}", {"training": str(train), "test": str(test)}
    return Cell(below.text, text, {**below.values, **values}) if below else Cell(text, "", values)


def _plain(text):
    """Return a number as programs read it; unknown numbers are empty."""
    return text.replace("–", "").replace(",", "")


# --- formats -----------------------------------------------------------------------------------


def as_csv(table: Table) -> str:
    """Return a table as CSV; unknown numbers are empty.

    >>> rows = [[label("density"), score(results.Score(0.5, 0.01, 3), interval=True)]]
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
