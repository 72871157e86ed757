"""Do density weights remove the bias, also when bias-conflicting samples are rare?

    python -m experiments.main_table --data-dir DIR

Coloured MNIST; the paper preset also has 2 and 1 % bias-conflicting samples at fifty images per
class. Transfer of the density set to other networks is in results/transfer-cmnist.json:

    jaxdd evaluate RUN --networks convnet mlp lenet alexnet vgg11 resnet18

Cost: an hour on two cores.
"""

from experiments.tools import grid, markdown, record
from jaxdd.runs import results
from jaxdd.runs.options import make

ROWS = ("random", "random-density", "plain", "density", "auto", "oracle", "fairdd")


def cells(preset: str) -> list[grid.Cell]:
    """Return every way to make a set for each size and conflict share."""
    shares = (0.05, 0.02, 0.01)
    at_fifty = shares[:1] if preset == "quick" else shares
    sizes = [*((10, share) for share in shares), *((50, share) for share in at_fifty)]
    return [
        grid.Cell("cmnist", row, make(preset=preset, conflict=conflict, ipc=ipc))
        for ipc, conflict in sizes
        for row in ROWS
    ] + [
        grid.Cell("cmnist", row, make(preset=preset, conflict=0.005))
        for row in ("plain", "density", "auto", "oracle")
    ]


GRID = grid.Grid("main_table", cells, down=("ipc", "conflict"))


def tables() -> list[list[str]]:
    """Return the table of the transfer to other networks."""
    path, scores = record.RESULTS / "transfer-cmnist.json", ("accuracy", "conflicting")
    sets = ("random", "synthetic")
    titles = [f"{name}, {results.SCORES[score]}" for name in sets for score in scores]
    rows = [
        [
            network,
            *(record.percent(row[name][score]) for name in sets for score in scores),
            str(row["eval_seeds"]),
            str(row["epochs"]),
        ]
        for network, row in record.measured(path).items()
    ]
    titles = [markdown.link("evaluated with", path), *titles, "n", "epochs"]
    return [markdown.table(titles, rows)]


if __name__ == "__main__":
    grid.main(GRID)
