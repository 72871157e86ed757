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

from jaxdd.networks.convolution import conv2d as conv2d
from jaxdd.networks.layers import BatchNorm as BatchNorm
from jaxdd.networks.layers import Conv as Conv
from jaxdd.networks.layers import Dense as Dense
from jaxdd.networks.layers import InstanceNorm as InstanceNorm
from jaxdd.networks.layers import average_pool as average_pool
from jaxdd.networks.layers import max_pool as max_pool
from jaxdd.networks.layers import trace_convolutions as trace_convolutions
from jaxdd.networks.models import MLP as MLP
from jaxdd.networks.models import NETWORKS as NETWORKS
from jaxdd.networks.models import VGG11 as VGG11
from jaxdd.networks.models import AlexNet as AlexNet
from jaxdd.networks.models import ConvNet as ConvNet
from jaxdd.networks.models import LeNet as LeNet
from jaxdd.networks.models import Module as Module
from jaxdd.networks.models import ResidualBlock as ResidualBlock
from jaxdd.networks.models import ResNet18 as ResNet18
from jaxdd.networks.models import check_module as check_module
from jaxdd.networks.models import classify as classify
from jaxdd.networks.models import max_blocks as max_blocks
from jaxdd.networks.protocol import Functions as Functions
from jaxdd.networks.protocol import Network as Network
from jaxdd.networks.protocol import Output as Output
from jaxdd.networks.protocol import apply_in_training as apply_in_training
from jaxdd.networks.protocol import check_classes as check_classes
from jaxdd.networks.protocol import count_classes as count_classes
from jaxdd.networks.protocol import count_parts as count_parts
from jaxdd.networks.protocol import init_params as init_params
from jaxdd.networks.protocol import outputs as outputs
from jaxdd.networks.protocol import split_batch_stats as split_batch_stats
