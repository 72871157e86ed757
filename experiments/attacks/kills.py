"""SIGKILL in every command and method, at four kinds of moments, and the command again.

By time, before and after the n-th renaming of a file to one of the folder, and before the n-th
other operation on its files that Python does. After each kill every file must be whole, and what
was in the folder before must be there as it was, or as the command makes it. Then the command, with
--resume where it has that, must end with what the undisturbed one leaves, to the bit.
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
seen = dict.fromkeys(("before", "after", "other"), 0)

def moment(name):
    seen[name] += 1
    if name == kind and seen[name] == count:
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
from jaxdd.runs import cli
cli.main(sys.argv[4:])
print("moments", *seen.values(), file=sys.stderr)
"""

MOMENTS = ("time", "before", "after", "other")


class Work(NamedTuple):
    """A command that is killed.

    Attributes:
        command: its arguments, given the folder.
        begin: makes what is in the folder before, if there is anything.
        again: arguments that are added after a kill.
    """

    command: Callable[[pathlib.Path], list[Any]]
    begin: Callable[[], pathlib.Path] | None = None
    again: tuple[str, ...] = ("--resume",)


class Undisturbed(NamedTuple):
    """What a command leaves that nobody kills, its seconds, and the number of moments in it."""

    content: dict[str, Any]
    seconds: float
    moments: dict[str, int]


def attacks(laboratory: lab.Laboratory, round_: int) -> Iterator[lab.Attack]:
    """Yields the attacks of a round, two for each command; the round decides on the moments."""
    undisturbed = functools.cache(functools.partial(_undisturbed, laboratory))
    for i, (name, work) in enumerate(works(laboratory).items()):
        for kind in (MOMENTS[(i + round_) % 4], MOMENTS[(i + round_ + 2) % 4]):
            title = f"{name}, {kind}, round {round_}"
            run = functools.partial(_killed, laboratory, work, undisturbed, kind, title)
            yield lab.Attack(title, run)


def works(laboratory: lab.Laboratory) -> dict[str, Work]:
    """The commands by name."""
    ways = {
        "dm": ("none", "kde", "auto", "border", "tone", "oracle", "fairdd"),
        "dc": ("none", "kde", "fairdd"),
        "dsa": ("none", "kde", "oracle"),
        "mtt": ("none", "kde", "auto"),
    }
    found = {}
    for method, names in ways.items():
        for debias in names:
            start = laboratory.command("run", "--debias", debias, method=method)
            found[f"run {method} {debias}"] = _made(start)
    found["run dm batch"] = _made(laboratory.command("run", "--weighting", "batch"))
    rows = {"few": ["random", "none", "kde"], "many": ["random-kde", "auto", "border", "fairdd"]}
    for name, chosen in rows.items():
        found[f"compare {name} rows"] = _made(laboratory.command("compare", "--rows", *chosen))
    return found | _continued(laboratory, laboratory.command("compare", "--rows", *rows["few"]))


def _made(start):
    return Work(lambda folder: [*start, "--out", folder])


def _continued(laboratory, table):
    """Commands on a folder that is there, which must not lose what it has."""
    run = laboratory.command("run")
    whole = lambda: damage.complete(laboratory, run)
    small = laboratory.command("compare", "--rows", "random")
    transfer = ["--networks", "mlp", "convnet", "--dataset", laboratory.images]
    return {
        "compare with more rows": Work(
            lambda folder: [*table, "--out", folder, "--resume"],
            lambda: laboratory.finished(*small),
            (),
        ),
        "run without its set": Work(
            lambda folder: [*run, "--out", folder, "--resume"],
            lambda: _without(laboratory, whole(), "synthetic.npz"),
            (),
        ),
        "run without its weights": Work(
            lambda folder: [*run, "--out", folder, "--resume"],
            lambda: _without(laboratory, whole(), "weights.npz"),
            (),
        ),
        "transfer": Work(
            lambda folder: ["transfer", folder, *transfer],
            lambda: laboratory.finished(*run, "--seed", 1),
            (),
        ),
        "transfer to more": Work(lambda folder: ["transfer", folder, *transfer], whole, ()),
        "report": Work(lambda folder: ["report", folder], whole, ()),
    }


def _without(laboratory, folder, name):
    path = laboratory.folder / f"without-{name}"
    if not path.exists():
        shutil.copytree(folder, path)
        (path / name).unlink()
    return path


def _begun(laboratory, work):
    """A folder in which the command can be called."""
    return laboratory.fresh() if work.begin is None else laboratory.copied(work.begin())


def _undisturbed(laboratory, work):
    folder = _begun(laboratory, work)
    begin, said = time.perf_counter(), folder.with_name("said")
    process = lab.start(CHILD, [folder, "none", 0, *work.command(folder)], said)
    ended = lab.wait(process, said)
    if ended.code != 0:
        raise RuntimeError(f"{lab.line(work.command(folder))}: {ended.err}")
    seconds, numbers = time.perf_counter() - begin, ended.err.split("moments")[1].split()
    moments = dict(zip(MOMENTS[1:], map(int, numbers), strict=True))
    return Undisturbed(lab.content(folder), seconds, moments)


def _killed(laboratory, work, undisturbed, kind, title):
    """Kills the command once or twice, and lets it come to its end."""
    whole, rng = undisturbed(work), np.random.default_rng(list(title.encode()))
    share = rng.uniform(0.15, 0.9)
    while True:  # until it is killed and does not end before
        folder = _begun(laboratory, work)
        before = lab.content(folder) if folder.exists() else {}
        when, killed = _kill(folder, work, kind, share, whole)
        if killed:
            break
        share /= 2
    if rng.random() < 0.4:
        _kill(folder, work, kind, share / 2, whole, *work.again)
    again = [*work.command(folder), *work.again]
    command = f"{lab.line(work.command('FOLDER'))} killed at {when}, then {' '.join(work.again)}"
    if fault := _spoilt(folder, before, whole.content):
        return lab.Outcome("worse", command, fault)
    ended = lab.call(again)
    differing = lambda: lab.differences(whole.content, lab.content(folder))
    return lab.judged(ended, command, wrong=differing, worse=lambda: "it cannot go on", codes=(2,))


def _kill(folder, work, kind, share, whole, *more):
    """Starts the command and kills it; says when, and whether it was still at work."""
    said = folder.with_name("said")
    count = max(1, round(share * whole.moments.get(kind, 0)))
    arguments = [folder, kind, count, *work.command(folder), *more]
    process, seconds = lab.start(CHILD, arguments, said), share * whole.seconds
    if kind == "time":
        time.sleep(seconds)
        process.kill()
    code = lab.wait(process, said).code
    return f"{seconds:.2f} s" if kind == "time" else f"{kind} {count}", code == -9


def _spoilt(folder, before, after):
    """What is not whole after a kill, or has become worse."""
    if not folder.exists():
        return "the folder is gone" if before else ""
    now = {k: v for k, v in lab.content(folder).items() if not k.endswith(".tmp")}
    torn = [name for name, said in now.items() if said == "unreadable"]
    lost = [name for name in before if now.get(name) not in (before[name], after.get(name))]
    return "; ".join([f"{name} is not whole" for name in torn] + [f"{n} is lost" for n in lost])
