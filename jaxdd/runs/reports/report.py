"""Write one HTML page about a run or a comparison: settings, scores, images and how to repeat it.

`read` takes the folder of `jaxdd run` or `jaxdd compare`, or a result in JSON. `render` turns it
into a page with templates/report.html.j2.
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

from jaxdd.data import benchmarks, files
from jaxdd.runs import bias, options, results, weightings
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.reports import figure_data, pages, plot, tables
from jaxdd.runs.reports.command_line import command_line
from jaxdd.runs.scoring import matrix, profiles

_PRODUCTS = ("config.json", "result.json", "synthetic.npz")


class Report(NamedTuple):
    """Content of a page about a run or a comparison.

    Attributes:
        rows: Results by row.
        config: The configuration that all rows share.
        sets: Synthetic set of every row that has one.
        weights: Data of the figures of sample weights, by row.
        progress: Lines of progress.jsonl, by row.
        evaluations: Rows of evaluation.json of a run.
        profile: Content of profile.json of a run, or None.
    """

    rows: dict[str, results.Result]
    config: dict[str, Any]
    sets: dict[str, store.Synthetic] = {}
    weights: dict[str, figure_data.FigureData] = {}
    progress: dict[str, list[dict[str, Any]]] = {}
    evaluations: dict[str, dict[str, Any]] = {}
    profile: dict[str, Any] | None = None


# --- reading -----------------------------------------------------------------------------------


def read(path: str | os.PathLike) -> Report:
    """Read a finished run or comparison from its folder, or its result from a JSON file.

    Args:
        path: Folder of `jaxdd run` or `jaxdd compare`, or a file like result.json or compare.json,
            which has no images.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The folder holds no run, the run is not finished, or a file is damaged.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a run folder or a result in JSON")
    if not path.is_dir():
        rows = results.read(path)
        return Report(_hide_small_groups(rows), results.shared_config(rows))
    if not (path / "config.json").exists():
        raise ValueError(f"{path} is not a run folder: there is no config.json")
    config, _ = options.read_config(path / "config.json")
    is_comparison = config.get("command") == "compare" and "row" not in config
    file = path / ("compare.json" if is_comparison else "result.json")
    if not file.exists():
        raise ValueError(_unfinished(path, config))
    with files.hint("delete it and resume"):
        rows = results.read(file)
    folders = {list(rows)[-1]: path}
    if is_comparison:
        folders = {name: path / "rows" / name for name in rows}
    # A page must not show files that were changed after the run.
    for file in (x / name for x in folders.values() for name in _PRODUCTS):
        if not manifest.is_intact(file.parent, file.name):
            raise ValueError(f"{file} is missing or damaged; resume the run to restore it")
    sets = {name: store.read_synthetic(x / "synthetic.npz") for name, x in folders.items()}
    progress = {name: lines for name, x in folders.items() if (lines := _read_progress(x))}
    report = Report(
        _hide_small_groups(rows), config, sets, _read_weights(path, rows, is_comparison), progress
    )
    if is_comparison:
        return report
    file = path / "evaluation.json"
    evaluations = matrix.read(file) if file.exists() else {}
    return report._replace(evaluations=evaluations, profile=_read_profile(path))


def _unfinished(folder, config):
    """Return a message that says how to resume an unfinished run or comparison."""
    with files.hint("delete it and resume"):
        steps = [record.get("step") for record in store.progress(folder)]
    at_step = f", at step {steps[-1]} of {config.get('steps')}" if steps else ""
    begun = [name for name in weightings.rows() if (folder / "rows" / name).is_dir()]
    command = "its first command and --resume"
    if "row" not in config and config["dataset"] in benchmarks.NAMES:
        if line := command_line(config, rows=begun or weightings.DEFAULT_ROWS):
            command = f"{line} --out {shlex.quote(str(folder))} --resume"
    return f"{folder} holds an unfinished run{at_step}; continue with: {command}"


def _hide_small_groups(rows):
    """Return results without the worst-group accuracy of rows with too small a group."""
    size = lambda row: results.smallest_group(row) or results.MIN_GROUP_SIZE
    hide = lambda row: dataclasses.replace(row, worst_group=results.Score())
    is_small = lambda row: size(row) < results.MIN_GROUP_SIZE
    return {name: hide(row) if is_small(row) else row for name, row in rows.items()}


