"""How a synthetic set serves other networks than the one it was distilled with.

Written to transfer.json in the run folder, network by network, so that a stopped evaluation goes on
with the next.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdd import augment, evaluate, networks
from jaxdd.data import benchmarks, datasets, files
from jaxdd.methods import zca
from jaxdd.runs import old_results as results
from jaxdd.runs import options, parts
from jaxdd.runs.folder import store, whitenings
from jaxdd.runs.reports import evidence
from jaxdd.runs.scoring import cells


def configuration(folder: str | os.PathLike) -> tuple[dict[str, Any], options.Options]:
    """Returns the config.json of a finished run, and the options in it, with its augmentation.

    Raises:
        FileNotFoundError: the folder holds no finished run.
        ValueError: its config.json is damaged.
    """
    folder = pathlib.Path(folder)
    for name, missing in (("config.json", "no run"), ("synthetic.npz", "no finished run")):
        if not (folder / name).exists():
            found = f"{folder} holds {missing}: there is no {name}"
            if (folder / "rows").is_dir():
                found += f"; the runs of a comparison are in {folder / 'rows'}"
            raise FileNotFoundError(found)
    config, asked = options.read_config(folder / "config.json")
    before = None if config["dataset"] in benchmarks.NAMES else list(augment.OPERATIONS)
    augmentation = config.get("augmentation", before)  # which the version before did not keep
    if isinstance(augmentation, list):
        asked = dataclasses.replace(asked, strategy=tuple(augmentation))
    return config, asked


def transfer(
    folder: str | os.PathLike,
    benchmark: datasets.Benchmark,
    *,
    names: Sequence[str] = options.NETWORKS,
    epochs: int | None = None,
    eval_seeds: int | None = None,
    report: Callable[..., None] = lambda task, done, total: None,
) -> dict[str, Any]:
    """Evaluates the synthetic set of a run, and a random subset, with each of the networks.

    Args:
        folder: of a finished run.
        benchmark: the data that the run was made from.
        names: out of `options.NETWORKS`.
        epochs: of each evaluation; those of the run by default.
        eval_seeds: networks of each kind; as many as the run's by default.
        report: called as `report(task, done, total)`.

    Returns:
        {network: {"synthetic": scores, "random": scores, "epochs": …}}, as in transfer.json;
        networks that were evaluated before, with as many epochs and seeds, are read back.

    Raises:
        ValueError: for an unknown network, other data than the run's, or a damaged folder.
        BlockingIOError: another process is at work in the folder.
    """
    folder = pathlib.Path(folder)
    if unknown := set(names) - networks.NETWORKS.keys():
        raise ValueError(
            f"unknown network {min(unknown)!r}; known are {', '.join(networks.NETWORKS)}"
        )
    asked = options_for(folder, benchmark)
    given = {"epochs": epochs, "eval_seeds": eval_seeds}
    asked = dataclasses.replace(asked, **{k: v for k, v in given.items() if v is not None})
    asked = asked.resolved()
    pool, path = datasets.pool(benchmark), folder / "transfer.json"
    images = parts.decode(asked)(jnp.asarray(_images(folder, pool, asked)))
    whitening = _whitening(folder, asked)
    with store.lock(folder):
        for left in folder.glob(f".{path.name}.*{files.TEMPORARY}"):  # by one that was killed
            left.unlink(missing_ok=True)
        settings = {"epochs": asked.epochs, "eval_seeds": asked.eval_seeds}
        sets = {"synthetic": images, "random": parts.subset(pool, asked, weighted=False)}

        def scores(name):
            made, found = parts.build(benchmark, dataclasses.replace(asked, network=name)), {}
            for label, each in sets.items():
                report(f"evaluate {name} {label}", 0, 1)
                scored = made.score(zca.whiten(each, whitening), whitening)
                found[label] = evaluate.summary(scored) | evidence.breakdown(benchmark, scored)
                report(f"evaluate {name} {label}", 1, 1)
            return found

        wanted = [
            cells.Cell(name, settings, functools.partial(scores, name), results.TRANSFERRED)
            for name in names
        ]
        return cells.fill(path, wanted, read=results.read_transfer)


def score(
    folder: str | os.PathLike, benchmark: datasets.Benchmark, images: np.ndarray
) -> dict[str, Any]:
    """Evaluates other images than those of a run as the run did its own.

    Args:
        folder: of a finished run.
        benchmark: the data that the run was made from.
        images: `[k, ipc, h, w, c]`, normalised.

    Returns:
        Scores as in result.json.

    Raises:
        ValueError: for other data than the run's, or a damaged folder.
    """
    asked = options_for(folder, benchmark).resolved()
    made, whitening = parts.build(benchmark, asked), _whitening(folder, asked)
    seen = zca.whiten(parts.decode(asked)(jnp.asarray(images)), whitening)
    return evaluate.summary(made.score(seen, whitening))


def options_for(folder: str | os.PathLike, benchmark: datasets.Benchmark) -> options.Options:
    """Returns the options of a run, if these are its data.

    Raises:
        ValueError: for other data than the run's, or another augmentation of one's own.
    """
    config, asked = configuration(folder)
    if (digest := datasets.digest(benchmark)) != config["data"]:
        raise ValueError(
            f"{folder} was made from other data than {benchmark.name} is now: "
            f"digest {config['data']} there and {digest} here"
        )
    own = config.get("augmentation")
    if isinstance(own, str) and own != parts.name_of(benchmark.strategy):
        raise ValueError(f"{folder} was made with the augmentation {own}; give data that have it")
    return asked


def _whitening(folder, asked):
    return None if asked.zca == "none" else whitenings.read(folder / store.WHITENING)


def _images(folder, pool, asked):
    """The images of a run, if they are those that it wrote and fit its data."""
    path = folder / "synthetic.npz"
    if (folder / "result.json").exists():
        result = results.read_result(folder / "result.json")
        results.check_config(folder / "config.json", {"": result})
        store.check_set(folder, result.get("digests"))
    stored = store.read_synthetic(path)
    expected = (pool.num_classes, asked.ipc, *pool.images.shape[1:])
    if stored.images.shape != expected:
        raise ValueError(f"{path} must hold images {expected}, found {stored.images.shape}")
    if (stored.labels != np.arange(pool.num_classes)[:, None]).any():
        raise ValueError(f"{path} must hold class by class, found labels in another order")
    return stored.images
