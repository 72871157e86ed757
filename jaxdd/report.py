"""One page about a run: what it was, what came out, what it looks like and how to repeat it.

`read` takes the folder of `jaxdd run` or `jaxdd compare`, or a result as it is committed under
experiments/results; `render` makes an HTML page of it that carries its pictures and loads nothing.
Every number on the page is one of the result, or follows from it by what is said beside it.
"""

import dataclasses
import io
import os
import pathlib
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import scipy.special
from PIL import Image

from jaxdd import benchmarks, page, plot, store
from jaxdd.options import Options

SCORES = {
    "accuracy": "all",
    "aligned": "aligned",
    "conflicting": "conflicting",
    "worst_group": "worst group",
}
"""The accuracies of a row, and what the page calls them."""

ABOUT = {
    "random": "real images, drawn uniformly",
    "random-kde": "real images, drawn by the density weights",
    "none": "distilled with uniform weights",
    "kde": "distilled with density weights, which know no bias label",
    "oracle": "distilled with weights made from the bias labels",
}
"""What the rows of a comparison are."""

_GROUPS = (
    "Aligned samples have the bias attribute that is usual for their class, conflicting ones have "
    "another. The worst group is the pair of class and attribute with the lowest accuracy."
)
_SHARED = ("data", "embed", "density")
_STAGES = (*_SHARED, "distill", "evaluate")
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
    """

    rows: dict[str, dict[str, Any]]
    config: dict[str, Any]
    grids: dict[str, Grid]
    pictures: dict[str, tuple[bytes, tuple[int, int]]]


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
        rows = _rows(path)
        return Report(rows, _common(row["config"] for row in rows.values()), {}, {})
    config = _config(path)
    several = config.get("command") == "compare" and "row" not in config
    _check_finished(path, config, several)
    rows = _rows(path / ("compare.json" if several else "result.json"))
    folders = {name: path / "rows" / name for name in rows} if several else {list(rows)[-1]: path}
    grids = {name: _grid(folder / "synthetic.npz") for name, folder in folders.items()}
    pictures = {name: _picture(path / file) for name, file in _PICTURES.items()
                if (path / file).exists()}
    return Report(rows, config, grids, pictures)


def _config(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        runs = sorted(found.parent.name for found in folder.glob("*/config.json"))
        held = f"; it holds the runs {', '.join(runs[:5])}" if runs else ""
        raise ValueError(f"{folder} is no run folder (no config.json){held}")
    config = store.read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold an object, found {config!r}")
    return config


def _check_finished(folder: pathlib.Path, config: dict[str, Any], several: bool) -> None:
    """Raises unless the folder holds the last file that its command writes."""
    if (folder / "result.json").exists() or (several and (folder / "synthetic.png").exists()):
        return
    steps = [record.get("step") for record in store.progress(folder)]
    where = f", at step {steps[-1]} of {config.get('steps')}" if steps else ""
    line = command(config)
    if line is None or "row" in config:
        line = "the command that began it"
    else:
        line += f" --out {shlex.quote(str(folder))}"
    raise ValueError(f"{folder} holds an unfinished run{where}; continue it with: {line} --resume")


def _rows(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the results in a JSON file by row."""
    found = store.read_json(path)
    if isinstance(found, dict) and isinstance(found.get("rows"), dict) and found["rows"]:
        rows = found["rows"]
    elif isinstance(found, dict) and "accuracy" in found:
        config = found.get("config") if isinstance(found.get("config"), dict) else {}
        name = str(config.get("row") or config.get("debias") or "distilled")
        random = {"random": found["random"]} if "random" in found and name != "random" else {}
        rows = {**random, name: found}
    else:
        raise ValueError(f"{path} holds no result of a run or a comparison")
    for name, row in rows.items():
        _check_row(row, f"{path}, row {name}")
    return {name: {"config": {}, **row} for name, row in rows.items()}


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict) or not isinstance(row.get("accuracy"), dict):
        raise ValueError(f"{where}: expected an accuracy, found none")
    for name in SCORES:
        score = row.get(name)
        if not isinstance(score, dict | None):
            raise ValueError(f"{where}: {name} must hold mean, std and n, found {score!r}")
        for part, limit in (("mean", 1), ("std", 1), ("n", float("inf"))):
            value = (score or {}).get(part)
            if value is not None and (isinstance(value, (bool, str, list, dict)) or (
                value == value and not 0 <= value <= limit
            )):
                raise ValueError(f"{where}: {part} of {name} is out of range, found {value!r}")
    for part in ("config", "weights", "seconds", "versions"):
        if not isinstance(row.get(part), dict | None):
            raise ValueError(f"{where}: {part} must hold names and values, found {row[part]!r}")


