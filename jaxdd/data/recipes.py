"""Recipes of the biased benchmarks: source images, rendering of the bias, defaults, citations.

`SOURCES` lists the unbiased image sets and `RECIPES` the biased benchmarks made of them. Adding a
benchmark means adding one entry; `jaxdd.data.benchmarks` loads it, `jaxdd.data.builders` makes a
tensorflow-datasets builder of it, and `jaxdd datasets list` shows it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdd.data import bias, corruptions, datasets, rendering
from jaxdd.data.datasets import Benchmark, Dataset


class Source(NamedTuple):
    """An unbiased image set.

    Attributes:
        train: number of training images.
        test: number of test images.
        shape: (h, w, c), after padding.
        licence: licence of the images.
        classes: name of each class.
        citation: key in `citations.BIBTEX`.
        flips: whether a mirrored image keeps its class.
        mean: mean of images / 255 per channel, as used in the literature; empty to compute it.
        std: the same for the standard deviation.
    """

    train: int
    test: int
    shape: tuple[int, int, int]
    licence: str
    classes: tuple[str, ...]
    citation: str
    flips: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Recipe(NamedTuple):
    """A biased benchmark.

    Attributes:
        source: key in `SOURCES`.
        render: function (key, images, attributes, *, severity, scenes, frost) -> RGB images, with
            severity 1..4, a `Dataset` of scenes behind the objects, and photographs of frost, uint8
            [m, h, w, 3]; each is None for benchmarks without them.
        attributes: name of each attribute.
        about: one line for the table of benchmarks.
        conflict: default share of bias-conflicting training samples.
        citations: keys in `citations.BIBTEX`, in addition to that of the source.
        severity: default severity 1..4, or None if the bias has none.
        aligned: attribute of each class; empty for the class index.
        ratios: conflicts that are allowed; empty for all.
        paired: the uniform test set contains every image with every attribute.
        factors: numbers of values of attributes that are drawn independently and combined into one
            (row-major); empty for a single attribute.
        scenes: function from a benchmark to the (training, test) scenes behind the objects, or
            None if the benchmark has no scenes.
        licence: licence of the images, if it is not that of the source.
    """

    source: str
    render: Callable[..., np.ndarray]
    attributes: tuple[str, ...]
    about: str
    conflict: float = 0.05
    citations: tuple[str, ...] = ()
    severity: int | None = None
    aligned: tuple[int, ...] = ()
    ratios: tuple[float, ...] = ()
    paired: bool = False
    factors: tuple[int, ...] = ()
    scenes: Callable[[Benchmark], tuple[Dataset, Dataset]] | None = None
    licence: str = ""


_CLOTHES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_DIGITS = tuple("0123456789")
_KANA = tuple("o ki su tsu na ha ma ya re wo".split())
_STL10 = tuple("airplane bird car cat deer dog horse monkey ship truck".split())
_CIFAR100 = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
)

SOURCES = {
    "digits": Source(1_437, 360, (16, 16, 1), "CC BY 4.0", _DIGITS, "digits", flips=False),
    "mnist": Source(
        60_000, 10_000, (32, 32, 1), "CC BY-SA 3.0", _DIGITS, "mnist", False, (0.1307,), (0.3081,)
    ),
    "fashion_mnist": Source(
        60_000, 10_000, (32, 32, 1), "MIT", _CLOTHES, "fashion_mnist", True, (0.2861,), (0.3530,)
    ),
    "cifar10": Source(
        50_000, 10_000, (32, 32, 3), "not stated", _CIFAR10, "cifar10", True,
        (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010),
    ),
    "cifar100": Source(
        50_000, 10_000, (32, 32, 3), "not stated", _CIFAR100, "cifar10", True,
        (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762),
    ),
    "svhn": Source(
        73_257, 26_032, (32, 32, 3), "research only", _DIGITS, "svhn", False,
        (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970),
    ),
    "kmnist": Source(60_000, 10_000, (32, 32, 1), "CC BY-SA 4.0", _KANA, "kmnist", flips=False),
    "stl10": Source(5_000, 8_000, (96, 96, 3), "not stated", _STL10, "stl10"),
}  # fmt: skip
"""Unbiased image sets by name."""


# --- renderings with the signature of `Recipe.render` -------------------------------------------


def _tint(render):
    """A rendering that takes a key and a severity."""
    return lambda key, images, attributes, *, severity, **_: jax.jit(render)(
        key, images, attributes, severity=severity
    )


def _random(render):
    """A rendering that takes a key."""
    return lambda key, images, attributes, **_: jax.jit(render)(key, images, attributes)


def _fixed(render):
    """A rendering that is not random."""
    return lambda key, images, attributes, **_: jax.jit(render)(images, attributes)


def _before_scenes(key, images, attributes, *, scenes, colors=None, **_):
    index = rendering.draw_scenes(key, attributes, scenes.labels, num_attributes=10)
    return jax.jit(rendering.add_scenes)(images, scenes.images[np.asarray(index)], colors=colors)


def _colored_before_scenes(key, images, attributes, *, scenes, **_):
    key_scenes, key_colors = jax.random.split(key)
    colors = rendering.draw_colors(key_colors, len(attributes))
    return _before_scenes(key_scenes, images, attributes, scenes=scenes, colors=colors)


def _grey_and_marked(key, images, attributes, **_):
    halves, places = np.divmod(attributes, len(rendering.PLACES))
    grey = jax.jit(rendering.remove_color)(images, halves)
    return jax.jit(rendering.draw_mark)(key, grey, places)


def _separate_scenes(benchmark):
    """Training images behind training images, test images behind test images."""
    return benchmark.train, benchmark.test


def _few_scenes(benchmark, *, count=5):
    """The first training images of each category behind both training and test images."""
    train = benchmark.train
    rank = bias.rank_in_class(np.arange(len(train.labels)), train.labels, xp=np)
    few = datasets.select(train, rank < count)
    return few, few


_corrupt = jax.jit(corruptions.corrupt, static_argnames=("corruption", "severity"))


def _corrupt_by_attribute(names, key, images, attributes, *, severity, frost, chunk=250, **_):
    """Corrupt the images of one attribute after the other, in float64 (see `_filters`)."""
    corrupted = np.empty_like(images)
    keys = jax.random.split(key, len(images))
    textures = None if frost is None else frost / 255
    with jax.enable_x64(True):
        for attribute, name in enumerate(names):
            photographs: dict[str, Any] = {"textures": textures} if name == "frost" else {}
            rows = np.flatnonzero(attributes == attribute)
            for start in range(0, len(rows), chunk):
                part = rows[start : start + chunk]
                # Chunks of one size, so that one program serves them all.
                padded = np.resize(part, chunk)
                output = _corrupt(
                    keys[padded], images[padded], name, severity=severity, **photographs
                )
                corrupted[part] = output[: len(part)]
    return corrupted


_LFF = tuple("red yellow mauve lime cyan green blue violet olive crimson".split())
_FAIRDD = tuple("red orange yellow cream green cyan blue violet magenta white".split())
_PAIRS = tuple(f"{first} or {second}" for first, second in zip(_LFF[:5], _LFF[5:], strict=True))
_PATTERNS = tuple(
    f"{kind}, {period}"
    for period in (4, 8)
    for kind in ("rows", "columns", "rising", "falling", "checks")
)
_TEN = tuple(map(str, range(10)))
_MODULO_5 = tuple(i % 5 for i in range(10))
_TINT = _tint(rendering.tint)
_PAINT, _PAINT_BACKGROUND, _SHADE, _SHADE_BACKGROUND = (
    _fixed(functools.partial(render, background=background))
    for render in (rendering.paint, rendering.shade)
    for background in (False, True)
)
_SHADES: dict[str, Any] = {"citations": ("lff",), "severity": 4}
_GROUPS: dict[str, Any] = {"citations": ("fairdd",), "conflict": 0.1}
_SCENES: dict[str, Any] = {"citations": ("weights", "cifar10"), "licence": "MIT; scenes not stated"}


def _corrupted(names, about):
    render = functools.partial(_corrupt_by_attribute, names)
    return Recipe("cifar10", render, names, about, citations=("lff", "corruptions"), severity=4)


RECIPES = {
    "cdigits": Recipe(
        "digits", _TINT, _LFF, "digits in shades of ten colours", 0.1, **_SHADES
    ),
    "cmnist": Recipe("mnist", _TINT, _LFF, "digits in shades of ten colours (LfF)", **_SHADES),
    "cfmnist": Recipe("fashion_mnist", _TINT, _LFF, "clothes in shades of ten colours", **_SHADES),
    "cmnist-pairs": Recipe(
        "mnist", _tint(rendering.tint_pairs), _PAIRS,
        "digits in shades of two colours per class, each pair for two classes (LfF)",
        aligned=_MODULO_5, **_SHADES,
    ),
    "cmnist-fg": Recipe("mnist", _PAINT, _FAIRDD, "digits in solid colours (FairDD)", **_GROUPS),
    "cmnist-bg": Recipe(
        "mnist", _PAINT_BACKGROUND, _FAIRDD, "black digits on solid colours (FairDD)", **_GROUPS
    ),
    "cfmnist-fg": Recipe(
        "fashion_mnist", _SHADE, _FAIRDD, "clothes in shades of ten colours (FairDD)", **_GROUPS
    ),
    "cfmnist-bg": Recipe(
        "fashion_mnist", _SHADE_BACKGROUND, _FAIRDD,
        "clothes on ten colours, with overflow (FairDD)", **_GROUPS
    ),
    "cfmnist-solid": Recipe("fashion_mnist", _PAINT, _FAIRDD, "clothes in solid colours", 0.1),
    "cfmnist-solid-bg": Recipe(
        "fashion_mnist", _PAINT_BACKGROUND, _FAIRDD, "black clothes on solid colours", 0.1
    ),
    "bgfmnist": Recipe(
        "fashion_mnist",
        _before_scenes, _CIFAR10, "clothes in front of CIFAR-10 images of one category per class",
        scenes=_separate_scenes, **_SCENES,
    ),
    "bgfmnist-few": Recipe(
        "fashion_mnist",
        _before_scenes, _CIFAR10, "clothes in front of one of five CIFAR-10 images per class",
        scenes=_few_scenes, **_SCENES,
    ),
    "cbgfmnist": Recipe(
        "fashion_mnist", _colored_before_scenes, _CIFAR10,
        "clothes in random colours in front of CIFAR-10 images", scenes=_separate_scenes, **_SCENES,
    ),
    "ccifar10": _corrupted(corruptions.NAMES[:10], "one of ten corruptions per class (LfF)"),
    "ccifar10-noise": _corrupted(corruptions.NAMES[10:], "noise, blur or none per class (LfF)"),
    "cifar10-mark": Recipe(
        "cifar10", _random(rendering.draw_mark), _TEN, "position of a small square near the border"
    ),
    "fmnist-place": Recipe(
        "fashion_mnist", _fixed(rendering.place), _TEN, "position of clothes of half size"
    ),
    "cifar10-bar": Recipe(
        "cifar10", _random(rendering.draw_bar), _TEN, "position of a bar across the image"
    ),
    "fmnist-turn": Recipe(
        "fashion_mnist", _fixed(rendering.rotate), ("0°", "90°", "180°", "270°"),
        "quarter turns of clothes", aligned=tuple(i % 4 for i in range(10)),
    ),
    "fmnist-scale": Recipe(
        "fashion_mnist", _random(rendering.scale), ("1/2", "5/8", "3/4", "7/8", "1"),
        "size of clothes at random positions", aligned=_MODULO_5,
    ),
    "fmnist-texture": Recipe(
        "fashion_mnist", _random(rendering.add_pattern), _PATTERNS, "stripes or checks on clothes"
    ),
    "cifar10-s": Recipe(
        "cifar10", _fixed(rendering.remove_color), ("grey", "colour"),
        "grey or colour; classes 0 to 4 are mostly grey (FairDD)",
        aligned=(0,) * 5 + (1,) * 5, paired=True, **_GROUPS,
    ),
    "cifar10-two": Recipe(
        "cifar10", _grey_and_marked,
        tuple(f"{shade}, {place}" for shade in ("grey", "colour") for place in range(10)),
        "two biases: grey or colour, and position of a small square",
        aligned=tuple(10 * (i >= 5) + i for i in range(10)), factors=(2, 10),
    ),
}  # fmt: skip
# Benchmarks of other authors that are the same images at fixed ratios.
RECIPES |= {
    f"{name}-dd": RECIPES[name]._replace(
        ratios=(0.0, 0.05, 0.2, 0.5, 0.9, 1.0), about=f"{name} at the ratios of {name.upper()}-DD"
    )
    for name in ("cmnist", "ccifar10")
}
"""Biased benchmarks by name."""
