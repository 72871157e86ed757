"""What bfloat16 inside the networks costs in accuracy.

    python -m experiments.precision --preset quick

The digits that come with scikit-learn, coloured, 10 % bias-conflicting samples, ten images per
class: distilled and evaluated with float32 and with bfloat16 arithmetic (parameters, images, sums
and densities stay float32). Nothing needs to be downloaded; seven minutes on two cores. bfloat16 is
for accelerators; on a CPU it is emulated and slower.

It costs nothing that three networks could show.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Both types with plain, density-weighted and oracle-weighted distillation."""
    return [
        grid.Cell("cdigits", row, make(preset=preset, conflict=0.1, dtype=dtype))
        for dtype in ("float32", "bfloat16")
        for row in ("random", "none", "kde", "oracle")
    ]


GRID = grid.Grid("precision", cells, down=("dtype",))

if __name__ == "__main__":
    grid.main(GRID)
