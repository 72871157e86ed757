"""Four simulated devices give the results of one, without unnecessary transfers."""

import functools
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxdd import evaluate, methods, networks, sampling, training
from jaxdd.devices import parallel
from jaxdd.weights import contrastive

K, SIZE, STRATEGY = 3, 8, ("color", "crop")
NETWORK = networks.ConvNet(K, width=4, depth=1)
KEY = jax.random.key(0)
INITIAL = jax.jit(sampling.initial_real, static_argnames="ipc")


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % K
    images = rng.integers(0, 128, (60, SIZE, SIZE, 3)) + 40 * labels[:, None, None, None]
    weights = rng.uniform(0.1, 2, 60)
    return sampling.pool(
        images.astype(np.uint8),
        labels,
        num_classes=K,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        weights=weights,
    )


METHODS = {
    "dm": lambda network: methods.distribution_matching(
        network, optax.sgd(1.0, 0.5), strategy=STRATEGY
    ),
    "dsa": lambda network: methods.gradient_matching(
        network, optax.sgd(0.1, 0.5), outer=2, inner=2, strategy=STRATEGY
    ),
}


def chunk(name, sampler, pool, ipc, mesh=None):
    """A compiled chunk of three steps, the state it starts from, and its arguments."""
    if mesh is None:
        method, place = METHODS[name](NETWORK), lambda tree: tree
    else:
        sampler, place = (
            parallel.split_sampler(sampler, mesh),
            functools.partial(parallel.replicate, mesh=mesh),
        )
        method = parallel.replicate_state(
            METHODS[name](parallel.split_network(NETWORK, mesh)), mesh
        )
    state = place(jax.jit(method.init)(INITIAL(KEY, pool, ipc=ipc)))
    arguments = (KEY, state, place(pool), jnp.asarray(0), jnp.asarray(3))
    lowered = methods.chunk.lower(*arguments, method=method, sampler=sampler, length=3)
    return lowered.compile(), arguments


@pytest.mark.parametrize("name, split", [("dm", False), ("dsa", True)])
def test_distilling_is_the_same(mesh, pool, collectives, name, split):
    """Four devices share nine synthetic images unevenly; the pool is split or replicated.

    If it is replicated, no real image is sent between devices: the 3 × 16 real images have 9,216
    values, the nine synthetic ones, padded to twelve, 2,304.
    """
    sampler = functools.partial(sampling.weighted_batch, size=16)
    one, arguments = chunk(name, sampler, pool, 3)
    expected, expected_info = one(*arguments)
    if split:
        rows = parallel.split_rows(pool.images, mesh)
        pool = pool._replace(images=rows)
    many, arguments = chunk(name, sampler, pool, 3, mesh)
    if not split:
        transfers = list(collectives(many))
        assert "all-reduce" in {kind for kind, _ in transfers}
        assert max(size for _, size in transfers) <= 2304, transfers
    state, info = many(*arguments)
    np.testing.assert_allclose(info["loss"], expected_info["loss"], rtol=1e-4)
    np.testing.assert_allclose(state.images, expected.images, atol=1e-4)
    assert state.images.is_fully_replicated and len(state.images.sharding.device_set) == 4


def test_contrastive_training_and_embedding_are_the_same(mesh, pool):
    """Four devices share 42 images unevenly: two views of seven images per class."""
    encoder = contrastive.Encoder(networks.ConvNet(K, width=4, depth=1, norm=None), 8, 8)

    def train(mesh):
        trainer = contrastive.trainer(encoder, optax.adam(1e-3), strategy=("crop",), mesh=mesh)

        def run(pool):
            step = lambda state, i: contrastive.update(KEY, trainer, pool, state, i, batch_size=21)
            return jax.lax.scan(step, contrastive.init(KEY, trainer, pool), jnp.arange(4))

        return jax.jit(run)(pool)

    (expected, expected_info), (state, info) = train(None), train(mesh)
    np.testing.assert_allclose(info["loss"], expected_info["loss"], rtol=1e-5)
    chex.assert_trees_all_close(state, expected, atol=1e-4)

    def embed(images, params):
        return contrastive.embed(encoder, params, pool._replace(images=images), batch_size=4)

    images = pool.images[:30]
    embedded = jax.jit(parallel.map_rows(embed, mesh))(images, expected.params)
    chex.assert_trees_all_close(embedded, jax.jit(embed)(images, expected.params), atol=1e-5)


