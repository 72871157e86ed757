r"""The tables of a page, as CSV for programs and as LaTeX for papers.

They are read from the page itself, so that no number in them is another than the page's. A mean
with its deviation takes two columns of CSV, its interval two more.
"""

import csv
import html.parser
import io
import re
from typing import NamedTuple

_TEX: dict[str, str] = {
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--", "×": r"$\times$", "²": r"$^2$", "\u00a0": "~",
}  # fmt: skip
_PARTS = re.compile(r"(?P<mean>[-+\d.,]+) ± (?P<std>[\d.]+)")


class Cell(NamedTuple):
    """What stands in a cell, and what stands below it in small letters."""

    text: str
    small: str = ""


class Table(NamedTuple):
    """A table of a page.

    Attributes:
        name: for a file: the heading above it, with a number where there are several.
        caption: above it.
        header: a name for each column.
        rows: as many cells each.
    """

    name: str
    caption: str
    header: list[str]
    rows: list[list[Cell]]


class _Reader(html.parser.HTMLParser):
    """Collects tables; only `small` is told apart inside of cells."""

    def __init__(self):
        super().__init__()
        self.tables, self.heading, self.into = [], "", None

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append((self.heading, dict(attrs).get("aria-label") or "", []))
        elif tag == "tr":
            self.tables[-1][2].append([])
        elif tag in ("th", "td"):
            self.tables[-1][2][-1].append({"text": "", "small": ""})
            self.into = "text"
        elif tag == "small" and self.into:
            self.into = "small"
        elif tag == "h2":
            self.heading, self.into = "", "heading"

    def handle_endtag(self, tag):
        self.into = "text" if tag == "small" and self.into else self.into
        self.into = None if tag in ("th", "td", "h2") else self.into

    def handle_data(self, data):
        if self.into == "heading":
            self.heading += data
        elif self.into:
            self.tables[-1][2][-1][-1][self.into] += data


def read(page: str) -> list[Table]:
    """Returns the tables of a page that `report.render` made."""
    reader, names, tables = _Reader(), {}, []
    reader.feed(page)
    reader.close()
    for heading, caption, lines in reader.tables:
        slug = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "table"
        names[slug] = names.get(slug, 0) + 1
        name = slug if names[slug] == 1 else f"{slug}-{names[slug]}"
        cells = [
            [Cell(*(part.strip() for part in cell.values())) for cell in line] for line in lines
        ]
        tables.append(Table(name, caption, [cell.text for cell in cells[0]], cells[1:]))
    return tables


def as_csv(table: Table) -> str:
    """Returns a table as CSV; what is not known is empty.

    >>> cells = [[Cell("kde"), Cell("91.6 ± 0.7", "90.1 to 93.1")]]
    >>> print(as_csv(Table("accuracy", "", ["row", "all"], cells)), end="")
    row,all,all std,all low,all high
    kde,91.6,0.7,90.1,93.1
    """
    lines = [[_split(cell) for cell in row] for row in table.rows]
    columns = [
        list(dict.fromkeys(part for line in lines for part in line[i])) or [""]
        for i in range(len(table.header))
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        f"{name} {part}".strip() for name, each in zip(table.header, columns, strict=True)
        for part in each
    )  # fmt: skip
    for line in lines:
        writer.writerow(
            cell.get(part, "") for cell, each in zip(line, columns, strict=True) for part in each
        )
    return text.getvalue()


def _split(cell: Cell) -> dict[str, str]:
    """The parts of a cell by what their columns are called after the name of the cell's."""
    found = _PARTS.fullmatch(cell.text)
    parts = {"": found["mean"], "std": found["std"]} if found else {"": cell.text.replace("–", "")}
    if not found and " / " in cell.text:
        return _sizes(cell.text)
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", parts[""]):
        parts[""] = parts[""].replace(",", "")
    if cell.small:
        low, between, high = cell.small.partition(" to ")
        parts |= {"low": low, "high": high} if between else _sizes(cell.small)
    return parts


def _sizes(text: str) -> dict[str, str]:
    return dict(zip(("training", "test"), text.replace(",", "").split(" / "), strict=False))


def as_latex(table: Table) -> str:
    r"""Returns a table as LaTeX, for the package booktabs.

    >>> print(as_latex(Table("accuracy", "In %.", ["row", "all"], [[Cell("a_b"), Cell("9 ± 1")]])))
    \begin{table}
      \centering
      \caption{In \%.}
      \label{tab:accuracy}
      \begin{tabular}{lr}
        \toprule
        row & all \\
        \midrule
        a\_b & 9 $\pm$ 1 \\
        \bottomrule
      \end{tabular}
    \end{table}
    """
    line = lambda texts: "    " + " & ".join(map(_escaped, texts)) + r" \\"
    below = lambda cell: f"{cell.text} ({cell.small})" if cell.small else cell.text
    return "\n".join([
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escaped(table.caption)}}}",
        rf"  \label{{tab:{table.name}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"    \toprule",
        line(table.header),
        r"    \midrule",
        *(line(map(below, row)) for row in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ])  # fmt: skip


def _escaped(text):
    return " ".join(text.translate(str.maketrans(_TEX)).split())
