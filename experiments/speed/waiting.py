"""How long do users wait for each command, and what for?

    python -m experiments.speed.waiting --data-dir DIR --label before --code CHECKOUT
    python -m experiments.speed.waiting --data-dir DIR --label after

Each command runs in a new process, first without and then with compiled programs on disk. It runs
as on the command line, except that progress is printed line by line. Measured are:

* seconds: wall time of the process.
* import: seconds until the command line is imported.
* first progress: seconds until the first line of progress.
* compile, trace: seconds in which a program was compiled (or read from disk), and traced or
  lowered. Work of other threads may go on meanwhile, and stages include this time.
* stages: seconds between two lines of progress belong to the task of the second line. If it begins
  a task, they belong to "other", those before the first line to "start", and those after the last
  to "end".
* utilisation: CPU time divided by wall time and number of cores.

`--only demo` measures the entries whose name contains a text; `--code` measures another checkout of
the repository under another label. Use a quiet machine: `load` is the load average before the
command.

Cost: 40 minutes on two cores for each label.
"""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import tyro

from experiments.tools import markdown, record
from jaxdd.data import files
from jaxdd.runs import weightings

OUT = record.RESULTS / "waiting-cpu.json"
ROOT = pathlib.Path(__file__).resolve().parents[2]

NETWORKS = ("convnet", "convnet-bn", "mlp", "lenet", "alexnet", "resnet18")
MNIST = ("cmnist", "--conflict", "0.05")
COMMANDS: dict[str, tuple[str, ...]] = {
    "demo": ("demo", "--out", "demo"),
    "run, auto": ("run", *MNIST, "--out", "run"),
    "compare, six rows": ("compare", *MNIST, "--out", "compare"),
    "bias, detected": ("bias", *MNIST),
    "bias, none": ("bias", "cifar10"),
    "audit": ("audit", "set", "--dataset", "cdigits"),
    "evaluate, six networks": (
        "evaluate", "set", "--networks", *NETWORKS, "--epochs", "20", "--seeds", "1",
        "--out", "evaluation.json",
    ),
}  # fmt: skip
"""Arguments by the name of the row, to be run in a folder of their own."""

# The set that is audited and evaluated. How it was distilled does not change how long that takes.
_MAKE_SET = (
    "run", "cdigits", "--debias", "plain", "--steps", "1", "--epochs", "1", "--seeds", "1",
    "--out", "set",
)  # fmt: skip

# Runs the command line of any version of jaxdd, and writes when it was imported and the intervals
# in which it compiled.
_CHILD = """
import json, sys, time
start = time.time()
from jaxdd.commands import cli
import jax, jaxdd
measured = {"import": time.time() - start, "compile": [], "trace": []}
names = {"backend_compile": "compile", "jaxpr_trace": "trace", "jaxpr_to_mlir_module": "trace"}
def listen(event, duration, **_):
    name = names.get(event.rsplit("/", 1)[-1].removesuffix("_duration"))
    if name:
        measured[name].append((time.time() - duration, time.time()))
jax.monitoring.register_event_duration_secs_listener(listen)
cache, out, *words = sys.argv[1:]
jaxdd.keep_programs(folder=cache)
try:
    cli.main(words)
finally:
    with open(out, "w") as file:
        json.dump(measured, file)
"""
_VERBOSE = ("--verbose",)
_SHOWN = 0.05
"""Smallest share of the time of a command that a stage of the table has."""
_LINE = re.compile(r"(\S.*?) (\d+)/(\d+)(?:  |$)")


