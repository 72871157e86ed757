"""Benchmarks at a quarter of their pixels, for experiments of minutes on a CPU."""

import functools
import pathlib
from typing import Any

import jax
import numpy as np
import optax

from jaxdd import evaluate, methods, networks, sampling, weights
from jaxdd.data import benchmarks, datasets

IPC, EPOCHS, NETWORKS = 10, 150, 3
STUDENT = networks.ConvNet(10, 16, 2)
"""Network that sets are distilled with and evaluated on."""


def load(name: str, data_dir: pathlib.Path | None, **fields: Any) -> datasets.Benchmark:
    """Return 10,000 training and 2,000 test images of a benchmark at half height and width."""
    data = benchmarks.load(name, data_dir=data_dir, **fields)
    return data._replace(train=halve(data.train, 10_000), test=halve(data.test, 2_000))


def halve(split: datasets.Dataset, count: int) -> datasets.Dataset:
    """Return the first images at half height and width, by means of 2×2 pixels."""
    first = datasets.select(split, np.arange(count))
    n, height, width, channels = first.images.shape
    pixels = first.images.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    return first._replace(images=np.rint(pixels).astype(np.uint8))


def weigh(kind: str, key: jax.Array, pool: sampling.Pool, data: datasets.Benchmark) -> jax.Array:
    """Return the weights of a pool by name: plain, density, auto or oracle."""
    if kind == "plain":
        return pool.weights
    if kind == "oracle":
        count = data.num_attributes
        return weights.oracle(pool, data.train.attributes, num_attributes=count)
    by_kind = {"density": weights.by_density, "auto": weights.choose}[kind]
    return by_kind(key, pool, strategy=data.strategy).weights


def match_distribution(
    key: jax.Array, start: jax.Array, pool: sampling.Pool, strategy: Any, *, steps: int
) -> jax.Array:
    """Distil a set `[k, ipc, h, w, c]` by distribution matching from initial images."""
    method = methods.distribution_matching(STUDENT, optax.sgd(1.0, 0.5), strategy=strategy)
    sampler = functools.partial(sampling.weighted_batch, size=64)
    loop = dict(method=method, sampler=sampler, steps=steps)
    return run(key, method.init(start), pool, **loop).images


def run(*arguments: Any, **options: Any) -> Any:
    """Return the last state of `methods.run`."""
    *_, (_, state, _) = methods.run(*arguments, **options)
    return state


def score(images: jax.Array, task: evaluate.Task, network: Any = STUDENT, **training: Any) -> Any:
    """Return the scores of a set as in a result, by three networks."""
    keys = jax.random.split(jax.random.key(1), NETWORKS)
    return evaluate.summary(
        evaluate.evaluate(keys, network, images, task, epochs=EPOCHS, **training)
    )


def score_network(network: networks.Network, params: Any, task: evaluate.Task) -> dict[str, float]:
    """Return the accuracy of a trained network, overall and on bias-conflicting samples."""
    predict = jax.jit(functools.partial(evaluate.predict, network))
    predictions = predict(params, task.images, mean=task.mean, std=task.std)
    scores = evaluate.score(
        predictions,
        task.labels,
        task.attributes,
        task.aligned,
        num_classes=task.num_classes,
        num_attributes=task.num_attributes,
    )
    return {name: float(getattr(scores, name)) for name in ("accuracy", "conflicting")}
