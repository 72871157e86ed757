"""The paper's main table: DM and DSA with and without density weights, by data set, size and share.

    python -m experiments.reproduction --preset quick --data-dir DIR

Coloured MNIST, Fashion-MNIST in front of natural images and Corrupted CIFAR-10, with 1, 2 and 5 %
bias-conflicting samples, at 1, 10 and 50 images per class. The quick preset has 5 % at one image
per class, about half an hour on two cores (its DSA cells are not computed yet);
`experiments.amplification`, `methods` and `published` have more of these cells.
"""

import itertools

from experiments import grid
from jaxdd.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """Every method on every data set, the largest sets last."""
    sizes, shares = ((1,), (0.05,)) if preset == "quick" else ((1, 10, 50), (0.05, 0.02, 0.01))
    sets = ("cmnist", "bgfmnist", "ccifar10")
    return [
        grid.Cell(name, row, Options(preset=preset, method=method, ipc=ipc, conflict=conflict))
        for ipc, method, conflict, name in itertools.product(sizes, ("dm", "dsa"), shares, sets)
        for row in ("random", "none", "kde")
    ]


GRID = grid.Grid(
    "reproduction", cells, down=("dataset", "method", "ipc", "conflict"),
    scores=("accuracy", "conflicting"),
)

if __name__ == "__main__":
    grid.main(GRID)
