"""Four simulated devices against one: the same numbers, and no more traffic than they need."""

import functools
import multiprocessing
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from scipy import stats

from jaxdd import evaluate, methods, networks, sampling, training, weights
from jaxdd.devices import parallel, split_pool
from jaxdd.weights import blind_features, contrastive

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
    arguments = (KEY, state, place(pool), jnp.asarray(0))
    lowered = methods.chunk.lower(*arguments, method=method, sampler=sampler, length=3)
    return lowered.compile(), arguments


@pytest.mark.parametrize("name, ipc", [("dm", 3), ("dsa", 3)])
def test_distilling_is_the_same(mesh, pool, name, ipc):
    """ipc 3 in 3 classes makes nine synthetic images, which four devices share unevenly."""
    sampler = functools.partial(sampling.uniform_batch, size=16)
    (one, on_one), (many, on_many) = (chunk(name, sampler, pool, ipc, m) for m in (None, mesh))
    (expected, losses), (found, found_losses) = one(*on_one), many(*on_many)
    np.testing.assert_allclose(found_losses["loss"], losses["loss"], rtol=1e-4)
    np.testing.assert_allclose(found.images, expected.images, atol=1e-4)
    assert found.images.is_fully_replicated and len(found.images.sharding.device_set) == 4


def test_no_real_image_travels(mesh, pool, collectives):
    """The 3 × 64 real images have 36,864 values, the 3 × 4 synthetic ones 2,304."""
    sampler = functools.partial(sampling.weighted_batch, size=64)
    found = list(collectives(chunk("dm", sampler, pool, 4, mesh)[0]))
    assert "all-reduce" in {kind for kind, _ in found}
    assert max(size for _, size in found) <= 2304, found


def test_contrastive_training_and_embedding_are_the_same(mesh, pool):
    """Seven of each class in two views: 42 images, which four devices share unevenly."""
    encoder = contrastive.Encoder(networks.ConvNet(K, width=4, depth=1, norm=None), 8, 8)

    def train(mesh):
        given = dict(strategy=("crop",), mesh=mesh)
        trainer = contrastive.trainer(encoder, optax.adam(1e-3), **given)
        run = functools.partial(contrastive.train, trainer=trainer, steps=4, batch_size=21)
        return jax.jit(run)(KEY, pool=pool)

    (expected, losses), (found, found_losses) = train(None), train(mesh)
    np.testing.assert_allclose(found_losses["loss"], losses["loss"], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), found, expected)

    def embed(images, params):
        return contrastive.embed(encoder, params, pool._replace(images=images), batch_size=4)

    images = pool.images[:30]
    rows = jax.jit(parallel.map_rows(embed, mesh))(images, expected.params)
    whole = jax.jit(embed)(images, expected.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), rows, whole)


def test_evaluation_is_the_same(mesh, pool):
    """Seeds over devices, by shard_map, by pmap and by threads; five leave devices without work."""
    images = sampling.take(pool, pool.order[: 6 * K])
    labels = jnp.repeat(jnp.arange(K), 6)
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
    pmapped = parallel.pmap_rows(score, devices=jax.devices()[:4])
    np.testing.assert_array_equal(pmapped(keys, images).accuracy, expected)
    traces = []
    counted = lambda *arguments: traces.append(0) or score(*arguments)
    threaded = parallel.thread_rows(counted, threads=2)
    for _ in range(2):
        np.testing.assert_array_equal(threaded(keys, images).accuracy, expected)
    assert len(traces) == 1


def test_sums_over_rows(mesh):
    """Ten rows on four devices: 3, 3, 3 and 1, and rows of zeros, which add nothing."""
    rows = jnp.arange(20.0).reshape(10, 2)
    product = lambda rows, factor: {"sum": factor * rows.sum(0), "squares": (rows**2).sum()}
    found = jax.jit(parallel.sum_rows(product, mesh))(rows, jnp.float32(3))
    np.testing.assert_allclose(found["sum"], 3 * np.arange(20.0).reshape(10, 2).sum(0))
    np.testing.assert_allclose(found["squares"], (np.arange(20.0) ** 2).sum())
    assert found["sum"].is_fully_replicated


def test_rows_are_the_array(mesh):
    array = jnp.arange(20).reshape(10, 2)
    found = parallel.split_rows(array, mesh)
    np.testing.assert_array_equal(
        found[jnp.array([[9, 0], [3, 3]])], array[jnp.array([[9, 0], [3, 3]])]
    )
    np.testing.assert_array_equal(parallel.apply_by_rows(jnp.square, found), np.square(array))
    assert parallel.split_rows(array, None) is array


def on_every_device(function, mesh, *per_device):
    """A function of a device's arguments and the pool, by `shard_map` with JAX's defaults."""
    whole, part = PartitionSpec(), PartitionSpec(parallel.AXIS)

    def one(*arguments):
        *mine, pool = arguments
        found = function(*jax.tree.map(lambda x: x[0], mine), pool)
        return jax.tree.map(lambda x: x[None], found)

    specs = (*[part] * len(per_device), whole)
    return jax.jit(jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=part))


