"""One page about a run: what it was, what came out, what it looks like and how to repeat it.

`read` takes the folder of `jaxdd run` or `jaxdd compare`, or a result as it is committed under
experiments/results; `render` makes a page of it (`pages`), by templates/report.html.j2. Every
number on the page is one of the result, or follows from it by what is said beside it.
"""

import dataclasses
import functools
import os
import pathlib
import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data import benchmarks, files
from jaxdd.runs import old_results as results
from jaxdd.runs import options
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.reports import figure_data, pages, plot, tables
from jaxdd.runs.scoring import matrix, profiles

FORMATS = (".svg", ".pdf")
"""What figures are written as."""

_DRAWN = {"classes": 20, "images per class": 10}  # of a grid, at most
_PICTURES = {"weights": "weights.png", "embedding": "embedding.png"}


class Report(NamedTuple):
    """What a page is made of.

    Attributes:
        rows: name -> result, as in result.json.
        config: the configuration that all rows share.
        grids: name -> synthetic set, of the rows that have one.
        pictures: "weights" and "embedding" -> picture, if there is one.
        evaluations: rows of evaluation.json, of a run that `jaxdd evaluate` was called for.
        sets: name -> the whole synthetic set, of the rows that have one.
        kept: row -> what the figures of its weights are drawn from, where it was kept.
        progress: row -> lines of its progress.jsonl.
        profile: as `jaxdd profile` wrote it, of a run that it was called for.
    """

    rows: dict[str, dict[str, Any]]
    config: dict[str, Any]
    grids: dict[str, pages.Grid]
    pictures: dict[str, pages.Picture]
    evaluations: dict[str, dict[str, Any]]
    sets: dict[str, store.Synthetic] = {}
    kept: dict[str, figure_data.FigureData] = {}
    progress: dict[str, list[dict[str, Any]]] = {}
    profile: dict[str, Any] | None = None


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
    with files.hint("delete it and resume"):
        rows = results.read(path / ("compare.json" if several else "result.json"))
    results.check_config(path / "config.json", rows)
    folders = {name: path / "rows" / name for name in rows} if several else {list(rows)[-1]: path}
    for folder in folders.values():
        _check_set(folder)
    sets = {
        name: store.read_synthetic(folder / "synthetic.npz") for name, folder in folders.items()
    }
    grids = {name: _grid(folders[name] / "synthetic.npz", found) for name, found in sets.items()}
    pictures = {
        name: _picture(path / file) for name, file in _PICTURES.items() if (path / file).exists()
    }
    others = path / "evaluation.json"
    evaluations = matrix.read(others) if others.exists() else {}
    return Report(
        rows, config, grids, pictures, evaluations, sets, _evidence(path, rows, several),
        {name: found for name, folder in folders.items() if (found := _progress(folder))},
        None if several else _profile(path),
    )  # fmt: skip


def _evidence(path, rows, several):
    """What was kept beside the weights of each row, where they are not uniform; once for each."""
    kept = {name: kind for name, kind in results.KINDS.items() if name in rows}
    labels = ("none", "oracle", "fairdd")  # which keep no weights
    folders = {kind.folder: name for name, kind in kept.items() if kind.weights not in labels}
    folders = folders if several else {"": list(rows)[-1]}
    found = {name: figure_data.read(path / folder) for folder, name in folders.items()}
    return {
        name: each
        for name, each in found.items()
        if each is not None and np.ptp(each.relative()) > 1e-3
    }


def _check_set(folder):
    """Raise ValueError for a set that is not the one that the run recorded."""
    for name in (store.SYNTHETIC, store.WHITENING):
        if (folder / name).exists() and not manifest.is_intact(folder, name):
            raise ValueError(f"{folder / name} is not the file that the run wrote; resume the run")


def _profile(folder):
    """The profile in the folder of a run, None where there is none."""
    path = folder / "profile.json"
    if not path.exists():
        return None
    found, expected = profiles.read(path), files.file_digest(folder / store.SYNTHETIC)
    if found.get("set") != expected:
        raise ValueError(f"{path} is of another set; delete it and profile again")
    return found


def _progress(folder):
    """The lines of progress.jsonl that hold a step and numbers, and nothing of them else."""
    with files.hint("delete it, since a report needs none"):
        lines = store.progress(folder)
    numbers = [{k: v for k, v in line.items() if results.finite(v) is not None} for line in lines]
    return [line for line in numbers if "step" in line]


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
    with files.hint("delete it and resume"):
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


