"""Disk: the data sets that the field measures on, by name.

`load` makes a biased benchmark of an unbiased set in two steps (`jaxdd.data.bias`): who carries
which attribute, and how it looks. Equal arguments give equal bytes on every machine and with every
version of jax. What is made of downloaded files is kept under `files.CACHE` for the next time.
"""

import difflib
import functools
import hashlib
import json
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdd import augment
from jaxdd.data import (
    archives,
    bias,
    corruptions,
    datasets,
    decoding,
    degradations,
    files,
    folders,
    layouts,
    published,
)
from jaxdd.data.datasets import Benchmark, Dataset


class Source(NamedTuple):
    """An unbiased set: sizes of training and test set, shape of its images, licence, statistics.

    Attributes:
        train: number of training images.
        test: number of test images.
        shape: (h, w, c) once padded.
        licence: of the images.
        classes: name of each class.
        flips: whether a mirrored image keeps its class.
        mean: per channel, of images / 255, as the literature has them; empty to compute them.
        std: per channel, likewise.
    """

    train: int
    test: int
    shape: tuple[int, int, int]
    licence: str
    classes: tuple[str, ...]
    flips: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Recipe(NamedTuple):
    """How a biased benchmark is made.

    Attributes:
        source: name of the unbiased set.
        render: (key, data, attributes, options) to images.
        attributes: name of each attribute.
        conflict: share of conflicting samples by default.
        severity: 1..4 by default, None where there is none.
        aligned: attribute of each class; the class index where empty.
        ratios: conflicts that may be asked for; all where empty.
        paired: the uniform test set holds every image with every attribute.
        factors: numbers of attributes that are drawn one by one and make up one together, the last
            of them counting fastest; one where empty.
        behind: which of a benchmark of scenes lie behind the training and behind the test images;
            None where nothing does.
        licence: of the images, where it is not that of the source alone.
        about: one line for the table.
    """

    source: str
    render: Callable[..., np.ndarray]
    attributes: tuple[str, ...]
    conflict: float
    severity: int | None = None
    aligned: tuple[int, ...] = ()
    ratios: tuple[float, ...] = ()
    paired: bool = False
    factors: tuple[int, ...] = ()
    behind: Callable[[Benchmark], tuple[Dataset, Dataset]] | None = None
    licence: str = ""
    about: str = ""


class _Options(NamedTuple):
    """What a benchmark depends on besides its name and its source."""

    conflict: float
    severity: int | None
    seed: int
    test: str
    placement: str
    scenes: Benchmark | Dataset | None
    frost: np.ndarray | None


_CLOTHES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
_THINGS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_DIGITS = tuple("0123456789")
_KANA = tuple("o ki su tsu na ha ma ya re wo".split())
_STL = tuple("airplane bird car cat deer dog horse monkey ship truck".split())
_HUNDRED = tuple(
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
    "digits": Source(1_437, 360, (16, 16, 1), "CC BY 4.0", _DIGITS, flips=False),
    "mnist": Source(
        60_000, 10_000, (32, 32, 1), "CC BY-SA 3.0", _DIGITS, False, (0.1307,), (0.3081,)
    ),
    "fashion_mnist": Source(
        60_000, 10_000, (32, 32, 1), "MIT", _CLOTHES, True, (0.2861,), (0.3530,)
    ),
    "cifar10": Source(
        50_000, 10_000, (32, 32, 3), "not stated", _THINGS, True,
        (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010),
    ),
    "cifar100": Source(
        50_000, 10_000, (32, 32, 3), "not stated", _HUNDRED, True,
        (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762),
    ),
    "svhn": Source(
        73_257, 26_032, (32, 32, 3), "research only", _DIGITS, False,
        (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970),
    ),
    "kmnist": Source(60_000, 10_000, (32, 32, 1), "CC BY-SA 4.0", _KANA, flips=False),
    "stl10": Source(5_000, 8_000, (96, 96, 3), "not stated", _STL),
}  # fmt: skip
"""Unbiased sets by name."""


def _shaded(rendering):
    return lambda key, data, attributes, options: jax.jit(rendering)(
        key, data.images, attributes, severity=options.severity
    )


