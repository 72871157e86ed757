"""What are weights by views worth where the bias is no colour of the object?

    python -m experiments.by_view --preset quick --data-dir DIR

Corrupted CIFAR-10, CIFAR-10 whose halves are grey or coloured, and Fashion-MNIST on natural
backgrounds, with 5 % bias-conflicting samples at ten images per class, the first by DSA and DC,
too, and the first and the last at fifty images. Auto finds the first two in texture and tone by
itself (`experiments.shortcuts`). Whether the border of an image belongs to the object nobody can
tell who knows no bias label. Ring is what weights are worth to somebody who says that it does not,
and what they cost where it does, on Fashion-MNIST and CIFAR-10 as they are. Four hours on two
cores.
"""

import functools
import itertools

from experiments.tools import grid
from jaxdd.runs.options import make

ROWS = {"ccifar10": "auto", "cifar10-s": "auto", "bgfmnist": "border"}


def cells(preset: str) -> list[grid.Cell]:
    """Plain, by view and by bias labels, for every bias and seed; then the price without one."""
    biased = functools.partial(make, preset=preset, conflict=0.05)
    asked = [
        *((name, biased(seed=seed)) for seed, name in itertools.product(range(3), ROWS)),
        *(("ccifar10", biased(method=method)) for method in ("dsa", "dc")),
        *((name, biased(ipc=50)) for name in ("ccifar10", "bgfmnist")),
    ]
    return [
        grid.Cell(name, row, options)
        for name, options in asked
        for row in ("none", ROWS[name], "oracle")
    ] + [
        grid.Cell(name, row, make(preset=preset))
        for name in ("fashion_mnist", "cifar10")
        for row in ("none", "border")
    ]


GRID = grid.Grid(
    "by_view", cells, down=("dataset", "method", "ipc", "seed"), scores=("accuracy", "conflicting")
)

if __name__ == "__main__":
    grid.main(GRID)
