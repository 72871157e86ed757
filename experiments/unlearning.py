"""The paper's number for unlearning the bias afterwards: 53.7 % at 50 images per class.

    python -m experiments.unlearning --preset quick --data-dir DIR

`experiments.posthoc` at the size of the paper, CMNIST with 5 % bias-conflicting samples: real images
and the plain set, judged by networks that learn from failure or by selective mixup. 30 minutes on two
quiet cores, nearly all to train these networks; `experiments.published` has usual training.

Of the plain set LfF gains 5 points over usual training (29.9 to 35.2 %), SelecMix 8 (38.1 %); a weighted
set has 96 % without either. Neither was tuned.
"""

from experiments import grid
from jaxdd.runs.jobs import Options


def cells(preset: str) -> list[grid.Cell]:
    """Both trainings on real images and on the set distilled without weights."""
    return [
        grid.Cell("cmnist", row, Options(preset=preset, conflict=0.05, ipc=50, training=training))
        for training in ("lff", "selecmix")
        for row in ("random", "none")
    ]


GRID = grid.Grid("unlearning", cells, down=("ipc", "training"), scores=("accuracy", "conflicting"))

if __name__ == "__main__":
    grid.main(GRID)
