"""A small pool and small networks that the tests of all methods share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdd import methods, networks, sampling

KEY = jax.random.key(0)
OPTIMIZER = optax.sgd(0.5, momentum=0.5)
NETWORK = networks.ConvNet(num_classes=3, width=4, depth=1)


def linear(classes):
    """Return a network that compiles in a fraction of the time of a ConvNet."""

    def init(key, images):
        return jax.random.normal(key, (images[0].size, max(4, classes))) / images[0].size ** 0.5

    def apply(params, images):
        features = jnp.sin(images.reshape(len(images), -1) @ params)
        return features, features[:, :classes]

    return networks.Functions(init, apply)


LINEAR = linear(3)


def make_pool(counts=(20, 9, 30), weights=None, shape=(8, 8, 3)):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    moments = dict(mean=(0.5,) * shape[-1], std=(0.5,) * shape[-1])
    return sampling.pool(images, labels, num_classes=len(counts), weights=weights, **moments)


POOL = make_pool(weights=np.random.default_rng(1).uniform(0.1, 1, 59))
SAMPLER = jax.jit(functools.partial(sampling.uniform_batch, size=8))
BATCH = SAMPLER(jax.random.key(1), POOL)
initial_real = jax.jit(sampling.initial_real, static_argnames="ipc")
IMAGES = initial_real(jax.random.key(7), POOL, ipc=2)


def run(method, state, steps, *, pool=POOL, sampler=SAMPLER, first=0, chunk_length=1, key=KEY):
    """Return the state and the info of the last step of each chunk, by step."""
    chunks = methods.run(
        key,
        state,
        pool,
        method=method,
        sampler=sampler,
        steps=steps,
        first=first,
        chunk_length=chunk_length,
    )
    return {i: (jax.tree.map(np.array, state), info) for i, state, info in chunks}


def assert_resumes_bit_for_bit(method, state, **options):
    """Run six steps in chunks of two, and again from the second chunk on."""
    whole = run(method, state, 6, chunk_length=2, **options)
    middle = jax.tree.map(jnp.asarray, whole[4][0])
    resumed = run(method, middle, 6, first=4, chunk_length=2, **options)
    equal(resumed[6], whole[6])


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)
