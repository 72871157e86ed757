"""Builders of methods are cached on the options that they use."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from jaxdd import networks
from jaxdd.methods import protocol
from jaxdd.runs import methods, options

NETWORK = networks.MLP(2)


@pytest.mark.parametrize("name", methods.METHODS)
def test_only_options_of_the_method_rebuild_it(name):
    chosen = options.make(method=name, ipc=2)
    build = lambda **change: methods.build(dataclasses.replace(chosen, **change), NETWORK, ())
    same = dict(seed=1, epochs=3, chunk=5, save_every=1.0, temperature=2.0)
    same |= {} if name == "cfm" else dict(steps=8)
    assert build(**same) is build()
    assert build(learning_rate=0.5) is not build() and build(formation=2) is not build()


def test_the_registries_of_options_and_builders_agree():
    assert methods.METHODS.keys() == options.OPTIONS.keys()


def test_gradient_matching_towards_the_barycentre_is_that_of_the_whole_batch():
    """With groups of equal weight the gradient of the batch is the mean of the groups'."""
    build = functools.partial(methods.build, options.DC(ipc=2), NETWORK, ())
    assert build(groups=3, group_loss="barycentre") is build()
    assert build(groups=3) is not build()


def test_devices_get_one_method(mesh):
    build = lambda seed: methods.build(options.DM(ipc=2, seed=seed), NETWORK, (), mesh=mesh)
    assert build(0) is build(1)


def test_decoding():
    assert methods.decode(1) is protocol.identity and methods.decode(3) is methods.decode(3)
    images = jax.eval_shape(methods.decode(3), jnp.zeros((2, 1, 9, 9, 1)))
    assert images.shape == (2, 9, 9, 9, 1)