def _grid(path: pathlib.Path, synthetic: store.Synthetic) -> pages.Grid:
    sizes = dict(zip(_DRAWN, synthetic.labels.shape, strict=True))
    rows, columns = (min(limit, sizes[what]) for what, limit in _DRAWN.items())
    names = synthetic.provenance.get("class_names") or range(len(synthetic.images))
    if not isinstance(names, (list, range)) or len(names) != len(synthetic.images):
        raise ValueError(f"{path}: class_names must name {len(synthetic.images)}, found {names!r}")
    return pages.grid(
        synthetic.images[:rows, :columns],
        mean=synthetic.mean,
        std=synthetic.std,
        names=list(map(str, names))[:rows],
        cut=[(what, n, sizes[what]) for what, n in _DRAWN.items() if sizes[what] > n],
    )


def _picture(path: pathlib.Path) -> pages.Picture:
    with files.hint("delete it, since a report needs none"):
        return pages.Picture(path.read_bytes(), *pages.picture_size(path))


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
    report = report._replace(rows={name: _shown(row) for name, row in report.rows.items()})
    values = report._asdict() | _accuracies(report) | _records(report) | _repetition(report)
    values |= {"kinds": results.KINDS, "least": results.LEAST, "curves": _drawn_curves(report)}
    values |= {"features": plot.FEATURES, "spectra": _drawn_profile(report)}
    values |= {"extremes": {name: _extremes(found) for name, found in report.kept.items()}}
    return pages.TEMPLATES.get_template("report.html.j2").render(values)


def write_tables(
    folder: str | os.PathLike, page: str, *, suffixes: Iterable[str]
) -> list[pathlib.Path]:
    """Writes every table of a page.

    Args:
        folder: to write to.
        page: from `render`.
        suffixes: some of .csv and .tex.

    Returns:
        The files.
    """
    forms = {".csv": tables.as_csv, ".tex": tables.as_latex}
    texts = {
        pathlib.Path(folder, table.name + suffix): forms[suffix](table)
        for table in tables.read(page)
        for suffix in suffixes
    }
    for path, text in texts.items():
        pages.write(path, text)
    return list(texts)


def write_figures(folder: str | os.PathLike, report: Report) -> list[pathlib.Path]:
    """Draws every figure of a report again, as SVG and as PDF.

    Args:
        folder: to write to.
        report: from `read`.

    Returns:
        The files. Figures of weights are drawn where what they show was kept, which earlier
        versions did not.
    """
    figures = _figures(report)
    paths = {
        pathlib.Path(folder, re.sub(r"[^\w-]+", "-", name) + form): draw
        for name, draw in figures.items()
        for form in FORMATS
    }
    for path, draw in paths.items():
        draw(path)
    return list(paths)


