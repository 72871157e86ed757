"""One page about a run: what it was, what came out, what it looks like and how to repeat it.

`read` takes the folder of `jaxdd run` or `jaxdd compare`, or a result as it is committed under
experiments/results; `render` makes an HTML page of it that carries its pictures and loads nothing.
Every number on the page is one of the result, or follows from it by what is said beside it.
"""

import io
import os
import pathlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from jaxdd.data import benchmarks, files
from jaxdd.runs import page, plot, results, store

ABOUT = {
    "random": "real images, drawn uniformly",
    "random-kde": "real images, drawn by the density weights",
    "none": "distilled with uniform weights",
    "kde": "distilled with density weights, which know no bias label",
    "auto": "distilled with weights chosen without bias labels; uniform ones, where others do not pay",
    "oracle": "distilled with weights made from the bias labels",
    "fairdd": "distilled with a loss for every bias group, made from the bias labels",
}
"""What the rows of a comparison are."""

_GROUPS = (
    "Aligned samples have the bias attribute that is usual for their class, conflicting ones have "
    "another. The worst group is the pair of class and attribute with the lowest accuracy. "
    "Lines across the ends of bars are the intervals of the table."
)
_INTERVALS = (
    " Below it the 95\u00a0% interval of the mean (Student’s t), over networks "
    "and not over repeated distillations."
)
_DRAWN = 20, 10  # classes and images per class of a grid
_PICTURES = {"weights": "weights.png", "embedding": "embedding.png"}


class Grid(NamedTuple):
    """A drawn synthetic set.

    Attributes:
        png: the picture, one row per class.
        size: its width and height in pixels.
        shape: classes and images per class of the set, of which at most twenty and ten are drawn.
        names: of the classes, those drawn and no others.
    """

    png: bytes
    size: tuple[int, int]
    shape: tuple[int, int]
    names: list[str]


class Report(NamedTuple):
    """What a page is made of.

    Attributes:
        rows: name -> result, as in result.json.
        config: the configuration that all rows share.
        grids: name -> synthetic set, of the rows that have one.
        pictures: "weights" and "embedding" -> PNG file and its size, if there is one.
        transfer: network -> results, of a run that `jaxdd transfer` was called for.
    """

    rows: dict[str, dict[str, Any]]
    config: dict[str, Any]
    grids: dict[str, Grid]
    pictures: dict[str, tuple[bytes, tuple[int, int]]]
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
    rows = results.read(path / ("compare.json" if several else "result.json"))
    folders = {name: path / "rows" / name for name in rows} if several else {list(rows)[-1]: path}
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
    config = files.read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold an object, found {config!r}")
    return config


def _check_finished(folder: pathlib.Path, config: dict[str, Any], several: bool) -> None:
    """Raises unless the folder holds the last file that its command writes."""
    if (folder / "result.json").exists() or (several and (folder / "synthetic.png").exists()):
        return
    steps = [record.get("step") for record in store.progress(folder)]
    where = f", at step {steps[-1]} of {config.get('steps')}" if steps else ""
    line = None if "row" in config else results.command(config)
    if line is None:
        line = "the command that began it, with"
    else:
        line += f"{' --rows …' if several else ''} --out {shlex.quote(str(folder))}"
    raise ValueError(f"{folder} holds an unfinished run{where}; continue it with: {line} --resume")


def _grid(path: pathlib.Path) -> Grid:
    synthetic = store.read_synthetic(path)
    drawn = synthetic.images[: _DRAWN[0], : _DRAWN[1]]
    tiles = plot.tiles(drawn, mean=synthetic.mean, std=synthetic.std)
    buffer = io.BytesIO()
    Image.fromarray(tiles).save(buffer, "PNG", optimize=True)
    k, ipc = synthetic.labels.shape
    names = synthetic.provenance.get("class_names") or range(k)
    return Grid(buffer.getvalue(), tiles.shape[1::-1], (k, ipc), list(map(str, names))[: _DRAWN[0]])


def _picture(path: pathlib.Path) -> tuple[bytes, tuple[int, int]]:
    content = path.read_bytes()
    # A damaged file raises nearly anything, from SyntaxError to zlib.error.
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            return content, image.size
    except Exception as error:
        raise ValueError(f"{path} is not a readable PNG file: {error}") from error


