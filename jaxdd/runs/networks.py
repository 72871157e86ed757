"""Networks that options name: those of the library, and your own as MODULE:ATTRIBUTE."""

import dataclasses
import functools
import importlib
import inspect
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdd import networks
from jaxdd.data import files
from jaxdd.runs.options import DM, NETWORKS, TEACHERS

NAMES = (*NETWORKS, *TEACHERS)
"""Networks that a set can be scored with; names ending in -bn have batch norm."""


def build(
    name: str, num_classes: int, *, width: int, depth: int, dtype: str = "float32"
) -> networks.Network:
    """Build a network from its name.

    Args:
        name: one of `NAMES`, or MODULE:ATTRIBUTE.
        num_classes: number of classes.
        width: channels of a ConvNet.
        depth: blocks of a ConvNet.
        dtype: arithmetic inside the network.
    """
    if name not in NAMES:
        return _load(name, num_classes)
    kind, _, norm = name.partition("-")
    fields: dict[str, Any] = {"norm": networks.BatchNorm} if norm else {}
    if kind == "convnet":
        fields |= dict(width=width, depth=depth)
    return networks.NETWORKS[kind](num_classes, dtype=jnp.dtype(dtype), **fields)


def from_options(options: DM, num_classes: int, *, name: str | None = None) -> networks.Network:
    """Build the network of a run, or the named one with its width, depth and dtype."""
    name = options.network if name is None else name
    shape = dict(width=options.width, depth=options.depth)
    return build(name, num_classes, dtype=options.dtype, **shape)


def _load(name: str, num_classes: int) -> networks.Network:
    """Import MODULE:ATTRIBUTE, a network or a function from the number of classes to one.

    Modules in the working directory can be imported as well.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        thing = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"network {name} cannot be imported: {error}") from error
    if hasattr(thing, "apply") and hasattr(thing, "init") and not isinstance(thing, type):
        return thing
    return thing(num_classes)


def check(network: networks.Network, shape: tuple[int, ...], num_classes: int) -> None:
    """Apply a network to abstract images of shape `(h, w, c)`, and check its outputs."""
    if not (hasattr(network, "init") and hasattr(network, "apply")):
        raise TypeError(
            "a network must have init(key, images) and apply(params, images), "
            f"got {type(network).__name__}"
        )
    if type(network).__hash__ is None:
        raise TypeError(
            f"a network must be hashable, such as a frozen dataclass, got {type(network).__name__}"
        )
    if (classes := _num_outputs(network, shape)) != num_classes:
        raise ValueError(f"expected a network of {num_classes} classes, got {classes}")


@functools.cache  # tracing a network takes a second
def _num_outputs(network, shape):
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), images)
    outputs = jax.eval_shape(functools.partial(networks.outputs, network), params, images)
    return outputs.logits.shape[1]


def check_size(name: str, depth: int, side: int) -> None:
    """Raise ValueError for images that are too small for a ConvNet of this depth."""
    if name.startswith("convnet") and side < 2**depth:
        raise ValueError(
            f"a ConvNet of depth {depth} needs images with sides of at least {2**depth} pixels, "
            f"got {side}; choose a smaller depth or larger images"
        )


def qualified_name(thing: Any) -> str:
    """Return the name by which a configuration identifies a function or an object.

    >>> qualified_name(qualified_name)
    'jaxdd.runs.networks:qualified_name'
    """
    thing = getattr(thing, "func", thing)  # of a functools.partial
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}:{thing.__qualname__}"
    return f"{type(thing).__module__}:{type(thing).__qualname__}()"


def arguments(thing: Any) -> dict[str, str]:
    """Describe the variables that a function closes over, or the fields of a dataclass, by name.

    A configuration records them, so that a run does not resume with other ones. Descriptions of
    more than 80 characters end with a hash of the rest.

    >>> arguments(networks.MLP(2, width=8))["width"]
    '8'
    """
    descriptions = {name: _describe(value, ()) for name, value in _parts(thing).items()}
    shorten = lambda text: f"{text[:60]}... {files.digest(np.array(text))[:8]}"
    return {name: x if len(x) <= 80 else shorten(x) for name, x in descriptions.items()}


def _parts(thing):
    """Return the values that a function, a partial or a dataclass holds, by name."""
    if isinstance(thing, functools.partial):
        given = {f"argument {i}": x for i, x in enumerate(thing.args)} | thing.keywords
        return _parts(thing.func) | given
    if dataclasses.is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    function = inspect.unwrap(thing) if callable(thing) else thing  # inside of jax.jit
    if not inspect.isfunction(function):
        return {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells}


def _describe(value, inside):
    """Return a description that is the same in every process; `inside` are the values around."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (np.ndarray, jax.Array)):
        return f"{value.dtype}{list(value.shape)} {files.digest(np.asarray(value))[:8]}"
    if isinstance(value, (tuple, list)) and id(value) not in inside:
        return f"({', '.join(_describe(x, (*inside, id(value))) for x in value)})"
    name = qualified_name(value)
    if id(value) in inside:
        return name
    inside = *inside, id(value)
    parts = [f"{key}={_describe(x, inside)}" for key, x in _parts(value).items()]
    return f"{name}({', '.join(parts)})" if parts else name
