"""Density weights in trajectory matching, which the paper leaves open.

    python -m experiments.trajectories --preset quick --data-dir DIR

MTT distils coloured MNIST with 5 % bias-conflicting samples to ten images per class; uniform weights,
density weights, or weights made from the bias labels train its experts. 25 minutes on two cores.

Without weights the set is as good on conflicting samples as a random subset, where those of DM, DC
and DSA are worse (`experiments.methods`); with density weights it comes within a point of the oracle.
"""

from experiments import grid
from jaxdd.runs.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """Every kind of weights."""
    options = Options(method="mtt", preset=preset, conflict=0.05)
    return [grid.Cell("cmnist", row, options) for row in ("none", "kde", "oracle")]


GRID = grid.Grid("trajectories", cells, down=("method",), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
