"""Why are bandwidth and temperature what they are, and how much depends on them?

    python -m experiments.bandwidth --preset quick --data-dir DIR

First what the weights do. It embeds each training set in `SWEPT` once and writes, for every
bandwidth factor and temperature, the AUC with which low density finds the conflicting samples, the
share of the weight that they get, the balance of the bias groups (1 is uniform) and the effective
sample size per class, with heat maps of share and balance. The attributes are read, so judge on a
data set that is not the one you report: the defaults come from `cfmnist`.

Then what the sets are worth that are distilled with them: coloured MNIST with 5 % bias-conflicting
samples at ten images per class. A bandwidth is a factor of half the mean squared distance in the
class, a temperature the τ of weights that are a density to the power of -1/τ. The test set must not
choose among these cells. A minute for each map and 20 minutes for the cells on two cores.

On cfmnist the defaults are as balanced as the best of the map, or nearly so. They cannot help where
density does not see the bias, as among natural backgrounds; among corruptions it sees it in part.
The bandwidth of the distilled sets hardly matters over a factor of sixteen, the temperature does.
"""

import dataclasses
import functools
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tools import grid
from jaxdd import kde, reweight
from jaxdd.data import files
from jaxdd.runs import jobs, pipeline, plot, weighing
from jaxdd.runs.options import make

SWEPT = "cfmnist", "ccifar10", "bgfmnist"
FACTORS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
TEMPERATURES = (0.35, 0.5, 0.7, 1.0, 1.5, 2.0)


def sweep(job: jobs.Job) -> list[dict[str, Any]]:
    """Diagnostics of the weights for every factor and temperature."""
    benchmark = job.benchmark
    labels = jnp.asarray(benchmark.train.labels)
    attributes, aligned = jnp.asarray(benchmark.train.attributes), jnp.asarray(benchmark.aligned)
    classes = benchmark.num_classes
    embeddings = weighing.weigh(job).embeddings
    unit = kde.class_bandwidth(
        lambda points, weights: kde.mean_distance(points, weights=weights, factor=1.0),
        embeddings,
        labels,
        num_classes=classes,
    )

    density = jax.jit(functools.partial(kde.class_log_density, num_classes=classes))

    @jax.jit
    def diagnose(log_density, temperature, labels, attributes):
        weights = reweight.inverse_density(
            log_density, labels, num_classes=classes, temperature=temperature
        )
        return reweight.diagnose(
            weights,
            labels,
            attributes,
            aligned,
            num_classes=classes,
            num_attributes=benchmark.num_attributes,
        )

    densities = {factor: density(embeddings, labels, unit * factor**0.5) for factor in FACTORS}
    found = lambda factor, temperature: diagnose(densities[factor], temperature, labels, attributes)
    return [
        {"factor": factor, "temperature": temperature}
        | {k: float(v) for k, v in found(factor, temperature)._asdict().items()}
        for factor, temperature in itertools.product(FACTORS, TEMPERATURES)
    ]


def maps(data_dir: pathlib.Path | None) -> None:
    """Writes what the weights do with every data set in `SWEPT` that has no file yet."""
    options = make()
    for dataset in SWEPT:
        out = grid.RESULTS / f"bandwidth-{dataset}.json"
        if out.exists():
            continue
        job = jobs.prepare(jobs.load(dataset, options, data_dir=data_dir), options)
        table = sweep(job)
        row = {**pipeline.circumstances(), "config": dataclasses.asdict(job.options)}
        row["config"]["dataset"] = dataset
        files.write_json(out, {"rows": {"defaults": row}, "table": table})
        draw(out.with_suffix(".png"), table)


def draw(path: pathlib.Path, table: list[dict[str, Any]]) -> None:
    """Draws heat maps of what `sweep` returned."""
    titles = {
        "conflict_mass": "Weight on the conflicting samples",
        "group_balance": "Balance of the bias groups",
    }
    shape = len(FACTORS), len(TEMPERATURES)
    plot.heat_maps(
        path,
        {title: np.reshape([row[name] for row in table], shape) for name, title in titles.items()},
        rows={"bandwidth factor": FACTORS},
        columns={"temperature τ": TEMPERATURES},
    )


def cells(preset: str) -> list[grid.Cell]:
    """Three bandwidths by three temperatures on two cores, five by five on a GPU."""
    few = preset == "quick"
    bandwidths = (0.05, 0.2, 0.8) if few else (0.05, 0.1, 0.2, 0.4, 0.8)
    temperatures = (0.5, 1.0, 2.0) if few else (0.35, 0.5, 1.0, 1.5, 2.0)
    return [
        grid.Cell(
            "cmnist",
            "kde",
            make(preset=preset, conflict=0.05, bandwidth=bandwidth, temperature=temperature),
        )
        for bandwidth, temperature in itertools.product(bandwidths, temperatures)
    ]


GRID = grid.Grid(
    "bandwidth",
    cells,
    down=("bandwidth",),
    scores=("accuracy", "conflicting"),
    across="temperature",
    besides=maps,
)

if __name__ == "__main__":
    grid.main(GRID)
