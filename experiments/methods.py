"""Do density weights help every family of methods?

    python -m experiments.methods --data-dir DIR

DM, DC, DSA and MTT on coloured MNIST, 5 % bias-conflicting samples, ten images per class, with
uniform, density, auto and oracle weights. For MTT, which the paper leaves open, the experts are
trained with the weights. DREAM is DM with batches of cluster centres of 512 images of a class
(candidates). IDC is DM with images that hold four smaller ones each (formation).

Cost: an hour and a half on two cores.
"""

from experiments.tools import grid
from jaxdd.runs.options import make

METHODS = (
    *({"method": method} for method in ("dm", "dc", "dsa", "mtt")),
    {"candidates": 512},
    {"formation": 2},
)


def cells(preset: str) -> list[grid.Cell]:
    """Return cells of every method with every kind of weights, and random subsets once."""
    plain = make(preset=preset, conflict=0.05)
    return [
        *(grid.Cell("cmnist", row, plain) for row in ("random", "random-density")),
        *(
            grid.Cell("cmnist", row, make(preset=preset, conflict=0.05, **method))
            for method in METHODS
            for row in ("plain", "density", "auto", "oracle")
        ),
    ]


DOWN = ("method", "candidates", "formation")
GRID = grid.Grid("methods", cells, down=DOWN, scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
