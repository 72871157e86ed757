"""Weights by density against steps and formula, the choice with hand-made judges, and digits."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import kde, networks, sampling, weights
from jaxdd.data import benchmarks, datasets
from jaxdd.weights import blind_features, contrastive, formulas

KEY = jax.random.key(0)
STRATEGY = ("color", "crop")


def small_pool(counts=(11, 5), shape=(8, 8, 1), dtype=np.uint8):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    images = images if dtype == np.uint8 else images.astype(dtype) / 255
    statistics = dict(mean=(0.5,) * shape[-1], std=(0.25,) * shape[-1])
    return sampling.pool(images, labels, num_classes=len(counts), **statistics)


def small_encoder(pool):
    network = networks.ConvNet(pool.num_classes, width=4, depth=1, norm=None)
    return contrastive.Encoder(network, hidden=4, dimension=3)


OPTIONS = dict(strategy=STRATEGY, encoder=small_encoder(small_pool()))


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


# ------------------------------------------------------------------ by density, by labels


def test_by_density_is_its_three_steps():
    pool = small_pool()
    options = dict(steps=2, layer="features")
    found = weights.by_density(
        KEY, pool, **OPTIONS, **options, bandwidth=kde.scott, temperature=0.7, clip=1.5
    )
    encoded = weights.encode(KEY, pool, **OPTIONS, **options)
    density = weights.density(encoded.embeddings, pool, bandwidth=kde.scott)
    values = weights.from_density(density.log_density, pool, temperature=0.7, clip=1.5)
    equal(found, weights.DensityWeights(values, *density, *encoded))
    assert found.embeddings.shape == (16, 64)  # 4 channels of 4 × 4


@pytest.mark.parametrize("bandwidth", [0.8, [0.5, 1.3]])
@pytest.mark.parametrize("temperature, clip", [(1.0, None), (0.7, 1.2)])
def test_density_and_weights_are_the_formula(bandwidth, temperature, clip):
    """f̂(x) = mean over the class of the normal density, w ∝ f̂^(−1/τ), at most clip / n, float64.

    What is above the limit is cut off and the rest of the class scaled up, until none is above it.
    """
    pool, rng = small_pool(), np.random.default_rng(1)
    embeddings = rng.normal(size=(16, 3))
    found = weights.density(jnp.asarray(embeddings), pool, bandwidth=jnp.asarray(bandwidth))
    values = weights.from_density(found.log_density, pool, temperature=temperature, clip=clip)
    np.testing.assert_allclose(found.bandwidth, np.broadcast_to(bandwidth, 2), rtol=1e-6)
    for c, h in enumerate(np.broadcast_to(bandwidth, 2)):
        points = embeddings[np.asarray(pool.labels) == c]
        squared = ((points[:, None] - points) ** 2).sum(2)
        density = np.exp(-squared / (2 * h**2)).mean(1) / (2 * np.pi * h**2) ** 1.5
        of_class = np.asarray(pool.labels) == c
        np.testing.assert_allclose(found.log_density[of_class], np.log(density), atol=1e-4)
        expected = density ** (-1 / temperature) / (density ** (-1 / temperature)).sum()
        if clip is not None:
            limit, over = clip / len(points), np.zeros(len(points), bool)
            while (expected > limit + 1e-12).any():
                over |= expected > limit
                rest = (1 - limit * over.sum()) / expected[~over].sum()
                expected = np.where(over, limit, expected * rest)
        np.testing.assert_allclose(values[of_class], expected, rtol=1e-4)


def test_a_rule_for_the_bandwidth_sees_one_class():
    pool, embeddings = small_pool(), jax.random.normal(KEY, (16, 3))
    found = weights.density(embeddings, pool, bandwidth=kde.scott).bandwidth
    expected = [kde.scott(embeddings[:11]), kde.scott(embeddings[11:])]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_several_bandwidths_are_one_after_the_other():
    pool, embeddings = small_pool(), jax.random.normal(KEY, (16, 3))
    asked = [kde.scott, 0.5, jnp.array([0.3, 2.0])]
    together = weights.densities(embeddings, pool, bandwidths=asked)
    alone = [weights.density(embeddings, pool, bandwidth=each) for each in asked]
    chex.assert_trees_all_close(together, alone, rtol=1e-5)


def test_colours_are_not_augmented_away():
    """Among names "color" is left out; a function is taken as it is."""
    pool, options = small_pool(), dict(encoder=OPTIONS["encoder"], steps=1)
    found, plain = (
        weights.encode(KEY, pool, strategy=strategy, **options)
        for strategy in (("color", "crop"), ("crop",))
    )
    equal(found, plain)
    brighter = weights.encode(KEY, pool, strategy=lambda key, image: image + 1, **options)
    assert (brighter.embeddings != plain.embeddings).any()


def test_the_oracle_gives_groups_equal_mass():
    pool = small_pool((12, 5, 1))
    attributes = np.array([0] * 9 + [1] * 3 + [1] * 4 + [2] + [0])
    found = weights.oracle(pool, attributes, num_attributes=3)
    masses = np.zeros((3, 3))
    np.add.at(masses, (np.asarray(pool.labels), attributes), np.asarray(found))
    np.testing.assert_allclose(masses, [[0.5, 0.5, 0], [0, 0.5, 0.5], [1, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "counts, shape, dtype, depth",
    [
        ((6,), (8, 8, 1), np.uint8, 3),
        ((9, 1, 3), (4, 6, 3), np.float32, 2),
        ((2, 3), (1, 5, 1), np.uint8, 0),
    ],
)
def test_any_classes_and_images(counts, shape, dtype, depth):
    """The default encoder halves the sides three times, or as often as the images allow."""
    pool = small_pool(counts, shape, dtype)
    encoder = weights.default_encoder(pool, width=4)
    assert encoder.network.depth == depth and encoder.network.norm is None
    found = weights.by_density(KEY, pool, strategy=("crop",), encoder=encoder, steps=1)
    totals = np.bincount(np.asarray(pool.labels), np.asarray(found.weights))
    np.testing.assert_allclose(totals, np.ones(len(counts)), rtol=1e-5)
    assert np.isfinite(found.log_density).all() and (found.weights > 0).all()


# ------------------------------------------------------------------ the choice


def test_pseudo_groups_are_the_nearest_means():
    """Means are 0, 10 and that of nobody; 6 is nearer to 10, 4 to 0, whatever their labels are."""
    embeddings = jnp.array([[-2.0, 1], [6.0, 1], [-4.0, 1], [4.0, 1], [16.0, 1], [10.0, 1]])
    labels = jnp.array([0, 0, 0, 2, 2, 2])
    found = weights.pseudo_groups(embeddings, labels, num_classes=3)
    assert found.tolist() == [0, 2, 0, 0, 2, 2]


def judged(plain, weighed):
    """A judge that knows the accuracies of uniform weights and of all others."""

    def trial(values):
        uniform = abs(float(values.max() / values.min()) - 1) < 1e-6
        return weights.Trial(*(plain if uniform else weighed))

    return lambda pool, groups: trial


SEARCH = weights.Search(encoder_steps=(3, 1), bandwidth=(0.2, 0.8), temperature=(0.5, 1.0))
EVEN = small_pool((8, 8))


def test_the_weights_that_balance_the_pseudo_groups_best_are_chosen():
    judge, reports = judged((0.9, 0.9, 0.1, 99), (0.8, 0.8, 0.8, 99)), []
    report = lambda *done: reports.append(done)
    choice = weights.choose(KEY, EVEN, **OPTIONS, search=SEARCH, check=judge, report=report)
    balances = [each["evenness"] for each in choice.candidates]
    assert len(balances) == 2 * 2 * 2 and choice.best == np.argmax(balances)
    assert [each["encoder_steps"] for each in choice.candidates] == 4 * [1] + 4 * [3]
    assert {each["bandwidth"] for each in choice.candidates} == {0.2, 0.8}
    assert {each["temperature"] for each in choice.candidates} == {0.5, 1.0}
    assert choice.rejection is None and reports == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert choice.trials["best"].conflicting == 0.8 and choice.trials["uniform"].count == 99
    best = choice.candidates[choice.best]
    again = weights.by_density(
        KEY,
        EVEN,
        **OPTIONS,
        steps=best["encoder_steps"],
        bandwidth=functools.partial(kde.mean_distance, factor=best["bandwidth"]),
        temperature=best["temperature"],
    )
    equal(again, choice.density)
    equal(again.weights, choice.weights)
    longest = weights.encode(KEY, EVEN, **OPTIONS, steps=3)
    groups = weights.pseudo_groups(longest.embeddings, EVEN.labels, num_classes=2)
    sizes = dict(num_classes=2, num_attributes=2)
    balance = formulas.group_evenness(choice.weights, EVEN.labels, groups, **sizes)
    assert float(balance) == max(balances)


def test_the_first_candidate_is_by_density_with_the_same_key():
    options = dict(layer="features", clip=1.5)
    values, found = next(weights.density_candidates(KEY, EVEN, **OPTIONS, **options, search=SEARCH))
    assert values == dict(encoder_steps=1, bandwidth=0.2, temperature=0.5)
    bandwidth = functools.partial(kde.mean_distance, factor=0.2)
    density = dict(bandwidth=bandwidth, temperature=0.5)
    equal(found, weights.by_density(KEY, EVEN, **OPTIONS, **options, **density, steps=1))


@pytest.mark.parametrize(
    "plain, weighed, reason",
    [
        ((0.9, 0.95, 0.4, 999), (0.7, 0.75, 0.55, 999), "still lie behind"),  # .15 gained, .2
        ((0.9, 0.95, 0.4, 999), (0.4, 0.4, 0.6, 999), "half of what all lose"),  # .2 for .5
        ((0.9, 0.95, 0.5, 50), (0.91, 0.95, 0.65, 50), "behind"),  # nor surely: √(2 / 50) is .2
        ((0.9, 0.95, 0.5, 50), (0.8, 0.8, 0.69, 50), "chance allows"),
        ((0.89, 0.91, 0.27, 397), (0.49, 0.49, 0.35, 397), "half of what all lose"),  # MNIST
        ((0.76, 0.91, 0.27, 999), (0.53, 0.58, 0.36, 999), "still lie behind"),  # Fashion-MNIST
        ((0.9, 0.9, np.nan, 0), (1.0, 1.0, np.nan, 0), "no held-out sample disagrees"),
        ((0.9, 0.9, 0.1, 19), (0.9, 0.9, 0.9, 19), "not be judged: 19 held-out samples disagree"),
    ],
)
def test_what_speaks_against_weights(plain, weighed, reason):
    assert reason in weights.rejection(weights.Trial(*plain), weights.Trial(*weighed))


def test_uniform_weights_where_something_speaks_against_others():
    few = weights.Search((1,), (0.2,), (1.0,))
    judge = judged((0.9, 0.95, 0.4, 999), (0.7, 0.75, 0.55, 999))
    choice = weights.choose(KEY, EVEN, **OPTIONS, search=few, check=judge)
    assert choice.density is None and "still lie behind" in choice.rejection
    np.testing.assert_allclose(choice.weights, 1 / 8, rtol=1e-6)


@pytest.mark.parametrize(
    "plain, weighed",
    [
        ((0.9, 0.95, 0.4, 999), (0.7, 0.74, 0.58, 999)),  # .18 gained, .16 behind
        ((0.9, 0.95, 0.4, 999), (0.5, 0.5, 0.61, 999)),  # .21 gained, .4 lost
        ((0.9, 0.95, 0.5, 50), (0.8, 0.8, 0.71, 50)),  # .21 gained, .2 by chance
        ((0.9, 0.95, 0.5, 999), (0.6, 0.6, 0.7, 999)),  # .2 gained, .3 lost
        ((0.9, 0.9, 0.1, weights.FEWEST), (0.9, 0.9, 0.9, weights.FEWEST)),
        ((0.94, 0.98, 0.15, 557), (0.52, 0.52, 0.52, 557)),  # coloured Fashion-MNIST
    ],
)
def test_weights_where_they_pay(plain, weighed):
    assert weights.rejection(weights.Trial(*plain), weights.Trial(*weighed)) is None


# ------------------------------------------------------------------ views


def lit(counts=(90, 60), dark=0.1, seed=0):
    """Noise that is light in the first class and dark in the second, a share the other way."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    groups = np.where(rng.random(len(labels)) < dark, 1 - labels, labels)
    images = rng.uniform(0, 160, (len(labels), 8, 8, 1)) + 80 * (1 - groups)[:, None, None, None]
    statistics = dict(num_classes=len(counts), mean=(0.5,), std=(0.25,))
    return sampling.pool(images.astype(np.uint8), labels, **statistics), groups


