"""Can a network unlearn the bias of a set that was distilled without weights?

    python -m experiments.unlearning --data-dir DIR

Coloured MNIST, 5 % bias-conflicting samples. The evaluation networks are trained in the standard
way, by learning from failure (lff) and by selective mixup (selecmix), without tuning: at ten images
per class on every kind of weights, at fifty on real images and the plain set.

Cost: an hour on two cores, nearly all of it for the training of these networks.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Return each training on real images and on sets with each kind of weights."""
    return [
        grid.Cell("cmnist", row, make(preset=preset, conflict=0.05, ipc=ipc, training=training))
        for ipc in (10, 50)
        for training in ("standard", "lff", "selecmix")
        for row in ("random", "plain", "density", "oracle")
        if ipc == 10 or training == "standard" or row in ("random", "plain")
    ]


GRID = grid.Grid("unlearning", cells, down=("ipc", "training"), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
