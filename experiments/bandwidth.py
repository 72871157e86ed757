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
from jaxdd import kde, weights
from jaxdd.data import datasets, files
from jaxdd.runs import components
from jaxdd.runs import old_results as results
from jaxdd.runs.options import Options, make
from jaxdd.runs.reports import plot
from jaxdd.weights import formulas

SWEPT = "cfmnist", "ccifar10", "bgfmnist"
FACTORS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
TEMPERATURES = (0.35, 0.5, 0.7, 1.0, 1.5, 2.0)


def sweep(data: datasets.Benchmark, options: Options) -> list[dict[str, Any]]:
    """Diagnostics of the weights for every factor and temperature."""
    pool = datasets.pool(data)
    encoded = weights.encode(
        components.key(options, "encoder"),
        pool,
        strategy=data.strategy,
        encoder=weights.default_encoder(pool, width=options.encoder_width, depth=options.depth),
        steps=options.encoder_steps,
        layer=options.embedding,
    )
    diagnose = functools.partial(
        formulas.diagnose, num_classes=data.num_classes, num_attributes=data.num_attributes
    )
    known = jnp.asarray(data.train.attributes), jnp.asarray(data.aligned)

    @jax.jit
    def diagnosed(log_density, temperature, pool):
        found = weights.from_density(log_density, pool, temperature=temperature)
        return diagnose(found, pool.labels, *known)._asdict()

    rows = []
    for factor in FACTORS:
        rule = functools.partial(kde.mean_distance, factor=factor)
        found = weights.density(encoded.embeddings, pool, bandwidth=rule)
        for temperature in TEMPERATURES:
            scores = diagnosed(found.log_density, temperature, pool)
            numbers = {name: float(score) for name, score in scores.items()}
            rows.append({"factor": factor, "temperature": temperature, **numbers})
    return rows


def maps(data_dir: pathlib.Path | None) -> None:
    """Writes what the weights do with every data set in `SWEPT` that has no file yet."""
    options = make()
    for dataset in SWEPT:
        out = grid.RESULTS / f"bandwidth-{dataset}.json"
        if out.exists():
            continue
        table = sweep(grid.load(dataset, options, data_dir=data_dir), options)
        config = {"dataset": dataset, **dataclasses.asdict(options)}
        row = {**results.circumstances(), "config": config}
        files.write_json(out, {"rows": {"defaults": row}, "table": table})
        draw(out.with_suffix(".png"), table)


def draw(path: pathlib.Path, table: list[dict[str, Any]]) -> None:
    """Draws heat maps of what `sweep` returned."""
    titles = {
        "conflict_weight_share": "Weight on the conflicting samples",
        "group_evenness": "Balance of the bias groups",
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
