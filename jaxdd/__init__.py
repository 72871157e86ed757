"""Dataset distillation in JAX that does not amplify the bias of the data it distils."""

from typing import TYPE_CHECKING

from jaxdd import (
    augment,
    contrastive,
    debiased,
    distill,
    draws,
    evaluate,
    formation,
    intervals,
    kde,
    matching,
    networks,
    parallel,
    probes,
    reweight,
    sampling,
    svr,
    tasks,
    training,
    trajectories,
    views,
    weights,
)

if TYPE_CHECKING:
    import os

    from jaxdd.runs import publication

__version__ = "0.1.0"


def load(path: "str | os.PathLike[str]", *, expect: str | None = None) -> "publication.Published":
    """Reads a published synthetic set, after it was verified; see `jaxdd.runs.publication.load`."""
    from jaxdd.runs import publication  # which imports all of this

    return publication.load(path, expect=expect)


__all__ = [
    "augment",
    "contrastive",
    "debiased",
    "distill",
    "draws",
    "evaluate",
    "formation",
    "intervals",
    "kde",
    "load",
    "matching",
    "networks",
    "parallel",
    "probes",
    "reweight",
    "sampling",
    "svr",
    "tasks",
    "training",
    "trajectories",
    "views",
    "weights",
]
