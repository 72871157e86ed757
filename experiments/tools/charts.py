"""Charts of results: bars and dots with intervals, and curves."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import claims, seeds
from experiments.tools import record, words
from jaxdd.data import files
from jaxdd.runs.reports import style

PUBLISHED = {"plain": 23.8, "density": 91.5}
"""Accuracy in Cui et al. (ICML 2024), table 1: CMNIST, 5 % conflicting, 50 images per class."""

INTERVAL = "Whiskers: 95 % interval (Student's t) of the mean over three synthetic sets."


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


def dots(path: os.PathLike, data: Mapping[str, Any]) -> None:
    """Draw one line for each setting with one dot for each row, and intervals, in panels.

    Args:
        path: The file.
        data: "settings": labels of the lines; "panels": title -> row -> [mean, low, high] or None
            for each setting, in %; "note": text below the panels.
    """
    settings, panels = data["settings"], data["panels"]
    rows = list(dict.fromkeys(row for panel in panels.values() for row in panel))
    longest = max(len(line) for label in settings for line in label.split("\n"))
    width = 60 + 13 * longest + 560 * len(panels)
    height = 230 + (26 + 15 * len(rows)) * len(settings)
    with style.subplots(path, width, height, 1, len(panels), sharey=True) as (figure, (line,)):
        for axes, (title, panel) in zip(line, panels.items(), strict=True):
            _dots(axes, panel, rows, len(settings))
            axes.set(title=title, xlabel="accuracy, %")
        line[0].set_yticks(range(len(settings)), settings)
        line[0].set_ylim(len(settings) - 0.5, -0.5)
        handles, labels = line[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4)
        style.add_note(figure, data["note"])


def _dots(axes, panel, rows, count):
    """Draw the dots of one panel; the rows of a setting are below each other."""
    for place in range(count):
        axes.axhspan(place - 0.5, place + 0.5, color="#f5f5f5" if place % 2 else "white", zorder=0)
    ends = [x for values in panel.values() for value in values if value for x in value[1:]]
    margin = 0.06 * (max(ends) - min(ends)) + 1
    for index, row in enumerate(rows):
        offset = (index - (len(rows) - 1) / 2) * 0.75 / len(rows)
        known = [(i + offset, *x) for i, x in enumerate(panel.get(row, ())) if x]
        color, _, marker = style.line(row, index)
        y, mean, low, high = np.array(known).T if known else np.empty((4, 0))
        axes.errorbar(
            mean, y, xerr=np.abs([mean - low, high - mean]), fmt=marker, color=color, capsize=2,
            markersize=5.5, elinewidth=1.2, label=words.ROWS.get(row, row),
        )  # fmt: skip
    axes.set_xlim(max(min(ends) - margin, -2), min(max(ends) + margin, 102))
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
