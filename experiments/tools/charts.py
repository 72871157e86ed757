"""Charts of results: bars and dots with intervals, and curves."""

import collections
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import (
    amplification,
    bandwidth,
    by_features,
    claims,
    fairdd,
    held_out,
    long,
    main_table,
    no_bias,
    seeds,
    spectrum,
)  # fmt: skip
from experiments.tools import grid, record, words
from jaxdd import kde
from jaxdd.data import files
from jaxdd.runs.reports import style

PUBLISHED = {"plain": 23.8, "density": 91.5}
"""Accuracy in Cui et al. (ICML 2024), table 1: CMNIST, 5 % conflicting, 50 images per class."""

INTERVAL = "Whiskers: 95 % interval (Student's t) of the mean over three synthetic sets."


_BIASES = {
    "cmnist": "colour of digits", "cfmnist": "colour of clothes",
    "cmnist-bg": "colour behind digits",
    "bgfmnist": "natural background", "ccifar10": "corruption", "cifar10-s": "grey or in colour",
}  # fmt: skip
"""Biases of benchmarks in words."""


# --- the headline ------------------------------------------------------------------------------

_HEADLINES = (
    "Small digits,\n10 % conflicting", "MNIST,\n5 % conflicting", "MNIST,\n1 % conflicting",
    "MNIST, 5 %,\n50 per class", "MNIST\nwithout a bias", "Fashion-MNIST,\nbackgrounds",
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
    sizes = dict(width_ratios=[len(data["bars"]), 2])
    options = dict(sharey=True, gridspec_kw=sizes)
    with style.subplots(path, 1650, 700, 1, 2, **options) as (figure, ((left, right),)):
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
        names = "published\n(Cui et al., 2024)", "jaxdd\n(width 32, one set)"
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
        style.add_note(figure, INTERVAL)


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
            the panels.
    """
    settings, panels = data["settings"], data["panels"]
    rows = list(dict.fromkeys(row for panel in panels.values() for row in panel))
    shown = [
        [row for row in rows if any(panel[row][i] for panel in panels.values() if row in panel)]
        for i in range(len(settings))
    ]
    height = 190 + 28 * -(-len(rows) // 4) + sum(30 + 15 * len(names) for names in shown)
    size = 1500, height, 1, len(panels)
    with style.subplots(path, *size, sharex=True, sharey=True) as (figure, (line,)):
        for axes, (title, panel), unit in zip(line, panels.items(), data["units"], strict=True):
            _draw_dots(axes, panel, rows, shown)
            axes.set(title=title, xlabel=unit)
        ends = [x for panel in panels.values() for row in panel.values() for y in row if y
                for x in y]  # fmt: skip
        margin = 0.04 * (max(ends) - min(ends)) + 1
        line[0].set_xlim(max(min(ends) - margin, -2), min(max(ends) + margin, 102))
        line[0].set_yticks(range(len(settings)), settings)
        line[0].set_ylim(len(settings) - 0.5, -0.5)
        handles, labels = line[0].get_legend_handles_labels()
        if list(settings) != labels:
            figure.legend(handles, labels, loc="outside upper left", ncols=4)
        style.add_note(figure, data["note"])


def _draw_dots(axes, panel, rows, shown):
    """Draw the dots of one panel; the shown rows of a setting are below each other."""
    offset = lambda i, row: (shown[i].index(row) - (len(shown[i]) - 1) / 2) * 0.75 / len(rows)
    for place in range(len(shown)):
        axes.axhspan(place - 0.5, place + 0.5, color="#f5f5f5" if place % 2 else "white", zorder=0)
    for index, row in enumerate(rows):
        known = [(i + offset(i, row), *x) for i, x in enumerate(panel.get(row, ())) if x]
        color, _, marker = style.line(row, index)
        y, mean, low, high = np.array(known).T if known else np.empty((4, 0))
        axes.errorbar(
            mean, y, xerr=np.abs([mean - low, high - mean]), fmt=marker, color=color, capsize=2,
            markersize=5.5, elinewidth=1.2, label=words.ROWS.get(row, row),
        )  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")


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
    return {
        "settings": [
            f"{label} ({count} sets)" if marked and count > 1 else label
            for label, count in zip(settings, counts, strict=True)
        ],
        "panels": panels,
        "units": [_UNITS.get(score, "accuracy, %") for score in scores],
        "note": f"{note} Whiskers: {marked.join(spreads[kind] for kind in kinds)}.".strip(),
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


def _constants(cells):
    """Return a sentence with the options that all cells share."""
    values = ({word(cell, name) for cell in cells} for name in ("dataset", *_OPTIONS))
    text = ", ".join(x.pop() for x in values if len(x) == 1)
    return f"{words.capital(text)}." if text else ""


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
    return score and _percent_cell(score._asdict())


# --- bandwidth -----------------------------------------------------------------------------------


def bandwidth_data() -> dict[str, Any]:
    """Return the diagnostics of density weights of every data set, for `heat_maps.draw`."""
    scores = {
        "conflict_weight_share": "Conflict weight share",
        "group_evenness": "Group evenness",
    }
    panels = {}
    for score, name in itertools.product(scores, bandwidth.DATASETS):
        table = files.read_json(record.RESULTS / f"bandwidth-{name}.json")["table"]
        by_place = {(row["factor"], row["temperature"]): 100 * row[score] for row in table}
        panels[f"{scores[score]},\n{_BIASES[name]}"] = [
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


# --- long runs -----------------------------------------------------------------------------------


def long_data(ipc: int) -> dict[str, Any]:
    """Return accuracy on conflicting samples with its deviation, and losses, by row and step."""
    way = files.read_json(record.RESULTS / f"long-{ipc}.json")["way"]
    scored, with_loss = ([x for x in way if x[kind]] for kind in ("scores", "loss"))
    score = lambda point, row, field: 100 * point["scores"][row]["conflicting"][field]
    return {
        "ipc": ipc,
        "steps": [point["step"] for point in scored],
        "accuracy": {
            row: [[score(x, row, "mean"), score(x, row, "std")] for x in scored]
            for row in long.ROWS
        },
        "loss_steps": [point["step"] for point in with_loss],
        "loss": {row: [x["loss"][row] for x in with_loss] for row in long.ROWS},
    }


def long_curves(path: os.PathLike, data: Mapping[str, Any]) -> None:
    """Draw accuracies of all and of the weighted rows, and losses, along the steps."""
    with style.subplots(path, 1750, 620, 1, 3) as (figure, ((everything, weighted, loss),)):
        for row in data["accuracy"]:
            color, dashes, marker = style.ROWS[row]
            mean, std = np.array(data["accuracy"][row]).T
            lines = dict(color=color, linestyle=dashes, linewidth=1.6)
            for axes in (everything, weighted) if row != "plain" else (everything,):
                axes.plot(
                    data["steps"], mean, marker=marker, markersize=5, label=words.ROWS[row], **lines
                )
                axes.fill_between(data["steps"], mean - std, mean + std, color=color, alpha=0.15)
            loss.plot(data["loss_steps"], data["loss"][row], **lines)
        everything.set(title="Conflicting test samples", ylim=(0, 100), ylabel="accuracy, %")
        weighted.set(title="The same, weights only", ylabel="accuracy, %")
        loss.set(title="Loss", ylabel="distribution matching loss (no unit)")
        for axes in (everything, weighted, loss):
            axes.set_xscale("symlog", linthresh=200, linscale=0.6)
            axes.set_xticks(STEPS_SHOWN, [f"{x:,}" for x in STEPS_SHOWN])
            axes.minorticks_off()
            axes.set(xlabel="step (linear up to 200, then logarithmic)", xlim=(-8, 24_000))
            axes.grid(True)
        handles, labels = everything.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        style.add_note(
            figure,
            f"Coloured MNIST, 5 % conflicting, {data['ipc']} images per class, one set per row. "
            "Bands: standard deviation over three networks.",
        )


STEPS_SHOWN = (0, 200, 2_000, 20_000)


# --- spectrum ------------------------------------------------------------------------------------

_SETS = {
    "random": "random\nsubset", "dm": "DM", "low": "low-pass\nDM", "high": "high-pass\nDM",
    "dc": "DC", "dsa": "DSA", "mtt": "MTT", "cfm": "CFM", "dm 20000": "DM, 20,000\nsteps",
}  # fmt: skip
_DIRECTIONS = 40


def spectrum_data() -> dict[str, Any]:
    """Return the cumulated energy of bias and classes by features and benchmark, in %."""
    biases = spectrum.by_bias(spectrum.OUT)
    return {
        f"{what}, {kind}": {
            _BIASES[name]: [
                100 * x for x in bias["spectrum"][kind]["cumulated"][what][:_DIRECTIONS]
            ]
            for name, bias in biases.items()
        }
        for kind in ("random", "trained")
        for what in ("bias", "class")
    }


def spectrum_curves(path: os.PathLike, data: Mapping[str, Any]) -> None:
    """Draw four panels: bias and classes, in features of random and of trained networks."""
    titles = {"bias": "Bias", "class": "Classes", "random": "random", "trained": "trained"}
    shared = dict(sharex=True, sharey=True)
    with style.subplots(path, 1500, 1050, 2, 2, **shared) as (figure, grid_):
        for axes, (name, lines) in zip(grid_.flat, data.items(), strict=True):
            for index, (label, energy) in enumerate(lines.items()):
                color, dashes, marker = style.line(label, index)
                axes.plot(
                    range(len(energy) + 1), [0, *energy], color=color, linestyle=dashes,
                    marker=marker, markevery=(1 + index, 8), markersize=5, label=label,
                )  # fmt: skip
            what, kind = name.split(", ")
            axes.axhline(50, color=style.GREY, linewidth=0.8, linestyle=":")
            axes.set_title(f"{titles[what]}, features of {titles[kind]} networks")
            axes.set(xlim=(0, _DIRECTIONS), ylim=(0, 100))
            axes.grid(True)
        for axes in grid_[:, 0]:
            axes.set_ylabel("cumulated share of the energy, %")
        for axes in grid_[1]:
            axes.set_xlabel("number of directions, in order of real variance")
        handles, labels = grid_[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        note = "The rank of a bias (or of the classes) is where its line crosses 50 %."
        style.add_note(figure, note)


def spectrum_sets_data() -> dict[str, Any]:
    """Return accuracy and retained bias of the sets of each method, for `heat_maps.draw`."""
    biases = spectrum.by_bias(spectrum.OUT)
    accuracy = lambda row: _percent_cell(row["conflicting"])
    return {
        "panels": {
            "Accuracy on conflicting test samples": [
                [accuracy(bias[name]) if name in bias else None for name in _SETS]
                for bias in biases.values()
            ],
        },
        "rows": [_BIASES[name] for name in biases],
        "columns": list(_SETS.values()),
        "row_title": "bias",
        "column_title": "synthetic set",
        "bar": "accuracy, %",
        "limits": [10, 45],
        "note": "20 % conflicting, 10 images per class. ± standard deviation over networks.",
    }


def _percent_cell(score):
    mean, std = 100 * score["mean"], 100 * score["std"]
    return [mean, f"{mean:.1f}\n± {std:.1f}"]


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