def test_evaluation_is_the_same(mesh, pool):
    """Seeds are split over four devices or over threads; five seeds are padded."""
    images = np.asarray(jax.jit(sampling.take)(pool, pool.order[: 6 * K]))
    labels = np.repeat(np.arange(K), 6)
    task = evaluate.Task(pool.images, pool.labels, None, None, pool.mean, pool.std, K)

    def score(keys, images):
        return evaluate.evaluate(
            keys, NETWORK, images, task, labels=labels, epochs=3, strategy=("crop",)
        )

    keys = jax.random.split(KEY, 5)
    expected = jax.jit(score)(keys, images).accuracy
    assert expected.shape == (5,) and len(set(expected.tolist())) > 1
    split = jax.jit(parallel.map_rows(score, mesh))
    np.testing.assert_array_equal(split(keys, images).accuracy, expected)
    traces = []
    counted = lambda *arguments: traces.append(0) or score(*arguments)
    threaded = parallel.thread_rows(counted)
    for _ in range(2):
        np.testing.assert_array_equal(threaded(keys, images).accuracy, expected)
    assert len(traces) == 1


def test_sums_over_rows(mesh):
    """Four devices get 3, 3, 3 and 1 of ten rows, and two rows of zeros, which add nothing."""
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    product = lambda rows, factor: {"sum": factor * rows.sum(0), "squares": (rows**2).sum()}
    sums = jax.jit(parallel.sum_rows(product, mesh))(rows, jnp.float32(3))
    np.testing.assert_allclose(sums["sum"], 3 * np.arange(20.0).reshape(10, 2).sum(0))
    np.testing.assert_allclose(sums["squares"], (np.arange(20.0) ** 2).sum())
    assert sums["sum"].is_fully_replicated


def test_sums_over_rows_pad_with_zeros_in_the_last_array_only(mesh):
    """The norm of a row of 2 is 2; a row of zeros would give a gradient of NaN."""
    length = lambda scale, x: jnp.sqrt(jnp.square(scale * x).sum(-1))

    def back(rows, scale):
        return jax.grad(lambda scale: (length(scale, rows[0]) * rows[1]).sum())(scale)

    inputs, weights = np.full((5, 1), 2.0, np.float32), np.arange(5, dtype=np.float32)
    slope = jax.jit(parallel.sum_rows(back, mesh))((inputs, weights), jnp.float32(1))
    assert slope == 2 * (0 + 1 + 2 + 3 + 4)


def test_split_rows_are_looked_up_by_index(mesh):
    array, indices = np.arange(20).reshape(10, 2), np.array([[9, 0], [3, 3]])
    rows = parallel.split_rows(array, mesh)
    take = jax.jit(lambda rows, indices: rows[indices])
    np.testing.assert_array_equal(take(rows, indices), array[indices])
    np.testing.assert_array_equal(parallel.apply_by_rows(jnp.square, rows), np.square(array))
    assert parallel.split_rows(array, None) is array


def on_every_device(function, mesh, *per_device):
    """Run a function on each device by `shard_map` with JAX's defaults; all share the pool."""
    whole, part = PartitionSpec(), PartitionSpec(parallel.AXIS)

    def on_device(*arguments):
        *own, pool = arguments
        result = function(*jax.tree.map(lambda x: x[0], own), pool)
        return jax.tree.map(lambda x: x[None], result)

    specs = (*[part] * len(per_device), whole)
    return jax.jit(jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=part))


def dm_steps(key, images, pool):
    method = METHODS["dm"](NETWORK)
    sampler = functools.partial(sampling.weighted_batch, size=40)  # several micro-batches
    state = method.init(images)
    return methods.steps(key, state, pool, 0, method=method, sampler=sampler, length=2)


def train_network(key, images, pool):
    labels = jnp.arange(K).repeat(images.shape[1])
    images = images.reshape(-1, SIZE, SIZE, 3)
    return training.train(key, NETWORK, images, labels, epochs=2, batch_size=40, strategy=())


