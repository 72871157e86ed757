"""From options to the network, the method, the sampler and the evaluation that they ask for."""

import dataclasses
import functools
import importlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxdd import augment, evaluate, methods, networks, sampling
from jaxdd.data import datasets
from jaxdd.devices import microbatch, parallel
from jaxdd.methods import formation, protocol, zca
from jaxdd.runs.options import NETWORKS, TEACHERS, Options, Resolved
from jaxdd.training import debiased

PURPOSES = (
    "encoder", "init", "distill", "evaluate", "median", "experts", "representative", "auto",
)  # fmt: skip
"""What a run needs keys for. The order is a file format: one more at the end changes no other."""


JUDGES = (*NETWORKS, *TEACHERS)
"""Networks that sets can be scored with; those on -bn have batch norm."""


GUIDED = ("mtt", "cfm")
"""Methods that follow networks which were trained before."""


class Parts(NamedTuple):
    """What sets are distilled and evaluated with; made by `build`, compiled at most once.

    Attributes:
        network: that sets are distilled with and evaluated on.
        strategy: of augmentation.
        method: of distillation.
        sampler: of real batches.
        score: from images `[k, m, h, w, c]`, as networks see them, to their scores, by test images
            with the same `whitening`; what `train` takes besides is given by name.
    """

    network: networks.Network
    strategy: augment.Strategy
    method: methods.Method
    sampler: sampling.Sampler
    score: Callable[..., evaluate.Scores]


def build(
    data: datasets.Benchmark,
    options: Resolved,
    *,
    network: networks.Network | None = None,
    method: methods.Method | None = None,
    mesh: jax.sharding.Mesh | None = None,
    train: Callable[..., Any] | None = None,
    threads: int | None = None,
) -> Parts:
    """Builds the parts of a run, without computing anything.

    Args:
        data: to distil and to score on.
        options: resolved.
        network: one's own, instead of that of the options.
        method: one's own, instead of that of the options.
        mesh: from `parallel.mesh`, to distil and evaluate on its devices; None for one device.
        train: of the networks that score, instead of that of the options; what it takes besides
            is given to `score` by name.
        threads: of a CPU that are left for it; one for each core where omitted.

    Raises:
        ValueError: for options that the images are too small for, a network of other classes, or a
            method that cannot be split over devices.
        TypeError: for a network that does not keep the protocol or cannot be hashed.
    """
    _check_sides(options, min(data.train.images.shape[1:3]))
    if network is None and options.network in JUDGES:
        network = named_network(options, data.num_classes)
    else:
        network = load(options.network, data.num_classes) if network is None else network
    _check_network(network, data)
    strategy = data.strategy if options.strategy is None else options.strategy
    if mesh is not None and (method is not None or options.method in GUIDED):
        found = options.method if method is None else "a method of your own"
        raise ValueError(f"dm, dc and dsa can be split over devices, found {found}")
    if method is not None:
        _check_method(method, data, options)
    elif options.method == "cfm":
        teacher = named_teacher(data, options)
        method = named_method(options, teacher, strategy)
        _check_method(method, data, options)
        _check_curriculum(data, options)
    else:
        method = named_method(options, network, strategy, mesh=mesh, threads=threads)
    sampler = _batches(options, network)
    sampler = sampler if mesh is None else parallel.split_sampler(sampler, mesh)
    train = debiased.TRAININGS[options.training] if train is None else train
    # A network is trained on a device as a whole; on a core of this CPU it is by a thread.
    apart = None if mesh is None or parallel.is_one_cpu(mesh) else mesh
    score = _evaluation(data, options, network, strategy, apart, train, threads)
    return Parts(network, strategy, method, sampler, score)


def cores(options: Options) -> dict[str, Any]:
    """What a run is told of the devices of a CPU, which share images and work if they can."""
    return dict(mesh=None if options.method in GUIDED else parallel.cpu_mesh(), split_from=0)


