"""A small data set, commands on it, what they left behind, and the judge.

Commands are called in this process, where compiled programs are kept, or started in one of their
own, where they can be killed. Contents of folders are compared without what differs from one
undisturbed run to the next: seconds, speeds and dates.
"""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxdd.commands import cli
from jaxdd.data import files
from jaxdd.runs.folder import store

ROOT = pathlib.Path(__file__).resolve().parents[2]

SMALL = (
    "--ipc 1 --steps 6 --chunk 2 --save-every 0 --epochs 2 --eval-seeds 2 --network mlp "
    "--batch-size 8 --depth 2 --encoder-width 4 --encoder-steps 3 --strategy color"
).split()
"""Options of a run of seconds, with a state after each of three chunks."""

METHODS = {
    "dm": [],
    "dc": "--method dc --outer 2 --inner 1".split(),
    "dsa": "--method dsa --outer 2 --inner 1".split(),
    "mtt": "--method mtt --num-experts 2 --train-epochs 2 --expert-updates 2 --expert-epochs 1 "
    "--max-start-epoch 1 --syn-steps 2".split(),
}
"""The options of each method that make it as small."""

FAILURES = ("traceback", "silent", "worse", "hang")
"""Verdicts that nothing may get; the others are right and refused."""

VERDICTS = ("right", "refused", *FAILURES)


class Outcome(NamedTuple):
    """What became of an attack: the verdict, how to repeat it by hand, and what was said."""

    verdict: str
    command: str = ""
    said: str = ""


class Attack(NamedTuple):
    """An attack with a name of its own, which is repeated whenever `run` is called."""

    name: str
    run: Callable[[], Outcome]


class Ended(NamedTuple):
    """How a command ended: exit code (None if it did not end), and what it wrote."""

    code: int | None
    out: str
    err: str


class Hung(BaseException):
    """A command took too long."""


# --- commands ----------------------------------------------------------------------------------


def call(arguments: list[Any], *, limit: int = 240) -> Ended:
    """Calls a command in this process, as the command line does, for at most so many seconds."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _alarm(limit):
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else int(bool(stopped.code))
        except Hung:
            code = None
        except BaseException:
            traceback.print_exc()
            code = 1
    return Ended(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _alarm(seconds):
    def stop(*_):
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def start(code: str, arguments: list[Any], said: pathlib.Path) -> subprocess.Popen:
    """Starts Python code with the arguments of a command; its stderr goes to a file."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    with open(said, "wb") as file:
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=nowhere, stderr=file, env=environment)


def wait(process: subprocess.Popen, said: pathlib.Path, *, limit: float = 240) -> Ended:
    """Waits for a process, which is killed after so many seconds."""
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    return Ended(code, "", said.read_text(errors="replace"))


def line(arguments: list[Any]) -> str:
    """A command as one would type it."""
    return shlex.join(["jaxdd", *map(str, arguments)])


# --- what is in a folder -----------------------------------------------------------------------

_TIMES = {"seconds", "date", "steps_per_second", "digest"}  # of all, times too
RECORDS = {"seconds.json", ".lock"}
"""Files that no result depends on, and that differ between undisturbed runs."""


