"""Heat maps and dots: colours relative to the limits, intervals, and texts that do not overlap."""

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from experiments.tools import charts, heat_maps
from jaxdd.runs import results


def share(path, color):
    """Return the share of the pixels that have exactly this colour."""
    return (np.asarray(Image.open(path).convert("RGB")) == np.array(color)).all(-1).mean()


def heat_map(panels, rows, columns, **fields):
    """Return data of matrices of numbers, whose texts are percents."""
    cell = lambda x: None if np.isnan(x) else [x, f"{x:.1f}"]
    return {
        "panels": {title: [[cell(x) for x in row] for row in m] for title, m in panels.items()},
        "rows": rows, "columns": columns, "row_title": "h", "column_title": "τ",
        "bar": "accuracy, %", "limits": [0, 100], "note": "One set.", **fields,
    }  # fmt: skip


def test_colours_are_relative_to_the_limits(tmp_path):
    """Zero is the darkest colour of viridis, 100 the brightest; blank cells are left white."""
    matrix = [[0.0, 100.0], [np.nan, 100.0]]
    sides = dict(rows=["0.1", "0.2"], columns=["plain", "density"])
    heat_maps.draw(tmp_path / "a.png", heat_map({"share": matrix, "evenness": matrix}, **sides))
    dark, bright = share(tmp_path / "a.png", (68, 1, 84)), share(tmp_path / "a.png", (253, 231, 36))
    assert dark > 0.04 and 1.6 < bright / dark < 2.4
    heat_maps.draw(tmp_path / "b.png", heat_map({"share": matrix}, **sides, limits=[100, 300]))
    assert share(tmp_path / "b.png", (253, 231, 36)) < bright / 4  # in the colour bar only


def check_texts(figure, count):
    """Check that no text of the axes is cut off or overlaps another."""
    texts = [
        text
        for axes in figure.axes
        for text in axes.findobj(Text)
        if text.get_text() and text.get_visible()
    ]
    places = [text.get_window_extent() for text in texts]
    assert len(texts) >= count
    for i, place in enumerate(places):
        assert figure.bbox.x0 <= place.x0 and place.x1 <= figure.bbox.x1, texts[i]
        assert figure.bbox.y0 <= place.y0 and place.y1 <= figure.bbox.y1, texts[i]
        assert not any(place.overlaps(other) for other in places[:i]), texts[i]


@pytest.mark.parametrize(
    "down, along",
    [
        (["Fashion-MNIST on backgrounds, DSA", "CIFAR-10, DSA"], ["plain", "density"]),
        (["0.05"], ["1"]),
        ([str(n) for n in range(7)], ["real images,\ndrawn by weight"] * 5),
    ],
    ids=["long", "one", "many"],
)
@pytest.mark.parametrize("wrap", [1, 2])
def test_texts_do_not_overlap(tmp_path, drawn, down, along, wrap):
    titles = "All test samples", "Conflicting test samples"
    panels = dict.fromkeys(titles, np.zeros((len(down), len(along))))
    heat_maps.draw(tmp_path / "a.png", heat_map(panels, down, along, wrap=wrap))
    check_texts(drawn[0], len(down) + len(along) + 4)


def test_dots_show_every_setting(tmp_path, drawn):
    panel = {"plain": [[20.0, 18.0, 22.0], None], "density": [[90.0, 89.0, 91.0], [50, 0, 100]]}
    data = {
        "settings": ["MNIST", "Fashion-MNIST on natural backgrounds (3 sets)"],
        "panels": {"All test samples": panel, "Conflicting test samples": {"plain": [None, None]}},
        "units": ["accuracy, %", "accuracy, %"],
        "note": "DM.",
    }
    charts.dots(tmp_path / "a.png", data)
    (_, low, high), (left, right) = panel["density"][1], drawn[0].axes[0].get_xlim()
    assert left < low and high < right


def test_intervals_over_sets_and_over_networks():
    """t(0.975, 1) is 12.706: sets at 50 and 52 % have the mean 51 and a half-width of 12.706."""
    score = lambda mean: results.Score(mean, 0.01, 3)
    assert charts._spread([score(0.5)]) == pytest.approx([50, 49, 51])
    expected = [51, 51 - 12.706, 51 + 12.706]
    assert charts._spread([score(0.5), score(0.52)]) == pytest.approx(expected, abs=1e-3)
    assert charts._spread([score(float("nan"))]) is None and charts._spread([]) is None


@pytest.mark.parametrize("panels", [{}, {"share": np.zeros((2, 3))}])
def test_other_shapes_are_rejected(tmp_path, panels):
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        heat_maps.draw(tmp_path / "a.png", heat_map(panels, ["1", "2"], ["1", "2"]))
