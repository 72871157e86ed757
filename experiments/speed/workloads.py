"""Pieces of work of `experiments.speed.benchmark`: compiled programs, their costs, and peers.

Costs are counted by hand. FLOPs are those of matrix products and convolutions, two per
multiply-add, without products with the zero padding. Bytes are counted as if nothing stayed in a
cache between a convolution, its normalisation and its pooling. They bound the time of a program
that writes its activations to memory.
"""

import functools
import importlib.util
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdd import augment, evaluate, kde, methods, networks, sampling
from jaxdd.devices import parallel
from jaxdd.methods import cfm
from jaxdd.weights import contrastive

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_SKLEARN = importlib.util.find_spec("sklearn") is not None
HAS_KEOPS = HAS_TORCH and importlib.util.find_spec("pykeops") is not None
QUERIES = 1000


class Sizes(NamedTuple):
    """Sizes of all pieces of work.

    Attributes:
        classes: number of classes.
        real: real images per class and step.
        ipc: synthetic images per class.
        side: height and width of the images in pixels, which have three channels.
        width: channels of the ConvNet.
        steps: distillation steps in one call.
        epochs: training epochs of an evaluation.
        test: test images of an evaluation.
        batch: images in a contrastive step, each seen twice.
        encoder_width: channels of the contrastive encoder.
        points: samples of the density.
        dimension: dimension of their embeddings.
        dtype: type of the arithmetic in networks.
    """

    classes: int = 10
    real: int = 256
    ipc: int = 10
    side: int = 32
    width: int = 128
    steps: int = 2
    epochs: int = 4
    test: int = 40
    batch: int = 256
    encoder_width: int = 32
    points: int = 60_000
    dimension: int = 128
    dtype: str = "float32"


class Timed(NamedTuple):
    """A timed function: `run()` returns when the work is done; a piece is `scale` of it."""

    run: Callable[[], Any]
    scale: float = 1.0


class Work(NamedTuple):
    """One piece of work.

    Attributes:
        ours: jaxdd's program.
        peers: functions by name that set up the same work in another library.
        flops: FLOPs of one piece of work.
        bytes: bytes moved by one piece of work, see the module.
        peak_bytes: arguments, results and temporaries of the compiled program together.
        compile_seconds: tracing, lowering and compiling.
        precision: precision of the matrix products.
        dtype: type of their factors.
    """

    ours: Timed
    peers: dict[str, Callable[[], Timed]]
    flops: float
    bytes: float
    peak_bytes: int
    compile_seconds: float
    precision: str = "default"
    dtype: str = "float32"


class Cost(NamedTuple):
    """FLOPs and bytes of one image going forward through a network, and of its first layer."""

    flops: float
    bytes: float
    first_flops: float


