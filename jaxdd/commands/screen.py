"""Terminal output of commands: progress bars, and a table at the end."""

import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import Any

import rich.box
import rich.console
import rich.progress
import rich.table

from jaxdd.runs import bias, processes, results

_LEGEND = (
    "aligned, conflicting: test images with and without the majority attribute of their class; "
    "worst group: pair of class and attribute with the lowest accuracy; "
    "conflict weight: share of the weight on conflicting training samples, which for uniform "
    "weights is their share of the samples"
)


def _flag(help_text: str) -> Any:
    return dataclasses.field(default=False, metadata=dict(help=help_text, group=""))


@dataclasses.dataclass(frozen=True)
class Output:
    """Options of commands that print progress."""

    verbose: bool = _flag("Print each record of progress on a line, for log files.")
    quiet: bool = _flag("Print warnings and errors only.")

    def progress(self) -> "Progress":
        """Return progress bars, or lines if the output is verbose."""
        return Progress(verbose=self.verbose)


class Progress:
    """A progress bar for each task, which the pipeline reports to.

    Args:
        verbose: whether to print lines instead of bars.
    """

    def __init__(self, *, verbose: bool = False):
        self.verbose = verbose
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description:<16}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
            disable=verbose or not processes.is_first(),
        )
        self.tasks = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.tasks:  # else a blank line would be printed
            self.bar.stop()

    def __call__(self, task, done, total, loss=None, speed=None, **_):
        """Move the bar of a task; the first call for the task creates it."""
        note = "" if loss is None else f"loss {loss:.3f}  {speed:.2f} steps/s"
        if self.verbose:
            if processes.is_first():
                print(f"{task} {done}/{total}  {note}".rstrip(), flush=True)
            return
        if not self.tasks:
            self.bar.start()
        if task not in self.tasks:
            self.tasks[task] = self.bar.add_task(task, total=total, note="")
        self.bar.update(self.tasks[task], completed=done, note=note)


def show(rows: Mapping[str, results.Result], folder: str | os.PathLike) -> None:
    """Print results by row, warnings about them, and their folder."""
    console = rich.console.Console()
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("row", *results.SCORES.values(), "conflict\nweight"):
        title = "accuracy %" if column == "all" else column.replace(" ", "\n")
        table.add_column(title, justify="left" if column == "row" else "right", no_wrap=True)
    shares = {name: row.weights.get("conflict_weight_share") for name, row in rows.items()}
    for name, row in rows.items():
        scores = (results.percent(getattr(row, score)) for score in results.SCORES)
        table.add_row(name, *scores, results.number(shares[name], ".2f"))
    console.print(table)
    if any(share is not None for share in shares.values()):
        console.print(_LEGEND, highlight=False, soft_wrap=True)
    _print_remarks(console, rows)
    console.print(f"wrote {folder}", markup=False, highlight=False, soft_wrap=True)


def _print_remarks(console, rows):
    """Print warnings about scores, and how weights were chosen."""
    if all(results.finite(row.worst_group.mean) is None for row in rows.values()):
        console.print("no bias attributes: group metrics skipped")
    elif all(
        results.finite(score.mean) is None
        for row in rows.values()
        for score in (row.aligned, row.conflicting)
    ):
        console.print("aligned and conflicting need the bias attributes of all training images")
    sizes = [size for row in rows.values() if (size := results.smallest_group(row)) is not None]
    if sizes and min(sizes) < results.MIN_GROUP_SIZE:
        images = f"{min(sizes)} test image{'s' if min(sizes) > 1 else ''}"
        message = f"the smallest group has {images}: its accuracy is not reliable"
        console.print(message, highlight=False)
    for name, row in rows.items():
        if text := results.remark(row):
            print(f"jaxdd: {name}: {text}", file=sys.stderr)
        if row.choice:
            is_uniform = row.choice["uniform"]
            decision = "kept uniform weights:" if is_uniform else "uses weights against"
            console.print(f"{name} {decision} {bias.headline(row.choice)}", soft_wrap=True)
            for text in bias.remarks(row.choice):
                console.print(f"{name}: {text}", soft_wrap=True, highlight=False)