def _drawn(rendering):
    return lambda key, data, attributes, options: jax.jit(rendering)(key, data.images, attributes)


def _solid(rendering):
    return lambda key, data, attributes, options: jax.jit(rendering)(data.images, attributes)


def _in_front(key, data, attributes, options, *, colors=None):
    draw = functools.partial(bias.draw_scenes, num_attributes=10)
    chosen = np.asarray(draw(key, attributes, options.scenes.labels))
    scenes = options.scenes.images[chosen]
    return jax.jit(bias.natural_background)(data.images, scenes, colors=colors)


def _colored_in_front(key, data, attributes, options):
    key_scenes, key_colors = jax.random.split(key)
    colors = bias.draw_colors(key_colors, len(attributes))
    return _in_front(key_scenes, data, attributes, options, colors=colors)


def _of_their_own(scenes):
    """Training images behind training images, test images behind test images."""
    return scenes.train, scenes.test


def _the_first(scenes, *, count=5):
    """The first training images of each category, behind both."""
    places = np.arange(len(scenes.train.labels))
    first = bias.rank_in_class(places, scenes.train.labels, xp=np) < count
    few = datasets.select(scenes.train, first)
    return few, few


def _grey_and_marked(key, data, attributes, options):
    halves, places = np.divmod(attributes, len(bias.PLACES))
    return jax.jit(bias.marked)(key, jax.jit(bias.greyscale)(data.images, halves), places)


_assign = jax.jit(bias.assign, static_argnames=("num_classes", "num_attributes"))
_corrupt = jax.jit(corruptions.corrupt, static_argnames=("corruption", "severity"))


def _corrupted(names, key, data, attributes, options, *, chunk=250):
    """Corrupts the images of one attribute after the other, in float64 (see `filters`)."""
    images = np.empty_like(data.images)
    keys = jax.random.split(key, len(images))
    textures = None if options.frost is None else options.frost / 255
    with jax.enable_x64(True):
        for attribute, name in enumerate(names):
            look = dict(corruption=name, severity=options.severity)
            look |= dict(textures=textures) if name == "frost" else {}
            rows = np.flatnonzero(attributes == attribute)
            for start in range(0, len(rows), chunk):
                part = rows[start : start + chunk]
                padded = np.resize(part, chunk)
                images[part] = _corrupt(keys[padded], data.images[padded], **look)[: len(part)]
    return images


_LFF = tuple("red yellow mauve lime cyan green blue violet olive crimson".split())
_FAIR = tuple("red orange yellow cream green cyan blue violet magenta white".split())
_PAIRS = tuple(f"{one} or {other}" for one, other in zip(_LFF[:5], _LFF[5:], strict=True))
_PATTERNS = tuple(
    f"{kind}, {period}"
    for period in (4, 8)
    for kind in ("rows", "columns", "rising", "falling", "checks")
)
_BY_FIVES = tuple(i % 5 for i in range(10))
_DD = (0.0, 0.05, 0.2, 0.5, 0.9, 1.0)

