"""Distillation features: the loss against NumPy and PyTorch, and how networks are split."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import networks
from jaxdd.training import elf, teachers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = np.float32(RNG.normal(size=(4, 8, 8, 1)))
LABELS = np.array([0, 1, 0, 1])
NETWORK = networks.ConvNet(2, width=3, depth=2, norm=networks.BatchNorm)
PARAMS = jax.jit(NETWORK.init)(KEY, IMAGES)
FEATURES = np.float32(np.abs(RNG.normal(size=(4, 2, 2, 3))))
KINDS = {
    "convnet": (networks.ConvNet(2, 4, 2), 2),
    "vgg11": (networks.VGG11(2, stages=((4,), (4,), (6, 6), (8, 8), (8, 8))), 5),
    "resnet18": (networks.ResNet18(2, widths=(4, 4, 6, 8)), 8),
}


def entropies(logits, labels):
    """Softmax cross-entropy in float64."""
    logits = np.asarray(logits, float)
    top = logits.max(-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, np.asarray(labels)[:, None], 1)[:, 0]


@functools.cache
def computed():
    """Return the terms of the loss, the output of the front, and the logits of the rear."""

    def all_of(params, views):
        terms, _ = elf._losses(NETWORK, params, views, LABELS, FEATURES, split=2)
        front, moved = networks.apply_in_training(NETWORK, params, views, stop=2)
        rear, _ = networks.apply_in_training(NETWORK, moved, FEATURES, start=2)
        task, _ = networks.apply_in_training(NETWORK, moved, front, start=2)
        whole, _ = networks.apply_in_training(NETWORK, params, views)
        return terms, front, rear.logits, task.logits, whole.logits

    return jax.device_get(jax.jit(all_of)(PARAMS, IMAGES))


def test_the_terms_are_those_of_numpy_in_float64():
    """−mean_{h,w} Σ_c z_c log softmax_c(f), and two cross-entropies with the labels."""
    terms, front, rear, task, _ = computed()
    f, z = np.asarray(front, float), np.asarray(FEATURES, float)
    log_p = f - f.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    np.testing.assert_allclose(terms["front"], -(z * log_p).sum(-1).mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(terms["rear"], entropies(rear, LABELS), rtol=1e-5)
    np.testing.assert_allclose(terms["task"], entropies(task, LABELS), rtol=1e-5)


def test_the_terms_are_those_of_pytorch():
    """PyTorch's cross-entropy accepts probabilities over dimension 1 and divides by n, h and w."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    terms, front, rear, task, _ = computed()
    tensor = lambda x: torch.tensor(np.asarray(x))
    channels = [tensor(x).permute(0, 3, 1, 2) for x in (front, FEATURES)]
    entropy, labels = torch.nn.functional.cross_entropy, tensor(LABELS).long()
    expected = [entropy(*channels), entropy(tensor(rear), labels), entropy(tensor(task), labels)]
    for name, value in zip(("front", "rear", "task"), expected, strict=True):
        np.testing.assert_allclose(terms[name].mean(), value, rtol=1e-5)


def test_the_rear_after_the_front_is_the_network():
    *_, task, whole = computed()
    np.testing.assert_allclose(task, whole, rtol=1e-6)


def test_the_rear_runs_on_the_output_of_the_front_before_the_features():
    """The order decides the running statistics of batch norm in the rear."""
    features = np.repeat(np.repeat(FEATURES, 2, 1), 2, 2)

    @jax.jit
    def statistics(params):
        _, result = elf._losses(NETWORK, params, IMAGES, LABELS, features, split=1)
        _, expected = networks.apply_in_training(NETWORK, params, IMAGES)
        _, expected = networks.apply_in_training(NETWORK, expected, features, start=1)
        return result["batch_stats"], expected["batch_stats"]

    result, expected = statistics(PARAMS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), result, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [networks.InstanceNorm, networks.BatchNorm])
def test_every_network_is_split_where_the_literature_does(kind, norm):
    """A ConvNet is split before its head, the others in their fourth stage."""
    network, expected = KINDS[kind]
    network, images = network.clone(norm=norm), np.zeros((4, 32, 32, 1), np.float32)
    split = elf.split_point(network)
    shape = elf.front_shape(network, images)
    assert split == expected and shape[-1] == (4 if kind == "convnet" else 8)
    params = jax.eval_shape(network.init, KEY, images)
    front = jax.ShapeDtypeStruct((4, *shape), jnp.float32)
    rear = jax.eval_shape(functools.partial(network.apply, start=split), params, front)
    assert rear.logits.shape == (4, 2)


def test_parts_in_turn_have_the_parameters_of_the_whole():
    """Names do not depend on the part that is applied, so one tree serves all."""
    network, _ = KINDS["resnet18"]
    shape = images = np.zeros((4, 32, 32, 1), np.float32)
    params = jax.eval_shape(network.init, KEY, images)
    for i in range(networks.count_parts(network)):
        apply = functools.partial(network.apply, start=i, stop=i + 1)
        shape = jax.eval_shape(apply, params, shape)
    assert shape.shape == (4, 4, 4, 8)


def test_the_features_are_those_before_the_head():
    network, _ = KINDS["convnet"]
    params = jax.jit(network.init)(KEY, IMAGES)
    features = elf.teacher_features(teachers.Teacher(params, network), IMAGES)
    whole = network.apply(params, IMAGES).features
    assert features.shape == (4, 2, 2, 4)
    np.testing.assert_allclose(features.reshape(4, -1), whole, rtol=1e-6)


def test_a_term_that_is_left_out_has_no_gradient():
    """The rear term does not reach the front; weight decay is off."""
    options = dict(features=FEATURES, epochs=2, strategy=(), weight_decay=0.0)
    train = functools.partial(elf.train, KEY, NETWORK, IMAGES, LABELS, **options)
    start = jax.jit(NETWORK.init)(jax.random.split(KEY)[0], IMAGES[:1])["params"]
    trained = jax.jit(lambda: train(terms=("rear",)))()["params"]
    np.testing.assert_array_equal(trained["Conv_0"]["kernel"], start["Conv_0"]["kernel"])
    assert (trained["classifier"]["kernel"] != start["classifier"]["kernel"]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(features=FEATURES[:3]), r"got \(3, 2, 2, 3\)"),
        (dict(features=FEATURES[:, :1]), r"got \(4, 1, 2, 3\)"),
        (dict(features=FEATURES * np.nan), "features.*nan"),
        (dict(split=3), "got 3"),
        (dict(split=0), "got 0"),
        (dict(terms=()), r"got \(\)"),
        (dict(terms=("back",)), "got .'back'"),
        (dict(network=networks.MLP(2)), "got MLP"),
    ],
)
def test_train_checks_its_arguments(change, message):
    sound = dict(key=KEY, network=NETWORK, images=IMAGES, labels=LABELS, features=FEATURES)
    with pytest.raises(ValueError, match=message):
        elf.train(**(sound | change))


def test_teacher_features_need_a_split_of_the_teacher():
    with pytest.raises(ValueError, match="got 5"):
        elf.teacher_features(teachers.Teacher(PARAMS, NETWORK), IMAGES, split=5)
