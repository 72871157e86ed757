"""Do density weights help every family of methods? DM, DC, DSA, and MTT.

    python -m experiments.methods --preset quick --data-dir DIR

Each of them distils coloured MNIST with 5 % bias-conflicting samples to ten images per class, with
uniform weights, density weights, and weights made from the bias labels; those of MTT,
which the paper leaves open, train its experts. An hour on two quiet cores.

Without weights DM, DC and DSA fall below the random subset of this seed on conflicting samples
(those of other seeds in `experiments.seeds` are lower), and MTT stays there. With density weights
each comes close to the oracle. DC and DSA with the quick preset's ten networks add less to the
weighted subset that they start from than DM does.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Every method with every kind of weights, and the real images to compare with once."""
    return [
        grid.Cell("cmnist", row, make(method=method, preset=preset, conflict=0.05))
        for method in ("dm", "dc", "dsa", "mtt")
        for row in ("random", "random-kde", "none", "kde", "oracle")
        if method == "dm" or not row.startswith("random")
    ]


GRID = grid.Grid("methods", cells, down=("method",), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
