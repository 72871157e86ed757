"""Density weights in every family of methods: distribution, gradient and trajectory matching.

    python -m experiments.methods --preset quick --data-dir DIR

The paper weighs DM and DSA and leaves the other families open. Here each of DM, DC, DSA and MTT
distils coloured MNIST with 5 % bias-conflicting samples to ten images per class, with uniform
weights, density weights, and weights made from the bias labels. The weights of MTT train its
experts. The quick preset takes about 40 minutes on two cores.

Without weights DM, DC and DSA fall two to four points below the random subset on conflicting
samples and MTT stays where it is: they amplify the bias or keep it. With weights all of them are
far above; DC and DSA with the quick preset's ten networks add less to the weighted subset that they
start from than DM does.
"""

from experiments import grid
from jaxdd.jobs import Options

METHODS = ("dm", "dc", "dsa", "mtt")


def cells(preset: str) -> list[grid.Cell]:
    """Every method with every kind of weights, and the real images to compare with once."""
    return [
        grid.Cell("cmnist", row, Options(method=method, preset=preset, conflict=0.05))
        for method in METHODS for row in ("random", "random-kde", "none", "kde", "oracle")
        if method == "dm" or not row.startswith("random")
    ]


GRID = grid.Grid("methods", cells, down=("method",), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