@pytest.mark.parametrize(
    "function",
    [
        lambda key, images, pool: sampling.uniform_batch(key, pool, 5),
        lambda key, images, pool: sampling.weighted_batch(key, pool, 5),
        dm_steps,
        train_network,
    ],
    ids=["uniform", "weighted", "distill", "train"],
)
def test_programs_of_one_device_run_inside_of_shard_map(mesh, pool, function):
    """Four seeds, and sets of 3 × 12 images; constant initial parameters are trained as well."""
    keys = jax.random.split(KEY, 4)
    images = jax.jit(jax.vmap(lambda key: INITIAL(key, pool, ipc=12)))(keys)
    results = on_every_device(function, mesh, keys, images)(keys, images, pool)
    alone = jax.jit(function)
    for i in range(4):
        result = jax.tree.map(lambda x, i=i: x[i], results)
        expected = alone(keys[i], images[i], pool)
        chex.assert_trees_all_close(result, expected, rtol=1e-5, atol=1e-5)


def test_a_shared_set_descends_the_sum_over_the_devices(mesh, pool):
    """Inside of `shard_map` the gradient in shared images is the sum over the devices."""
    method = methods.distribution_matching(NETWORK, optax.sgd(1.0), strategy=())
    keys, images = jax.random.split(KEY, 4), INITIAL(KEY, pool, ipc=2)

    def step(key, pool):
        batch = sampling.weighted_batch(key, pool, 5)
        return method.step(KEY, method.init(images), batch)[0].images - images

    steps = on_every_device(step, mesh, keys)(keys, pool)
    expected = sum(jax.jit(step)(key, pool) for key in keys)
    for result in steps:
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_placing(mesh):
    rows, whole = parallel.split_rows(jnp.arange(8), mesh), parallel.replicate(jnp.arange(3), mesh)
    assert rows.array.sharding.spec == PartitionSpec(parallel.AXIS)
    assert whole.is_fully_replicated and whole.shape == (3,)


