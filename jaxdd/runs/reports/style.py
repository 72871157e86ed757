"""Style of all figures: sizes, colours, line styles and markers.

Colours are distinguishable for colour-blind readers, and lines also differ in dashes and markers.
Figures use Matplotlib without pyplot or a display, and import it when the first figure is drawn.
Equal input gives equal bytes, because the user's configuration of Matplotlib is not used.
"""

import contextlib
import os
import pathlib
import textwrap
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxdd.data import files

VERSION = 1
"""Increased if figures drawn earlier must be drawn again."""

DPI = 150
GREY = "#666666"
PARAMETERS: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"], "font.size": 9,
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titlepad": 10, "axes.edgecolor": GREY, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "grid.color": "#e4e4e4",
    "figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.09,
    "figure.facecolor": "white", "legend.frameon": False,
    "savefig.facecolor": "white", "savefig.bbox": "standard", "savefig.dpi": "figure",
    "svg.hashsalt": "jaxdd", "pdf.fonttype": 42,
}  # fmt: skip
"""Changes to the defaults of Matplotlib."""


class Line(NamedTuple):
    """Colour, dashes and marker of a line or of points."""

    color: str
    linestyle: Any = "-"
    marker: str = "o"


ROWS = {
    "random": Line("#8c8c8c", (0, (1, 1.5)), "s"),
    "random-density": Line("#56b4e9", (0, (1, 1.5)), "s"),
    "plain": Line("#333333", "-", "o"),
    "density": Line("#0072b2", (0, (5, 2)), "D"),
    "auto": Line("#009e73", (0, (5, 2, 1, 2)), "^"),
    "border": Line("#e69f00", (0, (3, 1.5)), "v"),
    "oracle": Line("#cc79a7", (0, (1, 1)), "P"),
    "fairdd": Line("#d55e00", (0, (3, 1, 1, 1, 1, 1)), "X"),
}
"""Style of each row of a comparison (colours of Okabe and Ito)."""

GROUPS = {
    "accuracy": "#4d4d4d", "aligned": "#0072b2", "conflicting": "#d55e00", "worst_group": "#cc79a7",
}  # fmt: skip
"""Colours of bias groups: blue for aligned and vermilion for conflicting samples."""

# The ten colours come from a search: under every simulated colour blindness any two of them are at
# least 30 units of CIELAB apart.
CATEGORIES = (
    "#28228c", "#f8c01d", "#21deeb", "#e31d06", "#3f7cb7",
    "#aed793", "#b61cfd", "#927d7d", "#4d2045", "#72020f",
)  # fmt: skip
"""Colours of classes and of other categories."""

_LINES = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#333333", "#e69f00", "#56b4e9"
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = "osD^vPX"
_CHARACTER = 9.5  # width of the characters of a note in pixels
_VECTOR = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # reproducible bytes
_LOCK = threading.Lock()  # Matplotlib has one style for all threads


def line(name: str, index: int) -> Line:
    """Return the style of a row by its name, or that of another line by its number.

    Colours, dashes and markers repeat with different periods.

    >>> line("plain", 3) == ROWS["plain"], line("first", 0).color
    (True, '#0072b2')
    """
    cycle = lambda values: values[index % len(values)]
    return ROWS.get(name) or Line(cycle(_LINES), cycle(_DASHES), cycle(_MARKERS))


@contextlib.contextmanager
def context() -> Iterator[None]:
    """Use our style on top of Matplotlib's defaults, so that no setting of the user matters."""
    import matplotlib

    # The backend is left alone, because assigning it may start a user interface.
    defaults = {k: v for k, v in dict.items(matplotlib.rcParamsDefault) if k != "backend"}
    with _LOCK, matplotlib.rc_context(defaults | PARAMETERS), warnings.catch_warnings():
        # Characters that the font lacks, such as emoji, are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph")
        yield


@contextlib.contextmanager
def figure(path: str | os.PathLike, width: float, height: float, **options: Any) -> Iterator[Any]:
    """Yield a figure of a size in pixels, and write it when the block succeeds.

    The file is PNG, SVG or PDF, by the ending of its name. The options are those of `Figure`.
    """
    from matplotlib.figure import Figure

    suffix = pathlib.Path(path).suffix
    form = suffix[1:] if suffix in _VECTOR else "png"
    with context(), files.atomic_path(path) as temporary:
        drawn = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, **options)
        yield drawn
        drawn.savefig(temporary, format=form, metadata=_VECTOR.get(suffix))


@contextlib.contextmanager
def subplots(
    path: str | os.PathLike,
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    **options: Any,
) -> Iterator[tuple[Any, Any]]:
    """Yield a figure and its axes `[rows, columns]`, and write it when the block succeeds.

    Width and height are in pixels; the options are those of `Figure.subplots`.
    """
    with figure(path, width, height, layout="constrained") as drawn:
        yield drawn, drawn.subplots(rows, columns, squeeze=False, **options)


def add_legend(axes: Any, columns: int = len(GROUPS)) -> None:
    """Add a legend above the axes, where it hides no data, and horizontal lines."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderpad=0)
    axes.grid(True, axis="y")


def add_note(figure: Any, note: str) -> None:
    """Write a note below the axes of a figure, in lines that fit its width."""
    lines = textwrap.fill(note, int(figure.bbox.width / _CHARACTER))
    figure.supxlabel(lines, fontsize=8, color=GREY, x=0.013, ha="left")
