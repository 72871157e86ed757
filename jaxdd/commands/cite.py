"""The command cite, which prints BibTeX entries of what a run used."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxdd.commands.arguments import Run
from jaxdd.data import benchmarks, citations, files
from jaxdd.runs import options, weightings
from jaxdd.runs.methods import METHODS


def used(config: Mapping[str, Any], rows: Iterable[str]) -> list[str]:
    """Return the keys of `citations.BIBTEX` that a configuration uses, the method first.

    Args:
        config: as in config.json.
        rows: rows of a comparison, or the weighting of a run.

    >>> used({"dataset": "cmnist", "method": "dsa"}, ["plain"])
    ['dsa', 'mnist', 'lff', 'jaxdd']
    """
    run_options = options.from_config(config)
    keys = [*METHODS[run_options.method].citations]
    known = weightings.rows()
    for row in rows:
        keys += weightings.WEIGHTINGS[known[row].weighting].citations if row in known else ()
    keys += ["idc"] * (run_options.formation > 1) + ["dream"] * (run_options.candidates is not None)
    keys += [] if run_options.training == "standard" else [run_options.training]
    if config["dataset"] in benchmarks.NAMES:
        keys += benchmarks.describe(config["dataset"]).citations
    return list(dict.fromkeys([*keys, "jaxdd"]))


def cite(folder: Run) -> None:
    """Print BibTeX entries for what a run or a comparison used.

    Args:
        folder: Folder of a run or a comparison, finished or not.
    """
    folder = files.expand(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json, expected a run or a comparison")
    config, _ = options.read_config(folder / "config.json")
    rows = [path.name for path in folder.glob("rows/*")] or [str(config.get("debias"))]
    order = {name: i for i, name in enumerate(weightings.rows())}
    rows.sort(key=lambda name: order.get(name, len(order)))
    print("\n\n".join(citations.BIBTEX[key] for key in used(config, rows)))
