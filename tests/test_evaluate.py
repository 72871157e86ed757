import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import augment, evaluate, networks, training

KEY = jax.random.key(0)
NETWORK = networks.ConvNet(num_classes=2, width=4, depth=1)
STATISTICS = dict(mean=np.float32([0.5]), std=np.float32([0.25]))
SCORE = jax.jit(evaluate.score, static_argnames=("num_classes", "num_attributes"))


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

    Correct are 2 of 2 in group (0, 0), 1 of 2 in (0, 1), 0 of 1 in (1, 0) and 3 of 3 in (1, 1). So
    the accuracy is 6/8, aligned 5/5, conflicting 1/3, worst group 0. The gaps are .5 and 1, so
    their mean is .75 and their maximum 1.
    """
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    attributes = np.array([0, 0, 1, 1, 0, 1, 1, 1])
    predictions = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    scores = SCORE(
        predictions, labels, attributes, np.array([0, 1]), num_classes=2, num_attributes=2
    )
    np.testing.assert_allclose(scores.groups, [[1, 0.5], [0, 1]])
    np.testing.assert_allclose(scores.classes, [0.75, 0.75])
    np.testing.assert_allclose(scores[:6], [0.75, 1, 1 / 3, 0, 1, 0.75], rtol=1e-6)


def test_empty_groups_are_left_out():
    """Attribute 2 never occurs, and class 1 has one group, so the only gap is 1 - 0 in class 0."""
    labels, attributes = np.array([0, 0, 1]), np.array([0, 1, 1])
    scores = SCORE(
        np.array([0, 1, 1]), labels, attributes, np.array([0, 1]), num_classes=2, num_attributes=3
    )
    np.testing.assert_array_equal(scores.groups, [[1, 0, np.nan], [np.nan, 1, np.nan]])
    assert scores.worst_group == 0 and scores.deo_max == 1 and scores.deo_mean == 1


def test_classes_with_one_group_have_no_gap():
    labels = np.array([0, 0, 1])
    scores = SCORE(labels, labels, labels, np.array([0, 1]), num_classes=2, num_attributes=2)
    assert scores.worst_group == 1 and np.isnan([scores.deo_max, scores.deo_mean]).all()


def test_groups_need_no_majority_attributes():
    """Of class 0, group 0 is right and group 1 wrong; which of them is aligned is unknown."""
    scores = SCORE(
        np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2,
        num_attributes=2,
    )  # fmt: skip
    np.testing.assert_array_equal(scores.groups, [[1, 0], [np.nan, 1]])
    assert scores.worst_group == 0 and scores.deo_max == 1
    assert np.isnan([scores.aligned, scores.conflicting]).all()


def test_without_attributes_only_accuracy_is_known():
    scores = SCORE(np.array([0, 1]), np.array([0, 0]), num_classes=2)
    assert scores.accuracy == 0.5
    assert all(np.isnan(value) for value in scores[1:6])


def test_a_network_learns_the_labels_it_is_trained_on():
    images, labels = stripes(16)
    test_images, test_labels = stripes(40, seed=1)
    task = evaluate.task(test_images, test_labels, num_classes=2, strategy=(), **STATISTICS)
    images = np.float32((images / 255.0 - 0.5) / 0.25)
    scores = jax.jit(
        lambda keys, labels: evaluate.evaluate(
            keys, NETWORK, images, task, labels=labels, epochs=60
        )
    )
    keys = jax.random.split(KEY, 2)
    assert (scores(keys, labels).accuracy > 0.95).all()
    assert (scores(keys, 1 - labels).accuracy < 0.05).all()
    assert scores(keys, labels).groups.shape == (2, 2, 0)


def test_several_keys_score_as_single_keys_do():
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
    params = jax.jit(NETWORK.init)(KEY, np.zeros((1, 8, 8, 1), np.float32))

    def predict(batch_size):
        predicted = functools.partial(evaluate.predict, NETWORK, **STATISTICS)
        return jax.jit(predicted, static_argnames="batch_size")(
            params, images, batch_size=batch_size
        )

    np.testing.assert_array_equal(predict(batch_size=11), predict(batch_size=4))


def test_train_receives_sorted_labels_and_the_strategy_of_the_task():
    """Images `[k, ipc, …]` are passed as `[k · ipc, …]`, with labels 0, 0, 0, 1, 1, 1."""
    images, labels = stripes(6)
    task = evaluate.task(images, labels, num_classes=2, strategy=("crop",), **STATISTICS)
    by_class = np.float32(images[np.argsort(labels, kind="stable")] / 255.0).reshape(2, 3, 8, 8, 1)
    calls = []

    def train(key, network, images, labels, **options):
        jax.debug.callback(lambda *values: calls.append((*values, options)), images, labels)
        return network.init(key, images[:1])

    score = functools.partial(evaluate.evaluate, KEY[None], NETWORK, train=train)
    score(by_class, task)
    score(by_class, task, labels=jnp.array([[0, 0, 0], [1, 1, 1]]), strategy=["flip"], epochs=3)
    jax.effects_barrier()
    flat = by_class.reshape(6, 8, 8, 1)
    expected = {"strategy": ("crop",)}, {"strategy": ("flip",), "epochs": 3}
    for (images, labels, options), expected_options in zip(calls, expected, strict=True):
        np.testing.assert_array_equal(images, flat)
        assert labels.tolist() == [0, 0, 0, 1, 1, 1] and options == expected_options


def test_arrays_are_traced_and_options_are_static():
    images, labels = stripes(6)
    task = evaluate.task(images, labels, num_classes=2, strategy=(), **STATISTICS)
    programs = []

    def train(key, network, images, labels, *, learning_rate, strategy, epochs):
        programs.append(epochs)
        return jax.tree.map(lambda x: learning_rate * x, network.init(key, images[:1]))

    for rate, epochs in ((0.1, 1), (0.2, 1), (0.1, 2), (0.2, np.int64(2)), (0.1, np.array(2))):
        network = networks.ConvNet(2, width=4, depth=1)
        options = dict(train=train, labels=labels, epochs=epochs, arrays={"learning_rate": rate})
        evaluate.evaluate(KEY[None], network, images / 255.0, task, **options)
    assert programs == [1, 2]


@pytest.mark.parametrize("option", [jnp.float32(0.1), np.zeros(3), {"params": jnp.zeros(2)}])
def test_arrays_must_not_be_options(option):
    task = evaluate.task(FLAT.astype(np.uint8), LABELS, num_classes=2, **STATISTICS)
    with pytest.raises(TypeError, match="arrays={'teacher'"):
        evaluate.evaluate(KEY[None], NETWORK, FLAT, task, labels=LABELS, teacher=option)


def test_test_images_are_arguments_of_the_program():
    """XLA would fold constant images at compile time."""
    images = np.random.default_rng(0).integers(0, 256, (700, 8, 8, 1)).astype(np.uint8)
    task = evaluate.task(images, np.arange(700) % 2, num_classes=2, **STATISTICS)
    arguments = KEY[None], FLAT, LABELS, task, {}
    program = evaluate._train_and_score.lower(
        *arguments, NETWORK, training.train, (("epochs", 1), ("strategy", ()))
    )
    assert len(program.as_text()) < 200_000 and "tensor<700x8x8x1xui8>" in program.as_text()


def test_a_set_or_network_with_other_classes_is_rejected():
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
        (dict(predictions=LABELS[:, None]), ValueError, r"predictions.*\(6, 1\)"),
        (dict(predictions=LABELS[:1]), ValueError, r"predictions.*\(1,\)"),
        (dict(predictions=LABELS / 1), TypeError, "predictions.*float64"),
        (dict(labels=LABELS + 9), ValueError, r"labels.*9\.\.10"),
        (dict(labels=LABELS - 1), ValueError, r"labels.*-1\.\.0"),
        (dict(labels=LABELS[:0]), ValueError, "labels.*0"),
        (dict(num_attributes=1), ValueError, r"attributes.*0\.\.1"),
        (dict(attributes=LABELS[:, None]), ValueError, r"attributes.*\(6, 1\)"),
        (dict(attributes=LABELS - 1), ValueError, r"attributes.*-1\.\.0"),
        (dict(aligned=[0]), ValueError, r"aligned.*\(1,\)"),
        (dict(num_attributes=0), ValueError, "attributes.*0"),
    ],
)
def test_score_checks_its_arguments(change, error, message):
    sound = dict(predictions=LABELS, labels=LABELS, num_classes=2, **ATTRIBUTES)
    with pytest.raises(error, match=message):
        evaluate.score(**(sound | change))


@pytest.mark.parametrize(
    "images, change, error, message",
    [
        (FLAT + 255, {}, ValueError, r"images.*255.0\.\.255.0"),
        (FLAT.astype(int), {}, TypeError, "images.*int"),
        (FLAT[0], {}, ValueError, r"\(8, 8, 1\)"),
        (FLAT, dict(mean=np.full(3, 0.5), std=np.full(3, 0.5)), ValueError, r"\(3,\)"),
        (FLAT, dict(mean=np.array([127.0])), ValueError, "mean.*127"),
        (FLAT, dict(batch_size=0), ValueError, "batch_size.*0"),
    ],
)
def test_predict_checks_its_arguments(images, change, error, message):
    with pytest.raises(error, match=message):
        evaluate.predict(NETWORK, {}, images, **(STATISTICS | change))


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(keys=KEY), ValueError, r"keys.*\(\)"),
        (dict(keys=jax.random.PRNGKey(0)), ValueError, r"keys.*\(2,\)"),
        (dict(labels=LABELS + 9), ValueError, r"labels.*9\.\.10"),
        (dict(labels=LABELS / 1), TypeError, "labels.*float64"),
        (dict(labels=LABELS[:3]), ValueError, r"got \(6, 8, 8, 1\) and \(3,\)"),
        (dict(images=FLAT * np.nan), ValueError, "images.*nan"),
        (dict(images=FLAT + 200), ValueError, "200.0"),
        (dict(images=FLAT.astype(np.uint8)), TypeError, "uint8"),
        (dict(images=FLAT.repeat(3, 3)), ValueError, r"got \(8, 8, 3\)"),
        (dict(strategy="flip"), TypeError, "'flip'"),
    ],
)
def test_evaluate_checks_its_arguments(change, error, message):
    task = evaluate.task(FLAT.astype(np.uint8), LABELS, num_classes=2, **STATISTICS)
    sound = dict(keys=KEY[None], network=NETWORK, images=FLAT, task=task, labels=LABELS)
    with pytest.raises(error, match=message):
        evaluate.evaluate(**(sound | change))


def test_a_summary_is_mean_deviation_and_number():
    scores = evaluate.Scores(*(jnp.array([0.1, 0.2, 0.6]) for _ in evaluate.Scores._fields))
    accuracy = evaluate.summary(scores)["accuracy"]
    assert accuracy.pop("each") == np.asarray(scores.accuracy).tolist()
    assert accuracy == {"mean": pytest.approx(0.3), "std": pytest.approx(0.07**0.5), "n": 3}
    single = evaluate.summary(jax.tree.map(lambda values: values[:1], scores))["conflicting"]
    assert single == {"mean": pytest.approx(0.1), "std": 0.0, "n": 1, "each": [pytest.approx(0.1)]}


TEST_IMAGES, TEST_LABELS = np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 1, 0])
TASK_OPTIONS = dict(num_classes=2, num_attributes=3, mean=(0.5,), std=(0.25,))


def test_a_task_is_a_pytree_with_static_sizes():
    task = evaluate.task(
        TEST_IMAGES, TEST_LABELS, [2, 0, 1, 1], [2, 0], strategy=["crop"], **TASK_OPTIONS
    )
    traces = []

    @jax.jit
    def same(task):
        traces.append((task.num_classes, task.num_attributes, task.strategy))
        return task

    for _ in range(2):
        copy = same(task)
    assert traces == [(2, 3, ("crop",))]
    for field in ("images", "labels", "attributes", "aligned", "mean", "std"):
        np.testing.assert_array_equal(getattr(copy, field), getattr(task, field))
    assert copy.labels.dtype == np.int32 and copy.images.dtype == np.uint8


def test_unknown_attributes_are_none():
    task = evaluate.task(TEST_IMAGES, TEST_LABELS, num_classes=2, mean=(0.5,), std=(0.25,))
    assert task.attributes is None and task.aligned is None and task.num_attributes == 0
    assert task.strategy == augment.OPERATIONS
    assert dataclasses.replace(task, strategy=()).strategy == ()


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(images=TEST_IMAGES / 255), TypeError, "float"),
        (dict(images=TEST_IMAGES[0]), ValueError, r"\(2, 2, 1\)"),
        (dict(images=TEST_IMAGES[:0]), ValueError, r"\(0, 2, 2, 1\)"),
        (dict(mean=(0.5, 0.5)), ValueError, r"\(2,\)"),
        (dict(std=(0.0,)), ValueError, "std.*0"),
        (dict(labels=TEST_LABELS[:3]), ValueError, r"labels.*\(3,\)"),
        (dict(labels=TEST_LABELS * 1.0), TypeError, "test labels.*float64"),
        (dict(labels=TEST_LABELS + 1), ValueError, r"test labels.*1\.\.2"),
        (dict(attributes=TEST_LABELS - 1), ValueError, r"attributes.*-1"),
        (dict(labels=TEST_LABELS[:, None]), ValueError, r"labels.*\(4, 1\)"),
        (dict(mean=(127.0,)), ValueError, "mean.*127"),
        (dict(attributes=TEST_LABELS, num_attributes=0), ValueError, "num_attributes.*0"),
        (dict(strategy="flip"), TypeError, "'flip'"),
        (dict(aligned=[0, 3]), ValueError, r"aligned.*0\.\.3"),
        (dict(aligned=[0, 1, 2]), ValueError, r"aligned.*\(3,\)"),
    ],
)
def test_task_checks_its_arguments(change, error, message):
    with pytest.raises(error, match=message):
        evaluate.task(**(dict(images=TEST_IMAGES, labels=TEST_LABELS) | TASK_OPTIONS | change))