RECIPES = {
    "cdigits": Recipe(
        "digits", _shaded(bias.foreground), _LFF, 0.1, 4, about="digits in shades of ten colours"
    ),
    "cmnist": Recipe(
        "mnist", _shaded(bias.foreground), _LFF, 0.05, 4, about="shades of ten colours (LfF)"
    ),
    "cfmnist": Recipe(
        "fashion_mnist", _shaded(bias.foreground), _LFF, 0.05, 4, about="shades of ten colours"
    ),
    "cmnist-pairs": Recipe(
        "mnist", _shaded(bias.either_foreground), _PAIRS, 0.05, 4, aligned=_BY_FIVES,
        about="shades of either of two colours (LfF)",
    ),
    "cmnist-fg": Recipe(
        "mnist", _solid(bias.solid_foreground), _FAIR, 0.1, about="solid colours (FairDD)"
    ),
    "cmnist-bg": Recipe(
        "mnist", _solid(bias.solid_background), _FAIR, 0.1, about="black on colour (FairDD)"
    ),
    "cfmnist-fg": Recipe(
        "fashion_mnist", _solid(bias.solid_foreground), _FAIR, 0.1, about="solid colours (FairDD)"
    ),
    "cfmnist-bg": Recipe(
        "fashion_mnist", _solid(bias.solid_background), _FAIR, 0.1, about="black on colour (FairDD)"
    ),
    "bgfmnist": Recipe(
        "fashion_mnist", _in_front, _THINGS, 0.05, behind=_of_their_own,
        licence="MIT; scenes not stated", about="in front of CIFAR-10 images",
    ),
    "bgfmnist-few": Recipe(
        "fashion_mnist", _in_front, _THINGS, 0.05, behind=_the_first,
        licence="MIT; scenes not stated", about="in front of the same few CIFAR-10 images",
    ),
    "cbgfmnist": Recipe(
        "fashion_mnist", _colored_in_front, _THINGS, 0.05, behind=_of_their_own,
        licence="MIT; scenes not stated", about="in any colour, in front of CIFAR-10 images",
    ),
    "ccifar10": Recipe(
        "cifar10", functools.partial(_corrupted, tuple(corruptions.CORRUPTIONS)),
        tuple(corruptions.CORRUPTIONS), 0.05, 4, about="ten corruptions (LfF)",
    ),
    "ccifar10-noise": Recipe(
        "cifar10", functools.partial(_corrupted, tuple(degradations.DEGRADATIONS)),
        tuple(degradations.DEGRADATIONS), 0.05, 4, about="noise and blur (LfF, second ten)",
    ),
    "cifar10-mark": Recipe(
        "cifar10", _drawn(bias.marked), tuple(map(str, range(10))), 0.05,
        about="a small square in one of ten places",
    ),
    "fmnist-place": Recipe(
        "fashion_mnist", _solid(bias.placed), tuple(map(str, range(10))), 0.05,
        about="half as large, in one of ten places",
    ),
    "cifar10-bar": Recipe(
        "cifar10", _drawn(bias.barred), tuple(map(str, range(10))), 0.05,
        about="a bar across, one of ten",
    ),
    "fmnist-turn": Recipe(
        "fashion_mnist", _solid(bias.turned), ("0°", "90°", "180°", "270°"), 0.05,
        aligned=tuple(i % 4 for i in range(10)), about="turned by quarters",
    ),
    "fmnist-scale": Recipe(
        "fashion_mnist", _drawn(bias.scaled), ("1/2", "5/8", "3/4", "7/8", "1"), 0.05,
        aligned=_BY_FIVES, about="in one of five sizes, anywhere",
    ),
    "fmnist-texture": Recipe(
        "fashion_mnist", _drawn(bias.textured), _PATTERNS, 0.05, about="in one of ten patterns",
    ),
    "cifar10-s": Recipe(
        "cifar10", _solid(bias.greyscale), ("grey", "colour"), 0.1, aligned=(0,) * 5 + (1,) * 5,
        paired=True, about="classes 0–4 mostly grey (FairDD)",
    ),
    "cifar10-two": Recipe(
        "cifar10", _grey_and_marked,
        tuple(f"{shade}, {place}" for shade in ("grey", "colour") for place in range(10)), 0.05,
        aligned=tuple(10 * (i >= 5) + i for i in range(10)), factors=(2, 10),
        about="two biases: grey halves, and a mark",
    ),
}  # fmt: skip
"""Biased benchmarks by name."""

RECIPES |= {
    f"{name}-dd": RECIPES[name]._replace(ratios=_DD, about=f"{name} at the ratios of {label}")
    for name, label in (("cmnist", "CMNIST-DD"), ("ccifar10", "CCIFAR10-DD"))
}

NAMES = (*SOURCES, *RECIPES, "bffhq", *published.LAYOUTS)
"""Every name that `load` knows."""

