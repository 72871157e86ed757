"""Pools and samplers: frequencies, weights, KDE, k-means of scikit-learn, compile counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import cluster

from jaxdd import kde, sampling

KEY = jax.random.key(0)
# Jitted, because compiling one operation after the other takes most of the time.
with_replacement = jax.jit(sampling.with_replacement, static_argnames="size")
without_replacement = jax.jit(sampling.without_replacement, static_argnames=("size", "weighted"))
initial_real = jax.jit(sampling.initial_real, static_argnames=("ipc", "weighted"))


def make_pool(counts, weights=None, shape=(2, 2, 1)):
    """Return shuffled labels and a pool whose normalised image i is i everywhere."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    values = np.arange(len(labels), dtype=np.float32) / 2**16
    images = np.broadcast_to(values[:, None, None, None], (len(labels), *shape))
    options = dict(num_classes=len(counts), weights=weights)
    options |= dict(mean=(0.0,) * shape[-1], std=(2.0**-16,) * shape[-1])
    return labels, sampling.pool(images, labels, **options)


def test_normalise_scales_bytes_but_not_floats():
    """A byte of 255 and a float of 1 both become (1 − .5) / .25 = 2."""
    for image in (np.full((1, 1, 1), 255, np.uint8), np.ones((1, 1, 1), np.float32)):
        assert sampling.normalise(jnp.asarray(image), 0.5, 0.25).item() == pytest.approx(2)


def test_flatten_lists_the_images_class_by_class():
    images, labels = sampling.flatten(jnp.arange(6).reshape(3, 2, 1, 1, 1))
    assert images.ravel().tolist() == [0, 1, 2, 3, 4, 5] and images.shape == (6, 1, 1, 1)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_weights_are_normalised_and_summed_within_each_class():
    """Class 0 holds weights 1, 3 → .25, .75; class 1 holds 5 → 1."""
    pool = sampling.pool(
        np.zeros((3, 1, 1, 1)),
        np.array([0, 1, 0]),
        num_classes=2,
        mean=(0,),
        std=(1,),
        weights=np.array([1.0, 5.0, 3.0]),
    )
    np.testing.assert_allclose(pool.weights, [0.25, 1, 0.75])
    np.testing.assert_allclose(pool.cumulative, [0.25, 1, 1])
    assert pool.start.tolist() == [0, 2] and pool.count.tolist() == [2, 1]


@pytest.mark.parametrize("weighted", [False, True])
def test_without_replacement_draws_each_sample_once_from_its_class(weighted):
    labels, pool = make_pool([7, 5, 30])
    indices = np.asarray(without_replacement(jax.random.key(1), pool, 5, weighted=weighted))
    for label, row in enumerate(indices):
        assert (labels[row] == label).all() and len(set(row)) == 5


def test_a_class_smaller_than_the_draw_is_repeated():
    labels, pool = make_pool([2, 9])
    row = np.asarray(without_replacement(jax.random.key(0), pool, 7))[0]
    assert sorted(np.bincount(row)[np.flatnonzero(labels == 0)]) == [3, 4]


def test_uniform_batch_of_a_small_class_is_the_class():
    """Both samples, of weights 1 and 3, are drawn with weights .25 and .75; padding has zero."""
    pool = sampling.pool(
        np.arange(2.0)[:, None, None, None],
        np.zeros(2, int),
        num_classes=1,
        mean=(0,),
        std=(1,),
        weights=np.array([1.0, 3.0]),
    )
    batch = jax.jit(sampling.uniform_batch, static_argnums=2)(jax.random.key(0), pool, 5)
    values, weights = np.asarray(batch.images)[0, :, 0, 0, 0], np.asarray(batch.weights)[0]
    assert np.sum(values * weights) == pytest.approx(0.75)
    np.testing.assert_allclose(sorted(weights), [0, 0, 0, 0.25, 0.75])


@pytest.mark.parametrize("sampler", [sampling.uniform_batch, sampling.weighted_batch])
def test_both_batches_have_the_expectation_of_the_weighted_mean(sampler):
    """Self-normalised means over part of a class are biased by O(1/b); over all they are exact."""
    weights = np.array([1.0, 2, 3, 4, 5, 6])
    pool = sampling.pool(
        np.arange(6.0)[:, None, None, None] / 8,
        np.zeros(6, int),
        num_classes=1,
        mean=(0,),
        std=(1 / 8,),
        weights=weights,
    )

    def mean(key):
        batch = sampler(key, pool, 6)
        return jnp.sum(batch.images[0, :, 0, 0, 0] * batch.weights[0])

    average = jax.jit(jax.vmap(mean))(jax.random.split(jax.random.key(0), 2000)).mean()
    assert average == pytest.approx(np.arange(6) @ weights / weights.sum(), abs=0.02)


