"""Networks that options name."""

import functools
import sys

import optax
import pytest

from jaxdd import methods, networks
from jaxdd.runs import networks as named_networks


def test_networks_by_name():
    build = functools.partial(named_networks.build, num_classes=3, width=4, depth=2)
    assert build("convnet") == networks.ConvNet(3, 4, 2)
    assert build("convnet-bn").norm is networks.BatchNorm and build("mlp") == networks.MLP(3)


def test_networks_of_a_module_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(
        "from jaxdd import networks\n"
        "def make(classes): return networks.MLP(classes, width=3)\n"
        "network = make(2)\n"
        "logits = networks.Functions(network.init, lambda p, x: network.apply(p, x).logits)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    load = lambda name: named_networks._load(f"own_networks:{name}", 2)
    assert load("make") == load("network") == networks.MLP(2, width=3)
    named_networks.check(load("network"), (8, 8, 1), 2)
    with pytest.raises(ValueError, match="5 classes, got 2"):
        named_networks.check(load("network"), (8, 8, 1), 5)
    with pytest.raises(TypeError, match=r"features"):
        named_networks.check(load("logits"), (8, 8, 1), 2)
    with pytest.raises(ValueError, match="own_networks:absent"):
        load("absent")
    with pytest.raises(ValueError, match="no_such_module:x"):
        named_networks._load("no_such_module:x", 2)


def test_arguments_of_your_own_functions_and_objects():
    scale = lambda x: 2 * x
    method = lambda loss, rate: methods.distribution_matching(
        networks.ConvNet(2, width=4, depth=1), optax.sgd(rate), strategy=("crop",), loss=loss
    )
    described = lambda *args: named_networks.arguments(method(*args).step)
    known = described(scale, 1.0)
    assert known == described(scale, 1.0) and "test_arguments" in known["loss"]
    assert {x for x in known if known[x] != described(scale, 2.0)[x]} == {"optimizer"}
    assert {x for x in known if known[x] != described(abs, 1.0)[x]} == {"loss"}
    assert max(map(len, known.values())) <= 80 and "0x" not in str(known)
    assert named_networks.arguments(functools.partial(scale, 3)) == {"argument 0": "3"}
    assert named_networks.arguments(None) == {}


def test_names_of_your_own_functions_and_objects():
    partial = functools.partial(test_networks_by_name, 3)
    assert named_networks.qualified_name(partial) == f"{__name__}:test_networks_by_name"
    assert named_networks.qualified_name(networks.MLP(2)) == "jaxdd.networks.models:MLP()"
