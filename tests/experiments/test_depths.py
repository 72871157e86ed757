"""Two branches before one head: what both say together, and the deep one alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tools import depths, truncated
from jaxdd import networks, sampling

KEY, K, N = jax.random.key(0), 2, 60
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % K
IMAGES = RNG.integers(0, 256, (N, 8, 8, 1), dtype=np.uint8)
POOL = sampling.pool(IMAGES, LABELS, num_classes=K, mean=(0.5,), std=(0.25,))
SMALL = depths.TwoDepths(K, width=2, blocks=1)
ALONE = SMALL.clone(alone=True)


def test_the_branches_add_up_before_the_head():
    """Without the deep branch's part the rest is the shallow one's, whatever the parameters."""
    params = jax.jit(SMALL.init)(KEY, jnp.zeros((1, 8, 8, 1)))
    images = sampling.take(POOL, jnp.arange(5))
    apply = jax.jit(networks.outputs, static_argnums=0)
    both, deep = (apply(each, params, images) for each in (SMALL, ALONE))
    dumb = jax.tree_util.tree_map_with_path(
        lambda path, x: x * 0 if "ResidualBlock" in str(path) else x, params
    )
    shallow = apply(SMALL, dumb, images)
    np.testing.assert_allclose(both.features, deep.features + shallow.features, atol=1e-5)
    head = params["params"]["classifier"]
    np.testing.assert_allclose(
        deep.logits, deep.features @ head["kernel"] + head["bias"], atol=1e-5
    )


def test_alone_or_not_the_parameters_are_the_same():
    images = jnp.zeros((2, 8, 8, 3))
    made = [jax.jit(each.init)(KEY, images) for each in (SMALL, ALONE)]
    for one, other in zip(*map(jax.tree.leaves, made), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_default_is_a_resnet_20_beside_three_convolutions():
    network = depths.TwoDepths(10)
    params = jax.eval_shape(network.init, KEY, jnp.zeros((1, 32, 32, 3)))["params"]
    deep = [name for name in params if name.startswith("ResidualBlock")]
    assert len(deep) == 9 and 2 * len(deep) + 2 == 20
    shallow = [params[f"Conv_{i}"]["kernel"].shape for i in (1, 2, 3)]
    assert shallow == [(5, 5, 3, 32), (5, 5, 32, 64), (5, 5, 64, 64)]


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (2, 5, 7, 2), (2, 40, 28, 3)], ids=str)
def test_any_size_will_do(shape):
    network = depths.TwoDepths(3, width=2, blocks=1, dtype=jnp.bfloat16)
    params = jax.eval_shape(network.init, KEY, jnp.zeros(shape))
    found = jax.eval_shape(functools.partial(networks.outputs, network), params, jnp.zeros(shape))
    assert found.features.shape == (shape[0], 8) and found.logits.dtype == jnp.float32


def test_images_and_fields_are_checked_as_those_of_other_networks():
    with pytest.raises(TypeError, match="got uint8"):
        SMALL.init(KEY, jnp.zeros((1, 8, 8, 1), jnp.uint8))
    for field in ("width", "blocks"):
        with pytest.raises(ValueError, match=f"{field} must be an integer of at least 1, found 0"):
            depths.TwoDepths(K, **{field: 0}).init(KEY, jnp.zeros((1, 8, 8, 1)))


def test_both_are_trained_and_the_deep_one_is_asked(monkeypatch):
    def crossfit(key, pool, *, network, asked, q, steps, **others):
        return network, asked, q, steps, sorted(others)

    monkeypatch.setattr(truncated, "crossfit", crossfit)
    network, asked, *others = depths.crossfit(KEY, POOL, folds=3, steps=7)
    assert network == depths.TwoDepths(K) and asked == network.clone(alone=True)
    assert others == [0, 7, ["folds", "optimizer"]]


def test_a_network_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="2 logits.*got 3"):
        depths.crossfit(KEY, POOL, network=depths.TwoDepths(3, width=2, blocks=1))