@pytest.mark.parametrize("n", [parallel._FEW_ROWS, parallel._FEW_ROWS + 1])
def test_many_rows_are_cut_into_one_block_per_core(n):
    sizes = []

    def double(rows, factor):
        jax.debug.callback(lambda rows: sizes.append(len(rows)), rows)
        return {"rows": factor * rows, "plus one": rows + 1}

    rows = jnp.arange(n)
    results = parallel.apply_by_rows(double, rows, 2)
    jax.effects_barrier()
    np.testing.assert_array_equal(results["rows"], 2 * np.arange(n))
    np.testing.assert_array_equal(results["plus one"], 1 + np.arange(n))
    cores = multiprocessing.cpu_count()
    assert sizes == [-(-n // cores)] * cores


def test_threads_compute_with_the_configuration_of_the_caller():
    """In float64, (1 + 1e-12) − 1 is not 0."""
    tiny = lambda x: (x + 1e-12) - 1
    with jax.enable_x64(True):
        rows = jnp.ones(parallel._FEW_ROWS, jnp.float64)
        for results in (parallel.apply_by_rows(tiny, rows), parallel.thread_rows(tiny)(rows[:3])):
            assert results.dtype == jnp.float64 and jnp.all(results > 0)
    assert parallel.apply_by_rows(tiny, jnp.ones(parallel._FEW_ROWS)).dtype == jnp.float32


def test_rows_by_threads_compile_once_per_function():
    traces = []

    def add(rows, *, number):
        traces.append(0)
        return rows + number

    rows = jnp.arange(parallel._FEW_ROWS)
    for number in (1, 1, 2):
        results = parallel.apply_by_rows(functools.partial(add, number=number), rows)
        np.testing.assert_array_equal(results, np.arange(len(rows)) + number)
    assert len(traces) == 2


def test_thread_rows_inside_of_jit_and_grad_and_without_rows():
    square = parallel.thread_rows(lambda rows, factor: factor * rows**2)
    rows = jnp.arange(3.0)
    np.testing.assert_array_equal(square(rows, 2.0), [0, 2, 8])
    np.testing.assert_array_equal(jax.jit(square)(rows, 2.0), [0, 2, 8])
    slope = jax.grad(lambda rows: square(rows, 2.0).sum())(rows)
    np.testing.assert_array_equal(slope, [0, 4, 8])
    assert square(rows[:0], 2.0).shape == (0,)


def test_functions_called_at_once_share_the_cores_and_the_configuration(monkeypatch):
    """Three functions of three rows never compute more than two rows at once on two cores."""
    monkeypatch.setattr(parallel.multiprocessing, "cpu_count", lambda: 2)
    monkeypatch.setattr(parallel, "_threads", functools.cache(lambda: ThreadPoolExecutor(2)))
    lock, running, most = threading.Lock(), [], []

    def add(row):
        with lock:
            running.append(0)
            most.append(len(running))
        time.sleep(0.01)
        with lock:
            running.pop()
        return row + 1e-12

    compile_add = lambda *arguments: add
    with jax.enable_x64(True):
        rows = list(jnp.arange(9, dtype=jnp.float64).reshape(9, 1))
        parts = [
            functools.partial(parallel._in_threads, compile_add, rows[i::3], ()) for i in range(3)
        ]
        results = parallel.call_all(parts)
    np.testing.assert_array_equal(results, np.arange(9.0).reshape(3, 3).T + 1e-12)
    assert results[0].dtype == jnp.float64 and max(most) == 2


def test_no_further_function_or_row_is_computed_after_an_error(monkeypatch):
    """The first function has 20 rows and waits for the second, which fails."""
    monkeypatch.setattr(parallel.multiprocessing, "cpu_count", lambda: 2)
    monkeypatch.setattr(parallel, "_threads", functools.cache(lambda: ThreadPoolExecutor(1)))
    calls, started, failed = [], threading.Event(), threading.Event()

    def compute(row):
        calls.append("row")
        started.set()
        failed.wait(60)
        time.sleep(0.5)  # until the others are stopped
        return row

    def fail():
        started.wait(60)
        calls.append("failed")
        failed.set()
        raise ValueError("17")

    rows = functools.partial(parallel._in_threads, lambda *_: compute, [jnp.ones(1)] * 20, ())
    with pytest.raises(ValueError, match="17"):
        parallel.call_all([rows, fail, *[lambda: calls.append("later")] * 1000])
    assert calls.count("row") < 20 and calls.count("later") < 1000
    calls.clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match="17"):
        parallel.call_all([fail] * 2)
    assert calls == ["failed"]


def test_functions_called_at_once_compile_a_shared_program_once(monkeypatch):
    compiled, compile_lowered = [], jax.stages.Lowered.compile
    record = lambda lowered: compiled.append(0) or compile_lowered(lowered)
    monkeypatch.setattr(jax.stages.Lowered, "compile", record)
    cube = parallel.thread_rows(lambda rows: rows**3)
    results = parallel.call_all([functools.partial(cube, jnp.arange(7.0))] * 4)
    np.testing.assert_array_equal(results, [np.arange(7.0) ** 3] * 4)
    assert len(compiled) == 1


def test_batch_norm_of_a_split_network_uses_the_whole_batch(mesh):
    """Statistics are over 16 images, four on each device."""
    network = networks.ConvNet(K, width=4, depth=1, norm=networks.BatchNorm)
    images = np.float32(np.random.default_rng(0).normal(size=(16, SIZE, SIZE, 3)))
    params = jax.jit(network.init)(KEY, images)
    train = lambda network: jax.jit(functools.partial(networks.apply_in_training, network))
    expected, split = (
        train(x)(params, images) for x in (network, parallel.split_network(network, mesh))
    )
    chex.assert_trees_all_close(split, expected, rtol=1e-4, atol=1e-5)
    method = METHODS["dsa"](parallel.split_network(network, mesh))
    state = jax.eval_shape(method.init, np.zeros((K, 2, SIZE, SIZE, 3), np.float32))
    batch = np.zeros((K, 4, SIZE, SIZE, 3), np.float32), np.ones((K, 4), np.float32)
    batch = sampling.Batch(*batch)
    jax.eval_shape(method.step, KEY, state, batch)


def test_arrays_that_are_not_split_stay_as_they_are(pool):
    assert parallel.mesh_of(pool.images) is None and parallel.mesh_of(np.zeros(3)) is None
    assert parallel.to_local(pool).images is pool.images
    np.testing.assert_array_equal(parallel.apply_by_rows(jnp.square, jnp.arange(4.0)), [0, 1, 4, 9])
