"""Charts of results: bars and dots with intervals, heat maps of grids, and verdicts."""

import collections
import itertools
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import (
    amplification,
    bandwidth,
    by_features,
    claims,
    decisions,
    fairdd,
    held_out,
    main_table,
    no_bias,
    seeds,
)  # fmt: skip
from experiments.tools import grid, overview, record, words
from jaxdd import kde
from jaxdd.data import files
from jaxdd.runs.reports import style
from jaxdd.weights import candidates

PUBLISHED = {row: overview.PUBLISHED[row] for row in ("plain", "density")}
"""Accuracies of Cui et al. (ICML 2024) in %: CMNIST, 5 % conflicting, 50 images per class."""

INTERVAL = "Whiskers: 95 % interval (Student's t) of the mean over three synthetic sets."


# --- the headline ------------------------------------------------------------------------------

_HEADLINES = (
    "small digits\n10 %", "MNIST\n5 %", "MNIST\n1 %",
    "MNIST, 5 %\n50 per class", "MNIST\nno bias", "clothes on\nbackgrounds",
)  # fmt: skip


def headline_data() -> dict[str, Any]:
    """Return accuracies of `claims` with intervals, and those after 20,000 steps, in %."""
    bars = []
    for claim, label in zip(claims.CLAIMS, _HEADLINES, strict=True):
        means, _ = claims.accuracies(claim)
        rows = dict(zip(("plain", claim.weighted), means.T, strict=True))
        bars.append({"label": label, "rows": {row: interval(x) for row, x in rows.items()}})
    (last,) = files.read_json(record.RESULTS / "long-50.json")["way"][-1:]
    ours = {row: 100 * last["scores"][row]["accuracy"]["mean"] for row in PUBLISHED}
    return {"bars": bars, "published": PUBLISHED, "ours": ours, "steps": last["step"]}


def interval(values: np.ndarray) -> list[float]:
    """Return the mean of shares and the ends of its 95 % interval over sets, in %."""
    return [100 * x for x in seeds.student_interval(np.asarray(values))]


def headline(path: os.PathLike, data: Mapping[str, Any]) -> None:
    """Draw bars of the claims, and of the published setting."""
    sizes = dict(width_ratios=[len(data["bars"]), 2.4])
    options = dict(sharey=True, gridspec_kw=sizes)
    with style.subplots(path, 1450, 680, 1, 2, **options) as (figure, ((left, right),)):
        for place, bar in enumerate(data["bars"]):
            for offset, (row, (mean, low, high)) in zip(
                (-0.2, 0.2), bar["rows"].items(), strict=True
            ):
                _bar(left, place + offset, mean, row, (max(low, 0), min(high, 100)))
        left.set_xticks(range(len(data["bars"])), [bar["label"] for bar in data["bars"]])
        left.set_title("200 steps, 10 images per class unless stated", fontsize=10)
        for place, numbers in enumerate((data["published"], data["ours"])):
            for offset, (row, mean) in zip((-0.2, 0.2), numbers.items(), strict=True):
                _bar(right, place + offset, mean, row)
        names = "published\n(Cui et al.)", "jaxdd\n(one set)"
        right.set_xticks((0, 1), names)
        right.set_title("MNIST, 5 %, 50 images\nper class, 20,000 steps", fontsize=10)
        left.set(ylim=(0, 105), yticks=range(0, 101, 20))
        left.set_ylabel("accuracy on an unbiased test set, %")
        rows = dict.fromkeys(row for bar in data["bars"] for row in bar["rows"])
        for axes in (left, right):
            axes.tick_params(axis="x", length=0)
            axes.grid(True, axis="y")
        for row in rows:
            left.bar([0], [0], color=style.ROWS[row].color, label=words.ROWS[row])
        figure.legend(loc="outside upper left", ncols=len(rows))
        style.add_note(figure, f"%: share of conflicting samples. {INTERVAL}")


def _bar(axes, place, mean, row, ends=None):
    axes.bar([place], [mean], 0.36, color=style.ROWS[row].color)
    top = mean
    if ends is not None:
        error = [[mean - ends[0]], [ends[1] - mean]]
        axes.errorbar([place], [mean], error, fmt="none", ecolor="#888888", capsize=3)
        top = ends[1]
    axes.text(place, top + 1, f"{mean:.1f}", ha="center", va="bottom", size=8)


