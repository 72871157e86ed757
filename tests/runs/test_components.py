"""Options reach the network, the method, the sampler and the evaluation that they are about."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import methods, networks, sampling
from jaxdd.data import datasets
from jaxdd.devices import parallel
from jaxdd.methods import formation, protocol
from jaxdd.runs import components, options
from jaxdd.runs import methods as run_methods
from jaxdd.runs import networks as named_networks
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


def test_weights_draw_the_batch_or_weigh_a_uniform_one():
    assert build().sampler.func is sampling.weighted_batch and build().sampler.keywords == {
        "size": 8
    }
    for weighting in ("mean", "batch"):
        assert build(weighting=weighting).sampler.func is sampling.uniform_batch


def test_rows_are_made_side_by_side_where_they_share_nothing_that_cannot_be(monkeypatch, mesh):
    monkeypatch.setattr(components.multiprocessing, "cpu_count", lambda: 3)
    for name, of in (("dm", options.DM), ("dc", options.DC), ("dsa", options.DSA)):
        assert components.rows_at_once(of(ipc=2)) == 3, name
    own = build().method
    alone = [components.rows_at_once(of(ipc=2)) for of in (options.MTT, options.CFM)]
    alone += [components.rows_at_once(TINY, method=own), components.rows_at_once(TINY, mesh=mesh)]
    alone += [components.rows_at_once(options.DM(ipc=2, zca=zca)) for zca in ("plain", "weighted")]
    assert alone == [1] * 6


def test_candidates_are_thinned_to_representatives():
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
    found = build(squares(side=16), **change, dtype="bfloat16").network
    assert isinstance(found, kind) and found.dtype == jnp.bfloat16 and found.num_classes == 2
    assert getattr(build().network, "width", 4) == 4 and build().network.depth == 2


def test_each_method_is_its_own():
    """By what their states carry: images, a network in training, the student's learning rate."""
    images = jnp.zeros((2, 1, 8, 8, 1))
    kinds = {"dm": methods.State, "dc": methods.GradientState, "dsa": methods.GradientState,
             "mtt": methods.TrajectoryState, "cfm": methods.CurriculumState}  # fmt: skip
    for name, kind in kinds.items():
        asked = options.make(method=name, network="mlp", depth=2)
        method = components.build(squares(), asked).method
        assert isinstance(jax.eval_shape(method.init, images), kind)


def test_the_strategy_is_the_datas_unless_options_say_otherwise():
    data = squares(strategy=("crop", "scale"))
    assert build(data).strategy == ("crop", "scale")
    assert build(data, strategy=()).strategy == ()
    function = lambda key, image: -image
    assert build(squares(strategy=function)).strategy is function


def test_the_evaluation_is_by_the_networks_and_the_training_asked_for(monkeypatch):
    """A network for each of two seeds, on three images of each of two classes."""
    seen = []

    def train(key, network, images, labels, **protocol):
        seen.append((network, labels.shape, protocol))
        return network.init(key, images[:1])

    monkeypatch.setitem(debiased.TRAININGS, "lff", train)
    made = build(training="lff", network="mlp", epochs=7)
    scores = made.score(jnp.zeros((2, 3, 8, 8, 1)))
    assert scores.accuracy.shape == (2,) and isinstance(scores.accuracy, np.ndarray)
    network, shape, protocol = seen[0]
    assert network is made.network and protocol == {"strategy": (), "epochs": 7}
    assert shape == (6,)


def test_keys_are_a_file_format():
    """One more purpose at the end changes no other key."""
    for place, purpose in enumerate(
        ("encoder", "init", "distill", "evaluate", "median", "experts", "representative", "auto")
    ):
        expected = jax.random.fold_in(jax.random.key(3), place)
        found = components.key(dataclasses.replace(TINY, seed=3), purpose)
        assert (jax.random.key_data(found) == jax.random.key_data(expected)).all()


