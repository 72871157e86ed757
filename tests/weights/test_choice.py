"""The choice of weights with hand-made checks, the probe network check, and real digits."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import kde, networks, sampling, weights
from jaxdd.data import benchmarks, datasets
from jaxdd.weights import blind_features, contrastive, formulas, probe_networks

KEY = jax.random.key(0)
STRATEGY = ("color", "crop")
ENCODER = contrastive.Encoder(networks.ConvNet(2, width=4, depth=1, norm=None), 4, 3)
SEARCH = weights.Search((3, 1), (0.2, 0.8), (0.5, 1.0), encoder=ENCODER)
RNG = np.random.default_rng(0)
POOL = sampling.pool(
    RNG.integers(0, 256, (16, 8, 8, 1), dtype=np.uint8),
    np.repeat([0, 1], 8),
    num_classes=2,
    mean=(0.5,),
    std=(0.25,),
)


def fixed_check(uniform, weighted):
    """Return a check with known accuracies of uniform weights and of all others."""

    def trial(first, second):
        assert abs(float(first.max() / first.min()) - 1) < 1e-6
        return weights.Trial(*uniform), weights.Trial(*weighted)

    return lambda pool, groups, blocks: trial


def fail(*_):
    raise AssertionError("called")


# --- density search ------------------------------------------------------------------------------


def test_most_even_weights_are_chosen():
    """All combinations are tried; the best weights equal those of `by_density` bit for bit."""
    check, reports = fixed_check((0.9, 0.9, 0.1, 99), (0.8, 0.8, 0.8, 99)), []
    report = lambda *done: reports.append(done)
    options = dict(strategy=STRATEGY, search=SEARCH, check=check, report=report)
    choice = weights.choose(KEY, POOL, **options)
    evenness = [candidate["evenness"] for candidate in choice.search]
    assert len(evenness) == 2 * 2 * 2 and choice.best == np.argmax(evenness)
    assert [each["encoder_steps"] for each in choice.search] == 4 * [1] + 4 * [3]
    assert {each["bandwidth"] for each in choice.search} == {0.2, 0.8}
    assert {each["temperature"] for each in choice.search} == {0.5, 1.0}
    assert choice.chosen == ("density",) and choice.verdict == "biased"
    assert reports == [(i, 4) for i in range(5)]
    (candidate,) = choice.candidates
    assert candidate.trials["weighted"].conflicting == 0.8
    assert candidate.trials["uniform"].count == 99 and candidate.rejection is None
    scores = np.asarray(candidate.conflict_score).reshape(2, 8)
    assert (np.argsort(scores) == np.argsort(candidate.weights.reshape(2, 8))).all()
    np.testing.assert_allclose(np.sort(scores), [(np.arange(8) + 0.5) / 8] * 2)
    best = choice.search[choice.best]
    again = weights.by_density(
        KEY,
        POOL,
        strategy=STRATEGY,
        encoder=ENCODER,
        steps=best["encoder_steps"],
        bandwidth=functools.partial(kde.mean_distance, factor=best["bandwidth"]),
        temperature=best["temperature"],
    )
    chex.assert_trees_all_equal((again, again.weights), (choice.density, choice.weights))
    longest = weights.encode(KEY, POOL, strategy=STRATEGY, encoder=ENCODER, steps=3)
    groups = weights.pseudo_groups(longest.embeddings, POOL.labels, num_classes=2)
    sizes = dict(num_classes=2, num_attributes=2)
    best_evenness = formulas.group_evenness(choice.weights, POOL.labels, groups, **sizes)
    assert float(best_evenness) == max(evenness)


def test_layer_and_clip_of_a_search_are_used():
    search = SEARCH._replace(layer="features")
    options = dict(strategy=STRATEGY, clip=1.5)
    values, candidate = next(weights.density_candidates(KEY, POOL, search=search, **options))
    assert values == dict(encoder_steps=1, bandwidth=0.2, temperature=0.5)
    bandwidth = functools.partial(kde.mean_distance, factor=0.2)
    density = dict(bandwidth=bandwidth, temperature=0.5, layer="features", steps=1)
    expected = weights.by_density(KEY, POOL, encoder=ENCODER, **options, **density)
    chex.assert_trees_all_equal(candidate, expected)


def test_uniform_weights_are_kept_if_the_best_are_rejected():
    search = weights.Search((1,), (0.2,), (1.0,), encoder=ENCODER)
    check = fixed_check((0.9, 0.95, 0.4, 999), (0.7, 0.75, 0.55, 999))
    choice = weights.choose(KEY, POOL, strategy=STRATEGY, search=search, check=check)
    assert choice.verdict == "none" and choice.chosen == () and choice.density is None
    assert "20.0" in choice.record()["candidates"][0]["rejection"]
    np.testing.assert_allclose(choice.weights, 1 / 8, rtol=1e-6)


def test_pseudo_groups_are_the_nearest_means():
    """Classes have means 0, 10 and none. Whatever their labels, 6 is nearer to 10, and 4 to 0."""
    embeddings = jnp.array([[-2.0, 1], [6.0, 1], [-4.0, 1], [4.0, 1], [16.0, 1], [10.0, 1]])
    labels = jnp.array([0, 0, 0, 2, 2, 2])
    groups = weights.pseudo_groups(embeddings, labels, num_classes=3)
    assert groups.tolist() == [0, 2, 0, 0, 2, 2]


FEW = 20


@pytest.mark.parametrize(
    "uniform, weighted, reason",
    [
        ((0.9, 0.95, 0.4, 999), (0.7, 0.75, 0.55, 999), "20.0"),  # 0.15 gained, 0.2 left
        ((0.9, 0.95, 0.4, 999), (0.4, 0.4, 0.6, 999), "25.0"),  # 0.2 gained, 0.5 lost
        ((0.9, 0.95, 0.5, 50), (0.91, 0.95, 0.65, 50), "30.0"),  # nor significant: √(2/50) = 0.2
        ((0.9, 0.95, 0.5, 50), (0.8, 0.8, 0.69, 50), "20.0"),
        ((0.89, 0.91, 0.27, 397), (0.49, 0.49, 0.35, 397), "20.0"),  # MNIST
        ((0.76, 0.91, 0.27, 999), (0.53, 0.58, 0.36, 999), "22.0"),  # Fashion-MNIST
        ((0.9, 0.9, np.nan, 0), (1.0, 1.0, np.nan, 0), "no held-out sample"),
        ((0.9, 0.9, 0.1, FEW - 1), (0.9, 0.9, 0.9, FEW - 1), "19"),
        ((0.9, 0.95, 0.4, 999), (0.7, 0.74, 0.58, 999), None),  # 0.18 gained, 0.16 left
        ((0.9, 0.95, 0.4, 999), (0.5, 0.5, 0.61, 999), None),  # 0.21 gained, 0.4 lost
        ((0.9, 0.95, 0.5, 50), (0.8, 0.8, 0.71, 50), None),  # 0.21 gained, 0.2 by chance
        ((0.9, 0.95, 0.5, 999), (0.6, 0.6, 0.7, 999), None),  # 0.2 gained, 0.3 lost
        ((0.9, 0.9, 0.1, FEW), (0.9, 0.9, 0.9, FEW), None),
        ((0.94, 0.98, 0.15, 557), (0.52, 0.52, 0.52, 557), None),  # coloured Fashion-MNIST
    ],
)
def test_the_gain_must_exceed_the_largest_limit(uniform, weighted, reason):
    rejection = weights.rejection(weights.Trial(*uniform), weights.Trial(*weighted))
    assert rejection is None if reason is None else reason in rejection


@pytest.mark.parametrize(
    "options, value",
    [
        (dict(clip=0.5), "0.5"),
        (dict(search=weights.Search((), (), ())), "encoder_steps"),
        (dict(search=weights.Search((-1,))), "-1"),
        (dict(search=weights.Search(bandwidth=(0.0,))), "0"),
    ],
)
def test_invalid_options_are_rejected_before_anything_is_computed(options, value):
    with pytest.raises(ValueError, match=value):
        weights.choose(KEY, POOL, strategy=(), report=fail, **options)


# --- shortcut features ---------------------------------------------------------------------------


def bright_or_dark(counts=(200, 160)):
    """Return noise that is bright in the first class and dark in the second, except for a tenth."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], counts)
    groups = np.where(rng.random(len(labels)) < 0.1, 1 - labels, labels)
    images = rng.uniform(0, 160, (len(labels), 8, 8, 1)) + 80 * (1 - groups)[:, None, None, None]
    pool = sampling.pool(images.astype(np.uint8), labels, num_classes=2, mean=(0.5,), std=(0.25,))
    return pool, groups


