"""Where the start comes from, and how the weights are used: what is each worth?

    python -m experiments.batch_weights --preset quick --data-dir DIR

Coloured MNIST with 5 % bias-conflicting samples at ten images per class, density weights
throughout. The synthetic images start as real ones drawn by the weights (weighted, the default),
drawn uniformly (real), or as noise. The weights draw each batch (draw, the default), weigh a batch
that was drawn uniformly (mean), or are estimated anew from each batch (batch): a start from real
images with weights from the batch is the paper's way. 15 minutes on two cores.

Weights of the whole data set are what matters, also from a uniform start. Drawing and the weighted
start are each worth a few points more.
"""

import itertools

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Every start with the default weighting, and the other weightings from two of them."""
    chosen = [
        *itertools.product(("draw",), ("weighted", "real", "noise")),
        *itertools.product(("mean", "batch"), ("weighted", "real")),
    ]
    return [
        grid.Cell(
            "cmnist", "kde", make(preset=preset, conflict=0.05, weighting=weighting, init=init)
        )
        for weighting, init in chosen
    ]


GRID = grid.Grid(
    "batch_weights",
    cells,
    down=("weighting",),
    scores=("accuracy", "conflicting"),
    across="init",
)

if __name__ == "__main__":
    grid.main(GRID)
