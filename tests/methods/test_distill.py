import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxdd import augment, matching, methods, networks, sampling
from jaxdd.methods import experts, formation

NETWORK = networks.ConvNet(num_classes=3, width=4, depth=1)
OPTIMIZER = optax.sgd(0.5, momentum=0.5)
METHOD = methods.distribution_matching(NETWORK, OPTIMIZER, strategy=("crop",))
STEP, INIT = jax.jit(METHOD.step), jax.jit(NETWORK.init)
INITIAL = jax.jit(sampling.initial_real, static_argnames="ipc")
KEY = jax.random.key(0)


def linear_init(key, images):
    return jax.random.normal(key, (images[0].size, 4)) / images[0].size ** 0.5


def linear_apply(params, images):
    features = jnp.sin(images.reshape(len(images), -1) @ params)
    return features, features[:, :3]


LINEAR = networks.Functions(linear_init, linear_apply)
CHEAP = methods.feature_matching(LINEAR, OPTIMIZER, strategy=())


def make_pool(counts=(20, 9, 30), weights=None, shape=(8, 8, 3)):
    labels = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    return sampling.pool(
        images,
        labels,
        num_classes=len(counts),
        weights=weights,
        mean=(0.5,) * shape[-1],
        std=(0.5,) * shape[-1],
    )


POOL = make_pool(weights=np.random.default_rng(1).uniform(0.1, 1, 59))
SAMPLER = jax.jit(functools.partial(sampling.uniform_batch, size=8))


def start(pool=POOL, method=METHOD, ipc=2):
    return jax.jit(method.init)(INITIAL(jax.random.key(7), pool, ipc=ipc))


def run(steps, *, state=None, first=0, chunk_length=4, sampler=SAMPLER, pool=POOL, key=KEY):
    """The images after each chunk, by step."""
    state = start(pool, CHEAP) if state is None else state
    chunks = methods.run(
        key,
        state,
        pool,
        method=CHEAP,
        sampler=sampler,
        steps=steps,
        first=first,
        chunk_length=chunk_length,
    )
    return {step: jax.tree.map(np.array, state) for step, state, _ in chunks}


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_step_is_the_written_out_formula():
    """By hand: network, one augmentation a class, weighted mean, SGD with momentum."""
    state, batch = start(), SAMPLER(jax.random.key(1), POOL)
    key_network, key_augment = jax.random.split(KEY)
    params = INIT(key_network, state.images[0, :1])
    keys = jax.random.split(key_augment, 3)

    @jax.jit
    @jax.value_and_grad
    def loss(images, key, real, weights):
        real, synthetic = augment.siamese(key, real, images, strategy=("crop",))
        target = weights @ NETWORK.apply(params, real).features
        return jnp.sum((target - NETWORK.apply(params, synthetic).features.mean(0)) ** 2)

    classes = zip(state.images, keys, *batch, strict=True)
    values, gradients = zip(*(loss(*one) for one in classes), strict=True)
    after, info = STEP(KEY, state, batch)
    assert float(info["loss"]) == pytest.approx(float(sum(values)), rel=1e-4)
    gradient = np.stack(gradients)
    expected = state.images - 0.5 * gradient
    np.testing.assert_allclose(after.images, expected, atol=1e-4 * np.abs(gradient).max())


def test_constant_weights_are_plain_distribution_matching_to_the_bit():
    batch = SAMPLER(KEY, make_pool())
    plain = batch._replace(weights=jnp.ones_like(batch.weights) / 8)
    equal(STEP(KEY, start(), batch), STEP(KEY, start(), plain))


def test_one_trace_serves_many_steps():
    step = jax.jit(chex.assert_max_traces(METHOD.step, n=1))
    state = start()
    for i in range(3):
        state, _ = step(jax.random.fold_in(KEY, i), state, SAMPLER(jax.random.key(i), POOL))


def test_a_chunk_moves_nothing_between_host_and_device():
    chunk = functools.partial(methods.chunk, method=METHOD, sampler=SAMPLER, length=4)
    chunk(KEY, start(), POOL, jnp.asarray(0))
    state, first = start(), jnp.asarray(4)
    with jax.transfer_guard("disallow"):
        state, info = chunk(KEY, state, POOL, first)
    assert info["loss"].shape == (4,) and jnp.isfinite(info["loss"]).all()