def brightness(images):
    return images.mean((1, 2))


def test_shortcut_features_are_chosen_without_a_search():
    one_pixel = lambda key, images: lambda images: images[:, 0, 0]
    (pool, groups), reports = bright_or_dark(), []
    options = dict(
        strategy=(),
        comparisons={"brightness": blind_features.Comparison(brightness, one_pixel)},
        report=lambda *done: reports.append(done),
        check=fail,
    )
    choice = weights.choose(KEY, pool, **options)
    assert choice.verdict == "biased" and choice.chosen == ("brightness",)
    assert choice.density is None and reports == [(i, 4) for i in range(5)]
    assert choice.candidates[0].shortcut.z_score > 3
    oracle = weights.oracle(pool, groups, num_attributes=2)
    np.testing.assert_allclose(choice.weights, oracle, rtol=0.1)


def test_two_biases_are_balanced_together():
    """Brightness and side each conflict in a tenth; the features `rows` also show brightness.

    The conflict scores of brightness and rows correlate, so only one of them is used, and the four
    groups of a class get the weights of an oracle that knows both attributes.
    """
    side = lambda images: images[:, :, :4].mean((1, 2)) - images[:, :, 4:].mean((1, 2))
    rows = lambda images: images[:, ::2].mean((1, 2))
    step = lambda key, images: lambda images: images[:, 0, 0] - images[:, 1, 0]
    pool, dark = bright_or_dark()
    labels = np.asarray(pool.labels)
    left = np.where(np.arange(len(labels)) % 10 == 3, 1 - labels, labels)
    brighter = (np.arange(8) < 4) == (left[:, None] == 0)
    images = np.asarray(pool.images) * 0.6 + 90 * brighter[:, None, :, None]
    pool = pool._replace(images=jnp.asarray(images.astype(np.uint8)))
    features = {"brightness": brightness, "rows": rows, "side": side}
    comparisons = {name: blind_features.Comparison(x, step) for name, x in features.items()}
    choice = weights.choose(KEY, pool, strategy=(), comparisons=comparisons, check=fail)
    assert set(choice.chosen) in ({"brightness", "side"}, {"rows", "side"})
    assert choice.record()["chosen"] == list(choice.chosen)
    oracle = weights.oracle(pool, 2 * left + dark, num_attributes=4)
    np.testing.assert_allclose(choice.weights, oracle, rtol=0.25)
    sets = [weights.by_features(KEY, pool, features[name]) for name in choice.chosen]
    np.testing.assert_allclose(weights.by_feature_sets(pool, sets[:1]), sets[0].weights, rtol=1e-5)
    clipped = weights.by_feature_sets(pool, sets, clip=2.0)
    assert (clipped * pool.count[labels]).max() == pytest.approx(2)


