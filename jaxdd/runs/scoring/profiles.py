"""The spectrum of a set: what it keeps of the real images, direction by direction of features.

The real features' covariance is taken apart into eigenvectors. Along each, the variance of the set
stands over the real one, and the error of its class means over the real class means, both less the
real mean. As many random real images stand beside it, for a hundred images cannot vary in a
thousand directions. The features are those of random networks, and of one that was trained.
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
from jaxdd.runs import old_results as results
from jaxdd.runs import options, parts
from jaxdd.runs.reports import plot
from jaxdd.training import teachers


def measure(
    images: np.ndarray,
    labels: np.ndarray,
    benchmark: datasets.Benchmark,
    asked: options.Resolved,
    *,
    networks: int = 3,
    teacher_steps: int = 0,
    weights: np.ndarray | None = None,
    report: Callable[..., None] = lambda task, done, total: None,
) -> dict[str, Any]:
    """Returns the profiles of a set, and of as many random real images.

    Args:
        images: of the set, `[m, h, w, c]`, normalised.
        labels: `[m]` of it.
        benchmark: the data that it stands for.
        asked: options, of which the network, its width and depth, strategy and seed count.
        networks: random ones.
        teacher_steps: updates of the trained network, drawn as the real images count; 0 for none.
        weights: of the training samples `[n]`, by which they count; None for all alike.
        report: called as `report(task, done, total)`.

    Returns:
        {"profiles": {whose features: {"eigenvalues", "signal", "sets": {name: {"variance",
        "error", "bands"}}}}, …}, where all lists have an entry for each direction.

    Raises:
        ValueError: no network, a negative number of updates, or weights that are none.
    """
    count = _checks.count("networks", networks)
    teacher_steps = _checks.count("teacher_steps", teacher_steps, minimum=0)
    made = parts.build(benchmark, parts_of(asked))
    pool = datasets.pool(benchmark, None if weights is None else jnp.asarray(weights))
    sets = parts.beside(images, labels, pool, asked, ("set", "random"))
    start, program = _programs(made.network)
    first = sampling.take(pool, jnp.zeros(1, int))
    found: dict[str, list[Any]] = {"random": [], "trained": []}
    for i in range(count):
        report("random networks", i, count)
        key = jax.random.fold_in(parts.key(asked, "evaluate"), i)
        found["random"].append(jax.device_get(program(start(key, first), pool, sets)))
    report("random networks", count, count)
    if teacher_steps:
        report("trained network", 0, 1)
        teacher = _taught(made, pool, asked, teacher_steps)
        found["trained"].append(jax.device_get(program(teacher.params, pool, sets)))
        report("trained network", 1, 1)
    return files.to_json({
        "data": benchmark.name, "data_digest": datasets.digest(benchmark),
        "weights": None if weights is None else files.digest(np.asarray(weights, np.float32)),
        "images": files.digest(*map(np.asarray, sets["set"])), "per_set": len(labels),
        "network": asked.network, "width": asked.width, "depth": asked.depth, "seed": asked.seed,
        "networks": count, "teacher_steps": teacher_steps, **results.circumstances(),
        "profiles": {name: _joined(each) for name, each in found.items() if each},
    })  # fmt: skip


def parts_of(asked: options.Resolved) -> options.Resolved:
    """The options that build the network of a run, without the teacher that only some have."""
    fields = ("network", "width", "depth", "dtype", "strategy", "seed", "epochs", "eval_seeds")
    return options.DM(**{name: getattr(asked, name) for name in fields}).resolved()


@functools.cache
def _programs(network):
    """What makes fresh parameters, and what profiles sets; compiled once for equal networks."""
    return jax.jit(network.init), jax.jit(functools.partial(_profiles, network))


def _profiles(network, params, pool, sets):
    """The profile of each set in the eigenbasis of the real features, around their mean."""

    def features(images):
        return networks.outputs(network, params, images).features

    def real(images):
        return features(sampling.normalise(images, pool.mean, pool.std))

    k = pool.num_classes
    whole = spectral.stream_statistics(real, pool.images, pool.labels, k, pool.weights)
    centre = functools.partial(spectral.shift, origin=whole.mean)
    found = {
        name: spectral.stream_statistics(features, images, labels, k)
        for name, (images, labels) in sets.items()
    }
    return {name: spectral.profile(centre(whole), centre(each)) for name, each in found.items()}


def _taught(made, pool, asked, steps):
    sampler = functools.partial(sampling.weighted_batch, size=26)
    given: dict[str, Any] = dict(sampler=sampler, steps=steps, strategy=made.strategy)
    teach = jax.jit(lambda key, pool: teachers.train_teacher(key, made.network, pool, **given))
    return teach(parts.key(asked, "experts"), pool)


def _joined(found):
    """Means over networks, direction by direction, and bands of them."""
    means: dict[str, Any] = jax.tree.map(lambda *each: np.mean(each, axis=0), *found)
    real = means["set"]
    sets = {
        name: {
            "variance": mean.variance.tolist(),
            "error": mean.error.tolist(),
            "bands": [band._asdict() for band in spectral.bands(mean)],
        }
        for name, mean in means.items()
    }
    return {"eigenvalues": real.eigenvalues.tolist(), "signal": real.signal.tolist(), "sets": sets}


def write(path: str | os.PathLike, figure: str | os.PathLike, found: dict[str, Any]) -> None:
    """Writes profiles as JSON, and as a figure in SVG or PNG."""
    plot.profile(figure, found)
    files.write_json(path, results.sealed(found))


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yields the bands of the spectrum as text, those of random real images in parentheses."""
    for name, profile in found["profiles"].items():
        yield f"features of {plot.FEATURES[name]}:"
        own, random = (profile["sets"][each]["bands"] for each in ("set", "random"))
        for mine, theirs in zip(own, random, strict=True):
            where = f"{mine['directions']:>5} directions with {100 * mine['share']:.1f} %"
            variance, error = (f"{mine[x]:.2f} ({theirs[x]:.2f})" for x in ("variance", "error"))
            yield f"{where} of the variance: kept {variance}, error of class signal {error}"
