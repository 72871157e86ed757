"""Is what 200 steps say still true after 20,000, the literature's number?

    python -m experiments.long --preset quick --data-dir DIR

Coloured MNIST, 5 % bias-conflicting samples, ten images per class, ConvNets of width 32; 64 real
images per class and step instead of the other experiments' 128, which halves the time. Synthetic
sets begin as real images, and after 200 steps they nearly are these: whether distillation amplifies
a bias, and whether weights undo that, has to be seen where they have been left behind. An hour and
a quarter for each of the long cells on one core; a stopped one goes on.
"""

from experiments.tools import grid
from jaxdd.runs.options import make

STEPS = (200, 1000, 20_000)


def cells(preset: str) -> list[grid.Cell]:
    """The same sets after so many steps, with scores on the way to the last."""
    options = [
        make(
            preset=preset,
            conflict=0.05,
            batch_size=64,
            steps=steps,
            score_every=4000 if steps == STEPS[-1] else None,
        )
        for steps in STEPS
    ]
    rows = ("none", "auto", "oracle", "kde")
    return [grid.Cell("cmnist", row, each) for row in rows for each in options]


GRID = grid.Grid(
    "long", cells, down=("ipc", "row"), scores=("accuracy", "conflicting"), across="steps"
)

if __name__ == "__main__":
    grid.main(GRID)