# --- bimodal candidates --------------------------------------------------------------------------


def gaussian_embedding(labels, *, conflicting):
    """Return an embedding in which some samples of each class are where the other class is."""
    rng = np.random.default_rng(1)
    shown = np.where(np.arange(len(labels)) % 100 < conflicting, 1 - labels, labels)
    return (6 * shown[:, None] + rng.normal(size=(len(labels), 3))).astype(np.float32), shown


def noise_pool():
    images = np.random.default_rng(2).integers(0, 256, (400, 4, 4, 1), dtype=np.uint8)
    return sampling.pool(images, np.repeat([0, 1], 200), num_classes=2, mean=(0.5,), std=(0.25,))


SMALL = dict(strategy=(), search=weights.Search((1,), (0.2,), (1.0,), encoder=ENCODER))
ACCEPTED = fixed_check((0.9, 0.9, 0.1, 99), (0.8, 0.8, 0.8, 99))
REJECTED = fixed_check((0.9, 0.9, 0.3, 99), (0.8, 0.9, 0.3, 99))


def test_an_embedding_with_two_modes_is_chosen_if_the_check_accepts_it():
    pool = noise_pool()
    embedding, shown = gaussian_embedding(np.asarray(pool.labels), conflicting=10)
    choose = functools.partial(weights.choose, KEY, pool, embeddings={"mine": embedding}, **SMALL)
    choice = choose(check=ACCEPTED)
    assert choice.verdict == "biased" and choice.chosen == ("mine",)
    assert choice.candidates[0].bimodality > 1 and choice.search == ()
    oracle = weights.oracle(pool, shown, num_attributes=2)
    np.testing.assert_allclose(choice.weights, oracle, rtol=0.3)
    names = {candidate.name for candidate in choice.candidates}
    assert names == {"mine", "tone", "texture", "layout", "border", "embedding", "density"}
    undecided = choose(check=REJECTED)
    assert undecided.verdict == "undecided" and undecided.candidates[0].name == "mine"
    assert "+0.0" in undecided.candidates[0].rejection and undecided.chosen == ()
    np.testing.assert_allclose(undecided.weights, 1 / 200, rtol=1e-6)
    previews = []
    excluded = choose(check=REJECTED, exclude=["mine"], preview=previews.append)
    (preview,) = previews
    for known in (preview, excluded):
        assert known.candidates[-1].name == "mine"
    assert preview.verdict == "none" and not any(x.trials for x in preview.candidates)
    assert excluded.verdict == "none" and excluded.candidates[0].trials.keys() != {}


