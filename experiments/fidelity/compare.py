"""How closely does jaxdd agree with the authors' code?

    python -m experiments.fidelity.compare

Writes results/fidelity.json and prints the end of docs/results/fidelity.md.

Cost: one minute.
"""

from experiments.fidelity import data, losses, selection, training
from experiments.fidelity.system import System
from experiments.tools import grid, markdown, overview, record
from jaxdd.data import files

OUT = grid.RESULTS / "fidelity.json"

SYSTEMS: dict[str, System] = losses.SYSTEMS | selection.SYSTEMS | training.SYSTEMS | data.SYSTEMS
"""All systems by title."""

_TITLES = "difference", "authors' code", "jaxdd"


def page() -> list[str]:
    """Return the end of docs/results/fidelity.md: a table of all systems, then their sections."""
    rows, sections = [], []
    for title, measured in files.read_json(OUT)["measured"].items():
        system = SYSTEMS[title]
        agreement = [f"{what} {_format(x, system.unit)}" for what, x in measured.items()]
        rows.append([f"[{title}](#{overview.anchor(title)})", ", ".join(agreement)])
        differences = markdown.table(_TITLES, system.deviations, left=(0, 1, 2))
        about = f"Code: {system.source}. {system.note}".rstrip()
        sections += ["", f"### {title}", "", about, "", *differences]
    table = markdown.table(("system", "largest difference"), rows, left=(0, 1))
    return [*table, "", "## Known differences", *sections]


def _format(value, unit):
    if value == 0:
        return "equal"
    return f"{value:.0e}" if unit == "relative" else f"{value:.2g} {unit}"


def main() -> None:
    """Compare all systems and write the results."""
    measured = {title: system.compare() for title, system in SYSTEMS.items()}
    files.write_json(OUT, files.to_json({"measured": measured} | record.circumstances()))
    print("\n".join(page()))


if __name__ == "__main__":
    main()
