"""Write the command line that repeats a run."""

import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from jaxdd.data import benchmarks
from jaxdd.runs import options, weightings


def command_line(
    config: Mapping[str, Any], *, rows: Iterable[str] = weightings.DEFAULT_ROWS
) -> str | None:
    """Return the command that repeats a run, without options that have their default values.

    None if no command line gives this configuration. Only comparisons have `rows`.

    >>> command_line({"command": "run", "dataset": "cdigits", "debias": "plain", "ipc": 2})
    'jaxdd run cdigits --debias plain --ipc 2'
    """
    try:
        run_options = options.from_config(config)
        command, dataset = config["command"], config["dataset"]
    except (KeyError, TypeError, ValueError):
        return None
    if command not in ("run", "compare") or _needs_python(config, run_options):
        return None
    words = ["jaxdd", command, dataset if dataset in benchmarks.NAMES else f"path/to/{dataset}"]
    if command == "run":
        words += ["--debias", str(config.get("debias"))]
    words += option_words(run_options)
    if command == "compare" and tuple(rows) != tuple(weightings.DEFAULT_ROWS):
        words += ["--rows", *rows]
    if config.get("separate"):
        words += ["--separate"]
    return shlex.join(words)


def _needs_python(config, run_options):
    """Return whether a run used arrays, a method, a network or augmentation of the user."""
    names = "weights", "embedding", "bias_labels", "own_method"
    own = any(name in config for name in names) or run_options.network.endswith("()")
    return own or isinstance(config.get("augmentation"), str)


def option_words(run_options: options.DM, *, names: Collection[str] | None = None) -> list[str]:
    """Return the options that differ from their defaults, with the preset that makes them fewest.

    Args:
        run_options: options of a run.
        names: names of the options to write, in the preset quick. Defaults to all.

    >>> option_words(options.DM(ipc=2, seed=3), names=["seed"])
    ['--seed', '3']
    """
    if names is not None:
        return _option_words(run_options, options.DM.preset, names)
    every = options.to_config(run_options)
    return min((_option_words(run_options, x, every) for x in options.PRESETS), key=len)


def _option_words(run_options, preset, names):
    fixed: dict[str, Any] = dict(method=run_options.method, preset=preset, ipc=run_options.ipc)
    defaults = options.to_config(options.make(**fixed)) | dict(method="dm", ipc=options.DM.ipc)
    words = [] if preset == options.DM.preset else ["--preset", preset]
    for name, value in options.to_config(run_options).items():
        if name in names and value is not None and value != defaults[name]:
            flag = type(run_options).__dataclass_fields__[name].metadata.get("flag") or name
            words += _words(f"--{flag.replace('_', '-')}", value)
    return words


def _words(option, value):
    if isinstance(value, bool):  # all of them are false by default
        return [option]
    return [option, *map(str, (value or ["none"]) if isinstance(value, tuple) else [value])]