@pytest.mark.parametrize(
    "options, value",
    [
        (dict(suspect=["shape"]), "shape"),
        (dict(exclude=["shape"]), "shape"),
        (dict(suspect=["border"], exclude=["border"]), "border"),
        (dict(embeddings={"tone": np.zeros((400, 2))}), "tone"),
        (dict(embeddings={"mine": np.zeros((399, 2))}), "399"),
    ],
)
def test_unknown_and_contradictory_names_are_rejected(options, value):
    with pytest.raises(ValueError, match=value):
        weights.choose(KEY, noise_pool(), check=fail, report=fail, **SMALL, **options)


def test_groups_of_blocks_are_checked():
    """Three classes, of which the last two share group 1; a tenth of each class conflicts."""
    labels, pool = numbered((80, 80, 80))
    blocks = np.array([0, 1, 1])
    groups = np.where(np.arange(240) % 10 == 0, 1 - blocks[labels], blocks[labels])
    network = recording_network(labels, 3, [], [])
    (trial,) = probe_check(pool, groups, network, blocks=blocks, sets=1)(jnp.ones(240))
    assert trial == (1, 1, 1, 12, 1)  # half of the 24 conflicting samples, at most 20


# --- probe network check -------------------------------------------------------------------------


def numbered(counts):
    """Return labels and a pool whose i-th image is i everywhere, class by class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1))
    options = dict(num_classes=len(counts), mean=(0,), std=(1 / 255,))
    return labels, sampling.pool(images.astype(np.uint8), labels, **options)


def recording_network(answers, k, trained, tested, *, ipc=10):
    """A network with constant predictions that records its training and test images.

    It is trained on sets of `ipc` images per class. Its only parameter changes nothing.
    """

    def apply(param, images):
        numbers = jnp.rint(images[:, 0, 0, 0]).astype(int)
        record = trained if len(images) == k * ipc else tested
        jax.debug.callback(lambda numbers: record.append(np.asarray(numbers)), numbers)
        return images, jax.nn.one_hot(jnp.asarray(answers)[numbers], k) + param

    return networks.Functions(lambda key, images: jnp.zeros(()), apply)


def probe_check(pool, groups, network, *, blocks=None, **options):
    options = dict(strategy=(), epochs=1) | options
    groups = jnp.asarray(groups)
    return weights.check_with_probe_networks(KEY, pool, groups, blocks, network=network, **options)


def test_held_out_samples_are_in_no_set():
    """Up to half of the 100 that disagree and of the 140 others are held out; accuracy by hand."""
    (labels, pool), trained, tested = numbered((120, 120)), [], []
    groups = np.where(np.arange(240) < 100, 1 - labels, labels)
    answers = np.where(np.arange(240) % 2, labels, groups)  # half of those that disagree are wrong
    network = recording_network(answers, 2, trained, tested)
    (trial,) = probe_check(pool, groups, network, sets=3)(jnp.ones(240))
    jax.effects_barrier()
    held_out = np.unique(np.concatenate(tested))
    count = (held_out < 100).sum()
    assert 40 < count <= 50 and 100 < len(held_out) <= 120 and trial.count == count
    assert len(trained) == 3 and not np.isin(np.concatenate(trained), held_out).any()
    assert len({tuple(sorted(numbers)) for numbers in trained}) == 3
    conflicting = np.mean(held_out[held_out < 100] % 2)
    assert 0 < conflicting < 1
    expected = (140 + 100 * conflicting) / 240, 1, conflicting, count, 3
    np.testing.assert_allclose(trial, expected, rtol=1e-6)
    tested.clear()
    (trial,) = probe_check(pool, groups, network, sets=1, max_held_out=20)(jnp.ones(240))
    jax.effects_barrier()
    held_out = np.unique(np.concatenate(tested))
    # The shares of the overall accuracy are those of the pool, not of the held-out samples.
    assert (held_out < 100).sum() == 20 and len(held_out) == 40
    assert trial.overall == pytest.approx((140 + 100 * trial.conflicting) / 240)


def test_no_class_is_held_out_completely():
    """At most half of classes of 1, 2, 3 and 40 is held out; sets contain others, 8 per class."""
    labels, pool = numbered((1, 2, 3, 40))
    groups = np.where(np.arange(46) % 2, (labels + 1) % 4, labels)
    concentrated = jnp.asarray((np.arange(46) == 20) | (labels != 3), jnp.float32)
    trained, tested = [], []
    network = recording_network(labels, 4, trained, tested, ipc=8)
    check = probe_check(pool, groups, network, sets=2, ipc=8)
    for values in (jnp.ones(46), concentrated):
        trained.clear(), tested.clear()
        (trial,) = check(values)
        jax.effects_barrier()
        held_out = np.unique(np.concatenate(tested))
        assert (np.bincount(labels[held_out], minlength=4) <= [0, 1, 1, 20]).all()
        assert trial.count >= 1
        for numbers in trained:
            assert not np.isin(numbers, held_out).any()
            assert np.bincount(labels[numbers]).tolist() == [8] * 4


def test_nothing_is_trained_if_no_sample_disagrees():
    labels, pool = numbered((5, 5))
    for network in (networks.Functions(fail, fail), None):
        trial, _ = probe_check(pool, labels, network)(jnp.ones(10), jnp.ones(10))
        assert trial.count == 0 and "no held-out sample" in weights.rejection(trial, trial)


@pytest.mark.parametrize(
    "gains, used",
    [
        ([0.6], 1),
        ([-0.1], 1),  # 0.2 below the limit; the bound is 3 · 0.061 · √(1 - 1/4) = 0.16
        ([0.0, 0.0], 2),  # 0.1 below it; the bound is 3 · 0.061 · √(1/2 - 1/4) = 0.092
        ([0.2, 0.2, 0.2], 3),  # 0.2 above the limit of the gap, 0; 3 · 0.147 · √(1/12) = 0.13
        ([0.1, 0.1, 0.1, 0.1], 4),
        ([0.2, 0.0, 0.2, 0.0], 4),
    ],
)
def test_training_stops_when_the_decision_is_clear(gains, used):
    """The limits are √(2 / 200) = 0.1 for chance and 0 for gap and loss, with equal accuracies.

    Their deviations are √(300 / 200) times 0.05 and 0.12.
    """
    uniform = weights.Trial(0.3, 0.3, 0.3, 200)
    trials = [(uniform, weights.Trial(*[0.3 + gain] * 3, 200)) for gain in gains]
    decided = [probe_networks._is_decided(trials[: i + 1], 4) for i in range(len(trials))]
    assert decided.index(True) + 1 == used


def test_invalid_sizes_of_the_probe_check_are_rejected():
    labels, pool = numbered((5, 5))
    with pytest.raises(ValueError, match="got 0"):
        probe_check(pool, labels, None, ipc=0)


@pytest.mark.parametrize("name, conflict", [("cdigits", 0.1), ("digits", None)])
def test_coloured_digits_get_density_weights_and_grey_ones_uniform(name, conflict):
    """The choice is made for 1,437 real images of 4×4 pixels and three channels."""
    pool = datasets.pool(benchmarks.load(name, conflict=conflict))
    wide = lambda array: jnp.broadcast_to(array, (*array.shape[:-1], 3))
    images, mean, std = pool.images[:, ::2, ::2], pool.mean, pool.std
    pool = pool._replace(images=wide(images), mean=wide(mean), std=wide(std))
    encoder = weights.default_encoder(pool, width=4, depth=1)
    probing = dict(network=networks.ConvNet(10, 8, 1), sets=2, epochs=60, max_held_out=200)
    baseline = functools.partial(blind_features.patches, count=16)
    choice = weights.choose(
        KEY,
        pool,
        strategy=("crop",),
        search=weights.Search((60,), (0.2,), (1.0,), encoder=encoder),
        comparisons={"tone": blind_features.Comparison(blind_features.tone, baseline)},
        check=functools.partial(weights.check_with_probe_networks, KEY, strategy=(), **probing),
    )
    assert (choice.verdict == "biased") == (conflict is not None)
    if conflict is not None:
        trials = choice.candidates[0].trials
        assert trials["weighted"].conflicting > trials["uniform"].conflicting + 0.2
