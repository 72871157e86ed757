import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import augment, evaluate, networks

KEY = jax.random.key(0)
NETWORK = networks.ConvNet(num_classes=2, width=4, depth=1)
STATISTICS = dict(mean=jnp.array([0.5]), std=jnp.array([0.25]))


def stripes(n, seed=0):
    """Class 0 has bright rows, class 1 bright columns; uint8 `[n, 8, 8, 1]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 80, (n, 8, 8))
    rows = np.arange(8) % 2 * 150
    images = images + np.where(labels[:, None, None] == 0, rows[:, None], rows[None, :])
    return images[..., None].astype(np.uint8), labels


def test_scores_by_hand():
    """Two classes, aligned attributes 0 and 1.

    Group (0, 0): 2 of 2 right, (0, 1): 1 of 2, (1, 0): 0 of 1, (1, 1): 3 of 3. Accuracy 6/8,
    aligned 5/5, conflicting 1/3, worst 0; gaps .5 and 1, so .75 in the mean and 1 at most.
    """
    labels = jnp.array([0, 0, 0, 0, 1, 1, 1, 1])
    attributes = jnp.array([0, 0, 1, 1, 0, 1, 1, 1])
    predictions = jnp.array([0, 0, 0, 1, 0, 1, 1, 1])
    scores = evaluate.score(
        predictions, labels, attributes, jnp.array([0, 1]), num_classes=2, num_attributes=2
    )
    np.testing.assert_allclose(scores.groups, [[1, 0.5], [0, 1]])
    np.testing.assert_allclose(scores.classes, [0.75, 0.75])
    np.testing.assert_allclose(scores[:6], [0.75, 1, 1 / 3, 0, 1, 0.75], rtol=1e-6)


def test_empty_groups_are_left_out():
    """Attribute 2 never occurs and class 1 has one group: no gap there, nan for the empty ones."""
    labels, attributes = jnp.array([0, 0, 1]), jnp.array([0, 1, 1])
    scores = evaluate.score(
        jnp.array([0, 1, 1]),
        labels,
        attributes,
        jnp.array([0, 1]),
        num_classes=2,
        num_attributes=3,
    )
    np.testing.assert_array_equal(scores.groups, [[1, 0, np.nan], [np.nan, 1, np.nan]])
    assert scores.worst_group == 0 and scores.deo_max == 1 and scores.deo_mean == 0.5


def test_without_attributes_only_accuracy_is_known():
    scores = evaluate.score(jnp.array([0, 1]), jnp.array([0, 0]), num_classes=2)
    assert scores.accuracy == 0.5
    assert all(jnp.isnan(value) for value in scores[1:6])


def test_a_network_learns_the_stripes_and_the_random_labels_it_is_given():
    images, labels = stripes(16)
    test_images, test_labels = stripes(40, seed=1)
    task = evaluate.task(test_images, test_labels, num_classes=2, strategy=(), **STATISTICS)
    images = jnp.asarray((images / 255.0 - 0.5) / 0.25)
    scores = jax.jit(
        lambda keys, labels: evaluate.evaluate(
            keys, NETWORK, images, task, labels=labels, epochs=60
        )
    )
    keys = jax.random.split(KEY, 2)
    assert (scores(keys, labels).accuracy > 0.95).all()
    assert (scores(keys, 1 - labels).accuracy < 0.05).all()
    assert scores(keys, labels).groups.shape == (2, 2, 0)


def test_seeds_are_those_of_single_runs():
    images, labels = stripes(8)
    task = evaluate.task(
        images, labels, labels, [0, 1], num_classes=2, num_attributes=2, **STATISTICS
    )
    score = functools.partial(
        evaluate.evaluate,
        network=NETWORK,
        images=images / 255.0 - 0.5,
        task=task,
        labels=labels,
        epochs=2,
        strategy=("flip", "scale"),
    )
    keys, score = jax.random.split(KEY, 2), jax.jit(score)
    together = score(keys)
    for i in range(2):
        row = jax.tree.map(lambda x, i=i: x[i : i + 1], together)
        jax.tree.map(np.testing.assert_allclose, row, score(keys[i : i + 1]))


def test_prediction_does_not_depend_on_its_batch():
    images, _ = stripes(11)
    params = jax.jit(NETWORK.init)(KEY, jnp.zeros((1, 8, 8, 1)))

    def predict(batch_size):
        predicted = functools.partial(evaluate.predict, NETWORK, **STATISTICS)
        return jax.jit(predicted, static_argnames="batch_size")(
            params, jnp.asarray(images), batch_size=batch_size
        )

    np.testing.assert_array_equal(predict(batch_size=11), predict(batch_size=4))


def test_classes_in_turn_need_no_labels_and_the_strategy_is_that_of_the_task():
    """`[k, ipc, …]` is `[k · ipc, …]` with labels 0, 0, 0, 1, 1, 1, whatever these are called."""
    images, labels = stripes(6)
    task = evaluate.task(images, labels, num_classes=2, strategy=("crop",), **STATISTICS)
    by_class = jnp.asarray(images[np.argsort(labels, kind="stable")] / 255.0).reshape(2, 3, 8, 8, 1)
    given = []

    def train(key, network, images, labels, **protocol):
        jax.debug.callback(lambda *sent: given.append((*sent, protocol)), images, labels)
        return network.init(key, images[:1])

    score = functools.partial(evaluate.evaluate, KEY[None], NETWORK, train=train)
    score(by_class, task)
    score(by_class, task, labels=jnp.array([[0, 0, 0], [1, 1, 1]]), strategy=["flip"], epochs=3)
    jax.effects_barrier()
    flat = np.asarray(by_class).reshape(6, 8, 8, 1)
    for found, protocol in zip(
        given, ({"strategy": ("crop",)}, {"strategy": ("flip",), "epochs": 3}), strict=True
    ):
        np.testing.assert_array_equal(found[0], flat)
        assert (found[1].tolist(), found[2]) == ([0, 0, 0, 1, 1, 1], protocol)


def test_equal_options_and_new_values_are_one_program():
    """A learning rate that is an array is a value; a number is part of the program."""
    images, labels = stripes(6)
    task = evaluate.task(images, labels, num_classes=2, strategy=(), **STATISTICS)
    programs = []

    def train(key, network, images, labels, *, learning_rate, strategy, epochs):
        programs.append(epochs)
        return jax.tree.map(lambda x: learning_rate * x, network.init(key, images[:1]))

    for rate, epochs in ((0.1, 1), (0.2, 1), (0.1, 2), (0.2, 2)):
        network = networks.ConvNet(2, width=4, depth=1)
        options = dict(learning_rate=jnp.float32(rate), epochs=epochs, train=train, labels=labels)
        evaluate.evaluate(KEY[None], network, images / 255.0, task, **options)
    assert programs == [1, 2]


def test_a_set_or_network_of_other_classes_is_refused():
    images, labels = stripes(6)
    task = evaluate.task(images, labels, num_classes=2, **STATISTICS)
    with pytest.raises(ValueError, match=r"k = 2 classes, or come with labels.*\(6, 8, 8, 1\)"):
        evaluate.evaluate(KEY[None], NETWORK, jnp.zeros((6, 8, 8, 1)), task)
    with pytest.raises(ValueError, match=r"k = 2 classes.*\(3, 2, 8, 8, 1\)"):
        evaluate.evaluate(KEY[None], NETWORK, jnp.zeros((3, 2, 8, 8, 1)), task)
    with pytest.raises(ValueError, match="2 logits.*got 5"):
        evaluate.evaluate(KEY[None], networks.MLP(5), jnp.zeros((2, 3, 8, 8, 1)), task)


LABELS, FLAT = np.arange(6) % 2, np.zeros((6, 8, 8, 1), np.float32)
ATTRIBUTES = dict(attributes=LABELS, aligned=[0, 1], num_attributes=2)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(predictions=LABELS[:, None]), ValueError, r"predictions .* \(6,\), found \(6, 1\)"),
        (dict(predictions=LABELS[:1]), ValueError, r"predictions .* \(6,\), found \(1,\)"),
        (dict(predictions=LABELS / 1), TypeError, "predictions must be integers, found float64"),
        (dict(labels=LABELS + 9), ValueError, r"labels must lie in 0\.\.1, found 9\.\.10"),
        (dict(labels=LABELS - 1), ValueError, r"labels must lie in 0\.\.1, found -1\.\.0"),
        (dict(labels=LABELS[:0]), ValueError, "number of labels must be at least 1, found 0"),
        (dict(num_attributes=1), ValueError, r"attributes must lie in 0\.\.0, found 0\.\.1"),
        (dict(attributes=LABELS[:, None]), ValueError, r"attributes .* found \(6, 1\)"),
        (dict(attributes=LABELS - 1), ValueError, r"attributes must lie in .* found -1\.\.0"),
        (dict(aligned=[0]), ValueError, r"aligned must have the shape \(2,\), found \(1,\)"),
        (dict(num_attributes=0), ValueError, "attributes must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, error, message):
    sound = dict(predictions=LABELS, labels=LABELS, num_classes=2, **ATTRIBUTES)
    with pytest.raises(error, match=message):
        evaluate.score(**(sound | change))


@pytest.mark.parametrize(
    "images, change, error, message",
    [
        (FLAT + 255, {}, ValueError, r"images must .* lie in \[0, 1\] .* found 255.0\.\.255.0"),
        (FLAT.astype(int), {}, TypeError, "images must be uint8 or floating, found int"),
        (FLAT[0], {}, ValueError, r"\[n, h, w, c\] with n ≥ 1, found \(8, 8, 1\)"),
        (FLAT, dict(mean=np.full(3, 0.5), std=np.full(3, 0.5)), ValueError, "the 1 channels"),
        (FLAT, dict(mean=np.array([127.0])), ValueError, r"mean must be .* scale \[0, 1\]"),
        (FLAT, dict(batch_size=0), ValueError, "batch_size must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_predicted_is_refused(images, change, error, message):
    with pytest.raises(error, match=message):
        evaluate.predict(NETWORK, {}, images, **(STATISTICS | change))


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(keys=KEY), ValueError, r"keys must be \[s\] .* found shape \(\)"),
        (dict(keys=jax.random.PRNGKey(0)), ValueError, r"keys must be \[s\] .* found shape \(2,\)"),
        (dict(labels=LABELS + 9), ValueError, r"labels must lie in 0\.\.1, found 9\.\.10"),
        (dict(labels=LABELS / 1), TypeError, "labels must be integers"),
        (dict(labels=LABELS[:3]), ValueError, r"got \(6, 8, 8, 1\) and \(3,\)"),
        (dict(images=FLAT * np.nan), ValueError, "images must be finite"),
        (dict(images=FLAT + 200), ValueError, "must be normalised, .* whole numbers 200.0"),
        (dict(images=FLAT.astype(np.uint8)), TypeError, "must be floating, .* found uint8"),
        (dict(images=FLAT.repeat(3, 3)), ValueError, r"shape \(8, 8, 1\), found \(8, 8, 3\)"),
        (dict(strategy="flip"), TypeError, "sequence of names, found the string 'flip'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(change, error, message):
    task = evaluate.task(FLAT.astype(np.uint8), LABELS, num_classes=2, **STATISTICS)
    sound = dict(keys=KEY[None], network=NETWORK, images=FLAT, task=task, labels=LABELS)
    with pytest.raises(error, match=message):
        evaluate.evaluate(**(sound | change))


def test_a_summary_is_mean_deviation_and_number():
    scores = evaluate.Scores(*(jnp.array([0.1, 0.2, 0.6]) for _ in evaluate.Scores._fields))
    found = evaluate.summary(scores)["accuracy"]
    each = found.pop("each")
    assert found == {"mean": pytest.approx(0.3), "std": pytest.approx(0.07**0.5), "n": 3}
    assert each == np.asarray(scores.accuracy).tolist()
    one = evaluate.summary(jax.tree.map(lambda each: each[:1], scores))
    alone = {"mean": pytest.approx(0.1), "std": 0.0, "n": 1, "each": [pytest.approx(0.1)]}
    assert one["conflicting"] == alone


TEST_IMAGES, TEST_LABELS = np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 1, 0])
TASK_OPTIONS = dict(num_classes=2, num_attributes=3, mean=(0.5,), std=(0.25,))


def test_a_task_is_a_tree_of_arrays_whose_sizes_are_static():
    task = evaluate.task(
        TEST_IMAGES, TEST_LABELS, [2, 0, 1, 1], [2, 0], strategy=["crop"], **TASK_OPTIONS
    )
    traces = []

    @jax.jit
    def same(task):
        traces.append((task.num_classes, task.num_attributes, task.strategy))
        return task

    for _ in range(2):
        found = same(task)
    assert traces == [(2, 3, ("crop",))]
    for field in ("images", "labels", "attributes", "aligned", "mean", "std"):
        np.testing.assert_array_equal(getattr(found, field), getattr(task, field))
    assert found.labels.dtype == np.int32 and found.images.dtype == np.uint8


def test_what_is_not_known_is_none():
    task = evaluate.task(TEST_IMAGES, TEST_LABELS, num_classes=2, mean=(0.5,), std=(0.25,))
    assert task.attributes is None and task.aligned is None and task.num_attributes == 0
    assert task.strategy == augment.OPERATIONS
    assert dataclasses.replace(task, strategy=()).strategy == ()


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            dict(images=TEST_IMAGES / 255),
            TypeError,
            "test images must be uint8, 0..255, found float",
        ),
        (dict(images=TEST_IMAGES[0]), ValueError, r"\[n, h, w, c\] with n ≥ 1, found \(2, 2, 1\)"),
        (dict(images=TEST_IMAGES[:0]), ValueError, r"n ≥ 1, found \(0, 2, 2, 1\)"),
        (dict(mean=(0.5, 0.5)), ValueError, "one entry for each of the 1 channels"),
        (dict(std=(0.0,)), ValueError, "std must be positive"),
        (
            dict(labels=TEST_LABELS[:3]),
            ValueError,
            r"labels must have the shape \(4,\), found \(3,\)",
        ),
        (dict(labels=TEST_LABELS * 1.0), TypeError, "test labels must be integers, found float64"),
        (dict(labels=TEST_LABELS + 1), ValueError, r"test labels must lie in 0\.\.1, found 1\.\.2"),
        (dict(attributes=TEST_LABELS - 1), ValueError, r"attributes must lie in 0\.\.2, found -1"),
        (dict(labels=TEST_LABELS[:, None]), ValueError, r"labels must have .* found \(4, 1\)"),
        (dict(mean=(127.0,)), ValueError, r"mean must be that of pixels on the scale \[0, 1\]"),
        (dict(attributes=TEST_LABELS, num_attributes=0), ValueError, "num_attributes .* found 0"),
        (dict(strategy="flip"), TypeError, "sequence of names, found the string 'flip'"),
        (dict(aligned=[0, 3]), ValueError, r"aligned must lie in 0\.\.2, found 0\.\.3"),
        (dict(aligned=[0, 1, 2]), ValueError, r"aligned must have the shape \(2,\), found \(3,\)"),
    ],
)
def test_task_checks_its_arguments(change, error, message):
    with pytest.raises(error, match=message):
        evaluate.task(**(dict(images=TEST_IMAGES, labels=TEST_LABELS) | TASK_OPTIONS | change))
