"""How much do weighted initial images and each way of using weights contribute?

    python -m experiments.batch_weights --data-dir DIR

Coloured MNIST, 5 % bias-conflicting samples, ten images per class, density weights. Initial images
are real images drawn by weight (weighted, the default), real images drawn uniformly (real), or
noise. Batches are drawn by weight (draw, the default), drawn uniformly with weighted means (mean),
or weighted by a density that is estimated within each batch (batch). The paper uses real and batch.

Cost: 15 minutes on two cores.
"""

import itertools

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Return all initial images with the default weighting, and two of them with the others."""
    pairs = [
        *itertools.product(("draw",), ("weighted", "real", "noise")),
        *itertools.product(("mean", "batch"), ("weighted", "real")),
    ]
    biased = dict(preset=preset, conflict=0.05)
    return [
        grid.Cell("cmnist", "density", make(weighting=weighting, init=init, **biased))
        for weighting, init in pairs
    ]


SCORES = ("accuracy", "conflicting")
GRID = grid.Grid("batch_weights", cells, down=("weighting",), scores=SCORES, across="init")

if __name__ == "__main__":
    grid.main(GRID)
