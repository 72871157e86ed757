"""Weights made by hand, compared with plain distillation and the library's.

Run it by `python -m experiments.examples.own_weights`.
"""

import numpy as np

from jaxdd.data import benchmarks, datasets
from jaxdd.runs import options, pipeline


def far_from_the_usual_colour(data: datasets.Dataset) -> np.ndarray:
    """Weighs by the squared distance of an image's colour from the usual one of its class."""
    strength = data.images.astype(float).sum((1, 2))
    colours = strength / strength.sum(1, keepdims=True)
    weights = np.empty(len(colours))
    for label in np.unique(data.labels):
        members = data.labels == label
        away = colours[members] - np.median(colours[members], axis=0)
        weights[members] = (away**2).sum(1) + 1e-6
    return weights


def main(
    folder: str = "own-weights", *, rows: tuple[str, ...] = ("none", "kde"), **given: int
) -> dict[str, dict]:
    """Compares coloured digits distilled by `rows` and by the weights; `given` are options."""
    data = benchmarks.load("cdigits", conflict=0.1)
    weights = far_from_the_usual_colour(data.train)
    found = pipeline.compare(data, folder, options.DM(**given), rows=rows, weights=weights)
    return found["rows"]


if __name__ == "__main__":
    for name, row in main().items():
        mass = row["weights"]["conflict_weight_share"]
        print(f"{name:<8} accuracy {row['accuracy']['mean']:.3f}, weight on conflict {mass:.2f}")
