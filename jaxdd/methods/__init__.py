"""Distillation methods: pairs of pure functions `Method(init, step)`, and the loop that runs them.

| method | makes similar | sample weights act on |
| --- | --- | --- |
| `distribution_matching` (DM, FairDD, COBRA) | features of random networks | batches |
| `gradient_matching` (DC, DSA) | gradients of networks in training | batches |
| `trajectory_matching` (MTT) | trained networks | training of the experts |
| `curriculum_matching` (CFM) | feature covariances in a teacher | teacher, covariances, signal |

`run` yields the state after each compiled chunk of steps. `formation` stores several images in one,
`zca` whitens images, `spectral` compares feature covariances.
"""

from jaxdd.methods import cfm as cfm
from jaxdd.methods import expert_training as expert_training
from jaxdd.methods import formation as formation
from jaxdd.methods import spectral as spectral
from jaxdd.methods import zca as zca
from jaxdd.methods.cfm import CurriculumState as CurriculumState
from jaxdd.methods.cfm import curriculum_matching as curriculum_matching
from jaxdd.methods.distribution import Features as Features
from jaxdd.methods.distribution import State as State
from jaxdd.methods.distribution import distribution_matching as distribution_matching
from jaxdd.methods.distribution import mean_features as mean_features
from jaxdd.methods.gradient import GradientState as GradientState
from jaxdd.methods.gradient import gradient_matching as gradient_matching
from jaxdd.methods.loop import Batches as Batches
from jaxdd.methods.loop import batch as batch
from jaxdd.methods.loop import chunk as chunk
from jaxdd.methods.loop import run as run
from jaxdd.methods.loop import steps as steps
from jaxdd.methods.protocol import Method as Method
from jaxdd.methods.trajectory import TrajectoryState as TrajectoryState
from jaxdd.methods.trajectory import trajectory_matching as trajectory_matching