def test_with_replacement_frequencies_follow_the_weights_in_every_class():
    counts = [3, 11, 1]
    weights = np.random.default_rng(1).uniform(0.1, 1, sum(counts))
    labels, pool = make_pool(counts, weights)
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.vmap(lambda key: with_replacement(key, pool, 4))(keys)
    for label in range(3):
        share = np.bincount(np.asarray(drawn[:, label]).ravel(), minlength=len(labels)) / 8000
        np.testing.assert_allclose(share, np.asarray(pool.weights) * (labels == label), atol=0.02)


def test_stratified_draws_hit_a_sample_as_often_as_its_weight_allows():
    """A sample of weight w is drawn floor(b·w) − 1 to ceil(b·w) + 1 times from b strata."""
    _, pool = make_pool([4], np.array([0.5, 0.25, 0.15, 0.1]))
    for seed in range(20):
        row = np.asarray(with_replacement(jax.random.key(seed), pool, 100))[0]
        assert np.abs(np.bincount(row, minlength=4) - [50, 25, 15, 10]).max() <= 1


def test_samples_of_weight_zero_are_never_drawn():
    weights = np.array([0.0, 1, 0, 1, 0])
    _, pool = make_pool([5], weights)
    keys = jax.random.split(jax.random.key(0), 200)
    drawn = jax.vmap(lambda key: with_replacement(key, pool, 8))(keys)
    assert set(np.unique(drawn)) == {1, 3}
    few = without_replacement(jax.random.key(0), pool, 5, weighted=True)[0].tolist()
    assert set(few[:2]) == {1, 3} and few == [*few[:2], *few[:2], few[0]]


def test_weighted_draw_without_replacement_favours_heavy_samples():
    """The first drawn sample has probability w: .8 for one sample and .1 for the others."""
    _, pool = make_pool([3], np.array([8.0, 1, 1]))
    keys = jax.random.split(jax.random.key(0), 2000)
    first = jax.vmap(lambda key: without_replacement(key, pool, 1, weighted=True))(keys)
    assert (np.asarray(first) == 0).mean() == pytest.approx(0.8, abs=0.04)


def test_many_classes_keep_float32_accurate():
    """A global running sum over 500 classes would be off by 500 · 6e-8 of a class."""
    counts = np.full(500, 7)
    _, pool = make_pool(counts)
    np.testing.assert_allclose(pool.cumulative.reshape(500, 7)[:, -1], 1, rtol=3e-7)


def test_a_sampler_compiles_once_and_equals_the_plain_call():
    _, pool = make_pool([7, 5])
    traces = []

    @jax.jit
    def sample(key):
        traces.append(key)
        return sampling.weighted_batch(key, pool, 3)

    for seed in range(3):
        plain = sampling.weighted_batch(jax.random.key(seed), pool, 3)
        jax.tree.map(np.testing.assert_array_equal, plain, sample(jax.random.key(seed)))
    assert len(traces) == 1


IMAGES, LABELS = np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    "change, value",
    [
        (dict(images=IMAGES[0]), r"got \(2, 2, 1\)"),
        (dict(labels=LABELS[:3]), r"\(4,\).*got \(3,\)"),
        (dict(labels=np.array([0, 0, 0, 0])), "class 1"),
        (dict(labels=np.array([0, 0, 1, 2])), "0..2"),
        (dict(labels=np.array([0, 0, 1, -1])), "-1..1"),
        (dict(mean=(0, 0)), r"\(2,\)"),
        (dict(weights=np.ones(3)), r"\(4,\), got \(3,\)"),
        (dict(weights=np.array([1, -1, 1, 1.0])), "-1"),
        (dict(weights=np.array([1, np.nan, 1, 1.0])), "nan"),
        (dict(weights=np.array([0, 0, 1, 1.0])), "0"),
        (dict(std=(0,)), r"std.*\b0"),
        (dict(mean=(np.nan,)), "mean.*nan"),
        (dict(mean=(127.0,)), "mean.*127"),
        (dict(std=(60.0,)), "std.*60"),
        (dict(images=IMAGES + 128.0), "128.0..128.0"),
        (dict(images=IMAGES - 0.5), "-0.5..-0.5"),
        (dict(labels=LABELS[:, None]), r"got \(4, 1\)"),
        (dict(weights=np.full(4, 1e-40)), "0"),
        (dict(weights=np.full(4, 3e38)), r"e\+38"),
        (dict(num_classes=0), "got 0"),
        (dict(images=np.full((4, 2, 2, 1), np.nan)), "nan"),
        (dict(images=IMAGES[:0], labels=LABELS[:0]), r"got \(0, 2, 2, 1\)"),
    ],
)
def test_invalid_pools_raise(change, value):
    arguments = dict(images=IMAGES, labels=LABELS, num_classes=2, mean=(0,), std=(1,)) | change
    with pytest.raises(ValueError, match=value):
        sampling.pool(arguments.pop("images"), arguments.pop("labels"), **arguments)