# --- the page ----------------------------------------------------------------------------------


def write(path: str | os.PathLike, report: Report) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        report: from `read`.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    with files.atomic_path(path) as temporary:
        temporary.write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """Returns the page as HTML.

    Args:
        report: from `read`.
    """
    sections = (
        _head,
        _scores,
        _charts,
        _transfer,
        _grids,
        _weights,
        _choice,
        _embedding,
        _repeat,
        _settings,
        _times,
    )
    return page.document(
        f"{_title(report)} · jaxdd", *(part for section in sections for part in section(report))
    )


def _title(report: Report) -> str:
    ipc = report.config.get("ipc")
    each = "" if ipc is None else f", {ipc} image{'' if ipc == 1 else 's'} per class"
    return f"{report.config.get('dataset', 'results')}{each}"


def _head(report: Report) -> Iterable[page.Html]:
    kinds = {"compare": "jaxdd compare", "run": "jaxdd run"}
    yield page.element(
        "header",
        page.element("p", kinds.get(report.config.get("command"), "jaxdd"), class_="kind"),
        page.element("h1", _title(report)),
        page.element("p", *_finding(report), class_="lead"),
    )


def _finding(report: Report) -> Iterable[Any]:
    """Yields the sentence that the page is opened for: the weighted set against the plain one."""
    names = [name for name in ("kde", *reversed(report.rows)) if name in report.rows]
    others = [name for name in ("none", "random") if name in report.rows and name != names[0]]
    which = "conflicting " if report.config.get("test") == "conflicting" else ""
    yield "Networks trained on the set "
    yield page.element("em", names[0])
    yield " get "
    yield page.element("b", f"{_mean(report.rows[names[0]])} %")
    yield f" of the {which}test images right"
    if others:
        yield "; on the set "
        yield page.element("em", others[0])
        yield ", "
        yield page.element("b", f"{_mean(report.rows[others[0]])} %")
    yield "."


def _mean(row: Mapping[str, Any], score: str = "accuracy") -> str:
    return results.percent(row.get(score)).partition(" ")[0]


def _scores(report: Report) -> Iterable[page.Html]:
    rows = report.rows
    cells = [
        [
            name,
            *(_score(row.get(score)) for score in results.SCORES),
            results.number(row["accuracy"].get("n"), ".0f"),
        ]
        for name, row in rows.items()
    ]
    known = any(results.interval(row.get(key)) for row in rows.values() for key in results.SCORES)
    yield page.section(
        "Accuracy",
        page.table(
            "Test accuracy in %, mean ± standard deviation over networks trained from scratch."
            + _INTERVALS * known,
            ["row", *results.SCORES.values(), "networks"],
            cells,
        ),
        page.facts(((name, ABOUT[name]) for name in rows if name in ABOUT), class_="legend"),
    )


def _score(score: Mapping[str, Any] | None) -> page.Html:
    ends = results.interval(score)
    below = ends and page.element("small", f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}")
    return page.join(results.percent(score), below)


def _charts(report: Report) -> Iterable[page.Html]:
    charts = [
        _chart(report, score, name)
        for score, name in results.SCORES.items()
        if any(_mean(row, score) != "–" for row in report.rows.values())
    ]
    if len(charts) > 1:
        yield page.section(
            "Accuracy by group",
            page.element("p", _GROUPS, class_="note"),
            page.element("div", *charts, class_="charts"),
        )


def _chart(report: Report, score: str, name: str) -> page.Html:
    bars = (
        page.bar(
            each,
            results.finite((row.get(score) or {}).get("mean")),
            _mean(row, score),
            interval=results.interval(row.get(score)),
        )
        for each, row in report.rows.items()
    )
    heading = page.element("h3", name.capitalize())
    return page.element("div", heading, *bars, class_=f"card {score}")