def rows_at_once(options: Options, *, method: Any = None, mesh: Any = None) -> int:
    """How many rows of a comparison are made side by side: one for each core of a lone CPU.

    One after the other go those that share a mesh or a trained network; whitened ones, since each
    has a pool of its own; and those of a method of one's own, which might factorise several
    matrices at once: LAPACK of jaxlib 0.10 then holds a thread of XLA until others have done their
    part, and two programs that do so wait for each other for good.

    Args:
        options: of the comparison.
        method: one's own, if any.
        mesh: whose devices share the work, if any.
    """
    alone = jax.default_backend() == "cpu" and jax.process_count() == 1 and mesh is None
    plain = method is None and options.method not in GUIDED and options.zca == "none"
    return multiprocessing.cpu_count() if alone and plain else 1


def _check_sides(options, side):
    if options.network.startswith("convnet") and side < 2**options.depth:
        raise ValueError(
            f"images must have sides of {2**options.depth} pixels or more for a ConvNet of depth "
            f"{options.depth}, found {side}; choose a smaller depth or larger images"
        )
    if side < options.formation:
        raise ValueError(
            f"formation must be at most the images' side {side}, found {options.formation}"
        )


def _check_curriculum(data, options):
    """Refuses classes of fewer images than are to be made of them; says where one is all."""
    counts = np.bincount(data.train.labels, minlength=data.num_classes)
    if options.init != "noise" and counts.min() < options.ipc * options.formation**2:
        raise ValueError(
            f"cfm starts from {options.ipc * options.formation**2} real images of each class, "
            f"class {counts.argmin()} has {counts.min()}; choose a smaller ipc, or init noise"
        )
    if options.ipc == 1:
        warnings.warn(
            f"one image per class has no curriculum: beta stays {options.beta}", stacklevel=3
        )


def _check_network(network, data):
    """Applies a network to shapes alone."""
    if not (hasattr(network, "init") and hasattr(network, "apply")):
        raise TypeError(
            "a network must have init(key, images) and apply(params, images), "
            f"found {type(network).__name__}"
        )
    if type(network).__hash__ is None:
        raise TypeError(
            f"a network must be hashable, as a frozen dataclass is, found {type(network).__name__}"
        )
    images = jax.ShapeDtypeStruct((2, *data.train.images.shape[1:]), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), images)
    logits = jax.eval_shape(functools.partial(networks.outputs, network), params, images).logits
    if logits.shape[1] != data.num_classes:
        raise ValueError(
            f"the data have {data.num_classes} classes, found a network of {logits.shape[1]}"
        )


def _check_method(method, data, options):
    """Makes a state of shapes alone, which must hold the images."""
    if not (hasattr(method, "init") and hasattr(method, "step")):
        raise TypeError(f"a method must have init and step, found {type(method).__name__}")
    shape = (data.num_classes, options.ipc, *data.train.images.shape[1:])
    state = jax.eval_shape(method.init, jax.ShapeDtypeStruct(shape, jnp.float32))
    found = getattr(getattr(state, "images", None), "shape", None)
    if found != shape:
        raise TypeError(f"a method's state must hold images of the shape {shape}, found {found}")


def named_network(options: Resolved, num_classes: int) -> networks.Network:
    """The network of the library that options name."""
    dtype = jnp.dtype(options.dtype)
    name, _, norm = options.network.partition("-")
    given: dict[str, Any] = {"norm": networks.BatchNorm} if norm else {}
    if name == "convnet":
        given |= dict(width=options.width, depth=options.depth)
    return networks.NETWORKS[name](num_classes, dtype=dtype, **given)


def named_teacher(data: datasets.Benchmark, options: Resolved) -> networks.Network:
    """The network of the teacher that options of `cfm` name.

    Raises:
        ValueError: images that are too small for it, a network of other classes, or none there.
        TypeError: as in `build`.
    """
    asked = dataclasses.replace(options, network=options.teacher)
    _check_sides(asked, min(data.train.images.shape[1:3]))
    if options.teacher in TEACHERS:
        network = named_network(asked, data.num_classes)
    else:
        network = load(options.teacher, data.num_classes)
    _check_network(network, data)
    return network


