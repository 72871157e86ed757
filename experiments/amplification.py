"""Which biases does distillation amplify?

    python -m experiments.amplification --data-dir DIR

A bias counts as amplified if networks do worse on bias-conflicting test samples after training on
the distilled set (plain) than on as many uniformly drawn real images (random). Ten images per
class, 5 % bias-conflicting samples. `experiments.recognition` measures how visible the biases are.

Cost: 25 minutes on two cores.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Return cells of colour, background, corruption with all rows, few backgrounds with some."""
    biased = make(preset=preset, conflict=0.05)
    rows = ("random", "random-density", "plain", "density", "auto", "oracle")
    pairs = [(name, row) for name in ("cmnist", "bgfmnist", "ccifar10") for row in rows]
    pairs += [("bgfmnist-few", row) for row in ("random", "plain", "oracle")]
    return [grid.Cell(name, row, biased) for name, row in pairs]


GRID = grid.Grid("amplification", cells, down=("dataset",), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
