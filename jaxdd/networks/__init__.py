"""Networks of the distillation literature, and the protocol that any other network follows.

Sets are distilled with `ConvNet`; the others measure how well a set transfers. All accept images
`[n, h, w, c]` of any size and channel count, and compute in `dtype` with float32 parameters.

>>> import jax, jax.numpy as jnp
>>> network = ConvNet(num_classes=10, width=8)
>>> images = jnp.zeros((2, 32, 32, 3))
>>> params = network.init(jax.random.key(0), images)
>>> features, logits = network.apply(params, images)
>>> features.shape, logits.shape
((2, 128), (2, 10))
"""

from jaxdd.networks.convolution import conv2d
from jaxdd.networks.layers import (
    BatchNorm,
    Conv,
    Dense,
    InstanceNorm,
    average_pool,
    max_pool,
    trace_convolutions,
)
from jaxdd.networks.models import (
    MLP,
    NETWORKS,
    VGG11,
    AlexNet,
    ConvNet,
    LeNet,
    Module,
    ResidualBlock,
    ResNet18,
    check_module,
    classify,
    max_blocks,
)
from jaxdd.networks.protocol import (
    Functions,
    Network,
    Output,
    apply_in_training,
    check_classes,
    count_classes,
    count_parts,
    init_params,
    outputs,
    split_batch_stats,
)

__all__ = [
    "MLP",
    "NETWORKS",
    "VGG11",
    "AlexNet",
    "BatchNorm",
    "Conv",
    "ConvNet",
    "Dense",
    "Functions",
    "InstanceNorm",
    "LeNet",
    "Module",
    "Network",
    "Output",
    "ResNet18",
    "ResidualBlock",
    "apply_in_training",
    "average_pool",
    "check_classes",
    "check_module",
    "classify",
    "conv2d",
    "count_classes",
    "count_parts",
    "init_params",
    "max_blocks",
    "max_pool",
    "outputs",
    "split_batch_stats",
    "trace_convolutions",
]
