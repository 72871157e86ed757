"""Tables in Markdown."""

import pathlib
from collections.abc import Collection, Iterable, Sequence


def table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[int] = (0,)
) -> list[str]:
    """Return the lines of a table.

    Args:
        titles: titles of the columns.
        rows: cells of each row.
        left: columns that are aligned left; the others are aligned right.

    >>> table(["set", "accuracy"], [["random", "21.3"]])
    ['| set | accuracy |', '|---|--:|', '| random | 21.3 |']
    """
    rule = "|".join("---" if i in left else "--:" for i in range(len(titles)))
    line = lambda cells: f"| {' | '.join(cells)} |"
    return [line(titles), f"|{rule}|", *map(line, rows)]


def link(title: str, path: pathlib.Path) -> str:
    """Return a link from the pages to a file of results."""
    return f"[{title}](experiments/results/{path.name})"
