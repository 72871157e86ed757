"""Does bfloat16 inside the networks cost accuracy?

    python -m experiments.precision

Coloured scikit-learn digits, 10 % bias-conflicting samples, ten images per class, distilled and
evaluated with float32 and with bfloat16 arithmetic. Parameters, images, sums and densities stay
float32. No download. bfloat16 is meant for accelerators; a CPU emulates it and is slower.

Cost: seven minutes on two cores.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Return both types with plain, density-weighted and oracle-weighted distillation."""
    return [
        grid.Cell("cdigits", row, make(preset=preset, conflict=0.1, dtype=dtype))
        for dtype in ("float32", "bfloat16")
        for row in ("random", "plain", "density", "oracle")
    ]


GRID = grid.Grid("precision", cells, down=("dtype",))

if __name__ == "__main__":
    grid.main(GRID)
