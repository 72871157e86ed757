"""Curriculum frequency matching against the formula written out; its order, memory and checks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdd import methods, networks, sampling
from jaxdd.methods import cfm, spectral

KEY = jax.random.key(0)
NETWORK = networks.ConvNet(2, width=3, depth=2, norm=networks.BatchNorm)
RNG = np.random.default_rng(0)
POOL = sampling.pool(
    RNG.integers(0, 256, (9, 8, 8, 1), dtype=np.uint8),
    np.array([0, 0, 0, 0, 1, 1, 1, 1, 1]),
    num_classes=2,
    mean=(0.5,),
    std=(0.25,),
)
WEIGHTED = sampling.reweight(POOL, RNG.uniform(0.1, 1, 9))
PARAMS = jax.jit(NETWORK.init)(KEY, jnp.zeros((1, 8, 8, 1)))
LENGTH, BETA, FLOOR = 3, 0.1, 0.06


def method(**changes):
    options = dict(length=LENGTH, beta=BETA, floor=FLOOR, strategy=()) | changes
    return methods.curriculum_matching(NETWORK, optax.sgd(1.0), **options)


TRACES = []
PROGRAM = method()


def counted(key, state, guide):
    TRACES.append(0)
    return PROGRAM.step(key, state, guide)


METHOD = methods.Method(PROGRAM.init, counted)
IMAGES = np.float32(0.1 * np.random.default_rng(0).normal(size=(2, 2, 8, 8, 1)))


@pytest.fixture(scope="module")
def guided():
    """Return guides without weights, with weights and with weights in Φ only, and the layers."""

    @jax.jit
    def program(params):
        images = sampling.take(POOL, jnp.arange(9))
        layers = networks.trace_convolutions(NETWORK, params, images)[1]
        guide = functools.partial(cfm.guide, NETWORK, params, size=4)
        return guide(POOL), guide(WEIGHTED), guide(POOL, signals=WEIGHTED), layers

    return program(PARAMS)


def moments(layer, labels, weights):
    """Return Ψ and Φ in float64, over all positions, with sample weights that sum to one."""
    flat = np.asarray(layer, float).reshape(len(layer), -1, layer.shape[-1])
    weights = np.asarray(weights, float) / weights.sum()
    psi = np.cov(
        flat.reshape(-1, flat.shape[2]).T, aweights=weights.repeat(flat.shape[1]), ddof=0
    ).reshape(2 * flat.shape[2:])
    return psi, flat.mean(1).T @ (weights[:, None] * np.eye(2)[labels])


def test_a_guide_has_the_weighted_statistics_at_each_convolution(guided):
    *guides, layers = guided
    assert [layer.shape for layer in layers] == [(9, 8, 8, 1), (9, 4, 4, 3)]
    uniform = np.repeat([1 / 4, 1 / 5], [4, 5])  # all classes have equal weight
    weights = np.asarray(WEIGHTED.weights)
    for guide, (of_psi, of_phi) in zip(
        guides, ((uniform, uniform), (weights, weights), (uniform, weights)), strict=True
    ):
        for state, layer in zip(guide.real, layers, strict=True):
            psi, _ = moments(layer, POOL.labels, of_psi)
            _, phi = moments(layer, POOL.labels, of_phi)
            np.testing.assert_allclose(spectral.covariance(state), psi, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(spectral._signal_matrix(state, "class"), phi, atol=1e-5)
    np.testing.assert_allclose((guide.low, guide.high), [[-2], [2]])


def run(images, guide, first=0, state=None):
    """Return state and info after each of three steps, with two images per class."""
    state = METHOD.init(images) if state is None else jax.tree.map(jnp.asarray, state)
    chunks = methods.run(
        KEY,
        state,
        guide,
        method=METHOD,
        sampler=cfm.guide_sampler,
        steps=6,
        first=first,
        chunk_length=1,
    )
    return {i: (jax.tree.map(np.array, state), info) for i, state, info in chunks}


def test_a_step_is_the_written_out_formula(guided):
    """The first step on the second image equals the formula with explicit inverses."""
    guide = guided[1]._replace(low=-99 * jnp.ones(1), high=99 * jnp.ones(1))
    real = [moments(layer, POOL.labels, WEIGHTED.weights) for layer in guided[3]]
    states = [state.images for state, _ in run(IMAGES, guide).values()]

    def norms(layer, psi, phi):
        d = layer.shape[-1]
        centred = layer.reshape(-1, d) - layer.mean((0, 1, 2))
        own = centred.T @ centred / len(centred)
        signal = layer.mean((1, 2)).reshape(2, 2, d).mean(0).T / 2
        inverse, expected = (jnp.linalg.inv(x + FLOOR * jnp.eye(d)) for x in (own, psi))
        apart = jnp.linalg.norm(inverse @ signal - expected @ phi)
        return jnp.linalg.norm(inverse - expected) + apart

    @jax.jit
    @jax.value_and_grad
    def loss(current):
        logits = NETWORK.apply(PARAMS, current).logits
        entropy = -jax.nn.log_softmax(logits)[jnp.arange(2), jnp.arange(2)].mean()
        finished = states[1][:, 0]  # images before their last update, held constant
        layers = networks.trace_convolutions(NETWORK, PARAMS, jnp.concatenate([finished, current]))[
            1
        ]
        return entropy + 0.1 * sum(norms(x, *of) for x, of in zip(layers, real, strict=True))

    value, gradient = loss(jnp.asarray(states[2][:, 1]))
    update = states[2][:, 1] - states[3][:, 1]
    scale = jnp.abs(gradient).max()
    np.testing.assert_allclose(update / scale, gradient / scale, atol=1e-3)
    np.testing.assert_allclose(run(IMAGES, guide)[4][1]["loss"], value, rtol=1e-4)


def test_images_are_made_in_turn_clipped_and_resumed_bit_for_bit(guided):
    whole = run(30 * IMAGES, guided[1])
    again = run(None, guided[1], 4, whole[4][0])
    jax.tree.map(np.testing.assert_array_equal, again[6][0], whole[6][0])
    for i in (3, 6):
        change = whole[i][0].images - whole[i - 1][0].images
        current = 0 if i == 3 else 1
        assert change[:, current].any() and not change[:, 1 - current].any()
    betas = np.concatenate([info["beta"] for _, info in whole.values()])
    np.testing.assert_allclose(betas, [BETA] * 3 + [FLOOR] * 3)
    last = whole[6][0]
    assert np.abs(last.images).max() == 2 and last.count == 6
    assert [float(state.mass) for state in last.finished] == [4, 4]
    assert len(TRACES) == 1


def test_classes_take_turns_in_parts(guided):
    """Each part is one class; after all parts comes the next image."""
    parted = method(parts=2, length=2)
    chunks = methods.run(
        KEY, parted.init(30 * IMAGES), guided[1], method=parted, sampler=cfm.guide_sampler, steps=8,
        chunk_length=2,
    )  # fmt: skip
    states = [30 * IMAGES, *(np.array(state.images) for _, state, _ in chunks)]
    changed = [(a != b).any((2, 3, 4)) for a, b in itertools.pairwise(states)]
    turns = [np.argwhere(images).tolist() for images in changed]
    assert turns == [[[0, 0]], [[1, 0]], [[0, 1]], [[1, 1]]]  # class, image


def test_the_signal_is_that_of_the_classes_with_images(guided):
    """If only class 0 has images, Φ is the mean of that class."""
    real = guided[1].real[0]
    synthetic = real._replace(class_mass=jnp.array([1.0, 0.0]))
    signal = spectral._signal_matrix(cfm._present_classes(real, synthetic), "class")
    np.testing.assert_allclose(signal, jnp.stack([real.class_means[0], jnp.zeros(1)], 1), rtol=1e-5)


def test_memory_is_that_of_a_part_of_the_classes():
    """The images of 40 classes dominate the memory; Ψ is small."""
    network = networks.ConvNet(40, width=8, depth=2, norm=networks.BatchNorm)
    images = jax.ShapeDtypeStruct((40, 1, 16, 16, 3), jnp.float32)
    params = jax.eval_shape(network.init, KEY, images.update(shape=(1, 16, 16, 3)))

    def temporary(parts):
        method = methods.curriculum_matching(network, optax.sgd(1.0), length=1, parts=parts)
        state = jax.eval_shape(method.init, images)
        guide = cfm.Guide(params, state.finished, jnp.zeros(3), jnp.ones(3))
        compiled = jax.jit(method.step).lower(KEY, state, guide).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(4) < 0.4 * temporary(1)


PLAIN = networks.ConvNet(2, width=3, depth=2)
WIDE = networks.ConvNet(2, 4, 2, networks.BatchNorm)


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (lambda: method(beta=0.0), "beta.*got 0.0"),
        (lambda: method(beta=-1.0), "beta.*got -1.0"),
        (lambda: method(beta=0.05), "0.06, got 0.05"),
        (lambda: method(floor=0.0), "floor.*got 0.0"),
        (lambda: method(length=0), "length.*got 0"),
        (lambda: method(matching_weight=-0.1), "matching_weight.*got -0.1"),
        (lambda: method(signal="none"), "got 'none'"),
        (lambda: method(parts=3).init(IMAGES), "2 classes, got 3"),
        (lambda: METHOD.init(IMAGES[:1]), "1 .*got 2"),
        (lambda: METHOD.init(IMAGES[0]), r"got \(2, 8, 8, 1\)"),
        (lambda: cfm.guide(PLAIN, PARAMS, POOL), "got a ConvNet"),
        (lambda: cfm.guide(NETWORK, PARAMS["params"], POOL), "none"),
        (lambda: cfm.guide(WIDE, PARAMS, POOL), r"\['mean'\].*\(4,\), got \(3,\)"),
    ],
)
def test_invalid_inputs_raise(call, value):
    with pytest.raises(ValueError, match=value):
        call()


def test_one_image_has_no_curriculum():
    np.testing.assert_allclose(cfm.curriculum(0.1, 1), [0.1])