TESTS = ("uniform", "conflicting")


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    conflict: float | None = None,
    severity: int | None = None,
    seed: int = 0,
    test: str = "uniform",
    placement: str = "centre",
    scenes: Benchmark | None = None,
    frost: str | os.PathLike | None = None,
    label: str | None = None,
    attribute: str | None = None,
    resize: int | None = None,
    skip_bad: bool = False,
) -> Benchmark:
    """Loads a benchmark by its name.

    | name | what |
    |---|---|
    | digits, mnist, fashion_mnist, kmnist | unbiased; `seed` has no effect |
    | cifar10, cifar100, svhn, stl10 | likewise |
    | tiny_imagenet, imagenette | unbiased, from the published folder |
    | cdigits, cmnist, cfmnist | shades of ten colours on black (LfF) |
    | cmnist-fg, cfmnist-fg | solid colours on black (FairDD) |
    | cmnist-bg, cfmnist-bg | black on solid colours (FairDD) |
    | cmnist-pairs | shades of either of two colours; classes 0 and 5 share a pair, and so on |
    | bgfmnist | clothes in front of natural images, one category per class |
    | cbgfmnist | the same with clothes in any colour |
    | bgfmnist-few | as bgfmnist, with the same five images of each category for training and test |
    | ccifar10 | Corrupted CIFAR-10, one corruption per class (LfF) |
    | ccifar10-noise | the same with LfF's second ten: noise, blur and none |
    | cifar10-mark | a small square of any colour in one of ten places, one per class |
    | fmnist-place | clothes half as large, in one of ten places, one per class |
    | cifar10-bar | a bar across the image, in one of ten places, in any colour, one per class |
    | fmnist-turn | clothes turned by 0 to 3 quarters; classes 0, 4 and 8 share a turn, and so on |
    | fmnist-scale | clothes in one of five sizes, anywhere; classes 0 and 5 share a size, … |
    | fmnist-texture | clothes in one of ten patterns of light and dark, one per class |
    | cmnist-dd, ccifar10-dd | the same at conflicts of 0, .05, .2, .5, .9, 1 |
    | cifar10-s | classes 0 to 4 mostly grey, 5 to 9 mostly in colour (FairDD) |
    | cifar10-two | two biases at once: grey halves as in cifar10-s, and the mark of cifar10-mark |
    | bffhq | faces: young or old, biased by gender; `conflict` names one of its folders |
    | celeba, utkface, waterbirds | annotated; `label` and `attribute` name two of the columns |

    Args:
        name: one of `NAMES`.
        data_dir: folder that holds the original files, in a sub-folder with the name of the set
            (`data_dir/mnist`, `fashion_mnist`, `cifar10`) or directly; files in neither nor in
            `files.CACHE` are downloaded there. The digits need none.
        conflict: share of each training class that conflicts, in [0, 1]; by default .1 for cdigits,
            the solid colours and cifar10-s, .005 for bffhq and .05 for the others.
        severity: 1..4, how pure the shades or how strong the corruptions are; 4 by default.
        seed: draws the attributes and how they look, of the test set too; 0 <= seed < 2**32.
        test: "uniform", where the attribute says nothing about the class (every test image in every
            attribute for cifar10-s, as its authors have it), or "conflicting", where no sample has
            the attribute that its class is aligned with. The test set of bffhq is as its authors
            made it.
        placement: "centre" pads 28x28 images by two pixels on all sides, "corner" by four at the
            top and the left, as FairDD does. Digits are not padded.
        scenes: backgrounds for bgfmnist, bgfmnist-few and cbgfmnist, RGB, of the same size and ten
            classes; its training images go behind training images, and those of bgfmnist-few, the
            first five of each class, behind test images, too. CIFAR-10 by default.
        frost: folder of photographs of frost for ccifar10, which are used at a fifth of their size;
            by default frost is drawn, see `jaxdd.data.corruptions.frost_texture`.
        label: of an annotated set, the column that is the class.
        attribute: of an annotated set, the column that is the bias attribute.
        resize: of a published folder, height and width that its images are resized to, 1..256.
        skip_bad: of a published folder, leave out images that do not decode.

    Returns:
        The benchmark; equal arguments give equal bytes on every machine.

    Raises:
        TypeError: a name that is no string, a severity or seed that is no integer.
        ValueError: an unknown name, a value out of range, an option the set does not have, or a
            file that is not the original.
        OSError: files that are absent and cannot be downloaded.
    """
    _check_name(name)
    if data_dir is not None and not files.expand(data_dir).is_dir():
        raise FileNotFoundError(f"data_dir must be a folder, found none at {data_dir}")
    if scenes is not None and not isinstance(scenes, Benchmark):
        raise TypeError(f"scenes must be a Benchmark, found {type(scenes).__name__}")
    columns: dict[str, Any] = dict(label=label, attribute=attribute, resize=resize)
    options = dict(conflict=conflict, severity=severity, scenes=scenes, frost=frost, test=test)
    options |= columns | {"skip_bad": skip_bad or None}
    _refuse_absent_options(name, options, placement)
    seed = datasets.check_integer("seed", seed, 0, 2**32 - 1)
    if name in SOURCES:
        return _unbiased(name, data_dir, placement)
    if name in published.LAYOUTS:
        return _published(name, data_dir, test, seed=seed, skip_bad=skip_bad, **columns)
    recipe = RECIPES.get(name)
    default = 0.005 if recipe is None else recipe.conflict
    conflict = datasets.check_share("conflict", default if conflict is None else conflict)
    if recipe is None:
        return _bffhq(data_dir, conflict, test)
    if recipe.ratios and not np.isclose(conflict, recipe.ratios, rtol=0, atol=1e-9).any():
        known = ", ".join(f"{ratio:g}" for ratio in recipe.ratios)
        raise ValueError(f"{name} has conflicts of {known}, found {conflict:g}")
    if recipe.severity is not None:
        severity = datasets.check_integer(
            "severity", recipe.severity if severity is None else severity, 1, 4
        )
    photographs = None if frost is None else _photographs(frost)
    options = _Options(conflict, severity, seed, test, placement, scenes, photographs)
    if recipe.source == "digits":
        return _biased(name, recipe, data_dir, options)
    path = _cache_path(name, recipe, data_dir, options)
    if (benchmark := _stored(path)) is None:
        benchmark = _biased(name, recipe, data_dir, options)
        _keep(path, benchmark)
    return benchmark


