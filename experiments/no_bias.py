"""What do the methods and the weights do where there is no bias? MNIST and Fashion-MNIST.

    python -m experiments.no_bias --preset quick --data-dir DIR

DC and DSA on MNIST at 1 and 10 images per class show that the methods themselves work at the scale
of two CPU cores. The literature's numbers (1,000 networks, width 128, 256 real images) are 91.7 and
97.4 % for DC, 88.7 and 97.8 % for DSA. The quick preset has 400 networks at one image per class,
but ten at ten images, which gains little on the real ones that it starts from.

DM comes with weights as well, which should make no difference, and either set beside the same
images with solid background colours (5 % bias-conflicting samples): clothes are harder to tell than
digits, so that weights which remove a bias cost more on the aligned samples, and more samples look
as if they conflicted where nothing does. An hour on two cores.

Weights with fixed defaults favour the unusual samples and cost accuracy, on clothes far more than
on digits; auto keeps uniform ones without a bias and takes weights with it.
"""

from experiments.tools import grid
from jaxdd.runs.options import make

ROWS = "random", "none", "kde", "auto"


def cells(preset: str) -> list[grid.Cell]:
    """Weights for DM, and DC and DSA beside a random subset; without a bias there is no oracle."""
    matched = [(method, ipc) for method in ("dc", "dsa") for ipc in (1, 10)]
    biased = make(preset=preset, conflict=0.05)
    return [
        *(grid.Cell("mnist", row, make(preset=preset)) for row in ROWS),
        *(
            grid.Cell("mnist", row, make(method=method, preset=preset, ipc=ipc))
            for method, ipc in matched
            for row in ("random", "none")
        ),
        *(grid.Cell("fashion_mnist", row, make(preset=preset)) for row in ROWS),
        *(grid.Cell("cfmnist-bg", row, biased) for row in (*ROWS, "oracle")),
        *(grid.Cell("cmnist-bg", row, biased) for row in ("none", "auto", "oracle")),
    ]


GRID = grid.Grid(
    "no_bias", cells, down=("dataset", "method", "ipc"), scores=("accuracy", "conflicting")
)

if __name__ == "__main__":
    grid.main(GRID)
