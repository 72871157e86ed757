"""Dataset distillation in JAX that does not amplify the bias of the data it distils."""

from jaxdd import (
    augment,
    contrastive,
    debiased,
    distill,
    draws,
    evaluate,
    formation,
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

__version__ = "0.1.0"

__all__ = [
    "augment",
    "contrastive",
    "debiased",
    "distill",
    "draws",
    "evaluate",
    "formation",
    "kde",
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
