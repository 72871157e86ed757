"""Pass odd words and numbers to each option: commands must reject them in one line or work.

A value that a run accepts must be in its configuration, and its scores must be finite.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.attacks import laboratory as lab
from jaxdd.commands import reference
from jaxdd.data import files
from jaxdd.runs import options, results

WORDS = {
    "0": "0", "-1": "-1", "1.5": "1.5", "nan": "nan", "inf": "inf", "1e400": "1e400",
    "1e20": "1e20", "1e-20": "1e-20", "thirty digits": "9" * 30, "true": "True", "text": "text",
    "nothing": "", "unicode": "ü☃", "very long": "x" * 5000, "a colon": "json:loads",
}  # fmt: skip
"""Values by their names in the record."""

_OTHERS = ("evaluate", "report", "bias", "datasets show", "datasets build")
_METHODS = sorted(options.OPTIONS, key=lambda name: name != "dm")
_FLAGS = {
    option.name: option.flags[0]
    for name in (*_OTHERS, "compare", "run")
    for method in _METHODS
    for option in reference.options(name, method)
    if option.flags
}
"""Options by their names in Python."""


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yield the attacks of a round; the round is the seed of the commands."""
    for command, method, name in [*_options_of_runs(), *_options_of_others()]:
        for word, value in WORDS.items():
            option = name.replace("_", "-")
            title = f"{command} {method} {option} {word}, round {round_}".replace("  ", " ")
            run = functools.partial(_attack, laboratory, command, method, name, value, round_)
            yield lab.Attack(title, run)


def _options_of_runs():
    """Options of run and compare, each once, with a method that has it."""
    methods = {}
    for method in _METHODS:
        for option in reference.options("run", method):
            methods.setdefault(option.name, method)
    yield from (("run", method, name) for name, method in methods.items())
    names = {option.name for option in reference.options("compare")}
    shared = {field.name for field in dataclasses.fields(options.DM)}
    yield from (("compare", "dm", name) for name in sorted(names - shared))


def _options_of_others():
    for command in _OTHERS:
        yield from ((command, "", option.name) for option in reference.options(command))


def _attack(laboratory, command, method, name, value, round_):
    out = laboratory.fresh()
    out.mkdir()
    with contextlib.chdir(out.parent):
        arguments = _arguments(laboratory, command, method, name, value, round_)
        ended = lab.call(arguments)
        wrong = lambda: _wrong(pathlib.Path(arguments[-1]), name, value)
        is_run = command == "run" and name != "out"
        return lab.verdict(ended, lab.line(arguments)[:900], wrong=wrong if is_run else str)


def _arguments(laboratory, command, method, name, value, round_):
    option = _FLAGS.get(name, name)
    words = [value] if name in ("dataset", "folder", "source") else [option, value]
    if command in ("run", "compare"):
        first, words = (words, []) if name in ("debias", "weights") else ([], words)
        start = laboratory.command(command, "--seed", round_, *first, method=method)
        start[1:2] = [] if name == "dataset" else start[1:2]
        rows = ["--rows", "random"] if command == "compare" and name != "rows" else []
        out = [] if name == "out" else ["--out", "out"]
        return [*lab.change([*start, *rows], words), *out]
    if command == "evaluate":
        words = [option, value] if name == "dataset" else words
        words += ["--dataset", laboratory.images] if name != "dataset" else []
        words += ["--networks", "mlp"] if name != "networks" else []
    if command in ("report", "bias") and name != "out":
        words += ["--out", "page.html"]
    subject = [] if words[0] == value else [_subject(laboratory, command)]
    return [*command.split(), *subject, *words]


def _subject(laboratory, command):
    """Return the valid positional argument of a command."""
    if command in ("evaluate", "report"):
        return laboratory.finished(*laboratory.command("run"))
    return "cdigits" if command == "datasets build" else laboratory.images


def _wrong(folder: pathlib.Path, name: str, value: Any) -> str:
    """Return what is wrong with a run that accepted an option."""
    rows = results.read(folder / "result.json")
    stored = files.read_json(folder / "config.json").get(name)
    is_number = isinstance(stored, (int, float)) and not isinstance(stored, bool)
    if is_number and stored != float(value):
        return f"{name} is {stored!r} in config.json"
    scores = [row.accuracy.mean for row in rows.values()]
    scores += [x for row in rows.values() for x in row.weights.values() if x is not None]
    return "" if np.isfinite(np.asarray(scores, float)).all() else f"the scores are {scores}"