def digits(*, size: int = 16) -> Benchmark:
    """Loads scikit-learn's 1,797 handwritten digits, which need no download.

    The 8x8 images with levels 0..16 are scaled to 0..255 and resized bilinearly. The split into
    1,437 training and 360 test images is stratified and always the same.

    Args:
        size: height and width of the images in pixels.

    Returns:
        Images [n, size, size, 1]; mean and std are computed from the training images.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below 1.
    """
    size = datasets.check_integer("size", size, 1, 4096)
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    resized = [Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR) for i in images]
    images = np.stack([np.asarray(image) for image in resized])
    made = datasets.from_arrays(
        images, labels, strategy=_strategy(SOURCES["digits"]), name="digits"
    )
    return made._replace(class_names=_DIGITS)


def statistics(benchmark: Benchmark) -> dict[str, float | int | str | None]:
    """Counts what a benchmark is made of.

    Args:
        benchmark: with or without attributes.

    Returns:
        Sizes, shape and number of classes; with attributes also the share of conflicting training
        samples, by how many samples the conflicting attributes of a class differ at most
        ("spread"), and the p-value of the chi-square test that the attribute of the test samples is
        independent of their class.
    """
    train, test = benchmark.train, benchmark.test
    found = {
        "train": len(train.labels), "test": len(test.labels), "classes": benchmark.num_classes,
        "shape": "×".join(map(str, train.images.shape[1:])),
    }  # fmt: skip
    if train.attributes is None or benchmark.aligned is None:
        return found
    counts = group_counts(benchmark, train)
    aligned = np.eye(benchmark.num_attributes, dtype=bool)[list(benchmark.aligned)]
    others = counts[~aligned].reshape(benchmark.num_classes, -1)
    found |= {
        "attributes": benchmark.num_attributes,
        "conflict": float(others.sum() / counts.sum()),
        "spread": int(np.ptp(others, axis=1).max()) if others.size else 0,
    }
    if test.attributes is not None:
        found["independence p"] = _independence(group_counts(benchmark, test))
    return found


