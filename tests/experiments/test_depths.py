"""Networks of two branches and one head, with the sum of both or the deep branch alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tools import depths
from jaxdd import networks, sampling

KEY, K, N = jax.random.key(0), 2, 60
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % K
IMAGES = RNG.integers(0, 256, (N, 8, 8, 1), dtype=np.uint8)
POOL = sampling.pool(IMAGES, LABELS, num_classes=K, mean=(0.5,), std=(0.25,))
SMALL = depths.TwoDepths(K, width=2, blocks=1)
ALONE = SMALL.clone(alone=True)


def test_features_of_the_branches_are_added():
    params = jax.jit(SMALL.init)(KEY, jnp.zeros((1, 8, 8, 1)))
    images = sampling.take(POOL, jnp.arange(5))
    apply = jax.jit(networks.outputs, static_argnums=0)
    both, deep = (apply(network, params, images) for network in (SMALL, ALONE))
    without_deep = jax.tree_util.tree_map_with_path(
        lambda path, x: x * 0 if "ResidualBlock" in str(path) else x, params
    )
    shallow = apply(SMALL, without_deep, images)
    np.testing.assert_allclose(both.features, deep.features + shallow.features, atol=1e-5)
    head = params["params"]["classifier"]
    np.testing.assert_allclose(
        deep.logits, deep.features @ head["kernel"] + head["bias"], atol=1e-5
    )


def test_default_is_a_resnet_20_and_three_convolutions():
    network = depths.TwoDepths(10)
    params = jax.eval_shape(network.init, KEY, jnp.zeros((1, 32, 32, 3)))["params"]
    deep = [name for name in params if name.startswith("ResidualBlock")]
    assert len(deep) == 9 and 2 * len(deep) + 2 == 20
    shallow = [params[f"Conv_{i}"]["kernel"].shape for i in (1, 2, 3)]
    assert shallow == [(5, 5, 3, 32), (5, 5, 32, 64), (5, 5, 64, 64)]


def test_small_images_and_bfloat16_work():
    network, images = (
        depths.TwoDepths(3, width=2, blocks=1, dtype=jnp.bfloat16),
        jnp.zeros((3, 1, 1, 1)),
    )
    params = jax.eval_shape(network.init, KEY, images)
    outputs = jax.eval_shape(functools.partial(networks.outputs, network), params, images)
    assert outputs.features.shape == (3, 8) and outputs.logits.dtype == jnp.float32
