"""Can a network unlearn the bias of a set that was distilled without weights?

    python -m experiments.posthoc --preset quick --data-dir DIR

The paper: in part. At 50 images per class of coloured MNIST the best of several trainings has 53.7
% on a plain set, where usual training has 23.8 % and a weighted set 91.5 %. Here the networks that
judge a set are trained as usual, by learning from failure, and by selective mixup; CMNIST with 5 %
bias-conflicting samples, ten images per class, each kind of weights. 25 minutes on two cores;
`experiments.unlearning` has the paper's size, where they unlearn a part of it.

At ten images per class, untuned, they do not: 19.0 % as usual, 19.4 and 19.8 % with either, about as
far apart as networks differ. On weighted sets, where nothing is left to unlearn, both cost about a
point.
"""

from experiments import grid
from jaxdd.runs.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """Each training of the judges on real images and on sets with each kind of weights."""
    return [
        grid.Cell("cmnist", row, Options(preset=preset, conflict=0.05, training=training))
        for training in ("plain", "lff", "selecmix")
        for row in ("random", "none", "kde", "oracle")
    ]


GRID = grid.Grid("posthoc", cells, down=("training",), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
