"""Do weights by object-blind features help if the bias is not a colour of the object?

    python -m experiments.by_features --data-dir DIR

5 % bias-conflicting samples. Whether the border of an image belongs to the object cannot be
determined without bias labels. The row border shows the gain of weights if the user declares that
it does not. Unbiased Fashion-MNIST and CIFAR-10 show the cost if it does.

Cost: four hours on two cores.
"""

import functools
import itertools

from experiments.tools import gains, grid, markdown, words
from jaxdd.runs.options import make

ROWS = {"ccifar10": "auto", "cifar10-s": "auto", "bgfmnist": "border"}


def cells(preset: str) -> list[grid.Cell]:
    """Return cells of plain, by features and oracle for every bias and seed, then unbiased data."""
    biased = functools.partial(make, preset=preset, conflict=0.05)
    settings = [
        *((name, biased(seed=seed)) for seed, name in itertools.product(range(3), ROWS)),
        *(("ccifar10", biased(method=method)) for method in ("dsa", "dc")),
        *((name, biased(ipc=50)) for name in ("ccifar10", "bgfmnist")),
    ]
    return [
        grid.Cell(name, row, options)
        for name, options in settings
        for row in ("plain", ROWS[name], "oracle")
    ] + [
        grid.Cell(name, row, make(preset=preset))
        for name in ("fashion_mnist", "cifar10")
        for row in ("plain", "border")
    ]


DOWN = ("dataset", "method", "ipc", "seed")
GRID = grid.Grid("by_features", cells, down=DOWN, scores=("accuracy", "conflicting"))


def tables() -> list[list[str]]:
    """Return the table of gains, means over seeds, and that of the cost without a bias."""
    known, by_setting, costs = grid.stored(), {}, []
    for cell in cells("quick"):
        if cell.row == "oracle":
            row = ROWS[cell.dataset]
            scale = f"{cell.options.method.upper()}, {cell.options.ipc} images per class"
            label = f"{words.title(cell.dataset)}, {scale}, `{row}`"
            by_setting.setdefault(label, []).append(gains.of_cell(known, cell, row))
        elif cell.row == "border" and cell.dataset not in ROWS:
            change = gains.of_cell(known, cell, "border").change
            costs.append([words.title(cell.dataset), gains.points(change)])
    titles = "`border` without a bias", "change in points (all test samples)"
    return [gains.table(by_setting.items()), markdown.table(titles, costs)]


if __name__ == "__main__":
    grid.main(GRID)
