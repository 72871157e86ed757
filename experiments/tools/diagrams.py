"""Diagrams for the documentation: the pipeline, and the decision of `auto`."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.tools import illustrations, record
from jaxdd.data import files
from jaxdd.runs.reports import style
from jaxdd.weights import candidates, feature_weights

_LINE = 28  # height of a line in pixels
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
    "evaluation by group": "networks trained on them,\ntest set without bias",
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
    """Draw the stages of a run from left to right, with a picture of each."""
    width, height, side, middle = 1800, 515, 210, 190
    samples = {name: np.array(x) for name, x in data["embedding"]["samples"].items()}
    zeros = samples["label"] == 0
    uniform, weighted = illustrations.digits(zeros, samples)
    with style.figure(path, width, height) as figure:
        axes = _canvas(figure, width, height)
        step = width / len(data["stages"])
        places = step * (np.arange(len(data["stages"])) + 0.5)
        for x, (name, text) in zip(places, data["stages"].items(), strict=True):
            _box(axes, x, 395, side + 40, 54, name, _BLUE, weight="bold", size=10)
            axes.text(x, 440, text, ha="center", va="top", color="#333333", linespacing=1.4)
        for x, y in zip(places, places[1:], strict=False):
            _arrow(axes, (x + side / 2 + 22, 395), (y - side / 2 - 22, 395))
        inset = lambda x: figure.add_axes(
            ((x - side / 2) / width, 1 - (middle + side / 2) / height, side / width, side / height)
        )
        pictures = {0: uniform, 3: weighted, 4: illustrations.synthetic_digits(0)}
        for index, picture in pictures.items():
            axes_ = inset(places[index])
            axes_.imshow(picture, interpolation="nearest")
            axes_.axis("off")
        for index, weigh in ((1, False), (2, True)):
            axes_ = inset(places[index])
            illustrations.scatter(axes_, samples, zeros, weigh=weigh)
        _draw_scores(inset(places[5]), data["scores"])
        axes.text(places[0] - side / 2 - 20, 40, "In one class, the digit 0:", color=style.GREY)
        axes.text(places[5], 40, "accuracy by group, %", color=style.GREY, ha="center")


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
    bimodality, share = candidates.MIN_BIMODALITY, 100 * candidates.MIN_CONFIDENT_SHARE
    check = (
        "Probe network check\nTrain small networks with and without the\nweights. Is the gain on "
        "conflicting samples\nsignificant, more than half of the overall\nloss, and more than the "
        "remaining gap?"
    )
    return {
        "start": "Real images, no bias labels",
        "shortcut": "1  Shortcut test\nDo tone, texture or layout predict the\nclass better than "
        f"features that show the\nobject, by more than {z:g} standard errors\nand {gain:g} point?",
        "bimodal": "2  Bimodality\nDoes a candidate separate conflicting\nsamples clearly? "
        f"(bimodality at least {bimodality:g},\nat least {share:g} % clear conflicts, and four\n"
        "clearly typical samples for each)",
        "check": check,
        "search": "3  Density search\nDensity weights for several encoders,\nbandwidths and "
        "temperatures. Keep those\nthat spread the weight of a class\nmost evenly.",
        "check density": check,
        "biased": "Verdict: biased\n\nDistil with weights\nthat balance the groups\n"
        "of the candidate.",
        "undecided": "Verdict: undecided\nKeep uniform weights. Look at the images,\n"
        "or label a few.",
        "none": "Verdict: none\nNo evidence of a bias. Keep uniform weights.",
    }


def auto(path: os.PathLike, data: dict[str, str]) -> None:
    """Draw the tests of `auto` from top to bottom, and the verdicts."""
    width, height, wide, tall = 1500, 1310, 470, 190
    left, middle, right = 265, 820, 1320
    rows = dict(start=50, shortcut=230, bimodal=520, undecided=730, search=950, none=1160)
    with style.figure(path, width, height - 60) as figure:
        axes = _canvas(figure, width, height - 60)
        say = lambda x, y, text: axes.text(x, y, text, size=9.5, va="center", color=style.GREY)
        _box(axes, left, rows["start"], wide, 60, data["start"], size=10, weight="bold")
        for name in ("shortcut", "bimodal", "search"):
            _titled_box(axes, left, rows[name], wide, tall, data[name], _BLUE)
        for name, row in (("check", "bimodal"), ("check density", "search")):
            _titled_box(axes, middle, rows[row], wide, tall, data[name], _BLUE)
        for name, color in (("undecided", style.GREY), ("none", _GREEN)):
            _titled_box(axes, middle, rows[name], wide, 110, data[name], color)
        span = rows["search"] - rows["shortcut"] + tall
        center = (rows["search"] + rows["shortcut"]) / 2
        _titled_box(axes, right, center, 310, span, data["biased"], _ORANGE)
        ends = rows["start"] + 30, rows["shortcut"] - tall / 2
        _arrow(axes, (left, ends[0]), (left, ends[1]))
        for row, other, text in (("shortcut", "bimodal", "no"), ("bimodal", "search", "no")):
            y, z = rows[row] + tall / 2, rows[other] - tall / 2
            _arrow(axes, (left, y), (left, z))
            say(left + 12, (y + z) / 2, text)
        for row, other in (("bimodal", "undecided"), ("search", "none")):
            y, z = rows[row] + tall / 2, rows[other] - 55
            _arrow(axes, (middle, y), (middle, z))
            say(middle + 12, (y + z) / 2 - 4, "no")
        edges = left + wide / 2, middle - wide / 2, middle + wide / 2, right - 155
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
    axes.text(x, top, title, weight="bold", ha="center", va="center", size=10)
    for index, line in enumerate(lines, 1):
        axes.text(x, top + _LINE * index, line, ha="center", va="center", size=9.5)
