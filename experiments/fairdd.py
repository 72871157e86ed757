"""The cells of FairDD: coloured foregrounds and backgrounds with 10 % bias-conflicting samples.

    python -m experiments.fairdd --preset quick --data-dir DIR

FairDD and the oracle know every sample's group, the density weights do not. Its authors report at
ten images per class (random, DM, DM with density weights, DM with FairDD): 30.75, 25.01, 90.42 and
94.61 % for the foreground; 27.95, 23.40, –, 94.88 % for the background, and 94.77 % for FairDD with
groups from clustering.
"""

from experiments import grid
from jaxdd.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """Both benchmarks with every way to distil."""
    return [
        grid.Cell(name, row, Options(preset=preset, conflict=0.1))
        for name in ("cmnist-fg", "cmnist-bg")
        for row in ("random", "random-kde", "none", "kde", "oracle", "fairdd")
    ]


GRID = grid.Grid("fairdd", cells, down=("dataset",), scores=("accuracy",))

if __name__ == "__main__":
    grid.main(GRID)