def content(folder: pathlib.Path) -> dict[str, Any]:
    """What the files of a folder say, by their path, without times; of states the newest step."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.name == "checkpoint":
            steps = [int(state.name) for state in path.iterdir() if state.name.isdecimal()]
            found[name.as_posix()] = max(steps, default=None)
        elif path.is_file() and path.name not in RECORDS and "checkpoint" not in name.parts:
            found[name.as_posix()] = said_by(path)
    return found


def said_by(path: pathlib.Path) -> Any:
    """What a file says, without times; "unreadable" if it cannot be read."""
    try:
        return _SAYING.get(path.suffix, _digest)(path)
    except (OSError, ValueError):
        return "unreadable"


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _arrays(path):
    found = files.read_arrays(path)
    return {name: f"{x.dtype} {x.shape} {files.digest(x)}" for name, x in found.items()}


def _timeless(value):
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in _TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _picture(path):
    store.picture_size(path)
    return _digest(path)


_SAYING = {
    ".npz": _arrays,
    ".json": lambda path: _timeless(files.read_json(path)),
    ".jsonl": lambda path: _timeless(files.read_lines(path)),
    ".png": _picture,
}


def differences(
    expected: dict[str, Any], found: dict[str, Any], *, but: Collection[str] = ()
) -> str:
    """In which files two contents differ, "" if in none but those that may."""
    names = sorted(n for n in expected | found if expected.get(n) != found.get(n) and n not in but)
    lacking = [f"{name} is missing" for name in names if name not in found]
    more = [f"{name} is there" for name in names if name not in expected]
    other = [f"{name} differs" for name in names if name in expected and name in found]
    return "; ".join(lacking + more + other)


def page(path: pathlib.Path) -> str:
    """The text of a report, without its pictures."""
    text = path.read_text(encoding="utf-8")
    for begin, end in (("<figure", "</figure>"), ("<img", ">")):
        while begin in text:
            before, _, rest = text.partition(begin)
            text = before + rest.partition(end)[2]
    return text


# --- the judge ---------------------------------------------------------------------------------


def judged(
    ended: Ended,
    command: str,
    *,
    wrong: Callable[[], str] = str,
    worse: Callable[[], str] = str,
    codes: tuple[int, ...] = (2, 3),
) -> Outcome:
    """The verdict on a command.

    Args:
        ended: how it ended.
        command: how to repeat it.
        wrong: called if it ended with 0; what is wrong with what it made, "" if nothing.
        worse: called if it refused; what is worse than before, "" if nothing.
        codes: exit codes that are refusals.
    """
    said = ended.err.strip()
    if ended.code is None:
        return Outcome("hang", command, said[-600:])
    if "Traceback (most recent" in said or ended.code not in (0, *codes):
        return Outcome("traceback", command, f"exit {ended.code}: {said[-900:]}")
    if ended.code:
        if not is_one_line(said):
            return Outcome("traceback", command, f"not one line: {said[-900:]}")
        fault, verdict = worse(), "worse"
    else:
        fault, verdict = wrong(), "silent"
    if fault:
        return Outcome(verdict, command, f"exit {ended.code}: {fault}; {said[-300:]}")
    return Outcome("refused" if ended.code else "right", command, said)


def is_one_line(said: str) -> bool:
    """Whether a refusal is one line, beside those on waiting and on how to go on."""
    lines = [text for text in said.splitlines() if text.strip()]
    others = [t for t in lines if " waits up to " not in t and not t.startswith("continue with: ")]
    return len(others) == 1 and others[0].startswith("jaxdd: ")


# --- the laboratory ----------------------------------------------------------------------------


def draw_images(folder: pathlib.Path, *, seed: int = 0) -> pathlib.Path:
    """Makes 180 images of 8 by 8 pixels and 3 classes, nine tenths in the colour of their class."""
    rng, rows = np.random.default_rng(seed), []
    folder.mkdir(parents=True)
    for i in range(180):
        label = i % 3
        colour = label if rng.random() < 0.9 else int(rng.integers(3))
        pixels = rng.integers(0, 120, (8, 8, 3))
        pixels[..., colour] += 100
        pixels[2 * label : 2 * label + 3] += 30
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.png")
        rows.append((f"{i:03d}.png", f"c{label}", f"a{colour}", "test" if i >= 120 else "train"))
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "attribute", "split"), *rows])
    return folder


@dataclasses.dataclass(frozen=True)
class Laboratory:
    """A folder to work in, with the data set and undisturbed folders, made when asked for."""

    folder: pathlib.Path

    @functools.cached_property
    def images(self) -> pathlib.Path:
        """The folder of images."""
        return draw_images(self.folder / "images")

    def command(self, name: str, *more: Any, method: str = "dm") -> list[Any]:
        """A command on the images; runs have density weights, unless told otherwise."""
        weighed = {"--debias", "--weights"} & {*map(str, more)}
        kde = ["--debias", "kde"] if name == "run" and not weighed else []
        return [name, self.images, *SMALL, *METHODS[method], *kde, *more]

    def fresh(self) -> pathlib.Path:
        """A path where nothing is."""
        path = self.folder / "work" / "out"
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir(parents=True)
        return path

    def finished(self, *command: Any) -> pathlib.Path:
        """The folder that a command with --out makes undisturbed, which is made once."""
        name = hashlib.sha256(json.dumps(command, default=str).encode()).hexdigest()[:12]
        path = self.folder / "finished" / name
        if not path.exists():
            ended = call([*command, "--out", path])
            if ended.code != 0:
                raise RuntimeError(f"{line([*command])} cannot be made: {ended.err}")
        return path

    def copied(self, folder: pathlib.Path) -> pathlib.Path:
        """A copy of a folder, to be spoilt."""
        return pathlib.Path(shutil.copytree(folder, self.fresh()))


def scattered(items: list[Any], rng: np.random.Generator) -> Iterator[Any]:
    """The items in an order of chance."""
    for i in rng.permutation(len(items)):
        yield items[i]
