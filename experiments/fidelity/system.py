"""Systems of other authors, and what is compared with them."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxdd.data import files

VECTORS = pathlib.Path(__file__).parents[2] / "tests" / "reference" / "authors"
"""Folder of the authors' results, see its README.md."""


class System(NamedTuple):
    """A system of other authors.

    Attributes:
        source: repository, commit and licence of the authors' code.
        compare: returns the difference of each thing that is compared, by its description.
        tolerance: largest difference that the tests accept, by the same descriptions.
        unit: what differences are measured in; relative differences by default.
        note: what else a reader must know about the comparison.
        deviations: known differences: what differs, what the authors' code does, and what jaxdd
            does, with the reason.
    """

    source: str
    compare: Callable[[], dict[str, float]]
    tolerance: Mapping[str, float]
    unit: str = "relative"
    note: str = ""
    deviations: Sequence[tuple[str, str, str]] = ()


def vectors(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file of vectors."""
    return files.read_arrays(VECTORS / f"{name}.npz")


def difference(actual: ArrayLike, expected: ArrayLike) -> float:
    """Return the largest difference divided by the largest expected absolute value.

    >>> difference([1.0, 2.0], [1.0, 4.0])
    0.5
    """
    result, reference = np.asarray(actual, float), np.asarray(expected, float)
    if result.shape != reference.shape:
        raise ValueError(f"Shapes must be equal, got {result.shape} and {reference.shape}.")
    return float(np.abs(result - reference).max() / np.abs(reference).max())


def convnet_params(arrays: Mapping[str, np.ndarray], prefix: str) -> Any:
    """Return parameters of a `networks.ConvNet` from the state dict of an authors' ConvNet.

    Args:
        arrays: arrays of the state dict in the order of the layers, with names PREFIX/NAME.
        prefix: PREFIX. Gradients have the same names and are converted in the same way.
    """
    state = {name.removeprefix(f"{prefix}/"): x for name, x in arrays.items() if prefix in name}
    layers = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    convolutions = [name for name in layers if state[f"{name}.weight"].ndim == 4]
    norms = [name for name in layers if state[f"{name}.weight"].ndim == 1]
    kind = "BatchNorm" if f"{norms[0]}.running_mean" in state else "InstanceNorm"
    params, statistics = {}, {}
    for i, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        kernel, bias = state[f"{convolution}.weight"], state[f"{convolution}.bias"]
        params[f"Conv_{i}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
        scale, shift = state[f"{norm}.weight"], state[f"{norm}.bias"]
        params[f"{kind}_{i}"] = {"scale": scale, "bias": shift}
        if kind == "BatchNorm":
            mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
            statistics[f"{kind}_{i}"] = {"mean": mean, "var": variance}
    # The head sees features flattened in the order c, h, w there, and h, w, c here.
    head = state["classifier.weight"]
    side = round((head.shape[1] / len(bias)) ** 0.5)
    kernel = head.reshape(len(head), len(bias), side, side).transpose(2, 3, 1, 0)
    classifier = {"kernel": kernel.reshape(-1, len(head)), "bias": state["classifier.bias"]}
    params = {"params": params | {"classifier": classifier}}
    return params | ({"batch_stats": statistics} if statistics else {})


def flat(tree: Any) -> np.ndarray:
    """Return all values of a tree as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def channels_last(images: np.ndarray) -> np.ndarray:
    """Return images `[..., c, h, w]` as `[..., h, w, c]`."""
    return np.moveaxis(images, -3, -1)