def test_invalid_dtypes_raise():
    options = dict(num_classes=2, mean=(0,), std=(1,))
    with pytest.raises(TypeError, match="images.*int32"):
        sampling.pool(IMAGES.astype(np.int32), LABELS, **options)
    with pytest.raises(TypeError, match="labels.*float"):
        sampling.pool(IMAGES, LABELS / 1.0, **options)


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_reweighting_is_the_pool_with_these_weights_to_the_bit():
    weights = np.random.default_rng(1).uniform(0.1, 5, 12)
    _, plain = make_pool([7, 5])
    _, expected = make_pool([7, 5], weights)
    pool = sampling.reweight(plain, weights)
    equal(pool, expected)
    assert pool.images is plain.images and pool.order is plain.order


@pytest.mark.parametrize(
    "weights", [[1, 3, 5], (1.0, 3.0, 5.0), np.array([1, 3, 5], np.float64), jnp.array([1, 3, 5])]
)
def test_weights_may_be_any_array_or_sequence(weights):
    """With classes 0, 1, 0, weights 1, 3, 5 become 1/6, 1, 5/6."""
    options = dict(num_classes=2, mean=(0,), std=(1,))
    pool = sampling.pool(np.zeros((3, 1, 1, 1)), np.array([0, 1, 0]), **options)
    np.testing.assert_allclose(sampling.reweight(pool, weights).weights, [1 / 6, 1, 5 / 6])


def test_reweighting_under_vmap_equals_a_loop():
    """Traced weights cannot be checked."""
    _, pool = make_pool([7, 5])
    weights = np.random.default_rng(1).uniform(0.1, 5, (2, 12)).astype(np.float32)

    def sample(weights):
        return with_replacement(KEY, sampling.reweight(pool, weights), 4)

    equal(jax.jit(jax.vmap(sample))(weights), np.stack([sample(row) for row in weights]))


@pytest.mark.parametrize(
    "weights, value",
    [
        (np.ones(3), r"\(4,\), got \(3,\)"),
        (np.ones((4, 1)), r"got \(4, 1\)"),
        ([1, -1, 1, 1], "-1"),
        ([1, np.nan, 1, 1], "nan"),
        ([0, 0, 1, 1], "0"),
    ],
)
def test_invalid_weights_raise(weights, value):
    pool = sampling.pool(IMAGES, LABELS, num_classes=2, mean=(0,), std=(1,))
    with pytest.raises(ValueError, match=value):
        sampling.reweight(pool, weights)


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_one_raise(number):
    _, pool = make_pool([2, 2])
    for sampler in (sampling.weighted_batch, sampling.uniform_batch):
        with pytest.raises(ValueError, match=f"size.*got {number}"):
            sampler(KEY, pool, number)
    for start in (sampling.initial_real, sampling.initial_noise):
        with pytest.raises(ValueError, match=f"ipc.*got {number}"):
            start(KEY, pool, ipc=number)


def test_initial_images():
    """Real images are from the pool, weighted ones have weight, and noise is standard normal."""
    labels, pool = make_pool([20, 9, 30])
    weights = np.zeros(59)
    chosen = [np.flatnonzero(labels == label)[1] for label in range(3)]
    weights[chosen] = 1
    weighted = initial_real(KEY, sampling.reweight(pool, weights), ipc=1, weighted=True)
    equal(np.asarray(weighted)[:, 0], jax.jit(sampling.take)(pool, np.array(chosen)))
    real = np.asarray(initial_real(KEY, pool, ipc=2))[:, :, 0, 0, 0].astype(int)
    assert (labels[real] == np.arange(3)[:, None]).all() and (real[:, 0] != real[:, 1]).all()
    noise = sampling.initial_noise(KEY, pool, ipc=2000)
    assert noise.shape == (3, 2000, 2, 2, 1) and abs(float(noise.std()) - 1) < 0.02