def _common(configs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Returns what several configurations agree on."""
    first, *others = [config for config in configs if config] or [{}]
    return {name: value for name, value in first.items()
            if all(name in other and other[name] == value for other in others)}


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


# --- numbers -----------------------------------------------------------------------------------


def percent(score: Mapping[str, Any] | None) -> str:
    """Returns mean ± standard deviation in percent.

    The deviation of a single network, and a mean that is None or NaN, are left out.

    >>> percent({"mean": 0.9157, "std": 0.007, "n": 3}), percent({"mean": 0.5, "std": 0.0, "n": 1})
    ('91.6 ± 0.7', '50.0')
    >>> percent({"mean": float("nan")})
    '–'
    """
    mean, std = (_finite((score or {}).get(part)) for part in ("mean", "std"))
    if mean is None:
        return "–"
    several = std is not None and (score.get("n") or 0) > 1
    return f"{100 * mean:.1f} ± {100 * std:.1f}" if several else f"{100 * mean:.1f}"


def interval(score: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Returns the 95 % interval of the mean over n networks by Student's t, cut to [0, 1].

    With fewer than two networks, or no spread among them, there is none.

    >>> low, high = interval({"mean": 0.5, "std": 0.01, "n": 3})
    >>> f"{low:.4f} {high:.4f}"  # 4.3027 standard errors on either side
    '0.4752 0.5248'
    """
    mean, std, n = (_finite((score or {}).get(part)) for part in ("mean", "std", "n"))
    if mean is None or not std or not n or n < 2:
        return None
    half = float(scipy.special.stdtrit(n - 1, 0.975)) * std / n**0.5
    return max(mean - half, 0.0), min(mean + half, 1.0)


def seconds(rows: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the wall time of all rows: what they share once, distillation and evaluation each.

    >>> seconds({"none": {"seconds": {"data": 4, "distill": 10}},
    ...          "kde": {"seconds": {"data": 4, "distill": 11, "compile": 9}}})
    25.0
    """
    spent = [row.get("seconds") or {} for row in rows.values()]
    once = sum(max((_finite(each.get(stage)) or 0 for each in spent), default=0)
               for stage in _SHARED)
    return float(once + sum(_finite(each.get(stage)) or 0 for each in spent
                            for stage in _STAGES[len(_SHARED):]))


def _finite(value: Any) -> float | None:
    """Returns a number, or None for what is none: NaN, infinities, texts."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and abs(value) < float("inf") else None


def _number(value: Any, form: str) -> str:
    return "–" if _finite(value) is None else format(value, form)


def command(config: Mapping[str, Any]) -> str | None:
    """Returns the command line that makes a run, without the options that have their defaults.

    Args:
      config: as in config.json.

    Returns:
      The command, or None where the configuration is not one of `jaxdd run` or `jaxdd compare`.

    >>> command({"command": "run", "dataset": "cdigits", "debias": "none", "ipc": 2, "seed": 0})
    'jaxdd run cdigits --debias none --ipc 2'
    """
    try:
        chosen = {name: config[name] for name in ("preset", "method", "ipc") if name in config}
        defaults = dataclasses.asdict(Options(**chosen).resolved())
        verb, dataset = config["command"], config["dataset"]
    except (KeyError, TypeError, ValueError):
        return None
    if verb not in ("run", "compare"):
        return None
    defaults |= {name: getattr(Options(), name) for name in chosen}
    if dataset not in benchmarks.NAMES:
        dataset = f"path/to/{dataset}"
    words = ["jaxdd", verb, dataset]
    if verb == "run":
        words += ["--debias", str(config.get("debias"))]
    for name, default in defaults.items():
        value, option = config.get(name, default), name.replace("_", "-")
        if isinstance(value, bool) and value != default:
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None and value != default:
            words += [f"--{option}", str(value)]
    return shlex.join(words)


# --- the page ----------------------------------------------------------------------------------


def write(path: str | os.PathLike, report: Report) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: the HTML file.
      report: from `read`.

    Raises:
      OSError: the disk is full, or the folder cannot be written to.
    """
    with store.atomic_path(path) as temporary:
        temporary.write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """Returns the page as HTML.

    Args:
      report: from `read`.
    """
    sections = (_head, _scores, _charts, _grids, _weights, _embedding, _repeat, _settings, _times)
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
    for start, name in zip(("Networks trained on the set ", "; on the set "), names[:1] + others[:1]):
        accuracy = percent(report.rows[name]["accuracy"]).partition(" ")[0]
        yield start
        yield page.element("em", name)
        yield " get " if name == names[0] else ", "
        yield page.element("b", f"{accuracy} %")
        yield " of the test images right" if name == names[0] else ""
    yield "."


def _scores(report: Report) -> Iterable[page.Html]:
    header = ["row", *(SCORES[name] for name in SCORES), "networks"]
    rows = [
        [name, *(_score(row.get(score)) for score in SCORES), _number(row["accuracy"].get("n"), "d")]
        for name, row in report.rows.items()
    ]
    legend = page.facts((name, ABOUT[name]) for name in report.rows if name in ABOUT)
    yield page.section(
        "Accuracy",
        page.table(
            "Test accuracy in %, mean ± standard deviation over networks trained from scratch; "
            "below it the 95\u00a0% interval of the mean (Student’s t).",
            header, rows,
        ),
        page.element("div", legend, class_="legend"),
    )


def _score(score: Mapping[str, Any] | None) -> page.Html:
    ends = interval(score)
    below = ends and page.element("small", f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}")
    return page.join(percent(score), below)


def _charts(report: Report) -> Iterable[page.Html]:
    charts = []
    for score, name in SCORES.items():
        known = {row: result.get(score) for row, result in report.rows.items()}
        if all(percent(each) == "–" for each in known.values()):
            continue
        bars = [
            page.bar(row, _finite((each or {}).get("mean")), percent(each).partition(" ")[0],
                     interval=interval(each))
            for row, each in known.items()
        ]
        charts.append(page.element(
            "div", page.element("h3", name.capitalize()), *bars, class_=f"card {score}",
        ))
    if len(charts) > 1:
        yield page.section(
            "Accuracy by group",
            page.element("p", _GROUPS, " Lines are 95\u00a0% intervals of the mean.", class_="note"),
            page.element("div", *charts, class_="charts"),
        )


def _grids(report: Report) -> Iterable[page.Html]:
    figures = []
    for name, grid in report.grids.items():
        names = page.element(
            "div", *(page.element("span", each, title=each) for each in grid.names),
            class_="names", aria_hidden="true",
        )
        k, ipc = grid.shape
        picture = page.picture(
            grid.png, size=grid.size,
            alt=f"Images of the set {name}: a row for each of the classes {', '.join(grid.names)}.",
        )
        accuracy = percent(report.rows[name]["accuracy"]).partition(" ")[0]
        title = page.element("h3", page.element("span", name), page.element("span", accuracy, " %"))
        left_out = [f"the first {shown} of {all_of_them} {what}"
                    for shown, all_of_them, what in ((min(ipc, _DRAWN[1]), ipc, "images per class"),
                                                     (min(k, _DRAWN[0]), k, "classes"))
                    if shown < all_of_them]
        note = f"Drawn: {', '.join(left_out)}." if left_out else None
        figures.append(page.figure(
            page.join(title, page.element("div", names, picture, class_="tiles")), note,
            class_="card",
        ))
    if figures:
        yield page.section(
            "Synthetic images", page.element("div", *figures, class_="grids")
        )


def _weights(report: Report) -> Iterable[page.Html]:
    columns = {
        "conflict_auc": ("AUC of finding the conflicting samples", ".3f"),
        "conflict_mass": ("weight on conflicting samples", ".2f"),
        "group_balance": ("balance of the groups", ".2f"),
        "effective_sample_size": ("effective samples per class", ",.0f"),
    }
    rows = {name: row["weights"] for name, row in report.rows.items() if row.get("weights")}
    parts = []
    if rows:
        parts.append(page.table(
            "Weights of the training samples. An AUC of .5 finds nothing, a balance of 1 gives "
            "every bias group of a class the same weight.",
            ["row", *(title for title, _ in columns.values())],
            [[name, *(_number(row.get(column), form) for column, (_, form) in columns.items())]
             for name, row in rows.items()],
        ))
    if "weights" in report.pictures:
        parts.append(_drawn(
            report, "weights",
            alt="Histogram of the relative weights of the training samples by bias group.",
            caption="Density weights relative to uniform ones, among the aligned and the "
            "conflicting samples.",
        ))
    if parts:
        yield page.section("Weights", *parts)


def _embedding(report: Report) -> Iterable[page.Html]:
    if "embedding" in report.pictures:
        yield page.section("Embedding", _drawn(
            report, "embedding",
            alt="Scatter plots of the encoded training samples, coloured by class and by bias "
            "attribute.",
            caption="Where the density was estimated: training samples in the plane of the two "
            "largest principal components.",
        ))


def _drawn(report: Report, name: str, *, alt: str, caption: str) -> page.Html:
    content, size = report.pictures[name]
    picture = page.element(
        "div", page.picture(content, alt=alt, size=size, class_="paper"),
        class_="pan", role="region", aria_label=f"picture of the {name}", tabindex=0,
    )
    kind = "card drawn wide" if size[0] > 1.8 * size[1] else "card drawn"
    return page.figure(picture, caption, class_=kind)


def _repeat(report: Report) -> Iterable[page.Html]:
    line, parts = command(report.config), []
    if line is not None:
        parts.append(page.element("pre", page.element("code", line)))
        dataset = report.config["dataset"]
        if dataset not in benchmarks.NAMES:
            parts.append(page.element(
                "p", "Put the folder of the images in place of ",
                page.element("code", f"path/to/{dataset}"), f", or tfds:{dataset} if they came "
                "from tensorflow-datasets.", class_="note",
            ))
    rows = report.rows.values()
    versions = [row.get("versions") or {} for row in rows]
    made = {
        "device": _different(row.get("device") for row in rows),
        "date": _different(row.get("date") for row in rows),
        **{name: _different(each.get(name) for each in versions)
           for name in dict.fromkeys(name for each in versions for name in each)},
    }
    parts.append(page.facts(made.items()))
    yield page.section("How to repeat it", *parts)


def _different(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or "–"


def _settings(report: Report) -> Iterable[page.Html]:
    words = {None: "–", True: "yes", False: "no"}
    if report.config:
        yield page.section("Configuration", page.facts(
            (name.replace("_", " "), words[value] if value is None or isinstance(value, bool) else value)
            for name, value in report.config.items()
        ))


def _times(report: Report) -> Iterable[page.Html]:
    rows = {name: row["seconds"] for name, row in report.rows.items() if row.get("seconds")}
    if rows:
        stages = [stage for stage in (*_STAGES, "compile")
                  if any(stage in spent for spent in rows.values())]
        yield page.section("Seconds", page.table(
            "Wall time in seconds. The rows of a comparison share data, embed and density; compile "
            f"is the part of all stages that XLA compiled. Together {seconds(report.rows):,.0f} s.",
            ["row", *stages],
            [[name, *(_number(spent.get(stage), ",.1f") for stage in stages)]
             for name, spent in rows.items()],
        ))