# --- dots --------------------------------------------------------------------------------------

Groups = Mapping[str, Sequence[grid.Cell]]
"""Cells of each setting by its label. Cells that differ in the seed only are averaged."""

_UNITS = {"deo_max": "gap, percentage points", "deo_mean": "gap, percentage points"}


def dots(path: os.PathLike, data: Mapping[str, Any]) -> None:
    """Draw one line for each setting with one dot for each row, and intervals, in panels.

    Args:
        path: The file.
        data: "settings": labels of the lines; "panels": title -> row -> [mean, low, high] or None
            for each setting, in %; "units": label of the x axis of each panel; "note": text below
            the panels. Optional: "published": title -> row -> value or None for each setting.
    """
    settings, panels = data["settings"], data["panels"]
    rows = list(dict.fromkeys(row for panel in panels.values() for row in panel))
    shown = [
        [row for row in rows if any(panel[row][i] for panel in panels.values() if row in panel)]
        for i in range(len(settings))
    ]
    height = 190 + 28 * -(-len(rows) // 3) + sum(36 + 15 * len(names) for names in shown)
    size = 1250 if len(panels) < 3 else 1500, height, 1, len(panels)
    with style.subplots(path, *size, sharex=True, sharey=True) as (figure, (line,)):
        for axes, (title, panel), unit in zip(line, panels.items(), data["units"], strict=True):
            _draw_dots(axes, panel, rows, shown)
            _draw_published(axes, data.get("published", {}).get(title, {}), rows, shown)
            axes.set(title=title, xlabel=unit)
        ends = [x for panel in panels.values() for row in panel.values() for y in row if y
                for x in y]  # fmt: skip
        margin = 0.04 * (max(ends) - min(ends)) + 1
        line[0].set_xlim(max(min(ends) - margin, -2), min(max(ends) + margin, 102))
        line[0].set_yticks(range(len(settings)), [_wrap(label) for label in settings])
        line[0].set_ylim(len(settings) - 0.5, -0.5)
        handles, labels = line[0].get_legend_handles_labels()
        if list(settings) != labels:
            figure.legend(handles, labels, loc="outside upper left", ncols=3)
        style.add_note(figure, data["note"])


def _wrap(label):
    """Return a label in lines that do not break before a unit."""
    return textwrap.fill(re.sub(r"(?<=\d) (?=%|sets)", "\N{NO-BREAK SPACE}", label), 32)


def _draw_dots(axes, panel, rows, shown):
    """Draw the dots of one panel; the shown rows of a setting are below each other."""
    for place in range(len(shown)):
        axes.axhspan(place - 0.5, place + 0.5, color="#f5f5f5" if place % 2 else "white", zorder=0)
    for index, row in enumerate(rows):
        known = [(_place(i, row, rows, shown), *x) for i, x in enumerate(panel.get(row, ())) if x]
        color, _, marker = style.line(row, index)
        y, mean, low, high = np.array(known).T if known else np.empty((4, 0))
        axes.errorbar(
            mean, y, xerr=np.abs([mean - low, high - mean]), fmt=marker, color=color, capsize=2,
            markersize=5.5, elinewidth=1.2, label=words.ROWS.get(row, row),
        )  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")


def _place(setting, row, rows, shown):
    """Return the y coordinate of a row of a setting."""
    names = shown[setting]
    return setting + (names.index(row) - (len(names) - 1) / 2) * 0.75 / len(rows)


def _draw_published(axes, published, rows, shown):
    """Draw published values as hollow markers."""
    for row, values in published.items():
        color, _, marker = style.line(row, rows.index(row))
        known = [(x, _place(i, row, rows, shown)) for i, x in enumerate(values) if x is not None]
        axes.plot(*np.reshape(known, (-1, 2)).T, marker, color=color, mfc="none", markersize=8)


def dots_data(groups: Groups, scores: Sequence[str], note: str = "") -> dict[str, Any]:
    """Return mean and interval of each row of each setting, for `dots`.

    The interval of several sets is over the sets, that of one set over its networks.
    """
    known = grid.stored()
    settings: dict[str, dict[str, list[Any]]] = {}
    for label, cells in groups.items():
        for cell in cells:
            if (result := grid.result(cell, known)) is not None:
                settings.setdefault(label, {}).setdefault(cell.row, []).append(result)
    rows = dict.fromkeys(cell.row for cells in groups.values() for cell in cells)
    panels = {
        grid.panel_title(score): {
            row: [_spread([getattr(x, score) for x in y.get(row, ())]) for y in settings.values()]
            for row in rows
        }
        for score in scores
    }
    counts = [max(map(len, by_row.values())) for by_row in settings.values()]
    spreads = {False: "standard deviation over evaluation networks"}
    spreads |= {True: f"95 % interval (Student's t) over {max(counts)} sets"}
    kinds = sorted({count > 1 for count in counts}, reverse=True)
    marked = " if marked, otherwise " if len(kinds) == 2 else ""
    is_blank = any(
        not any(x) for panel in panels.values() for x in zip(*panel.values(), strict=True)
    )
    blank = " Blank: no conflicting samples." * is_blank
    return {
        "settings": [
            f"{label} ({count} sets)" if marked and count > 1 else label
            for label, count in zip(settings, counts, strict=True)
        ],
        "panels": panels,
        "units": [_UNITS.get(score, "accuracy, %") for score in scores],
        "note": f"{note} Whiskers: {marked.join(spreads[kind] for kind in kinds)}.{blank}".strip(),
    }


def _spread(scores):
    """Return mean and ends of an interval in %, None without a finite mean."""
    means = np.array([score.mean for score in scores], float)
    if not len(means) or not np.isfinite(means).all():
        return None
    if len(means) > 1:
        mean, low, high = interval(means)
        return [mean, max(low, 0.0), min(high, 100.0)]
    mean, std = 100 * means[0], 100 * float(np.nan_to_num(scores[0].std))
    return [mean, mean - std, mean + std]


# --- grids -------------------------------------------------------------------------------------

_OPTIONS = "method", "ipc", "conflict"


def word(cell: grid.Cell, name: str) -> str:
    """Return the value of an option of a cell in words."""
    if name == "ipc":
        count = cell.options.ipc
        return "1 image per class" if count == 1 else f"{count} images per class"
    return words.DATASETS[cell.dataset] if name == "dataset" else grid.word(cell, name)


def grid_data(claim: grid.Grid, preset: str = "quick") -> dict[str, Any]:
    """Return the settings of a grid in words and the scores of their rows, for `dots`."""
    cells = claim.cells(preset)
    names = dict.fromkeys(("dataset", *_OPTIONS, *claim.down))
    counts = {name: collections.Counter(word(x, name) for x in cells) for name in names}
    names = [name for name in names if len(counts[name]) > 1 and name != "seed"]
    # If the data set is in the label, the most frequent value of other options is left out.
    usual = {name: counts[name].most_common(1)[0][0] for name in names if name != "dataset"}
    usual = usual if "dataset" in names else {}
    groups: dict[str, list[grid.Cell]] = {}
    for cell in cells:
        parts = [word(cell, name) for name in names if word(cell, name) != usual.get(name)]
        label = ", ".join(filter(None, parts)) if names else words.ROWS[cell.row]
        groups.setdefault(label, []).append(cell)
    stated = f" Unless stated: {', '.join(filter(None, usual.values()))}." if usual else ""
    return dots_data(groups, claim.scores, f"{_constants(cells)}{stated}")


def fairdd_data() -> dict[str, Any]:
    """Return the grid of `fairdd` and the accuracies that its authors report, for `dots`."""
    data = grid_data(fairdd.GRID)
    (title, *_), sets = data["panels"], dict.fromkeys(x.dataset for x in fairdd.cells("quick"))
    data["published"] = {
        title: {
            row: [fairdd.PUBLISHED[name].get(row) for name in sets] for row in data["panels"][title]
        }
    }
    data["note"] += " Hollow: published by FairDD."
    return data


def _constants(cells):
    """Return a sentence with the options that all cells share."""
    values = ({word(cell, name) for cell in cells} for name in ("dataset", *_OPTIONS))
    text = ", ".join(x.pop() for x in values if len(x) == 1)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def grid_map_data(claim: grid.Grid, preset: str = "quick") -> dict[str, Any]:
    """Return a grid of two options for `heat_maps.draw`."""
    cells, known = claim.cells(preset), grid.stored()
    (down,), across = claim.down, claim.across
    rows, columns = (list(dict.fromkeys(word(x, name) for x in cells)) for name in (down, across))
    by_place = {(word(x, down), word(x, across)): grid.result(x, known) for x in cells}
    panels = {
        grid.panel_title(score): [
            [_cell(by_place.get((y, x)), score) for x in columns] for y in rows
        ]
        for score in claim.scores
    }
    values = [x[0] for panel in panels.values() for row in panel for x in row if x]
    shorten = lambda labels, name: [label.removeprefix(f"{name} ") for label in labels]
    return {
        "panels": panels,
        "rows": shorten(rows, down),
        "columns": shorten(columns, across),
        "row_title": words.TITLES[down],
        "column_title": words.TITLES[across],
        "bar": "accuracy, %",
        "limits": [float(np.floor(min(values))), float(np.ceil(max(values)))],
        "note": f"{_constants(cells)} ± standard deviation over networks.",
        "wrap": 1,
    }


def _cell(result, score):
    score = result and getattr(result, score)
    return score and percent_cell(score._asdict())


def percent_cell(score: Mapping[str, float]) -> list[Any]:
    """Return the value of a stored score in % and its text, for `heat_maps.draw`."""
    mean, std = 100 * score["mean"], 100 * score["std"]
    return [mean, f"{mean:.1f}\n± {std:.1f}"]


# --- bandwidth -----------------------------------------------------------------------------------


def bandwidth_data() -> dict[str, Any]:
    """Return the diagnostics of density weights of every data set, for `heat_maps.draw`."""
    scores = {"conflict_weight_share": "Conflict weight share", "group_evenness": "Group evenness"}
    panels = {}
    for score, name in itertools.product(scores, bandwidth.DATASETS):
        table = files.read_json(record.RESULTS / f"bandwidth-{name}.json")["table"]
        by_place = {(row["factor"], row["temperature"]): 100 * row[score] for row in table}
        panels[f"{scores[score]},\n{words.BIASES[name]}"] = [
            [[by_place[y, x], f"{by_place[y, x]:.0f}"] for x in bandwidth.TEMPERATURES]
            for y in bandwidth.FACTORS
        ]
    return {
        "panels": panels,
        "rows": [f"{x:g}" for x in bandwidth.FACTORS],
        "columns": [f"{x:g}" for x in bandwidth.TEMPERATURES],
        "row_title": words.TITLES["bandwidth"],
        "column_title": words.TITLES["temperature"],
        "bar": "share or evenness, %",
        "limits": [0, 100],
        "note": "Weights of the training samples, judged by bias labels. "
        f"Default: factor {kde.FACTOR:g}, temperature 1.",
        "wrap": len(bandwidth.DATASETS),
    }


# --- the summary of results ----------------------------------------------------------------------


def real_images_data() -> dict[str, Any]:
    """Return scores of real and synthetic images, drawn uniformly or by weight, for `dots`."""
    rows = "random", "random-density", "plain", "density"
    groups = {"10 images per class": seeds.cells("quick"), "50 images per class": [
        cell for cell in main_table.cells("quick") if cell.options.ipc == 50
    ]}  # fmt: skip
    chosen = {name: [x for x in cells if x.row in rows] for name, cells in groups.items()}
    return dots_data(chosen, ["accuracy"], "Coloured MNIST, DM, 5 % conflicting.")


def unbiased_data() -> dict[str, Any]:
    """Return scores with and without weights on data without a bias, for `dots`."""
    cells = [x for x in no_bias.cells("quick") if x.options.method == "dm"]
    groups = {
        words.DATASETS[name]: [x for x in cells if x.dataset == name]
        for name in ("mnist", "fashion_mnist")
    }
    return dots_data(groups, ["accuracy"], "DM, 10 images per class, no bias.")


def recovered_data() -> dict[str, Any]:
    """Return scores without weights, with `auto` or border, and with bias labels, for `dots`."""
    cells = [*by_features.cells("quick"), *held_out.cells("quick")]
    usual = [x for x in cells if x.options.method == "dm" and x.options.ipc == 10]
    names = {
        "cifar10-s": "grey images", "ccifar10": "corruptions",
        "ccifar10-noise": "noise and blur (held out)", "cifar10-bar": "bar (held out)",
        "fmnist-turn": "turned clothes", "bgfmnist": "natural backgrounds",
    }  # fmt: skip
    groups = {label: [x for x in usual if x.dataset == name] for name, label in names.items()}
    return dots_data(groups, ["conflicting"], "DM, 10 images per class, 5 % conflicting.")


def amplified_data() -> dict[str, Any]:
    """Return scores of random subsets and plain distillation for several biases, for `dots`."""
    cells = [*fairdd.cells("quick"), *amplification.cells("quick")]
    of = lambda cells, name: [x for x in cells if x.dataset == name and x.row in rows]
    rows = "random", "plain"
    groups = {
        "colour behind digits, 10 % conflicting": of(cells, "cmnist-bg"),
        "colour of digits": of(seeds.cells("quick"), "cmnist"),
        "five recurring backgrounds": of(cells, "bgfmnist-few"),
        "natural backgrounds": of(cells, "bgfmnist"),
        "corruptions": of(cells, "ccifar10"),
    }
    note = "DM, 10 images per class, 5 % conflicting unless stated."
    return dots_data(groups, ["conflicting"], note)


# --- verdicts ------------------------------------------------------------------------------------

_VERDICTS = {
    "biased": style.Line("#d55e00", marker="s"),
    "undecided": style.Line("#0072b2", marker="o"),
    "none": style.Line("#8c8c8c", marker="X"),
}


def decisions_data() -> dict[str, Any]:
    """Return largest bimodality and verdict of each seed of each test set, by kind of set."""
    kinds = {True: "With a bias", False: "Without a bias", None: "Special"}
    by_kind: dict[str, dict[str, list[Any]]] = {kind: {} for kind in kinds.values()}
    measured = record.measured(decisions.OUT)
    for title, case in decisions.TEST.items():
        rows = [row for name, row in measured.items() if name.rpartition(", seed ")[0] == title]
        by_kind[kinds[case.biased]][words.title(title)] = [
            [max(x["bimodality"] or 0 for x in row["candidates"]), row["verdict"]] for row in rows
        ]
    return {"sets": by_kind, "limit": candidates.MIN_BIMODALITY}


def verdicts(path: os.PathLike, data: Mapping[str, Any]) -> None:
    """Draw the bimodality of each set, with its verdict as colour and marker."""
    sizes = [len(sets) for sets in data["sets"].values()]
    options = dict(sharex=True, gridspec_kw=dict(height_ratios=sizes))
    with style.subplots(path, 1250, 330 + 36 * sum(sizes), len(sizes), 1, **options) as (
        figure,
        column,
    ):
        for axes, (kind, sets) in zip(column[:, 0], data["sets"].items(), strict=True):
            for place, runs in enumerate(sets.values()):
                for bimodality, verdict in runs:
                    color, _, marker = _VERDICTS[verdict]
                    axes.plot(bimodality, place, marker, color=color, markersize=6, alpha=0.8)
            axes.axvline(data["limit"], color=style.GREY, linestyle=":")
            axes.set_yticks(range(len(sets)), sets)
            axes.set(ylim=(len(sets) - 0.5, -0.5), title=kind)
            axes.grid(True)
        axes.set_xscale("symlog", linthresh=1, linscale=1)
        ticks = 0, data["limit"], 1, 3, 10, 30
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
        axes.set(xlim=(-0.05, 50), xlabel="largest bimodality (linear up to 1, then logarithmic)")
        for verdict, (color, _, marker) in _VERDICTS.items():
            axes.plot([], [], marker, color=color, label=f"verdict: {verdict}")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        style.add_note(
            figure,
            f"Three seeds per set. Below {data['limit']:g} (dotted), only the shortcut test "
            "or the density search can detect a bias.",
        )
