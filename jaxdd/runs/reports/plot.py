"""Screen: pictures of a run. Image grids, weights, embeddings, accuracies and curves.

Every function draws on a figure of its own, without pyplot or a display, and writes the file whole
or not at all: PNG, or SVG or PDF if its name ends so. Matplotlib is imported when the first picture
is drawn. Blue is always the aligned group and vermilion the conflicting one, as Okabe and Ito have
them. The ten colours of classes came out of a search: under each simulated colour blindness any
two are at least 30 units of CIELAB apart.
"""

import contextlib
import os
import pathlib
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data.files import atomic_path

_DPI = 150
_VECTOR = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # no times: the same bytes again
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.09,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": "standard",
    "savefig.dpi": "figure",
    "svg.hashsalt": "jaxdd",
    "pdf.fonttype": 42,
}
_GREY = "#666666"
_GROUPS = {
    "accuracy": ("all", "#4d4d4d"),
    "aligned": ("aligned", "#0072b2"),
    "conflicting": ("conflicting", "#d55e00"),
    "worst_group": ("worst group", "#cc79a7"),
}
_CATEGORIES = (
    "#28228c", "#f8c01d", "#21deeb", "#e31d06", "#3f7cb7",
    "#aed793", "#b61cfd", "#927d7d", "#4d2045", "#72020f",
)  # fmt: skip
_ROWS, _COLUMNS = 20, 10
_CELL, _GAP, _MARGIN = 96, 6, 48  # of a grid, in pixels, as are all sizes below
_LINE, _CHARACTER = 27, 15  # height of a title's line, width of its characters
_LETTER = 12  # width of the characters of other text
_DRAWING = threading.Lock()  # Matplotlib has one style for all threads.


@contextlib.contextmanager
def _figure(path: str | os.PathLike, width: float, height: float, **options: Any) -> Iterator[Any]:
    """Yields a figure of a size in pixels and writes it when the block succeeds."""
    import matplotlib
    from matplotlib.figure import Figure

    suffix = pathlib.Path(path).suffix
    form = suffix[1:] if suffix in _VECTOR else "png"

    with _DRAWING, matplotlib.rc_context(_STYLE), atomic_path(path) as temporary:
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, **options)
        yield figure
        figure.savefig(temporary, format=form, metadata=_VECTOR.get(suffix))


def _head(axes: Any, title: str) -> None:
    """Writes title and legend above the axes, where they hide no data."""
    axes.set_title(title, pad=30)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(_GROUPS), borderpad=0)
    axes.grid(axis="y")


def _foot(figure: Any, note: str) -> None:
    figure.supxlabel(note, fontsize=8, color=_GREY, x=0.013, ha="left")


# --- images ------------------------------------------------------------------------------------


