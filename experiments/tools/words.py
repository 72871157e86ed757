"""Words for the data sets, options and rows of a comparison, for tables and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

DATASETS = {
    "cdigits": "small coloured digits",
    "mnist": "MNIST",
    "cmnist": "coloured MNIST",
    "cmnist-fg": "MNIST in solid colours",
    "cmnist-bg": "MNIST on solid colours",
    "fashion_mnist": "Fashion-MNIST",
    "cfmnist": "coloured Fashion-MNIST",
    "cfmnist-fg": "Fashion-MNIST in colours (FairDD)",
    "cfmnist-bg": "Fashion-MNIST on colours (FairDD)",
    "cfmnist-solid-bg": "Fashion-MNIST on solid colours",
    "bgfmnist": "Fashion-MNIST on natural backgrounds",
    "bgfmnist-few": "Fashion-MNIST on few backgrounds",
    "fmnist-turn": "turned Fashion-MNIST",
    "fmnist-place": "Fashion-MNIST in ten places",
    "cifar10": "CIFAR-10",
    "ccifar10": "corrupted CIFAR-10",
    "ccifar10-noise": "CIFAR-10, noise and blur",
    "cifar10-s": "CIFAR-10, grey or in colour",
    "cifar10-bar": "CIFAR-10 with a bar",
    "cifar10-mark": "CIFAR-10 with a mark",
    "cifar10-two": "CIFAR-10, grey and marked",
    "cbgfmnist": "coloured Fashion-MNIST on natural backgrounds",
    "fmnist-texture": "patterned Fashion-MNIST",
    "fmnist-scale": "Fashion-MNIST in five sizes",
    "cmnist-pairs": "MNIST in pairs of colours",
    "digits": "small digits",
    "cifar10-jpeg": "CIFAR-10, compressed or not",
    "cifar10-balance": "CIFAR-10, warm or cold",
    "cifar10-ramp": "CIFAR-10 with a brightness ramp",
    "cifar10-blur": "blurred CIFAR-10",
    "fmnist-frame": "Fashion-MNIST in a grey frame",
    "mnist-stripes": "MNIST over weak stripes",
    "fmnist-tones": "Fashion-MNIST, warm or cold",
    "cmnist-next": "MNIST, conflicts in the next colour",
}
"""Data sets in words; others keep their names."""

ROWS = {
    "random": "random subset",
    "random-density": "random subset, density weights",
    "plain": "plain distillation",
    "density": "density weights",
    "auto": "auto",
    "border": "border declared a nuisance",
    "oracle": "oracle (bias labels)",
    "fairdd": "FairDD (bias labels)",
}
"""Rows of a comparison in words."""

_VALUES: dict[str, dict[Any, str]] = {
    "training": {"standard": "standard training", "lff": "LfF", "selecmix": "SelecMix"},
    "zca": {
        "none": "no whitening", "uniform": "whitened, uniform weights",
        "weighted": "whitened, weights of the set",
    },
    "weighting": {
        "draw": "batches drawn by weight", "mean": "weighted mean of uniform batches",
        "batch": "density of each batch",
    },
    "init": {"weighted": "real images,\ndrawn by weight", "real": "real images,\ndrawn uniformly"},
}  # fmt: skip
_FORMATS = {
    "ipc": lambda x: "1 image per class" if x == 1 else f"{x} images per class",
    "conflict": lambda x: f"{100 * x:g} % conflicting",
    "method": str.upper,
    "candidates": lambda x: f"batches from {x} candidates (DREAM)",
    "formation": lambda x: f"{x * x} images in one (IDC)",
    "seed": lambda x: f"seed {x}",
    "bandwidth": lambda x: f"bandwidth factor {x:g}",
    "temperature": lambda x: f"temperature {x:g}",
}
_SILENT = {"formation": (1, None), "candidates": (None,), "conflict": (None,)}


def option(name: str, value: Any) -> str:
    """Return the value of an option in words; empty if the value means that it is not used.

    >>> option("conflict", 0.05), option("ipc", 1), option("dataset", "cmnist")
    ('5 % conflicting', '1 image per class', 'coloured MNIST')
    """
    if value in _SILENT.get(name, ()):
        return ""
    if name == "dataset":
        return DATASETS.get(value, value)
    if name == "row":
        return ROWS.get(value, value)
    if value in (words := _VALUES.get(name, {})):
        return words[value]
    return _FORMATS.get(name, str)(value)


def title(text: str) -> str:
    """Return a title that begins with the name of a data set in words.

    >>> title("cmnist 5 % wrong labels"), title("mnist"), title("cats and dogs")
    ('coloured MNIST, 5 % wrong labels', 'MNIST', 'cats and dogs')
    """
    name, _, rest = text.partition(" ")
    return ", ".join(filter(None, (DATASETS[name], rest))) if name in DATASETS else text


def label(values: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the values of some options in words, separated by commas.

    >>> label({"method": "dm", "ipc": 10, "conflict": None}, ["method", "conflict", "ipc"])
    'DM, 10 images per class'
    """
    return ", ".join(filter(None, (option(name, values[name]) for name in names)))
