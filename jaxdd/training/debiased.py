"""Train networks that try to unlearn a bias from a labelled set, without bias labels.

Use them to ask whether debiased training on a biased synthetic set would make weights unnecessary.
Both methods train a second, biased network at the same time. Its loss is the generalised
cross-entropy, which emphasises samples that it already classifies well; samples that remain hard
for it conflict with the bias. The functions take the arguments of `training.train` and can replace
it in an evaluation. The authors use Adam, here both networks are trained by `training.sgd`.

>>> import jax, jax.numpy as jnp
>>> from jaxdd import networks
>>> images, labels = jnp.zeros((4, 8, 8, 3)), jnp.arange(4) % 2
>>> network = networks.ConvNet(2, 4, 2)
>>> params = learning_from_failure(jax.random.key(0), network, images, labels, epochs=1)
>>> sorted(params["params"])[0]
'Conv_0'
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdd import _axes, _checks, augment, networks, training


def generalised_cross_entropy(logits: jax.Array, labels: jax.Array, *, q: float = 0.7) -> jax.Array:
    """Return `(1 − p_y^q) / q` per sample `[n]`.

    Its gradient is that of the cross-entropy times p_y^q. It is the cross-entropy for q → 0.

    Args:
        logits: `[n, k]`.
        labels: `[n]` integers in [0, k).
        q: positive.

    Source: Zhang and Sabuncu, "Generalized Cross Entropy Loss" (NeurIPS 2018).

    >>> round(float(generalised_cross_entropy(jnp.zeros((1, 4)), jnp.array([0]), q=1.0)[0]), 6)
    0.75
    """
    if not 1e-30 < q < float("inf"):  # q log p underflows in float32 below that
        raise ValueError(f"q must be positive and finite, got {q}")
    if logits.ndim != 2 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"logits must be floating [n, k], got {logits.dtype} {logits.shape}")
    n, k = _checks.finite("logits", logits).shape
    labels = _checks.integers("labels", labels, k, length=n)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
    # 1 − exp(q log p) cancels for small q; expm1 does not.
    return -jnp.expm1(q * log_p) / q


def _biased_losses(logits, labels, q=0.7):
    """Return the loss of a biased network per sample `[n]`."""
    # The authors' loss is CE · (q p_y^q) with a constant factor, whose gradient is that of q GCE.
    return q * generalised_cross_entropy(logits, labels, q=q)


class _Batch(NamedTuple):
    """Augmented samples `[b]` of one update, and `memory` from the last one."""

    views: jax.Array
    labels: jax.Array
    present: jax.Array
    indices: jax.Array
    memory: Any
    key: jax.Array


def learning_from_failure(
    key: jax.Array,
    network: networks.Network,
    images: jax.Array,
    labels: jax.Array,
    *,
    smoothing: float = 0.7,
    **options: Any,
) -> Any:
    """Train a network with larger weights on samples that a biased network predicts wrongly (LfF).

    The weight of a sample is `b / (b + d)`. Here b and d are its losses under the biased network
    and under this one, each an exponential moving average divided by its maximum over the class.
    The average starts at the first loss of the sample.

    Args:
        key: random key for initialisation, order and augmentation.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]` classes.
        smoothing: weight of the previous average in the new one.
        **options: `epochs`, `batch_size`, `strategy`, `learning_rate`, `momentum` and
            `weight_decay`, with the defaults of `training.train`.

    Source: Nam et al., "Learning from Failure" (NeurIPS 2020).
    """
    images, labels = training.check_labelled(images, labels, network=network)

    def loss(params, batch):
        own, present, indices = batch.labels, batch.present, batch.indices
        logits = jnp.stack([networks.outputs(network, p, batch.views).logits for p in params])
        losses = training.cross_entropies(logits, jnp.stack([own, own]))
        weights, averages = _relative_losses(
            jax.lax.stop_gradient(losses),
            batch.memory,
            indices,
            present,
            labels,
            smoothing=smoothing,
            num_classes=logits.shape[-1],
        )
        biased_loss = _biased_losses(logits[0], own)
        return jnp.sum((biased_loss + weights * losses[1]) * present) / present.sum(), averages

    averages = _axes.match(jnp.full((2, len(labels)), -1.0), (key, images))
    return _train_pair(key, network, images, labels, loss, averages, **options)


def _relative_losses(losses, averages, indices, present, labels, *, smoothing, num_classes):
    """Return the weights `b / (b + d)` of a batch `[n]`, and the new averages.

    Args:
        losses: `[2, n]`, of the batch under the biased and the debiased network.
        averages: `[2, m]`, the running losses of all samples; -1 before the first loss.
        indices: `[n]` of the batch.
        present: `[n]`; samples with 0 only fill up the batch and do not change their averages.
        labels: `[m]` classes of all samples.
        smoothing: weight of the previous average in the new one.
        num_classes: number of classes.
    """
    old = averages[:, indices]
    now = jnp.where(old < 0, losses, smoothing * old + (1 - smoothing) * losses)
    averages = averages.at[:, indices].set(jnp.where(present > 0, now, old))
    max_by_class = jax.vmap(
        functools.partial(jax.ops.segment_max, segment_ids=labels, num_segments=num_classes)
    )
    biased, debiased = now / jnp.maximum(max_by_class(averages)[:, labels[indices]], 1e-8)
    return biased / (biased + debiased + 1e-8), averages


def selective_mixup(
    key: jax.Array, network: networks.Network, images: jax.Array, labels: jax.Array, **options: Any
) -> Any:
    """Train a network on mixtures of samples that contradict the bias (SelecMix).

    Each sample is mixed with another one of its batch, its partner. At random for the whole batch,
    this is the sample of the same class that is least similar for the biased network, or the most
    similar one of the other classes. The similarity is the cosine of features. The share of the
    sample in the image is uniform in [0, 1/2], and the label is that of the partner.

    Args:
        key: random key for initialisation, order, augmentation and mixtures.
        network: a `networks.Network`.
        images: `[m, h, w, c]`, normalised.
        labels: `[m]` classes.
        **options: `epochs`, `batch_size`, `strategy`, `learning_rate`, `momentum` and
            `weight_decay`, with the defaults of `training.train`.

    Source: Hwang et al., "SelecMix: Debiased Learning by Contradicting-pair Sampling" (NeurIPS
    2022). The authors take the similarity from a ResNet-18 that is trained by a contrastive loss;
    here it comes from the biased network of `learning_from_failure`.
    """
    images, labels = training.check_labelled(images, labels, network=network)

    def loss(params, batch):
        views, own, present = batch.views, batch.labels, batch.present
        features, logits = networks.outputs(network, params[0], views)
        biased_loss = _biased_losses(logits, own)
        key_side, key_share = jax.random.split(batch.key)
        same_class = jax.random.bernoulli(key_side)
        features = jax.lax.stop_gradient(features)
        partners = _contradicting_partners(same_class, features, own, present)
        share = jax.random.uniform(key_share, (len(own), 1, 1, 1), maxval=0.5)
        mixture = share * views + (1 - share) * views[partners]
        mixed = networks.outputs(network, params[1], mixture).logits
        mixed_loss = training.cross_entropies(mixed, own[partners])
        return jnp.sum((biased_loss + mixed_loss) * present) / present.sum(), None

    return _train_pair(key, network, images, labels, loss, None, **options)


def _contradicting_partners(same_class, features, labels, present):
    """Return for every sample the index `[n]` of one that contradicts the bias in `features`.

    Args:
        same_class: whether partners have the class of the sample, or another one. Samples without
            such a partner get one of the other kind, or themselves.
        features: `[n, f]`.
        labels: `[n]`.
        present: `[n]`; samples with 0 are no partners.
    """
    # Features of the biased network are similar for samples with the same bias attribute. A partner
    # of the same class with different features, or of another class with similar features, breaks
    # the correlation between class and attribute.
    unit = features / jnp.maximum(jnp.sqrt(jnp.square(features).sum(1, keepdims=True)), 1e-8)
    similarity = unit @ unit.T
    eligible, own = (present > 0)[None], jnp.arange(len(labels))
    alike = labels[:, None] == labels[None]
    same = alike & eligible & (own[:, None] != own[None])
    other = ~alike & eligible
    farthest = jnp.argmin(jnp.where(same, similarity, jnp.inf), axis=1)
    nearest = jnp.argmax(jnp.where(other, similarity, -jnp.inf), axis=1)
    fallback = jnp.where(other.any(1), nearest, own)
    return jnp.where((same_class | ~other.any(1)) & same.any(1), farthest, fallback)


def _train_pair(
    key,
    network,
    images,
    labels,
    loss,
    memory,
    *,
    strategy=augment.OPERATIONS,
    batch_size=256,
    epochs=1000,
    **schedule,
):
    """Return a debiased network that is trained together with a biased one.

    `loss(params, batch) -> (loss, memory)` gets the parameters of both networks, biased first.
    """
    optimizer = training.sgd(len(labels), epochs=epochs, batch_size=batch_size, **schedule)
    key_init, key_train = jax.random.split(key)
    keys_init = jax.random.split(key_init)
    params = tuple(networks.init_params(k, network, images[:1]) for k in keys_init)

    def update(carry, key, indices, present):
        params, opt_state, memory = carry
        key_augment, key_loss = jax.random.split(key)
        views = augment.per_image(key_augment, images[indices], strategy=strategy)
        batch = _Batch(views, labels[indices], present, indices, memory, key_loss)
        grads, memory = jax.grad(loss, has_aux=True)(params, batch)
        return *training.apply_gradients(optimizer, grads, opt_state, params), memory

    carry = params, optimizer.init(params), memory
    size = dict(num_samples=len(labels), epochs=epochs, batch_size=batch_size)
    (_, debiased), *_ = training.run_epochs(key_train, update, carry, **size)
    return debiased


TRAININGS = {"standard": training.train, "lff": learning_from_failure, "selecmix": selective_mixup}
"""Ways to train the networks that a set is evaluated with."""
