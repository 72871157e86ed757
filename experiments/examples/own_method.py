"""Distils coloured digits along a loss of one's own, with a network of plain functions."""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxdd import distill, networks, sampling
from jaxdd.data import benchmarks, datasets


def init(key: jax.Array, images: jax.Array) -> jax.Array:
    return jax.random.normal(key, (images[0].size, 64)) / images[0].size ** 0.5


def apply(params: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    return (features := jax.nn.relu(images.reshape(len(images), -1) @ params)), features[:, :10]


def moments(real: jax.Array, synthetic: jax.Array, weights: jax.Array) -> jax.Array:
    """Compares the mean and the standard deviation of every feature."""
    mean = jnp.einsum("kb,kbd->kd", weights, real)
    variance = jnp.einsum("kb,kbd->kd", weights, (real - mean[:, None]) ** 2)
    spread = jnp.sqrt(variance + 1e-6) - jnp.sqrt(synthetic.var(1) + 1e-6)
    return jnp.sum((mean - synthetic.mean(1)) ** 2 + spread**2)


def main(*, ipc: int = 10, steps: int = 100, size: int = 64) -> list[float]:
    pool = datasets.pool(benchmarks.load("cdigits", conflict=0.1))
    network, optimizer = networks.Functions(init, apply), optax.sgd(2.0, 0.5)
    method = distill.matching(network, optimizer, loss=moments, strategy=("crop",))
    draw = functools.partial(sampling.uniform_batch, size=size)
    state = method.init(sampling.initial_noise(jax.random.key(0), pool, ipc=ipc))
    run = distill.run(jax.random.key(1), state, pool, method=method, draw=draw, steps=steps)
    return [float(loss) for _, _, info in run for loss in info["loss"]]


if __name__ == "__main__":
    print(f"loss {(losses := main())[0]:.3f} at first, {losses[-1]:.3f} at last")
