"""Do density weights help with one image per class?

    python -m experiments.one_image_per_class --data-dir DIR

The paper preset also has the paper's other sizes and conflict shares.

Cost: just under an hour on two cores.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Return cells of all sizes and shares by data set and method, the largest sets last.

    Random subsets do not depend on the method, so only DM has that row.
    """
    sizes, shares = ((1,), (0.05,)) if preset == "quick" else ((1, 10, 50), (0.05, 0.02, 0.01))
    return [
        grid.Cell(name, row, make(preset=preset, method=method, ipc=ipc, conflict=conflict))
        for ipc in sizes
        for method in ("dm", "dsa")
        for name in ("cmnist", "bgfmnist", "ccifar10")
        for conflict in shares
        for row in ("random", "plain", "density")
        if method == "dm" or row != "random"
    ]


DOWN = ("dataset", "method", "ipc", "conflict")
GRID = grid.Grid("one_image_per_class", cells, down=DOWN, scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
