"""What the weights do for each bandwidth and temperature: why the defaults are what they are.

    python -m experiments.defaults cfmnist --data-dir DIR --out experiments/results/defaults.json

Embeds the training set once and prints, for every bandwidth factor and temperature, the AUC with
which low density finds the conflicting samples, the share of the weight that they get, the balance
of the bias groups (1 is uniform) and the effective sample size per class. About a minute for the
60,000 images of a benchmark on two cores. The attributes are read, so judge on a data set that is
not the one you report: the defaults come from `cfmnist`.
"""

import dataclasses
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from jaxdd import benchmarks, jobs, kde, pipeline, reweight, store, weighing

FACTORS = (0.05, 0.1, 0.2, 0.4)
TEMPERATURES = (0.35, 0.5, 1.0, 2.0)


def sweep(job: jobs.Job) -> list[dict[str, Any]]:
    """Diagnostics of the weights for every factor and temperature."""
    benchmark = job.benchmark
    labels = jnp.asarray(benchmark.train.labels)
    attributes, aligned = jnp.asarray(benchmark.train.attributes), jnp.asarray(benchmark.aligned)
    classes = benchmark.num_classes
    embeddings = weighing.weigh(job).embeddings
    unit = kde.class_bandwidth(
        lambda points, weights: kde.mean_distance(points, weights=weights, factor=1.0),
        embeddings, labels, num_classes=classes,
    )

    @jax.jit
    def density(bandwidth):
        return kde.class_log_density(embeddings, labels, bandwidth, num_classes=classes)

    @jax.jit
    def diagnose(log_density, temperature):
        weights = reweight.inverse_density(
            log_density, labels, num_classes=classes, temperature=temperature
        )
        return reweight.diagnose(
            weights, labels, attributes, aligned, num_classes=classes,
            num_attributes=benchmark.num_attributes,
        )

    densities = {factor: density(unit * factor**0.5) for factor in FACTORS}
    return [
        {"factor": factor, "temperature": temperature}
        | {k: float(v) for k, v in diagnose(densities[factor], temperature)._asdict().items()}
        for factor, temperature in itertools.product(FACTORS, TEMPERATURES)
    ]


def main(
    dataset: tyro.conf.Positional[str],
    *,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    encoder_steps: int = 30,
    seed: int = 0,
) -> None:
    """Prints the table, and writes it to `out` as JSON."""
    options = jobs.Options(encoder_steps=encoder_steps, seed=seed)
    job = jobs.prepare(benchmarks.load(dataset, data_dir=data_dir, seed=seed), options)
    table = sweep(job)
    print("factor  temperature  AUC    mass  balance  ESS")
    for row in table:
        print("{factor:<7} {temperature:<12} {conflict_auc:.3f}  {conflict_mass:.2f}  "
              "{group_balance:.2f}     {effective_sample_size:.0f}".format(**row))
    if out is not None:
        row = {**pipeline.circumstances(), "config": dataclasses.asdict(job.options)}
        row["config"]["dataset"] = dataset
        store.write_json(out, {"rows": {"defaults": row}, "table": table})


if __name__ == "__main__":
    tyro.cli(main)
