"""The loop: resuming, randomness, donation, compile counts and its checks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from toy import IMAGES, KEY, LINEAR, OPTIMIZER, POOL, SAMPLER, equal

from jaxdd import methods, sampling

METHOD = methods.distribution_matching(LINEAR, OPTIMIZER, strategy=())
run = functools.partial(toy.run, METHOD, chunk_length=4)
ARGUMENTS = dict(method=METHOD, sampler=SAMPLER)


def start():
    return METHOD.init(jnp.copy(IMAGES))  # a chunk donates its state


def test_resuming_is_bit_identical():
    toy.assert_resumes_bit_for_bit(METHOD, start())


def test_the_result_depends_on_the_key_alone():
    first = run(start(), 4)
    equal(run(start(), 4), first)
    other = run(start(), 4, key=jax.random.key(1))
    assert (first[4][0].images != other[4][0].images).any()


@pytest.mark.parametrize("length", [1, 2, 5, 6, 7])
def test_the_chunk_length_changes_no_bit(length):
    """XLA would inline a loop of a single step, which the last chunk may also be."""
    expected = run(start(), 6)
    chunks = run(start(), 6, chunk_length=length)
    equal(chunks[6][0], expected[6][0])
    infos = [np.concatenate([info["loss"] for _, info in x.values()]) for x in (chunks, expected)]
    np.testing.assert_array_equal(*infos)


def test_a_chunk_transfers_nothing_between_host_and_device():
    chunk = functools.partial(methods.chunk, **ARGUMENTS, length=4)
    chunk(KEY, start(), POOL, jnp.asarray(0), jnp.asarray(4))
    state, first, count = start(), jnp.asarray(4), jnp.asarray(4)
    with jax.transfer_guard("disallow"):
        state, info = chunk(KEY, state, POOL, first, count)
    assert info["loss"].shape == (4,) and jnp.isfinite(info["loss"]).all()


def test_a_chunk_donates_its_state_and_steps_do_not():
    steps = jax.jit(functools.partial(methods.steps, **ARGUMENTS, length=4))
    reused, donated = start(), start()
    plain = steps(KEY, reused, POOL, 4)
    equal(plain, methods.chunk(KEY, donated, POOL, 4, 4, **ARGUMENTS, length=4))
    assert donated.images.is_deleted() and not reused.images.is_deleted()


def test_a_run_keeps_its_arguments():
    state = start()
    run(state, 4)
    np.testing.assert_array_equal(state.images, IMAGES)


def test_vmap_over_seeds_gives_the_single_runs():
    steps = functools.partial(methods.steps, **ARGUMENTS, length=3)
    keys, state = jax.random.split(KEY, 2), start()
    images = jax.jit(jax.vmap(lambda key: steps(key, state, POOL, 0)[0].images))(keys)
    for key, seed in zip(keys, images, strict=True):
        single = jax.jit(steps)(key, state, POOL, 0)[0].images
        np.testing.assert_allclose(seed, single, atol=1e-5)
    assert (images[0] != images[1]).any()


def test_chunks_are_traced_once():
    traces = []

    def step(key, state, batch):
        traces.append(0)
        return METHOD.step(key, state, batch)

    counted = methods.Method(METHOD.init, step)
    assert [*toy.run(counted, start(), 7, chunk_length=2)] == [2, 4, 6, 7]
    assert len(traces) == 1  # for chunks of two and the last one of one


@pytest.mark.parametrize("batch", [sampling.uniform_batch, sampling.weighted_batch])
def test_classes_may_be_smaller_than_the_batch_and_the_images_per_class(batch):
    pool = toy.make_pool((1, 5, 40))
    images = toy.initial_real(KEY, pool, ipc=7)
    sampler = functools.partial(batch, size=16)
    state, _ = run(METHOD.init(images), 4, pool=pool, sampler=sampler)[4]
    assert state.images.shape == (3, 7, 8, 8, 3) and np.isfinite(state.images).all()


def test_a_loss_that_is_not_finite_raises_with_the_step():
    method = methods.distribution_matching(LINEAR, optax.sgd(jnp.inf), strategy=())
    with pytest.raises(ValueError, match="step 1"):
        toy.run(method, method.init(IMAGES), 4, chunk_length=4)


@pytest.mark.parametrize(
    "change, value",
    [
        (dict(chunk_length=0), "got 0"),
        (dict(steps=-1), "got -1"),
        (dict(steps=3, first=4), "3, got 4"),
        (dict(steps=3, first=-1), "got -1"),
    ],
)
def test_invalid_counts_raise(change, value):
    with pytest.raises(ValueError, match=value):
        run(**(dict(state=(), steps=4) | change))


@pytest.mark.parametrize(
    "step, value",
    [
        (lambda key, state, batch: state, r"got \(\(3, 2, 8"),
        (lambda key, state, batch: (state, {"cost": 0.0}), "got {.cost"),
        (lambda key, state, batch: (state, {"loss": jnp.ones(2)}), r"\(2,\)"),
        (lambda key, state, batch: (state, 0.0), "dict"),
        (lambda key, state, batch: ((state, state), {"loss": 0.0}), "structure"),
        (lambda key, state, batch: (state[:1], {"loss": 0.0}), r"\(\(3, .* got \(\(1, "),
        (lambda key, state, batch: (state.astype(int), {"loss": 0.0}), "got .*int32"),
    ],
)
def test_a_step_that_breaks_the_protocol_raises(step, value):
    method = methods.Method(lambda images: images, step)
    with pytest.raises(TypeError, match=value):
        methods.steps(KEY, IMAGES, POOL, 0, method=method, sampler=SAMPLER, length=1)


def test_batches_that_were_computed_ahead_replace_the_sampler():
    sample = jax.vmap(
        lambda i: methods.batch(KEY, POOL, i, sampler=SAMPLER, prepare=lambda _, x: x)
    )
    ahead = methods.Batches(2, sample(jnp.arange(2, 8)))
    expected = run(start(), 6)[6]
    middle = jax.tree.map(jnp.asarray, run(start(), 4)[4][0])
    actual = run(middle, 6, first=4, pool=ahead, sampler=None)[6]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, expected
    )
