"""Illustrations for the documentation that are drawn from images or embeddings.

    python -m experiments.tools.illustrations [DEMO]

computes the embedding, and copies the synthetic sets of the folder of `jaxdd demo` if it is named.
"""

import hashlib
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from experiments.tools import record, words
from jaxdd import weights
from jaxdd.data import benchmarks, datasets, files, rendering
from jaxdd.runs import components, weightings
from jaxdd.runs.options import make
from jaxdd.runs.reports import plot, style
from jaxdd.weights import blind_features

EMBEDDING = record.RESULTS / "embedding-cdigits.json"
DEMO = record.RESULTS / "demo.npz"
_SHOWN = "plain", "density"


def measure_embedding(path: pathlib.Path = EMBEDDING) -> None:
    """Embed the small digits of `jaxdd demo`; save the plane and the weights of all samples."""
    options = make(conflict=0.1)
    data = benchmarks.load("cdigits", conflict=options.conflict, seed=options.seed)
    pool = datasets.pool(data)
    density = weights.by_density(
        components.key(options, "encoder"),
        pool,
        strategy=data.strategy,
        steps=options.encoder_steps,
        **weightings.encoding(options, pool),
    )
    plane = plot.plane(density.embeddings)
    order = np.argsort(plane.shown)
    counts = np.bincount(data.train.labels)
    columns = {
        "x": np.round(plane.points[order, 0], 3),
        "y": np.round(plane.points[order, 1], 3),
        "label": data.train.labels,
        "attribute": data.train.attributes,
        "relative_weight": np.round(density.weights * counts[data.train.labels], 3),
    }
    content = {"shares": plane.shares, "samples": columns}
    files.write_json(path, files.to_json(record.circumstances() | content))


def embedding_data() -> dict[str, Any]:
    """Return the plane and the weights of the small digits."""
    content = files.read_json(EMBEDDING)
    return {"shares": content["shares"], "samples": content["samples"]}


def embedding(path: os.PathLike, data: dict[str, Any], *, label: int = 6) -> None:
    """Draw all digits in their colours, and the weights of one class."""
    from matplotlib.colors import LogNorm

    samples = {name: np.array(x) for name, x in data["samples"].items()}
    members = samples["label"] == label
    with style.subplots(path, 1250, 640, 1, 2, sharex=True, sharey=True) as (figure, (panels,)):
        everything, weighted = panels
        colors = np.array(rendering.LFF_COLORS)[samples["attribute"]] / 255
        dots = dict(linewidths=0.4, edgecolors="#555555")
        everything.scatter(samples["x"], samples["y"], s=16, c=colors, **dots)
        everything.set_title("All digits, in their colours")
        weighted.scatter(samples["x"], samples["y"], s=6, c="#dddddd", linewidths=0)
        conflicting = members & (samples["attribute"] != samples["label"])
        shared = dict(cmap="viridis", norm=LogNorm(0.1, 20), **dots)
        for group, marker, size, name in (
            (members & ~conflicting, "o", 22, "aligned"),
            (conflicting, "^", 90, "conflicting"),
        ):
            drawn = weighted.scatter(
                samples["x"][group], samples["y"][group], c=samples["relative_weight"][group],
                marker=marker, s=size, label=f"{group.sum()} {name}", **shared,
            )  # fmt: skip
        weighted.set_title(f"Weights of the digit {label}")
        weighted.legend(
            loc="upper left", bbox_to_anchor=(0, 0), ncols=2, handletextpad=0.3, borderpad=0.2
        )
        bar = figure.colorbar(drawn, ax=weighted, label="weight relative to uniform", shrink=0.9)
        bar.set_ticks([0.1, 1, 10], labels=["0.1 ×", "1 ×", "10 ×"])
        bar.outline.set_visible(False)
        for axes in panels:
            axes.set(xticks=[], yticks=[])
        first, second = (f"{100 * share:.0f} % of the variance" for share in data["shares"])
        figure.supxlabel(f"first principal component ({first})", size=9)
        figure.supylabel(f"second principal component ({second})", size=9)


def scatter(axes: Any, samples: Any, members: np.ndarray, *, weigh: bool) -> None:
    """Draw the embeddings of a class in the colours of the digits, with area by weight."""
    colors = np.array(rendering.LFF_COLORS)[samples["attribute"][members]] / 255
    size = 11 * samples["relative_weight"][members] if weigh else 12
    places = samples["x"][members], samples["y"][members]
    axes.scatter(*places, s=size, c=colors, linewidths=0.4, edgecolors="#555555")
    axes.set(xticks=[], yticks=[])
    axes.margins(0.12)