def dm_steps(key, images, pool):
    method = METHODS["dm"](NETWORK)
    sampler = functools.partial(sampling.weighted_batch, size=40)  # several micro-batches
    state = method.init(images)
    return methods.steps(key, state, pool, 0, method=method, sampler=sampler, length=2)


def trained(key, images, pool):
    labels = jnp.arange(K).repeat(images.shape[1])
    images = images.reshape(-1, SIZE, SIZE, 3)
    return training.train(key, NETWORK, images, labels, epochs=2, batch_size=40, strategy=())


@pytest.mark.parametrize(
    "function",
    [
        lambda key, images, pool: sampling.uniform_batch(key, pool, 5),
        lambda key, images, pool: sampling.weighted_batch(key, pool, 5),
        dm_steps,
        trained,
    ],
    ids=["uniform", "weighted", "distilled", "trained"],
)
def test_what_runs_on_one_device_runs_on_each_of_a_shard_map(mesh, pool, function):
    """Four seeds and sets of 3 × 12 images; parameters that start at one on all train, too."""
    keys = jax.random.split(KEY, 4)
    images = jax.jit(jax.vmap(lambda key: INITIAL(key, pool, ipc=12)))(keys)
    found = on_every_device(function, mesh, keys, images)(keys, images, pool)
    one = jax.jit(function)
    for i in range(4):
        mine = jax.tree.map(lambda x, i=i: x[i], found)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
        jax.tree.map(close, mine, one(keys[i], images[i], pool))


def test_a_shared_set_descends_the_sum_over_the_devices(mesh, pool):
    """Inside of `shard_map` the gradient of what all devices share is the sum of theirs."""
    method = methods.distribution_matching(NETWORK, optax.sgd(1.0), strategy=())
    keys, images = jax.random.split(KEY, 4), INITIAL(KEY, pool, ipc=2)

    def moved(key, pool):
        batch = sampling.weighted_batch(key, pool, 5)
        return method.step(KEY, method.init(images), batch)[0].images - images

    found = on_every_device(moved, mesh, keys)(keys, pool)
    expected = sum(jax.jit(moved)(key, pool) for key in keys)
    for each in found:
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-4)


def test_placing(mesh):
    rows, whole = parallel.split(jnp.arange(8), mesh), parallel.replicate(jnp.arange(3), mesh)
    assert rows.sharding.spec == PartitionSpec(parallel.AXIS)
    assert whole.is_fully_replicated and whole.shape == (3,)
    with pytest.raises(ValueError, match=r"4 devices cannot share the rows of shape \(3,\)"):
        parallel.split(jnp.arange(3), mesh)
    with pytest.raises(ValueError, match=r"shape \(\)"):
        parallel.split(jnp.zeros(()), mesh)


@pytest.fixture(scope="module")
def shared(mesh, pool):
    """The pool with two samples less, so that four devices hold 15 rows each, two of them black."""
    return split_pool.pool(**fewer(pool), mesh=mesh)


def fewer(pool):
    kept = {name: np.asarray(getattr(pool, name))[:58] for name in ("images", "labels", "weights")}
    return kept | dict(num_classes=K, mean=pool.mean, std=pool.std)


def test_a_split_pool_holds_every_image_once(mesh, pool, shared):
    held = [np.asarray(each.data) for each in shared.images.array.addressable_shards]
    assert [len(rows) for rows in held] == [15] * 4
    np.testing.assert_array_equal(np.concatenate(held)[:58], pool.images[:58])
    assert not np.concatenate(held)[58:].any()
    placed = parallel.replicate(shared, mesh)
    assert placed.images is shared.images and placed.weights.is_fully_replicated
    assert shared.images.shape == (58, SIZE, SIZE, 3) and len(shared.images) == 58
    whole = sampling.pool(**fewer(pool))._replace(images=shared.images)
    for one, other in zip(jax.tree.leaves(shared), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("batch", [sampling.uniform_batch, sampling.weighted_batch])
def test_a_split_pool_gives_the_same_batches(mesh, pool, shared, collectives, batch):
    """What travels is a batch of bytes: 3 × 8 images of 8 × 8 × 3, of 58."""
    sampler = functools.partial(batch, size=8)
    drawn = jax.jit(parallel.split_sampler(sampler, mesh))
    placed = parallel.replicate(shared, mesh)
    for i in range(5):
        key = jax.random.fold_in(KEY, i)
        expected = jax.jit(sampler)(key, sampling.pool(**fewer(pool)))
        found = drawn(key, placed)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-6)
    compiled = drawn.lower(KEY, placed).compile()
    assert {kind for kind, _ in collectives(compiled)} == {"all-reduce"}
    assert max(size for _, size in collectives(compiled)) == 3 * 8 * SIZE * SIZE * 3
    assert not re.findall(r"u8\[(58|60),8,8,3\]", compiled.as_text())