def brightness(images):
    return images.mean((1, 2))


def test_groups_of_a_view_have_equal_mass():
    """Light and dark are told from each other without an error, so that the oracle is found."""
    pool, groups = lit()
    found = weights.by_features(KEY, pool, brightness)
    np.testing.assert_array_equal(found.groups.argmax(1), groups)
    np.testing.assert_allclose(found.groups.sum(1), 1, rtol=1e-5)
    oracle = weights.oracle(pool, groups, num_attributes=2)
    np.testing.assert_allclose(found.weights, oracle, rtol=0.1)
    clipped = weights.by_features(KEY, pool, brightness, clip=1.5).weights
    assert float(clipped.max() * 60) <= 1.5 * (1 + 1e-5) < float(found.weights.max() * 60)


def test_a_view_that_says_nothing_leaves_weights_alone():
    pool, _ = lit((300, 200))
    found = weights.by_features(KEY, pool, lambda images: images[:, 0, 0] * 0)
    uniform = formulas.uniform(pool.labels, num_classes=2)
    np.testing.assert_allclose(found.weights, uniform, rtol=0.02)  # folds differ a little


def test_classes_that_share_an_attribute_are_one_block():
    """Four classes, two of them light: groups are light and dark, within each class."""
    pool, groups = lit((90, 60))
    labels = 2 * pool.labels + jnp.arange(150) % 2
    four = sampling.pool(pool.images, labels, num_classes=4, mean=(0.5,), std=(0.25,))
    found = weights.by_features(KEY, four, brightness, blocks=(0, 0, 1, 1))
    assert found.groups.shape == (150, 2)
    oracle = weights.oracle(four, groups, num_attributes=2)
    np.testing.assert_allclose(found.weights, oracle, rtol=0.1)
    one = weights.by_features(KEY, four, brightness, blocks=(0, 0, 0, 0)).weights
    np.testing.assert_allclose(one, formulas.uniform(labels, num_classes=4), rtol=1e-5)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(blocks=(0, 1, 1)), ValueError, r"blocks must have the shape \(2,\), found \(3,\)"),
        (dict(blocks=(0, -1)), ValueError, r"blocks must lie in 0\.\.1, found -1\.\.0"),
        (dict(blocks=(1, 1)), ValueError, r"without gaps, found \[1, 1\]"),
        (dict(blocks=(0.0, 1.0)), TypeError, "blocks must be integers"),
        (dict(conflict=0), ValueError, "conflict must lie between 0 and 1, found 0"),
        (dict(conflict=2), ValueError, "conflict must lie between 0 and 1, found 2"),
        (dict(clip=0.5), ValueError, "clip must be at least 1, found 0.5"),
    ],
)
def test_bad_input_of_a_view_is_refused_before_it_looks(change, error, message):
    with pytest.raises(error, match=message):
        weights.by_features(KEY, small_pool(), never, **change)