def _figures(report):
    """What draws each figure into a path."""
    bars = {
        name: {score: row.get(score) for score in results.SCORES}
        for name, row in map(lambda item: (item[0], _shown(item[1])), report.rows.items())
    }
    found: dict[str, Any] = {"accuracy": functools.partial(plot.accuracy_bars, rows=bars)}
    if panels := _curves(report):
        found["along-the-way"] = functools.partial(plot.curves, panels=panels)
    if report.profile is not None:
        found["profile"] = functools.partial(plot.profile, found=report.profile)
    for name, each in report.sets.items():
        names = report.grids[name].names if not report.grids[name].cut else ()
        found[f"synthetic-{name}"] = functools.partial(
            plot.synthetic_grid, images=each.images, mean=each.mean, std=each.std, class_names=names
        )
    for name, each in report.kept.items():
        found[f"weights-{name}"] = functools.partial(
            plot.weights_by_group, weights=each.weights, labels=each.labels,
            attributes=each.attributes, aligned=each.aligned,
        )  # fmt: skip
        found[f"real-{name}"] = functools.partial(
            plot.comparison, mean=np.zeros(3), std=np.ones(3), class_names=each.class_names,
            sets={
                "heaviest": each.heaviest / np.float32(255),
                "lightest": each.lightest / np.float32(255),
            },
        )  # fmt: skip
        if each.plane is not None:
            found[f"embedding-{name}"] = functools.partial(
                plot.embedding_map, embeddings=each.plane, labels=each.labels,
                attributes=each.attributes, class_names=each.class_names,
                attribute_names=each.attribute_names,
            )  # fmt: skip
    return found


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row without what too few test images say."""
    smallest = results.smallest_group(row)
    return {**row, "worst_group": None} if smallest and smallest < results.LEAST else {**row}


def _extremes(found: figure_data.FigureData) -> dict[str, pages.Grid]:
    """The heaviest and the lightest real images, by what they are called."""
    k = len(found.heaviest)
    names = list(found.class_names or map(str, range(k)))[:k]
    total = int(found.labels.max()) + 1
    cut = [("classes", k, total)] if total > k else []
    draw = functools.partial(pages.grid, mean=np.zeros(3), std=np.ones(3), names=names, cut=cut)
    return {
        f"{name} real images": draw(images / np.float32(255))
        for name, images in (("heaviest", found.heaviest), ("lightest", found.lightest))
    }


def _curves(report: Report) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Returns "loss" and accuracies -> row -> (steps, values), of rows with two points or more."""
    panels = {}
    for key, title in (
        ("loss", "loss"),
        ("accuracy", "accuracy, %"),
        ("conflicting", "conflicting, %"),
    ):
        lines = {}
        for name, records in report.progress.items():
            points = [(record["step"], record[key]) for record in records if key in record]
            end = results.finite((report.rows[name].get(key) or {}).get("mean"))
            if points and key != "loss" and end is not None:
                points.append((records[-1]["step"], end))
            times = 1 if key == "loss" else 100
            if len(points) > 1:
                lines[name] = [x for x, _ in points], [times * y for _, y in points]
        if lines:
            panels[title] = lines
    return panels


def _drawn_curves(report: Report) -> pages.Picture | None:
    panels = _curves(report)
    return _drawn(functools.partial(plot.curves, panels=panels)) if panels else None


def _drawn_profile(report: Report) -> pages.Picture | None:
    found = report.profile
    return None if found is None else _drawn(functools.partial(plot.profile, found=found))


def _drawn(draw: Callable[[pathlib.Path], None]) -> pages.Picture:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "figure.png")
        draw(path)
        return _picture(path)


def _accuracies(report: Report) -> dict[str, Any]:
    """Returns the row the page is opened for, a plain one beside it, and what is known by group."""
    rows = report.rows
    main = next(name for name in ("kde", *reversed(rows)) if name in rows)
    found = {score: [row.get(score) for row in rows.values()] for score in results.SCORES}
    plain = next((name for name in ("none", "random") if name in rows.keys() - {main}), None)
    return {
        "main": main,
        "plain": plain,
        "scores": {
            score: word
            for score, word in results.SCORES.items()
            if score == "accuracy" or any(pages.mean(each) != "–" for each in found[score])
        },
        "remarks": {name: text for name, row in rows.items() if (text := results.remark(row))},
        "smallest": next(filter(None, map(results.smallest_group, rows.values())), None),
        "by_class": {name: row["by_class"] for name, row in rows.items() if row.get("by_class")},
        "by_group": _groups(rows, main, plain),
        "charts": [
            name for name, each in found.items() if any(pages.mean(score) != "–" for score in each)
        ],
        "intervals": any(results.interval(score) for each in found.values() for score in each),
    }


def _groups(rows, main, plain):
    """What is known by group of the two rows, of one alone where there are only sizes to tell."""
    kept = {name: rows[name].get("by_group") for name in (main, plain) if name is not None}
    kept = {
        name: found | {"scored": max(map(max, found["test"])) >= results.LEAST}
        for name, found in kept.items()
        if found
    }
    scored = any(found["scored"] for found in kept.values())
    return kept if scored else dict(list(kept.items())[:1])


def _records(report: Report) -> dict[str, Any]:
    """Returns what some rows hold besides accuracies: weights, trials of weights, seconds."""
    weights, choices, seconds = (
        {name: row[part] for name, row in report.rows.items() if row.get(part)}
        for part in ("weights", "choice", "seconds")
    )
    stages = (*results.STAGES, "compile")
    return {
        "weights": weights,
        "grouped": any(each.get("conflict_weight_share") is not None for each in weights.values()),
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
        asked = options.from_config(config)
        chosen = options.make(method=asked.method, preset=asked.preset, ipc=asked.ipc)
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