def test_a_split_pool_is_drawn_by_its_weights(mesh, pool, shared):
    """Pearson's chi-square over 400 batches; strata vary less than it allows."""
    sampler = functools.partial(sampling.weighted_batch, size=8)
    index = jnp.arange(60, dtype=jnp.float32)[:, None, None, None] / 60
    marked = split_pool.pool(
        index[:58],
        shared.labels,
        num_classes=K,
        mean=(0.0,),
        std=(1.0,),
        mesh=mesh,
        weights=shared.weights,
    )
    drawn = jax.jit(jax.vmap(sampler, in_axes=(0, None)))
    found = drawn(jax.random.split(KEY, 400), parallel.replicate(marked, mesh)).images
    counts = np.bincount(np.rint(60 * np.asarray(found).ravel()).astype(int), minlength=60)
    expected = 400 * 8 * np.asarray(shared.weights)
    assert counts[58:].sum() == 0
    assert stats.chi2.sf(((counts[:58] - expected) ** 2 / expected).sum(), 58 - K) > 0.01


def test_distilling_from_a_split_pool_is_the_same(mesh, pool, shared):
    sampler = functools.partial(sampling.uniform_batch, size=16)
    one, on_one = chunk("dm", sampler, sampling.pool(**fewer(pool)), 3)
    many, on_many = chunk("dm", sampler, shared, 3, mesh)
    np.testing.assert_allclose(many(*on_many)[0].images, one(*on_one)[0].images, atol=1e-4)


def test_weights_of_a_split_pool_are_the_same(mesh, pool, shared):
    """By density, by a view, and what a judge says of weights; with the search nothing is left."""
    whole = sampling.pool(**fewer(pool))
    encoder = weights.default_encoder(whole, width=4, depth=1)
    by_density = functools.partial(weights.by_density, KEY, strategy=(), encoder=encoder, steps=2)
    one, other = by_density(whole), by_density(shared)
    np.testing.assert_allclose(other.log_density, one.log_density, atol=1e-5)
    np.testing.assert_allclose(other.embeddings, one.embeddings, atol=1e-5)
    one, other = (weights.by_features(KEY, each, blind_features.tone) for each in (whole, shared))
    np.testing.assert_allclose(other.weights, one.weights, atol=1e-4)
    groups = jnp.where(jnp.arange(58) % 4 == 0, (shared.labels + 1) % K, shared.labels)
    judge = functools.partial(
        weights.check_with_probe_networks,
        KEY,
        strategy=(),
        network=NETWORK,
        sets=2,
        ipc=2,
        epochs=2,
    )
    one, other = (judge(each, groups)(whole.weights) for each in (whole, shared))
    assert one == other
    assert len(by_density(shared).weights.sharding.device_set) == 1


def test_a_process_reads_the_rows_of_its_devices_alone(mesh, tmp_path):
    """What is asked of a memory map, of which four devices hold three rows each."""
    asked = []

    class Map(np.memmap):
        def __getitem__(self, where):
            asked.append(where)
            return super().__getitem__(where)

    images = Map(tmp_path / "rows", np.uint8, "w+", shape=(11, 4, 4, 1))
    found = split_pool.pool(
        images, np.arange(11) % 2, num_classes=2, mean=(0.5,), std=(0.5,), mesh=mesh
    )
    assert asked == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 11)]
    assert found.images.shape == (11, 4, 4, 1) and found.images.array.shape == (12, 4, 4, 1)


def test_bad_pools_are_refused_before_they_are_split(mesh):
    given = dict(num_classes=2, mean=(0.5,), std=(0.5,), mesh=mesh)
    with pytest.raises(ValueError, match="class 1 has none"):
        split_pool.pool(np.zeros((8, 4, 4, 1), np.uint8), np.zeros(8, int), **given)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\].*0.0..2.0"):
        split_pool.pool(2 * np.eye(8)[:, :, None, None], np.arange(8) % 2, **given)
    with pytest.raises(TypeError, match="uint8 or floating, found int32"):
        split_pool.pool(np.zeros((8, 4, 4, 1), int), np.arange(8) % 2, **given)


@pytest.mark.parametrize("n", [parallel._FEW, parallel._FEW + 1])
def test_threads_take_a_block_each(n):
    blocks = []

    def doubled(rows, factor):
        blocks.append(len(rows))
        return {"rows": factor * rows, "place": rows + 1}

    rows = jnp.arange(n)
    found = parallel.apply_by_rows(doubled, rows, 2)
    np.testing.assert_array_equal(found["rows"], 2 * np.arange(n))
    np.testing.assert_array_equal(found["place"], 1 + np.arange(n))
    cores = multiprocessing.cpu_count()
    assert blocks == [-(-n // cores)] * cores
    np.testing.assert_array_equal(parallel.apply_by_rows(jnp.square, rows[:5]), [0, 1, 4, 9, 16])


def test_what_is_not_split_stays_as_it_is(pool):
    assert parallel.mesh_of(pool.images) is None and parallel.mesh_of(np.zeros(3)) is None
    assert parallel.to_local(pool).images is pool.images
    np.testing.assert_array_equal(parallel.apply_by_rows(jnp.square, jnp.arange(4.0)), [0, 1, 4, 9])
