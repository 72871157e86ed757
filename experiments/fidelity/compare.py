"""How closely does jaxdd agree with the authors' code?

    python -m experiments.fidelity.compare

Cost: one minute.
"""

from experiments.fidelity import data, losses, selection, training
from experiments.fidelity.system import System
from experiments.tools import grid, markdown, record
from jaxdd.data import files

OUT = grid.RESULTS / "fidelity.json"

SYSTEMS: dict[str, System] = losses.SYSTEMS | selection.SYSTEMS | training.SYSTEMS | data.SYSTEMS
"""All systems by title."""


def tables() -> list[list[str]]:
    """Return the table of the systems: what was compared, the agreement, and known deviations."""
    if not OUT.exists():
        return []
    rows = []
    for title, measured in files.read_json(OUT)["measured"].items():
        system = SYSTEMS[title]
        compared = "; ".join(
            f"{what}: {_format(measured[what], system.unit)}" for what in system.tolerance
        )
        rows.append([title, system.source, compared, system.deviations])
    titles = (markdown.link("system", OUT), "source", "agreement", "known differences")
    return [markdown.table(titles, rows, left=range(4))]


def _format(value, unit):
    if value == 0:
        return "equal"
    return f"{value:.0e}" if unit == "relative" else f"{value:.2g} {unit}"


def main() -> None:
    """Compare all systems and write the results."""
    measured = {title: system.compare() for title, system in SYSTEMS.items()}
    files.write_json(OUT, files.to_json({"measured": measured} | record.circumstances()))
    record.show(tables())


if __name__ == "__main__":
    main()
