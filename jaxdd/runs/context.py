"""Arguments of the stages of a run: the `Run`, its `Context`, and the `Source` of a set."""

import contextlib
import dataclasses
import functools
import pathlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxdd import methods, networks, sampling
from jaxdd.data import datasets, files
from jaxdd.devices import parallel, split_pool
from jaxdd.methods import zca
from jaxdd.runs import components, programs, progress, timing
from jaxdd.runs import methods as run_methods
from jaxdd.runs import networks as named_networks
from jaxdd.runs.components import Components
from jaxdd.runs.folder import embedding_file, labels_file
from jaxdd.runs.options import DM, to_config

SPLIT_FROM = 2**30
"""Minimum size in bytes of a pool for splitting it over devices; smaller pools are copied."""


class Interrupted(Exception):
    """The user stopped the run; its state is saved."""


@dataclasses.dataclass(frozen=True)
class _Interruption:
    """Ctrl-C during a distillation: the first one stops it after the current chunk of steps.

    A second Ctrl-C, or one while nothing is being distilled, raises KeyboardInterrupt.

    Attributes:
        requested: whether the user wants the run to stop.
        active: names of the distillations that are running.
    """

    requested: threading.Event = dataclasses.field(default_factory=threading.Event)
    active: set[str] = dataclasses.field(default_factory=set)

    @contextlib.contextmanager
    def deferred(self, *names: str) -> Iterator[None]:
        """Defer Ctrl-C while the block runs; `names` are the distillations in it."""
        # Python handles signals in the main thread only, where handlers must also be set. Rows that
        # run in other threads check `requested` after their current chunk.
        previous = signal.getsignal(signal.SIGINT)
        in_main_thread = threading.current_thread() is threading.main_thread()

        def stop(*_):
            self.requested.set()
            signal.signal(signal.SIGINT, previous)  # a second Ctrl-C does not wait for the chunk
            if not self.active:
                raise KeyboardInterrupt

        if in_main_thread:
            signal.signal(signal.SIGINT, stop)
        self.active.update(names)
        try:
            yield
        finally:
            self.active.difference_update(names)
            if in_main_thread:
                signal.signal(signal.SIGINT, previous)