# ------------------------------------------------------------------ samplers of samplers


PHOTOS = np.random.default_rng(0).integers(0, 256, (59, 8, 8, 3), dtype=np.uint8)
POOL = sampling.pool(
    PHOTOS,
    np.repeat([0, 1, 2], [20, 9, 30]),
    num_classes=3,
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    weights=np.random.default_rng(1).uniform(0.1, 1, 59),
)
SAMPLER = jax.jit(functools.partial(sampling.uniform_batch, size=8))


def embed(images):
    return images.mean((1, 2))


def test_density_weights_are_the_inverse_density_of_the_batch():
    sampler = jax.jit(sampling.density_weighted(SAMPLER, embed, bandwidth=0.1, temperature=0.7))
    density = jax.jit(kde.log_density)
    plain, batch = SAMPLER(KEY, POOL), sampler(KEY, POOL)
    equal(plain.images, batch.images)
    for c in range(3):
        points = embed(plain.images[c])
        log_density = density(points, points, 0.1, weights=plain.weights[c])
        expected = plain.weights[c] * jnp.exp(-log_density / 0.7)
        np.testing.assert_allclose(batch.weights[c], expected / expected.sum(), rtol=1e-4)


def test_density_weights_work_inside_a_compiled_loop():
    sampler = sampling.density_weighted(SAMPLER, embed, bandwidth=0.1)
    batches = jax.jit(lambda keys: jax.lax.map(lambda key: sampler(key, POOL).weights, keys))
    assert np.isfinite(batches(jax.random.split(KEY, 3))).all()


@pytest.mark.parametrize(
    "options, value",
    [
        (dict(bandwidth=0.0), "bandwidth.* 0.0"),
        (dict(bandwidth=[1.0, np.nan, 1.0]), "bandwidth.*nan"),
        (dict(bandwidth=1.0, temperature=np.nan), "temperature.*nan"),
        (dict(bandwidth=1.0, temperature=np.ones(3)), r"temperature.*\(3,\)"),
        (dict(bandwidth=np.ones(2)), r"bandwidth.*\[3\].*got \(2,\)"),
    ],
    ids=str,
)
def test_invalid_densities_raise(options, value):
    with pytest.raises(ValueError, match=value):
        sampling.density_weighted(SAMPLER, embed, **options)(KEY, POOL)


def test_representatives_are_the_nearest_to_the_centres_of_kmeans():
    """Lloyd's algorithm of scikit-learn, from the same start and with the same weights."""
    candidates = jax.tree.map(np.asarray, SAMPLER(KEY, POOL))
    batch = jax.jit(sampling.representative(SAMPLER, embed, size=3, iterations=20))(KEY, POOL)
    batch = jax.tree.map(np.asarray, batch)
    for c in range(3):
        points, weights = np.asarray(embed(candidates.images[c])), np.asarray(candidates.weights[c])
        centres = (
            cluster.KMeans(3, init=points[:3], n_init=1, max_iter=20, tol=0)
            .fit(points, sample_weight=weights)
            .cluster_centers_
        )
        distances = ((points[:, None] - centres) ** 2).sum(2)
        distances[weights == 0] = np.inf
        chosen = distances.argmin(0)
        equal(batch.images[c], candidates.images[c][chosen])
        expected = weights[chosen] / weights[chosen].sum()
        np.testing.assert_allclose(batch.weights[c], expected, rtol=1e-6)


