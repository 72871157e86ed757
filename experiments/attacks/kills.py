"""Send SIGKILL to every command and method at four kinds of moments, and repeat the command.

The moments are a time, before and after the n-th renaming of a file in the folder, and before the
n-th other operation on its files. After a kill every file must be whole, and earlier files must be
unchanged or have the content that the command gives them. Then the command, with --resume if it has
that option, must end with the same products, bit for bit, as an undisturbed run.
"""

import functools
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.attacks import damage
from experiments.attacks import laboratory as lab

CHILD = """
import os, signal, sys
folder, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
counts = dict.fromkeys(("before", "after", "other"), 0)

def moment(name):
    counts[name] += 1
    if name == kind and counts[name] == count:
        os.kill(os.getpid(), signal.SIGKILL)

def replace(source, target, original=os.replace):
    ours = os.fspath(target).startswith(folder)
    ours and moment("before")
    original(source, target)
    ours and moment("after")

def watch(event, arguments):
    if event in ("open", "os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.truncate"):
        str(arguments[0]).startswith(folder) and moment("other")

os.replace = replace
sys.addaudithook(watch)
from jaxdd.commands import cli
cli.main(sys.argv[4:])
print("moments", *counts.values(), file=sys.stderr)
"""

MOMENTS = ("time", "before", "after", "other")


class Work(NamedTuple):
    """A command that is killed.

    Attributes:
        command: its arguments, from the folder.
        begin: function that fills the folder before the command; None for an empty folder.
        again: arguments that are added after a kill.
    """

    command: Callable[[pathlib.Path], list[Any]]
    begin: Callable[[], pathlib.Path] | None = None
    again: tuple[str, ...] = ("--resume",)


class Undisturbed(NamedTuple):
    """The products of a command that is not killed, its seconds, and the number of moments."""

    content: dict[str, Any]
    seconds: float
    moments: dict[str, int]


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yield the attacks of a round, two for each command; the round seeds the moments."""
    undisturbed = functools.cache(functools.partial(_undisturbed, laboratory))
    for i, (name, work) in enumerate(works(laboratory).items()):
        for kind in (MOMENTS[(i + round_) % 4], MOMENTS[(i + round_ + 2) % 4]):
            title = f"{name}, {kind}, round {round_}"
            run = functools.partial(_attack, laboratory, work, undisturbed, kind, title)
            yield lab.Attack(title, run)


def works(laboratory: lab.Laboratory) -> dict[str, Work]:
    """Return the commands by name."""
    debias = {
        "dm": ("plain", "density", "auto", "border", "tone", "oracle", "fairdd"),
        "dc": ("plain", "density", "fairdd"),
        "dsa": ("plain", "density", "oracle"),
        "mtt": ("plain", "density", "auto"),
    }
    starts = {
        f"run {method} {name}": laboratory.command("run", "--debias", name, method=method)
        for method, names in debias.items()
        for name in names
    }
    starts["run dm batch"] = laboratory.command("run", "--weighting", "batch")
    few, many = "random plain density", "random-density auto border fairdd"
    table = laboratory.command("compare", "--rows", *few.split())
    starts["compare few rows"] = table
    starts["compare many rows"] = laboratory.command("compare", "--rows", *many.split())
    run, subset = laboratory.command("run"), laboratory.command("compare", "--rows", "random")
    to = lambda command, *more: lambda folder: [*command, "--out", folder, *more]
    without = lambda name: lambda: _without(laboratory, damage.complete(laboratory, run), name)
    return {name: Work(to(start)) for name, start in starts.items()} | {
        "compare with more rows": Work(
            to(table, "--resume"), lambda: laboratory.finished(*subset), ()
        ),
        "run without its set": Work(to(run, "--resume"), without("synthetic.npz"), ()),
        "run without its weights": Work(to(run, "--resume"), without("weights.npz"), ()),
        "report": Work(
            lambda folder: ["report", folder], lambda: damage.complete(laboratory, run), ()
        ),
    }


def _without(laboratory, folder, name):
    path = laboratory.folder / f"without-{name}"
    if not path.exists():
        shutil.copytree(folder, path)
        (path / name).unlink()
    return path


def _begin(laboratory, work):
    """Return a folder in which the command can be called."""
    return laboratory.fresh() if work.begin is None else laboratory.copy(work.begin())


def _undisturbed(laboratory, work):
    folder = _begin(laboratory, work)
    begin, stderr = time.perf_counter(), folder.with_name("stderr")
    process = lab.start(CHILD, [folder, "none", 0, *work.command(folder)], stderr)
    ended = lab.wait(process, stderr)
    if ended.code != 0:
        raise RuntimeError(f"{lab.line(work.command(folder))}: {ended.err}")
    seconds, numbers = time.perf_counter() - begin, ended.err.split("moments")[1].split()
    moments = dict(zip(MOMENTS[1:], map(int, numbers), strict=True))
    return Undisturbed(lab.content(folder), seconds, moments)


def _attack(laboratory, work, undisturbed, kind, title):
    """Kill the command once or twice, and let it end."""
    whole, rng = undisturbed(work), np.random.default_rng(list(title.encode()))
    # The moment is a share of the undisturbed run, so that it does not depend on the machine.
    share, was_killed = rng.uniform(0.15, 0.9), False
    while not was_killed:  # earlier if the command had ended
        folder = _begin(laboratory, work)
        before = lab.content(folder) if folder.exists() else {}
        when, was_killed = _kill(folder, work, kind, share, whole)
        share = share if was_killed else share / 2
    # Sometimes the command is killed again while it resumes.
    if rng.random() < 0.4:
        _kill(folder, work, kind, share / 2, whole, *_again(folder, work))
    again = _again(folder, work)
    command = f"{lab.line(work.command('FOLDER'))} killed at {when}, then {' '.join(again)}"
    if fault := _losses(folder, before, whole.content):
        return lab.Outcome("worse", command, fault)
    ended = lab.call([*work.command(folder), *again])
    changes = lambda: lab.differences(whole.content, lab.content(folder))
    return lab.verdict(ended, command, wrong=changes, worse=lambda: "cannot continue", codes=(2,))


def _again(folder, work):
    """Return the arguments to add; a run whose folder does not exist cannot be resumed."""
    return work.again if folder.exists() else ()


def _kill(folder, work, kind, share, whole, *more):
    """Start the command, kill it, and return the time and whether it was still running."""
    stderr = folder.with_name("stderr")
    count = max(1, round(share * whole.moments.get(kind, 0)))
    arguments = [folder, kind, count, *work.command(folder), *more]
    process, seconds = lab.start(CHILD, arguments, stderr), share * whole.seconds
    if kind == "time":
        time.sleep(seconds)
        process.kill()
    code = lab.wait(process, stderr).code
    return f"{seconds:.2f} s" if kind == "time" else f"{kind} {count}", code == -9


def _losses(folder, before, after):
    """Return a description of files that are damaged or lost after a kill."""
    if not folder.exists():
        return "the folder is gone" if before else ""
    now = {k: v for k, v in lab.content(folder).items() if not k.endswith(".tmp")}
    torn = [name for name, content in now.items() if content == "unreadable"]
    lost = [name for name in before if now.get(name) not in (before[name], after.get(name))]
    return "; ".join([f"{name} is not whole" for name in torn] + [f"{n} is lost" for n in lost])
