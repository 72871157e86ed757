"""Registry of distillation methods: options class, builder and citations of each.

To add a method, define its options class (`options.DM` with other fields), write a builder and add
one entry to `METHODS`. The command line, run folders and reports read this registry.

Builders are cached on the options that they use. Runs that differ in other options, such as seed or
steps, get the same `Method` object and therefore share compiled programs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from jaxdd import augment, matching, methods, networks
from jaxdd.devices import microbatch, parallel
from jaxdd.methods import formation, protocol
from jaxdd.runs import networks as named_networks
from jaxdd.runs.options import CFM, DC, DM, MTT


class MethodEntry(NamedTuple):
    """Registry entry of a distillation method.

    Attributes:
        build: `build(options, network, strategy, **fields)` returns the `methods.Method`, with the
            fields `groups`, `group_loss` and `threads` of `build`; for cfm the network is that of
            the teacher.
        citations: keys of `data.citations.BIBTEX`.
        follows: kind of networks that are trained on real data first: "experts", "teacher" or None.
            Such methods are not split over devices and have no loss per bias group.
    """

    build: Callable[..., methods.Method]
    citations: tuple[str, ...] = ()
    follows: str | None = None


@functools.cache
def decode(factor: int) -> Callable[[jax.Array], jax.Array]:
    """Return the function that cuts stored images, each holding factor² images, for networks."""
    return protocol.identity if factor == 1 else functools.partial(formation.split, factor=factor)


_sgd = functools.cache(functools.partial(optax.sgd, momentum=0.5))


@functools.cache
def _adam(learning_rate, length):
    return optax.adam(optax.cosine_decay_schedule(learning_rate, length), b1=0.5, b2=0.9)


@functools.cache
def _cached(method, network, optimizer, strategy, factor, **fields):
    """Return the method with these arguments, the same object for equal ones."""
    return method(network, optimizer, strategy=strategy, decode=decode(factor), **fields)


def _build_dm(options: DM, network, strategy, *, groups=1, group_loss="separate", threads=None):
    loss = matching.distribution
    if group_loss != "separate":
        loss, groups = _barycentre(groups, norm=1 if group_loss == "barycentre-l1" else 2), 1
    # A row that runs on one core uses the cache of that core alone, so micro-batches are smaller.
    activation_bytes = microbatch.CORE_BYTES if threads == 1 else None
    return _cached(
        methods.distribution_matching, network, _sgd(options.learning_rate), strategy,
        options.formation, loss=loss, groups=groups, activation_bytes=activation_bytes,
    )  # fmt: skip


@functools.cache
def _barycentre(groups, *, norm):
    return functools.partial(matching.barycentre, groups=groups, norm=norm)


def _build_dc(options: DC, network, strategy, *, groups=1, group_loss="separate", threads=None):
    # The gradient of a batch in which each group has the same weight is the groups' barycentre.
    groups = groups if group_loss == "separate" else 1
    return _cached(
        methods.gradient_matching, network, _sgd(options.learning_rate),
        strategy if options.method == "dsa" else (), options.formation, groups=groups,
        outer=options.outer, inner=options.inner,
    )  # fmt: skip


def _build_mtt(options: MTT, network, strategy, **_):
    return _cached(
        methods.trajectory_matching, network, _sgd(options.learning_rate), strategy,
        options.formation, inner=options.syn_steps, rate=options.lr_teacher,
    )  # fmt: skip


def _build_cfm(options: CFM, network, strategy, **_):
    length = max(options.steps // (options.ipc * options.class_parts), 1)
    return _cached(
        methods.curriculum_matching, network, _adam(options.learning_rate, length),
        _cropping(strategy, options.crop), options.formation, length=length, beta=options.beta,
        floor=options.beta_floor, matching_weight=options.eta, signal=options.signal,
        parts=options.class_parts,
    )  # fmt: skip


@functools.cache
def _cropping(strategy, crop):
    """Return random crops in place of named operations, with flips if these include them."""
    if callable(strategy) or not strategy:
        return strategy
    return functools.partial(augment.resized_crop, min_area=crop, flip="flip" in strategy)


METHODS: dict[str, MethodEntry] = {
    "dm": MethodEntry(_build_dm, ("dm",)),
    "dc": MethodEntry(_build_dc, ("dc",)),
    "dsa": MethodEntry(_build_dc, ("dsa",)),
    "mtt": MethodEntry(_build_mtt, ("mtt",), "experts"),
    "cfm": MethodEntry(_build_cfm, ("cfm",), "teacher"),
}
"""All methods, by the value of `--method`."""


def build(
    options: DM,
    network: networks.Network,
    strategy: augment.Strategy,
    *,
    groups: int = 1,
    group_loss: str = "separate",
    mesh: jax.sharding.Mesh | None = None,
    threads: int | None = None,
) -> methods.Method:
    """Build the method of a run, whose steps the devices of a mesh share.

    `groups` is the number of bias groups in a batch and `group_loss` their loss, see
    `weightings.Weighting`. `threads` is the number of CPU threads of the run, or None for all.
    """
    entry, by_group = METHODS[options.method], dict(groups=groups, group_loss=group_loss)
    if mesh is None:
        return entry.build(options, network, strategy, threads=threads, **by_group)
    split = _split_network(network, mesh)
    return _replicated(entry.build(options, split, strategy, **by_group), mesh)


def build_mean_features(
    network: networks.Network, strategy: augment.Strategy, *, mesh: jax.sharding.Mesh | None = None
) -> Callable[[jax.Array, Any], methods.Features]:
    """Build the function that computes batches of dm ahead, on a CPU by one core per batch."""
    network = network if mesh is None else _split_network(network, mesh)
    activation_bytes = microbatch.CORE_BYTES if mesh is None else None
    return _mean_features(network, strategy=strategy, activation_bytes=activation_bytes)


_mean_features = functools.cache(methods.mean_features)
_split_network = functools.cache(parallel.split_network)
_replicated = functools.cache(parallel.replicate_state)


def follows(options: DM) -> str | None:
    """Return the kind of networks that a method follows, "experts" or "teacher", or None."""
    return METHODS[options.method].follows


def direct() -> str:
    """Return the names of the methods that follow no other networks, for error messages."""
    return ", ".join(name for name, entry in METHODS.items() if entry.follows is None)


def teacher_network(options: CFM, num_classes: int) -> networks.Network:
    """Build the teacher network named by the options of cfm."""
    return named_networks.from_options(options, num_classes, name=options.teacher)
