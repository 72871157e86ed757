"""Which biases does distillation amplify?

    python -m experiments.amplification --preset quick --data-dir DIR

The paper says colour and background, and that corruption is suppressed. Here a bias counts as
amplified where a network does worse on conflicting samples after training on the distilled set
(none) than after training on as many real images drawn uniformly (random): both see the same number
of images of the same data. Ten images per class, 5 % bias-conflicting samples; 25 minutes on two
quiet cores.

Colour is amplified, corruption is not. Whether natural backgrounds are depends on how many there
are: where every image has one of its own (bgfmnist) they are not, where each class has a few that
recur (bgfmnist-few) they are. The paper has them amplified, by a recipe that is not public. Where
the bias is no colour density weights do not pay. Auto finds corruptions in the texture and keeps
uniform weights against many backgrounds, where the oracle would gain; `experiments.recognition`
measures how well either bias can be seen.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Colour, background and corruption; few scenes beside many."""
    biased = make(preset=preset, conflict=0.05)
    rows = ("random", "random-kde", "none", "kde", "auto", "oracle")
    asked = [(name, row) for name in ("cmnist", "bgfmnist", "ccifar10") for row in rows]
    asked += [("bgfmnist-few", row) for row in ("random", "none", "oracle")]
    return [grid.Cell(name, row, biased) for name, row in asked]


GRID = grid.Grid("amplification", cells, down=("dataset",), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
