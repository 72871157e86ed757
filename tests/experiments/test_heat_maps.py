"""Heat maps: colours relative to the limits, and texts that do not overlap."""

import contextlib

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from experiments.tools import heat_maps
from jaxdd.runs.reports import style


def share(path, color):
    """Return the share of the pixels that have exactly this colour."""
    return (np.asarray(Image.open(path).convert("RGB")) == np.array(color)).all(-1).mean()


def test_colours_are_relative_to_the_limits(tmp_path):
    """Zero is the darkest colour of viridis, one the brightest; NaN is left white."""
    matrix = [[0.0, 1.0], [np.nan, 1.0]]
    sides = dict(rows={"h": (0.1, 0.2)}, columns={"set": ("plain", "density")})
    heat_maps.draw(tmp_path / "a.png", {"share": matrix, "evenness": matrix}, **sides)
    dark, bright = share(tmp_path / "a.png", (68, 1, 84)), share(tmp_path / "a.png", (253, 231, 36))
    assert dark > 0.05 and 1.6 < bright / dark < 2.4
    heat_maps.draw(tmp_path / "b.png", {"share": matrix}, **sides, limits=(1.0, 3.0))
    assert share(tmp_path / "b.png", (253, 231, 36)) == 0


@pytest.mark.parametrize(
    "down, along",
    [
        (["bgfmnist, dsa, 1, 0.05", "ccifar10, dsa, 1, 0.05"], ["plain", "density"]),
        ([0.05], [1.0]),
        ([str(n) for n in range(7)], ["random-density, too"] * 5),
    ],
    ids=["long", "one", "many"],
)
def test_texts_do_not_overlap(tmp_path, monkeypatch, down, along):
    """No text is cut off or overlaps another."""
    figures, original = [], style.figure

    @contextlib.contextmanager
    def recorded(*args, **options):
        with original(*args, **options) as figure:
            figures.append(figure)
            yield figure

    monkeypatch.setattr(style, "figure", recorded)
    panels = {
        f"Accuracy, {kind} test samples": np.zeros((len(down), len(along)))
        for kind in ("all", "conflicting")
    }
    sides = dict(rows={"dataset, method, ipc, conflict": down}, columns={"synthetic set": along})
    heat_maps.draw(tmp_path / "a.png", panels, **sides)
    (figure,) = figures
    drawn = [
        text
        for axes in figure.axes
        for text in axes.findobj(Text)
        if text.get_text() and text.get_visible()
    ]
    places = [text.get_window_extent() for text in drawn]
    assert len(drawn) >= len(down) + 2 * len(along) + 5
    for i, place in enumerate(places):
        assert figure.bbox.x0 <= place.x0 and place.x1 <= figure.bbox.x1, drawn[i]
        assert figure.bbox.y0 <= place.y0 and place.y1 <= figure.bbox.y1, drawn[i]
        assert not any(place.overlaps(other) for other in places[:i]), drawn[i]


@pytest.mark.parametrize("panels", [{}, {"share": np.zeros((2, 3))}])
def test_other_shapes_are_rejected(tmp_path, panels):
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        heat_maps.draw(tmp_path / "a.png", panels, rows={"h": (1, 2)}, columns={"τ": (1, 2)})