def _read_weights(folder, rows, is_comparison):
    """Return the data of the figures of weights by row, for one of the rows that share weights."""
    folders = {folder: list(rows)[-1]}
    if is_comparison:
        kinds = {name: kind.weighting for name, kind in weightings.rows().items() if name in rows}
        folders = {folder / "weights" / kind: name for name, kind in kinds.items()}
    data = {name: figure_data.read(path) for path, name in folders.items()}
    return {name: x for name, x in data.items() if x is not None and not x.is_uniform()}


def _read_progress(folder):
    """Return the numbers in the lines of progress.jsonl that have a step."""
    with files.hint("delete it; a report can be made without it"):
        lines = store.progress(folder)
    numbers = [{k: v for k, v in line.items() if results.finite(v) is not None} for line in lines]
    return [line for line in numbers if "step" in line]


def _read_profile(folder):
    path = folder / "profile.json"
    if not path.exists():
        return None
    profile = profiles.read(path)
    if profile.get("set") != files.sha256(folder / "synthetic.npz"):
        raise ValueError(f"{path} belongs to another set; delete it and profile again")
    return profile


# --- the page ----------------------------------------------------------------------------------


def write(path: str | os.PathLike, report: Report) -> None:
    """Write the page of a report as one HTML file, atomically."""
    pages.write(path, render(report))


def render(report: Report) -> str:
    """Return the page as HTML."""
    rows, figures = report.rows, _figures(report)
    main, plain = _compared_rows(rows)
    kinds = weightings.rows()
    choices = {name: row.choice for name, row in rows.items() if row.choice}
    values = {
        "config": report.config, "rows": rows, "main": main, "plain": plain,
        "scores": _known_scores(rows), "min_size": results.MIN_GROUP_SIZE,
        "remarks": {name: text for name, row in rows.items() if (text := results.remark(row))},
        "descriptions": {name: kinds[name].description for name in rows if name in kinds},
        "smallest": next(filter(None, map(results.smallest_group, rows.values())), None),
        "tables": _tables(report), "choice_tables": _choice_tables(rows),
        "headlines": {name: bias.headline(x) for name, x in choices.items()},
        "label_remarks": {name: bias.remarks(x) for name, x in choices.items()},
        "figure": lambda name: _draw(name, figures[name]) if name in figures else None,
        "grids": {
            name: pages.grid(x.images, _class_names(x), mean=x.mean, std=x.std)
            for name, x in report.sets.items()
        },
        "weights": {name: _real_grids(data) for name, data in report.weights.items()},
        "command": command_line(report.config, rows=rows),
        "is_benchmark": report.config.get("dataset") in benchmarks.NAMES,
        "environment": _environment(rows),
    }  # fmt: skip
    return pages.TEMPLATES.get_template("report.html.j2").render(values)


def _tables(report: Report) -> dict[str, tables.Table]:
    """Return all tables by name."""
    rows = report.rows
    candidates = [
        tables.accuracy(rows, _known_scores(rows)),
        tables.by_class(rows),
        *(tables.by_group(name, rows[name]) for name in _compared_rows(rows) if name),
        tables.evaluations(report.evaluations) if report.evaluations else None,
        *(tables.spectra(report.profile) if report.profile is not None else ()),
        tables.weights(rows),
        *(table for group in _choice_tables(rows).values() for table in group),
        tables.seconds(rows),
    ]
    return {table.name: table for table in candidates if table is not None}


def _choice_tables(rows):
    return {
        name: tables.choice(row.choice, f"choice-{name}")
        for name, row in rows.items()
        if row.choice
    }


