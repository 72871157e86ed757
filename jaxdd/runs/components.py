"""Components of a run: network, method, sampler and evaluation, built once from its options."""

import functools
import multiprocessing
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import augment, evaluate, methods, networks, sampling
from jaxdd.data import datasets
from jaxdd.devices import parallel
from jaxdd.methods import formation, zca
from jaxdd.runs import methods as run_methods
from jaxdd.runs import networks as named_networks
from jaxdd.runs.options import CFM, DM
from jaxdd.training import debiased

# Purposes of the random keys of a run. New ones are appended, so that no other key changes.
_PURPOSES = (
    "encoder", "init", "distill", "evaluate", "median", "experts", "representative", "auto", "bias",
)  # fmt: skip


class Components(NamedTuple):
    """Network, method, sampler and evaluation of a run.

    Attributes:
        network: network for distillation and evaluation.
        strategy: augmentation strategy.
        method: method of distillation.
        sampler: sampler of real batches.
        score: `score(images, whitening=None, labels=None, **arrays)` trains networks on decoded
            images `[k, m, h, w, c]` and returns their `evaluate.Scores` on the test set. The test
            set is whitened in the same way. `arrays` are passed on to the training.
    """

    network: networks.Network
    strategy: augment.Strategy
    method: methods.Method
    sampler: sampling.Sampler
    score: Callable[..., evaluate.Scores]


def build(
    data: datasets.Benchmark,
    options: DM,
    *,
    network: networks.Network | None = None,
    method: methods.Method | None = None,
    mesh: jax.sharding.Mesh | None = None,
    train: Callable[..., Any] | None = None,
    threads: int | None = None,
) -> Components:
    """Build and check the components of a run, without computing anything.

    Arguments after the options replace what these say: a network or a method of your own, devices
    from `parallel.mesh`, the training of the evaluation networks, and the number of CPU threads of
    the method, one per core by default.
    """
    shape, k = data.train.images.shape[1:], data.num_classes
    side = min(shape[:2])
    named_networks.check_size(options.network, options.depth, side)
    if side < options.formation:
        raise ValueError(
            f"formation must be at most the image side of {side}, got {options.formation}"
        )
    if network is None:
        network = named_networks.from_options(options, k)
    named_networks.check(network, shape, k)
    strategy = data.strategy if options.strategy is None else options.strategy
    if mesh is not None and (method is not None or run_methods.follows(options)):
        name = options.method if method is None else "your own method"
        raise ValueError(f"{run_methods.direct()} can be split over devices, got {name}")
    if method is None:
        method = _build_method(data, options, network, strategy, mesh, threads)
    _check_method(method, (k, options.ipc, *shape))
    seed = None if options.candidates is None else options.seed
    sampler = _sampler(options.weighting, options.batch_size, options.candidates, network, seed)
    sampler = sampler if mesh is None else parallel.split_sampler(sampler, mesh)
    train = debiased.TRAININGS[options.training] if train is None else train
    score = _scorer(data._replace(strategy=strategy), options, network, mesh, train)
    return Components(network, strategy, method, sampler, score)


def _build_method(data, options, network, strategy, mesh, threads):
    """Build the method of the options; for cfm it uses the network of the teacher."""
    if not isinstance(options, CFM):
        return run_methods.build(options, network, strategy, mesh=mesh, threads=threads)
    shape, k = data.train.images.shape[1:], data.num_classes
    named_networks.check_size(options.teacher, options.depth, min(shape[:2]))
    teacher = run_methods.teacher_network(options, k)
    named_networks.check(teacher, shape, k)
    _check_curriculum(options, data.train.labels, k)
    return run_methods.build(options, teacher, strategy)


def _scorer(data, options, network, mesh, train):
    """Return `Components.score`."""
    # Each device trains whole networks. On a single CPU, each network is trained by one thread.
    if mesh is not None and parallel.is_one_cpu(mesh):
        mesh = None
    evaluator = _evaluator(network, train, options.epochs, mesh)
    keys = jax.random.split(key(options, "evaluate"), options.eval_seeds)
    return functools.partial(_score, evaluator, keys, datasets.task(data), mesh)


def _check_method(method, shape):
    """Trace the initial state of a method, which must hold the images."""
    if not (hasattr(method, "init") and hasattr(method, "step")):
        raise TypeError(f"a method must have init and step, got {type(method).__name__}")
    if (state_shape := _state_shape(method.init, shape)) != shape:
        raise TypeError(f"state.images of a method must have shape {shape}, got {state_shape}")


def _check_curriculum(options, labels, num_classes):
    """Raise ValueError if a class has too few real images for cfm to start from."""
    counts = np.bincount(labels, minlength=num_classes)
    needed = options.ipc * options.formation**2
    if options.init != "noise" and counts.min() < needed:
        raise ValueError(
            f"cfm starts from {needed} real images per class, class {counts.argmin()} has "
            f"{counts.min()}; choose a smaller ipc, or init='noise'"
        )
    if options.ipc == 1:
        warnings.warn(f"with ipc=1 there is no curriculum: beta stays {options.beta}", stacklevel=4)


@functools.cache
def _state_shape(init, shape):
    state = jax.eval_shape(init, jax.ShapeDtypeStruct(shape, jnp.float32))
    return getattr(getattr(state, "images", None), "shape", None)


