"""Diagrams for the documentation: the pipeline, and the decision of `auto`."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.tools import illustrations, record
from jaxdd.data import files
from jaxdd.runs.reports import style
from jaxdd.weights import candidates, feature_weights

_LINE = 35  # height of a line in pixels
_BLUE, _GREEN, _ORANGE = "#0072b2", "#009e73", "#d55e00"
_PALE = {_BLUE: "#e5f1f8", _GREEN: "#e3f4ee", _ORANGE: "#fbece3", style.GREY: "#f2f2f2"}


def _canvas(figure: Any, width: float, height: float) -> Any:
    """Return axes without lines whose units are pixels, with the origin at the top left."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def _box(
    axes: Any, x: float, y: float, width: float, height: float, text: str, color: str = style.GREY,
    **font: Any,
) -> None:  # fmt: skip
    """Draw a rounded box with text, centred at a point."""
    from matplotlib.patches import FancyBboxPatch

    corner = x - width / 2, y - height / 2
    shape = FancyBboxPatch(
        corner, width, height, boxstyle="round,pad=0,rounding_size=10", edgecolor=color,
        facecolor=_PALE[color], linewidth=1.3,
    )  # fmt: skip
    axes.add_patch(shape)
    axes.text(x, y, text, **{"ha": "center", "va": "center", "linespacing": 1.35} | font)


def _arrow(axes: Any, *points: Sequence[float], color: str = "#444444") -> None:
    """Draw a line through points that ends with an arrow."""
    xs, ys = zip(*points[:-1], strict=True)
    axes.plot(xs, ys, color=color, linewidth=1.3, solid_capstyle="round")
    properties = dict(arrowstyle="-|>", color=color, linewidth=1.3, shrinkA=0, shrinkB=0)
    axes.annotate("", points[-1], points[-2], arrowprops=properties)


# --- the pipeline ------------------------------------------------------------------------------

STAGES = {
    "real images": "9 of 10 zeros are red,\nthe colour of their class",
    "encoder": "trained briefly:\nseparates colours",
    "density weights": "few neighbours:\nlarge weight",
    "weighted sampling": "every colour is drawn\nabout equally often",
    "distillation": "optimises a few\nimages per class",
    "evaluation by group": "accuracy, %, of networks\ntrained on them",
}


def pipeline_data() -> dict[str, Any]:
    """Return the texts of the stages, the scores of the demo, and the embedded digits."""
    rows = files.read_json(record.RESULTS / "demo.json")["rows"]
    scores = {
        row: {group: 100 * rows[row][group]["mean"] for group in ("aligned", "conflicting")}
        for row in ("plain", "density")
    }
    return {"stages": STAGES, "scores": scores, "embedding": illustrations.embedding_data()}


