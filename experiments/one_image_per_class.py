"""Is one image per class enough? DM and DSA with and without density weights.

    python -m experiments.one_image_per_class --preset quick --data-dir DIR

Coloured MNIST, Fashion-MNIST in front of natural images and Corrupted CIFAR-10, with 5 %
bias-conflicting samples; just under an hour on two cores. The paper preset has the paper's other
sizes and shares as well, 1, 10 and 50 images per class with 5, 2 and 1 %. With the quick preset
`experiments.amplification`, `methods` and `main_table` have more of these cells.

One image cannot have all colours: density weights help on CMNIST, by DSA more than by DM, but less
than with ten images. On the other two sets, whose bias is no colour, they cost accuracy.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """The paper's sizes and shares by data set and method, the largest sets last.

    Real images do not depend on the method, so that DM alone has a row of them.
    """
    sizes, shares = ((1,), (0.05,)) if preset == "quick" else ((1, 10, 50), (0.05, 0.02, 0.01))
    return [
        grid.Cell(name, row, make(preset=preset, method=method, ipc=ipc, conflict=conflict))
        for ipc in sizes
        for method in ("dm", "dsa")
        for name in ("cmnist", "bgfmnist", "ccifar10")
        for conflict in shares
        for row in (("random", "none", "kde") if method == "dm" else ("none", "kde"))
    ]


GRID = grid.Grid(
    "one_image_per_class",
    cells,
    down=("dataset", "method", "ipc", "conflict"),
    scores=("accuracy", "conflicting"),
)

if __name__ == "__main__":
    grid.main(GRID)
