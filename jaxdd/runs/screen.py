"""What a command shows on the terminal: progress while it works, a table when it is done."""

import rich.console
import rich.progress
import rich.table

from jaxdd.runs import processes, results


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
        mass = row.get("weights", {}).get("conflict_mass")
        table.add_row(name, *map(results.percent, scores), "–" if mass is None else f"{mass:.2f}")
    console = rich.console.Console()
    console.print(table)
    if all(results.percent(row["worst_group"]) == results.percent(None) for row in rows.values()):
        console.print("no bias attributes: what concerns groups was skipped")
    for name, row in rows.items():
        choice = row.get("choice") or {}
        if objection := choice.get("objection"):
            console.print(f"{name} kept uniform weights: {objection}", soft_wrap=True)
        if view := choice.get("view"):
            console.print(f"{name} found a bias in the {view} of the images", soft_wrap=True)
    console.print(f"wrote {folder}", markup=False, highlight=False, soft_wrap=True)