def describe(name: str) -> tuple[str, ...]:
    """Says in words what a benchmark is, without loading it.

    Args:
        name: one of `NAMES`.

    Returns:
        Training images, test images, size of an image, number of attributes, default conflict,
        licence, and what it looks like.

    Raises:
        ValueError: an unknown name.

    >>> describe("cmnist")[:5]
    ('60,000', '10,000', '32×32×3', '10', '0.05')
    """
    _check_name(name)
    if name == "bffhq":
        licence = "CC BY-NC-SA 4.0"
        return "19,200", "1,000", "64×64×3", "2", "0.005", licence, "young or old, by gender"
    if layout := published.LAYOUTS.get(name):
        sizes = (f"{count:,}" for count in layout.count)
        size, values = f"{layout.size}×{layout.size}×3", str(layout.attributes or "–")
        return *sizes, size, values, "–", layout.licence, layout.about
    recipe = RECIPES.get(name)
    source = SOURCES[name if recipe is None else recipe.source]
    h, w, c = source.shape
    if recipe is None:
        sizes = f"{source.train:,}", f"{source.test:,}", f"{h}×{w}×{c}"
        return *sizes, "–", "–", source.licence, "unbiased"
    test = source.test * (len(recipe.attributes) if recipe.paired else 1)
    return (
        f"{source.train:,}", f"{test:,}", f"{h}×{w}×3", f"{len(recipe.attributes)}",
        f"{recipe.conflict:g}", recipe.licence or source.licence, recipe.about,
    )  # fmt: skip


def group_counts(benchmark: Benchmark, data: Dataset) -> np.ndarray:
    """Returns how many samples each group has, integers [classes, attributes].

    Args:
        benchmark: with attributes.
        data: its training or its test set.

    Raises:
        ValueError: data without attributes.
    """
    if data.attributes is None:
        raise ValueError(f"groups need bias attributes, {benchmark.name} has none")
    counts = np.zeros((benchmark.num_classes, benchmark.num_attributes), int)
    np.add.at(counts, (data.labels, data.attributes), 1)
    return counts


def _independence(counts):
    from scipy.stats import chi2_contingency

    counts = counts[:, counts.any(0)][counts.any(1)]
    found: Any = chi2_contingency(counts)
    return float(found.pvalue)


def _check_name(name):
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, found {type(name).__name__}")
    if name not in NAMES:
        near = difflib.get_close_matches(name.lower(), NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"unknown data set {name!r}{hint} known are {', '.join(NAMES)}")


def _refuse_absent_options(name, options, placement):
    recipe = RECIPES.get(name)
    annotated = name in published.LAYOUTS and published.LAYOUTS[name].attribute is not None
    has = {
        "conflict": recipe is not None or name == "bffhq",
        "severity": recipe is not None and recipe.severity is not None,
        "scenes": recipe is not None and recipe.behind is not None,
        "frost": recipe is not None and "frost" in recipe.attributes,
        "label": annotated,
        "attribute": annotated,
        "resize": name in published.LAYOUTS,
        "skip_bad": name in published.LAYOUTS,
    }
    for option, present in has.items():
        if options[option] is not None and not present:
            raise ValueError(f"{name} takes no {option}, found {_briefly(options[option])}")
    if options["test"] not in TESTS:
        raise ValueError(f"test must be {' or '.join(TESTS)}, found {options['test']!r}")
    if options["test"] != "uniform" and not (annotated or has["conflict"]):
        raise ValueError(f"{name} is unbiased and has no {options['test']} test set")
    if placement not in ("centre", "corner"):
        raise ValueError(f"placement must be 'centre' or 'corner', found {placement!r}")


def _briefly(value):
    return value.name if isinstance(value, Benchmark) else value


def _strategy(source):
    return augment.OPERATIONS if source.flips else datasets.UNFLIPPED


_READERS = {
    "cifar10": archives.cifar10,
    "cifar100": archives.cifar100,
    "svhn": archives.svhn,
    "stl10": archives.stl10,
}