@dataclasses.dataclass(frozen=True)
class Context:
    """Data and settings that all stages of a run or a comparison share.

    Attributes:
        data: training and test set.
        options: options of the run.
        components: network, method, sampler and evaluation.
        pool: all training samples, with uniform weights.
        index: from arrays to a pool, on the devices of the run.
        own_method: name of a custom method, or None.
        own_arguments: what a custom method and a custom network were made with.
        custom_weights: `[n]` weights of the user, or None.
        embedding: `[n, d]` embedding of the training samples by the user, or None.
        bias_labels: bias labels of some training images by the user, or None.
        mesh: devices that share the work, or None.
        threads: CPU threads of each row, or None for all.
        report: reports progress; rows call it one at a time.
        interruption: Ctrl-C of the process.
        settings: settings of JAX and XLA that results depend on, if they are not the defaults.
    """

    data: datasets.Benchmark
    options: DM
    components: Components
    pool: sampling.Pool
    index: Callable[..., sampling.Pool]
    own_method: str | None
    own_arguments: dict[str, dict[str, str]]
    custom_weights: np.ndarray | None
    embedding: np.ndarray | None
    bias_labels: labels_file.BiasLabels | None
    mesh: jax.sharding.Mesh | None
    threads: int | None
    report: progress.Report
    interruption: _Interruption
    settings: dict[str, str]

    @property
    def follows(self) -> str | None:
        """Kind of networks that the method follows, or None."""
        return None if self.own_method else run_methods.follows(self.options)

    @functools.cached_property
    def data_digest(self) -> str:
        """Digest of the data set."""
        return datasets.digest(self.data)

    def config(self, command: str, **fields: Any) -> dict[str, Any]:
        """Return the configuration of a run, which must be equal when the run is resumed."""
        strategy = self.components.strategy
        named = named_networks.qualified_name(strategy) if callable(strategy) else list(strategy)
        if self.own_method is not None:
            fields["own_method"] = self.own_method
        fields |= self.own_arguments
        if self.custom_weights is not None:
            fields["weights"] = files.digest(np.asarray(self.custom_weights, np.float32))
        if self.embedding is not None:
            fields["embedding"] = files.digest(self.embedding)
        if self.bias_labels is not None:
            names = np.array(self.bias_labels.names, str)
            fields["bias_labels"] = files.digest(self.bias_labels.attributes, names)
        if self.settings:
            fields["settings"] = self.settings
        return {
            "command": command, "dataset": self.data.name, "data": self.data_digest, **fields,
            "augmentation": named, **to_config(self.options),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, or a row of a comparison, while it is being computed.

    Attributes:
        context: what the rows of a comparison share.
        folder: run folder, with its manifest.
        name: name of the weighting or the row, for messages.
        seconds: wall time by stage, which the stages add to.
    """

    context: Context
    folder: pathlib.Path
    name: str
    seconds: dict[str, float]

    def timed(self, stage: str) -> contextlib.AbstractContextManager[None]:
        """Add the wall time of a block to a stage."""
        return timing.timed(self.seconds, stage)


class Source(NamedTuple):
    """Weights, data, sampler and method of one distillation.

    Attributes:
        weights: `[n]` of the training samples.
        pool: pool that batches are sampled from.
        sampler: sampler of batches.
        method: method of distillation.
        choice: record of the choice of weights, or None.
        whitening: whitening of the images of the pool, or None.
    """

    weights: jax.Array
    pool: Any
    sampler: Any
    method: methods.Method
    choice: dict[str, Any] | None = None
    whitening: zca.Whitening | None = None


class Setup(TypedDict, total=False):
    """What `pipeline.run` and `pipeline.compare` may get in addition to data and options.

    Attributes:
        weights: `[n]` non-negative weights of the training samples, of the weighting "custom".
        embedding: `[n, d]` embedding of the training samples, for example by a pretrained network,
            for the weightings "auto", "embedding" and "labels".
        bias_labels: bias labels of some training images, for the weighting "labels". Defaults to
            those of the data, if they have any.
        network: your own, see `networks.Network`.
        method: your own, see `methods.Method`, with network, optimizer and augmentation built in.
        mesh: from `parallel.mesh`, devices that share the work; one device by default.
        split_from: bytes of training images from which the devices of the mesh split them, unless
            images are whitened; smaller data are copied to each. `SPLIT_FROM` by default.
        report: function that is called as the run advances, see `progress.Report`; reports nothing
            by default.
    """

    weights: ArrayLike | None
    embedding: ArrayLike | None
    bias_labels: labels_file.BiasLabels | None
    network: networks.Network | None
    method: methods.Method | None
    mesh: jax.sharding.Mesh | None
    split_from: int
    report: progress.Report


def build_context(
    data: datasets.Benchmark, options: DM, *, threads: int | None = None, **setup: Unpack[Setup]
) -> Context:
    """Build what the stages of a run share, and check that options and data fit together.

    `threads` is the number of CPU threads of each row, or None for all.
    """
    network, method, mesh = (setup.get(name) for name in ("network", "method", "mesh"))
    weights, split_from = setup.get("weights"), setup.get("split_from", SPLIT_FROM)
    if network is not None:
        options = dataclasses.replace(options, network=named_networks.qualified_name(network))
    if options.zca != "none":
        zca.check_size(data.train.images.shape[1:])
    parts = components.build(
        data, options, network=network, method=method, mesh=mesh, threads=threads
    )
    # Whitening needs all images on one device, so only unwhitened images are split among devices.
    index = sampling.pool
    is_large = data.train.images.nbytes >= split_from
    if mesh is not None and is_large and options.zca == "none":
        index = functools.partial(split_pool.pool, mesh=mesh)
    pool = datasets.pool(data, index=index)
    for sentence in datasets.ties(data):
        warnings.warn(sentence, stacklevel=4)
    if weights is not None:
        sampling.reweight(pool, weights)  # checks them before any work
    embedding = setup.get("embedding")
    if embedding is not None:
        embedding = embedding_file.check(np.asarray(embedding), data)
    bias_labels = setup.get("bias_labels")
    if bias_labels is not None:
        bias_labels = labels_file.check(bias_labels, data)
    own = {"own_network": network, "own_method": None if method is None else method.step}
    return Context(
        data, options, parts, pool, index,
        own_method=None if method is None else named_networks.qualified_name(method.step),
        own_arguments={
            f"{name}_arguments": described
            for name, thing in own.items()
            if (described := named_networks.arguments(thing))
        },
        custom_weights=None if weights is None else np.asarray(weights), embedding=embedding,
        bias_labels=bias_labels, mesh=mesh, threads=threads,
        report=parallel.one_at_a_time(setup.get("report", progress.silent)),
        interruption=_Interruption(), settings=programs.recorded_settings(),
    )  # fmt: skip
