"""Words for the data sets and rows of a comparison, for tables and figures."""

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

BIASES = {
    "cmnist": "colour of digits", "cfmnist": "colour of clothes",
    "cmnist-bg": "colour behind digits",
    "bgfmnist": "natural background", "ccifar10": "corruption", "cifar10-s": "grey or in colour",
}  # fmt: skip
"""Biases of benchmarks in words."""

TITLES = {
    "bandwidth": "bandwidth factor",
    "temperature": "temperature τ",
    "weighting": "weighting",
    "init": "initial images",
}
"""Options in words."""


def title(text: str) -> str:
    """Return a title that begins with the name of a data set in words.

    >>> title("cmnist 5 % wrong labels"), title("mnist"), title("cats and dogs")
    ('coloured MNIST, 5 % wrong labels', 'MNIST', 'cats and dogs')
    """
    name, _, rest = text.partition(" ")
    return ", ".join(filter(None, (DATASETS[name], rest))) if name in DATASETS else text
