"""How do density weights compare with FairDD, which knows the bias groups?

    python -m experiments.fairdd --data-dir DIR

Coloured foregrounds and backgrounds, 10 % bias-conflicting samples, ten images per class. FairDD
and the oracle (as in COBRA, ICML 2026) use the bias labels.

Cost: 20 minutes on two cores.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Return both benchmarks with every way to make a set."""
    return [
        grid.Cell(name, row, make(preset=preset, conflict=0.1))
        for name in ("cmnist-fg", "cmnist-bg")
        for row in ("random", "random-density", "plain", "density", "auto", "oracle", "fairdd")
    ]


GRID = grid.Grid("fairdd", cells, down=("dataset",), scores=("accuracy", "conflicting", "deo_mean"))

if __name__ == "__main__":
    grid.main(GRID)
