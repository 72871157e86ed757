"""Figures of a run: image grids, sample weights, embeddings, accuracies and curves.

Functions that take a path write one PNG, SVG or PDF file atomically, by the ending of its name. The
style is that of `jaxdd.runs.reports.style`.
"""

import os
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdd.data import files
from jaxdd.runs import results
from jaxdd.runs.reports import style

MAX_ROWS, MAX_COLUMNS = 20, 10
"""Classes and images per class in a grid."""

_MAX_POINTS = 3000  # samples in an embedding map
_CELL, _GAP, _MARGIN = 96, 6, 48  # of a grid; this and all sizes below are in pixels
_LINE, _CHARACTER = 27, 15  # height of a title's line, width of its characters
_LETTER = 12  # width of the characters of other text


def attempt(name: str, draw: Callable[[], Any]) -> str | None:
    """Draw a figure; if that fails, warn and return the warning instead of raising.

    A figure must not stop a run whose results are computed.
    """
    try:
        draw()
    except Exception as error:
        remark = f"{name} could not be drawn: {_plain(f'{type(error).__name__}: {error}', 300)}"
        warnings.warn(remark, stacklevel=2)
        return remark
    return None


# --- images ------------------------------------------------------------------------------------


def comparison(
    path: str | os.PathLike,
    sets: Mapping[str, Any],
    *,
    mean: Any = 0.0,
    std: Any = 1.0,
    class_names: Sequence[str] = (),
) -> None:
    """Draw sets of the same classes side by side: at most twenty classes and ten images of each.

    Args:
        path: The file.
        sets: Title -> normalised images `[k, ipc, h, w, c]`. One channel is drawn in grey; of more
            than three, the first three are drawn.
        mean: Mean of each channel that was subtracted, `[c]`. Defaults to 0: images in [0, 1].
        std: Standard deviation of each channel that was divided by, `[c]`. Defaults to 1.
        class_names: Names of the rows. Defaults to their numbers.
    """
    pixels = [_rgb(images, mean, std) for images in sets.values()]
    classes = {name: len(images) for name, images in zip(sets, pixels, strict=True)}
    if len(set(classes.values())) != 1:
        raise ValueError(f"sets must have the same number of classes, got {classes or 'no sets'}")
    # Several sets share the width: fewer columns each, and smaller images.
    columns, cell = min(MAX_COLUMNS, max(2, 24 // len(sets))), _CELL if len(sets) == 1 else 64
    names = [_shorten(name) for name in _names(class_names, range(len(pixels[0])))][:MAX_ROWS]
    mosaics = [_mosaic(images[:MAX_ROWS, :columns], cell) for images in pixels]
    title_widths = [min(300, _CHARACTER * (len(title) + 1)) for title in sets]
    widths = [max(mosaic.shape[1], w) for mosaic, w in zip(mosaics, title_widths, strict=True)]
    titles = [_wrap(x, w // _CHARACTER) for x, w in zip(sets, widths, strict=True)]
    top = _LINE * max(map(len, titles)) + _MARGIN
    side = max(_MARGIN, _LETTER * max(map(len, names)) + 24)
    left = np.cumsum([side + 12, *(width + side for width in widths)])
    height = top + max(mosaic.shape[0] for mosaic in mosaics) + _MARGIN
    # Image pixels are drawn on screen pixels, so that nothing is blurred.
    with style.figure(path, left[-1], height) as figure:
        write = lambda x, y, text, **font: figure.text(x / left[-1], 1 - y / height, text, **font)
        for start, mosaic, lines in zip(left, mosaics, titles, strict=False):
            figure.figimage(mosaic, start, height - top - mosaic.shape[0])
            write(start, top - 14, "\n".join(lines), va="bottom", weight="bold", size=11)
            for row, name in enumerate(names):
                middle = top + (row + 0.5) * (mosaic.shape[0] + _GAP) / len(names) - _GAP / 2
                write(start - 12, middle, name, ha="right", va="center", color=style.GREY)
        write(left[0], height - 14, _omitted(pixels, columns), color=style.GREY, size=8)


def first_images(
    images: np.ndarray, labels: np.ndarray, order: np.ndarray, *, num_classes: int, columns: int
) -> np.ndarray:
    """Return the first images of each class in some order, `[num_classes, columns, h, w, c]`.

    Images are uint8 `[n, h, w, c]`, labels `[n]` and the order indices `[m]`. The result is in
    [0, 1]; missing images are white, and labels of at least `num_classes` are ignored.
    """
    grid = np.ones((num_classes, columns, *images.shape[1:]), np.float32)
    for k in range(num_classes):
        members = order[labels[order] == k][:columns]
        grid[k, : len(members)] = images[members] / np.float32(255)
    return grid


def tiles(images: Any, *, mean: Any = 0.0, std: Any = 1.0) -> np.ndarray:
    """Return a set as one RGBA picture, uint8 `[height, width, 4]`, with transparent gaps."""
    pixels = thumbnails(images, mean=mean, std=std)
    # The gaps have alpha 0, so that they take the colour of a light or a dark page.
    gap = max(1, max(pixels.shape[2:4]) // 16)
    opaque = np.pad(pixels, ((0, 0),) * 4 + ((0, 1),), constant_values=255)
    return _join(opaque, gap, background=0)


def picture(*sets: Any, mean: Any = 0.0, std: Any = 1.0, scale: int = 2) -> Any:
    """Return sets side by side as a Pillow image, which notebooks show.

    Args:
        *sets: Normalised images `[k, ipc, h, w, c]`, with equally many classes of one image size.
        mean: Mean of each channel that was subtracted, `[c]`. Defaults to 0: images in [0, 1].
        std: Standard deviation of each channel that was divided by, `[c]`. Defaults to 1.
        scale: Screen pixels per image pixel.

    >>> picture(np.zeros((2, 3, 8, 8, 1)), np.zeros((2, 1, 8, 8, 1))).size
    (80, 34)
    """
    from PIL import Image, ImageOps

    pictures = [tiles(images, mean=mean, std=std) for images in sets]
    if len({len(pixels) for pixels in pictures}) != 1:
        shapes = [np.shape(images) for images in sets]
        raise ValueError(f"sets must have equally many classes of one image size, got {shapes}")
    padded = [np.pad(pixels, ((0, 0), (0, _GAP), (0, 0))) for pixels in pictures]
    whole = Image.fromarray(np.concatenate(padded, axis=1)[:, :-_GAP])
    white = Image.new("RGBA", whole.size, "white")
    opaque = Image.alpha_composite(white, whole).convert("RGB")
    return ImageOps.scale(opaque, scale, Image.Resampling.NEAREST)


def thumbnails(images: Any, *, mean: Any = 0.0, std: Any = 1.0) -> np.ndarray:
    """Return images as RGB pixels, uint8 `[k, ipc, h, w, 3]`, with sides of at most 96 pixels."""
    pixels = _rgb(images, mean, std)
    side = max(pixels.shape[2:4])
    return _shrink(pixels, -(-side // _CELL)) if side > _CELL else pixels


def _rgb(images: Any, mean: Any, std: Any) -> np.ndarray:
    """Return RGB pixels, uint8 `[k, ipc, h, w, 3]`, of normalised images."""
    images = np.asarray(images)
    if images.ndim != 5 or not images.size:
        raise ValueError(f"images must have shape [k, ipc, h, w, c], got {images.shape}")
    if np.issubdtype(images.dtype, np.integer):
        raise TypeError(f"images must be normalised floating numbers, got {images.dtype}")
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    for name, value in (("mean", mean), ("std", std)):
        if value.shape not in ((), images.shape[-1:]):
            raise ValueError(f"{name} must have shape {images.shape[-1:]}, got {value.shape}")
    # A diverged run has NaN pixels; they are drawn black rather than at random.
    images = np.nan_to_num(np.clip(images.astype(np.float32) * std + mean, 0, 1))
    images = images[..., :3] if images.shape[-1] >= 3 else images.mean(-1, keepdims=True)
    return (np.broadcast_to(images, (*images.shape[:-1], 3)) * 255 + 0.5).astype(np.uint8)


def _names(names: Sequence[str], codes: Any) -> list[str]:
    """Return the names of integer codes, or the codes themselves if there are no names."""
    if names and max(codes, default=0) >= len(names):
        raise ValueError(f"names must cover the code {max(codes)}, got {len(names)} names")
    return [str(names[code] if names else code) for code in codes]


def _plain(text: str, length: int) -> str:
    """Return text on one line of at most `length` characters, all of which can be printed."""
    text = "".join(c if c.isprintable() else " " for c in files.to_utf8(text))
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _shorten(name: str, length: int = 14) -> str:
    """Return a name that fits a margin, escaped for Matplotlib."""
    return _escape(_plain(name, length) or "(blank)")


def _wrap(text: str, width: int) -> list[str]:
    """Return the lines of a title of at most 200 characters, escaped for Matplotlib."""
    return [_escape(line) for line in textwrap.wrap(_plain(text, 200), width)]


def _escape(text: str) -> str:
    # Dollar signs delimit formulas, and legends leave out labels that begin with an underscore.
    return ("\N{HAIR SPACE}" if text.startswith("_") else "") + text.replace("$", r"\$")


def _mosaic(pixels: np.ndarray, cell: int) -> np.ndarray:
    """Return a grid of images as one image, each scaled by a whole factor to about `cell`."""
    side = max(pixels.shape[2:4])
    if side > cell:
        pixels = _shrink(pixels, round(side / cell))
    else:
        factor = round(cell / side)
        pixels = pixels.repeat(factor, axis=2).repeat(factor, axis=3)
    return _join(pixels, _GAP, background=255)


def _join(pixels: np.ndarray, gap: int, *, background: int) -> np.ndarray:
    """Return images `[k, m, h, w, c]` as one image, with gaps of the background between them."""
    widths = ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0))
    padded = np.pad(pixels, widths, constant_values=background)
    rows, columns, height, width, channels = padded.shape
    whole = padded.swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    return whole[:-gap, :-gap]


def _shrink(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Return smaller images: means over squares of factor × factor pixels."""
    k, ipc, h, w, c = pixels.shape
    # Sides that are no multiple of the factor are extended by their last pixels.
    edge = ((0, 0), (0, 0), (0, -h % factor), (0, -w % factor), (0, 0))
    pixels = np.pad(pixels, edge, mode="edge")
    blocks = pixels.reshape(k, ipc, pixels.shape[2] // factor, factor, -1, factor, c)
    return (blocks.mean((3, 5)) + 0.5).astype(np.uint8)


def _omitted(sets: list[np.ndarray], columns: int) -> str:
    """Return a note on what a grid does not show, or an empty string."""
    k, ipc = len(sets[0]), max(pixels.shape[1] for pixels in sets)
    parts = [f"the first {columns} of {ipc} images per class"] * (ipc > columns)
    parts += [f"the first {MAX_ROWS} of {k} classes"] * (k > MAX_ROWS)
    return f"Shown: {', '.join(parts)}." if parts else ""


# --- data --------------------------------------------------------------------------------------


def weights_by_group(
    path: str | os.PathLike, weights: Any, labels: Any, attributes: Any = None, aligned: Any = None
) -> None:
    """Draw the distribution of sample weights, by bias group if the bias labels are known.

    The weights `[n]` of each class sum to one. The relative weight of sample i in class k is
    n_k w_i, which is 1 for uniform weights. Labels and attributes are `[n]`, `aligned` is the
    majority attribute of each class.
    """
    weights, labels = np.asarray(weights, np.float64), np.asarray(labels)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        span = f"{weights.min()}..{weights.max()}"
        raise ValueError(f"weights must be finite, not negative and not all zero, got {span}")
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    relative = weights * counts[classes]
    positive = relative[relative > 0]
    # Weights span orders of magnitude: bins are equally wide on a logarithmic axis, and each group
    # is scaled to 100 %, because conflicting samples are few.
    low, high = min(positive.min() / 1.3, 1 / 12), max(positive.max() * 1.3, 12)
    groups = {"accuracy": np.full(len(labels), True)}
    if attributes is not None and aligned is not None:
        conflicting = np.asarray(attributes) != np.asarray(aligned)[labels]
        groups = {"aligned": ~conflicting, "conflicting": conflicting}
    with style.subplots(path, 1050, 660) as (figure, ((axes,),)):
        for group, members in groups.items():
            name = "samples" if group == "accuracy" else results.SCORES[group]
            share = weights[members].sum() / weights.sum()
            axes.hist(
                relative[members].clip(low), bins=np.geomspace(low, high, 42),
                weights=np.full(members.sum(), 100 / max(members.sum(), 1)),
                color=style.GROUPS[group], alpha=0.65,
                label=f"{members.sum():,} {name}, {share:.0%} of the weight".replace("%", " %"),
            )  # fmt: skip
        axes.axvline(1, color="#222222", linewidth=1, linestyle=(0, (4, 3)))
        xlabel = "relative weight $n_k w$ (uniform: 1)"
        axes.set(xscale="log", xlabel=xlabel, ylabel="% of the group")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title("Weights of the real samples", pad=30)
        style.add_legend(axes)
        if zeros := len(relative) - len(positive):
            style.add_note(figure, f"The leftmost bar holds {zeros:,} samples of weight 0.")


class Plane(NamedTuple):
    """Samples in the plane of the two largest principal components of their embeddings.

    Coordinates of the shown samples `[m, 2]`, shares of the variance along both axes, indices of
    these samples `[m]`, and the number of samples of which they are a random subset.
    """

    points: np.ndarray
    shares: np.ndarray
    shown: np.ndarray
    total: int


def plane(embeddings: Any) -> Plane:
    """Project embeddings `[n, d]` to a plane; of more than 3,000 a fixed random subset."""
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(f"embeddings must have shape [n, d], got {embeddings.shape}")
    if not np.isfinite(embeddings.astype(np.float64)).all():
        raise ValueError("embeddings must be finite, got NaN or infinite values")
    n = len(embeddings)
    shown = np.random.default_rng(0).permutation(n)[:_MAX_POINTS]
    return Plane(*_principal_components(embeddings[shown].astype(np.float64)), shown, n)


def embedding_map(
    path: str | os.PathLike,
    plane: Plane,
    labels: Any,
    attributes: Any = None,
    *,
    class_names: Sequence[str] = (),
    attribute_names: Sequence[str] = (),
) -> None:
    """Draw embeddings coloured by class and, if they are known, by bias attribute, both `[n]`.

    Axes are the two largest principal components. Names default to numbers.
    """
    maps = {"class": (labels, class_names)}
    if attributes is not None:
        maps["bias attribute"] = attributes, attribute_names
    shape = 120 + 860 * len(maps), 840, 1, len(maps)
    with style.subplots(path, *shape, sharex=True, sharey=True) as (figure, (panels,)):
        for axes, (name, (values, names)) in zip(panels, maps.items(), strict=True):
            _scatter(axes, plane.points, np.asarray(values)[plane.shown], name, names)
            share = f"{100 * plane.shares[0]:.0f} % of the variance"
            axes.set(title=f"Embeddings by {name}", xlabel=f"first component ({share})")
        panels[0].set_ylabel(f"second component ({100 * plane.shares[1]:.0f} %)")
        if len(plane.shown) < plane.total:
            count = f"{len(plane.shown):,} of {plane.total:,}"
            style.add_note(figure, f"{count} samples, drawn at random.")


def _principal_components(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates `[n, 2]` along the two principal axes and their shares of the variance."""
    # The singular value decomposition of the centred samples needs no covariance matrix.
    centred = embeddings - embeddings.mean(0)
    left, scales, _ = np.linalg.svd(centred, full_matrices=False)
    missing = ((0, 0), (0, max(0, 2 - len(scales))))
    points = np.pad(left * scales, missing)[:, :2]
    variances = np.pad(scales**2, missing[1])
    return points, variances[:2] / max(variances.sum(), np.finfo(float).tiny)


def _scatter(axes, points, values, name, names):
    categories = np.unique(values)
    dots = dict(s=11, linewidths=0, alpha=0.8)
    if len(categories) > len(style.CATEGORIES):
        drawn = axes.scatter(*points.T, c=values, cmap="viridis", **dots)
        axes.figure.colorbar(drawn, ax=axes, label=name, shrink=0.8).outline.set_visible(False)
    else:
        # One call for all points, in random order, so that no group is painted over by a later one.
        colors = np.array(style.CATEGORIES)[np.searchsorted(categories, values)]
        axes.scatter(*points.T, c=colors, **dots)
        for category, color in zip(_names(names, categories), style.CATEGORIES, strict=False):
            axes.scatter([], [], c=color, s=30, label=_shorten(category))
        axes.legend(title=name, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.2)
    axes.set(xticks=[], yticks=[])


# --- results -----------------------------------------------------------------------------------


def accuracy_bars(path: str | os.PathLike, rows: Mapping[str, results.Scores]) -> None:
    """Draw the accuracies of several sets, in total and by group, if they have a mean."""
    known = {}
    for group in style.GROUPS:
        scores = {i: getattr(row, group) for i, row in enumerate(rows.values())}
        if scores := {i: x for i, x in scores.items() if results.finite(x.mean) is not None}:
            known[group] = scores
    if not known:
        raise ValueError(f"rows must have at least one accuracy, got {list(rows)}")
    width = 0.8 / max(2, len(known))
    pixels = max(1000, 200 + max(220, 100 * len(known)) * len(rows))
    with style.subplots(path, pixels, 690) as (figure, ((axes,),)):
        for index, (group, scores) in enumerate(known.items()):
            places = np.array(list(scores)) + (index - (len(known) - 1) / 2) * width
            _draw_bars(axes, places, list(scores.values()), width=0.92 * width, group=group)
        names = ["\n".join(_wrap(name, 16)) for name in rows]
        axes.set_xticks(range(len(names)), names)
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(-0.55, len(names) - 0.45), ylim=(0, 112), yticks=range(0, 101, 20))
        axes.set_ylabel("test accuracy, %")
        axes.set_title("Accuracy of networks trained on the set", pad=30)
        style.add_legend(axes)
        counts = [score.n for scores in known.values() for score in scores.values()]
        ends = dict.fromkeys((min(counts), max(counts)))
        style.add_note(figure, f"Mean and standard deviation, n = {' to '.join(map(str, ends))}.")


def _draw_bars(axes, places, scores, *, width, group):
    """Draw the bars of one group with error bars, and each mean above its bar."""
    heights = 100 * np.array([score.mean for score in scores])
    errors = 100 * np.nan_to_num([score.std for score in scores])
    axes.bar(places, heights, width, color=style.GROUPS[group], label=results.SCORES[group])
    # NaN gives no whisker, 0 would give a line.
    whiskers = np.where(errors > 0, errors, np.nan)
    lines = dict(fmt="none", ecolor="#222222", elinewidth=1, capsize=2.5)
    axes.errorbar(places, heights, whiskers, **lines)
    for place, height, error in zip(places, heights, errors, strict=True):
        axes.text(place, min(height + error + 1.5, 106), f"{height:.0f}", ha="center", size=8)


def curves(
    path: str | os.PathLike,
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
) -> None:
    """Draw curves over steps in panels above each other, with one line per name.

    Args:
        path: The file.
        panels: Label of the y axis -> name -> (x, y). The y axis is logarithmic if all values are
            positive and span more than a factor of ten.
    """
    lengths = {(len(x), len(y)) for lines in panels.values() for x, y in lines.values()}
    if not lengths or any(x != y or not x for x, y in lengths):
        raise ValueError(
            f"curves must have as many x as y values, at least one, got lengths {sorted(lengths)}"
        )
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    height = 170 + 430 * len(panels)
    with style.subplots(path, 1050, height, len(panels), sharex=True) as (_, column):
        column = column[:, 0]
        for axes, (label, lines) in zip(column, panels.items(), strict=True):
            for name, (x, y) in lines.items():
                line = style.line(name, names.index(name))
                axes.plot(x, y, label=_shorten(name), markersize=4, **line._asdict())
            values = np.concatenate([y for _, y in lines.values()])
            if values.min() > 0 and values.max() > 10 * values.min():
                axes.set_yscale("log")
            axes.set_ylabel(label)
            axes.grid(True, axis="y")
        column[-1].set_xlabel("step")
        style.add_legend(column[0], columns=min(len(names), 6))


FEATURES = {"random": "random networks", "trained": "a network trained on the real images"}
"""Networks whose features spectral profiles use, by their name in profile.json."""


def profile(path: str | os.PathLike, profile: Mapping[str, Any]) -> None:
    """Draw the spectral profile of a set and of random real images, from `profiles.measure`."""
    labels = {"variance": "variance of the set / real variance", "error": "error of class means"}
    names = {"set": "the set", "random": "random real images"}
    panels = profile["profiles"]
    title = "\n".join(_wrap(f"{profile['data']}: {profile['per_set']} images", 80))
    with style.subplots(path, 1300, 480 * len(panels) + 90, len(panels), 2) as (figure, rows):
        figure.suptitle(title, x=0.013, ha="left", fontweight="bold")
        for row, (network, panel) in zip(rows, panels.items(), strict=True):
            for axes, (field, label) in zip(row, labels.items(), strict=True):
                for index, (name, text) in enumerate(names.items()):
                    color, dashes, _ = style.line(name, index)
                    values = np.maximum(np.asarray(panel["sets"][name][field], float), 1e-4)
                    rank = np.arange(1, len(values) + 1)
                    axes.plot(rank, values, color=color, linestyle=dashes, label=text)
                axes.axhline(1, color=style.GREY, lw=0.8, ls=":")
                xlabel = "direction, in order of real variance"
                axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=label)
                axes.grid()
            row[0].set_title(f"features of {FEATURES[network]}")
            row[0].legend()
        style.add_note(figure, "Means over networks. Left: 1 is the variance of the real images.")
