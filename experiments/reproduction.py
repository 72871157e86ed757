"""The paper's main table: DM and DSA with and without density weights, by data set, size and share.

    python -m experiments.reproduction --preset quick --data-dir DIR

Coloured MNIST, Fashion-MNIST in front of natural images and Corrupted CIFAR-10, with 1, 2 and 5 %
bias-conflicting samples, at 1, 10 and 50 images per class. DSA on the last two sets, whose bias is no
colour, is `experiments.siamese`. The quick preset has 5 % at one image per class, just under half an
hour on two cores; `experiments.amplification`, `methods` and `published` have more of these cells.

One image cannot have all colours: density weights take CMNIST from 25.7 % to 43.0 (DM) and 52.5 (DSA),
where ten images have 92.7 (DM) and 88.6. On the other two sets they cost accuracy.
"""

from collections.abc import Sequence

from experiments import grid
from jaxdd.runs.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """DM on every data set, and DSA on the coloured one."""
    sets = ("cmnist", "bgfmnist", "ccifar10")
    return main_table(preset, [("dm", name) for name in sets] + [("dsa", "cmnist")])


def main_table(preset: str, pairs: Sequence[tuple[str, str]]) -> list[grid.Cell]:
    """The paper's sizes and shares for pairs of method and data set, the largest sets last.

    Real images do not depend on the method, so that DM alone has a row of them.
    """
    sizes, shares = ((1,), (0.05,)) if preset == "quick" else ((1, 10, 50), (0.05, 0.02, 0.01))
    return [
        grid.Cell(name, row, Options(preset=preset, method=method, ipc=ipc, conflict=conflict))
        for ipc in sizes
        for method, name in pairs
        for conflict in shares
        for row in (("random", "none", "kde") if method == "dm" else ("none", "kde"))
    ]


GRID = grid.Grid(
    "reproduction",
    cells,
    down=("dataset", "method", "ipc", "conflict"),
    scores=("accuracy", "conflicting"),
)

if __name__ == "__main__":
    grid.main(GRID)
