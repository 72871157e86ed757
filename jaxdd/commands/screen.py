"""What a command shows on the terminal: progress while it works, a table when it is done."""

import sys

import rich.console
import rich.progress
import rich.table

from jaxdd.runs import old_results as results
from jaxdd.runs import processes

MEANING = (
    "aligned: has the attribute that most of its class have; conflicting: has another; "
    "worst group: class and attribute that are recognised least; "
    "mass: share of the weight on conflicting samples, which is their share of all samples where "
    "weights are uniform"
)
"""What the words of the table mean."""


class Printer:
    """Prints a line for each stage and for each tenth of it: `pipeline.run(…, report=Printer())`.

    >>> tell = Printer()
    >>> for step in range(101):
    ...     tell("none", step, 100, loss=2.0 if step > 50 else None)
    ...     if step == 60:
    ...         break
    none: 0 of 100
    none: 10 of 100
    none: 20 of 100
    none: 30 of 100
    none: 40 of 100
    none: 50 of 100
    none: 60 of 100, loss 2.000
    """

    def __init__(self):
        self.told = {}

    def __call__(self, task, done, total, loss=None, speed=None):
        """Prints how far a stage is, where that is a tenth further than what was printed."""
        part = 10 * done // max(total, 1)
        if self.told.get(task) != part:
            self.told[task] = part
            print(f"{task}: {done} of {total}" + ("" if loss is None else f", loss {loss:.3f}"))


class Progress:
    """A rich progress bar for each task, fed by the pipeline's reports."""

    def __init__(self):
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description:<16}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
            disable=not processes.is_first(),
        )
        self.tasks = {}

    def __call__(self, task, done, total, loss=None, speed=None):
        """Moves the bar of the task, which the first call for it makes."""
        if task not in self.tasks:
            self.tasks[task] = self.bar.add_task(task, total=total, note="")
        note = "" if loss is None else f"loss {loss:.3f}  {speed:.2f} steps/s"
        self.bar.update(self.tasks[task], completed=done, note=note)


def show(rows, folder):
    """Prints accuracies in percent, and the share of the weight on conflicting samples."""
    table = rich.table.Table()
    for column in ("row", "accuracy %", "aligned", "conflicting", "worst group", "mass"):
        table.add_column(column, justify="left" if column == "row" else "right", no_wrap=True)
    for name, row in rows.items():
        scores = [row[score] for score in ("accuracy", "aligned", "conflicting", "worst_group")]
        mass = row.get("weights", {}).get("conflict_weight_share")
        table.add_row(name, *map(results.percent, scores), "–" if mass is None else f"{mass:.2f}")
    console = rich.console.Console()
    console.print(table)
    if any(
        row.get("weights", {}).get("conflict_weight_share") is not None for row in rows.values()
    ):
        console.print(MEANING, highlight=False, soft_wrap=True)
    if all(results.percent(row["worst_group"]) == results.percent(None) for row in rows.values()):
        console.print("no bias attributes: what concerns groups was skipped")
    smallest = min(filter(None, map(results.smallest_group, rows.values())), default=results.LEAST)
    if smallest < results.LEAST:
        told = f"the smallest group has {smallest} test image{'s' if smallest > 1 else ''}"
        console.print(f"{told}: the worst group says little", highlight=False)
    for name, row in rows.items():
        if text := results.remark(row):
            print(f"jaxdd: {name}: {text}", file=sys.stderr)
        choice = row.get("choice") or {}
        if objection := choice.get("rejection"):
            console.print(f"{name} kept uniform weights: {objection}", soft_wrap=True)
        if view := choice.get("features"):
            console.print(f"{name} found a bias in the {view} of the images", soft_wrap=True)
    console.print(f"wrote {folder}", markup=False, highlight=False, soft_wrap=True)
