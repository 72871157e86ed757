"""What a run used, as BibTeX: the method, its data and this library."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import tyro

from jaxdd.data import benchmarks, citations, files
from jaxdd.runs import options

_WEIGHTED = {"kde", "auto", "tone", "texture", "layout", "border", "oracle", "random-kde"}
_ENCODED = {"kde", "auto", "random-kde"}


def used(config: Mapping[str, Any], rows: tuple[str, ...]) -> list[str]:
    """Returns what a configuration uses, as names in `citations.BIBTEX`, the method first.

    Args:
        config: as in config.json.
        rows: of a comparison, or how a run was debiased.

    >>> used({"dataset": "cmnist", "method": "dsa"}, ("none",))
    ['dsa', 'mnist', 'lff', 'jaxdd']
    """
    asked = options.read(config)
    found = [asked.method]
    found += ["weights"] * bool(_WEIGHTED & {*rows}) + ["encoder"] * bool(_ENCODED & {*rows})
    found += ["fairdd"] * ("fairdd" in rows)
    found += ["idc"] * (asked.formation > 1) + ["dream"] * (asked.candidates is not None)
    found += [] if asked.training == "standard" else [asked.training]
    return list(dict.fromkeys([*found, *benchmarks.citations_of(config["dataset"]), "jaxdd"]))


def bibtex(folder: str | os.PathLike) -> str:
    """Returns the BibTeX of what a run or a comparison used.

    Args:
        folder: of a run or a comparison, finished or not.

    Raises:
        FileNotFoundError: the folder has no config.json.
        ValueError: a config.json that is none.
    """
    folder = files.expand(pathlib.Path(folder))
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json, expected a run or a comparison")
    config, _ = options.read_config(folder / "config.json")
    rows = config.get("rows") or [path.name for path in folder.glob("rows/*")]
    rows = tuple(rows) or (str(config.get("debias")),)
    return "\n\n".join(citations.BIBTEX[name] for name in used(config, rows))


def cite(folder: tyro.conf.Positional[pathlib.Path]) -> None:
    """Print BibTeX of what a run or a comparison used: methods, data, this library.

    Args:
        folder: of a run or a comparison.
    """
    print(bibtex(folder))
