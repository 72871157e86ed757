"""Pictures of the benchmarks: ten classes with the attribute of most samples, and conflicts.

Images of CIFAR-10 have no free licence, so a photograph that may be redistributed replaces them.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.tools import illustrations
from jaxdd.data import benchmarks, datasets, recipes
from jaxdd.runs.reports import style

DIGITS = "cdigits", "cmnist", "cmnist-pairs", "cmnist-fg", "cmnist-bg"
CLOTHES = (
    "cfmnist", "cfmnist-fg", "cfmnist-bg", "cfmnist-solid", "cfmnist-solid-bg", "fmnist-place",
    "fmnist-turn", "fmnist-scale", "fmnist-texture", "bgfmnist", "cbgfmnist",
)  # fmt: skip
PHOTOGRAPHS = (
    "ccifar10", "ccifar10-noise", "cifar10-s", "cifar10-mark", "cifar10-bar", "cifar10-two",
)  # fmt: skip
_CREDITS = {
    DIGITS: "Images: small digits of UCI and scikit-learn (CC BY 4.0), MNIST (CC BY-SA 3.0).",
    CLOTHES: "Images: Fashion-MNIST (MIT). Photographs by vultilion and danielbuechele (CC BY 2.0) "
    "replace CIFAR-10.",
    PHOTOGRAPHS: "A photograph by vultilion (CC BY 2.0) replaces the images of CIFAR-10.",
}
_CLASSES, _CONFLICTING = range(10), (1, 4, 7)
_SIDE, _STEP, _LEFT, _TOP = 64, 72, 16, 84  # in pixels


def data(names: Sequence[str]) -> dict[str, Any]:
    """Return the texts and the attributes of each benchmark."""
    chosen = {name: recipes.RECIPES[name] for name in names}
    rows = {}
    for name, recipe in chosen.items():
        aligned = recipe.aligned or tuple(_CLASSES)
        count = len(recipe.attributes)
        conflicts = [] if recipe.source == "cifar10" else _CONFLICTING
        rows[name] = {
            "about": recipe.about,
            "conflict": recipe.conflict,
            "attributes": [*aligned, *((aligned[k] + count // 2) % count for k in conflicts)],
        }
    return {"rows": rows, "credit": _CREDITS[tuple(names)]}


def draw(path: os.PathLike, data: Mapping[str, Any], data_dir: pathlib.Path | None) -> None:
    """Draw one row of images for each benchmark."""
    rows, sources = data["rows"], {}
    columns = max(len(row["attributes"]) for row in rows.values())
    gap = _STEP // 3 * (columns > len(_CLASSES))
    width, line = _LEFT + _STEP * columns + gap + 10, _STEP + 74
    height = _TOP + line * len(rows) + 34
    with style.figure(path, width, height) as figure:
        write = lambda x, y, text, **font: figure.text(
            x / width, 1 - y / height, text, **{"va": "center"} | font
        )
        write(_LEFT, 24, "classes 0 to 9, as most of their samples are", color=style.GREY)
        if gap:
            write(_LEFT + 10 * _STEP + gap, 24, "conflicting samples", color=style.GREY)
        for index, (name, row) in enumerate(rows.items()):
            source = recipes.RECIPES[name].source
            if source not in sources:
                sources[source] = _load(source, data_dir)
            images = _render(name, sources[source], row["attributes"])
            top = _TOP + line * index
            bold = dict(weight="bold", family="DejaVu Sans Mono", size=10, va="baseline")
            write(_LEFT, top - 12, name, **bold)
            write(_LEFT + 14 * len(name) + 10, top - 12, row["about"], va="baseline")
            captions = _captions(name, row["attributes"])
            for column, (image, caption) in enumerate(zip(images, captions, strict=True)):
                x = _LEFT + _STEP * column + gap * (column >= len(_CLASSES))
                scale = _SIDE // len(image)
                pixels = image.repeat(scale, 0).repeat(scale, 1)
                figure.figimage(pixels, x, height - top - _SIDE)
                small = dict(ha="center", va="baseline", size=6.5, color=style.GREY)
                for place, text in enumerate(caption.split("\n")):
                    write(x + _SIDE / 2, top + _SIDE + 15 + 13 * place, text, **small)
        write(_LEFT, height - 20, data["credit"], size=7, color=style.GREY)


def _captions(name, attributes):
    """Return the names of attributes, empty if these are numbers or scenes."""
    recipe = recipes.RECIPES[name]
    names = [recipe.attributes[x].replace("_", " ") for x in attributes]
    is_shown = recipe.scenes is None and not any(x[-1].isdigit() for x in names)
    return ["\n".join(x.rsplit(" ", 1)) if is_shown else "" for x in names]


def _load(source, data_dir):
    """Return one image of each class and more images of the classes in `_CONFLICTING`."""
    if source == "cifar10":
        return np.repeat(illustrations.photograph(32)[None], len(_CLASSES), 0)
    train = benchmarks.load(source, data_dir=data_dir).train
    # The brightest of the first images of a class, so that attributes are visible.
    members = [np.flatnonzero(train.labels == k)[:20] for k in _CLASSES]
    members = [m[np.argsort(-train.images[m].mean((1, 2, 3)))] for m in members]
    return train.images[[m[0] for m in members] + [members[k][1] for k in _CONFLICTING]]


def _render(name, images, attributes):
    """Return the images with their attributes."""
    recipe = recipes.RECIPES[name]
    scenes = None if recipe.scenes is None else datasets.Dataset(_scenes(), np.arange(10))
    options = dict(severity=recipe.severity, scenes=scenes, frost=None, chunk=1)
    key = jax.random.key(0, impl="threefry2x32")
    return np.asarray(recipe.render(key, images, np.array(attributes), **options))


def _scenes():
    """Return ten parts of the two photographs of scikit-learn, uint8 `[10, 32, 32, 3]`."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    places = {
        "china.jpg": ((0, 380), (230, 380), (240, 0), (60, 90), (290, 180), (180, 500)),
        "flower.jpg": ((0, 0), (90, 180), (220, 30), (150, 440)),
    }
    parts = [
        load_sample_image(name)[y : y + 128, x : x + 128]
        for name, corners in places.items()
        for y, x in corners
    ]
    small = [Image.fromarray(x).resize((32, 32), Image.Resampling.BOX) for x in parts]
    return np.stack([np.asarray(x) for x in small])
