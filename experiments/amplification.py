"""Which biases does distillation amplify?

    python -m experiments.amplification --data-dir DIR

The paper says that colour and background are amplified, and corruption is suppressed. Here a bias
counts as amplified if networks do worse on bias-conflicting test samples after training on the
distilled set (plain) than on as many uniformly drawn real images (random). Ten images per class, 5
% bias-conflicting samples.

Cost: 25 minutes on two cores.
Result: colour is amplified, corruption is not. Natural backgrounds are amplified if each class has
a few backgrounds (bgfmnist-few), but not if every image has its own (bgfmnist). The paper reports
that they are amplified; its recipe is not public. If the bias is not a colour, density weights do
not help. Auto detects corruptions by texture. With many backgrounds, where the oracle gains, it
keeps uniform weights. `experiments.recognition` measures how visible these biases are.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Return cells of colour, background, corruption with all rows, few backgrounds with some."""
    biased = make(preset=preset, conflict=0.05)
    rows = ("random", "random-density", "plain", "density", "auto", "oracle")
    pairs = [(name, row) for name in ("cmnist", "bgfmnist", "ccifar10") for row in rows]
    pairs += [("bgfmnist-few", row) for row in ("random", "plain", "oracle")]
    return [grid.Cell(name, row, biased) for name, row in pairs]


GRID = grid.Grid("amplification", cells, down=("dataset",), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
