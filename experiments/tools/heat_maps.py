"""Heat maps of tables of results."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdd.runs.reports import style

_TITLE_CHARACTER, _CHARACTER = 15, 12  # widths in pixels


def draw(
    path: str | os.PathLike,
    panels: Mapping[str, Any],
    *,
    rows: Mapping[str, Sequence[float | str]],
    columns: Mapping[str, Sequence[float | str]],
    limits: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Draw matrices of numbers side by side, with every number in its cell.

    Args:
        path: The file.
        panels: Title -> matrix `[r, c]`; NaN cells stay empty.
        rows: One entry, the name of the variable along the rows -> its r values.
        columns: One entry, the name of the variable along the columns -> its c values.
        limits: Values of the darkest and the brightest colour.
    """
    ((row_name, row_values),), ((column_name, column_values),) = rows.items(), columns.items()
    shape = len(row_values), len(column_values)
    matrices = {title: np.asarray(matrix, float) for title, matrix in panels.items()}
    if not matrices or any(matrix.shape != shape for matrix in matrices.values()):
        shapes = {title: matrix.shape for title, matrix in matrices.items()}
        raise ValueError(f"panels must be matrices of shape {shape}, got {shapes}")
    middle = (limits[0] + limits[1]) / 2
    tick = lambda value: value if isinstance(value, str) else f"{value:g}"
    row_ticks, column_ticks = (list(map(tick, values)) for values in (row_values, column_values))
    cell = max(110, _CHARACTER * (max(map(len, column_ticks)) + 1))
    panel = max(cell * shape[1], _TITLE_CHARACTER * max(map(len, matrices))) + 40
    width = panel * len(matrices) + _CHARACTER * max(map(len, row_ticks)) + 100
    height = max(80 * shape[0], _CHARACTER * len(row_name)) + 150
    with style.subplots(path, width, height, 1, len(matrices), sharey=True) as (_, (row,)):
        row[0].set_ylabel(row_name)
        for axes, (title, matrix) in zip(row, matrices.items(), strict=True):
            axes.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap="viridis", aspect="auto")
            axes.set(title=title, xlabel=column_name)
            axes.set_xticks(range(shape[1]), column_ticks)
            axes.set_yticks(range(shape[0]), row_ticks)
            for (i, j), value in np.ndenumerate(matrix):
                if np.isfinite(value):
                    color = "white" if value < middle else "black"
                    axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=color)
