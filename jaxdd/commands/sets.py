"""Commands about the distilled sets that come with jaxdd: list, show and verify them."""

import json

import rich.console
import rich.table

from jaxdd.commands import errors
from jaxdd.data import benchmarks
from jaxdd.runs import results
from jaxdd.runs.trust import publication, shipped


def list_sets() -> None:
    """List the distilled sets that come with jaxdd, with scores, licences and sizes."""
    table = rich.table.Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "accuracy %", "conflicting", "licence", "KB"):
        table.add_column(column, no_wrap=True)
    for name in shipped.ROOTS:
        published = publication.read(_folder(name))
        content = (published.manifest or {}).get("rounding") or {}
        content = content.get("scores") or json.loads(published.contents["result.json"])
        scores = results.Scores.from_dict(content)
        size = sum(map(len, published.contents.values())) / 1000
        licence = benchmarks.describe(str(published.config["dataset"])).licence
        accuracies = results.percent(scores.accuracy), results.percent(scores.conflicting)
        table.add_row(name, *accuracies, licence, f"{size:.0f}")
    rich.console.Console().print(table)


def show_set(name: str) -> None:
    """Print the card of a set: provenance, licence, command, scores by group and hashes.

    Args:
        name: Name of a set (see `jaxdd sets list`).
    """
    print(publication.read(_folder(name)).contents["README.md"].decode(), end="")


def verify_sets(names: tuple[str, ...] = ()) -> None:
    """Verify the files of the sets that come with jaxdd by their known roots.

    Args:
        names: Names of sets. Defaults to all.
    """
    for folder in map(_folder, names or shipped.ROOTS):
        published = publication.read(folder)
        print(f"{folder.name}: all {len(published.contents)} files agree with the root")
        print(f"root {shipped.ROOTS[folder.name]}")


def _folder(name):
    if name not in shipped.ROOTS:
        hint = errors.did_you_mean(name, shipped.ROOTS)
        raise ValueError(f"unknown set {name!r}{hint} `jaxdd sets list` lists all")
    return shipped.FOLDER / name