def test_initial_images():
    """Real ones uniformly or by the weights, noise, or several real ones joined into one."""
    data = squares()
    weights = (np.arange(24) < 6).astype(float)
    pool = sampling.reweight(datasets.pool(data), weights)
    known = {np.asarray(image).tobytes() for image in sampling.take(pool, jnp.arange(24))}
    heavy = {np.asarray(image).tobytes() for image in sampling.take(pool, jnp.arange(6))}
    start = lambda **change: components.initial(pool, dataclasses.replace(TINY, **change))
    held = lambda images: {image.tobytes() for image in np.asarray(images).reshape(-1, 8, 8, 1)}
    assert held(start()) <= heavy and held(start(init="real", ipc=9)) <= known
    assert not held(start(init="real", ipc=9)) <= heavy
    noise = start(init="noise", ipc=400)
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    four = components.subset(pool, TINY, weighted=True, ipc=8)
    np.testing.assert_array_equal(start(formation=2), formation.join(four, factor=2))


def test_decoding_is_one_object_for_plain_images():
    assert run_methods.decode(TINY.formation) is protocol.identity
    found = parts.decode(dataclasses.replace(TINY, formation=3))
    assert found(jnp.zeros((2, 1, 9, 9, 1))).shape == (2, 9, 9, 9, 1)


def test_a_network_of_ones_own_by_name(tmp_path, monkeypatch):
    """A network, and a function of the number of classes, in a module of the working directory."""
    (tmp_path / "mine.py").write_text(
        "from jaxdd import networks\n"
        "def make(classes): return networks.MLP(classes, width=3)\n"
        "made = make(2)\n"
        "wrong = make(5)\n"
        "logits = networks.Functions(make(2).init, lambda p, x: make(2).apply(p, x).logits)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    for name in ("mine:make", "mine:made"):
        assert build(network=name).network == networks.MLP(2, width=3)
    with pytest.raises(ValueError, match="data have 2 classes, found a network of 5"):
        build(network="mine:wrong")
    with pytest.raises(TypeError, match=r"must return \(features \[n, ...\], logits \[n, k\]\)"):
        build(network="mine:logits")
    with pytest.raises(ValueError, match="network mine:absent cannot be imported: .*absent"):
        build(network="mine:absent")
    with pytest.raises(ValueError, match="network no_such_module:x cannot be imported"):
        build(network="no_such_module:x")


def test_names_of_ones_own():
    assert named_networks.qualified_name(functools.partial(squares, 3)) == f"{__name__}:squares"
    assert named_networks.qualified_name(networks.MLP(2)) == "jaxdd.networks.models:MLP()"


def test_what_cannot_be_built():
    with pytest.raises(
        ValueError, match="sides of 4 pixels or more for a ConvNet of depth 2, found 3"
    ):
        build(squares(side=3))
    with pytest.raises(ValueError, match="formation must be at most the images' side 8, found 9"):
        build(formation=9)
    with pytest.raises(ValueError, match="got 1×1"):
        build(network="vgg11")
    with pytest.raises(TypeError, match="init.*and apply.*, found str"):
        components.build(squares(), TINY, network="mlp")
    unhashable = dataclasses.make_dataclass("Own", [], namespace=dict(init=None, apply=None))
    with pytest.raises(TypeError, match="hashable, as a frozen dataclass is, found Own"):
        components.build(squares(), TINY, network=unhashable())
    few = options.make(method="cfm", depth=2, ipc=16)
    with pytest.raises(ValueError, match="16 real images of each class, class 0 has 12"):
        components.build(squares(), few)
    with pytest.warns(UserWarning, match="one image per class has no curriculum: beta stays 0.1"):
        components.build(squares(), options.make(method="cfm", depth=2, ipc=1))
    mesh = parallel.mesh(devices=jax.devices()[:2])
    trajectories = options.make(method="mtt", depth=2)
    with pytest.raises(ValueError, match="dm, dc and dsa can be split over devices, found mtt"):
        components.build(squares(), trajectories, mesh=mesh)
    own = methods.Method(None, None)
    with pytest.raises(ValueError, match="split over devices, found a method of your own"):
        components.build(squares(), TINY, method=own, mesh=mesh)