def load(name: str, num_classes: int) -> networks.Network:
    """Imports a network, or a function from the number of classes to one.

    Args:
        name: MODULE:ATTRIBUTE; modules in the working directory are found, too.
        num_classes: of the data.

    Raises:
        ValueError: there is no such module or attribute.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"network {name} cannot be imported: {error}") from error
    if hasattr(found, "apply") and hasattr(found, "init") and not isinstance(found, type):
        return found
    return found(num_classes)


def name_of(thing: Any) -> str:
    """Returns the name by which a configuration tells a function or an object of one's own.

    >>> name_of(name_of), name_of(networks.Functions(None, None))
    ('jaxdd.runs.parts:name_of', 'jaxdd.networks.protocol:Functions()')
    """
    thing = getattr(thing, "func", thing)  # of a functools.partial
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}:{thing.__qualname__}"
    return f"{type(thing).__module__}:{type(thing).__qualname__}()"


def decode(options: Resolved) -> protocol.Decode:
    """From stored images to those that networks see; one object, so that programs compile once."""
    if options.formation == 1:
        return protocol.identity
    return functools.partial(formation.split, factor=options.formation)


@functools.cache  # equal options give one object, so that programs compile once
def named_method(
    options: Resolved,
    network: networks.Network,
    strategy: augment.Strategy,
    *,
    groups: int = 1,
    mesh: jax.sharding.Mesh | None = None,
    threads: int | None = None,
) -> methods.Method:
    """The method of the library that options name, with a loss for each of `groups` bias groups.

    The network is that of the teacher for `cfm`.
    """
    if mesh is not None:
        split = parallel.split_network(network, mesh)
        return parallel.replicate_state(named_method(options, split, strategy, groups=groups), mesh)
    common: dict[str, Any] = dict(decode=decode(options))
    if options.method == "cfm":
        length = max(options.steps // (options.ipc * options.class_parts), 1)
        rate = optax.cosine_decay_schedule(options.learning_rate, length)
        common |= dict(
            length=length, beta=options.beta, floor=options.beta_floor, matching=options.eta,
            signal=options.signal, parts=options.class_parts,
            strategy=_cropping(options, strategy),
        )  # fmt: skip
        return methods.curriculum_matching(network, optax.adam(rate, b1=0.5, b2=0.9), **common)
    given = network, optax.sgd(options.learning_rate, momentum=0.5)
    if options.method == "dm":
        # The activations of a core that has a program of its own fit its own cache.
        common |= dict(activation_bytes=microbatch.CORE_BYTES if threads == 1 else None)
        return methods.distribution_matching(*given, strategy=strategy, groups=groups, **common)
    if options.method == "mtt":
        steps, rate = options.syn_steps, options.lr_teacher
        return methods.trajectory_matching(
            *given, inner=steps, rate=rate, strategy=strategy, **common
        )
    common |= dict(outer=options.outer, inner=options.inner, groups=groups)
    return methods.gradient_matching(
        *given, strategy=strategy if options.method == "dsa" else (), **common
    )


def _cropping(options, strategy):
    """The augmentation of `cfm` in the place of operations, flips where these have them."""
    if callable(strategy) or not strategy:
        return strategy
    return functools.partial(augment.resized_crop, least=options.crop, flip="flip" in strategy)


@functools.cache
def _batches(options, network):
    """The sampler of batches, of representatives if candidates are asked for."""
    batch = sampling.weighted_batch if options.weighting == "draw" else sampling.uniform_batch
    if options.candidates is None:
        return functools.partial(batch, size=options.batch_size)

    def embed(images):
        params = network.init(key(options, "representative"), images[:1])
        return networks.outputs(network, params, images).features

    candidates = functools.partial(batch, size=options.candidates)
    return sampling.representative(candidates, embed, size=options.batch_size)


@functools.cache
def group_sampler(options: Resolved, *, groups: int) -> sampling.Sampler:
    """The sampler of a pool of bias groups, for methods with a loss of each."""
    size = -(-options.batch_size // groups)
    return sampling.grouped(functools.partial(sampling.uniform_batch, size=size), groups=groups)


def _evaluation(data, options, network, strategy, mesh, train, threads):
    task = datasets.task(data._replace(strategy=strategy))
    compiled = _evaluator(network, train, options.epochs, mesh, threads)
    keys = jax.random.split(key(options, "evaluate"), options.eval_seeds)

    def score(images, whitening=None, labels=None, **arrays):
        seen = zca.whiten_task(task, whitening)
        found = compiled(keys, *replicated((jnp.asarray(images), seen, labels, arrays), mesh))
        return jax.tree.map(np.asarray, found)

    return score


@functools.cache
def _evaluator(network, train, epochs, mesh, threads):
    """The program that scores images, for all tasks."""
    protocol = functools.partial(evaluate.evaluate, train=train, epochs=epochs)

    def evaluation(keys, images, task, labels, arrays):
        return protocol(keys, network, images, task, labels=labels, arrays=arrays)

    if mesh is None:
        return parallel.thread_rows(evaluation, threads=threads)
    return jax.jit(parallel.map_rows(evaluation, mesh))


def key(options: Resolved, purpose: str) -> jax.Array:
    """The random key of a purpose out of `PURPOSES`."""
    return jax.random.fold_in(jax.random.key(options.seed), PURPOSES.index(purpose))


def replicated(tree: Any, mesh: jax.sharding.Mesh | None) -> Any:
    """Puts arrays on every device of a mesh, if there is one."""
    return tree if mesh is None else parallel.replicate(tree, mesh)


def subset(
    pool: sampling.Pool, options: Resolved, *, weighted: bool, ipc: int | None = None
) -> jax.Array:
    """The baseline: real images `[k, ipc, h, w, c]`, drawn uniformly or by the pool's weights."""
    return sampling.initial_real(
        key(options, "init"), pool, ipc=ipc or options.ipc, weighted=weighted
    )


