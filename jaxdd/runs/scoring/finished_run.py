"""Read the options of a finished run, and score other images exactly as the run scored its own.

`jaxdd evaluate RUN` and `jaxdd export RUN --score` use it.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdd import evaluate
from jaxdd.data import datasets, files
from jaxdd.methods import zca
from jaxdd.runs import components, options
from jaxdd.runs import methods as run_methods
from jaxdd.runs import networks as named_networks
from jaxdd.runs.folder import store
from jaxdd.runs.trust import publication


def options_of(config: Mapping[str, Any]) -> options.DM:
    """Return the options in the configuration of a run, including its augmentation."""
    run_options = options.from_config(config)
    # `strategy` is None in the options of a run that used the augmentation of its data.
    if isinstance(strategy := config.get("augmentation"), list):
        run_options = dataclasses.replace(run_options, strategy=tuple(strategy))
    factor = publication.formation_of(config)
    return dataclasses.replace(run_options, formation=factor)


def check_data(config: Mapping[str, Any], benchmark: datasets.Benchmark) -> None:
    """Raise ValueError if data or their augmentation function differ from those of a run."""
    if (digest := datasets.digest(benchmark)) != config["data"]:
        raise ValueError(
            f"the run was made from other data than {benchmark.name}: "
            f"digest {config['data']} there, got {digest}"
        )
    function = config.get("augmentation")
    if isinstance(function, str) and function != named_networks.qualified_name(benchmark.strategy):
        raise ValueError(f"the run used the augmentation {function}; pass data with that strategy")


def score(
    folder: str | os.PathLike, benchmark: datasets.Benchmark, images: np.ndarray
) -> dict[str, Any]:
    """Score normalised images `[k, ipc, h, w, c]` with networks, seeds and whitening of a run.

    Returns:
        Scores, as in result.json.
    """
    config = files.read_json(pathlib.Path(folder) / "config.json")
    check_data(config, benchmark)
    run_options, whitening = options_of(config), store.whitening_of(folder)
    decoded = run_methods.decode(run_options.formation)(jnp.asarray(images))
    seen = zca.whiten(decoded, whitening, benchmark.mean, benchmark.std)
    return evaluate.summary(components.build(benchmark, run_options).score(seen, whitening))
