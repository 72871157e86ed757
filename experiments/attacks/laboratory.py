"""Tools of the attacks: a small data set, commands on it, the files they leave, and verdicts.

Commands are called in this process, which keeps compiled programs, or started in their own process,
where they can be killed. Contents of folders are compared without seconds, speeds and dates, which
differ between undisturbed runs.
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
import threading
import traceback
from collections.abc import Callable, Collection
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from PIL import Image

from jaxdd.commands import cli
from jaxdd.data import files
from jaxdd.runs import processes

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Options of a run that takes seconds and saves a checkpoint after each of three chunks.
SMALL = (
    "--ipc 1 --steps 6 --chunk 2 --save-every 0 --epochs 2 --seeds 2 --network mlp "
    "--batch-size 8 --depth 2 --encoder-width 4 --encoder-steps 3 --strategy color"
).split()
METHODS = {
    "dm": [],
    "dc": "--method dc --outer 2 --inner 1".split(),
    "dsa": "--method dsa --outer 2 --inner 1".split(),
    "mtt": "--method mtt --num-experts 2 --train-epochs 2 --expert-updates 2 --expert-epochs 1 "
    "--max-start-epoch 1 --syn-steps 2".split(),
    "cfm": "--method cfm --teacher-steps 4".split(),
}
"""Options of each method that make a run equally short."""

FAILURES = ("traceback", "silent", "worse", "hang")
VERDICTS = ("right", "refused", *FAILURES)


class Outcome(NamedTuple):
    """The verdict on an attack, how to repeat it by hand, and the message."""

    verdict: str
    command: str = ""
    message: str = ""


class Attack(NamedTuple):
    """An attack with a unique name."""

    name: str
    run: Callable[[], Outcome]


class Ended(NamedTuple):
    """How a command ended: exit code (None if it did not end) and stderr."""

    code: int | None
    err: str


class _Hung(BaseException):
    """Raised when a command takes too long."""


# --- commands ----------------------------------------------------------------------------------


def call(arguments: list[Any], *, limit: int = 240) -> Ended:
    """Call a command in this process, for at most `limit` seconds."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    stay = mock.patch.object(processes, "leave", _leave)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), stay, _alarm(limit):
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else int(bool(stopped.code))
        except _Hung:
            code = None
        except BaseException:
            traceback.print_exc()
            code = 1
    return Ended(code, err.getvalue())


def _leave(code):
    """Raise SystemExit when all rows have ended, instead of ending this process before."""
    for thread in threading.enumerate():
        if thread.name.startswith(processes.ROW_THREADS):
            thread.join()
    sys.exit(code)


