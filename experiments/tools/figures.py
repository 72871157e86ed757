"""Draw the figures of README.md, docs and experiments.

    python -m experiments.tools.figures [NAME …] [--data-dir DIR] [--every]

Draws the figures that are out of date, or those named. A figure is drawn from data that a function
returns: numbers of committed results, or texts of a diagram. The PNG file records the SHA-256 of
these data and the version of the style, so a test detects figures that do not show the committed
results.
"""

import functools
import hashlib
import itertools
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tyro
from PIL import Image, PngImagePlugin

from experiments.tools import charts, curves, diagrams, gallery, heat_maps, illustrations, table
from jaxdd.data import files
from jaxdd.runs.reports import style

ROOT = pathlib.Path(__file__).parents[2]
IMAGES, RESULTS = "docs/images", "experiments/results"


class Figure(NamedTuple):
    """A PNG file.

    Attributes:
        path: the file, relative to the repository.
        data: function that returns what the figure shows, without images that must be downloaded.
        draw: `draw(path, data)` draws the file, `draw(path, data, data_dir)` if it needs images.
        needs_images: whether it needs images that must be downloaded.
        colors: number of colours that the file is reduced to; None for all.
    """

    path: str
    data: Callable[[], Any]
    draw: Callable[..., None]
    needs_images: bool = False
    colors: int | None = 256


def _grids() -> Iterator[Figure]:
    """Yield a figure for every grid: a heat map of two options, or dots for each setting."""
    for claim in table.grids():
        # The claims are drawn as the headline; for the others a table is enough.
        if claim.name in ("claims", "precision", "shared_batches"):
            continue
        data, draw = (
            (charts.grid_data, charts.dots)
            if claim.across == "row"
            else (charts.grid_map_data, heat_maps.draw)
        )
        data = charts.fairdd_data if claim.name == "fairdd" else functools.partial(data, claim)
        yield Figure(f"{RESULTS}/{claim.name}.png", data, draw)


FIGURES = (
    Figure(f"{RESULTS}/demo.png", illustrations.demo_data, illustrations.demo, colors=None),
    Figure(f"{IMAGES}/headline.png", charts.headline_data, charts.headline),
    Figure(f"{IMAGES}/pipeline.png", diagrams.pipeline_data, diagrams.pipeline),
    Figure(f"{IMAGES}/auto.png", diagrams.auto_data, diagrams.auto),
    Figure(f"{IMAGES}/embedding.png", illustrations.embedding_data, illustrations.embedding),
    Figure(
        f"{IMAGES}/object_blind.png", illustrations.object_blind_data, illustrations.object_blind
    ),
    Figure(f"{IMAGES}/real_images.png", charts.real_images_data, charts.dots),
    Figure(f"{IMAGES}/unbiased.png", charts.unbiased_data, charts.dots),
    Figure(f"{IMAGES}/recovered.png", charts.recovered_data, charts.dots),
    Figure(f"{IMAGES}/amplified.png", charts.amplified_data, charts.dots),
    *(
        Figure(f"{IMAGES}/gallery_{name}.png", functools.partial(gallery.data, rows), gallery.draw,
               needs_images=True)
        for name, rows in {"digits": gallery.DIGITS, "clothes": gallery.CLOTHES,
                           "photographs": gallery.PHOTOGRAPHS}.items()
    ),
    *_grids(),
    Figure(f"{RESULTS}/bandwidth-weights.png", charts.bandwidth_data, heat_maps.draw),
    *(
        Figure(f"{RESULTS}/long-{ipc}.png", functools.partial(curves.long_data, ipc), draw)
        for ipc, draw in itertools.product((10, 50), [curves.long_curves])
    ),
    Figure(f"{RESULTS}/decisions.png", charts.decisions_data, charts.verdicts),
    Figure(f"{RESULTS}/spectrum.png", curves.spectrum_data, curves.spectrum_curves),
    Figure(f"{RESULTS}/spectrum-sets.png", curves.spectrum_sets_data, heat_maps.draw),
)  # fmt: skip
"""All figures."""


def checksum(data: Any) -> str:
    """Return the SHA-256 of JSON data whose numbers are rounded to six digits.

    >>> checksum({"a": [0.1 + 0.2]}) == checksum({"a": [0.3]})
    True
    """
    text = json.dumps(_round(files.to_json(data)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _round(value):
    """Round all numbers, so that the last digits of other versions of NumPy do not matter."""
    if isinstance(value, dict):
        return {key: _round(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_round(x) for x in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def record(figure: Figure) -> dict[str, str]:
    """Return the texts that an up-to-date file has."""
    return {"Data SHA-256": checksum(figure.data()), "Style": str(style.VERSION)}


def recorded(path: pathlib.Path) -> dict[str, str]:
    """Return the texts of a PNG file."""
    with Image.open(path) as image:
        return {str(name): x for name, x in image.info.items() if isinstance(x, str)}


def is_current(figure: Figure, root: pathlib.Path = ROOT) -> bool:
    """Return whether the file shows the committed results."""
    path = root / figure.path
    return path.exists() and record(figure).items() <= recorded(path).items()


def write(
    figure: Figure, root: pathlib.Path = ROOT, data_dir: pathlib.Path | None = None
) -> pathlib.Path:
    """Draw a figure, reduce its colours, and record its data; return the path."""
    data = files.to_json(figure.data())
    with tempfile.TemporaryDirectory() as folder:
        drawn = pathlib.Path(folder) / "figure.png"
        figure.draw(drawn, data, *([data_dir] if figure.needs_images else []))
        with Image.open(drawn) as image:
            pixels = image.convert("RGB")
    if figure.colors:  # without dithering, flat areas stay flat
        pixels = pixels.quantize(figure.colors, dither=Image.Dither.NONE)
    texts = PngImagePlugin.PngInfo()
    for name, text in record(figure).items():
        texts.add_text(name, text)
    path = root / figure.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_path(path) as temporary:
        pixels.save(temporary, "PNG", optimize=True, pnginfo=texts)
    return path


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    data_dir: pathlib.Path | None = None,
    every: bool = False,
) -> None:
    """Draw the figures that are out of date.

    Args:
        names: texts in the paths of the figures to draw, up to date or not.
        data_dir: folder with the original files of the data sets.
        every: draw all figures.
    """
    for figure in FIGURES:
        if any(name in figure.path for name in names) or (
            not names and (every or not is_current(figure))
        ):
            size = write(figure, data_dir=data_dir).stat().st_size
            print(f"{figure.path}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    tyro.cli(main)
