"""Does auto tell a bias from mere difficulty? Fashion-MNIST with coloured backgrounds, and without.

    python -m experiments.fashion --preset quick --data-dir DIR

Solid background colours (5 % bias-conflicting samples), and the same images without any bias, at ten
images per class by DM. Clothes are harder to tell than digits, so that weights which remove a bias cost
more on the aligned samples, and more samples look as if they conflicted where nothing does. Half an
hour on two cores.

auto keeps uniform weights without a bias (80.1 %, fixed defaults 62.1) and takes weights with it (57.5 %,
plain distillation 30.6, oracle 61.4).
"""

from experiments import grid
from jaxdd.runs.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """All weights; without attributes there is no oracle."""
    biased, unbiased = Options(preset=preset, conflict=0.05), Options(preset=preset)
    rows = ("random", "none", "kde", "auto")
    return [
        *(grid.Cell("cfmnist-bg", row, biased) for row in (*rows, "oracle")),
        *(grid.Cell("fashion_mnist", row, unbiased) for row in rows),
    ]


GRID = grid.Grid("fashion", cells, down=("dataset",), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
