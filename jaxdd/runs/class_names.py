"""Match the classes of a synthetic set to those of data by their names."""

import unicodedata
from collections.abc import Sequence

import numpy as np


def positions(names: Sequence[str], known: Sequence[str], *, of: str) -> np.ndarray:
    """Return the position of each class of a set among the classes of data, int32 `[k]`.

    Names that are whole numbers are positions in data without names or with other names, because
    sets without class names number their classes. If the data have no names, sorted names are
    positions.

    Args:
        names: names of the classes of the set.
        known: names of the classes of the data, empty if they have none.
        of: name of the data, for messages.

    Raises:
        ValueError: the data have classes that the set lacks, or the other way round.

    >>> positions(["dog", "cat"], ["cat", "dog"], of="pets").tolist()
    [1, 0]
    >>> positions(["0", "1"], ["cat", "dog"], of="pets").tolist()
    [0, 1]
    """
    own, others = ([canonical(name) for name in x] for x in (names, known))
    if set(own) == set(others) and len(own) == len(others):
        return np.array([others.index(name) for name in own], np.int32)
    if all(name.isdecimal() for name in own) and not any(name.isdecimal() for name in others):
        return np.array([int(name) for name in own], np.int32)
    if not others:
        return np.arange(len(own), dtype=np.int32)
    missing = [name for name in known if canonical(name) not in own]
    surplus = [name for name in names if canonical(name) not in others]
    raise ValueError(
        f"the set must have the classes of {of}; missing: {_listed(missing)}; "
        f"additional: {_listed(surplus)}"
    )


def canonical(name: str) -> str:
    """Return a name without differences that cannot be seen: accents, blanks, leading zeros."""
    name = " ".join(unicodedata.normalize("NFKC", name).split())
    return str(int(name)) if name.isdecimal() else name


def _listed(names):
    return ", ".join(map(repr, names[:5])) + ", …" * (len(names) > 5) or "none"