def test_a_view_needs_a_sample_in_each_fold():
    with pytest.raises(ValueError, match="at least 3 samples, found 2"):
        weights.by_features(KEY, small_pool((1, 1)), never)


def test_a_clip_below_one_is_refused_before_an_encoder_is_trained(monkeypatch):
    monkeypatch.setattr(weights, "encode", never)
    for made in (weights.choose, weights.by_density):
        with pytest.raises(ValueError, match="clip must be at least 1, found 0.5"):
            made(KEY, small_pool(), strategy=(), clip=0.5)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda pool: weights.encode(KEY, pool, strategy="flip"),
            TypeError,
            "sequence of names, found the string 'flip'",
        ),
        (
            lambda pool: weights.encode(KEY, pool, strategy=(), layer="zz"),
            ValueError,
            "layer must be projection or features, found 'zz'",
        ),
        (
            lambda pool: weights.density(np.full((4, 2), np.nan), pool, bandwidth=1.0),
            ValueError,
            "embeddings must be finite",
        ),
        (
            lambda pool: weights.density(np.zeros((4, 2)), pool, bandwidth=0.0),
            ValueError,
            "bandwidth must be positive",
        ),
        (
            lambda pool: weights.choose(KEY, pool, strategy=(), search=weights.Search((), (), ())),
            ValueError,
            "encoder_steps of a search must have at least one value",
        ),
        (
            lambda pool: weights.check_with_probe_networks(
                KEY, pool, pool.labels, strategy=(), ipc=0
            ),
            ValueError,
            "ipc must be at least 1, found 0",
        ),
    ],
)
def test_what_gives_no_weights_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(small_pool((2, 2)))