def test_padding_is_never_representative():
    """The batch has nine samples and seven copies of weight zero."""
    sampler = sampling.representative(
        functools.partial(sampling.uniform_batch, size=16), embed, size=9
    )
    weights = jax.jit(sampler)(KEY, POOL).weights
    assert (weights[1] > 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


def test_too_few_candidates_raise():
    with pytest.raises(ValueError, match="9 .*got 8"):
        sampling.representative(SAMPLER, embed, size=9)(KEY, POOL)


def test_groups_of_a_class_are_adjacent_and_empty_ones_have_weight_zero():
    """Class 0 has groups of 2 and 3 samples; class 1 has one of 4 and an empty one."""
    groups = np.repeat([0, 1, 2], [2, 3, 4])
    images = np.broadcast_to(groups[:, None, None, None], (9, 2, 2, 1)).astype(np.uint8)
    pool = sampling.pool(images, groups, num_classes=4, mean=(0.0,), std=(1 / 255,), empty=True)
    sampler = sampling.grouped(functools.partial(sampling.uniform_batch, size=3), groups=2)
    batch = jax.jit(sampler)(KEY, pool)
    assert batch.images.shape == (2, 6, 2, 2, 1)
    third = 1 / 3
    expected = [[0.5, 0.5, 0, third, third, third], [third, third, third, 0, 0, 0]]
    np.testing.assert_allclose(batch.weights, expected, rtol=1e-6)
    shown = np.rint(np.asarray(batch.images[:, :, 0, 0, 0]))
    assert shown[0].tolist() == [0, 0, 0, 1, 1, 1] and shown[1, :3].tolist() == [2, 2, 2]


# --- several weightings --------------------------------------------------------------------------

WEIGHTINGS = np.random.default_rng(3).gamma(0.3, size=(3, 42))
mixture_batch = jax.jit(sampling.mixture_batch, static_argnames="size")


def test_a_mixture_draws_by_the_root_of_the_summed_squares():
    """Weights (3, 4) / 7 and (1, 0): q ∝ (√(9/49 + 1), 4/7); the second class has one sample."""
    pool = sampling.pool(
        np.zeros((3, 1, 1, 1)), np.array([0, 0, 1]), num_classes=2, mean=(0,), std=(1,)
    )
    pool, by_weighting = sampling.mixture(pool, [np.array([3, 4, 2]), np.array([1, 0, 5])])
    q = np.array([(9 / 49 + 1) ** 0.5, 4 / 7])
    np.testing.assert_allclose(pool.weights, [*q / q.sum(), 1], rtol=1e-6)
    np.testing.assert_allclose(by_weighting, [[3 / 7, 1], [4 / 7, 0], [1, 1]], rtol=1e-6)
    assert pool.order.tolist() == [1, 0, 2]  # strata of similar weight


def test_equal_weightings_are_weighted_batches():
    """If all rows are equal, q are their weights: all relative weights are one."""
    _, pool = make_pool([12, 30])
    batch = mixture_batch(KEY, sampling.mixture(pool, [WEIGHTINGS[0]] * 2), size=8)
    np.testing.assert_allclose(batch.weights, np.full((2, 8, 2), 1 / 8), rtol=1e-5)


def test_a_mixture_is_unbiased_for_each_weighting_within_its_variance():
    """The mean over 4,000 batches is that of the weights within five standard errors.

    The variance is at most that of independent draws, and the effective sample size at least
    size / z, where z is at most the number of weightings.
    """
    labels, pool = make_pool([12, 30])
    values = np.random.default_rng(4).normal(3, 1, 42)  # a function of the samples
    mixture, size, n = sampling.mixture(pool, WEIGHTINGS), 8, 4000

    @jax.jit
    def sums(key):
        batch = sampling.mixture_batch(key, mixture, size)
        return jnp.einsum("kbr,kb->rk", batch.weights, jnp.asarray(values)[_ids(batch)])

    sampled = np.asarray(jax.lax.map(sums, jax.random.split(KEY, n)))
    q, w = np.asarray(mixture.pool.weights, float), np.asarray(mixture.weights, float)
    for k in range(2):
        members = labels == k
        z = np.linalg.norm(w[members], axis=1).sum()
        assert 3**0.5 <= z + 1e-6 and z <= 3
        assert (w[members] / q[members, None]).max() <= z + 1e-4
        for r in range(3):
            w_r, q_k, psi = w[members, r], q[members], values[members]
            assert 1 / (w_r**2 / q_k).sum() >= 1 / z - 1e-6  # effective share of the batch
            mean = w_r @ psi
            variance = ((w_r**2 * psi**2 / q_k).sum() - mean**2) / size
            assert abs(sampled[:, r, k].mean() - mean) < 5 * (variance / n) ** 0.5
            assert sampled[:, r, k].var() < 1.1 * variance


def _ids(batch):
    """Return the samples of a batch from `make_pool`, whose pixels are their numbers."""
    return jnp.rint(batch.images[..., 0, 0, 0]).astype(int)


def test_weightings_of_other_lengths_are_rejected():
    _, pool = make_pool([12, 30])
    with pytest.raises(ValueError, match="41"):
        sampling.mixture(pool, [np.ones(42), np.ones(41)])
