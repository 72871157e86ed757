"""The distilled sets that come with jaxdd, by name: folders as `jaxdd export` writes them.

Their roots are stated here, outside of the folders, so that a set cannot be changed together with
its manifest. `experiments/tools/shipped_sets.py` makes them.
"""

import os
import pathlib

from jaxdd.data import files

FOLDER = pathlib.Path(__file__).parents[2] / "sets"
"""Folder with a folder of each set."""

ROOTS = {
    "cdigits-10-plain-ipc10": "0ecfcde02550be1d48878cf2a82b5b45d8ae4696243896c2dd10a5f74027d565",
    "cdigits-10-density-ipc10": "7bfa31342ae16b018c8217080a48082b6796d869183f39c44c5ba96d913199e5",
    "cmnist-5-density-ipc10": "cca08a75094e499c9d52f69eede9c702388db95af0bc091cfd448365c3b108f6",
    "cmnist-5-density-ipc50": "10ec5b06625ce571a74f6cdf63b6eb706d8c90e2a425dcfeeefcb01e6b5df957",
    "cfmnist-solid-bg-10-density-ipc10": "b0ab9de49834f8eb9649949522c5ef5b499be89e066d8387259e1d7b1b9ddd14",  # noqa: E501
}
"""Root of each set by name."""


def resolve(path: str | os.PathLike) -> pathlib.Path:
    """Return a path, or the folder of the set that comes with jaxdd if nothing else has its name.

    >>> resolve("cdigits-10-plain-ipc10").relative_to(FOLDER).as_posix()
    'cdigits-10-plain-ipc10'
    """
    expanded = files.expand(path)
    return FOLDER / expanded if os.fspath(path) in ROOTS and not expanded.exists() else expanded


def root_of(path: pathlib.Path) -> str | None:
    """Return the root that a set must have if its folder is one of jaxdd, else None."""
    return ROOTS.get(path.name) if path.parent == FOLDER else None