def _transfer(report: Report) -> Iterable[page.Html]:
    if report.transfer:
        scores = ("accuracy", "conflicting")
        yield page.section(
            "Other networks",
            page.table(
                "Test accuracy in %, mean ± standard deviation, of other networks trained on a random "
                "subset of the real images and on the synthetic set of this run.",
                [
                    "network",
                    *(
                        f"{name}, {results.SCORES[score]}"
                        for name in results.TRANSFERRED
                        for score in scores
                    ),
                    "networks",
                    "epochs",
                ],
                [
                    [
                        network,
                        *(
                            results.percent(row[name].get(score))
                            for name in results.TRANSFERRED
                            for score in scores
                        ),
                        *(
                            results.number(row.get(name), ",.0f")
                            for name in ("eval_seeds", "epochs")
                        ),
                    ]
                    for network, row in report.transfer.items()
                ],
            ),
        )


def _grids(report: Report) -> Iterable[page.Html]:
    figures = [_figure(name, grid, _mean(report.rows[name])) for name, grid in report.grids.items()]
    if figures:
        yield page.section("Synthetic images", page.element("div", *figures, class_="grids"))


def _figure(name: str, grid: Grid, accuracy: str) -> page.Html:
    """Returns a synthetic set with its name, its accuracy and the names of its classes."""
    shown = [
        f"the first {limit} of {total} {what}"
        for total, limit, what in zip(grid.shape, _DRAWN, ("classes", "images per class"))
        if total > limit
    ]
    classes = page.element(
        "div",
        *(page.element("span", each, title=each) for each in grid.names),
        class_="names",
        aria_hidden="true",
    )
    picture = page.picture(
        grid.png,
        size=grid.size,
        style=f"max-width:{2.5 * min(grid.shape[1], _DRAWN[1])}rem",
        alt=f"Images of the set {name}: a row for each of the classes {', '.join(grid.names)}.",
    )
    heading = page.element("h3", page.element("span", name), page.element("span", accuracy, " %"))
    return page.figure(
        page.join(heading, page.element("div", classes, picture, class_="tiles")),
        f"Drawn: {' and '.join(shown)}." if shown else None,
        class_="card",
    )


def _weights(report: Report) -> Iterable[page.Html]:
    columns = {
        "conflict_auc": ("AUC of finding the conflicting samples", ".3f"),
        "conflict_mass": ("weight on conflicting samples", ".2f"),
        "group_balance": ("balance of the groups", ".2f"),
        "effective_sample_size": ("effective samples per class", ",.0f"),
    }
    rows = {name: row["weights"] for name, row in report.rows.items() if row.get("weights")}
    known = any(row.get("conflict_mass") is not None for row in rows.values())
    parts = []
    if rows:
        parts.append(
            page.table(
                "Weights of the training samples. An AUC of .5 finds nothing, a balance of 1 gives "
                "every bias group of a class the same weight.",
                ["row", *(title for title, _ in columns.values())],
                [
                    [
                        name,
                        *(results.number(row.get(key), form) for key, (_, form) in columns.items()),
                    ]
                    for name, row in rows.items()
                ],
            )
        )
    if "weights" in report.pictures:
        parts.append(
            _drawn(
                report,
                "weights",
                alt=f"Histogram of the relative weights of the training samples{', by bias group' * known}.",
                caption="Weights of the training samples relative to uniform ones"
                f"{', among the aligned and the conflicting ones' * known}.",
            )
        )
    if parts:
        yield page.section("Weights", *parts)


def _choice(report: Report) -> Iterable[page.Html]:
    """Yields how weights were chosen, for the rows whose weights were."""
    for name, row in report.rows.items():
        if not row.get("choice"):
            continue
        best, balances = row["choice"]["best"], row["choice"]["balances"]
        trials = row["choice"]["trials"]
        encoder, bandwidth, temperature = (
            results.number(best[part], "g")
            for part in ("encoder_steps", "bandwidth", "temperature")
        )
        found = (
            f"The pseudo-groups are balanced best by an encoder of {encoder} steps, bandwidth "
            f"factor {bandwidth} and temperature {temperature}."
        )
        if not trials["best"]["counted"]:
            found = (
                "No held-out sample disagrees with the early classifier. There is nothing to "
                "balance, and uniform weights were kept."
            )
        elif row["choice"]["uniform"]:
            found += " Uniform weights were kept, since those gain too little."
        yield page.section(
            f"Choice of the weights: {name}",
            page.element("p", found, class_="note"),
            _trials(trials),
            _balances(balances),
        )


