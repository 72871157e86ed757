"""What the methods and the weights do where there is no bias: MNIST at 1 and 10 images per class.

    python -m experiments.unbiased --preset quick --data-dir DIR

Shows that the methods themselves work at the scale of two CPU cores. The literature's numbers (1,000
networks, width 128, 256 real images) are 91.7 and 97.4 % for DC, 88.7 and 97.8 % for DSA. The quick
preset has 400 networks at one image per class, but ten at ten images, which gains little on the real
ones that it starts from.

Distribution matching comes with weights as well: those with fixed defaults favour the unusual digits
and cost accuracy, those of auto should notice that there is nothing to balance.
"""

from experiments import grid
from jaxdd.runs.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """DC and DSA beside a random subset, and DM with weights that should make no difference."""
    rows = {("dm", 10): ("random", "none", "kde", "auto")}
    rows |= {(method, ipc): ("random", "none") for method in ("dc", "dsa") for ipc in (1, 10)}
    return [
        grid.Cell("mnist", row, Options(method=method, preset=preset, ipc=ipc))
        for (method, ipc), names in rows.items()
        for row in names
    ]


GRID = grid.Grid("unbiased", cells, down=("method", "ipc"))

if __name__ == "__main__":
    grid.main(GRID)
