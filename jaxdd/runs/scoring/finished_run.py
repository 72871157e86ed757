"""Read the options of a finished run, and score other images exactly as the run scored its own.

`jaxdd evaluate RUN` and `jaxdd export RUN --score` use it.
"""

import dataclasses
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdd import evaluate
from jaxdd.data import datasets
from jaxdd.methods import zca
from jaxdd.runs import components, options
from jaxdd.runs import methods as run_methods
from jaxdd.runs import networks as named_networks
from jaxdd.runs.folder import store


def configuration(folder: str | os.PathLike) -> tuple[dict[str, Any], options.DM]:
    """Return the config.json of a finished run and its options, including its augmentation.

    Raises:
        FileNotFoundError: The folder holds no finished run.
    """
    folder = pathlib.Path(folder)
    for name, missing in (("config.json", "no run"), ("synthetic.npz", "no finished run")):
        if not (folder / name).exists():
            message = f"{folder} holds {missing}: there is no {name}"
            if (folder / "rows").is_dir():
                message += f"; the runs of a comparison are in {folder / 'rows'}"
            raise FileNotFoundError(message)
    config, run_options = options.read_config(folder / "config.json")
    # `strategy` is None in the options of a run that used the augmentation of its data.
    if isinstance(config.get("augmentation"), list):
        run_options = dataclasses.replace(run_options, strategy=tuple(config["augmentation"]))
    return config, run_options


def options_for(folder: str | os.PathLike, benchmark: datasets.Benchmark) -> options.DM:
    """Return the options of a finished run, after checking that it was made from this data.

    Raises:
        ValueError: The data, or a custom augmentation function, differ from those of the run.
    """
    config, run_options = configuration(folder)
    if (digest := datasets.digest(benchmark)) != config["data"]:
        raise ValueError(
            f"{folder} was made from data with digest {config['data']}, "
            f"but {benchmark.name} has {digest}"
        )
    function = config.get("augmentation")
    if isinstance(function, str) and function != named_networks.qualified_name(benchmark.strategy):
        raise ValueError(f"{folder} used the augmentation {function}; pass data with that strategy")
    return run_options


def score(
    folder: str | os.PathLike, benchmark: datasets.Benchmark, images: np.ndarray
) -> dict[str, Any]:
    """Score normalised images `[k, ipc, h, w, c]` with networks, seeds and whitening of a run.

    Returns:
        Scores, as in result.json.
    """
    run_options = options_for(folder, benchmark)
    whitening = store.whitening_of(folder)
    seen = zca.whiten(run_methods.decode(run_options.formation)(jnp.asarray(images)), whitening)
    return evaluate.summary(components.build(benchmark, run_options).score(seen, whitening))