def never(*_):
    raise AssertionError("judged")


def test_a_shortcut_is_chosen_before_anything_is_searched():
    """One pixel says less than the brightness of all does; coins for labels are told by neither."""
    pixel = lambda key, images: lambda seen: seen[:, 0, 0]
    (pool, groups), reports = lit(), []
    options = dict(
        strategy=(),
        comparisons={"light": blind_features.Comparison(brightness, pixel)},
        report=lambda *at: reports.append(at),
    )
    choice = weights.choose(KEY, pool, **options, check=never)
    assert choice.feature_names == "light" and choice.rejection is choice.density is None
    assert choice.shortcuts["light"].z_score > weights.CERTAIN
    judged = np.argsort(np.asarray(pool.labels), kind="stable")[1::2]
    assert choice.shortcuts["light"].blind == pytest.approx(
        np.mean((groups != pool.labels)[judged])
    )
    oracle = weights.oracle(pool, groups, num_attributes=2)
    np.testing.assert_allclose(choice.weights, oracle, rtol=0.1)
    assert reports == [(0, 3), (3, 3)]
    coins, _ = lit(dark=0.5)
    assert (
        weights.shortcuts(
            KEY, coins, comparisons={"light": blind_features.Comparison(brightness, pixel)}
        )["light"].z_score
        < 2
    )


