"""What a distilled set is worth for each bandwidth and temperature.

    python -m experiments.kernel --preset quick --data-dir DIR

Coloured MNIST with 5 % bias-conflicting samples at ten images per class. A bandwidth is a factor
of half the mean squared distance in the class, a temperature the τ of weights that are a density to the
power of -1/τ. `experiments.defaults` has the weights alone, for more values of both. The test set
must not choose among these cells: the defaults come from cfmnist. 20 minutes on two cores.

The bandwidth hardly matters over a factor of sixteen (91.4 to 92.9 % at τ = 1), the temperature
does: 78 to 89 % at τ = .5, 51 to 62 % at τ = 2.
"""

import itertools

from experiments import grid
from jaxdd.runs.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """Three bandwidths by three temperatures on two cores, five by five on a GPU."""
    few = preset == "quick"
    bandwidths = (0.05, 0.2, 0.8) if few else (0.05, 0.1, 0.2, 0.4, 0.8)
    temperatures = (0.5, 1.0, 2.0) if few else (0.35, 0.5, 1.0, 1.5, 2.0)
    return [
        grid.Cell(
            "cmnist",
            "kde",
            Options(preset=preset, conflict=0.05, bandwidth=bandwidth, temperature=temperature),
        )
        for bandwidth, temperature in itertools.product(bandwidths, temperatures)
    ]


GRID = grid.Grid(
    "kernel", cells, down=("bandwidth",), scores=("accuracy", "conflicting"), across="temperature"
)

if __name__ == "__main__":
    grid.main(GRID)