def convnet_cost(width: int, side: int, *, channels: int = 3, depth: int = 3) -> Cost:
    """Count a ConvNet without its head.

    A 3×3 window on h pixels with padding one meets (3h − 2) pixels along an axis. Every block reads
    its input, writes and reads the convolution's result, and writes the pooled one.
    """
    flops, moved = [], 0
    for _ in range(depth):
        flops.append(2 * channels * width * (3 * side - 2) ** 2)
        moved += 4 * (channels * side**2 + 2 * width * side**2 + width * (side // 2) ** 2)
        channels, side = width, side // 2
    return Cost(sum(flops), moved, flops[0])


def distribution_matching(sizes: Sizes) -> Work:
    """One DM step: draw the batch, new network, augmentation, loss, gradient, update.

    Real images go forward; synthetic ones go forward and back to their pixels, which needs no
    gradient of the weights.
    """
    method = methods.distribution_matching(_network(sizes), _sgd(1.0))
    cost = convnet_cost(sizes.width, sizes.side)
    forward = sizes.classes * (sizes.real + 2 * sizes.ipc)
    costs = forward * cost.flops, forward * cost.bytes
    return _distillation(sizes, method, "distribution_matching", *costs, choose=True)


def gradient_matching(sizes: Sizes) -> Work:
    """One DSA match step of a new network: draw, augmentation, gradients by real and synthetic
    images, their distance, its gradient in the pixels, update.

    In each layer, a real image needs three products: forward, gradient of the weights, and gradient
    of the input (not in the first layer). A synthetic image needs seven: these three, two for
    differentiating the gradient of the weights, one for that of the input, and one back to the
    pixels. In the first layer it needs five.
    """
    network, strategy = networks.ConvNet(sizes.classes, sizes.width), augment.OPERATIONS
    method = methods.gradient_matching(network, _sgd(0.1), outer=1, inner=1, strategy=strategy)
    cost = convnet_cost(sizes.width, sizes.side)
    real = 3 * cost.flops - cost.first_flops
    synthetic = 7 * cost.flops - 2 * cost.first_flops
    flops = sizes.classes * (sizes.real * real + sizes.ipc * synthetic)
    moved = sizes.classes * (3 * sizes.real + 7 * sizes.ipc) * cost.bytes
    return _distillation(sizes, method, "gradient_matching", flops, moved)


def curriculum_matching(sizes: Sizes) -> Work:
    """One CFM step: augmentation, the teacher forward and back to the pixels, moments and filters.

    A covariance of p pixels and d channels costs 2 p d² forward and as much for each of its two
    factors back; a factorisation d³ / 3, and its solution for d + k columns 2 d² (d + k), for the
    real and the synthetic one, the latter differentiated at the cost of two more.
    """
    k, widths = sizes.classes, [3, sizes.width, sizes.width]
    few = sizes._replace(real=2)
    network, pool = networks.ConvNet(k, sizes.width, norm=networks.BatchNorm), _pool(few)
    method = methods.curriculum_matching(network, optax.adam(0.25, 0.5, 0.9), length=sizes.steps)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, *_shape(sizes))))
    guide = jax.jit(functools.partial(cfm.guide, network))(params, pool)
    state = method.init(sampling.initial_noise(jax.random.key(1), pool, ipc=sizes.ipc))
    steps = functools.partial(
        methods.steps, method=method, sampler=cfm.guide_sampler, length=sizes.steps
    )
    cost, pixels = convnet_cost(sizes.width, sizes.side), [sizes.side >> i for i in range(3)]
    moments = sum(6 * k * p**2 * d**2 for p, d in zip(pixels, widths, strict=True))
    filters = sum(4 * (d**3 / 3 + 2 * d**2 * (d + k)) for d in widths)
    peer = lambda module, _: module.curriculum_matching(_torch_pool(module, few), width=sizes.width)
    costs = 2 * k * cost.flops + moments + filters, 2 * k * cost.bytes
    arguments = jax.random.key(2), state, guide, jnp.asarray(0)
    peers = _torch_peers(peer, choose=False)
    return _work(jax.jit(steps), arguments, peers, *costs, pieces=sizes.steps)


def evaluation(sizes: Sizes) -> Work:
    """Train five networks on the synthetic set from scratch, and test them.

    Each layer computes three products per image and epoch, and the first layer two.
    """
    images = jax.random.normal(jax.random.key(1), (sizes.classes, sizes.ipc, *_shape(sizes)))
    labels = jnp.arange(sizes.classes).repeat(sizes.ipc)
    pool, network = _pool(sizes, sizes.test), _network(sizes)
    moments = dict(mean=pool.mean, std=pool.std)
    task = evaluate.task(pool.images, pool.labels, num_classes=sizes.classes, **moments)

    def run(keys, images, task):
        return evaluate.evaluate(keys, network, images, task, epochs=sizes.epochs).accuracy

    def peer(module, wrap):
        tensor = _torch(images.reshape(-1, *_shape(sizes)).transpose(0, 3, 1, 2))
        arguments = _torch_pool(module, sizes, sizes.test), tensor, _torch(labels).long()
        schedule = dict(width=sizes.width, seeds=5, epochs=sizes.epochs)
        return module.evaluation(*arguments, wrap=wrap, **schedule)

    cost = convnet_cost(sizes.width, sizes.side)
    train = sizes.epochs * sizes.classes * sizes.ipc
    flops = 5 * (train * (3 * cost.flops - cost.first_flops) + sizes.test * cost.flops)
    moved = 5 * (3 * train + sizes.test) * cost.bytes
    arguments = jax.random.split(jax.random.key(0), 5), images, task
    peers = _torch_peers(peer, dtype=sizes.dtype)
    work = _work(jax.jit(run), arguments, peers, flops, moved, dtype=sizes.dtype)
    # The command line evaluates networks in threads of one core each; costs are those of `work`.
    threaded = parallel.thread_rows(run)
    return work._replace(ours=Timed(lambda: jax.block_until_ready(threaded(*arguments)), 1))


