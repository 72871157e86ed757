"""How much depends on the seed of the data, the encoder, the start and the distillation?

    python -m experiments.seeds --preset quick --data-dir DIR

Coloured MNIST with 5 % bias-conflicting samples at ten images per class, for three seeds. The
standard deviation behind ± is that of networks trained on one set; lines differ by everything else.
30 minutes on two cores.

Density weights, auto and the oracle hardly differ, whatever the seed, nor do seeds by much. Real
subsets differ more, and most if drawn by the weights.
"""

import itertools

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Every way to make a set, for every seed."""
    return [
        grid.Cell("cmnist", row, make(preset=preset, conflict=0.05, seed=seed))
        for seed, row in itertools.product(
            range(3), ("random", "random-kde", "none", "kde", "auto", "oracle")
        )
    ]


GRID = grid.Grid("seeds", cells, down=("seed",), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