@functools.cache
def _sampler(weighting, batch_size, candidates, network, seed):
    """Return the sampler of batches, or of the most representative of more candidates."""
    batch = sampling.weighted_batch if weighting == "draw" else sampling.uniform_batch
    if candidates is None:
        return functools.partial(batch, size=batch_size)

    def embed(images):
        params = network.init(_key(seed, "representative"), images[:1])
        return networks.outputs(network, params, images).features

    candidates = functools.partial(batch, size=candidates)
    return sampling.representative(candidates, embed, size=batch_size)


@functools.cache
def _evaluator(network, train, epochs, mesh):
    """Return the compiled evaluation of a set, for any task."""
    protocol = functools.partial(evaluate.evaluate, train=train, epochs=epochs)

    def evaluation(keys, images, task, labels, arrays):
        return protocol(keys, network, images, task, labels=labels, arrays=arrays)

    if mesh is None:
        return parallel.thread_rows(evaluation)
    return jax.jit(parallel.map_rows(evaluation, mesh))


def _score(evaluator, keys, task, mesh, images, whitening=None, labels=None, **arrays):
    task = zca.whiten_task(task, whitening)
    scores = evaluator(keys, *parallel.replicate((jnp.asarray(images), task, labels, arrays), mesh))
    return jax.tree.map(np.asarray, scores)


# --- keys, devices and images ------------------------------------------------------------------


def key(options: DM, purpose: str) -> jax.Array:
    """Return the random key for a purpose, such as "init" or "distill"."""
    return _key(options.seed, purpose)


def _key(seed, purpose):
    # `jax.random.key` would add `jax_random_seed_offset`.
    whole = jax.random.wrap_key_data(jnp.array([0, seed], jnp.uint32), impl="threefry2x32")
    return jax.random.fold_in(whole, _PURPOSES.index(purpose))


def cpu_devices(options: DM) -> dict[str, Any]:
    """Return arguments of `pipeline.run` that share images and work among the devices of a CPU."""
    return dict(mesh=None if run_methods.follows(options) else parallel.cpu_mesh(), split_from=0)


def uses_one_cpu(mesh: Any) -> bool:
    """Return whether a run with this mesh, or None, uses a single CPU as one device."""
    return jax.default_backend() == "cpu" and jax.process_count() == 1 and mesh is None


def rows_at_once(options: DM, *, method: Any = None, mesh: Any = None) -> int:
    """Return how many rows of a comparison run at once: one per core of a single CPU.

    Rows run one at a time if they share a mesh or a trained network, are whitened (each has its own
    pool), or use a custom method: in jaxlib 0.10, batched factorisations of two programs at once
    can deadlock, because LAPACK waits in an XLA thread for other threads of the same pool.
    """
    independent = method is None and not run_methods.follows(options) and options.zca == "none"
    return multiprocessing.cpu_count() if uses_one_cpu(mesh) and independent else 1


def subset(
    pool: sampling.Pool, options: DM, *, weighted: bool, ipc: int | None = None
) -> jax.Array:
    """Return real images `[k, ipc, h, w, c]`, sampled uniformly or by the weights of the pool."""
    ipc = options.ipc if ipc is None else ipc
    return sampling.initial_real(key(options, "init"), pool, ipc=ipc, weighted=weighted)


def initial(
    pool: sampling.Pool, options: DM, *, whitening: zca.Whitening | None = None
) -> jax.Array:
    """Return the images `[k, ipc, h, w, c]` that a distillation starts from."""
    if options.init == "noise":
        return sampling.initial_noise(key(options, "init"), pool, ipc=options.ipc)
    ipc = options.ipc * options.formation**2
    images = subset(pool, options, weighted=options.init == "weighted", ipc=ipc)
    images = zca.whiten(images, whitening, pool.mean, pool.std)
    return formation.join(images, factor=options.formation)


def baselines(
    images: ArrayLike, labels: np.ndarray, pool: sampling.Pool, options: DM, names: Sequence[str]
) -> Mapping[str, tuple[jax.Array, jax.Array]]:
    """Return a set and baselines of the same size: images `[m, h, w, c]` and labels `[m]` each.

    Args:
        images: images of the set, `[m, h, w, c]`, as networks see them.
        labels: labels of the set, `[m]`.
        pool: real images, as networks see them.
        options: options of the run, of which the seed is used.
        names: any of set, random (real images) and noise.
    """
    counts = np.bincount(labels, minlength=pool.num_classes)
    start, ipc = key(options, "init"), int(counts.max())
    # Baselines are sampled with the size of the largest class; each class keeps its first images.
    rows = np.concatenate([np.arange(n) + i * ipc for i, n in enumerate(counts)])
    flat = lambda x: (x.reshape(-1, *x.shape[2:])[rows], jnp.asarray(rows // ipc))
    sets = {"set": (jnp.asarray(images), jnp.asarray(labels))}
    if "random" in names:
        uniform = sampling.reweight(pool, jnp.ones(len(pool.images)))
        sets["random"] = flat(sampling.initial_real(start, uniform, ipc=ipc))
    if "noise" in names:
        sets["noise"] = flat(sampling.initial_noise(start, pool, ipc=ipc))
    return sets
