"""Tests of figures: valid files, the pixels that they must show, and no files left behind."""

import errno
import html
import os
import pathlib
import re
import subprocess
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxdd.runs.reports import plot, style
from jaxdd.runs.results import Score, Scores

ROOT = pathlib.Path(__file__).resolve().parents[3]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.1, 0.5)
BLUE, VERMILION, GREY = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x4D, 0x4D, 0x4D)


def constant(color, *, k=2, ipc=3, size=8):
    """Return normalised images of one colour, pixels in [0, 1]."""
    pixels = np.broadcast_to(np.float32(color), (k, ipc, size, size, len(color)))
    return (pixels - np.float32(MEAN)) / np.float32(STD)


def pixels(path):
    """Return the RGB pixels of a PNG file after checking format, background and size."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        array = np.asarray(image.convert("RGB"))
    assert (array[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all(), "the corners are white"
    assert 150 <= array.shape[0] <= 4000 and 150 <= array.shape[1] <= 4000
    return array


def share(path, color):
    """Return the share of the pixels that have exactly this colour."""
    return (pixels(path) == np.array(color)).all(-1).mean()


def data(n=60, k=3):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % k
    attributes = np.where(rng.random(n) < 0.2, (labels + 1) % k, labels)
    weights = np.where(attributes == labels, 1.0, 5.0)
    for label in range(k):
        weights[labels == label] /= weights[labels == label].sum()
    embeddings = rng.normal(size=(n, 16)) + 5 * np.eye(16)[labels]
    return weights, labels, attributes, embeddings


ROWS = {
    "random": Scores(
        accuracy=Score(0.5, 0.1, 5), aligned=Score(0.9, 0.0, 5), conflicting=Score(0.4, 0.1, 5)
    ),
    "DM with a name that is too long for one line": Scores(accuracy=Score(1.0, 0.2, 3)),
}


def draw_set(path, images, *, title="", **options):
    plot.comparison(path, {title: images}, **options)


def grid(path):
    draw_set(path, constant((1, 0, 0)), mean=MEAN, std=STD, title="red")


def comparison(path):
    sets = {"all red: 31 %": constant((1, 0, 0)), "green": constant((0, 1, 0))}
    plot.comparison(path, sets, mean=MEAN, std=STD)


def weights(path):
    plot.weights_by_group(path, *data()[:3], [0, 1, 2])


def embeddings(path):
    plot.embedding_map(path, plot.plane(data()[3]), data()[1], data()[2])


def bars(path):
    plot.accuracy_bars(path, ROWS)


ALL = [grid, comparison, weights, embeddings, bars]


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Every kind of figure, drawn once: the name of the function -> the file."""
    folder = tmp_path_factory.mktemp("figures")
    for draw in ALL:
        draw(folder / "new" / f"{draw.__name__}.png")
    return {draw.__name__: folder / "new" / f"{draw.__name__}.png" for draw in ALL}


@pytest.mark.parametrize("name", [draw.__name__ for draw in ALL])
def test_a_figure_is_a_png(figures, name):
    colors = pixels(figures[name]).astype(int) @ (1 << 16, 1 << 8, 1)
    assert len(np.unique(colors)) > 2