def test_two_biases_at_once_are_undone_together():
    """Light and side each conflict in a tenth; rows see the light again, and are left out.

    Two views that see different things give the four groups of a class the mass of an oracle that
    knows both attributes; doubts of light and rows agree, those of light and side do not.
    """
    side = lambda images: images[:, :, :4].mean((1, 2)) - images[:, :, 4:].mean((1, 2))
    rows = lambda images: images[:, ::2].mean((1, 2))
    step = lambda key, images: lambda seen: seen[:, 0, 0] - seen[:, 1, 0]
    pool, light = lit((200, 160))
    labels = np.asarray(pool.labels)
    left = np.where(np.arange(len(labels)) % 10 == 3, 1 - labels, labels)
    brighter = (np.arange(8) < 4) == (left[:, None] == 0)
    images = np.asarray(pool.images) * 0.6 + 90 * brighter[:, None, :, None]
    pool = pool._replace(images=jnp.asarray(images.astype(np.uint8)))
    blind = {"light": brightness, "rows": rows, "side": side}
    blind = {name: blind_features.Comparison(view, step) for name, view in blind.items()}
    choice = weights.choose(KEY, pool, strategy=(), comparisons=blind, check=never)
    (first, second), both = (
        choice.features,
        weights.oracle(pool, 2 * left + light, num_attributes=4),
    )
    assert {first, second} in ({"light", "side"}, {"rows", "side"})
    assert choice.feature_names == choice.record()["features"] == f"{first} and {second}"
    np.testing.assert_allclose(choice.weights, both, rtol=0.25)
    alone = weights.by_feature_sets(pool, [choice.features["side"]])
    np.testing.assert_allclose(alone, choice.features["side"].weights, rtol=1e-5)
    clipped = (
        weights.by_feature_sets(pool, list(choice.features.values()), clip=2.0) * pool.count[labels]
    )
    assert clipped.max() == pytest.approx(2)
    with pytest.raises(ValueError, match="at least one view shows, found none"):
        weights.by_feature_sets(pool, [])


def test_nothing_is_compared_where_nothing_can_be_seen():
    """Too few samples, one class, images of three pixels, no views."""
    images = lambda side: np.zeros((40, side, side, 1), np.uint8)
    one = lambda images, classes: sampling.pool(
        images, np.arange(len(images)) % classes, num_classes=classes, mean=(0,), std=(1,)
    )
    for pool in (one(images(8)[:19], 2), one(images(8), 1), one(images(3), 2)):
        assert weights.shortcuts(KEY, pool) == {}
    assert weights.shortcuts(KEY, one(images(8), 2), comparisons={}) == {}


# ------------------------------------------------------------------ the judge


