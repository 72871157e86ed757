"""How were bandwidth and temperature chosen, and how much depends on them?

    python -m experiments.bandwidth --data-dir DIR

First, diagnostics of the weights: each training set in `DATASETS` is embedded once, and the weights
of every bandwidth factor and temperature are diagnosed (AUC of low density for bias-conflicting
samples, conflict weight share, group evenness, effective sample size). This uses the bias labels,
so the defaults were chosen on cfmnist, which is not used for evaluation.

Second, accuracies of sets distilled with the weights: coloured MNIST, 5 % bias-conflicting samples,
ten images per class. The bandwidth is a factor of half the mean squared distance in the class;
weights are density^(-1/temperature). Test accuracies must not be used to choose among these cells.

Cost: a minute per map, and 20 minutes for the cells on two cores.
"""

import functools
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from experiments.tools import grid, markdown, record
from jaxdd import kde, weights
from jaxdd.data import datasets, files
from jaxdd.runs import components, weightings
from jaxdd.runs.options import DM, make
from jaxdd.weights import formulas

DATASETS = "cfmnist", "ccifar10", "bgfmnist"
FACTORS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
TEMPERATURES = (0.35, 0.5, 0.7, 1.0, 1.5, 2.0)


def sweep(data: datasets.Benchmark, options: DM) -> list[dict[str, Any]]:
    """Return the diagnostics of the weights for every factor and temperature."""
    pool = datasets.pool(data)
    encoded = weights.encode(
        components.key(options, "encoder"),
        pool,
        strategy=data.strategy,
        steps=options.encoder_steps,
        **weightings.encoding(options, pool),
    )
    labels = pool.labels, jnp.asarray(data.train.attributes), jnp.asarray(data.aligned)
    sizes = dict(num_classes=data.num_classes, num_attributes=data.num_attributes)

    @jax.jit
    def diagnose(log_density, temperature, pool):
        by_density = weights.from_density(log_density, pool, temperature=temperature)
        return formulas.diagnose(by_density, *labels, **sizes)._asdict()

    # All share the embeddings, and all temperatures of a bandwidth share the density.
    rows = []
    for factor in FACTORS:
        rule = functools.partial(kde.mean_distance, factor=factor)
        log_density = weights.density(encoded.embeddings, pool, bandwidth=rule).log_density
        for temperature in TEMPERATURES:
            scores = jax.tree.map(float, diagnose(log_density, temperature, pool))
            rows.append({"factor": factor, "temperature": temperature, **scores})
    return rows


def maps(data_dir: pathlib.Path | None) -> None:
    """Write the diagnostics of every data set in `DATASETS` that has no file yet."""
    options = make()
    for dataset in DATASETS:
        out = grid.RESULTS / f"bandwidth-{dataset}.json"
        if not out.exists():
            table = sweep(grid.load(dataset, options, data_dir=data_dir), options)
            config = grid.configuration(grid.Cell(dataset, "density", options))
            files.write_json(out, record.circumstances() | {"config": config, "table": table})


def tables() -> list[list[str]]:
    """Return the table of diagnostics at the defaults and at the best values."""
    rows = []
    for path in sorted(grid.RESULTS.glob("bandwidth-*.json")):
        table = files.read_json(path)["table"]
        (own,) = [row for row in table if (row["factor"], row["temperature"]) == (kde.FACTOR, 1.0)]
        best = [max(row[score] for row in table) for score in ("conflict_auc", "group_evenness")]
        numbers = best[0], own["group_evenness"], best[1]
        name = markdown.link(path.stem.removeprefix("bandwidth-"), path)
        rows.append([name, *(f"{number:.3f}" for number in numbers)])
    titles = "AUC, best bandwidth", "group evenness, default", "group evenness, best"
    return [markdown.table(["data set", *titles], rows)]


def cells(preset: str) -> list[grid.Cell]:
    """Return cells of 3 bandwidths × 3 temperatures on two cores, 5 × 5 on a GPU."""
    few = preset == "quick"
    bandwidths = (0.05, 0.2, 0.8) if few else (0.05, 0.1, 0.2, 0.4, 0.8)
    temperatures = (0.5, 1.0, 2.0) if few else (0.35, 0.5, 1.0, 1.5, 2.0)
    biased = functools.partial(make, preset=preset, conflict=0.05)
    return [
        grid.Cell("cmnist", "density", biased(bandwidth=bandwidth, temperature=temperature))
        for bandwidth, temperature in itertools.product(bandwidths, temperatures)
    ]


GRID = grid.Grid(
    "bandwidth",
    cells,
    down=("bandwidth",),
    scores=("accuracy", "conflicting"),
    across="temperature",
    extra=maps,
)

if __name__ == "__main__":
    grid.main(GRID)
