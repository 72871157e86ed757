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
    "cdigits-10-plain-ipc10": "786e72d36f5472d7b101e94a53d1a14e61606ab09444c36d828984b84b04127b",
    "cdigits-10-density-ipc10": "9d631de3d0df3e762d23b259f51a3a43688ec7eae5e8f4efcef035f6ccb10cdf",
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
