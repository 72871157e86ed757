"""Dataset distillation in JAX with sample weights that counteract bias in the data."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from jaxdd import (
        audit,
        augment,
        devices,
        evaluate,
        kde,
        matching,
        methods,
        networks,
        sampling,
        svr,
        training,
        weights,
    )
    from jaxdd.runs.folder import store

__version__ = "0.1.0"


def load(path: "str | os.PathLike[str]", *, expect: str | None = None) -> "store.Synthetic":
    """Read and verify a synthetic set, by path, or by name if it comes with jaxdd.

    See `jaxdd.runs.trust.publication.load`.

    >>> load("cdigits-10-plain-ipc10").images.shape
    (10, 10, 16, 16, 3)
    """
    from jaxdd.runs.trust import publication

    return publication.load(path, expect=expect)


def keep_programs(*, folder: "str | os.PathLike[str] | None" = None) -> None:
    """Keep compiled programs for the next process; see `jaxdd.runs.programs.keep_programs`."""
    from jaxdd.runs import programs

    programs.keep_programs(folder=folder)


__all__ = [
    "audit",
    "augment",
    "devices",
    "evaluate",
    "kde",
    "keep_programs",
    "load",
    "matching",
    "methods",
    "networks",
    "sampling",
    "svr",
    "training",
    "weights",
]


def __getattr__(name: str):
    """Import a module on first use, so that the command line starts quickly."""
    if name in __all__:
        return importlib.import_module(f"jaxdd.{name}")
    raise AttributeError(f"module 'jaxdd' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Include the modules that are imported on first use."""
    return sorted({*globals(), *__all__})
