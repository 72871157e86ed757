"""Train networks on a labelled set.

The functions of `jaxdd.training.fitting` are available here. Trainings with a teacher are in
`jaxdd.training.teachers` and `jaxdd.training.elf`; those that unlearn a bias are in
`jaxdd.training.debiased`.
"""

from jaxdd.training.fitting import (
    TrainState,
    check_labelled,
    cross_entropies,
    cross_entropy,
    fit,
    gradient,
    init_state,
    merge_params,
    num_updates,
    run_epochs,
    sgd,
    train,
    train_with_loss,
    update_state,
    weighted_mean,
)

__all__ = [
    "TrainState",
    "check_labelled",
    "cross_entropies",
    "cross_entropy",
    "fit",
    "gradient",
    "init_state",
    "merge_params",
    "num_updates",
    "run_epochs",
    "sgd",
    "train",
    "train_with_loss",
    "update_state",
    "weighted_mean",
]