@pytest.mark.parametrize("draw", [grid, weights])
def test_a_figure_is_always_the_same(tmp_path, figures, draw):
    """Checked for text and pixels on a bare figure, and for axes with a layout."""
    draw(tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == figures[draw.__name__].read_bytes()


@pytest.mark.parametrize("draw", [grid, weights])
def test_a_failed_write_leaves_the_old_file(tmp_path, draw, monkeypatch):
    from matplotlib.figure import Figure

    def savefig(self, path, **_):
        pathlib.Path(path).write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(OSError, match="No space left"):
        draw(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_matplotlib_is_imported_late_and_left_as_it_was(tmp_path):
    """Pyplot is not imported, and settings stay (except the backend, which is not checked).

    The user has a configuration with mistakes, an interactive backend and no place for caches.
    """
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nunknown: 3\nfont.size: large?\n")
    places = {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "MPLCONFIGDIR": os.devnull}
    script = f"""
import sys
import jaxdd.runs.reports.plot
from jaxdd.runs.results import Score, Scores
assert "matplotlib" not in sys.modules
import matplotlib
matplotlib.rcParams["savefig.bbox"] = "tight"
settings = lambda: {{k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != "backend"}}
before = settings()
rows = {{"random": Scores(accuracy=Score(0.5, 0.1, 5))}}
jaxdd.runs.reports.plot.accuracy_bars({str(tmp_path / "a.png")!r}, rows)
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""
    command = [sys.executable, "-W", "error", "-c", script]
    env = os.environ | places | {"MPLBACKEND": "TkAgg"}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert pixels(tmp_path / "a.png").shape == (690, 1000, 3)


# --- images ------------------------------------------------------------------------------------


def test_a_grid_shows_denormalised_pixels(figures):
    """Six red images of 8 × 8 pixels, each enlarged twelve times, give 6 (8 · 12)² red pixels."""
    assert (pixels(figures["grid"]) == (255, 0, 0)).all(-1).sum() == 6 * 96**2


@pytest.mark.parametrize("value, shown", [(-0.5, 0), (0.2, 51), (2.0, 255), (np.nan, 0)])
def test_pixels_are_scaled_and_clipped(value, shown):
    """0.2 of full brightness is 0.2 * 255 = 51; values outside [0, 1] are clipped."""
    thumbnails = plot.thumbnails(constant((value, 1, 0)), mean=MEAN, std=STD)
    assert (thumbnails == (shown, 255, 0)).all()


def test_rows_are_classes_and_columns_are_images(tmp_path):
    """Class 0 is red then blue, class 1 green then black; the quarters must lie in that order."""
    colors = np.float32([[(1, 0, 0), (0, 0, 1)], [(0, 1, 0), (0, 0, 0)]])
    images = np.broadcast_to(colors[:, :, None, None], (2, 2, 8, 8, 3))
    images = (images - np.float32(MEAN)) / np.float32(STD)
    draw_set(tmp_path / "a.png", images, mean=MEAN, std=STD)
    image = pixels(tmp_path / "a.png")

    def centre(color):
        return np.argwhere((image == color).all(-1)).mean(0)

    red, blue, green = centre((255, 0, 0)), centre((0, 0, 255)), centre((0, 255, 0))
    np.testing.assert_allclose(blue - red, (0, 102), atol=1e-6)
    np.testing.assert_allclose(green - red, (102, 0), atol=1e-6)


@pytest.mark.parametrize(
    "channels, shown",
    [(1, (255, 255, 255)), (2, (128, 128, 128)), (3, (255, 0, 255)), (5, (255, 0, 255))],
)
def test_any_number_of_channels(channels, shown):
    """One channel is drawn in grey, two are averaged, and of more the first three are drawn."""
    value = np.array([1, 0, 1, 0, 1][:channels], np.float32)
    images = np.broadcast_to((value - 0.5) / 0.5, (2, 3, 8, 8, channels))
    half = (0.5,) * channels
    assert (plot.thumbnails(images, mean=half, std=half) == shown).all()


def test_jax_and_low_precision_images():
    images = jnp.asarray(constant((1, 0, 0)), jnp.bfloat16)
    thumbnails = plot.thumbnails(images, mean=jnp.array(MEAN), std=jnp.array(STD))
    assert (thumbnails[..., 0] > 250).all() and (thumbnails[..., 1:] < 5).all()


@pytest.mark.parametrize(
    "k, ipc, rows_drawn, columns_drawn", [(2, 50, 2, 10), (30, 1, 20, 1), (2, 3, 2, 3)]
)
def test_large_sets_are_capped(tmp_path, k, ipc, rows_drawn, columns_drawn):
    images = constant((1, 0, 0), k=k, ipc=ipc)
    draw_set(tmp_path / "a.png", images, mean=MEAN, std=STD)
    image = pixels(tmp_path / "a.png")
    assert (image == (255, 0, 0)).all(-1).sum() == rows_drawn * columns_drawn * 96**2
    noted = (image[-40:] != 255).any()
    assert noted == (rows_drawn < k or columns_drawn < ipc), "a note says what is left out"


def test_large_images_are_averaged(tmp_path):
    """A chessboard of 200 x 200 single pixels is mean grey when drawn at half of its size."""
    board = np.indices((200, 200)).sum(0) % 2
    images = np.broadcast_to((board[..., None] - 0.5) / 0.5, (1, 2, 200, 200, 1))
    draw_set(tmp_path / "a.png", images, mean=(0.5,), std=(0.5,))
    image = pixels(tmp_path / "a.png")[:, 60:]
    assert (image == 128).all(-1).sum() == 2 * 100**2


def test_a_long_title_takes_more_lines_not_more_width(tmp_path):
    images = constant((1, 0, 0))
    draw_set(tmp_path / "a.png", images, mean=MEAN, std=STD, title="short")
    draw_set(tmp_path / "b.png", images, mean=MEAN, std=STD, title="long words " * 9)
    short, long = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert long.shape[1] == short.shape[1] and long.shape[0] > short.shape[0] + 50
    assert (long[:, -20:] == 255).all(), "nothing is cut off at the right"


def test_a_picture_for_a_notebook_has_the_sets_side_by_side():
    """A red and a green set have a gap of 6 pixels; images have 8 pixels and are doubled."""
    red, green = constant((1, 0, 0), ipc=1), constant((0, 1, 0), ipc=2)
    image = np.asarray(plot.picture(red, green, mean=MEAN, std=STD))
    assert image.shape == (2 * 17, 2 * (8 + 6 + 17), 3)
    assert (image[0, :16] == (255, 0, 0)).all() and (image[0, 28:44] == (0, 255, 0)).all()
    assert (image[:, 16:28] == 255).all() and (image[16:18] == 255).all()
    assert (np.asarray(plot.picture(np.ones((1, 1, 4, 4, 3)), scale=1)) == 255).all()


@pytest.mark.parametrize("sets", [(), (constant((1, 0, 0)), constant((1, 0, 0), k=3))])
def test_a_picture_needs_sets_of_equal_height(sets):
    with pytest.raises(ValueError, match="equally many classes"):
        plot.picture(*sets, mean=MEAN, std=STD)


def test_a_comparison_shows_the_sets_side_by_side(figures):
    image = pixels(figures["comparison"])
    red, green = ((image == color).all(-1).nonzero() for color in ((255, 0, 0), (0, 255, 0)))
    assert len(red[0]) == len(green[0]) == 6 * 64**2
    assert red[1].max() < green[1].min() and red[0].min() == green[0].min()


@pytest.mark.parametrize("number", [1, 4, 9])
def test_a_comparison_of_many_sets_stays_readable(tmp_path, number):
    sets = {f"set {i}": constant((1, 0, 0), ipc=10) for i in range(number)}
    plot.comparison(tmp_path / "a.png", sets, mean=MEAN, std=STD)
    drawn = {1: 10, 4: 6, 9: 2}[number]
    red = (pixels(tmp_path / "a.png") == (255, 0, 0)).all(-1).sum()
    assert red == number * 2 * drawn * (96 if number == 1 else 64) ** 2


@pytest.mark.parametrize(
    "changes, error, match",
    [
        ({"images": np.zeros((3, 8, 8, 3))}, ValueError, r"got \(3, 8, 8, 3\)"),
        ({"images": np.zeros((2, 0, 8, 8, 3))}, ValueError, r"got \(2, 0, 8, 8, 3\)"),
        ({"images": np.zeros((2, 1, 8, 8, 3), np.uint8)}, TypeError, "got uint8"),
        ({"std": (1.0, 1.0)}, ValueError, r"got \(2,\)"),
    ],
)
def test_a_grid_rejects_bad_input(tmp_path, changes, error, match):
    values = {"images": constant((1, 0, 0)), "mean": MEAN, "std": STD} | changes
    with pytest.raises(error, match=match):
        draw_set(tmp_path / "a.png", values.pop("images"), **values)
    assert not list(tmp_path.iterdir())


def test_a_comparison_rejects_sets_of_different_classes(tmp_path):
    sets = {"a": constant((1, 0, 0)), "b": constant((1, 0, 0), k=3)}
    for wrong, match in ((sets, "{'a': 2, 'b': 3}"), ({}, "no sets")):
        with pytest.raises(ValueError, match=match):
            plot.comparison(tmp_path / "a.png", wrong, mean=MEAN, std=STD)


# --- data --------------------------------------------------------------------------------------


def blend(color, alpha=0.65):
    """Return the colour of a bar of an opacity on white."""
    return tuple(round(255 * (1 - alpha) + alpha * value) for value in color)


def near(path, color):
    return (np.abs(pixels(path).astype(int) - blend(color)).max(-1) <= 1).mean()


def test_conflicting_samples_weigh_more(figures):
    """Conflicting samples weigh five times as much: their bars lie to the right."""
    image = pixels(figures["weights"]).astype(int)[120:]
    blue, vermilion = (
        np.nonzero(np.abs(image - blend(color)).max(-1) <= 1)[1] for color in (BLUE, VERMILION)
    )
    assert len(blue) > 1000 and len(vermilion) > 1000
    assert np.median(blue) < np.median(vermilion)


def test_weights_without_attributes_are_one_histogram(tmp_path):
    plot.weights_by_group(tmp_path / "a.png", *data()[:2])
    assert near(tmp_path / "a.png", GREY) > 0.01
    assert near(tmp_path / "a.png", BLUE) == near(tmp_path / "a.png", VERMILION) == 0


@pytest.mark.parametrize("case", ["uniform", "zeros", "no conflict", "one class missing", "tiny"])
def test_constant_and_zero_weights(tmp_path, case):
    weights, labels, attributes, _ = data()
    if case == "uniform":
        weights = np.full(60, 1 / 20)
    if case == "zeros":
        weights[:30] = 0
    if case == "no conflict":
        attributes = labels
    if case == "one class missing":
        keep = labels != 1
        weights, labels, attributes = weights[keep], labels[keep], attributes[keep]
    if case == "tiny":
        weights[5] = 1e-300
    plot.weights_by_group(tmp_path / "a.png", jnp.asarray(weights), labels, attributes, (0, 1, 2))
    assert pixels(tmp_path / "a.png").shape == (660, 1050, 3)


@pytest.mark.parametrize("value", [np.nan, -1.0, 0.0])
def test_weights_out_of_range_are_rejected(tmp_path, value):
    with pytest.raises(ValueError, match=str(value)):
        plot.weights_by_group(tmp_path / "a.png", np.full(60, value), data()[1])
    assert not list(tmp_path.iterdir())


def test_principal_components_are_those_of_the_covariance():
    """Variances along the axes and their shares are those of the covariance's eigenvalues."""
    embeddings = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1] + 100
    points, shares = plot._principal_components(embeddings)
    values = np.linalg.eigvalsh(np.cov(embeddings.T, bias=True))[::-1]
    np.testing.assert_allclose(points.var(0), values[:2])
    np.testing.assert_allclose(shares, values[:2] / values.sum())
    np.testing.assert_allclose(points.T @ points / 50, np.diag(values[:2]), atol=1e-9)


def test_a_map_has_one_panel_for_each_known_group(tmp_path):
    _, labels, attributes, embeddings = data()
    plane = plot.plane(embeddings)
    plot.embedding_map(tmp_path / "one.png", plane, labels)
    plot.embedding_map(tmp_path / "two.png", plane, labels, attributes)
    assert pixels(tmp_path / "one.png").shape == (840, 980, 3)
    assert pixels(tmp_path / "two.png").shape == (840, 1840, 3)


def test_a_plane_has_a_random_subset_of_large_sets():
    """The shown points are the projections of those samples, the same each time."""
    embeddings = np.random.default_rng(0).normal(size=(4000, 8))
    plane = plot.plane(embeddings)
    assert plane.total == 4000 and len(set(plane.shown)) == len(plane.points) == 3000
    points, _ = plot._principal_components(embeddings[plane.shown])
    np.testing.assert_array_equal(plane.points, points)
    np.testing.assert_array_equal(plane.shown, plot.plane(embeddings).shown)


@pytest.mark.parametrize("embeddings", [np.ones((60, 4)), np.arange(60.0)[:, None]])
def test_a_map_of_flat_embeddings(tmp_path, embeddings):
    """Samples at one point have no variance, samples on a line no second component."""
    plane = plot.plane(jnp.asarray(embeddings))
    plot.embedding_map(tmp_path / "a.png", plane, data()[1])
    assert pixels(tmp_path / "a.png").shape == (840, 980, 3)


@pytest.mark.parametrize(
    "embeddings, match", [(np.zeros(60), r"got \(60,\)"), (np.full((60, 2), np.inf), "infinite")]
)
def test_a_plane_rejects_bad_input(embeddings, match):
    with pytest.raises(ValueError, match=match):
        plot.plane(embeddings)


# --- results -----------------------------------------------------------------------------------


def test_bars_have_the_height_of_their_means(tmp_path):
    """An aligned accuracy of 0.9 has a bar twice as high as a conflicting one of 0.45."""
    rows = {"DM": Scores(aligned=Score(0.9), conflicting=Score(0.45, 0.0, 1))}
    plot.accuracy_bars(tmp_path / "a.png", rows)
    image = pixels(tmp_path / "a.png")[100:]
    heights = [(image == color).all(-1).sum(0).max() for color in (BLUE, VERMILION)]
    assert heights[0] > 300 and abs(heights[0] / heights[1] - 2) < 0.02


def test_unknown_scores_have_no_bars(figures):
    """If no row has a worst group, its colour does not occur, not even in the legend."""
    assert share(figures["bars"], (0xCC, 0x79, 0xA7)) == 0
    assert min(share(figures["bars"], color) for color in (GREY, BLUE, VERMILION)) > 0.01


def test_bars_of_zero_are_drawn_and_rows_without_scores_rejected(tmp_path):
    plot.accuracy_bars(tmp_path / "a.png", {"DM": Scores(accuracy=Score(0.0, 0.0, 2))})
    with pytest.raises(ValueError, match="'DM'"):
        plot.accuracy_bars(tmp_path / "b.png", {"DM": Scores()})


def test_curves_are_drawn_in_their_colours(tmp_path):
    lines = {"plain": ([1, 2, 3], [9.0, 2.0, 0.5]), "density": ([1, 2, 3], [8.0, 1.0, 0.4])}
    plot.curves(tmp_path / "a.png", {"loss": lines, "accuracy, %": {"density": ([2, 3], [50, 60])}})
    lines = style.ROWS["plain"], style.ROWS["density"], style.ROWS["auto"]
    shares = [share(tmp_path / "a.png", tuple(bytes.fromhex(x.color[1:]))) for x in lines]
    assert min(shares[:2]) > 1e-4 and shares[2] == 0
    for panels in ({}, {"loss": {}}, {"loss": {"density": ([1, 2], [1.0])}}):
        with pytest.raises(ValueError, match="as many x as y"):
            plot.curves(tmp_path / "b.png", panels)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_stay_apart_for_colour_blind_readers(kind):
    """Distances in CIELAB (D65): 2.3 is just noticeable, 10 is obvious."""
    to_xyz = np.array(
        [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    )
    srgb = np.array([list(bytes.fromhex(color[1:])) for color in style.CATEGORIES]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(BLINDNESS[kind]).T, 0, 1)
    xyz = seen @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1], 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1e3 * np.eye(len(lab))
    assert distances.min() > 30


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_vector_figures_are_always_the_same_and_hold_the_pictures(tmp_path, form):
    for name in ("a", "b"):
        grid(tmp_path / f"{name}.{form}")
    first, second = ((tmp_path / f"{name}.{form}").read_bytes() for name in ("a", "b"))
    assert first == second and (b"<image" if form == "svg" else b"/Image") in first
    assert first.startswith(b"%PDF" if form == "pdf" else b"<?xml")


NAMES = {
    "p$1_2_3$": "p$1_2_3$",
    "100 %": "100 %",
    "a\\$b\\": "a\\$b\\",
    "{x}^_": "{x}^_",
    "two\nlines": "two lines",
    "\u200fright\u202e": "right",
    "\N{GRINNING FACE}\u200d": "\N{GRINNING FACE}",
    "_hidden": "\N{HAIR SPACE}_hidden",
    "caf\udce9": "caf\\udce9",
    "\ud800$": "\\ud800$",
    " \t": "(blank)",
    "": "(blank)",
    "x" * 300: f"{'x' * 13}…",
}


def test_names_are_drawn_as_they_are(tmp_path):
    """Formulas, control characters, surrogates and long names, as classes, titles and rows."""
    for start in (0, len(NAMES) - 10):
        part = dict(list(NAMES.items())[start : start + 10])
        path, names = tmp_path / "a.svg", list(part)
        draw_set(path, constant((1, 0, 0), k=10), class_names=names, title=names[0])
        texts = re.findall("<!-- (.*?) -->", path.read_text())
        assert html.unescape("\n".join(texts)).splitlines()[-10:] == list(part.values())
        plane = plot.plane(np.random.default_rng(0).normal(size=(10, 2)))
        plot.embedding_map(path, plane, np.arange(10), class_names=names)
        text = html.unescape(path.read_text())
        assert all(f"<!-- {shown} -->" in text for shown in part.values())
        plot.accuracy_bars(path, dict.fromkeys(names, ROWS["random"]))
        plot.curves(path, {"loss": dict.fromkeys(names, ([1, 2], [1.0, 2.0]))})


def test_settings_of_the_user_do_not_matter(tmp_path, figures):
    settings = {
        "text.usetex": True, "text.parse_math": False, "font.size": 40, "figure.dpi": 31,
        "axes.prop_cycle": matplotlib.cycler(color=["red"]), "interactive": True,
        "image.cmap": "gray", "axes.formatter.use_locale": True, "path.sketch": (1, 100, 2),
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        for draw in (weights, bars):
            draw(tmp_path / "a.png")
            assert (tmp_path / "a.png").read_bytes() == figures[draw.__name__].read_bytes()
        assert matplotlib.rcParams["font.size"] == 40


def test_a_figure_that_cannot_be_drawn_becomes_a_remark(tmp_path):
    path = tmp_path / "a.png"
    with pytest.warns(UserWarning, match=r"the set.*\(0, 1\)"):
        remark = plot.attempt("the set", lambda: draw_set(path, np.zeros((0, 1))))
    assert "(0, 1)" in remark and not list(tmp_path.iterdir())
    assert plot.attempt("the set", lambda: grid(path)) is None and path.exists()


def test_class_names_replace_numbers(tmp_path):
    """The margin is as wide as the class names; characters special to TeX are shown."""
    names = ["$a$ cat", "a dog with a name that is too long for any margin"]
    sets = dict(mean=MEAN, std=STD)
    draw_set(tmp_path / "a.svg", constant((1, 0, 0)), class_names=names, **sets)
    text = (tmp_path / "a.svg").read_text()
    assert "<!-- a dog with a … -->" in text and "cat -->" in text
    draw_set(tmp_path / "a.png", constant((1, 0, 0)), class_names=names, **sets)
    draw_set(tmp_path / "b.png", constant((1, 0, 0)), **sets)
    assert pixels(tmp_path / "a.png").shape[1] > pixels(tmp_path / "b.png").shape[1] + 100
    with pytest.raises(ValueError, match="code 1, got 1"):
        draw_set(tmp_path / "c.png", constant((1, 0, 0)), class_names=["x"], **sets)


def test_missing_images_of_a_class_are_white():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    labels, order = np.array([1, 0, 1, 1, 2]), np.array([3, 4, 1, 0, 2])
    image = plot.first_images(images, labels, order, num_classes=2, columns=2)[..., 0, 0, 0]
    np.testing.assert_allclose(image * 255, [[1, 255], [3, 0]], rtol=1e-6)