def contrastive_step(sizes: Sizes) -> Work:
    """One step of the encoder: draw, two augmented copies, loss, gradient, Adam."""
    encoder = contrastive.Encoder(networks.ConvNet(sizes.classes, sizes.encoder_width, norm=None))
    trainer = contrastive.trainer(encoder, optax.adam(1e-3))
    pool, per_class = _pool(sizes), sizes.batch // sizes.classes
    state = trainer.init(jax.random.key(0), sampling.take(pool, jnp.arange(1)))

    def steps(key, state, pool):
        def body(state, key):
            key_draw, key_step = jax.random.split(key)
            batch = sampling.uniform_batch(key_draw, pool, per_class)
            return trainer.step(key_step, state, batch)

        return jax.lax.scan(body, state, jax.random.split(key, sizes.steps))

    def peer(module, wrap):
        settings = dict(width=sizes.encoder_width, batch=sizes.batch, wrap=wrap)
        return module.contrastive(_torch_pool(module, sizes), **settings)[0]

    cost = convnet_cost(sizes.encoder_width, sizes.side)
    features = sizes.encoder_width * (sizes.side // 8) ** 2
    views = 2 * per_class * sizes.classes
    # Convolutions three times, and products with the head (two layers) and among embeddings.
    flops = views * (3 * cost.flops - cost.first_flops + 6 * 128 * (features + 128 + views))
    arguments, peers = (jax.random.key(1), state, pool), _torch_peers(peer)
    moved = 3 * views * cost.bytes
    return _work(jax.jit(steps), arguments, peers, flops, moved, pieces=sizes.steps)


def density(sizes: Sizes) -> Work:
    """Log density of every sample under its class; peers are extrapolated from 1,000 queries.

    A pair of samples is counted once, as jaxdd computes it.
    """
    n, d, k = sizes.points, sizes.dimension, sizes.classes
    labels = jnp.arange(k).repeat(n // k)
    embeddings = jax.random.normal(jax.random.key(0), (len(labels), d)) / math.sqrt(d)
    bandwidth = 0.45
    run = functools.partial(kde.class_log_density, num_classes=k)

    def torch_peer(module, wrap):
        tensor = _torch(embeddings)
        return lambda: module.class_log_density(tensor, k, bandwidth)

    def extrapolated(run):
        queries = min(QUERIES, n // k)
        points = np.asarray(embeddings[: n // k])
        return Timed(functools.partial(run, points[:queries], points, bandwidth), n / queries)

    peers = _torch_peers(torch_peer, choose=False)
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu:
        peers["numpy"] = lambda: extrapolated(_numpy_density)
    if on_cpu and HAS_SKLEARN:
        peers["scikit-learn"] = lambda: extrapolated(_sklearn_density)
    if HAS_KEOPS:
        peers["pykeops"] = lambda: extrapolated(
            lambda queries, points, h: _keops_density(_torch(queries), _torch(points), h)
        )
    flops, moved = d * n * (n // k), 4 * n * (d + 2)
    return _work(
        jax.jit(run), (embeddings, labels, bandwidth), peers, flops, moved, precision="highest"
    )


WORK = {
    "dm": distribution_matching,
    "dsa": gradient_matching,
    "cfm": curriculum_matching,
    "kde": density,
    "evaluate": evaluation,
    "contrastive": contrastive_step,
}
"""Functions from `Sizes` to `Work`, by name."""


def matrix_product(precision: str, dtype: str) -> tuple[Timed, float]:
    """Return a square product, which measures the peak rate, and its FLOPs."""
    n = 2048 if jax.default_backend() == "cpu" else 16384
    square = jax.random.normal(jax.random.key(0), (n, n), dtype)
    product = jax.jit(functools.partial(jnp.matmul, precision=precision))
    return Timed(lambda: jax.block_until_ready(product(square, square))), 2 * n**3


def copy() -> tuple[Timed, float]:
    """Return a copy of 256 MiB, which measures the bandwidth, and its bytes."""
    values = jnp.ones(2**26)
    negate = jax.jit(jnp.negative)
    return Timed(lambda: jax.block_until_ready(negate(values))), 2 * values.nbytes


def _shape(sizes):
    return sizes.side, sizes.side, 3


def _network(sizes):
    return networks.ConvNet(sizes.classes, sizes.width, dtype=jnp.dtype(sizes.dtype))


def _sgd(rate):
    return optax.sgd(rate, momentum=0.5)


def _pixels(sizes, n):
    return np.random.default_rng(0).integers(0, 256, (n, *_shape(sizes)), dtype=np.uint8)


def _pool(sizes, n=None):
    n = 2 * sizes.classes * sizes.real if n is None else n
    labels = np.arange(sizes.classes).repeat(n // sizes.classes)
    fields = dict(num_classes=sizes.classes, mean=(0.5,) * 3, std=(0.5,) * 3)
    return sampling.pool(_pixels(sizes, len(labels)), labels, **fields)


def _distillation(sizes, method, name, flops, moved, choose=False):
    """Return `sizes.steps` steps of a method as one compiled chunk, and the peer of that name."""
    pool, shape = _pool(sizes), (sizes.classes, sizes.ipc, *_shape(sizes))
    sampler = functools.partial(sampling.weighted_batch, size=sizes.real)
    state = method.init(jax.random.normal(jax.random.key(1), shape))
    steps = functools.partial(methods.steps, method=method, sampler=sampler, length=sizes.steps)

    def peer(module, wrap):
        settings = dict(width=sizes.width, real=sizes.real, ipc=sizes.ipc)
        settings |= {"wrap": wrap} if choose else {}
        return getattr(module, name)(_torch_pool(module, sizes), **settings)

    arguments = jax.random.key(2), state, pool, jnp.asarray(0)
    peers = _torch_peers(peer, choose, dtype=sizes.dtype)
    costs = flops, moved
    return _work(jax.jit(steps), arguments, peers, *costs, pieces=sizes.steps, dtype=sizes.dtype)


def _work(function, arguments, peers, flops, moved, *, pieces=1, **product):
    """Compile a function that does `pieces` pieces of work in a call."""
    # Compiled ahead of time, so that the memory analysis belongs to the program that is timed.
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    peak += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    run = lambda: jax.block_until_ready(compiled(*arguments))
    return Work(Timed(run, 1 / pieces), peers, flops, moved, peak, seconds, **product)


def _torch_peers(make, choose=True, dtype="float32"):
    """Return functions that set up the eager peer and, with a choice, the faster wrappers."""
    if not HAS_TORCH:
        return {}
    import torch

    from experiments.speed import torch_peers

    def timed(wrap):
        run = make(torch_peers, wrap if dtype == "float32" else torch_peers.in_bfloat16(wrap))

        def finished():
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return Timed(finished)

    wrappers = list(torch_peers.WRAPPERS.items())[: None if choose else 1]
    return {name: functools.partial(timed, wrap) for name, wrap in wrappers}


def _torch(array):
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    return torch.tensor(np.asarray(array), device=device)


def _torch_pool(module, sizes, n=None):
    n = 2 * sizes.classes * sizes.real if n is None else n
    return module.Pool(_torch(_pixels(sizes, n).transpose(0, 3, 1, 2)), sizes.classes)


def _numpy_density(queries, points, bandwidth):
    squared = (queries**2).sum(1)[:, None] + (points**2).sum(1) - 2 * queries @ points.T
    exponent = squared / (-2 * bandwidth**2)
    top = exponent.max(1)
    log_sum = top + np.log(np.exp(exponent - top[:, None]).sum(1))
    d = points.shape[1]
    return log_sum - np.log(len(points)) - d * np.log(bandwidth * np.sqrt(2 * np.pi))


def _keops_density(queries, points, bandwidth):
    from pykeops.torch import LazyTensor

    x, y = LazyTensor(queries[:, None]), LazyTensor(points[None])
    log_sum = (((x - y) ** 2).sum(-1) / (-2 * bandwidth**2)).logsumexp(1).cpu().numpy()[:, 0]
    d = points.shape[1]
    return log_sum - np.log(len(points)) - d * np.log(bandwidth * np.sqrt(2 * np.pi))


def _sklearn_density(queries, points, bandwidth):
    from sklearn.neighbors import KernelDensity

    return KernelDensity(bandwidth=bandwidth, rtol=0, atol=0).fit(points).score_samples(queries)
