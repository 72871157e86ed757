"""Handmade weights, compared with plain distillation and density weights.

python -m experiments.examples.own_weights
"""

import numpy as np

from jaxdd.data import benchmarks, datasets
from jaxdd.runs import options, pipeline, results


def distance_from_usual_colour(data: datasets.Dataset) -> np.ndarray:
    """Return the squared distance of each image's colour from the median of its class."""
    strength = data.images.astype(float).sum((1, 2))
    colours = strength / strength.sum(1, keepdims=True)
    weights = np.empty(len(colours))
    for label in np.unique(data.labels):
        members = data.labels == label
        distance = colours[members] - np.median(colours[members], axis=0)
        weights[members] = (distance**2).sum(1) + 1e-6
    return weights


def main(
    folder: str = "own-weights", *, rows: tuple[str, ...] = ("plain", "density"), **fields: int
) -> dict[str, results.Result]:
    """Compare coloured digits distilled by `rows` and by the weights; `fields` are options."""
    data = benchmarks.load("cdigits", conflict=0.1)
    weights = distance_from_usual_colour(data.train)
    return pipeline.compare(data, folder, options.DM(**fields), rows=rows, weights=weights)


if __name__ == "__main__":
    for name, row in main().items():
        share = row.weights["conflict_weight_share"]
        print(f"{name:<8} accuracy {row.accuracy.mean:.3f}, conflict weight share {share:.2f}")
