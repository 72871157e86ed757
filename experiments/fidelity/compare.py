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
    """Return the table of the agreement and the table of the known differences."""
    if not OUT.exists():
        return []
    agreement, deviations = [], []
    for title, measured in files.read_json(OUT)["measured"].items():
        system = SYSTEMS[title]
        for what in system.tolerance:
            agreement.append([title, what, _format(measured[what], system.unit)])
        deviations.append([title, system.source, system.deviations or "none known"])
    corner = markdown.link("system", OUT)
    return [
        markdown.table([corner, "compared", "largest difference"], agreement, left=(0, 1)),
        markdown.table([corner, "code of the authors", "differences"], deviations, left=range(3)),
    ]


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
