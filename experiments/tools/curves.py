"""Curves along the steps of a run and over the directions of a spectrum."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import long, spectrum
from experiments.tools import charts, record, words
from jaxdd.data import files
from jaxdd.runs.reports import style

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
    with style.subplots(path, 1250, 940, 2, 2) as (figure, ((everything, weighted), (loss, blank))):
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
        blank.axis("off")
        blank.legend(handles, labels, loc="center left", labelspacing=1, handlelength=3)
        style.add_note(
            figure,
            f"Coloured MNIST, 5 % conflicting, {data['ipc']} images per class, one set per row. "
            "Bands: standard deviation over three networks.",
        )


STEPS_SHOWN = (0, 200, 2_000, 20_000)


# --- spectrum ------------------------------------------------------------------------------------

_SETS = {
    "random": "random\nsubset", "dm": "DM", "low": "low-pass\nDM", "high": "high-pass\nDM",
    "dc": "DC", "dsa": "DSA", "mtt": "MTT", "cfm": "CFM", "dm 20000": "DM,\n20,000\nsteps",
}  # fmt: skip
_DIRECTIONS = 40


def spectrum_data() -> dict[str, Any]:
    """Return the cumulated energy of bias and classes by features and benchmark, in %."""
    biases = spectrum.by_bias(spectrum.OUT)
    return {
        f"{what}, {kind}": {
            words.BIASES[name]: [
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
    with style.subplots(path, 1250, 940, 2, 2, **shared) as (figure, grid_):
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
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
        note = "The rank of a bias (or of the classes) is where its line crosses 50 %."
        style.add_note(figure, note)


def spectrum_sets_data() -> dict[str, Any]:
    """Return accuracy and retained bias of the sets of each method, for `heat_maps.draw`."""
    biases = spectrum.by_bias(spectrum.OUT)
    accuracy = lambda row: charts.percent_cell(row["conflicting"])
    return {
        "panels": {
            "Accuracy on conflicting test samples": [
                [accuracy(bias[name]) if name in bias else None for name in _SETS]
                for bias in biases.values()
            ]
        },
        "rows": [words.BIASES[name] for name in biases],
        "columns": list(_SETS.values()),
        "row_title": "bias",
        "column_title": "synthetic set",
        "bar": "accuracy, %",
        "limits": [10, 45],
        "note": "20 % conflicting, 10 images per class. ± standard deviation over networks.",
    }
