"""Systems of other authors, and what is compared with them."""

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

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
        deviations: known differences between jaxdd and the authors' code, with the reasons.
    """

    source: str
    compare: Callable[[], dict[str, float]]
    tolerance: Mapping[str, float]
    unit: str = "relative"
    deviations: str = ""


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