def _trials(trials: Mapping[str, Mapping[str, Any]]) -> page.Html:
    parts = {"overall": "all", "agreeing": "agreeing", "disagreeing": "disagreeing"}
    return page.table(
        "Accuracy in % of networks trained on real images drawn by the weights, on held-out samples "
        "for which an early classifier agrees or disagrees with the label.",
        ["weights", *parts.values(), "disagreeing samples"],
        [
            [
                kind,
                *(results.percent({"mean": trial[part]}) for part in parts),
                results.number(trial["counted"], ",.0f"),
            ]
            for kind, trial in trials.items()
        ],
    )


def _balances(balances: Sequence[Mapping[str, float]]) -> page.Html:
    temperatures = dict.fromkeys(each["temperature"] for each in balances)
    lines = {}
    for each in balances:
        name = f"{results.number(each['encoder_steps'], 'g')}, {results.number(each['bandwidth'], 'g')}"
        lines.setdefault(name, []).append(results.number(each["balance"], ".2f"))
    return page.table(
        "Balance of the pseudo-groups for encoder steps and bandwidth factor (down) and temperature "
        "(across).",
        ["", *(results.number(each, "g") for each in temperatures)],
        [[name, *cells] for name, cells in lines.items()],
    )


def _embedding(report: Report) -> Iterable[page.Html]:
    if "embedding" in report.pictures:
        yield page.section(
            "Embedding",
            _drawn(
                report,
                "embedding",
                alt="Scatter plots of the encoded training samples, coloured by class and by bias "
                "attribute.",
                caption="Where the density was estimated: training samples in the plane of the two "
                "largest principal components.",
            ),
        )


def _drawn(report: Report, name: str, *, alt: str, caption: str) -> page.Html:
    content, size = report.pictures[name]
    picture = page.scrolling(
        page.picture(content, alt=alt, size=size, class_="paper"), class_="pan"
    )
    kind = "card drawn wide" if size[0] > 1.8 * size[1] else "card drawn"
    return page.figure(picture, caption, class_=kind)


def _repeat(report: Report) -> Iterable[page.Html]:
    line, parts = results.command(report.config, rows=report.rows), []
    if line is not None:
        parts.append(page.element("pre", page.element("code", line)))
        dataset = report.config["dataset"]
        if dataset not in benchmarks.NAMES:
            parts.append(
                page.element(
                    "p",
                    "Put the folder of the images in place of ",
                    page.element("code", f"path/to/{dataset}"),
                    f", or tfds:{dataset} if they came "
                    "from tensorflow-datasets. A run from arrays is repeated by ",
                    page.element("code", "jaxdd.runs.pipeline"),
                    ".",
                    class_="note",
                )
            )
    rows = report.rows.values()
    versions = [row.get("versions") or {} for row in rows]
    made = {
        "device": _different(row.get("device") for row in rows),
        "date": _different(row.get("date") for row in rows),
        **{
            name: _different(each.get(name) for each in versions)
            for name in dict.fromkeys(name for each in versions for name in each)
        },
    }
    parts.append(page.facts(made.items()))
    yield page.section("How to repeat it", *parts)


def _different(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or "–"


def _settings(report: Report) -> Iterable[page.Html]:
    words = {"None": "–", "True": "yes", "False": "no"}
    if report.config:
        yield page.section(
            "Configuration",
            page.facts(
                (name.replace("_", " "), words.get(str(value), value))
                for name, value in report.config.items()
            ),
        )


def _times(report: Report) -> Iterable[page.Html]:
    rows = {name: row["seconds"] for name, row in report.rows.items() if row.get("seconds")}
    if rows:
        stages = [
            stage
            for stage in (*results.STAGES, "compile")
            if any(stage in spent for spent in rows.values())
        ]
        yield page.section(
            "Seconds",
            page.table(
                "Wall time in seconds. The rows of a comparison share data, embed and density; compile "
                "is the part of all stages that XLA compiled. Together "
                f"{results.seconds(report.rows):,.0f} s.",
                ["row", *stages],
                [
                    [name, *(results.number(spent.get(stage), ",.1f") for stage in stages)]
                    for name, spent in rows.items()
                ],
            ),
        )