def _figures(report: Report) -> dict[str, Callable[[pathlib.Path], None]]:
    """Return functions that draw a figure into a path, by name."""
    draw: Any = functools.partial
    figures = {"accuracy": draw(plot.accuracy_bars, rows=report.rows)}
    if panels := _curves(report):
        figures["curves"] = draw(plot.curves, panels=panels)
    if report.profile is not None:
        figures["profile"] = draw(plot.profile, profile=report.profile)
    for name, x in report.sets.items():
        moments, names = dict(mean=x.mean, std=x.std), _class_names(x)
        figures[f"synthetic-{name}"] = draw(
            plot.comparison, sets={"": x.images}, class_names=names, **moments
        )
    for name, x in report.weights.items():
        samples = dict(labels=x.labels, attributes=x.attributes)
        names = dict(class_names=x.class_names, attribute_names=x.attribute_names)
        figures[f"weights-{name}"] = draw(
            plot.weights_by_group, weights=x.weights, aligned=x.aligned, **samples
        )
        figures[f"real-{name}"] = draw(
            plot.comparison, sets=x.extremes(), class_names=x.class_names
        )
        if x.plane is not None:
            figures[f"embedding-{name}"] = draw(
                plot.embedding_map, plane=x.plane, **samples, **names
            )
    return figures


def export(
    folder: str | os.PathLike, report: Report, *, suffixes: Iterable[str]
) -> list[pathlib.Path]:
    """Write every table (.csv, .tex) and figure (.svg, .pdf) of a report; return the paths.

    Figures that cannot be drawn are left out with a warning.
    """
    formats = {".csv": tables.as_csv, ".tex": tables.as_latex}
    paths = []
    for suffix in suffixes:
        content: dict[str, Any] = _tables(report) if suffix in formats else _figures(report)
        for name, table_or_draw in content.items():
            path = pathlib.Path(folder, re.sub(r"[^\w-]+", "-", name) + suffix)
            if suffix in formats:
                pages.write(path, formats[suffix](table_or_draw))
            elif plot.attempt(path.name, functools.partial(table_or_draw, path)) is not None:
                continue
            paths.append(path)
    return paths


# --- parts of the page -------------------------------------------------------------------------


def _compared_rows(rows: dict[str, results.Result]) -> tuple[str, str | None]:
    """Return the row that the page is about, and a plain row to compare it with."""
    main = next(name for name in ("density", *reversed(rows)) if name in rows)
    plain = next((name for name in ("plain", "random") if name in rows.keys() - {main}), None)
    return main, plain


def _known_scores(rows):
    """Return the titles of scores that at least one row has."""
    known = lambda key: any(results.finite(getattr(x, key).mean) is not None for x in rows.values())
    return {key: title for key, title in results.SCORES.items() if known(key)}


def _curves(report: Report) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Return loss and accuracies during distillation: label -> row -> (steps, values).

    The final score of a row is the last point of its curve. Curves have at least two points.
    """
    panels, titles = {}, {"accuracy": "accuracy, %", "conflicting": "conflicting, %"}
    for key in ("loss", *titles):
        lines, scale = {}, 100 if key in titles else 1
        for name, records in report.progress.items():
            points = [(record["step"], record[key]) for record in records if key in record]
            final = None if key == "loss" else getattr(report.rows[name], key).mean
            if points and results.finite(final) is not None:
                points.append((records[-1]["step"], final))
            if len(points) > 1:
                lines[name] = [x for x, _ in points], [scale * y for _, y in points]
        if lines:
            panels[titles.get(key, key)] = lines
    return panels


def _class_names(synthetic):
    return synthetic.provenance.get("class_names") or ()


def _real_grids(data: figure_data.FigureData) -> dict[str, pages.Grid]:
    draw = functools.partial(pages.grid, num_classes=int(data.labels.max()) + 1)
    images = data.extremes()
    return {f"{name} real images": draw(x, data.class_names) for name, x in images.items()}


def _draw(name: str, draw: Callable[[pathlib.Path], None]) -> pages.Picture | str:
    """Return a figure as a picture for the page, or a remark if it cannot be drawn."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "figure.png")
        remark = plot.attempt(f"the figure {name}", lambda: draw(path))
        return pages.Picture.from_png(path.read_bytes()) if remark is None else remark


def _environment(rows: Mapping[str, results.Result]) -> dict[str, str]:
    """Return device, date and versions of the rows; different values are joined."""
    values = [{"device": row.device, "date": row.date} | row.versions for row in rows.values()]
    join = lambda words: ", ".join(dict.fromkeys(str(x) for x in words if x is not None)) or "–"
    names = dict.fromkeys(name for value in values for name in value)
    return {name: join(value.get(name) for value in values) for name in names}