def test_the_state_is_donated():
    state = start()
    methods.chunk(KEY, state, POOL, jnp.asarray(0), method=METHOD, sampler=SAMPLER, length=4)
    assert state.images.is_deleted()


def test_the_loss_falls():
    state, losses = start(), []
    for _, _, info in methods.run(
        KEY, state, POOL, method=METHOD, sampler=SAMPLER, steps=60, chunk_length=4
    ):
        losses.extend(info["loss"].tolist())
    assert np.mean(losses[-20:]) < np.mean(losses[:20])


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one():
    whole = run(10)
    middle = jax.tree.map(jnp.asarray, whole[4])
    equal(run(10, state=middle, first=4)[10], whole[10])


def test_runs_are_functions_of_the_key():
    equal(run(4)[4], run(4)[4])
    assert (run(4)[4].images != run(4, key=jax.random.key(1))[4].images).any()


def test_the_chunk_length_changes_nothing_but_rounding():
    np.testing.assert_allclose(run(6, chunk_length=1)[6].images, run(6)[6].images, atol=1e-4)


@pytest.mark.parametrize("batch", [sampling.uniform_batch, sampling.weighted_batch])
def test_unequal_classes_and_more_images_than_a_class_holds(batch):
    pool = make_pool((1, 5, 40))
    images = run(
        4, state=start(pool, CHEAP, 7), pool=pool, sampler=functools.partial(batch, size=16)
    )
    assert images[4].images.shape == (3, 7, 8, 8, 3) and np.isfinite(images[4].images).all()


@pytest.mark.parametrize("classes, shape", [(1, (8, 8, 1)), (12, (6, 10, 4))])
def test_other_class_counts_and_image_shapes(classes, shape):
    pool = make_pool((5,) * classes, shape=shape)
    network = networks.ConvNet(classes, width=4, depth=1)
    method = methods.distribution_matching(network, OPTIMIZER, strategy=("crop", "color"))
    chunks = methods.run(
        KEY, start(pool, method), pool, method=method, sampler=SAMPLER, steps=2, chunk_length=2
    )
    ((_, state, _),) = chunks
    assert state.images.shape == (classes, 2, *shape) and jnp.isfinite(state.images).all()


def test_bfloat16_follows_float32():
    network = networks.ConvNet(num_classes=3, width=4, depth=1, dtype=jnp.bfloat16)
    method = methods.distribution_matching(network, OPTIMIZER, strategy=("crop",))
    batch = SAMPLER(KEY, POOL)
    found, _ = jax.jit(method.step)(KEY, start(), batch)
    expected, _ = STEP(KEY, start(), batch)
    assert found.images.dtype == jnp.float32
    moved = jnp.abs(expected.images - start().images).max()
    assert jnp.abs(found.images - expected.images).max() < 0.1 * moved


