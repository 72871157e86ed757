"""Update the generated tables in README.md, experiments/README.md and docs.

    python -m experiments.tools.pages

A table of a page is replaced by the generated table with the same titles; of several, by the one
that shares most labels with it. Run this after results have changed; tests compare the pages with
the results.
"""

import pathlib
import posixpath
import re
from collections.abc import Sequence

from experiments.tools import table

ROOT = pathlib.Path(__file__).resolve().parents[2]
_TABLE = re.compile(r"(?:^\|.*\n)+", re.M)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def update(text: str, folder: str, blocks: Sequence[Sequence[str]]) -> str:
    """Return a page with current tables.

    Args:
        text: text of the page.
        folder: folder of the page, relative to the root of the repository.
        blocks: generated tables as lines, with links relative to the root.

    >>> page = "| set | old |\\n|---|--:|\\n| a | 1 |\\n"
    >>> print(update(page, "docs", [["| set | old |", "|---|--:|", "| a | 2 |"]]).splitlines()[-1])
    | a | 2 |
    """
    relative = lambda match: f"]({posixpath.relpath(match[1], folder or '.')}"
    current = [[_LINK.sub(relative, line) for line in block] for block in blocks]
    labels = lambda lines: {line.split("|")[1] for line in lines[2:]}

    def replace(match: re.Match[str]) -> str:
        lines = match[0].splitlines()
        same = [block for block in current if block[0] == lines[0]]
        best = max(same, key=lambda block: len(labels(block) & labels(lines)), default=lines)
        return "\n".join(best) + "\n"

    return _TABLE.sub(replace, text)


def main() -> None:
    """Update all pages and print the names of those that changed."""
    blocks = list(table.blocks())
    paths = ROOT / "README.md", ROOT / "experiments" / "README.md", *(ROOT / "docs").rglob("*.md")
    for path in paths:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        updated = update(text, posixpath.dirname(name), blocks)
        if updated != text:
            path.write_text(updated, encoding="utf-8")
            print(name)


if __name__ == "__main__":
    main()
