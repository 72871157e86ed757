"""Fewer conflicting samples: do density weights hold?

    python -m experiments.shares --preset quick --data-dir DIR

Coloured MNIST with 5, 2 and 1 % bias-conflicting samples, at ten images per class. Half an hour on two
quiet cores.

At 1 %, which is 60 conflicting samples of each class, auto reaches 92.3 % without bias labels, the
oracle 92.5 % with them, fixed defaults 91.7 %, and plain distillation 18.3 %.
"""

from experiments import grid
from jaxdd.runs.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """Every way to make a set, with the oracle and FairDD, which know the groups."""
    return [
        grid.Cell("cmnist", row, Options(preset=preset, conflict=conflict))
        for conflict in (0.05, 0.02, 0.01)
        for row in ("random", "random-kde", "none", "kde", "auto", "oracle", "fairdd")
    ]


GRID = grid.Grid("shares", cells, down=("ipc", "conflict"))

if __name__ == "__main__":
    grid.main(GRID)