def measure(
    words: Sequence[str], *, folder: pathlib.Path, cache: pathlib.Path, code: pathlib.Path = ROOT
) -> dict[str, Any]:
    """Run a command in a new process and return what the module describes.

    Args:
        words: arguments of jaxdd.
        folder: empty folder in which it runs.
        cache: folder of compiled programs.
        code: checkout of the repository.

    Raises:
        RuntimeError: if the command fails.
    """
    out, errors = folder / "measured.json", folder / "errors.txt"
    environment = os.environ | {"PYTHONPATH": str(code)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    load, lines = os.getloadavg()[0], []
    start = time.perf_counter()
    command = [sys.executable, "-c", _CHILD, str(cache), str(out), *words, *_VERBOSE]
    streams: dict[str, Any] = dict(stdout=subprocess.PIPE, text=True, env=environment)
    with (
        errors.open("w") as file,
        subprocess.Popen(command, cwd=folder, stderr=file, **streams) as process,
    ):
        for line in process.stdout or ():
            lines.append((time.perf_counter() - start, line.rstrip()))
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    # 1 and 3 are verdicts of audit and bias.
    if process.returncode not in (0, 1, 3) or "Traceback" in errors.read_text():
        raise RuntimeError(f"jaxdd {' '.join(words)} failed: {errors.read_text()}")
    child = json.loads(out.read_text())
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "utilisation": cpu_seconds / seconds / (os.cpu_count() or 1),
        "import": child["import"],
        "compile": covered(child["compile"]),
        "trace": covered(child["trace"]),
        "programs": len(child["compile"]),
        **stages(lines, seconds),
        "load": load,
    }


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals.

    >>> covered([(0, 2), (5, 6), (1, 3)])
    4.0
    """
    total, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def stages(lines: Iterable[tuple[float, str]], seconds: float) -> dict[str, Any]:
    """Return the seconds of each stage, and those until the first line of progress.

    Args:
        lines: seconds since the start, and text of the lines that the command printed.
        seconds: wall time of the command.
    """
    spent: dict[str, float] = defaultdict(float)
    first, before = None, 0.0
    for now, line in lines:
        if match := _LINE.match(line):
            task = match[1] if int(match[2]) else "other"
            spent["start" if first is None else stage(task)] += now - before
            first, before = first or now, now
    spent["end"] = seconds - before
    return {"first_progress": first, "stages": dict(spent)}


def stage(task: str) -> str:
    """Return the kind of a task that is reported by row.

    >>> stage("evaluate random-density"), stage("density"), stage("embedding")
    ('evaluate', 'distill', 'embedding')
    """
    kinds = {"evaluate": "evaluate"} | dict.fromkeys(weightings.DEFAULT_ROWS, "distill")
    return kinds.get(task.split(" ")[0], task)


def cold_and_warm(
    words: Sequence[str], *, code: pathlib.Path, data_dir: pathlib.Path | None
) -> dict[str, Any]:
    """Measure a command without and with compiled programs on disk, with accuracies of its rows."""
    data = [] if data_dir is None or words[0] == "demo" else ["--data-dir", str(data_dir)]
    entry: dict[str, Any] = {"command": ["jaxdd", *words], "commit": _commit(code)}
    with tempfile.TemporaryDirectory() as root:
        for name in ("cold", "warm"):
            folder = pathlib.Path(root) / name
            folder.mkdir()
            if "set" in words:
                cache = folder / "programs-of-set"
                measure(_MAKE_SET, folder=folder, cache=cache, code=code)
            cache = pathlib.Path(root) / "programs"
            entry[name] = measure([*words, *data], folder=folder, cache=cache, code=code)
        if "--out" in words:
            entry["accuracy"] = _accuracies(folder / words[words.index("--out") + 1])
    return entry


def _commit(code):
    command = ["git", "-C", str(code), "describe", "--always", "--dirty", "--abbrev=7"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _accuracies(path):
    """Return the accuracies by row of a run or a comparison, none of other folders and files."""
    if (path / "compare.json").exists():
        rows = files.read_json(path / "compare.json")["rows"]
        return {name: row["accuracy"] for name, row in rows.items()}
    result = path / "result.json"
    return {"set": files.read_json(result)["accuracy"]} if result.exists() else {}


def main(
    *,
    label: str = "after",
    code: pathlib.Path = ROOT,
    data_dir: pathlib.Path | None = None,
    only: str = "",
    budget: str | None = None,
    out: pathlib.Path = OUT,
) -> None:
    """Measure the entries that `out` lacks, and print the tables.

    Args:
        label: first part of the names of the entries.
        code: checkout of the repository that is measured.
        data_dir: folder with the original files of the benchmarks.
        only: text that the name of an entry must contain.
        budget: time after which to stop, such as 90s, 20m or 1h.
        out: JSON file.
    """
    data_dir = None if data_dir is None else data_dir.expanduser().resolve()
    code = code.expanduser().resolve()
    tasks = {
        f"{label}: {name}": functools.partial(cold_and_warm, words, code=code, data_dir=data_dir)
        for name, words in COMMANDS.items()
        if only in name
    }
    record.run(out, tasks, budget)
    record.show(tables(out))


def tables(path: pathlib.Path = OUT) -> list[list[str]]:
    """Return the tables of times, of stages and of accuracies, before and after."""
    measured = record.measured(path)
    labels = list(dict.fromkeys(name.split(": ")[0] for name in measured))
    commands = [name for name in COMMANDS if any(f"{x}: {name}" in measured for x in labels)]
    columns = [(label, state) for state in ("cold", "warm") for label in labels]

    def values(command, pick):
        entries = [measured.get(f"{label}: {command}", {}).get(state) for label, state in columns]
        return [None if entry is None else pick(entry) for entry in entries]

    times, spent = [], []
    for command in commands:
        seconds = values(command, lambda x: x["seconds"])
        times.append([command, *map(_seconds, seconds), *_ratios(seconds, len(labels))])
        for title in ("import", "first_progress", "compile", "trace"):
            row = values(command, lambda x, title=title: x[title])
            spent.append([f"{command}: {title.replace('_', ' ')}", *map(_seconds, row)])
        by_stage = values(command, lambda x: x["stages"])
        for name in dict.fromkeys(name for row in by_stage for name in row or ()):
            row = [None if row is None else row.get(name, 0.0) for row in by_stage]
            if max(x or 0.0 for x in row) >= _SHOWN * max(x or 0.0 for x in seconds):
                spent.append([f"{command}: stage {name}", *map(_seconds, row)])
        row = values(command, lambda x: x["utilisation"])
        shares = ["" if x is None else f"{x:.0%}".replace("%", " %") for x in row]
        spent.append([f"{command}: utilisation", *shares])
    titles = [f"{label}, {state}" for label, state in columns]
    ratios = ["ratio, cold", "ratio, warm"] if len(labels) == 2 else []
    return [
        markdown.table([markdown.link("seconds", path), *titles, *ratios], times),
        markdown.table([markdown.link("seconds of", path), *titles], spent),
        markdown.table(
            [markdown.link("accuracy in %", path), *labels], _accuracy_rows(measured, labels)
        ),
    ]


def _seconds(value):
    return "" if value is None else f"{value:.1f}"


def _ratios(seconds, labels):
    """Return before / after, cold and warm, for two labels."""
    pairs = [seconds[:2], seconds[2:]] if labels == 2 else []
    return ["" if None in pair else f"{pair[0] / pair[1]:.2f}" for pair in pairs]


def _accuracy_rows(measured, labels):
    scores = {
        (command, row, label): score
        for label in labels
        for command in COMMANDS
        for row, score in measured.get(f"{label}: {command}", {}).get("accuracy", {}).items()
    }
    names = dict.fromkeys((command, row) for command, row, _ in scores)
    return [
        [f"{command}: {row}", *(record.percent(scores.get((command, row, x))) for x in labels)]
        for command, row in names
    ]


if __name__ == "__main__":
    tyro.cli(main)
