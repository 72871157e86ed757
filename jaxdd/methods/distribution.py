"""Distribution matching: real and synthetic images have similar features in random networks.

Source: Zhao and Bilen, "Dataset Condensation with Distribution Matching" (WACV 2023).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdd import _checks, augment, matching, networks, sampling, training
from jaxdd.devices import microbatch
from jaxdd.methods.protocol import Decode, Method, check_images, identity


class State(NamedTuple):
    """Synthetic images and the state of their optimizer.

    Attributes:
        images: `[k, ipc, h, w, c]`, normalised and never clipped.
        optimizer: state of the optimizer.
    """

    images: jax.Array
    optimizer: optax.OptState


class Features(NamedTuple):
    """Features of real images, which a step accepts instead of a batch of images.

    Attributes:
        features: `[k, b, d]`, flattened, of the network and the augmentation of the step.
        weights: `[k, b]`.
    """

    features: jax.Array
    weights: jax.Array


def distribution_matching(
    network: networks.Network,
    optimizer: optax.GradientTransformation,
    *,
    loss: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = matching.distribution,
    strategy: augment.Strategy = augment.OPERATIONS,
    decode: Decode = identity,
    groups: int = 1,
    activation_bytes: int | None = None,
) -> Method:
    """Return distribution matching (DM) with weighted real means, or with any loss of features.

    Each step initialises a new random network, shared by all classes, and draws one augmentation
    per class, shared by its real and synthetic images. It then updates the images by the gradient
    of the loss of the flattened features. The real features carry no gradient.

    With several `groups` the loss is a sum over bias groups: FairDD (Zhou et al., 2025). Because
    the distance is squared, the gradient of that sum is the number of groups times that of the
    distance to the mean of the groups. That is COBRA (Moslemi et al., 2026), with the loss
    `functools.partial(matching.barycentre, groups=...)` and `groups=1`. Batches of both are drawn
    by `sampling.grouped`, which says how the authors draw theirs. The authors of COBRA also train
    the random network for 10 to 100 epochs on the synthetic set before they compare features.

    Args:
        network: a `networks.Network`.
        optimizer: optimizer of the images `[k, ipc, h, w, c]`. The reference uses SGD with momentum
            0.5 and learning rate 1 (10 for 100 images per class or more).
        loss: `loss(real, synthetic, weights)` of real features `[k, b, d]`, synthetic features
            `[k, m, d]` and real weights `[k, b]`, whose rows sum to one; returns a scalar.
        strategy: augmentation, see `augment.siamese`; () for none.
        decode: map from stored images to those the network sees, such as `formation.split`.
        groups: bias groups in a class's batch, see `sampling.grouped`. The loss treats each group
            as a class of its own, with the synthetic features of its class. All weights of a group
            without samples are zero.
        activation_bytes: maximum size of a layer's activations on the CPU; a size that fits the
            cache by default, see `microbatch.apply`.

    >>> import jax.numpy as jnp
    >>> from jaxdd import networks
    >>> def means_and_variances(real, synthetic, weights):
    ...     target = (weights[..., None] * real).sum(1)
    ...     spread = (weights[..., None] * real**2).sum(1) - target**2
    ...     distance = jnp.sum((target - synthetic.mean(1)) ** 2)
    ...     return distance + jnp.sum((spread - synthetic.var(1)) ** 2)
    >>> network = networks.ConvNet(num_classes=3, width=8)
    >>> method = distribution_matching(network, optax.sgd(1.0, 0.5), loss=means_and_variances)
    """
    features = functools.partial(_features, network=network, activation_bytes=activation_bytes)
    strategy, groups = augment.as_strategy(strategy), _checks.count("groups", groups)

    def init(images):
        check_images(images)
        return State(images, optimizer.init(images))

    def step(key, state, batch):
        key_network, key_augment = jax.random.split(key)
        params = networks.init_params(key_network, network, state.images[0, :1])
        # The same keys for both sides: siamese augmentation, one draw per class.
        keys = jax.random.split(key_augment, len(state.images))
        augmented = functools.partial(_siamese, keys, strategy)
        if isinstance(batch, Features):
            real = batch.features
        else:
            real = features(params, augmented(batch.images))
        real = real.reshape(len(real) * groups, -1, real.shape[-1])
        weights = batch.weights.reshape(len(real), -1)

        def objective(images):
            synthetic = features(params, augmented(decode(images)))
            return loss(real, synthetic.repeat(groups, axis=0), weights)

        value, gradient = jax.value_and_grad(objective)(state.images)
        return State(
            *training.apply_gradients(optimizer, gradient, state.optimizer, state.images)
        ), {"loss": value}

    return Method(init, step)


def mean_features(
    network: networks.Network,
    *,
    strategy: augment.Strategy = augment.OPERATIONS,
    activation_bytes: int | None = None,
) -> Callable[[jax.Array, sampling.Batch], Features]:
    """Return a function that computes what DM needs of a batch that several weightings share.

    The loss of DM compares weighted means of real features with the synthetic ones. So the features
    of a batch from `sampling.mixture_batch` are computed once, and a step of each weighting gets
    its weighted sum as a single sample of weight one. The gradient of the squared distance is
    linear in that sum. It is therefore unbiased for every weighting, as the sum is.

    Args:
        network: as for `distribution_matching`.
        strategy: as for `distribution_matching`.
        activation_bytes: as for `distribution_matching`.

    Returns:
        A function of the key of a step and a batch with weights `[k, b, r]`. It returns `Features`
        whose arrays have the leading axis r: `[r, k, 1, d]` and `[r, k, 1]`.
    """
    features = functools.partial(_features, network=network, activation_bytes=activation_bytes)
    strategy = augment.as_strategy(strategy)

    def mean(key, batch):
        key_network, key_augment = jax.random.split(key)
        params = networks.init_params(key_network, network, batch.images[0, :1])
        keys = jax.random.split(key_augment, len(batch.images))
        real = features(params, _siamese(keys, strategy, batch.images)).astype(jnp.float32)
        means = jnp.einsum("kbr,kbd->rkd", batch.weights, real, precision="highest")
        return Features(means[:, :, None], jnp.ones((*means.shape[:2], 1)))

    return mean


def _features(params, images, *, network, activation_bytes):
    """Return flattened features `[k, b, d]` of images `[k, b, h, w, c]`."""
    # Samples become the leading axis. If they are split over devices, the flattened axis stays
    # split evenly, because every device holds some samples of each class.
    k, b = images.shape[:2]
    flat = images.swapaxes(0, 1).reshape(b * k, *images.shape[2:])
    features = microbatch.apply(
        lambda images: networks.outputs(network, params, images).features,
        flat,
        activation_bytes=activation_bytes,
    )
    return features.reshape(b, k, -1).swapaxes(0, 1)


def _siamese(keys, strategy, images):
    """Augment images `[k, b, h, w, c]` with one draw per class."""
    augment_class = lambda key, batch: augment.siamese(key, batch, strategy=strategy)[0]
    # A clone marks this reuse as intended for `jax_debug_key_reuse`.
    return jax.vmap(augment_class)(jax.random.clone(keys), images)