def numbered(counts):
    """A pool whose i-th image is i everywhere, class by class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1))
    options = dict(num_classes=len(counts), mean=(0,), std=(1 / 255,))
    return labels, sampling.pool(images.astype(np.uint8), labels, **options)


def knowing(answers, k, trained, tested, *, ipc=10):
    """A network with an answer to every image, which notes what it is trained and tested on.

    It is trained on sets of that many images per class. Its only parameter changes nothing.
    """

    def apply(param, images):
        numbers = jnp.rint(images[:, 0, 0, 0]).astype(int)
        notes = trained if len(images) == k * ipc else tested
        jax.debug.callback(lambda numbers: notes.append(np.asarray(numbers)), numbers)
        return images, jax.nn.one_hot(jnp.asarray(answers)[numbers], k) + param

    return networks.Functions(lambda key, images: jnp.zeros(()), apply)


def judge(pool, groups, network, **options):
    options = dict(strategy=(), epochs=1) | options
    return weights.check_with_probe_networks(
        KEY, pool, jnp.asarray(groups), network=network, **options
    )


def test_held_out_samples_are_in_no_set():
    """Of 100 that disagree a fifth is held out, of 140 others 28; the overall accuracy by hand."""
    (labels, pool), trained, tested = numbered((120, 120)), [], []
    groups = np.where(np.arange(240) < 100, 1 - labels, labels)
    answers = np.where(np.arange(240) % 2, labels, groups)  # to a half of the disagreeing, wrong
    network = knowing(answers, 2, trained, tested)
    trial = judge(pool, groups, network, sets=3)(jnp.ones(240))
    jax.effects_barrier()
    held = np.unique(np.concatenate(tested))
    assert (held < 100).sum() == 20 and len(held) == 48 and trial.count == 20
    assert len(trained) == 3 and not np.isin(np.concatenate(trained), held).any()
    assert len({tuple(sorted(each)) for each in trained}) == 3
    disagreeing = np.mean(held[held < 100] % 2)
    assert 0 < disagreeing < 1
    expected = (140 + 100 * disagreeing) / 240, 1, disagreeing, 20
    np.testing.assert_allclose(trial, expected, rtol=1e-6)
    tested.clear()
    trial = judge(pool, groups, network, sets=1, most=20)(jnp.ones(240))
    jax.effects_barrier()
    held = np.unique(np.concatenate(tested))
    assert (held < 100).sum() == 20 and len(held) == 40  # the shares are not those of training
    assert trial.overall == pytest.approx((140 + 100 * trial.conflicting) / 240)


def test_no_class_is_held_out_whole():
    """Of classes of 1, 2, 3 and 40 at most a half; sets hold nobody else, though 8 are asked."""
    counts = (1, 2, 3, 40)
    labels, pool = numbered(counts)
    groups = np.where(np.arange(46) % 2, (labels + 1) % 4, labels)
    heavy = jnp.asarray((np.arange(46) == 20) | (labels != 3), jnp.float32)
    trained, tested = [], []
    network = knowing(labels, 4, trained, tested, ipc=8)
    judged = judge(pool, groups, network, sets=2, ipc=8)
    for values in (jnp.ones(46), heavy):
        trained.clear(), tested.clear()
        trial = judged(values)
        jax.effects_barrier()
        held = np.unique(np.concatenate(tested))
        assert (np.bincount(labels[held], minlength=4) <= [0, 1, 1, 20]).all()
        assert trial.count >= 1
        for one in trained:
            assert not np.isin(one, held).any()
            assert np.bincount(labels[one]).tolist() == [8] * 4


def test_nothing_is_trained_where_nobody_disagrees():
    labels, pool = numbered((5, 5))
    for network in (networks.Functions(never, never), None):
        trial = judge(pool, labels, network)(jnp.ones(10))
        assert trial.count == 0 and "no held-out sample" in weights.rejection(trial, trial)


@pytest.mark.parametrize("name, conflict", [("cdigits", 0.1), ("digits", None)])
def test_weights_for_coloured_digits_and_none_for_grey_ones(name, conflict):
    """What the choice is for, on 1,437 real images of 4×4 pixels and three channels."""
    pool = datasets.pool(benchmarks.load(name, conflict=conflict))
    wide = lambda array: jnp.broadcast_to(array, (*array.shape[:-1], 3))
    images, mean, std = pool.images[:, ::2, ::2], pool.mean, pool.std
    pool = pool._replace(images=wide(images), mean=wide(mean), std=wide(std))
    encoder = weights.default_encoder(pool, width=4, depth=1)
    judging = dict(strategy=(), network=networks.ConvNet(10, 8, 1), sets=2, epochs=60)
    rival = functools.partial(blind_features.patches, count=16)
    choice = weights.choose(
        KEY,
        pool,
        strategy=("crop",),
        encoder=encoder,
        search=weights.Search(encoder_steps=(60,), bandwidth=(0.2,), temperature=(0.7, 1.0)),
        comparisons={"tone": blind_features.Comparison(blind_features.tone, rival)},
        check=functools.partial(weights.check_with_probe_networks, KEY, **judging),
    )
    assert (choice.density is None) == (conflict is None) == (choice.rejection is not None)
    if conflict is not None:
        assert choice.trials["best"].conflicting > choice.trials["uniform"].conflicting + 0.2
