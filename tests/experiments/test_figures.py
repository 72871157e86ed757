"""Figures show the committed results, and checksums ignore the last digits."""

import pytest
from PIL import Image

from experiments.tools import figures

NAMES = [figure.path for figure in figures.FIGURES]


@pytest.mark.parametrize("figure", figures.FIGURES, ids=NAMES)
def test_a_figure_shows_the_committed_results(figure):
    texts = figures.recorded(figures.ROOT / figure.path)
    assert figures.record(figure).items() <= texts.items(), "python -m experiments.tools.figures"


@pytest.mark.parametrize("path", NAMES)
def test_a_figure_is_small(path):
    assert (figures.ROOT / path).stat().st_size < 150_000


def test_every_picture_is_a_figure():
    pictures = {
        str(path.relative_to(figures.ROOT))
        for folder in (figures.IMAGES, figures.RESULTS)
        for path in (figures.ROOT / folder).glob("*.png")
        if "screenshot" not in path.name
    }
    assert pictures == set(NAMES)


def test_every_picture_is_on_a_page():
    pages = [*figures.ROOT.glob("*.md"), *figures.ROOT.glob("docs/**/*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    folders = figures.ROOT / figures.IMAGES, figures.ROOT / figures.RESULTS
    pictures = [path.name for folder in folders for path in folder.glob("*.png")]
    assert [name for name in pictures if f"/{name})" not in text] == []


def test_other_data_or_another_style_make_a_figure_stale(tmp_path, monkeypatch):
    draw = lambda path, data: Image.new("RGB", (4, 4), data["color"]).save(path)
    figure = figures.Figure("a/b.png", lambda: {"color": "red"}, draw)
    assert not figures.is_current(figure, tmp_path)
    path = figures.write(figure, tmp_path)
    assert figures.is_current(figure, tmp_path)
    assert Image.open(path).convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert not figures.is_current(figure._replace(data=lambda: {"color": "blue"}), tmp_path)
    monkeypatch.setattr(figures.style, "VERSION", 2)
    assert not figures.is_current(figure, tmp_path)


def test_checksums_ignore_the_last_digits():
    first, second, third = (figures.checksum({"a": [x]}) for x in (0.1 + 0.2, 0.3, 0.30001))
    assert first == second != third
