"""Do density weights help every family of methods? DM, DC, DSA, MTT, and DM by DREAM and IDC.

    python -m experiments.methods --preset quick --data-dir DIR

Each of them distils coloured MNIST with 5 % bias-conflicting samples to ten images per class, with
uniform weights, density weights, auto, and weights made from the bias labels; those of MTT, which
the paper leaves open, train its experts. DREAM is DM with batches of cluster centres among 512
images of a class (candidates), IDC is DM whose images hold four smaller ones each (formation). An
hour and a half on two quiet cores.

Without weights DM, DC and DSA fall below the random subset of this seed on conflicting samples
(those of other seeds in `experiments.seeds` are lower), and MTT stays there. With density weights
each comes close to the oracle. DC and DSA with the quick preset's ten networks add less to the
weighted subset that they start from than DM does.
"""

from experiments.tools import grid
from jaxdd.runs.options import make

WAYS = (
    *({"method": method} for method in ("dm", "dc", "dsa", "mtt")),
    {"candidates": 512},
    {"formation": 2},
)


def cells(preset: str) -> list[grid.Cell]:
    """Every method with every kind of weights, and the real images to compare with once."""
    plain = make(preset=preset, conflict=0.05)
    return [
        *(grid.Cell("cmnist", row, plain) for row in ("random", "random-kde")),
        *(
            grid.Cell("cmnist", row, make(preset=preset, conflict=0.05, **way))
            for way in WAYS
            for row in ("none", "kde", "auto", "oracle")
        ),
    ]


GRID = grid.Grid(
    "methods",
    cells,
    down=("method", "candidates", "formation"),
    scores=("accuracy", "conflicting"),
)

if __name__ == "__main__":
    grid.main(GRID)
