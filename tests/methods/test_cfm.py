"""Curriculum frequency matching: what guides it, its step, its order, and its teacher on disk."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdd import augment, methods, networks, sampling
from jaxdd.methods import cfm, spectral
from jaxdd.runs.folder import guides

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


def method(**given):
    given = dict(length=LENGTH, beta=BETA, floor=FLOOR, strategy=()) | given
    return methods.curriculum_matching(NETWORK, optax.sgd(1.0), **given)


TRACES = []
PROGRAM = method()


def counted(key, state, guide):
    TRACES.append(0)
    return PROGRAM.step(key, state, guide)


METHOD = methods.Method(PROGRAM.init, counted)
IMAGES = 0.1 * jax.random.normal(KEY, (2, 2, 8, 8, 1))


@pytest.fixture(scope="module")
def guided():
    """Guides by the pool, by weights, and by weights in Φ alone; the layers of all images."""

    @jax.jit
    def program(params):
        images = sampling.take(POOL, jnp.arange(9))
        layers = networks.trace_convolutions(NETWORK, params, images)[1]
        guide = functools.partial(cfm.guide, NETWORK, params, size=4)
        return guide(POOL), guide(WEIGHTED), guide(POOL, signals=WEIGHTED), layers

    return program(PARAMS)


def moments(layer, labels, weights):
    """Ψ and Φ in float64: every position counts, the weights of all samples sum to one."""
    flat = np.asarray(layer, float).reshape(len(layer), -1, layer.shape[-1])
    weights = np.asarray(weights, float) / weights.sum()
    psi = np.cov(
        flat.reshape(-1, flat.shape[2]).T, aweights=weights.repeat(flat.shape[1]), ddof=0
    ).reshape(2 * flat.shape[2:])
    return psi, flat.mean(1).T @ (weights[:, None] * np.eye(2)[labels])


def test_a_guide_has_the_weighted_moments_of_what_enters_each_convolution(guided):
    *guides_, layers = guided
    assert [layer.shape for layer in layers] == [(9, 8, 8, 1), (9, 4, 4, 3)]
    uniform = np.repeat([1 / 4, 1 / 5], [4, 5])  # each class counts as much as another
    weights = np.asarray(WEIGHTED.weights)
    for guide, (of_psi, of_phi) in zip(
        guides_, ((uniform, uniform), (weights, weights), (uniform, weights)), strict=True
    ):
        for state, layer in zip(guide.real, layers, strict=True):
            psi, _ = moments(layer, POOL.labels, of_psi)
            _, phi = moments(layer, POOL.labels, of_phi)
            np.testing.assert_allclose(spectral.covariance(state), psi, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(spectral.signal_matrix(state, "class"), phi, atol=1e-5)
    np.testing.assert_allclose((guide.low, guide.high), [[-2], [2]])


def run(images, guide, first=0, state=None):
    """The state and the info after each step, by step; two images of each class, three steps."""
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
    """By explicit inverses, of the first step on the second image."""
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
        finished = states[1][:, 0]  # as the last step on them saw them, and held constant
        layers = networks.trace_convolutions(NETWORK, PARAMS, jnp.concatenate([finished, current]))[
            1
        ]
        return entropy + 0.1 * sum(norms(x, *of) for x, of in zip(layers, real, strict=True))

    value, slope = loss(jnp.asarray(states[2][:, 1]))
    found = states[2][:, 1] - states[3][:, 1]
    scale = jnp.abs(slope).max()
    np.testing.assert_allclose(found / scale, slope / scale, atol=1e-3)
    np.testing.assert_allclose(run(IMAGES, guide)[4][1]["loss"], value, rtol=1e-4)


def test_images_are_made_in_turn_cut_to_pixels_and_resumed_to_the_same_bits(guided):
    whole = run(30 * IMAGES, guided[1])
    again = run(None, guided[1], 4, whole[4][0])
    jax.tree.map(np.testing.assert_array_equal, again[6][0], whole[6][0])
    for i in (3, 6):
        made, kept = (np.diff([whole[j][0].images[:, n] for j in (i - 1, i)], axis=0)
                      for n in ((0, 1) if i == 3 else (1, 0)))  # fmt: skip
        assert made.any() and not kept.any()
    betas = np.concatenate([info["beta"] for _, info in whole.values()])
    np.testing.assert_allclose(betas, [BETA] * 3 + [FLOOR] * 3)
    last = whole[6][0]
    assert np.abs(last.images).max() == 2 and last.count == 6
    assert [float(state.mass) for state in last.finished] == [4, 4]
    assert len(TRACES) == 1


def test_classes_take_turns_in_parts(guided):
    """One class at a time; in the end Φ_s is of all, and each part begins its optimizer afresh."""
    parted = method(parts=2, length=2)
    chunks = methods.run(
        KEY, parted.init(30 * IMAGES), guided[1], method=parted, sampler=cfm.guide_sampler, steps=8,
        chunk_length=2,
    )  # fmt: skip
    states = [30 * IMAGES, *(np.array(state.images) for _, state, _ in chunks)]
    changed = [(one != other).any((2, 3, 4)) for one, other in itertools.pairwise(states)]
    for found, (label, turn) in zip(changed, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
        assert np.argwhere(found).tolist() == [[label, turn]]


def test_the_signal_of_a_part_is_that_of_its_classes(guided):
    """With what the real images have of class 0 alone, its Φ over a mass of one is its mean."""
    real = guided[1].real[0]
    some = real._replace(class_mass=jnp.array([1.0, 0.0]))
    signal = spectral.signal_matrix(cfm._present(real, some), "class")
    np.testing.assert_allclose(signal, jnp.stack([real.class_means[0], jnp.zeros(1)], 1), rtol=1e-5)


def test_memory_is_that_of_a_part():
    """Of 40 classes on 16 pixels, by the compiled step; Ψ is too small to count."""
    network = networks.ConvNet(40, width=8, depth=2, norm=networks.BatchNorm)
    images = jax.ShapeDtypeStruct((40, 1, 16, 16, 3), jnp.float32)
    params = jax.eval_shape(network.init, KEY, images.update(shape=(1, 16, 16, 3)))

    def temporary(parts):
        made = methods.curriculum_matching(network, optax.sgd(1.0), length=1, parts=parts)
        state = jax.eval_shape(made.init, images)
        guide = cfm.Guide(params, state.finished, jnp.zeros(3), jnp.ones(3))
        compiled = jax.jit(made.step).lower(KEY, state, guide).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(4) < 0.4 * temporary(1)


def test_a_crop_is_a_resampled_part():
    """Rows and columns of a ramp are ramps, of a slope of at most one, or cut at the border."""
    ramp = jnp.stack(jnp.meshgrid(jnp.arange(6.0), jnp.arange(6.0), indexing="ij"), -1)
    crop = functools.partial(augment.resized_crop, image=ramp, least=0.3, shift=0)
    found = np.asarray(jax.jit(jax.vmap(crop))(jax.random.split(KEY, 40)))
    rows, columns = found[:, :, 0, 0], found[:, 0, :, 1]
    np.testing.assert_allclose(found[..., 0], rows[:, :, None] + np.zeros((1, 1, 6)), atol=1e-5)
    flipped = columns[:, 0] > columns[:, -1]
    assert 8 < flipped.sum() < 32
    for lines in (rows, np.where(flipped[:, None], columns[:, ::-1], columns)):
        steps = np.diff(lines, axis=1)
        assert lines.min() >= 0 and lines.max() <= 5 and steps.max() <= 1 + 1e-5
        inner = steps[:, 1:-1]
        np.testing.assert_allclose(inner, inner[:, :1] + np.zeros((1, 3)), atol=1e-5)
        assert (inner > 0.4).all() and inner.min() < 0.7


def test_a_network_shows_what_enters_its_convolutions_but_shortcuts():
    network, images = networks.ResNet18(10, norm=networks.BatchNorm), jnp.zeros((2, 16, 16, 3))
    shapes = jax.eval_shape(network.init, KEY, images)
    _, inputs = jax.eval_shape(
        functools.partial(networks.trace_convolutions, network), shapes, images
    )
    assert [x.shape[-1] for x in inputs] == [3, *[64] * 5, *[128] * 4, *[256] * 4, *[512] * 3]
    assert inputs[-1].shape == (2, 2, 2, 512)


PLAIN = networks.ConvNet(2, width=3, depth=2)
LINEAR = networks.Functions(NETWORK.init, NETWORK.apply)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: method(beta=0.0), "beta must be positive and finite, found 0.0"),
        (lambda: method(beta=-1.0), "beta must be positive and finite, found -1.0"),
        (lambda: method(beta=0.05), "beta must be at least its floor of 0.06, found 0.05"),
        (lambda: method(floor=0.0), "floor must be positive"),
        (lambda: method(length=0), "length must be at least 1, found 0"),
        (lambda: method(matching=-0.1), "matching must be at least 0"),
        (lambda: method(signal="none"), "signal must be mean or class, found 'none'"),
        (lambda: method(parts=3).init(IMAGES), "parts must divide the 2 classes, found 3"),
        (lambda: METHOD.init(IMAGES[:1]), "1 logits.*got 2"),
        (lambda: METHOD.init(IMAGES[0]), r"\[k, ipc, h, w, c\], found shape"),
        (lambda: cfm.guide(PLAIN, PARAMS, POOL), "batch norm.*found a ConvNet without"),
        (lambda: cfm.guide(NETWORK, PARAMS["params"], POOL), "must be those of its network"),
        (
            lambda: cfm.guide(networks.ConvNet(2, 4, 2, networks.BatchNorm), PARAMS, POOL),
            r"\['mean'\] must be \(4,\), found \(3,\)",
        ),
        (lambda: augment.resized_crop(KEY, IMAGES[0, 0], least=0.0), r"least must lie in \(0, 1\]"),
    ],
)
def test_bad_inputs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_one_image_has_no_curriculum():
    np.testing.assert_allclose(cfm.curriculum(0.1, 1), [0.1])


def test_a_killed_teacher_goes_on_to_the_same_bits_and_is_not_trained_again(tmp_path):
    """Killed at the fourth of six updates, with states of each second one."""
    teach = guides.course(NETWORK, steps=6, rate=0.1, strategy=())
    sampler = functools.partial(sampling.weighted_batch, size=2)
    given = dict(sampler=sampler, steps=6, chunk=2, save_every=0.0)

    def fill(folder, report=lambda done, total: None, teach=teach, **manifest):
        pools = dict.fromkeys(("teacher", "covariance", "signal"), WEIGHTED)
        return guides.fill(
            KEY, folder, {"seed": 0, **manifest}, NETWORK, pools, teach=teach, report=report,
            **given,
        )  # fmt: skip

    def kill(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "cut", kill)
    begun = []
    found = fill(tmp_path / "cut", lambda done, total: begun.append(done))
    assert begun[0] == 2
    jax.tree.map(np.testing.assert_array_equal, found, fill(tmp_path / "whole"))
    assert not (tmp_path / "cut" / "checkpoint").exists()
    again = fill(tmp_path / "cut", teach=None)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    with pytest.raises(ValueError, match="holds guides of something else: seed is 0"):
        fill(tmp_path / "cut", seed=1)


def test_the_teacher_of_a_run_can_be_asked_again(tmp_path):
    """By the network that the manifest names; of other data, damaged or absent it is refused."""
    teach = guides.course(NETWORK, steps=1, rate=0.1, strategy=())
    sampler = functools.partial(sampling.weighted_batch, size=2)
    pools = dict.fromkeys(("teacher", "covariance", "signal"), WEIGHTED)
    manifest = {"data": "abc", "width": 7}
    made = guides.fill(
        KEY, tmp_path, manifest, NETWORK, pools, teach=teach, sampler=sampler, steps=1
    )
    asked = []
    named = lambda manifest: asked.append(manifest["width"]) or NETWORK
    found = guides.read(tmp_path, WEIGHTED, named, data="abc")
    jax.tree.map(np.testing.assert_array_equal, found.params, made.params)
    assert asked == [7] and found.network == NETWORK
    with pytest.raises(ValueError, match="saw other data: digest abc there, xyz here"):
        guides.read(tmp_path, WEIGHTED, named, data="xyz")
    with pytest.raises(FileNotFoundError, match="holds no guide-000.npz, expected teacher/ of"):
        guides.read(tmp_path / "none", WEIGHTED, named, data="abc")
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="must say what the teacher saw; delete .* distil again"):
        guides.read(tmp_path, WEIGHTED, named, data="abc")
