"""How a synthetic set serves other networks than the one it was distilled with.

Written to transfer.json in the run folder, network by network, so that a stopped evaluation goes on
with the next.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jaxdd import networks
from jaxdd.data import datasets, files
from jaxdd.runs import jobs, pipeline, results, store


def configuration(folder: str | os.PathLike) -> tuple[dict[str, Any], jobs.Options]:
    """Returns the config.json of a finished run, and the options in it.

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
    config = files.read_json(folder / "config.json")
    known = {field.name for field in dataclasses.fields(jobs.Options)}
    if not isinstance(config, dict) or not {"dataset", "data", "ipc"} <= config.keys():
        raise ValueError(f"{folder / 'config.json'} does not hold the configuration of a run")
    return config, jobs.Options(**{name: x for name, x in config.items() if name in known})


def transfer(
    folder: str | os.PathLike,
    benchmark: datasets.Benchmark,
    *,
    names: Sequence[str] = tuple(networks.NETWORKS),
    epochs: int | None = None,
    eval_seeds: int | None = None,
    report: Callable[..., None] = jobs.silent,
) -> dict[str, Any]:
    """Evaluates the synthetic set of a run, and a random subset, with each of the networks.

    Args:
        folder: of a finished run.
        benchmark: the data that the run was made from.
        names: out of `networks.NETWORKS`.
        epochs: of each evaluation; those of the run by default.
        eval_seeds: networks of each kind; as many as the run's by default.
        report: called as `report(task, done, total)`.

    Returns:
        {network: {"synthetic": scores, "random": scores, "epochs": …}}, the content of transfer.json;
        networks that were evaluated before, with as many epochs and seeds, are read back.

    Raises:
        ValueError: for an unknown network, other data than the run's, or a damaged folder.
    """
    folder = pathlib.Path(folder)
    if unknown := set(names) - networks.NETWORKS.keys():
        raise ValueError(
            f"unknown network {min(unknown)!r}; known are {', '.join(networks.NETWORKS)}"
        )
    config, options = configuration(folder)
    if (digest := datasets.digest(benchmark)) != config["data"]:
        raise ValueError(
            f"{folder} was made from other data than {benchmark.name} is now: "
            f"digest {config['data']} there and {digest} here"
        )
    given = {"epochs": epochs, "eval_seeds": eval_seeds}
    options = dataclasses.replace(options, **{k: v for k, v in given.items() if v is not None})
    images = jobs.decode(options)(store.read_synthetic(folder / "synthetic.npz").images)
    path = folder / "transfer.json"
    rows = results.read_transfer(path) if path.exists() else {}
    settings = {"epochs": options.epochs, "eval_seeds": options.eval_seeds}
    for name in names:
        if all(rows.get(name, {}).get(key) == value for key, value in settings.items()):
            continue
        job = jobs.prepare(benchmark, dataclasses.replace(options, network=name), report)
        random = pipeline.subset(job, datasets.pool(benchmark), weighted=False)
        sets = {"synthetic": images, "random": random}
        scores = {
            label: pipeline.summary(pipeline.scored(job, x, f"{name} {label}"))
            for label, x in sets.items()
        }
        rows[name] = {**scores, **settings, **pipeline.circumstances()}
        files.write_json(path, rows)
    return {name: files.read_json(path)[name] for name in names}
