"""Measure the spectral profile of a set: how well it preserves each direction of the real features.

Directions are the eigenvectors of the covariance of the real features. Along each of them, the
profile compares the variance of the set with that of the real images, and its class means with the
real class means. As many random real images are measured for comparison, because a hundred images
cannot vary in a thousand directions. Features come from random networks and, optionally, from a
trained one.
"""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import _checks, networks, sampling
from jaxdd.data import datasets, files
from jaxdd.methods import spectral
from jaxdd.runs import components, options, results
from jaxdd.runs.reports import plot
from jaxdd.runs.scoring import matrix
from jaxdd.runs.scoring.labelled_sets import LabelledSet


def measure(
    labelled: LabelledSet,
    benchmark: datasets.Benchmark,
    run_options: options.DM,
    *,
    num_networks: int = 3,
    teacher_steps: int = 0,
    weights: np.ndarray | None = None,
    report: Callable[..., None] = lambda task, done, total: None,
) -> dict[str, Any]:
    """Return the profiles of a set and of as many random real images.

    Args:
        labelled: The set, from `labelled_sets.read`.
        benchmark: The data that the set replaces.
        run_options: Options, of which network, width, depth, strategy and seed are used.
        num_networks: Number of random networks.
        teacher_steps: Updates of the trained network. Defaults to 0: no trained network.
        weights: Sample weights `[n]` of the real images. Defaults to uniform.
        report: Called as `report(task, done, total)`.

    Returns:
        {"profiles": {"random": ..., "trained": ...}, ...}. A profile is {"eigenvalues", "signal",
        "sets": {"set" or "random": {"variance", "error", "bands"}}} with an entry per direction.
    """
    num_networks = _checks.count("num_networks", num_networks)
    teacher_steps = _checks.count("teacher_steps", teacher_steps, minimum=0)
    # Only the options of the evaluated networks matter, not those of a teacher.
    fields = ("network", "width", "depth", "dtype", "strategy", "seed", "epochs", "eval_seeds")
    network_options = options.DM(**{name: getattr(run_options, name) for name in fields})
    built = components.build(benchmark, network_options)
    pool = datasets.pool(benchmark, None if weights is None else jnp.asarray(weights))
    sets = components.baselines(*labelled[:2], pool, run_options, ("set", "random"))
    init, profile = _programs(built.network)
    schedule = num_networks, teacher_steps, report
    by_kind: dict[str, list[Any]] = {"random": [], "trained": []}
    for kind, params in _parameters(init, built, pool, run_options, *schedule):
        by_kind[kind].append(jax.device_get(profile(params, pool, sets)))
    return files.to_json({
        "data": benchmark.name, "data_digest": datasets.digest(benchmark),
        "weights": None if weights is None else files.digest(np.asarray(weights, np.float32)),
        "images": files.digest(*map(np.asarray, sets["set"])), "per_set": len(labelled.labels),
        **{name: getattr(run_options, name) for name in ("network", "width", "depth", "seed")},
        "networks": num_networks, "teacher_steps": teacher_steps, **results.circumstances(),
        "profiles": {name: _average(values) for name, values in by_kind.items() if values},
    })  # fmt: skip


def _parameters(init, built, pool, run_options, num_networks, teacher_steps, report):
    """Yield the kind and the parameters of every network whose features are used."""
    first = sampling.take(pool, jnp.zeros(1, int))
    for i in range(num_networks):
        report("random networks", i, num_networks)
        key = jax.random.fold_in(components.key(run_options, "evaluate"), i)
        yield "random", init(key, first)
    report("random networks", num_networks, num_networks)
    if teacher_steps:
        report("trained network", 0, 1)
        arguments = built.network, pool, run_options, built.strategy
        teacher = matrix.train_teacher(*arguments, matrix.TeacherOptions(teacher_steps))
        yield "trained", teacher.params
        report("trained network", 1, 1)


@functools.cache
def _programs(network):
    """Return compiled functions for initialisation and profiles, cached by network."""
    return jax.jit(network.init), jax.jit(functools.partial(_profiles, network))


def _profiles(network, params, pool, sets):
    """Return the profile of each set in the eigenbasis of the real features."""
    features = lambda images: networks.outputs(network, params, images).features
    normalised = lambda images: sampling.normalise(images, pool.mean, pool.std)
    # Moments are accumulated over batches of images, so that no array holds all features.
    k, of_real = pool.num_classes, lambda images: features(normalised(images))
    statistics = functools.partial(spectral.statistics, size=256)
    real = statistics(pool.images, pool.labels, k, pool.weights, extract=of_real)
    # Class means are relative to the mean of the real features, which would otherwise dominate the
    # class signal.
    centre = functools.partial(spectral.shift, origin=real.mean)
    return {
        name: spectral.profile(
            centre(real), centre(statistics(images, labels, k, extract=features))
        )
        for name, (images, labels) in sets.items()
    }


def _average(profiles):
    """Return means over networks, by direction and in bands of directions."""
    means: dict[str, Any] = jax.tree.map(lambda *values: np.mean(values, axis=0), *profiles)
    sets = {
        name: {
            "variance": mean.variance.tolist(), "error": mean.error.tolist(),
            "bands": [band._asdict() for band in spectral.bands(mean)],
        }
        for name, mean in means.items()
    }  # fmt: skip
    real = means["set"]
    return {"eigenvalues": real.eigenvalues.tolist(), "signal": real.signal.tolist(), "sets": sets}


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Read profile.json; raise ValueError if the file is damaged."""
    with files.hint("delete it and profile again"):
        profile = files.read_json(path)
        if not isinstance(profile, dict) or not isinstance(profile.get("profiles"), dict):
            raise ValueError(f"{path} holds no profiles")
    return profile


def lines(profile: dict[str, Any]) -> Iterator[str]:
    """Yield the bands of a profile as text, with those of random real images in parentheses."""
    for name, values in profile["profiles"].items():
        yield f"features of {plot.FEATURES[name]}:"
        of_set, of_random = (values["sets"][x]["bands"] for x in ("set", "random"))
        for band, other in zip(of_set, of_random, strict=True):
            where = f"{band['directions']:>5} directions with {100 * band['share']:.1f} %"
            variance, error = (f"{band[x]:.2f} ({other[x]:.2f})" for x in ("variance", "error"))
            yield f"{where} of the variance: kept {variance}, error of class means {error}"
