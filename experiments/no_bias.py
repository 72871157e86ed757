"""What do methods and weights do if there is no bias?

    python -m experiments.no_bias --data-dir DIR

MNIST with DC and DSA checks the methods at the scale of two CPU cores. The quick preset uses 400
networks at one image per class, but only ten networks at ten images, where the sets gain little
over the real images that they start from. MNIST and Fashion-MNIST with DM and weights, and both
with solid background colours (5 % bias-conflicting samples).

Cost: an hour on two cores.
"""

from experiments.tools import grid, markdown, words
from jaxdd.runs.options import make

ROWS = "random", "plain", "density", "auto"


def cells(preset: str) -> list[grid.Cell]:
    """Return weights for DM, and DC and DSA with a random subset."""
    matched = [(method, ipc) for method in ("dc", "dsa") for ipc in (1, 10)]
    biased = make(preset=preset, conflict=0.05)
    return [
        *(grid.Cell("mnist", row, make(preset=preset)) for row in ROWS),
        *(
            grid.Cell("mnist", row, make(method=method, preset=preset, ipc=ipc))
            for method, ipc in matched
            for row in ("random", "plain")
        ),
        *(grid.Cell("fashion_mnist", row, make(preset=preset)) for row in ROWS),
        *(grid.Cell("cfmnist-solid-bg", row, biased) for row in (*ROWS, "oracle")),
        *(grid.Cell("cmnist-bg", row, biased) for row in ("plain", "auto", "oracle")),
    ]


DOWN = ("dataset", "method", "ipc")
GRID = grid.Grid("no_bias", cells, down=DOWN, scores=("accuracy", "conflicting"))


def tables() -> list[list[str]]:
    """Return the table of the probe network check of the auto rows."""
    scores, rows, known = ("overall", "aligned", "conflicting"), [], grid.stored()
    for cell in cells("quick"):
        result = grid.result(cell, known)
        choice = result.choice if result and cell.row == "auto" else None
        trials = [
            (f"{candidate['name']}, {weights}", trial)
            for candidate in (choice or {"candidates": []})["candidates"]
            for weights, trial in candidate["trials"].items()
        ]
        for weights, trial in trials:
            numbers = [f"{100 * trial[score]:.0f}" for score in scores]
            rows.append([f"{words.title(cell.dataset)}, {weights}", *numbers])
    titles = "probe networks, in % (held-out training samples)", "all", *scores[1:]
    return [markdown.table(titles, rows)]


if __name__ == "__main__":
    grid.main(GRID)