def pipeline(path: os.PathLike, data: dict[str, Any]) -> None:
    """Draw the stages of a run in two lines, with a picture of each."""
    width, height, side, columns, line = 1150, 970, 210, 3, 480
    samples = {name: np.array(x) for name, x in data["embedding"]["samples"].items()}
    zeros = samples["label"] == 0
    uniform, weighted = illustrations.digits(zeros, samples)
    with style.figure(path, width, height) as figure:
        axes = _canvas(figure, width, height)
        step = width / columns
        places = [
            (step * (i % columns + 0.5), 45 + line * (i // columns))
            for i in range(len(data["stages"]))
        ]
        half = 135
        for (x, y), (name, text) in zip(places, data["stages"].items(), strict=True):
            _box(axes, x, y, 2 * half, 58, name, _BLUE, weight="bold", size=11)
            axes.text(x, y + 44, text, ha="center", va="top", size=10.5, linespacing=1.4)
        for (x, y), (z, other) in zip(places, places[1:], strict=False):
            if y == other:
                _arrow(axes, (x + half, y), (z - half, y))
            else:
                turn = other - 65
                _arrow(axes, (x, y + 355), (x, turn), (z, turn), (z, other - 29))

        def inset(index):
            x, y = places[index][0] - side / 2, places[index][1] + 130
            return figure.add_axes(
                (x / width, 1 - (y + side) / height, side / width, side / height)
            )

        pictures = {0: uniform, 3: weighted, 4: illustrations.synthetic_digits(0)}
        for index, picture in pictures.items():
            panel = inset(index)
            panel.imshow(picture, interpolation="nearest")
            panel.axis("off")
        for index, weigh in ((1, False), (2, True)):
            illustrations.scatter(inset(index), samples, zeros, weigh=weigh)
        _draw_scores(inset(5), data["scores"])


def _draw_scores(axes, scores):
    """Draw bars of two groups for plain and weighted distillation."""
    for group, offset in (("aligned", -0.2), ("conflicting", 0.2)):
        values = [row[group] for row in scores.values()]
        axes.bar(np.arange(2) + offset, values, 0.36, color=style.GROUPS[group], label=group)
        for x, value in enumerate(values):
            axes.text(x + offset, value + 2, f"{value:.0f}", ha="center", size=8)
    axes.set_xticks(range(2), ["plain", "density"])
    axes.set(ylim=(0, 112), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize=7.5,
                handlelength=0.9, columnspacing=0.8)  # fmt: skip


# --- the decision of auto ----------------------------------------------------------------------


def auto_data() -> dict[str, str]:
    """Return the texts of the boxes; thresholds are those of the code."""
    z, gain = feature_weights.MIN_Z_SCORE, 100 * feature_weights.MIN_ACCURACY_GAIN
    bimodality = candidates.MIN_BIMODALITY
    check = (
        "Probe network check\nDo small networks that are trained\nwith the weights gain enough on\n"
        "conflicting samples?"
    )
    return {
        "start": "Real images, no bias labels",
        "shortcut": "1  Shortcut test\nDo tone, texture or layout predict\nthe class better than "
        f"features\nthat show the object? (by more\nthan {z:g} standard errors, {gain:g} point)",
        "bimodal": "2  Bimodality\nDoes a candidate separate\nconflicting samples clearly?\n"
        f"(bimodality at least {bimodality:g})",
        "check": check,
        "search": "3  Density search\nDensity weights for several\nencoders and bandwidths:\n"
        "keep the most even ones",
        "check density": check,
        "biased": "Verdict: biased\n\nDistil with\nweights that\nbalance the\ngroups of the\n"
        "candidate",
        "undecided": "Verdict: undecided\nKeep uniform weights, look at\n"
        "the images, or label a few",
        "none": "Verdict: none\nNo evidence of a bias,\nkeep uniform weights",
    }


def auto(path: os.PathLike, data: dict[str, str]) -> None:
    """Draw the tests of `auto` from top to bottom, and the verdicts."""
    width, height, wide, tall = 1350, 1400, 465, 200
    left, middle, right = 245, 785, 1213
    rows = dict(start=50, shortcut=235, bimodal=535, undecided=770, search=1000, none=1230)
    with style.figure(path, width, height - 70) as figure:
        axes = _canvas(figure, width, height - 70)
        say = lambda x, y, text: axes.text(x, y, text, size=11, va="center", color=style.GREY)
        _box(axes, left, rows["start"], wide, 60, data["start"], size=12, weight="bold")
        for name in ("shortcut", "bimodal", "search"):
            _titled_box(axes, left, rows[name], wide, tall, data[name], _BLUE)
        for name, row in (("check", "bimodal"), ("check density", "search")):
            _titled_box(axes, middle, rows[row], wide, tall, data[name], _BLUE)
        for name, color in (("undecided", style.GREY), ("none", _GREEN)):
            _titled_box(axes, middle, rows[name], wide, 140, data[name], color)
        span = rows["search"] - rows["shortcut"] + tall
        center = (rows["search"] + rows["shortcut"]) / 2
        _titled_box(axes, right, center, 250, span, data["biased"], _ORANGE)
        ends = rows["start"] + 30, rows["shortcut"] - tall / 2
        _arrow(axes, (left, ends[0]), (left, ends[1]))
        for row, other, text in (("shortcut", "bimodal", "no"), ("bimodal", "search", "no")):
            y, z = rows[row] + tall / 2, rows[other] - tall / 2
            _arrow(axes, (left, y), (left, z))
            say(left + 12, (y + z) / 2, text)
        for row, other in (("bimodal", "undecided"), ("search", "none")):
            y, z = rows[row] + tall / 2, rows[other] - 70
            _arrow(axes, (middle, y), (middle, z))
            say(middle + 12, (y + z) / 2 - 4, "no")
        edges = left + wide / 2, middle - wide / 2, middle + wide / 2, right - 125
        _arrow(axes, (edges[0], rows["shortcut"]), (edges[3], rows["shortcut"]))
        say(edges[0] + 12, rows["shortcut"] - 18, "yes")
        for row, text in (("bimodal", "yes"), ("search", "")):
            _arrow(axes, (edges[0], rows[row]), (edges[1], rows[row]))
            say(edges[0] + 12, rows[row] - 18, text)
            _arrow(axes, (edges[2], rows[row]), (edges[3], rows[row]))
            say(edges[2] + 12, rows[row] - 18, "yes")


def _titled_box(axes, x, y, width, height, text, color):
    """Draw a box whose first line is bold."""
    _box(axes, x, y, width, height, "", color)
    title, *lines = text.split("\n")
    top = y - _LINE * len(lines) / 2
    axes.text(x, top, title, weight="bold", ha="center", va="center", size=12)
    for index, line in enumerate(lines, 1):
        axes.text(x, top + _LINE * index, line, ha="center", va="center", size=11.5)
