"""Options reach the network, the method, the sampler and the evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import methods, networks, sampling
from jaxdd.data import datasets
from jaxdd.devices import parallel
from jaxdd.methods import formation
from jaxdd.runs import components, options
from jaxdd.training import debiased

TINY = options.DM(ipc=2, batch_size=8, width=4, depth=2, epochs=1, eval_seeds=2)


def squares(n=30, side=8, channels=1, strategy=()):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    return datasets.from_arrays(images, np.arange(n) % 2, strategy=strategy)


def build(data=None, **change):
    return components.build(
        squares() if data is None else data, dataclasses.replace(TINY, **change)
    )


def test_samplers_of_weightings():
    sampler = build().sampler
    assert sampler.func is sampling.weighted_batch and sampler.keywords == {"size": 8}
    for weighting in ("mean", "batch"):
        assert build(weighting=weighting).sampler.func is sampling.uniform_batch


def test_rows_that_share_nothing_run_at_once(monkeypatch, mesh):
    monkeypatch.setattr(components.multiprocessing, "cpu_count", lambda: 3)
    for name, of in (("dm", options.DM), ("dc", options.DC), ("dsa", options.DSA)):
        assert components.rows_at_once(of(ipc=2)) == 3, name
    own = build().method
    alone = [components.rows_at_once(of(ipc=2)) for of in (options.MTT, options.CFM)]
    alone += [components.rows_at_once(TINY, method=own), components.rows_at_once(TINY, mesh=mesh)]
    alone += [
        components.rows_at_once(options.DM(ipc=2, zca=zca)) for zca in ("uniform", "weighted")
    ]
    assert alone == [1] * 6


def test_batches_of_representative_candidates():
    pool, sampler = datasets.pool(squares()), build(candidates=12, network="mlp").sampler
    batch = jax.jit(sampler)(jax.random.key(0), pool)
    assert batch.images.shape == (2, 8, 8, 8, 1)
    assert sampler.__qualname__.startswith(sampling.representative.__name__)


@pytest.mark.parametrize(
    "change, kind",
    [({}, networks.ConvNet), ({"network": "mlp"}, networks.MLP),
     ({"network": "lenet"}, networks.LeNet)],
)  # fmt: skip
def test_networks_by_name(change, kind):
    network = build(squares(side=16), **change, dtype="bfloat16").network
    assert isinstance(network, kind) and network.num_classes == 2
    assert network.dtype == jnp.bfloat16
    assert getattr(build().network, "width", 4) == 4 and build().network.depth == 2


def test_each_method_has_its_own_state():
    """States differ in their fields: images, a network in training, the learning rate."""
    images = jnp.zeros((2, 1, 8, 8, 1))
    kinds = {"dm": methods.State, "dc": methods.GradientState, "dsa": methods.GradientState,
             "mtt": methods.TrajectoryState, "cfm": methods.CurriculumState}  # fmt: skip
    for name, kind in kinds.items():
        chosen = options.make(method=name, network="mlp", depth=2)
        method = components.build(squares(), chosen).method
        assert isinstance(jax.eval_shape(method.init, images), kind)


def test_the_strategy_is_that_of_the_data_by_default():
    data = squares(strategy=("crop", "scale"))
    assert build(data).strategy == ("crop", "scale")
    assert build(data, strategy=()).strategy == ()
    function = lambda key, image: -image
    assert build(squares(strategy=function)).strategy is function


def test_the_evaluation_uses_the_network_and_the_training_of_the_options(monkeypatch):
    """One network per seed is trained, on three images of each of two classes."""
    seen = []

    def train(key, network, images, labels, **protocol):
        seen.append((network, labels.shape, protocol))
        return network.init(key, images[:1])

    monkeypatch.setitem(debiased.TRAININGS, "lff", train)
    parts = build(training="lff", network="mlp", epochs=7)
    scores = parts.score(jnp.zeros((2, 3, 8, 8, 1)))
    assert scores.accuracy.shape == (2,) and isinstance(scores.accuracy, np.ndarray)
    network, shape, protocol = seen[0]
    assert network is parts.network and protocol == {"strategy": (), "epochs": 7}
    assert shape == (6,)


def test_random_keys_of_purposes_are_fixed():
    """Appending a purpose does not change the keys of the others."""
    for place, purpose in enumerate(
        ("encoder", "init", "distill", "evaluate", "median", "experts", "representative", "auto")
    ):
        expected = jax.random.fold_in(jax.random.key(3), place)
        key = components.key(dataclasses.replace(TINY, seed=3), purpose)
        assert (jax.random.key_data(key) == jax.random.key_data(expected)).all()


def test_initial_images():
    """Real images sampled uniformly or by weight, noise, or four real images joined into one."""
    data = squares()
    weights = (np.arange(24) < 6).astype(float)
    pool = sampling.reweight(datasets.pool(data), weights)
    known = {np.asarray(image).tobytes() for image in sampling.take(pool, jnp.arange(24))}
    heavy = {np.asarray(image).tobytes() for image in sampling.take(pool, jnp.arange(6))}
    start = lambda **change: components.initial(pool, dataclasses.replace(TINY, **change))
    images_in = lambda images: {
        image.tobytes() for image in np.asarray(images).reshape(-1, 8, 8, 1)
    }
    assert images_in(start()) <= heavy and images_in(start(init="real", ipc=9)) <= known
    assert not images_in(start(init="real", ipc=9)) <= heavy
    noise = start(init="noise", ipc=400)
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    four = components.subset(pool, TINY, weighted=True, ipc=8)
    np.testing.assert_array_equal(start(formation=2), formation.join(four, factor=2))


@pytest.mark.parametrize("name", ["set", "random", "noise"])
def test_baselines_have_the_counts_of_the_set(name):
    """The set has three images of class 0 and one of class 1; baselines follow its labels."""
    pool, labels = datasets.pool(squares()), np.array([0, 0, 0, 1])
    images = np.zeros((4, 8, 8, 1), np.float32)
    sets = components.baselines(images, labels, pool, TINY, (name,))
    shown, shown_labels = sets[name]
    assert shown.shape == images.shape and shown_labels.tolist() == [0, 0, 0, 1]


def test_bad_combinations_are_rejected():
    mesh = parallel.mesh(devices=jax.devices()[:2])
    cfm, mtt = (options.make(method=name, depth=2, ipc=16) for name in ("cfm", "mtt"))
    unhashable = dataclasses.make_dataclass("Own", [], namespace=dict(init=None, apply=None))
    own = methods.Method(None, None)
    make = components.build
    cases = [
        (ValueError, "got 3", lambda: build(squares(side=3))),
        (ValueError, "got 9", lambda: build(formation=9)),
        (ValueError, "got 1×1", lambda: build(network="vgg11")),
        (TypeError, "str", lambda: make(squares(), TINY, network="mlp")),
        (TypeError, "Own", lambda: make(squares(), TINY, network=unhashable())),
        (ValueError, "16 .* class 0 has 12", lambda: make(squares(), cfm)),
        (ValueError, "mtt", lambda: make(squares(), mtt, mesh=mesh)),
        (ValueError, "your own", lambda: make(squares(), TINY, method=own, mesh=mesh)),
    ]
    for error, match, call in cases:
        with pytest.raises(error, match=match):
            call()
    with pytest.warns(UserWarning, match="0.1"):
        make(squares(), options.make(method="cfm", depth=2, ipc=1))
