"""Train networks on a labelled set.

The functions of `jaxdd.training.fitting` are available here. Trainings with a teacher are in
`jaxdd.training.teachers` and `jaxdd.training.elf`; those that unlearn a bias are in
`jaxdd.training.debiased`.
"""

from jaxdd.training.fitting import TrainState as TrainState
from jaxdd.training.fitting import apply_gradients as apply_gradients
from jaxdd.training.fitting import check_labelled as check_labelled
from jaxdd.training.fitting import cross_entropies as cross_entropies
from jaxdd.training.fitting import cross_entropy as cross_entropy
from jaxdd.training.fitting import fit as fit
from jaxdd.training.fitting import gradient as gradient
from jaxdd.training.fitting import init_state as init_state
from jaxdd.training.fitting import merge_params as merge_params
from jaxdd.training.fitting import num_updates as num_updates
from jaxdd.training.fitting import run_epochs as run_epochs
from jaxdd.training.fitting import sgd as sgd
from jaxdd.training.fitting import train as train
from jaxdd.training.fitting import train_with_loss as train_with_loss
from jaxdd.training.fitting import update_state as update_state
from jaxdd.training.fitting import weighted_mean as weighted_mean
