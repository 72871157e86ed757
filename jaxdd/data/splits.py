"""Split a data set into training and test samples."""

import math
from collections.abc import Sequence

import numpy as np

from jaxdd.data import bias

_STREAM = 0x5011  # not default_rng(seed), which users may have drawn their arrays from


def draw_test(
    labels: np.ndarray, *, seed: int, fraction: float = 0.2, names: Sequence[str] | None = None
) -> np.ndarray:
    """Draw ceil(n · fraction) test samples, stratified by class up to one sample.

    Args:
        labels: class of each sample, integers [n]; every class has samples.
        seed: seed of the draw.
        fraction: share to draw, in (0, 1); at least one sample of each class goes to either side.
        names: names of the classes, for error messages.

    Returns:
        Whether each sample is a test sample, bool [n].

    >>> draw_test(np.array([0, 1, 0, 1]), seed=0).tolist().count(True)
    2
    """
    counts = np.bincount(labels, minlength=len(names or ()))
    if counts.min() < 2:
        name = int(counts.argmin()) if names is None else names[int(counts.argmin())]
        raise ValueError(
            f"class {name!r} needs at least 2 images, for training and for testing, got "
            f"{counts.min()}."
        )
    # Largest remainders: round all quotas down, then add one where most was cut off.
    quota = counts * fraction
    test_counts = np.floor(quota).astype(int)
    missing = math.ceil(round(len(labels) * fraction, 6)) - test_counts.sum()
    test_counts[np.argsort(test_counts - quota, kind="stable")[:missing]] += 1
    test_counts = np.clip(test_counts, 1, counts - 1)
    draws = np.random.default_rng((seed, _STREAM)).random(len(labels))
    return bias.rank_in_class(draws, labels, xp=np) < test_counts[labels]
