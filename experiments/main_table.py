"""Do density weights undo the bias, and do they hold when conflicting samples are rare?

    python -m experiments.main_table --preset quick --data-dir DIR

Coloured MNIST. The cell that the paper gives numbers for has 5 % bias-conflicting samples and 50
images per class: 23.8 % for plain DM, 91.5 % with density weights. The other cells have ten images
per class and 5, 2 and 1 % conflicting samples; the paper preset has 2 and 1 % at fifty as well. An
hour on two quiet cores.

Weights repair what plain distillation loses, without bias labels (kde, auto) as well as with them
(oracle), and do not lose it as conflict becomes rarer. At fifty images real ones drawn by the
weights are nearly as good: there the weights are what matters, at ten (`experiments.seeds`)
distillation adds to them.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Every way to make a set, with the oracle and FairDD, which know the groups."""
    shares = (0.05, 0.02, 0.01)
    at_fifty = shares[:1] if preset == "quick" else shares
    sizes = [*((10, share) for share in shares), *((50, share) for share in at_fifty)]
    rows = ("random", "random-kde", "none", "kde", "auto", "oracle", "fairdd")
    return [
        grid.Cell("cmnist", row, make(preset=preset, conflict=conflict, ipc=ipc))
        for ipc, conflict in sizes
        for row in rows
    ] + [
        grid.Cell("cmnist", row, make(preset=preset, conflict=0.005))
        for row in ("none", "kde", "auto", "oracle")
    ]


GRID = grid.Grid("main_table", cells, down=("ipc", "conflict"))

if __name__ == "__main__":
    grid.main(GRID)
