"""Heat maps: matrices of numbers with every number in its cell."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdd.runs.reports import style

_CHARACTER, _LINE = 11, 24  # in pixels
_BLANK = "Blank: not computed."


def draw(path: os.PathLike, data: Mapping[str, Any]) -> None:
    """Draw matrices that share their rows and columns.

    Args:
        path: The file.
        data: "panels": title -> rows of cells [value, text], None for a blank; "rows" and
            "columns": labels; "row_title" and "column_title": what the labels are; "bar": label of
            the colour bar; "limits": values of the darkest and the brightest colour; "note": text
            below the panels. "wrap": panels per line, all by default.
    """
    panels, rows, columns = data["panels"], data["rows"], data["columns"]
    shape = len(rows), len(columns)
    if not panels or any(np.shape(_values(panel)) != shape for panel in panels.values()):
        shapes = {title: np.shape(_values(panel)) for title, panel in panels.items()}
        raise ValueError(f"panels must be matrices of shape {shape}, got {shapes}")
    across = data.get("wrap", len(panels))
    down = -(-len(panels) // across)
    longest = lambda labels: max(len(line) for x in labels for line in x.split("\n"))
    texts = [cell[1] for panel in panels.values() for row in panel for cell in row if cell]
    cell = 16 + 11 * max(longest(columns), longest(texts))
    panel = max(cell * shape[1], 16 * longest(panels)) + 40
    width = max(panel * across + _CHARACTER * longest(rows) + 220, 1000)
    lines = max(label.count("\n") for label in columns) + 1
    cell = 20 + _LINE * (max(text.count("\n") for text in texts) + 1)
    tall = max(cell * shape[0], _CHARACTER * len(data["row_title"])) + 90 + _LINE * lines
    size = width, tall * down + 60, down, across
    is_blank = any(x is None for panel in panels.values() for row in panel for x in row)
    with style.subplots(path, *size, sharex=True, sharey=True) as (figure, grid):
        for axes, (title, cells) in zip(grid.flat, panels.items(), strict=True):
            drawn = _draw_panel(axes, cells, data["limits"])
            axes.set_title(title)
            axes.set_xticks(range(shape[1]), columns)
            axes.set_yticks(range(shape[0]), rows)
        for axes in grid[:, 0]:
            axes.set_ylabel(data["row_title"])
        for axes in grid[-1]:
            axes.set_xlabel(data["column_title"])
        bar = figure.colorbar(drawn, ax=grid, label=data["bar"], shrink=0.9, pad=0.02)
        bar.outline.set_visible(False)
        style.add_note(figure, " ".join(filter(None, (data["note"], _BLANK * is_blank))))


def _values(cells):
    return [[np.nan if cell is None else cell[0] for cell in row] for row in cells]


def _draw_panel(axes, cells, limits):
    """Draw one matrix with the text of each cell."""
    values = np.asarray(_values(cells), float)
    drawn = axes.imshow(values, vmin=limits[0], vmax=limits[1], cmap="viridis", aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            if cell is not None:
                color = "white" if cell[0] < (limits[0] + limits[1]) / 2 else "black"
                axes.text(j, i, cell[1], ha="center", va="center", color=color, size=8.5)
    return drawn