def digits(members: np.ndarray, samples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return nine small digits of a class, drawn uniformly and by weight, as two pictures."""
    data = benchmarks.load("cdigits", conflict=0.1)
    images = data.train.images[members]
    by_weight = samples["relative_weight"][members] / members.sum()
    rng = np.random.default_rng(2)
    draw = lambda p: tile(images[rng.choice(len(images), 9, replace=False, p=p)])
    return draw(None), draw(by_weight / by_weight.sum())


def tile(images: np.ndarray, columns: int = 3, gap: int = 1) -> np.ndarray:
    """Return uint8 images `[n, h, w, 3]` in rows as one picture with white gaps."""
    n, height, width, channels = images.shape
    padded = np.pad(images, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    rows = padded.reshape(n // columns, columns, height + gap, width + gap, channels)
    whole = rows.swapaxes(1, 2).reshape(-1, columns * (width + gap), channels)
    return whole[:-gap, :-gap]


def synthetic_digits(label: int) -> np.ndarray:
    """Return nine synthetic images of a class, distilled with density weights, as one picture."""
    return tile(files.read_arrays(DEMO)["density"][label, :9])


def record_demo(folder: pathlib.Path, path: pathlib.Path = DEMO) -> None:
    """Save the pixels of the plain and of the density set of `jaxdd demo`."""
    sets = {row: files.read_arrays(folder / "rows" / row / "synthetic.npz") for row in _SHOWN}
    pixels = {row: np.clip(x["images"] * x["std"] + x["mean"], 0, 1) for row, x in sets.items()}
    np.savez_compressed(path, **{row: np.uint8(255 * x + 0.5) for row, x in pixels.items()})


def demo_data() -> dict[str, Any]:
    """Return the accuracy of both sets of `jaxdd demo` and the checksum of their images."""
    rows = files.read_json(DEMO.with_suffix(".json"))["rows"]
    accuracy = {row: 100 * rows[row]["accuracy"]["mean"] for row in _SHOWN}
    return {"accuracy": accuracy, "images": hashlib.sha256(DEMO.read_bytes()).hexdigest()}


def demo(path: os.PathLike, data: dict[str, Any]) -> None:
    """Draw both sets of `jaxdd demo` side by side."""
    images = files.read_arrays(DEMO)
    titles = {row: f"{words.ROWS[row]}: {x:.0f} % accuracy" for row, x in data["accuracy"].items()}
    # 64 instead of 256 levels look the same in a file of two thirds of the size.
    levels = {title: np.rint(images[row] / 4) / 63.75 for row, title in titles.items()}
    plot.comparison(path, levels)


# --- object-blind features -------------------------------------------------------------------

CREDIT = "Photograph: vultilion, CC BY 2.0, from scikit-learn."


def photograph(side: int = 96) -> np.ndarray:
    """Return a flower of scikit-learn as uint8 `[side, side, 3]` (vultilion, CC BY 2.0)."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image("flower.jpg")[27:407, 117:497]
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))


def object_blind_data() -> dict[str, str]:
    """Return the title of each kind of features and the text below it."""
    return {
        "image": "all that a\nnetwork sees",
        "tone": "colours, brightness,\ncontrast, wherever\nthey are",
        "texture": "fine patterns,\nwherever they are",
        "layout": "brightness (shown),\ncontrast, saturation\nof 4 × 4 cells",
        "border": "tone of the\nouter band",
    }


def object_blind(path: os.PathLike, data: dict[str, str]) -> None:
    """Draw what each kind of features keeps of one photograph."""
    image = photograph()
    pictures = {
        "image": image,
        "tone": shuffle_blocks(image, 1),
        "texture": shuffle_blocks(image, 8),
        "layout": cell_means(image),
        "border": keep_border(image),
    }
    with style.subplots(path, 1250, 450, 1, 5) as (figure, (panels,)):
        for axes, (name, picture) in zip(panels, pictures.items(), strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title("image" if name == "image" else name, loc="center")
            axes.set_xlabel(data[name], labelpad=8, linespacing=1.35)
        style.add_note(figure, CREDIT)


def shuffle_blocks(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image whose square blocks are shuffled."""
    n = len(image) // side
    blocks = image.reshape(n, side, n, side, 3).swapaxes(1, 2).reshape(n * n, side, side, 3)
    shuffled = np.random.default_rng(0).permutation(blocks)
    return shuffled.reshape(n, n, side, side, 3).swapaxes(1, 2).reshape(image.shape)


def cell_means(image: np.ndarray) -> np.ndarray:
    """Return the mean luminance of 4×4 cells, from which layout features are computed."""
    features = np.asarray(blind_features.layout(jnp.asarray(image[None]) / 255))[0]
    grey = np.repeat(np.repeat(features[:16].reshape(4, 4), 24, 0), 24, 1)
    return np.repeat(grey[..., None], 3, -1)


def keep_border(image: np.ndarray) -> np.ndarray:
    """Return the image with a white middle."""
    width, kept = 3 * len(image) // 16, image.copy()
    kept[width:-width, width:-width] = 255
    return kept


def main(demo: tyro.conf.Positional[pathlib.Path | None] = None) -> None:
    """Compute the embedding; copy the sets of the folder of `jaxdd demo`."""
    measure_embedding()
    if demo:
        record_demo(demo)


if __name__ == "__main__":
    tyro.cli(main)
