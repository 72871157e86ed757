"""The README's table of results, made from the files that it links to.

    python -m experiments.table

Prints a row for every comparison under experiments/results: accuracy in % as mean ± standard
deviation, the number of networks, and the minutes that data, weights, distillation and evaluation
took together. Takes a second; `tests/test_results.py` holds the README to it.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdd import cli, pipeline, results

RESULTS = pathlib.Path(__file__).parent / "results"
SETS = pipeline.ROWS


def comparisons() -> list[pathlib.Path]:
    """The result files that compare synthetic sets, by name."""
    paths = sorted(RESULTS.glob("*.json"))
    return [path for path in paths if {"none", "kde"} <= _rows(path).keys()]


def _rows(path: pathlib.Path) -> dict[str, Any]:
    try:
        return results.read(path)
    except ValueError:
        return {}  # a result of another kind, such as the sweep of `experiments.defaults`


def command(config: Mapping[str, Any]) -> str:
    """What makes these rows: `jaxdd demo`, or the comparison with its options."""
    demo = {"command": "compare", "dataset": "cdigits", **dataclasses.asdict(cli.DEMO.resolved())}
    line = results.command(config)
    return "jaxdd demo" if line == results.command(demo) else str(line)


def cells(path: pathlib.Path, columns: Sequence[str]) -> list[str]:
    """The cells of a row of the table.

    Args:
        path: a result file.
        columns: names of rows in it; "n" and "minutes".

    Returns:
        A cell for each column, "–" where the file has no such row.
    """
    rows = results.read(path)
    networks = {row["accuracy"]["n"] for row in rows.values()}
    special = {
        "n": "–".join(map(str, sorted({min(networks), max(networks)}))),
        "minutes": f"{results.seconds(rows) / 60:.1f}",
    }
    return [
        special.get(name) or results.percent(rows.get(name, {}).get("accuracy")) for name in columns
    ]


def main() -> None:
    """Prints the table in Markdown."""
    columns = [*SETS, "n", "minutes"]
    bold = [f"**{name}**" if name == "kde" else name for name in columns]
    print(f"| command | {' | '.join(bold)} |\n|---|{'--:|' * len(columns)}")
    for path in comparisons():
        link = f"[`{command(results.config(results.read(path)))}`](experiments/results/{path.name})"
        numbers = [f"**{cell}**" if name == "kde" else cell
                   for name, cell in zip(columns, cells(path, columns))]
        print(f"| {link} | {' | '.join(numbers)} |")


if __name__ == "__main__":
    main()
