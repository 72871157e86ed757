"""The protocol that distillation, training and evaluation expect of a network."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxdd import _axes


class Output(NamedTuple):
    """Features `[n, d]`, the input of the classifier, and logits `[n, k]`."""

    features: jax.Array
    logits: jax.Array


class Network(Protocol):
    """Two pure functions, `init` and `apply`.

    A Flax Linen module is a network, as is `Functions` around a Flax NNX or Equinox model or any
    class with these methods. A network has no state of its own and no dropout, and treats the
    images of a batch independently.

    Batch norm is allowed, because its running statistics are stored in the parameters, in the
    collection "batch_stats" of Flax. `apply` uses the running statistics; `apply_in_training` uses
    those of the batch and updates the running ones. A network with running statistics must be a
    Linen module or accept `mutable=["batch_stats"]` like one.
    """

    def init(self, key: jax.Array, images: jax.Array, /) -> Any:
        """Return initial parameters, a tree of arrays, for images like these `[n, h, w, c]`."""
        ...

    def apply(self, params: Any, images: jax.Array, /) -> Any:
        """Return the pair `(features [n, ...], logits [n, k])`, differentiably."""
        ...


class Functions(NamedTuple):
    """A `Network` made of two functions.

    >>> def init(key, images):
    ...     return jax.random.normal(key, (images[0].size, 10)) / images[0].size
    >>> def apply(params, images):
    ...     features = images.reshape(len(images), -1)
    ...     return features, features @ params
    >>> outputs(Functions(init, apply), jnp.zeros((12, 10)), jnp.zeros((2, 2, 2, 3))).logits.shape
    (2, 10)
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]


def outputs(network: Network, params: Any, images: jax.Array) -> Output:
    """Apply a network and check the shapes of what it returns.

    Args:
        network: any `Network`.
        params: from its `init`.
        images: `[n, h, w, c]`.

    Returns:
        Features flattened to `[n, d]`, and logits `[n, k]`.

    Raises:
        TypeError: if the network does not return a pair of arrays `[n, ...]` and `[n, k]`.
    """
    return _as_output(network.apply(params, images), len(images))


def _as_output(result, n):
    match jax.tree.map(jnp.shape, result):
        case ((n_features, *_), (n_logits, _)) if n_features == n_logits == n:
            features, logits = result
            return Output(features.reshape(n, -1), logits)
        case shapes:
            raise TypeError(
                f"A network must return (features [n, ...], logits [n, k]), here with n = {n}; "
                f"got shapes {shapes}."
            )


def split_batch_stats(params: Any) -> tuple[Any, dict[str, Any]]:
    """Split parameters into learned ones and running statistics ({} if there are none).

    >>> split_batch_stats({"params": 1, "batch_stats": 2}), split_batch_stats([3])
    (({'params': 1}, {'batch_stats': 2}), ([3], {}))
    """
    if not (isinstance(params, Mapping) and "batch_stats" in params):
        return params, {}
    learned = {name: value for name, value in params.items() if name != "batch_stats"}
    return learned, {"batch_stats": params["batch_stats"]}


def apply_in_training(
    network: Any, params: Any, images: jax.Array, **bounds: int
) -> tuple[Any, Any]:
    """Apply a network in training mode: use batch statistics and update the running ones.

    Args:
        network: any `Network`.
        params: from its `init`.
        images: `[n, h, w, c]`, or the input of part `start`.
        **bounds: `start` and `stop`, for a network that can be applied in parts
            (see `count_parts`).

    Returns:
        The `Output` (with `stop`, the hidden images instead), and the parameters with updated
        running statistics.
    """
    learned, statistics = split_batch_stats(params)
    if statistics:
        result, updated = network.apply(params, images, mutable=["batch_stats"], **bounds)
        params = {**learned, **updated}
    else:
        result = network.apply(params, images, **bounds)
    return result if "stop" in bounds else _as_output(result, len(images)), params


def count_parts(network: Any) -> int:
    """Return the number of parts that a network can be applied in, one after another.

    `apply(params, images, stop=i)` returns the hidden images `[n, h, w, c]` after i parts;
    `apply(params, hidden, start=i)` continues from there to the `Output`.

    Raises:
        ValueError: if the network cannot be split.

    >>> from jaxdd import networks
    >>> [count_parts(n(10)) for n in (networks.ConvNet, networks.VGG11, networks.ResNet18)]
    [3, 8, 9]
    """
    parts = getattr(network, "parts", None)
    if parts is None:
        raise ValueError(
            "A network can be split if it is a ConvNet, VGG11 or ResNet18, or has an attribute "
            f"`parts`; got {type(network).__name__}."
        )
    return parts


def init_params(key: jax.Array, network: Network, images: jax.Array) -> Any:
    """Return initial parameters that belong to the same device as the key.

    Args:
        key: random key of the initialisation.
        network: any `Network`.
        images: `[n, h, w, c]`, an example of the input.
    """
    # Parameters that start as constants, such as a scale of ones, must vary like the others.
    return _axes.match(network.init(key, images), key)


def check_classes(network: Network, images: jax.Array, num_classes: int) -> None:
    """Check that a network has one logit per class, without running it.

    Args:
        network: any `Network`.
        images: `[n, h, w, c]`, an example of the input.
        num_classes: number of classes of the data.
    """
    count = count_classes(network, images)
    if count != num_classes:
        raise ValueError(f"The network must have {num_classes} logits, one per class; got {count}.")


def count_classes(network: Network, images: jax.Array) -> int:
    """Return the number of logits of a network, without running it.

    Args:
        network: any `Network`.
        images: `[n, h, w, c]`, an example of the input.

    >>> from jaxdd import networks
    >>> count_classes(networks.MLP(num_classes=7), jnp.zeros((1, 4, 4, 3)))
    7
    """
    params = jax.eval_shape(network.init, jax.random.key(0), images)
    return jax.eval_shape(functools.partial(outputs, network), params, images).logits.shape[1]
