"""The paper's main table, DSA on the data sets whose bias is no colour.

    python -m experiments.siamese --preset quick --data-dir DIR

Fashion-MNIST in front of natural images and Corrupted CIFAR-10; the rest of the table is
`experiments.reproduction`, whose rows of DM have the random subsets as well. About 25 minutes on two
cores.

As with DM at one image per class, density weights cost accuracy on both.
"""

from experiments import grid, reproduction


def cells(preset: str) -> list[grid.Cell]:
    """Both data sets by DSA."""
    return reproduction.main_table(preset, [("dsa", "bgfmnist"), ("dsa", "ccifar10")])


GRID = grid.Grid("siamese", cells, down=reproduction.GRID.down, scores=reproduction.GRID.scores)

if __name__ == "__main__":
    grid.main(GRID)