def test_four_devices_give_the_step_of_one():
    """The real batch is split over the devices, weights included; XLA adds the partial sums."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    batch, state = SAMPLER(KEY, POOL), start()
    expected = STEP(KEY, state, batch)
    split = NamedSharding(mesh, PartitionSpec(None, "data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    found = STEP(
        jax.device_put(KEY, everywhere),
        jax.device_put(state, everywhere),
        jax.device_put(batch, split),
    )
    assert len(found[0].images.sharding.device_set) == 4
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), found, expected)


def test_pmap_over_seeds():
    keys, batch = jax.random.split(KEY, 4), SAMPLER(KEY, POOL)
    states = jax.tree.map(lambda x: jnp.stack([x] * 4), start())
    found, info = jax.pmap(METHOD.step, in_axes=(0, 0, None))(keys, states, batch)
    for i in range(4):
        expected, _ = STEP(keys[i], start(), batch)
        np.testing.assert_allclose(found.images[i], expected.images, atol=1e-4)
    assert len(set(info["loss"].tolist())) == 4


def test_a_diverging_run_stops_with_the_step():
    method = methods.distribution_matching(LINEAR, optax.sgd(jnp.inf), strategy=())
    chunks = methods.run(
        KEY, start(method=method), POOL, method=method, sampler=SAMPLER, steps=4, chunk_length=4
    )
    with pytest.raises(ValueError, match="loss is not finite at step 1"):
        list(chunks)


def test_a_chunk_has_steps():
    with pytest.raises(ValueError, match="chunk_length must be at least 1, found 0"):
        run(4, chunk_length=0)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(steps=-1), "steps must be at least 0, found -1"),
        (dict(steps=3, first=4), "first must not be beyond the 3 steps, found 4"),
        (dict(steps=3, first=-1), "first must be at least 0, found -1"),
    ],
)
def test_a_run_has_steps(change, message):
    with pytest.raises(ValueError, match=message):
        run(state=(), **change)


@pytest.mark.parametrize(
    "make",
    [
        methods.feature_matching,
        methods.distribution_matching,
        functools.partial(methods.gradient_matching, outer=1, inner=1),
        functools.partial(methods.trajectory_matching, inner=1),
    ],
)
def test_what_no_method_can_be_made_of_is_refused(make):
    with pytest.raises(TypeError, match="sequence of names, found the string 'flip'"):
        make(NETWORK, OPTIMIZER, strategy="flip")
    with pytest.raises(ValueError, match="found 'flop'; did you mean 'flip'"):
        make(NETWORK, OPTIMIZER, strategy=["flop"])


def test_bad_initial_images():
    with pytest.raises(ValueError, match="images must be finite"):
        METHOD.init(np.full((3, 1, 8, 8, 3), np.nan))
    with pytest.raises(TypeError, match="images must be floating, .* found uint8"):
        METHOD.init(np.zeros((3, 1, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\[k, ipc, h, w, c\], found shape \(3, 8, 8, 3\)"):
        METHOD.init(jnp.zeros((3, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"found shape \(3, 0, 8, 8, 3\)"):
        METHOD.init(jnp.zeros((3, 0, 8, 8, 3)))
    with pytest.raises(ValueError, match="agree in k and d"):
        matching.distribution(jnp.zeros((2, 4, 5)), jnp.zeros((3, 4, 5)))


# ------------------------------------------------------------------ any loss, network, augmentation


def means_and_variances(real, synthetic, weights):
    target = (weights[..., None] * real).sum(1)
    spread = (weights[..., None] * real**2).sum(1) - target**2
    return jnp.sum((target - synthetic.mean(1)) ** 2 + (spread - synthetic.var(1)) ** 2)


def test_a_loss_of_ones_own_is_descended():
    """Mean and weighted variance of sin(x W), class by class, by hand; SGD with rate 0.5."""
    method = methods.feature_matching(LINEAR, optax.sgd(0.5), loss=means_and_variances, strategy=())
    state, batch = start(method=method), SAMPLER(jax.random.key(1), POOL)
    params = linear_init(jax.random.split(KEY)[0], state.images[0])

    @jax.jit
    @jax.value_and_grad
    def loss(images):
        total = 0.0
        for c in range(3):
            weights = batch.weights[c]
            real, synthetic = (linear_apply(params, x[c])[0] for x in (batch.images, images))
            mean = weights @ real
            variance = weights @ (real - mean) ** 2
            total += jnp.sum((mean - synthetic.mean(0)) ** 2)
            total += jnp.sum((variance - synthetic.var(0)) ** 2)
        return total

    value, gradient = loss(state.images)
    after, info = jax.jit(method.step)(KEY, state, batch)
    assert float(info["loss"]) == pytest.approx(float(value), rel=1e-4)
    np.testing.assert_allclose(after.images, state.images - 0.5 * gradient, atol=1e-5)


def test_distribution_matching_is_matching_along_the_distribution_to_the_bit():
    batch = SAMPLER(KEY, POOL)
    one, other = (
        make(LINEAR, OPTIMIZER, strategy=("crop",), **options)
        for make, options in (
            (methods.distribution_matching, {}),
            (methods.feature_matching, {"loss": matching.distribution}),
        )
    )
    equal(jax.jit(one.step)(KEY, start(), batch), jax.jit(other.step)(KEY, start(), batch))


def test_smaller_micro_batches_give_the_same_step():
    """Eight images of 3 × 6 × 6 × 1 float32 at once, or one."""
    batch, given = SAMPLER(KEY, POOL), dict(strategy=("crop",))
    one, other = (
        jax.jit(methods.distribution_matching(LINEAR, OPTIMIZER, activation_bytes=cache, **given).step)
        for cache in (None, 1)
    )
    assert "while" in other.lower(KEY, start(), batch).as_text()
    chex.assert_trees_all_close(
        one(KEY, start(), batch), other(KEY, start(), batch), rtol=1e-5, atol=1e-6
    )


def test_an_augmentation_of_ones_own_gives_the_bits_of_the_names_it_stands_for():
    def own(key, image):
        return augment.apply(augment.draw(key, image.shape, strategy=("crop", "cutout")), image)

    batch = SAMPLER(KEY, POOL)
    for make in (
        lambda strategy: methods.feature_matching(LINEAR, OPTIMIZER, strategy=strategy),
        lambda strategy: methods.gradient_matching(
            LINEAR, OPTIMIZER, outer=2, inner=1, strategy=strategy
        ),
    ):
        one, other = make(own), make(("crop", "cutout"))
        state = start(method=one)
        equal(jax.jit(one.step)(KEY, state, batch), jax.jit(other.step)(KEY, state, batch))


# ------------------------------------------------------------------ the loop


LOOP = dict(method=CHEAP, sampler=SAMPLER, length=3)


def test_steps_are_the_bits_of_a_chunk_and_keep_their_state():
    state = start(method=CHEAP)
    found = jax.jit(functools.partial(methods.steps, **LOOP))(KEY, state, POOL, 5)
    assert not state.images.is_deleted()
    equal(found, methods.chunk(KEY, state, POOL, jnp.asarray(5), **LOOP))


def test_seeds_are_a_vmap_of_steps():
    state, keys = start(method=CHEAP), jax.random.split(KEY, 2)
    run = functools.partial(methods.steps, **LOOP)
    images = jax.jit(jax.vmap(lambda key: run(key, state, POOL, 0)[0].images))(keys)
    for key, found in zip(keys, images, strict=True):
        np.testing.assert_allclose(found, run(key, state, POOL, 0)[0].images, atol=1e-5)
    assert (images[0] != images[1]).any()


def test_a_run_leaves_what_it_was_given():
    images = INITIAL(KEY, POOL, ipc=2)
    state = CHEAP.init(images)
    before = np.array(images)
    for _ in methods.run(KEY, state, POOL, method=CHEAP, sampler=SAMPLER, steps=4, chunk_length=2):
        pass
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(state.images, before)


def test_chunks_of_one_length_are_traced_once():
    traces = []

    def step(key, state, batch):
        traces.append(0)
        return CHEAP.step(key, state, batch)

    method = methods.Method(CHEAP.init, step)
    chunks = methods.run(
        KEY, start(method=CHEAP), POOL, method=method, sampler=SAMPLER, steps=7, chunk_length=2
    )
    assert [step for step, *_ in chunks] == [2, 4, 6, 7]
    assert len(traces) == 2  # chunks of two and, at the end, one of one


@pytest.mark.parametrize(
    "step, message",
    [
        (lambda key, state, batch: state, r"pair \(state, info\), found \(\(3, 2, 8"),
        (lambda key, state, batch: (state, {"cost": 0.0}), r'"loss" among them, found \{.cost'),
        (lambda key, state, batch: (state, {"loss": jnp.ones(2)}), r"dict of scalars.*\(2,\)"),
        (lambda key, state, batch: (state, 0.0), "dict of scalars"),
        (lambda key, state, batch: ((state, state), {"loss": 0.0}), "structure, shapes and dtypes"),
        (lambda key, state, batch: (state[:1], {"loss": 0.0}), r"found \(\(1, .* for \(\(3, "),
        (lambda key, state, batch: (state.astype(int), {"loss": 0.0}), "found .*int32.*float32"),
    ],
)
def test_a_step_that_keeps_no_protocol_is_refused(step, message):
    method, images = methods.Method(lambda images: images, step), start().images
    with pytest.raises(TypeError, match=message):
        methods.steps(KEY, images, POOL, 0, method=method, sampler=SAMPLER, length=1)


# ------------------------------------------------------------------ gradient matching


DSA = methods.gradient_matching(NETWORK, OPTIMIZER, outer=2, inner=1, strategy=("crop", "scale"))
DSA_STEP = jax.jit(DSA.step)


def fresh_network(key, images):
    return INIT(jax.random.split(key, 3)[0], images[0, :1])


def test_a_gradient_matching_step_is_the_written_out_formula():
    """By hand: one class after the other, one draw for both sides, then SGD on the images."""
    state, batch = start(method=DSA), SAMPLER(jax.random.key(1), POOL)
    params = fresh_network(KEY, state.images)
    keys = jax.random.split(jax.random.split(KEY, 3)[1], 3)

    def gradient(images, label, weights):
        def loss(params):
            logits = NETWORK.apply(params, images).logits
            return -weights @ jax.nn.log_softmax(logits)[:, label]

        return jax.grad(loss)(params)

    def one(key, label, real, weights, images):
        real, images = augment.siamese(key, real, images, strategy=("crop", "scale"))
        expected, found = gradient(real, label, weights), gradient(images, label, jnp.full(2, 0.5))
        return matching.cosine_rows(expected, found)

    slopes = jax.jit(jax.vmap(jax.value_and_grad(one, 4)))
    weights = batch.weights / batch.weights.sum(1, keepdims=True)
    expected, slope = slopes(keys, jnp.arange(3), batch.images, weights, state.images)
    found, info = DSA_STEP(KEY, state, batch)
    np.testing.assert_allclose(info["loss"], expected.sum(), rtol=1e-4)
    moved, scale = (state.images - found.images) / 0.5, jnp.abs(slope).max()
    np.testing.assert_allclose(moved / scale, slope / scale, atol=2e-3)


def test_the_network_is_fresh_every_outer_steps_and_trained_in_between():
    """With outer = 2: steps 0 and 2 draw one and train it, 1 and 3 use and keep it."""
    states, state = [], start(method=DSA)
    for i in range(4):
        state, _ = DSA_STEP(jax.random.key(i), state, SAMPLER(jax.random.key(i), POOL))
        states.append(state)
    kernel = [np.array(s.params["params"]["classifier"]["kernel"]) for s in states]
    for i in (0, 2):
        fresh = fresh_network(jax.random.key(i), state.images)["params"]["classifier"]["kernel"]
        assert 0 < np.abs(kernel[i] - fresh).max() < 0.1
    assert (kernel[1] == kernel[0]).all() and (kernel[2] != kernel[1]).any()
    assert state.count == 4


def test_weights_of_gradient_matching():
    """All weight on one sample is a batch of it alone; on the synthetic images, no distance."""
    batch, state = SAMPLER(jax.random.key(1), POOL), start(method=DSA)
    one = jnp.zeros((3, 8)).at[:, 5].set(1.0)
    alone = sampling.Batch(batch.images[:, [5] * 8], jnp.full_like(batch.weights, 1 / 8))
    found, expected = (DSA_STEP(KEY, state, b)[0] for b in (batch._replace(weights=one), alone))
    np.testing.assert_allclose(found.images, expected.images, atol=1e-4)
    same = batch.images.at[:, :2].set(state.images)
    found, info = DSA_STEP(KEY, state, sampling.Batch(same, jnp.zeros((3, 8)).at[:, :2].set(1.0)))
    assert abs(float(info["loss"])) < 1e-3
    np.testing.assert_allclose(found.images, state.images, atol=1e-3)
    none, _ = DSA_STEP(KEY, state, batch._replace(weights=0 * one))
    assert jnp.isfinite(none.images).all()


@pytest.mark.parametrize("classes, ipc, shape", [(1, 1, (8, 8, 1)), (12, 3, (6, 10, 4))])
def test_gradient_matching_on_other_shapes(classes, ipc, shape):
    pool = make_pool((5,) * classes, shape=shape)
    network = networks.ConvNet(classes, width=4, depth=1)
    method = methods.gradient_matching(network, OPTIMIZER, outer=2, inner=1, strategy=())
    chunks = methods.run(
        KEY,
        start(pool, method, ipc=ipc),
        pool,
        method=method,
        sampler=SAMPLER,
        steps=3,
        chunk_length=3,
    )
    ((_, state, info),) = chunks
    assert state.images.shape == (classes, ipc, *shape) and jnp.isfinite(state.images).all()
    assert info["loss"].shape == (3,)


def test_gradient_matching_resumes_to_the_same_bits():
    method = methods.gradient_matching(LINEAR, OPTIMIZER, outer=2, inner=1)

    def images(state, first=0):
        chunks = methods.run(
            KEY, state, POOL, method=method, sampler=SAMPLER, steps=6, first=first, chunk_length=1
        )
        return {step: jax.tree.map(np.array, state) for step, state, _ in chunks}

    whole = images(start(method=method))
    again = images(jax.tree.map(jnp.asarray, whole[3]), first=3)
    equal(again[6], whole[6])


def test_ten_and_a_hundred_classes_make_programs_of_one_size():
    def operations(classes):
        network = networks.ConvNet(classes, width=4, depth=1)
        pool = make_pool((2,) * classes)
        method = methods.gradient_matching(network, OPTIMIZER, outer=2, inner=1)
        shapes = jax.eval_shape(lambda: (KEY, start(pool, method), SAMPLER(KEY, pool)))
        lowered = jax.jit(method.step).lower(*shapes)
        return lowered.as_text().count("\n")

    assert operations(100) == pytest.approx(operations(10), rel=0.05)


def test_gradient_matching_refuses():
    with pytest.raises(ValueError, match="at least 1, found 0 and 1"):
        methods.gradient_matching(NETWORK, OPTIMIZER, outer=0, inner=1)
    with pytest.raises(ValueError, match="2 logits.*got 3"):
        DSA.init(jnp.zeros((2, 1, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"\[k, ipc, h, w, c\], found shape \(2, 8, 8, 3\)"):
        DSA.init(jnp.zeros((2, 8, 8, 3)))


# ------------------------------------------------------------------ groups, formation


GROUPS = 2
GROUP_POOL = sampling.pool(  # class 1 has no sample of group 1
    POOL.images,
    jnp.asarray(np.repeat([0, 1, 2, 4, 5], [15, 5, 9, 20, 10])),
    num_classes=6,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    empty=True,
)
GROUP_SAMPLER = sampling.grouped(functools.partial(sampling.uniform_batch, size=6), groups=GROUPS)


def test_the_loss_over_groups_pulls_to_their_barycentre():
    """Σ_g ‖μ_g − s‖² has the gradient 2 G (s − mean of μ_g) for the G groups of a class."""
    batch = GROUP_SAMPLER(KEY, GROUP_POOL)
    assert batch.images.shape == (3, 12, 8, 8, 3)
    options = dict(network=LINEAR, optimizer=optax.sgd(1.0), strategy=())
    fair = methods.distribution_matching(**options, groups=GROUPS)
    plain = methods.distribution_matching(**options)
    first = start(method=plain).images
    by_groups = jax.jit(fair.step)(KEY, start(method=fair), batch)[0].images - first
    barycentre = jax.jit(plain.step)(KEY, start(method=plain), batch)[0].images - first
    present = np.array([2, 1, 2])[:, None, None, None, None]
    scale = jnp.abs(by_groups).max()
    np.testing.assert_allclose(by_groups / scale, present * barycentre / scale, atol=1e-4)


def test_gradient_matching_by_groups():
    """Groups that are the same count as often as they are there, and an empty one not at all."""
    batch = SAMPLER(jax.random.key(1), POOL)
    options = dict(outer=2, inner=1, strategy=("crop",))
    fair, plain = (
        methods.gradient_matching(LINEAR, OPTIMIZER, groups=g, **options) for g in (2, 1)
    )
    twice = sampling.Batch(*(jnp.concatenate([x, x], 1) for x in batch))
    once = twice._replace(weights=twice.weights.at[:, 8:].set(0))
    loss = lambda step, batch: float(step(KEY, start(method=plain), batch)[1]["loss"])
    expected, step = loss(jax.jit(plain.step), batch), jax.jit(fair.step)
    assert loss(step, twice) == pytest.approx(2 * expected, rel=1e-4)
    assert loss(step, once) == pytest.approx(expected, rel=1e-4)


def test_formation_is_seen_by_the_network_alone():
    """With factor 1 nothing changes; with 2 the network sees what `split` makes."""
    split = functools.partial(formation.split, factor=2)
    method = methods.distribution_matching(LINEAR, OPTIMIZER, strategy=(), decode=split)
    batch, state = SAMPLER(KEY, POOL), start()
    found, info = jax.jit(method.step)(KEY, state, batch)
    assert found.images.shape == state.images.shape
    large = state._replace(images=split(state.images))
    same = jax.jit(CHEAP.step)
    expected = float(same(KEY, METHOD.init(large.images), batch)[1]["loss"])
    assert float(info["loss"]) == pytest.approx(expected, rel=1e-4)
    assert (found.images != state.images).any()


# ------------------------------------------------------------------ trajectory matching


def segment(spread=0.02):
    """Two sets of parameters of NETWORK, some distance apart."""
    first = INIT(KEY, jnp.zeros((1, 8, 8, 3)))
    leaves, tree = jax.tree.flatten(first)
    keys = jax.random.split(KEY, len(leaves))
    last = [x + spread * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return experts.Segment(first, jax.tree.unflatten(tree, last))


def mtt(inner=3, **options):
    return methods.trajectory_matching(NETWORK, optax.sgd(1.0), inner=inner, strategy=(), **options)


def test_a_trajectory_matching_step_is_the_written_out_formula():
    """Two full-batch steps of SGD by hand; the rate descends in its logarithm."""
    state, way = start(method=mtt(2)), segment()
    labels = jnp.arange(3).repeat(2)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(images, log_rate):
        def cross_entropy(params):
            logits = NETWORK.apply(params, images.reshape(6, 8, 8, 3)).logits
            return -jax.nn.log_softmax(logits)[jnp.arange(6), labels].mean()

        params = way.start
        for _ in range(2):
            slope = jax.grad(cross_entropy)(params)
            params = jax.tree.map(lambda p, g: p - jnp.exp(log_rate) * g, params, slope)
        far = lambda x, y: sum(
            ((a - b) ** 2).sum()
            for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
        )
        return far(params, way.target) / far(way.start, way.target)

    value, (slope, rate_slope) = loss(state.images, jnp.log(0.01))
    found, info = jax.jit(mtt(2).step)(KEY, state, way)
    assert float(info["loss"]) == pytest.approx(float(value), rel=1e-4)
    scale = float(jnp.abs(slope).max())
    np.testing.assert_allclose((state.images - found.images) / scale, slope / scale, atol=1e-4)
    assert float(found.log_rate) == pytest.approx(np.log(0.01) - 0.1 * float(rate_slope), rel=1e-5)


def test_both_gradients_of_trajectory_matching_agree_and_one_needs_little_memory():
    """Recomputing holds one inner step: from 5 to 50 of them, the parameters alone are added."""
    way, state = segment(), start(method=mtt(), ipc=8)

    def program(inner, recompute):
        method = mtt(inner, recompute=recompute, batch_size=24)
        return jax.jit(method.step).lower(KEY, state, way).compile()

    five, kept = program(5, True), program(5, False)
    scale = float(jnp.abs(kept(KEY, state, way)[0].images - state.images).max())
    moved = [(p(KEY, state, way)[0].images - state.images) / scale for p in (five, kept)]
    np.testing.assert_allclose(*moved, atol=1e-4)
    temporary = lambda p: p.memory_analysis().temp_size_in_bytes
    parameters = sum(x.nbytes for x in jax.tree.leaves(way.start))
    assert temporary(program(50, True)) < 1.3 * temporary(five) + 2 * 45 * parameters
    assert temporary(kept) > 2 * temporary(five)


def test_the_student_sees_all_images_in_turn():
    """Four images in batches of two: after two inner steps all have moved, after one only two."""
    pool = make_pool((9, 9), shape=(8, 8, 3))
    network = networks.Functions(linear_init, lambda *x: tuple(y[:, :2] for y in linear_apply(*x)))
    for inner, touched in ((1, 2), (2, 4)):
        method = methods.trajectory_matching(
            network, optax.sgd(1.0), inner=inner, strategy=(), batch_size=2
        )
        state, params = start(pool, method), linear_init(KEY, jnp.zeros((1, 8, 8, 3)))
        way = experts.Segment(params, params + 0.1)
        found, _ = jax.jit(method.step)(KEY, state, way)
        assert (found.images != state.images).any((2, 3, 4)).sum() == touched


def test_trajectory_matching_resumes_to_the_same_bits_and_follows():
    """The loss falls on the one segment there is, in the loop that serves all methods."""
    method = mtt(2)
    sampler = lambda key, way: way

    def images(state, first=0):
        chunks = methods.run(
            KEY,
            state,
            segment(),
            method=method,
            sampler=sampler,
            steps=6,
            first=first,
            chunk_length=2,
        )
        return {step: (jax.tree.map(np.array, state), info["loss"]) for step, state, info in chunks}

    whole = images(start(method=method))
    again = images(jax.tree.map(jnp.asarray, whole[4][0]), first=4)
    equal(again[6][0], whole[6][0])
    assert whole[6][1][-1] < whole[2][1][0]


def test_trajectory_matching_refuses():
    with pytest.raises(ValueError, match="inner must be at least 1, found 0"):
        mtt(0)
    with pytest.raises(ValueError, match="rate must be positive and finite, found 0.0"):
        methods.trajectory_matching(NETWORK, OPTIMIZER, inner=1, rate=0.0)
    with pytest.raises(ValueError, match="2 logits.*got 3"):
        mtt().init(jnp.zeros((2, 1, 8, 8, 3)))
