"""The command line: `jaxdd demo`, `jaxdd run DATASET`, `jaxdd compare DATASET`.

Bad input ends with one line on stderr and exit code 2, Ctrl-C with the state saved and exit code
130.
"""

import contextlib
import functools
import io
import pathlib
import re
import shlex
import sys
import time
from typing import Annotated, Literal

import jax
import rich.console
import rich.progress
import rich.table
import tyro

from jaxdd import datasets, pipeline

Options = Annotated[pipeline.Options, tyro.conf.arg(name="")]

DEMO = pipeline.Options(ipc=10, conflict=0.1)


class _Progress:
    """A rich progress bar for each task, fed by the pipeline's reports."""

    def __init__(self):
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description:<16}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
        )
        self.tasks = {}

    def __call__(self, task, done, total, loss=None, rate=None):
        if task not in self.tasks:
            self.tasks[task] = self.bar.add_task(task, total=total, note="")
        note = "" if loss is None else f"loss {loss:.3f}  {rate:.2f} steps/s"
        self.bar.update(self.tasks[task], completed=done, note=note)


def _percent(score):
    mean = score["mean"]
    return "–" if mean is None or mean != mean else f"{100 * mean:.1f} ± {100 * score['std']:.1f}"


def _show(rows, folder):
    """Prints accuracies in percent, and the share of the weight on conflicting samples."""
    table = rich.table.Table()
    for column in ("row", "accuracy %", "aligned", "conflicting", "worst group", "mass"):
        table.add_column(column, justify="left" if column == "row" else "right", no_wrap=True)
    for name, row in rows.items():
        scores = [row[score] for score in ("accuracy", "aligned", "conflicting", "worst_group")]
        mass = row.get("weights", {}).get("conflict_mass")
        table.add_row(name, *map(_percent, scores), "–" if mass is None else f"{mass:.2f}")
    console = rich.console.Console()
    console.print(table)
    console.print(f"wrote {folder}", markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _job(dataset, options, data_dir):
    """The prepared job, under progress bars; the folder is still untouched."""
    start, progress = time.perf_counter(), _Progress()
    with progress.bar:
        options = options.resolved()
        benchmark = datasets.load(
            dataset, data_dir=data_dir, conflict=options.conflict, severity=options.severity,
            seed=options.seed,
        )
        job = pipeline.prepare(benchmark, options, progress)
        job.seconds["data"] = time.perf_counter() - start
        yield job


def _folder(out, *parts):
    return out or pathlib.Path("runs") / "-".join(map(str, parts))


def run(
    dataset: tyro.conf.Positional[str],
    *,
    options: Options,
    debias: Literal["none", "kde", "oracle"] = "kde",
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    resume: bool = False,
) -> None:
    """Distil one synthetic set, and score it beside a random subset.

    Args:
        dataset: name of a data set or benchmark.
        options: of the run.
        debias: where the weights come from; oracle uses the bias labels.
        data_dir: folder with the original files; without it they are downloaded.
        out: run folder; by default runs/DATASET-METHOD-DEBIAS-ipcIPC-seedSEED.
        resume: continue the run that the folder holds.
    """
    ipc, seed = f"ipc{options.ipc}", f"seed{options.seed}"
    out = _folder(out, dataset, options.method, debias, ipc, seed)
    with _job(dataset, options, data_dir) as job:
        result = pipeline.run(job, out, debias=debias, resume=resume)
    _show({"random": result["random"], debias: result}, out)


def compare(
    dataset: tyro.conf.Positional[str],
    *,
    options: Options,
    data_dir: pathlib.Path | None = None,
    out: pathlib.Path | None = None,
    resume: bool = False,
) -> None:
    """Make the table: random subset, plain, density-weighted and oracle-weighted distillation.

    Args:
        dataset: name of a data set or benchmark.
        options: of every row.
        data_dir: folder with the original files; without it they are downloaded.
        out: folder of the comparison; by default runs/compare-DATASET-METHOD-ipcIPC-seedSEED.
        resume: continue the comparison that the folder holds.
    """
    ipc, seed = f"ipc{options.ipc}", f"seed{options.seed}"
    out = _folder(out, "compare", dataset, options.method, ipc, seed)
    with _job(dataset, options, data_dir) as job:
        rows = pipeline.compare(job, out, resume=resume)["rows"]
    _show(rows, out)


def demo(*, out: pathlib.Path = pathlib.Path("demo"), resume: bool = False) -> None:
    """Compare all rows on coloured handwritten digits that come with scikit-learn.

    Args:
        out: folder of the comparison.
        resume: continue the comparison that the folder holds.
    """
    compare("cdigits", options=DEMO, out=out, resume=resume)


def _later(command):
    """A command that tyro may call while it parses: what comes back runs it."""

    @functools.wraps(command)
    def collect(*arguments, **options):
        return functools.partial(command, *arguments, **options)

    return collect


def _parse(arguments):
    """The command to run. tyro explains a mistake in a box; here it becomes one line."""
    commands = {command.__name__: _later(command) for command in (demo, run, compare)}
    explanation = io.StringIO()
    try:
        with contextlib.redirect_stderr(explanation):
            return tyro.extras.subcommand_cli_from_dict(commands, prog="jaxdd", args=arguments)
    except SystemExit as stopped:
        if stopped.code:
            words = re.sub(r"[─│╭╮╰╯]|\x1b\[[0-9;]*m", " ", explanation.getvalue()).split()
            raise ValueError(" ".join(words)) from None
        raise


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` default to those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    expected = (
        ValueError, TypeError, OSError, OverflowError, MemoryError, jax.errors.JaxRuntimeError
    )
    try:
        _parse(arguments)()
    except (pipeline.Interrupted, KeyboardInterrupt) as stopped:
        again = arguments if "--resume" in arguments else [*arguments, "--resume"]
        print(f"jaxdd: {str(stopped) or 'stopped'}", file=sys.stderr)
        print(f"continue with: jaxdd {shlex.join(again)}", file=sys.stderr)
        sys.exit(130)
    except expected as error:
        print(f"jaxdd: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