@contextlib.contextmanager
def _alarm(seconds):
    def stop(*_):
        raise _Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def start(code: str, arguments: list[Any], stderr: pathlib.Path) -> subprocess.Popen:
    """Start Python code with the arguments of a command; its stderr goes to a file."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    with open(stderr, "wb") as file:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environment)


def wait(process: subprocess.Popen, stderr: pathlib.Path, *, limit: float = 240) -> Ended:
    """Wait for a process, and kill it after `limit` seconds."""
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    return Ended(code, stderr.read_text(errors="replace"))


def line(arguments: list[Any]) -> str:
    """Return a command as one would type it."""
    return shlex.join(["jaxdd", *map(str, arguments)])


def change(command: list[Any], options: Collection[Any]) -> list[Any]:
    """Return a command with options and their values, which replace those it has."""
    names, kept, is_replaced = {str(word) for word in options}, [], False
    for word in command:
        if str(word).startswith("--"):
            is_replaced = str(word) in names
        kept += [] if is_replaced else [word]
    return [*kept, *options]


# --- contents of folders -----------------------------------------------------------------------

_TIMES = {"seconds", "date", "steps_per_second"}
RECORDS = {"timing.json", "seconds.json", "manifest.json", ".lock"}
"""Files that no result depends on, or that hold hashes of such files."""


def content(folder: pathlib.Path) -> dict[str, Any]:
    """Return the contents of files by path, without times; of checkpoints the newest step."""
    contents: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.name == "checkpoint":
            steps = [int(state.name) for state in path.iterdir() if state.name.isdecimal()]
            contents[name.as_posix()] = max(steps, default=None)
        elif path.is_file() and path.name not in RECORDS and "checkpoint" not in name.parts:
            contents[name.as_posix()] = _content(path)
    return contents


def _content(path):
    try:
        return _READERS.get(path.suffix, _digest)(path)
    except (OSError, ValueError):
        return "unreadable"


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _arrays(path):
    arrays = files.read_arrays(path)
    return {name: f"{x.dtype} {x.shape} {files.digest(x)}" for name, x in arrays.items()}


def _timeless(value):
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in _TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _picture(path):
    with Image.open(path) as image:
        image.load()
    return _digest(path)


_READERS = {
    ".npz": _arrays,
    ".json": lambda path: _timeless(files.read_json(path)),
    ".jsonl": lambda path: _timeless(files.read_lines(path)),
    ".png": _picture,
}


def differences(
    expected: dict[str, Any], actual: dict[str, Any], *, but: Collection[str] = ()
) -> str:
    """Return in which files two contents differ, except those in `but`; "" for none."""

    def problem(name):
        if name not in actual:
            return f"{name} is missing"
        return f"{name} differs" if name in expected else f"{name} is unexpected"

    names = sorted({*expected, *actual} - {*but})
    return "; ".join(problem(name) for name in names if expected.get(name) != actual.get(name))


def page(path: pathlib.Path) -> str:
    """Return the text of a report without its pictures."""
    text = path.read_text(encoding="utf-8")
    for begin, end in (("<figure", "</figure>"), ("<img", ">")):
        while begin in text:
            before, _, rest = text.partition(begin)
            text = before + rest.partition(end)[2]
    return text


# --- the verdict -------------------------------------------------------------------------------


def verdict(
    ended: Ended,
    command: str,
    *,
    wrong: Callable[[], str] = str,
    worse: Callable[[], str] = str,
    codes: tuple[int, ...] = (2, 3),
) -> Outcome:
    """Return the verdict on a command.

    Args:
        ended: how it ended.
        command: how to repeat it.
        wrong: called after exit code 0; returns a description of errors in the products, or "".
        worse: called after a rejection; returns a description of what was lost, or "".
        codes: exit codes that count as rejection.
    """
    message = ended.err.strip()
    if ended.code is None:
        return Outcome("hang", command, message[-600:])
    if "Traceback (most recent" in message or ended.code not in (0, *codes):
        return Outcome("traceback", command, f"exit {ended.code}: {message[-900:]}")
    if ended.code and not is_one_line(message):
        return Outcome("traceback", command, f"not one line: {message[-900:]}")
    fault = worse() if ended.code else wrong()
    if fault:
        kind = "worse" if ended.code else "silent"
        return Outcome(kind, command, f"exit {ended.code}: {fault}; {message[-300:]}")
    return Outcome("refused" if ended.code else "right", command, message)


def is_one_line(message: str) -> bool:
    """Return whether an error is one line, apart from lines about waiting and how to continue."""
    lines = [text for text in message.splitlines() if text.strip()]
    others = [t for t in lines if " waits up to " not in t and not t.startswith("continue with: ")]
    return len(others) == 1 and others[0].startswith("jaxdd: ")


# --- the laboratory ----------------------------------------------------------------------------


def draw_images(folder: pathlib.Path, *, seed: int = 0) -> pathlib.Path:
    """Make 180 images of 8×8 pixels and 3 classes, 90 % in the colour of their class."""
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
    """A work folder with the data set and undisturbed folders, made when first used."""

    folder: pathlib.Path

    @functools.cached_property
    def images(self) -> pathlib.Path:
        """The folder of images."""
        return draw_images(self.folder / "images")

    def command(self, name: str, *more: Any, method: str = "dm") -> list[Any]:
        """Return a command on the images; runs have density weights by default."""
        has_weights = {"--debias", "--weights"} & {*map(str, more)}
        density = ["--debias", "density"] if name == "run" and not has_weights else []
        return [name, self.images, *SMALL, *METHODS[method], *density, *more]

    def fresh(self) -> pathlib.Path:
        """Return a path that does not exist."""
        path = self.folder / "work" / "out"
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir(parents=True)
        return path

    def finished(self, *command: Any) -> pathlib.Path:
        """Return the folder that an undisturbed command with --out makes; it is made once."""
        name = hashlib.sha256(json.dumps(command, default=str).encode()).hexdigest()[:12]
        path = self.folder / "finished" / name
        if not path.exists():
            ended = call([*command, "--out", path])
            if ended.code != 0:
                raise RuntimeError(f"{line([*command])} failed: {ended.err}")
        return path

    def copy(self, folder: pathlib.Path) -> pathlib.Path:
        """Return a copy of a folder, to be damaged."""
        return pathlib.Path(shutil.copytree(folder, self.fresh()))
