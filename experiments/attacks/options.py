"""Each option of each command with odd words and numbers: refused in one line, or done as told.

What a run takes must stand in its configuration, and its scores must be numbers.
"""

import contextlib
import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.attacks import laboratory as lab
from jaxdd.commands import cli, data_sets, scoring
from jaxdd.data import files
from jaxdd.runs import options, results

WORDS = {
    "0": "0", "-1": "-1", "1.5": "1.5", "nan": "nan", "inf": "inf", "1e400": "1e400",
    "1e20": "1e20", "1e-20": "1e-20", "thirty digits": "9" * 30, "true": "True", "text": "text",
    "nothing": "", "unicode": "ü☃", "very long": "x" * 5000, "a colon": "json:loads",
}  # fmt: skip
"""Values by what the record calls them."""

_OTHERS = {
    "evaluate": scoring.evaluate_set,
    "report": cli.write_report,
    "bias": data_sets.find_bias,
    "datasets show": data_sets.show_dataset,
    "datasets build": data_sets.build_dataset,
}


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yields the attacks of a round; each takes another seed, if it is not the seed's turn."""
    for command, method, name in [*_of_runs(), *_of_others()]:
        for word, value in WORDS.items():
            option = name.replace("_", "-")
            title = f"{command} {method} {option} {word}, round {round_}".replace("  ", " ")
            run = functools.partial(_tried, laboratory, command, method, name, value, round_)
            yield lab.Attack(title, run)


def _of_runs():
    """Options of run and compare, each once, with a method that has it."""
    taken = set()
    for method, kind in options.OPTIONS.items():
        for field in dataclasses.fields(kind):
            if field.name not in taken:
                taken.add(field.name)
                yield "run", method, field.name
    for command in ("run", "compare"):
        for name in inspect.signature(getattr(cli, command)).parameters:
            if name != "options":
                yield command, "dm", name


def _of_others():
    for command, function in _OTHERS.items():
        for name in inspect.signature(function).parameters:
            fields = dataclasses.fields(data_sets.DataArguments)
            for option in [field.name for field in fields] if name == "data" else [name]:
                yield command, "", option


def _tried(laboratory, command, method, name, value, round_):
    out = laboratory.fresh()
    out.mkdir()
    with contextlib.chdir(out.parent):
        arguments = _arguments(laboratory, command, method, name, value, round_)
        ended = lab.call(arguments)
        wrong = lambda: _wrong(pathlib.Path(arguments[-1]), name, value)
        runs = command == "run" and name != "out"
        return lab.verdict(ended, lab.line(arguments)[:900], wrong=wrong if runs else str)


def _arguments(laboratory, command, method, name, value, round_):
    option = f"--{name.replace('_', '-')}"
    given = [value] if name in ("dataset", "folder", "source") else [option, value]
    if command in ("run", "compare"):
        first, given = (given, []) if name in ("debias", "weights") else ([], given)
        start = laboratory.command(command, "--seed", round_, *first, method=method)
        start[1:2] = [] if name == "dataset" else start[1:2]
        rows = ["--rows", "random"] if command == "compare" and name != "rows" else []
        out = [] if name == "out" else ["--out", "out"]
        return [*start, *rows, *given, *out]
    subject = [] if len(given) == 1 else [_subject(laboratory, command)]
    own = ["--dataset", laboratory.images] if command == "evaluate" and name != "dataset" else []
    own += ["--networks", "mlp"] if command == "evaluate" and name != "networks" else []
    if command in ("report", "bias") and name != "out":
        own += ["--out", "page.html"]
    if command == "evaluate" and name == "dataset":
        given, subject = [option, value], [_subject(laboratory, command)]
    return [*command.split(), *subject, *own, *given]


def _subject(laboratory, command):
    """What a command is called for, if not for an odd value."""
    if command in ("evaluate", "report"):
        return laboratory.finished(*laboratory.command("run"))
    return "cdigits" if command == "datasets build" else laboratory.images


def _wrong(folder: pathlib.Path, name: str, value: Any) -> str:
    """What is wrong with a run that took an option at its word."""
    result = results.read_result(folder / "result.json")
    kept = files.read_json(folder / "config.json").get(name)
    if isinstance(kept, (int, float)) and not isinstance(kept, bool) and kept != float(value):
        return f"{name} is {kept!r} in config.json"
    scores = [result["accuracy"]["mean"], result["random"]["accuracy"]["mean"]]
    scores += [x for x in result["weights"].values() if x is not None]
    return "" if np.isfinite(np.asarray(scores, float)).all() else f"the scores are {scores}"
