"""One page about a run: what it was, what came out, what it looks like and how to repeat it.

`read` takes the folder of `jaxdd run` or `jaxdd compare`, or a result as it is committed under
experiments/results; `render` makes a page of it (`pages`), by templates/report.html.j2. Every
number on the page is one of the result, or follows from it by what is said beside it.
"""

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jaxdd.data import benchmarks, files
from jaxdd.runs import options, pages, results, store

_DRAWN = {"classes": 20, "images per class": 10}  # of a grid, at most
_PICTURES = {"weights": "weights.png", "embedding": "embedding.png"}


class Report(NamedTuple):
    """What a page is made of.

    Attributes:
        rows: name -> result, as in result.json.
        config: the configuration that all rows share.
        grids: name -> synthetic set, of the rows that have one.
        pictures: "weights" and "embedding" -> picture, if there is one.
        transfer: network -> results, of a run that `jaxdd transfer` was called for.
    """

    rows: dict[str, dict[str, Any]]
    config: dict[str, Any]
    grids: dict[str, pages.Grid]
    pictures: dict[str, pages.Picture]
    transfer: dict[str, dict[str, Any]]


# --- reading -----------------------------------------------------------------------------------


def read(path: str | os.PathLike) -> Report:
    """Reads a finished run or comparison from its folder, or its result from a JSON file.

    Args:
        path: folder of `jaxdd run` or `jaxdd compare`; or a file like result.json or compare.json,
            which has no pictures.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: a folder without a run, a run that is not finished, or a damaged file.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, expected a run folder or a result")
    if not path.is_dir():
        rows = results.read(path)
        return Report(rows, results.config(rows), {}, {}, {})
    config = _config(path)
    several = config.get("command") == "compare" and "row" not in config
    _check_finished(path, config, several)
    with files.advice("delete it and resume"):
        rows = results.read(path / ("compare.json" if several else "result.json"))
    results.check_config(path / "config.json", rows)
    folders = {name: path / "rows" / name for name in rows} if several else {list(rows)[-1]: path}
    for name, folder in folders.items():
        store.check_set(folder, rows[name].get("digests"))
    grids = {name: _grid(folder / "synthetic.npz") for name, folder in folders.items()}
    pictures = {
        name: _picture(path / file) for name, file in _PICTURES.items() if (path / file).exists()
    }
    others = path / "transfer.json"
    transfer = results.read_transfer(others) if others.exists() else {}
    return Report(rows, config, grids, pictures, transfer)


def _config(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        runs = sorted(found.parent.name for found in folder.glob("*/config.json"))
        found = runs or sorted(file.name for file in folder.glob("*.json"))
        held = f"; it holds {', '.join(found[:5])}" if found else ""
        raise ValueError(f"{folder} is no run folder (no config.json){held}")
    return options.read_config(path)[0]


def _check_finished(folder: pathlib.Path, config: dict[str, Any], several: bool) -> None:
    """Raises unless the command has written all that it writes."""
    if (
        results.is_finished(folder / "compare.json")
        if several
        else (folder / "result.json").exists()
    ):
        return
    with files.advice("delete it and resume"):
        steps = [record.get("step") for record in store.progress(folder)]
    where = f", at step {steps[-1]} of {config.get('steps')}" if steps else ""
    begun = [name for name in results.KINDS if (folder / "rows" / name).is_dir()]
    line = None if "row" in config else command(config, rows=begun or results.ROWS)
    if line is None or config["dataset"] not in benchmarks.NAMES:
        line = "the command that began it, and --resume"
    else:
        line += f" --out {shlex.quote(str(folder))} --resume"
    which = f" its rows {', '.join(begun)}" if begun else " it"
    raise ValueError(f"{folder} holds an unfinished run{where}; continue{which} with: {line}")


def _grid(path: pathlib.Path) -> pages.Grid:
    synthetic = store.read_synthetic(path)
    sizes = dict(zip(_DRAWN, synthetic.labels.shape, strict=True))
    rows, columns = (min(limit, sizes[what]) for what, limit in _DRAWN.items())
    drawn = synthetic.images[:rows, :columns]
    picture = pages.tiles(drawn, mean=synthetic.mean, std=synthetic.std)
    names = synthetic.provenance.get("class_names") or range(len(synthetic.images))
    if not isinstance(names, (list, range)) or len(names) != len(synthetic.images):
        raise ValueError(f"{path}: class_names must name {len(synthetic.images)}, found {names!r}")
    return pages.Grid(
        picture=picture,
        names=list(map(str, names))[:rows],
        columns=columns,
        cut=[(what, n, sizes[what]) for what, n in _DRAWN.items() if sizes[what] > n],
    )


def _picture(path: pathlib.Path) -> pages.Picture:
    with files.advice("delete it, since a report needs none"):
        return pages.Picture(path.read_bytes(), *store.picture_size(path))


# --- the page ----------------------------------------------------------------------------------


def write(path: str | os.PathLike, report: Report) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        report: from `read`.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    pages.write(path, render(report))


def render(report: Report) -> str:
    """Returns the page as HTML.

    Args:
        report: from `read`.
    """
    values = report._asdict() | _accuracies(report) | _records(report) | _repetition(report)
    values |= {"kinds": results.KINDS}
    return pages.TEMPLATES.get_template("report.html.j2").render(values)


def _accuracies(report: Report) -> dict[str, Any]:
    """Returns the row the page is opened for, a plain one beside it, and what is known by group."""
    rows = report.rows
    main = next(name for name in ("kde", *reversed(rows)) if name in rows)
    found = {score: [row.get(score) for row in rows.values()] for score in results.SCORES}
    return {
        "main": main,
        "plain": next((name for name in ("none", "random") if name in rows.keys() - {main}), None),
        "scores": results.SCORES,
        "charts": [
            name for name, each in found.items() if any(pages.mean(score) != "–" for score in each)
        ],
        "intervals": any(results.interval(score) for each in found.values() for score in each),
    }


def _records(report: Report) -> dict[str, Any]:
    """Returns what some rows hold besides accuracies: weights, trials of weights, seconds."""
    weights, choices, seconds = (
        {name: row[part] for name, row in report.rows.items() if row.get(part)}
        for part in ("weights", "choice", "seconds")
    )
    stages = (*results.STAGES, "compile")
    return {
        "weights": weights,
        "grouped": any(each.get("conflict_mass") is not None for each in weights.values()),
        "choices": choices,
        "balances": {name: pages.by_temperature(choice) for name, choice in choices.items()},
        "seconds": seconds,
        "stages": [stage for stage in stages if any(stage in each for each in seconds.values())],
        "total": results.seconds(report.rows),
    }


def _repetition(report: Report) -> dict[str, Any]:
    """Returns the command line, and on what and by what the results were made."""
    made = [
        {"device": row.get("device"), "date": row.get("date")} | (row.get("versions") or {})
        for row in report.rows.values()
    ]
    return {
        "command": command(report.config, rows=report.rows),
        "benchmark": report.config.get("dataset") in benchmarks.NAMES,
        "made": {
            name: _different(each.get(name) for each in made)
            for name in dict.fromkeys(name for each in made for name in each)
        },
    }


def _different(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or "–"


def command(config: Mapping[str, Any], *, rows: Iterable[str] = results.ROWS) -> str | None:
    """Returns the command line that makes a run, without the options that have their defaults.

    Args:
        config: as in config.json.
        rows: of a comparison.

    Returns:
        The command, or None where the configuration is not one of `jaxdd run` or `jaxdd compare`.

    >>> command({"command": "run", "dataset": "cdigits", "debias": "none", "ipc": 2, "seed": 0})
    'jaxdd run cdigits --debias none --ipc 2'
    """
    try:
        asked = options.read(config)
        chosen = options.make(method=asked.method, preset=asked.preset, ipc=asked.ipc).resolved()
        verb, dataset = config["command"], config["dataset"]
    except (KeyError, TypeError, ValueError):
        return None
    if verb not in ("run", "compare"):
        return None
    own = "weights" in config or "own_method" in config or asked.network.endswith("()")
    if own or isinstance(config.get("augmentation"), str):
        return None  # made from Python, of what has no name there
    words = ["jaxdd", verb, dataset if dataset in benchmarks.NAMES else f"path/to/{dataset}"]
    if verb == "run":
        words += ["--debias", str(config.get("debias"))]
    defaults = dataclasses.asdict(chosen) | dict(preset="quick", method="dm", ipc=options.DM.ipc)
    for name, value in dataclasses.asdict(asked).items():
        if value is not None and value != defaults[name]:
            words += _words(f"--{name.replace('_', '-')}", value)
    if verb == "compare" and tuple(rows) != results.ROWS:
        words += ["--rows", *rows]
    return shlex.join(words)


def _words(option, value):
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    return [option, *map(str, value if isinstance(value, tuple) else [value])]