def _unbiased(name, data_dir, placement):
    if name == "digits":
        return digits()
    source = SOURCES[name]
    if name in _READERS:
        parts = _READERS[name](data_dir)
    else:
        files = archives.find(name, data_dir)
        pads = (2, 2) if placement == "centre" else (4, 0)
        parts = [
            (
                np.pad(archives.read(name, files[images]), ((0, 0), pads, pads))[..., None],
                archives.read(name, files[labels]),
            )
            for images, labels in (archives.TRAIN, archives.TEST)
        ]
    train, test = (Dataset(images, labels.astype(np.int32)) for images, labels in parts)
    k, strategy = len(source.classes), _strategy(source)
    if not source.mean:
        made = datasets.from_arrays(*train, test=test, num_classes=k, strategy=strategy, name=name)
        return made._replace(class_names=source.classes)
    return Benchmark(
        name, train, test, k, 0, None, source.mean, source.std, strategy, source.classes
    )


def _biased(name, recipe, data_dir, options):
    plain = _unbiased(recipe.source, data_dir, options.placement)
    scenes, behind = options.scenes, (None, None)
    if recipe.behind is not None:
        scenes = _unbiased("cifar10", data_dir, options.placement) if scenes is None else scenes
        _check_scenes(scenes, plain)
        behind = recipe.behind(scenes)
    k, num_attributes = plain.num_classes, len(recipe.attributes)
    aligned = recipe.aligned or tuple(range(k))

    def dressed(key, data, share, scenes):
        key_attributes, key_look = jax.random.split(key)
        if share is None:
            data, attributes = _paired(data, num_attributes)
        else:
            factors = recipe.factors or (num_attributes,)
            attributes = _attributes(key_attributes, data.labels, aligned, factors, share)
        images = recipe.render(key_look, data, attributes, options._replace(scenes=scenes))
        # A copy, because a view of a jax array can be neither written nor handed to torch.
        return Dataset(np.array(images), data.labels, attributes)

    # Named, because another default generator (rbg) would draw another benchmark.
    key_train, key_test = jax.random.split(jax.random.key(options.seed, impl="threefry2x32"))
    share = lambda count: 1 - 1 / count if options.test == "uniform" else 1.0
    share = None if recipe.paired and options.test == "uniform" else share
    made = plain._replace(
        name=name,
        train=dressed(key_train, plain.train, lambda count: options.conflict, behind[0]),
        test=dressed(key_test, plain.test, share, behind[1]),
        num_attributes=num_attributes,
        aligned=aligned,
        attribute_names=recipe.attributes,
    )
    grey = plain.train.images.shape[3] == 1
    return made._replace(mean=(0.5,) * 3, std=(0.5,) * 3) if grey else made


def _attributes(key, labels, aligned, factors, share):
    """Those of every factor by its share of conflicting samples, made one."""
    own = np.unravel_index(np.array(aligned), factors)
    keys = [key] if len(factors) == 1 else jax.random.split(key, len(factors))
    drawn = [
        np.array(
            _assign(
                key_factor,
                labels,
                num_classes=len(aligned),
                num_attributes=count,
                conflict=share(count),
                aligned=own_factor,
            )
        )
        for key_factor, count, own_factor in zip(keys, factors, own, strict=True)
    ]
    return np.ravel_multi_index(drawn, factors).astype(np.int32)


def _paired(data, num_attributes):
    """Every image with every attribute."""
    n = len(data.labels)
    twice = Dataset(*(np.concatenate([field] * num_attributes) for field in data[:2]))
    return twice, np.repeat(np.arange(num_attributes, dtype=np.int32), n)


def _check_scenes(scenes, plain):
    shape = (*plain.train.images.shape[1:3], 3)
    if scenes.num_classes != 10 or scenes.train.images.shape[1:] != shape:
        raise ValueError(
            f"scenes must be ten classes of images {shape}, found {scenes.num_classes} of "
            f"{scenes.train.images.shape[1:]}"
        )


def _bffhq(data_dir, conflict, test):
    if data_dir is None:
        raise ValueError("bffhq must be downloaded by hand; give the folder as data_dir")
    faces = folders.bffhq(data_dir, conflict=conflict)
    benchmark = datasets.from_folder(faces, strategy=augment.OPERATIONS, name="bffhq")
    return benchmark if test == "uniform" else _conflicting(benchmark)


