import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import sampling

KEY = jax.random.key(0)
# Compiled, since operation by operation most of the time would go into compiling.
with_replacement = jax.jit(sampling.with_replacement, static_argnames="size")
without_replacement = jax.jit(sampling.without_replacement, static_argnames=("size", "weighted"))


def make_pool(counts, weights=None, shape=(2, 2, 1)):
    """A pool whose image i is i everywhere once it is normalised, classes shuffled."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    values = np.arange(len(labels), dtype=np.float32) / 2**16
    images = np.broadcast_to(values[:, None, None, None], (len(labels), *shape))
    statistics = dict(mean=(0.0,) * shape[-1], std=(2.0**-16,) * shape[-1])
    classes = len(counts)
    return labels, sampling.pool(images, labels, num_classes=classes, weights=weights, **statistics)


def test_normalise_scales_bytes_but_not_floats():
    """255 is 1, and (1 − .5) / .25 = 2; a float of 1 is 1 already."""
    for image in (np.full((1, 1, 1), 255, np.uint8), np.ones((1, 1, 1), np.float32)):
        assert sampling.normalise(jnp.asarray(image), 0.5, 0.25).item() == pytest.approx(2)


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
def test_without_replacement_draws_each_sample_once_and_of_the_right_class(weighted):
    labels, pool = make_pool([7, 5, 30])
    indices = np.asarray(without_replacement(jax.random.key(1), pool, 5, weighted=weighted))
    for label, row in enumerate(indices):
        assert (labels[row] == label).all() and len(set(row)) == 5


def test_a_class_smaller_than_the_draw_is_repeated():
    labels, pool = make_pool([2, 9])
    row = np.asarray(without_replacement(jax.random.key(0), pool, 7))[0]
    assert sorted(np.bincount(row)[np.flatnonzero(labels == 0)]) == [3, 4]


def test_uniform_batch_of_a_small_class_is_the_class():
    """Two samples weighing 1 and 3: both are drawn, weights .25 and .75, zero for the rest."""
    pool = sampling.pool(
        np.arange(2.0)[:, None, None, None],
        np.zeros(2, int),
        num_classes=1,
        mean=(0,),
        std=(1,),
        weights=np.array([1.0, 3.0]),
    )
    batch = sampling.uniform_batch(jax.random.key(0), pool, 5)
    values, weights = batch.images[0, :, 0, 0, 0], batch.weights[0]
    assert jnp.sum(values * weights) == pytest.approx(0.75)
    np.testing.assert_allclose(sorted(weights), [0, 0, 0, 0.25, 0.75])


@pytest.mark.parametrize("draw", [sampling.uniform_batch, sampling.weighted_batch])
def test_both_batches_have_the_expectation_of_the_weighted_mean(draw):
    """Self-normalised means of 4 of 6 samples are biased by O(1/b); a whole class is exact."""
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
        batch = draw(key, pool, 6)
        return jnp.sum(batch.images[0, :, 0, 0, 0] * batch.weights[0])

    found = jax.jit(jax.vmap(mean))(jax.random.split(jax.random.key(0), 2000)).mean()
    assert found == pytest.approx(np.arange(6) @ weights / weights.sum(), abs=0.02)


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
    """Weight w in b strata: between floor(b·w) − 1 and ceil(b·w) + 1 draws, always."""
    _, pool = make_pool([4], np.array([0.5, 0.25, 0.15, 0.1]))
    for seed in range(20):
        row = np.asarray(with_replacement(jax.random.key(seed), pool, 100))[0]
        assert np.abs(np.bincount(row, minlength=4) - [50, 25, 15, 10]).max() <= 1


def test_weightless_samples_are_never_drawn():
    weights = np.array([0.0, 1, 0, 1, 0])
    _, pool = make_pool([5], weights)
    keys = jax.random.split(jax.random.key(0), 200)
    drawn = jax.vmap(lambda key: with_replacement(key, pool, 8))(keys)
    assert set(np.unique(drawn)) == {1, 3}
    few = without_replacement(jax.random.key(0), pool, 5, weighted=True)[0].tolist()
    assert set(few[:2]) == {1, 3} and few == [*few[:2], *few[:2], few[0]]


def test_weighted_draw_without_replacement_favours_heavy_samples():
    """The first of the draws has probability w: .8 against .1."""
    _, pool = make_pool([3], np.array([8.0, 1, 1]))
    keys = jax.random.split(jax.random.key(0), 2000)
    first = jax.vmap(lambda key: without_replacement(key, pool, 1, weighted=True))(keys)
    assert (np.asarray(first) == 0).mean() == pytest.approx(0.8, abs=0.04)


def test_many_classes_keep_float32_accurate():
    """A global running sum over 500 classes would be off by 500 · 6e-8 of a class."""
    counts = np.full(500, 7)
    _, pool = make_pool(counts)
    np.testing.assert_allclose(pool.cumulative.reshape(500, 7)[:, -1], 1, rtol=3e-7)


def test_drawing_compiles_once_and_equals_the_plain_call():
    _, pool = make_pool([7, 5])
    traces = []

    @jax.jit
    def draw(key):
        traces.append(key)
        return sampling.weighted_batch(key, pool, 3)

    for seed in range(3):
        plain = sampling.weighted_batch(jax.random.key(seed), pool, 3)
        jax.tree.map(np.testing.assert_array_equal, plain, draw(jax.random.key(seed)))
    assert len(traces) == 1


IMAGES, LABELS = np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(images=IMAGES[0]), r"images must be \[n, h, w, c\].*\(2, 2, 1\)"),
        (dict(labels=LABELS[:3]), r"found shapes \(4, 2, 2, 1\) and \(3,\)"),
        (dict(labels=np.array([0, 0, 0, 0])), "class 1 has none"),
        (dict(labels=np.array([0, 0, 1, 2])), r"labels must lie in 0\.\.1, found 0\.\.2"),
        (dict(labels=np.array([0, 0, 1, -1])), r"labels must lie in 0\.\.1, found -1\.\.1"),
        (dict(mean=(0, 0)), "one entry for each of the 1 channels"),
        (dict(weights=np.ones(3)), r"weights must be \[n\] like labels \(4,\), found \(3,\)"),
        (dict(weights=np.array([1, -1, 1, 1.0])), "non-negative"),
        (dict(weights=np.array([1, np.nan, 1, 1.0])), "finite"),
        (dict(weights=np.array([0, 0, 1, 1.0])), "positive sum in each class"),
        (dict(std=(0,)), "std must be positive"),
        (dict(mean=(np.nan,)), "mean must be finite"),
        (dict(mean=(127.0,)), r"mean must be .* scale \[0, 1\], found \[127"),
        (dict(std=(60.0,)), r"std must be .* scale \[0, 1\], found \[60"),
        (dict(images=IMAGES + 128.0), r"lie in \[0, 1\] .* found 128.0..128.0"),
        (dict(images=IMAGES - 0.5), r"lie in \[0, 1\] .* found -0.5..-0.5"),
        (dict(labels=LABELS[:, None]), r"found shapes \(4, 2, 2, 1\) and \(4, 1\)"),
        (dict(weights=np.full(4, 1e-40)), "positive sum in each class, .* down to 0"),
        (dict(weights=np.full(4, 3e38)), "finite"),
        (dict(num_classes=0), "at least 1, found 0"),
        (dict(images=np.full((4, 2, 2, 1), np.nan)), "images must be finite"),
        (dict(images=IMAGES[:0], labels=LABELS[:0]), "with n ≥ 1"),
    ],
)
def test_bad_input(change, message):
    arguments = dict(images=IMAGES, labels=LABELS, num_classes=2, mean=(0,), std=(1,)) | change
    images, labels = arguments.pop("images"), arguments.pop("labels")
    with pytest.raises(ValueError, match=message):
        sampling.pool(images, labels, **arguments)


def test_dtypes_are_checked():
    options = dict(num_classes=2, mean=(0,), std=(1,))
    with pytest.raises(TypeError, match="images must be uint8 or floating, found int32"):
        sampling.pool(IMAGES.astype(np.int32), LABELS, **options)
    with pytest.raises(TypeError, match="labels must be integers, found float"):
        sampling.pool(IMAGES, LABELS / 1.0, **options)


# ------------------------------------------------------------------ weights of one's own


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_reweighting_is_the_pool_with_these_weights_to_the_bit():
    weights = np.random.default_rng(1).uniform(0.1, 5, 12)
    _, plain = make_pool([7, 5])
    _, weighed = make_pool([7, 5], weights)
    found = sampling.reweight(plain, weights)
    equal(found, weighed)
    assert found.images is plain.images and found.order is plain.order


@pytest.mark.parametrize(
    "weights", [[1, 3, 5], (1.0, 3.0, 5.0), np.array([1, 3, 5], np.float64), jnp.array([1, 3, 5])]
)
def test_any_array_is_weights(weights):
    """Classes 0, 1, 0: weights 1 and 5 of six, and 3 alone."""
    statistics = dict(num_classes=2, mean=(0,), std=(1,))
    pool = sampling.pool(np.zeros((3, 1, 1, 1)), np.array([0, 1, 0]), **statistics)
    np.testing.assert_allclose(sampling.reweight(pool, weights).weights, [1 / 6, 1, 5 / 6])


def test_weights_of_a_vmap():
    """Two weightings at once, for which values cannot be looked at, equal one after the other."""
    _, pool = make_pool([7, 5])
    weights = jnp.asarray(np.random.default_rng(1).uniform(0.1, 5, (2, 12)), jnp.float32)

    def drawn(weights):
        return sampling.with_replacement(KEY, sampling.reweight(pool, weights), 4)

    equal(jax.vmap(drawn)(weights), jnp.stack([drawn(each) for each in weights]))


@pytest.mark.parametrize(
    "weights, message",
    [
        (np.ones(3), r"weights must be \[n\] like labels \(4,\), found \(3,\)"),
        (np.ones((4, 1)), r"found \(4, 1\)"),
        ([1, -1, 1, 1], "non-negative .* found -1"),
        ([1, np.nan, 1, 1], "finite"),
        ([0, 0, 1, 1], "positive sum in each class, .* class sums down to 0"),
    ],
)
def test_unusable_weights_are_refused(weights, message):
    pool = sampling.pool(IMAGES, LABELS, num_classes=2, mean=(0,), std=(1,))
    with pytest.raises(ValueError, match=message):
        sampling.reweight(pool, weights)


@pytest.mark.parametrize("number", [0, -1])
def test_nothing_is_not_drawn(number):
    _, pool = make_pool([2, 2])
    for draw in (sampling.weighted_batch, sampling.uniform_batch):
        with pytest.raises(ValueError, match=f"size must be at least 1, found {number}"):
            draw(KEY, pool, number)
    for start in (sampling.initial_real, sampling.initial_noise):
        with pytest.raises(ValueError, match=f"ipc must be at least 1, found {number}"):
            start(KEY, pool, ipc=number)


def test_initial_images():
    """Real ones are in the pool, weighted ones have weight, noise is standard normal."""
    labels, pool = make_pool([20, 9, 30])
    one = np.zeros(59)
    chosen = [np.flatnonzero(labels == label)[1] for label in range(3)]
    one[chosen] = 1
    weighted = sampling.initial_real(KEY, sampling.reweight(pool, one), ipc=1, weighted=True)
    equal(weighted[:, 0], sampling.take(pool, jnp.array(chosen)))
    real = np.asarray(sampling.initial_real(KEY, pool, ipc=2))[:, :, 0, 0, 0].astype(int)
    assert (labels[real] == np.arange(3)[:, None]).all() and (real[:, 0] != real[:, 1]).all()
    noise = sampling.initial_noise(KEY, pool, ipc=2000)
    assert noise.shape == (3, 2000, 2, 2, 1) and abs(float(noise.std()) - 1) < 0.02
