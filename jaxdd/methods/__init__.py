"""Distillation methods: pairs of pure functions `Method(init, step)`, and the loop that runs them.

| method | makes similar | sample weights act on |
| --- | --- | --- |
| `distribution_matching` (DM, FairDD) | features of random networks | batches |
| `gradient_matching` (DC, DSA) | gradients of networks in training | batches |
| `trajectory_matching` (MTT) | trained networks | training of the experts |
| `curriculum_matching` (CFM) | feature covariances in a teacher | teacher, covariances, signal |

`run` yields the state after each compiled chunk of steps. `formation` stores several images in one,
`zca` whitens images, `spectral` compares feature covariances.
"""

from jaxdd.methods import cfm, expert_training, formation, spectral, zca
from jaxdd.methods.cfm import CurriculumState, curriculum_matching
from jaxdd.methods.distribution import State, distribution_matching
from jaxdd.methods.gradient import GradientState, gradient_matching
from jaxdd.methods.loop import chunk, run, steps
from jaxdd.methods.protocol import Method
from jaxdd.methods.trajectory import TrajectoryState, trajectory_matching

__all__ = [
    "CurriculumState",
    "GradientState",
    "Method",
    "State",
    "TrajectoryState",
    "cfm",
    "chunk",
    "curriculum_matching",
    "distribution_matching",
    "expert_training",
    "formation",
    "gradient_matching",
    "run",
    "spectral",
    "steps",
    "trajectory_matching",
    "zca",
]
