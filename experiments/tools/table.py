"""Print every table of README.md, experiments/README.md and docs from experiments/results.

    python -m experiments.tools.table

Takes seconds; tests compare the pages with it. Every module of an experiment has a `GRID`, whose
tables `experiments.tools.grid` makes, a function `tables`, or both.
"""

import importlib
import pathlib
from collections.abc import Iterator, Sequence

from experiments.speed import tables as speed
from experiments.tools import grid, overview, record
from jaxdd.runs import options

RESULTS = grid.RESULTS


def modules() -> Iterator:
    """Yield the modules of the experiments, by name."""
    for path in sorted(pathlib.Path(__file__).parents[1].glob("[a-z]*.py")):
        yield importlib.import_module(f"experiments.{path.stem}")


def grids() -> Iterator[grid.Grid]:
    """Yield the grids of the experiments."""
    yield from (module.GRID for module in modules() if hasattr(module, "GRID"))


def computed() -> Iterator[tuple[grid.Grid, Sequence[grid.Cell]]]:
    """Yield the grids and their cells, for every preset with a result."""
    known = grid.stored()
    for claim in grids():
        for cells in map(claim.cells, options.PRESETS):
            if any(grid.result(cell, known) for cell in cells):
                yield claim, cells


def blocks() -> Iterator[list[str]]:
    """Yield every table that the pages may hold, as lines of Markdown."""
    yield from overview.tables()
    for claim, cells in computed():
        yield from grid.tables(claim, cells)
    for module in (*modules(), speed):
        if hasattr(module, "tables"):
            yield from module.tables()


if __name__ == "__main__":
    record.show(blocks())
