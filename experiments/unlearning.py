"""Can a network unlearn the bias of a set that was distilled without weights?

    python -m experiments.unlearning --preset quick --data-dir DIR

The paper: in part. At 50 images per class of coloured MNIST with 5 % bias-conflicting samples the
best of several trainings has 53.7 % on a plain set, where usual training has 23.8 % and a weighted
set 91.5 %. Here the networks that judge a set are trained as usual, by learning from failure, and
by selective mixup, none of them tuned: at ten images per class on each kind of weights, at fifty on
real images and the plain set. An hour on two cores, nearly all to train these networks.

At ten images per class they do not unlearn it; at fifty both unlearn a part, as the paper says, and
neither comes near what weights reach. On weighted sets, where nothing is left to unlearn, both cost
a little.
"""

from experiments.tools import grid
from jaxdd.runs.options import make


def cells(preset: str) -> list[grid.Cell]:
    """Each training of the judges on real images and on sets with each kind of weights."""
    return [
        grid.Cell("cmnist", row, make(preset=preset, conflict=0.05, ipc=ipc, training=training))
        for ipc in (10, 50)
        for training in ("standard", "lff", "selecmix")
        for row in ("random", "none", "kde", "oracle")
        if ipc == 10 or training == "standard" or row in ("random", "none")
    ]


GRID = grid.Grid("unlearning", cells, down=("ipc", "training"), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