def initial(
    pool: sampling.Pool, options: Resolved, *, whitening: zca.Whitening | None = None
) -> jax.Array:
    """The images `[k, ipc, h, w, c]` that a distillation starts from, as networks see them."""
    if options.init == "noise":
        return sampling.initial_noise(key(options, "init"), pool, ipc=options.ipc)
    ipc = options.ipc * options.formation**2
    images = subset(pool, options, weighted=options.init == "weighted", ipc=ipc)
    return formation.join(zca.whiten(images, whitening), factor=options.formation)


def beside(
    images: ArrayLike,
    labels: np.ndarray,
    pool: sampling.Pool,
    options: Resolved,
    which: Sequence[str],
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """A set and what stands beside it: images `[m, h, w, c]` and labels `[m]`, as many in each.

    Args:
        images: of the set, `[m, h, w, c]`, as networks see them.
        labels: `[m]` of it.
        pool: of the data that it stands for, as networks see them.
        options: whose seed counts.
        which: set, random, noise.
    """
    k = pool.num_classes
    counts = np.bincount(labels, minlength=k)
    made = {"set": (jnp.asarray(images), jnp.asarray(labels))}
    kept = np.concatenate([np.arange(n) + i * counts.max() for i, n in enumerate(counts)])
    others = jnp.arange(k).repeat(counts.max())[kept]
    start = key(options, "init")
    uniform = sampling.reweight(pool, jnp.ones(len(pool.images)))
    drawn = {
        "random": lambda ipc: sampling.initial_real(start, uniform, ipc=ipc),
        "noise": lambda ipc: sampling.initial_noise(start, pool, ipc=ipc),
    }
    for name in [name for name in drawn if name in which]:
        found = drawn[name](int(counts.max()))
        made[name] = found.reshape(-1, *found.shape[2:])[kept], others
    return made