def synthetic_grid(
    path: str | os.PathLike,
    images: Any,
    *,
    mean: Any,
    std: Any,
    title: str = "",
    columns: int | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Draws a synthetic set, one row per class.

    At most twenty classes are drawn; a note says what is left out.

    Args:
        path: the PNG file.
        images: normalised images [k, ipc, h, w, c]. One channel is drawn in grey, of more than
            three the first three.
        mean: mean of each channel that was subtracted, [c].
        std: standard deviation of each channel that was divided by, [c].
        title: text above the grid.
        columns: images per class, the first ten by default.
        class_names: beside the rows, instead of their numbers.

    Raises:
        ValueError: images, mean or std of other shapes, names of another number of classes, or
            fewer than one column.
        TypeError: images of integers, which are not normalised.
    """
    pixels = _pixels(images, mean, std)
    columns = _COLUMNS if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, found {columns}")
    _panels(path, [pixels], [title], columns, _CELL, class_names)


def comparison(
    path: str | os.PathLike,
    sets: Mapping[str, Any],
    *,
    mean: Any = 0.0,
    std: Any = 1.0,
    titles: Mapping[str, str] | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Draws several synthetic sets of the same classes side by side.

    As many images per class are drawn as fit, at most ten; a note says what is left out.

    Args:
        path: the PNG file.
        sets: name -> normalised images [k, ipc, h, w, c].
        mean: mean of each channel that was subtracted, [c].
        std: standard deviation of each channel that was divided by, [c].
        titles: name -> text above the set, such as "plain DM: 31 %"; the name by default.
        class_names: beside the rows, instead of their numbers.

    Raises:
        ValueError: no sets, sets of different numbers of classes, titles of unknown sets, names of
            another number of classes, or images, mean or std of other shapes.
        TypeError: images of integers, which are not normalised.
    """
    if not sets:
        raise ValueError("sets must hold at least one synthetic set, found none")
    titles = titles or {}
    if unknown := sorted(set(titles) - set(sets)):
        raise ValueError(f"titles of unknown sets {unknown}, expected some of {sorted(sets)}")
    pixels = {name: _pixels(images, mean, std) for name, images in sets.items()}
    classes = {name: len(each) for name, each in pixels.items()}
    if len(set(classes.values())) > 1:
        raise ValueError(f"sets must have the same number of classes, found {classes}")
    columns = min(_COLUMNS, max(2, 24 // len(sets)))
    texts = [titles.get(name, name) for name in pixels]
    _panels(path, list(pixels.values()), texts, columns, 64, class_names)


def first_images(
    images: np.ndarray, labels: np.ndarray, order: np.ndarray, *, num_classes: int, columns: int
) -> np.ndarray:
    """Returns the first images of each class, `[k, columns, h, w, c]` in [0, 1].

    Args:
        images: uint8 `[n, h, w, c]`.
        labels: `[n]`; those from num_classes on are left out.
        order: `[m]` indices of the images, the first to be drawn first.
        num_classes: k.
        columns: images of each class; white where there are fewer.
    """
    drawn = np.ones((num_classes, columns, *images.shape[1:]), np.float32)
    for k in range(num_classes):
        rows = order[labels[order] == k][:columns]
        drawn[k, : len(rows)] = images[rows] / np.float32(255)
    return drawn


def tiles(images: Any, *, mean: Any, std: Any) -> np.ndarray:
    """Returns a synthetic set as one picture without text, for pages that scale it themselves.

    Every class has its row. The gaps between the images are transparent, and images of more than
    96 pixels are made smaller.

    Args:
        images: normalised images [k, ipc, h, w, c].
        mean: mean of each channel that was subtracted, [c].
        std: standard deviation of each channel that was divided by, [c].

    Returns:
        RGBA pixels, uint8 [height, width, 4].

    Raises:
        ValueError: images, mean or std of other shapes.
        TypeError: images of integers, which are not normalised.
    """
    pixels = thumbnails(images, mean=mean, std=std)
    gap = max(1, max(pixels.shape[2:4]) // 16)
    pixels = np.pad(pixels, ((0, 0),) * 4 + ((0, 1),), constant_values=255)
    pixels = np.pad(pixels, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)))
    rows, columns, height, width, _ = pixels.shape
    whole = pixels.swapaxes(1, 2).reshape(rows * height, columns * width, 4)
    return whole[:-gap, :-gap]


def picture(*sets: Any, mean: Any = 0.0, std: Any = 1.0, scale: int = 2) -> Any:
    """Returns sets side by side as an image of Pillow, which a notebook shows.

    Args:
        *sets: as `tiles` has them, with equally many classes and images of one size.
        mean: of each channel [c], that was subtracted; none of images in [0, 1].
        std: of each channel [c], that was divided by.
        scale: side of a pixel on the screen.

    Raises:
        TypeError: as `tiles`.
        ValueError: as `tiles`, or for no sets, or sets whose pictures are not of one height.

    >>> picture(np.zeros((2, 3, 8, 8, 1)), np.zeros((2, 1, 8, 8, 1))).size
    (80, 34)
    """
    from PIL import Image, ImageOps

    drawn = []
    for images in sets:
        center, spread = (np.broadcast_to(each, np.shape(images)[-1:]) for each in (mean, std))
        tiled = tiles(images, mean=center, std=spread)
        drawn.append(np.pad(tiled, ((0, 0), (0, 6), (0, 0))))
    if len({len(tiled) for tiled in drawn}) != 1:
        found = [np.shape(images) for images in sets]
        raise ValueError(
            f"sets must have equally many classes and images of one size, found {found}"
        )
    whole = Image.fromarray(np.concatenate(drawn, axis=1)[:, :-6])
    white = Image.new("RGBA", whole.size, "white")
    shown = Image.alpha_composite(white, whole).convert("RGB")
    return ImageOps.scale(shown, scale, Image.Resampling.NEAREST)


def thumbnails(images: Any, *, mean: Any, std: Any) -> np.ndarray:
    """Returns images as RGB pixels, uint8 [k, ipc, h, w, 3], those of more than 96 made smaller.

    Args:
        images: as in `tiles`.
        mean: as in `tiles`.
        std: as in `tiles`.
    """
    pixels = _pixels(images, mean, std)
    side = max(pixels.shape[2:4])
    return _shrink(pixels, -(-side // _CELL)) if side > _CELL else pixels


def _pixels(images: Any, mean: Any, std: Any) -> np.ndarray:
    """Returns RGB pixels, uint8 [k, ipc, h, w, 3], of normalised images."""
    images = np.asarray(images)
    if images.ndim != 5 or not images.size:
        raise ValueError(f"images must have shape [k, ipc, h, w, c], found {images.shape}")
    if np.issubdtype(images.dtype, np.integer):
        raise TypeError(f"images must be normalised, not integers: found {images.dtype}")
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    for name, value in (("mean", mean), ("std", std)):
        if value.shape not in ((), images.shape[-1:]):
            raise ValueError(f"{name} must have shape {images.shape[-1:]}, found {value.shape}")
    images = np.nan_to_num(np.clip(images.astype(np.float32) * std + mean, 0, 1))
    images = images[..., :3] if images.shape[-1] >= 3 else images.mean(-1, keepdims=True)
    return (np.broadcast_to(images, (*images.shape[:-1], 3)) * 255 + 0.5).astype(np.uint8)


def _panels(
    path: str | os.PathLike,
    sets: list[np.ndarray],
    titles: list[str],
    columns: int,
    cell: int,
    class_names: Sequence[str],
) -> None:
    """Draws sets side by side, image pixels on screen pixels, so that nothing is blurred."""
    names = [_short(name) for name in _names(class_names, range(len(sets[0])))][:_ROWS]
    mosaics = [_mosaic(pixels[:_ROWS, :columns], cell) for pixels in sets]
    roomy = (min(300, _CHARACTER * (len(text) + 1)) for text in titles)
    widths = [max(mosaic.shape[1], least) for mosaic, least in zip(mosaics, roomy, strict=True)]
    wrapped = [
        textwrap.wrap(text, width // _CHARACTER) for text, width in zip(titles, widths, strict=True)
    ]
    top = _LINE * max(len(lines) for lines in wrapped) + _MARGIN
    side = max(_MARGIN, _LETTER * max(map(len, names)) + 24)
    left, bottom = np.cumsum([side + 12, *(width + side for width in widths)]), _MARGIN
    height = top + max(mosaic.shape[0] for mosaic in mosaics) + bottom
    with _figure(path, left[-1], height) as figure:

        def write(x: float, y: float, text: str, **style: Any) -> None:
            figure.text(x / left[-1], 1 - y / height, text, **style)

        for start, mosaic, lines in zip(left, mosaics, wrapped, strict=False):
            figure.figimage(mosaic, start, height - top - mosaic.shape[0])
            write(start, top - 14, "\n".join(lines), va="bottom", weight="bold", size=11)
            for row, name in enumerate(names):
                middle = top + (row + 0.5) * (mosaic.shape[0] + _GAP) / len(names) - _GAP / 2
                write(start - 12, middle, name, ha="right", va="center", color=_GREY)
        write(left[0], height - 14, _note(sets, columns), color=_GREY, size=8)


def _names(names: Sequence[str], codes: Any) -> list[str]:
    """Returns the names of codes, which are their own where there are no names."""
    if names and max(codes, default=0) >= len(names):
        raise ValueError(f"there are {len(names)} names, found the code {max(codes)}")
    return [str(names[code] if names else code) for code in codes]


def _short(name: str, most: int = 14) -> str:
    """Returns a name that fits a margin, and that matplotlib does not take for a formula."""
    return (name if len(name) <= most else f"{name[: most - 1]}…").replace("$", r"\$")


def _mosaic(pixels: np.ndarray, cell: int) -> np.ndarray:
    """Returns one image of a grid of images, each scaled by a whole factor to about `cell`."""
    rows, columns, h, w, _ = pixels.shape
    if max(h, w) > cell:
        pixels = _shrink(pixels, round(max(h, w) / cell))
    else:
        factor = round(cell / max(h, w))
        pixels = pixels.repeat(factor, axis=2).repeat(factor, axis=3)
    gap = ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0))
    tiles = np.pad(pixels, gap, constant_values=255).swapaxes(1, 2)
    return tiles.reshape(rows * tiles.shape[1], -1, 3)[:-_GAP, :-_GAP]


def _shrink(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Returns images made smaller by averaging squares of factor x factor pixels."""
    k, ipc, h, w, c = pixels.shape
    edge = ((0, 0), (0, 0), (0, -h % factor), (0, -w % factor), (0, 0))
    pixels = np.pad(pixels, edge, mode="edge")
    blocks = pixels.reshape(k, ipc, pixels.shape[2] // factor, factor, -1, factor, c)
    return (blocks.mean((3, 5)) + 0.5).astype(np.uint8)


def _note(sets: list[np.ndarray], columns: int) -> str:
    k, ipc = len(sets[0]), max(pixels.shape[1] for pixels in sets)
    parts = []
    if ipc > columns:
        parts.append(f"the first {columns} of {ipc} images per class")
    if k > _ROWS:
        parts.append(f"the first {_ROWS} of {k} classes")
    return f"Drawn: {', '.join(parts)}." if parts else ""


# --- data --------------------------------------------------------------------------------------


def weights_by_group(
    path: str | os.PathLike,
    weights: Any,
    labels: Any,
    attributes: Any = None,
    aligned: Any = None,
) -> None:
    """Draws how the weights are distributed among aligned and among conflicting samples.

    The relative weight of sample i in class k is n_k w_i, which is 1 for uniform weights. The
    legend tells the share of the total weight that each group carries.

    Args:
        path: the PNG file.
        weights: weight of each sample [n], summing to one in each class; not negative.
        labels: class of each sample [n], integers.
        attributes: bias attribute of each sample [n], or None if unknown: one histogram.
        aligned: attribute that each class is aligned with [k]; needed with attributes.

    Raises:
        ValueError: arrays of other shapes, attributes without aligned or the reverse, labels that
            aligned does not cover, weights that are negative, not finite or all zero.
    """
    weights, labels = _rows(weights=weights, labels=labels)
    weights = weights.astype(np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ValueError("weights must be finite, not negative and not all zero")
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    relative = weights * counts[classes]
    positive = relative[relative > 0]
    low, high = min(positive.min() / 1.3, 1 / 12), max(positive.max() * 1.3, 12)
    with _figure(path, 1050, 660, layout="constrained") as figure:
        axes = figure.add_subplot()
        for name, color, members in _split(labels, attributes, aligned):
            share = weights[members].sum() / weights.sum()
            axes.hist(
                relative[members].clip(low),
                bins=np.geomspace(low, high, 42),
                weights=np.full(members.sum(), 100 / max(members.sum(), 1)),
                color=color,
                alpha=0.65,
                label=f"{members.sum():,} {name}, {share:.0%} of the weight".replace("%", " %"),
            )
        axes.axvline(1, color="#222222", linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xscale="log", xlabel="relative weight $n_k w$ (uniform: 1)")
        axes.set_ylabel("% of the group")
        axes.xaxis.set_major_formatter("{x:g}")
        _head(axes, "Weights of the real samples")
        if len(positive) < len(relative):
            zeros = len(relative) - len(positive)
            _foot(figure, f"The leftmost bar holds {zeros:,} samples of weight 0.")


def _split(labels: np.ndarray, attributes: Any, aligned: Any) -> list[tuple[str, str, np.ndarray]]:
    """Returns name, colour and members of the groups: aligned and conflicting, or all."""
    if (attributes is None) != (aligned is None):
        raise ValueError("attributes and aligned must be given together, found only one")
    if attributes is None:
        return [("samples", _GROUPS["accuracy"][1], np.full(len(labels), True))]
    labels, attributes = _rows(labels=labels, attributes=attributes)
    aligned = np.asarray(aligned)
    if aligned.ndim != 1 or labels.min() < 0 or labels.max() >= len(aligned):
        raise ValueError(
            f"aligned must have shape [k] with k above the labels, found shape {aligned.shape} and "
            f"labels from {labels.min()} to {labels.max()}"
        )
    conflicting = attributes != aligned[labels]
    masks = {"aligned": ~conflicting, "conflicting": conflicting}
    return [(*_GROUPS[name], members) for name, members in masks.items()]


class Plane(NamedTuple):
    """Samples in the plane of the two largest principal components of their embeddings.

    Attributes:
        points: `[m, 2]`.
        shares: `[2]` of the variance.
        shown: `[m]` indices of the samples, drawn at random where there are more.
        total: number of samples.
    """

    points: np.ndarray
    shares: np.ndarray
    shown: np.ndarray
    total: int


def plane(embeddings: Any) -> Plane:
    """Projects embeddings, at most 3,000 that are drawn at random but always the same.

    Args:
        embeddings: [n, d].

    Raises:
        ValueError: an array of another shape, or that is not finite.
    """
    (embeddings,) = _rows(ndims=(2,), embeddings=embeddings)
    if not np.isfinite(embeddings.astype(np.float64)).all():
        raise ValueError("embeddings must be finite, found NaN or infinite values")
    n = len(embeddings)
    shown = np.random.default_rng(0).permutation(n)[:3000]
    return Plane(*_principal(embeddings[shown].astype(np.float64)), shown, n)


def embedding_map(
    path: str | os.PathLike,
    embeddings: Any,
    labels: Any,
    attributes: Any = None,
    *,
    class_names: Sequence[str] = (),
    attribute_names: Sequence[str] = (),
) -> None:
    """Draws embeddings in the plane of their two largest principal components.

    At most 3,000 samples, drawn at random but always the same, are analysed.

    Args:
        path: the file.
        embeddings: [n, d], or the `Plane` of them.
        labels: class of each sample [n], the colour of the left map.
        attributes: bias attribute of each sample [n], the colour of the right map, or None.
        class_names: in the legend, instead of numbers.
        attribute_names: likewise.

    Raises:
        ValueError: arrays of other shapes, names of another number, or embeddings that are not
            finite.
    """
    maps = {"class": labels} | ({} if attributes is None else {"bias attribute": attributes})
    names = {"class": class_names, "bias attribute": attribute_names}
    if not isinstance(embeddings, Plane):
        embeddings = _rows(ndims=(2, 1, 1), embeddings=embeddings, **maps)[0]
        embeddings = plane(embeddings)
    points, shares, shown, n = embeddings
    with _figure(path, 120 + 860 * len(maps), 840, layout="constrained") as figure:
        panels = figure.subplots(1, len(maps), squeeze=False, sharex=True, sharey=True)[0]
        for axes, (name, values) in zip(panels, maps.items(), strict=True):
            _scatter(axes, points, np.asarray(values)[shown], name, names[name])
            axes.set_title(f"Embeddings by {name}")
            axes.set_xlabel(f"first component ({100 * shares[0]:.0f} % of the variance)")
        panels[0].set_ylabel(f"second component ({100 * shares[1]:.0f} %)")
        if len(shown) < n:
            _foot(figure, f"{len(shown):,} of {n:,} samples, drawn at random.")


def _principal(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns coordinates [n, 2] along the two principal axes and their shares of the variance."""
    centred = embeddings - embeddings.mean(0)
    left, scales, _ = np.linalg.svd(centred, full_matrices=False)
    missing = ((0, 0), (0, max(0, 2 - len(scales))))
    points = np.pad(left * scales, missing)[:, :2]
    variances = np.pad(scales**2, missing[1])
    return points, variances[:2] / max(variances.sum(), np.finfo(float).tiny)


def _scatter(
    axes: Any, points: np.ndarray, values: np.ndarray, name: str, names: Sequence[str]
) -> None:
    categories = np.unique(values)
    style = dict(s=11, linewidths=0, alpha=0.8)
    if len(categories) > len(_CATEGORIES):
        drawn = axes.scatter(*points.T, c=values, cmap="viridis", **style)
        axes.figure.colorbar(drawn, ax=axes, label=name, shrink=0.8).outline.set_visible(False)
    else:
        # All in one call, in random order, so that no group is painted over by a later one.
        colors = np.array(_CATEGORIES)[np.searchsorted(categories, values)]
        axes.scatter(*points.T, c=colors, **style)
        for category, color in zip(_names(names, categories), _CATEGORIES, strict=False):
            axes.scatter([], [], c=color, s=30, label=_short(category))
        axes.legend(title=name, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.2)
    axes.set(xticks=[], yticks=[])


def _rows(*, ndims: Sequence[int] = (1, 1, 1), **values: Any) -> list[np.ndarray]:
    """Returns arrays by the same samples, after a look at their shapes."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    for (name, array), ndim in zip(arrays.items(), ndims, strict=False):
        if array.ndim != ndim or not array.size:
            expected = "[n]" if ndim == 1 else "[n, d]"
            raise ValueError(f"{name} must have shape {expected}, found {array.shape}")
    lengths = [len(array) for array in arrays.values()]
    if len(set(lengths)) > 1:
        names = " and ".join([", ".join(list(arrays)[:-1]), list(arrays)[-1]])
        found = " and ".join([", ".join(map(str, lengths[:-1])), str(lengths[-1])])
        raise ValueError(f"{names} must have the same leading dimension, found {found}")
    return list(arrays.values())


# --- results -----------------------------------------------------------------------------------


def accuracy_bars(
    path: str | os.PathLike, rows: Mapping[str, Mapping[str, Mapping[str, float] | None]]
) -> None:
    """Draws the accuracy of several synthetic sets: overall and by group.

    Args:
        path: the PNG file.
        rows: name of the set -> group -> {"mean": , "std": , "n": }, shares in [0, 1], as in
            `{"random": {"accuracy": {"mean": 0.6, "std": 0.02, "n": 5}, "aligned": None}}`. Groups
            are "accuracy" (all samples), "aligned", "conflicting" and "worst_group"; those that are
            missing, None or NaN are left out.

    Raises:
        ValueError: no rows, unknown groups or statistics, a mean outside of [0, 1], or nothing
            left.
    """
    as_dict = lambda row: {group: getattr(row, group)._asdict() for group in _GROUPS}
    table = {name: _scores(name, as_dict(row)) for name, row in rows.items()}
    groups = [group for group in _GROUPS if any(group in scores for scores in table.values())]
    if not groups:
        raise ValueError("rows must hold at least one accuracy, found none")
    width = 0.8 / max(2, len(groups))
    pixels = max(1000, 200 + max(220, 100 * len(groups)) * len(table))
    with _figure(path, pixels, 690, layout="constrained") as figure:
        axes = figure.add_subplot()
        for index, group in enumerate(groups):
            places = [i for i, scores in enumerate(table.values()) if group in scores]
            found = [scores[group] for scores in table.values() if group in scores]
            means, stds, _ = zip(*found, strict=True)
            x = np.array(places) + (index - (len(groups) - 1) / 2) * width
            _bars(axes, x, means, stds, width=0.92 * width, group=group)
        names = [textwrap.fill(name, 16) for name in table]
        axes.set_xticks(range(len(names)), names)
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(-0.55, len(names) - 0.45), ylim=(0, 112), yticks=range(0, 101, 20))
        axes.set_ylabel("test accuracy, %")
        _head(axes, "Accuracy of networks trained on the synthetic set")
        counts = {n for scores in table.values() for _, _, n in scores.values()}
        if None not in counts:
            ends = dict.fromkeys((min(counts), max(counts)))
            _foot(figure, f"Mean and standard deviation, n = {' to '.join(map(str, ends))}.")


def curves(
    path: str | os.PathLike,
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    xlabel: str = "step",
) -> None:
    """Draws what changes along the way, panels above each other with a line for each name.

    Args:
        path: the file.
        panels: what is drawn, such as "loss" -> name -> (x, y). A panel whose values are all
            positive and span more than a factor of ten has a logarithmic scale.
        xlabel: what x is.

    Raises:
        ValueError: nothing to draw, or x and y of different lengths.
    """
    lengths = {(len(x), len(y)) for lines in panels.values() for x, y in lines.values()}
    if not lengths or any(x != y or not x for x, y in lengths):
        raise ValueError(f"curves must have as many x as y, at least one, found {sorted(lengths)}")
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with _figure(path, 1050, 170 + 430 * len(panels), layout="constrained") as figure:
        rows = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (title, lines) in zip(rows, panels.items(), strict=True):
            for name, (x, y) in lines.items():
                which = names.index(name)
                style = dict(color=_CATEGORIES[which % len(_CATEGORIES)], linewidth=1.8)
                dash = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))[which % 4]
                axes.plot(x, y, label=_short(name), linestyle=dash, marker=".", **style)
            drawn = np.concatenate([y for _, y in lines.values()])
            if drawn.min() > 0 and drawn.max() > 10 * drawn.min():
                axes.set_yscale("log")
            axes.set_ylabel(title)
            axes.grid(axis="y")
        rows[-1].set_xlabel(xlabel)
        rows[0].legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(names), 6), borderpad=0
        )


def heat_maps(
    path: str | os.PathLike,
    panels: Mapping[str, Any],
    *,
    rows: Mapping[str, Sequence[float | str]],
    columns: Mapping[str, Sequence[float | str]],
    limits: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Draws matrices of numbers side by side, with every number in its cell.

    Args:
        path: the PNG file.
        panels: title -> matrix [r, c] with values in `limits`; NaN cells stay empty.
        rows: one entry, the name of the variable along the rows -> its r values.
        columns: one entry, the same along the columns, c values.
        limits: of the colours.

    Raises:
        ValueError: no panels, or a matrix of another shape than the values along its sides.
    """
    ((row_name, row_values),), ((column_name, column_values),) = rows.items(), columns.items()
    shape = len(row_values), len(column_values)
    found = {title: np.asarray(matrix, float) for title, matrix in panels.items()}
    wrong = {title: matrix.shape for title, matrix in found.items() if matrix.shape != shape}
    if wrong or not found:
        raise ValueError(f"panels must be matrices of shape {shape}, found {wrong or 'none'}")
    middle = (limits[0] + limits[1]) / 2
    down, along = ([_tick(value) for value in values] for values in (row_values, column_values))
    cell = max(110, _LETTER * (max(map(len, along)) + 1))
    panel = max(cell * shape[1], _CHARACTER * max(map(len, found))) + 40
    width = panel * len(found) + _LETTER * max(map(len, down)) + 100
    height = max(80 * shape[0], _LETTER * len(row_name)) + 150
    with _figure(path, width, height, layout="constrained") as figure:
        row = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        row[0].set_ylabel(row_name)
        for axes, (title, matrix) in zip(row, found.items(), strict=True):
            axes.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap="viridis", aspect="auto")
            axes.set_title(title)
            axes.set_xticks(range(shape[1]), along)
            axes.set_yticks(range(shape[0]), down)
            axes.set_xlabel(column_name)
            for (i, j), value in np.ndenumerate(matrix):
                if np.isfinite(value):
                    color = "white" if value < middle else "black"
                    axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=color)


def spectra(
    path: str | os.PathLike, panels: Mapping[str, Mapping[str, Any]], *, title: str = ""
) -> None:
    """Draws what sets keep of the real variance and class signal, direction by direction.

    Args:
        path: the file, SVG where it ends in .svg and PNG otherwise.
        panels: title -> name of the set -> {"variance": `[d]`, "error": `[d]`}, the direction of
            the largest real variance first.
        title: text above all.

    Raises:
        ValueError: no panels.
    """
    if not panels:
        raise ValueError("panels must hold at least one spectrum, found none")
    words = {"variance": "variance of the set / real variance", "error": "error of class signal"}
    height = 480 * len(panels) + 90
    with _figure(path, 1300, height, layout="constrained") as figure:
        figure.suptitle(title, x=0.013, ha="left", fontweight="bold")
        rows = figure.subplots(len(panels), 2, squeeze=False)
        for row, (name, sets) in zip(rows, panels.items(), strict=True):
            for axes, (field, label) in zip(row, words.items(), strict=True):
                for each, colour in zip(sets, _CATEGORIES, strict=False):
                    values = np.asarray(sets[each][field], float)
                    rank = np.arange(1, len(values) + 1)
                    axes.plot(rank, np.maximum(values, 1e-4), color=colour, lw=1.2, label=each)
                axes.axhline(1, color=_GREY, lw=0.8, ls=":")
                axes.set(xscale="log", yscale="log", ylabel=label)
                axes.set_xlabel("direction, by real variance")
                axes.grid()
            row[0].set_title(name)
            row[0].legend()
        _foot(figure, "Means over networks; 1 left is as much as the real images vary.")


FEATURES = {"random": "random networks", "trained": "a network trained on the real images"}
"""Whose features profiles are of, in words."""


def profile(path: str | os.PathLike, found: Mapping[str, Any]) -> None:
    """Draws what `profiles.measure` found of a set.

    Args:
        path: as in `spectra`.
        found: as in profile.json.

    Raises:
        ValueError: as in `spectra`.
    """
    names = {"set": "the set", "random": "random real images"}
    panels = {
        f"features of {FEATURES[each]}": {said: p["sets"][name] for name, said in names.items()}
        for each, p in found["profiles"].items()
    }
    spectra(path, panels, title=f"{found['data']}: {found['per_set']} images")


def _tick(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _bars(axes: Any, x: np.ndarray, means: Any, stds: Any, *, width: float, group: str) -> None:
    """Draws the bars of one group with their errors, and each mean above its bar."""
    name, color = _GROUPS[group]
    heights, errors = 100 * np.array(means), 100 * np.array(stds)
    axes.bar(x, heights, width, color=color, label=name)
    whiskers = np.where(errors > 0, errors, np.nan)
    axes.errorbar(x, heights, whiskers, fmt="none", ecolor="#222222", elinewidth=1, capsize=2.5)
    for place, height, error in zip(x, heights, errors, strict=True):
        above = min(height + error + 1.5, 106)
        axes.text(place, above, f"{height:.0f}", ha="center", size=8)


def _scores(name: str, row: Mapping[str, Mapping[str, float] | None]) -> dict[str, Any]:
    """Returns group -> (mean, std, n) of one row, without the groups that are not known."""
    if unknown := sorted(set(row) - set(_GROUPS)):
        raise ValueError(f"{name} has unknown groups {unknown}, expected some of {list(_GROUPS)}")
    scores = {}
    for group, score in row.items():
        if score is None or score.get("mean") is None or np.isnan(score["mean"]):
            continue
        if unknown := sorted(set(score) - {"mean", "std", "n", "each"}):
            raise ValueError(f"{group} of {name} has unknown statistics {unknown}")
        if not 0 <= score["mean"] <= 1:
            raise ValueError(f"{group} of {name} must be in [0, 1], found {score['mean']}")
        scores[group] = score["mean"], np.nan_to_num(score.get("std") or 0.0), score.get("n")
    return scores