def _published(name, data_dir, test, *, seed, **asked):
    if data_dir is None:
        raise ValueError(f"{name} must be downloaded by hand; give the folder as data_dir")
    layout = published.LAYOUTS[name]
    strategy = augment.OPERATIONS if layout.flips else datasets.UNFLIPPED
    found = published.read(name, data_dir, seed=seed, **asked)
    benchmark = datasets.from_folder(found, strategy=strategy, name=name)
    if test == "conflicting":
        benchmark = _conflicting(benchmark)
    if not len(benchmark.test.labels):
        raise ValueError(f"{name} has no conflicting test images with these columns")
    return benchmark


def _conflicting(benchmark):
    """The same with the conflicting test images only."""
    scored = benchmark.test
    kept = scored.attributes != np.array(benchmark.aligned)[scored.labels]
    return benchmark._replace(test=datasets.select(scored, kept))


def _photographs(folder):
    """The photographs in a folder at a fifth of their size, cut to that of the smallest."""
    from PIL import Image

    paths = sorted(p for p in pathlib.Path(folder).iterdir() if p.suffix.lower() in layouts.ENDINGS)
    if not paths:
        raise FileNotFoundError(f"no photographs of frost in {folder}")
    photographs = []
    for path in paths:
        try:
            photograph = Image.open(path, formats=decoding.FORMATS).convert("RGB")
        except Exception as error:  # pillow raises OSError, SyntaxError, struct.error and more
            raise ValueError(f"{path} does not decode: {error!r}") from error
        if min(photograph.size) < 5 * 32:
            raise ValueError(
                f"{path} must have sides of 160 pixels or more, found {photograph.size}"
            )
        photographs.append(np.asarray(photograph.resize([side // 5 for side in photograph.size])))
    h, w = np.min([p.shape[:2] for p in photographs], axis=0)
    return np.stack([p[:h, :w] for p in photographs])


CACHE_BYTES = 8 * 2**30
"""Size of the cache of benchmarks, of which the least recently used are deleted beyond it."""

_CACHED = ("train", "test")
_RECIPES_VERSION = 1  # counts changes of the bytes that a recipe makes


def _cache_path(name, recipe, data_dir, options):
    """A file named by all that its content depends on.

    Two processes that build at once write the same bytes to it, and as it appears whole, one that
    is killed leaves nothing that is read.
    """
    sources = [recipe.source]
    if recipe.behind is not None and options.scenes is None:
        sources.append("cifar10")
    content = [archives.fingerprint(source, data_dir) for source in sources]
    asked = options._replace(scenes=_digest(options.scenes), frost=_digest(options.frost))
    key = json.dumps([_RECIPES_VERSION, name, asked._asdict(), content])
    file = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    return files.CACHE.expanduser() / "benchmarks" / file


def _digest(value):
    """Of a benchmark or an array; None stays None."""
    if value is None:
        return None
    if isinstance(value, Benchmark):
        return datasets.digest(value)
    return hashlib.blake2b(np.ascontiguousarray(value).data, digest_size=16).hexdigest()


def _keep(path, benchmark):
    fields = {k: v for k, v in benchmark._asdict().items() if k not in _CACHED}
    arrays = {f"{p}-{f}": v for p in _CACHED for f, v in getattr(benchmark, p)._asdict().items()}
    try:
        files.prune(path.parent, CACHE_BYTES - sum(array.nbytes for array in arrays.values()))
        files.write_arrays(path, files.sealed(arrays | {"fields": np.array(json.dumps(fields))}))
    except OSError as error:
        warnings.warn(
            f"{benchmark.name} could not be kept for the next time: {error}", stacklevel=3
        )


def _stored(path):
    """The benchmark in a file of the cache, None if it is absent or damaged."""
    try:
        arrays = files.read_arrays(path, must_be_sealed=True)
        fields: dict[str, Any] = json.loads(str(arrays["fields"]))
        parts = {p: Dataset(*(arrays[f"{p}-{f}"] for f in Dataset._fields)) for p in _CACHED}
        os.utime(path)
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return Benchmark(**parts, **fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
