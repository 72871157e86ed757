"""Losses that compare a synthetic set with the real one.

* `distribution` compares class means of features: distribution matching with sample weights.
* `barycentre` compares them with the mean of the means of bias groups: COBRA.
* `cosine_rows`, `squared` and `cosine` compare two gradients of a network: gradient matching.
* `trajectory` compares two trainings by the parameters they end at: trajectory matching.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdd import _checks


def distribution(
    real: jax.Array, synthetic: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Return the squared distance between weighted real and synthetic feature means.

    `L = Σ_c ‖ Σ_i w_ci ψ(x_ci) / Σ_i w_ci − mean_s ψ(s_cs) ‖²`, summed over classes and features
    (Zhao & Bilen, "Dataset Condensation with Distribution Matching", WACV 2023) with the weighted
    mean of Cui et al., "Mitigating Bias in Dataset Distillation" (ICML 2024).

    Args:
        real: features `[k, b, d]`.
        synthetic: features `[k, ipc, d]`.
        weights: `[k, b]`, non-negative; uniform by default. A class whose weights are all zero
            contributes nothing.

    Returns:
        The loss, a float32 scalar.

    >>> real = jnp.array([[[0.0], [4.0]]])
    >>> float(distribution(real, jnp.array([[[1.0]]]))), float(
    ...     distribution(real, jnp.array([[[1.0]]]), jnp.array([[3.0, 1.0]])))
    (1.0, 0.0)
    """
    weights = _check_features(real, synthetic, weights)
    return jnp.sum(jnp.square(_mean_difference(real, synthetic, weights)))


def barycentre(
    real: jax.Array,
    synthetic: jax.Array,
    weights: jax.Array | None = None,
    *,
    groups: int,
    norm: int = 2,
) -> jax.Array:
    """Return the distance of the synthetic feature means to the mean of the groups' means (COBRA).

    `L = Σ_c ‖ mean_g (Σ_{i in g} w_ci ψ(x_ci) / Σ_{i in g} w_ci) − mean_s ψ(s_cs) ‖²`. The mean is
    over the bias groups of the class that have weight, however many samples each has.

    With the squared distance the gradient is that of FairDD, the sum of the distances to each
    group, divided by the number of these groups.

    Args:
        real: features `[k, b, d]`. Each class has `groups` blocks of `b / groups` samples, one per
            bias group, as drawn by `sampling.grouped`.
        synthetic: features `[k, ipc, d]`.
        weights: `[k, b]`, non-negative; uniform by default. A group whose weights are all zero is
            left out of the mean. A class without such groups contributes nothing.
        groups: number of bias groups per class.
        norm: 2 for the squared distance, or 1 for the sum of absolute differences, which the
            authors' code uses with distribution matching.

    Returns:
        The loss, a float32 scalar.

    Source: Moslemi et al., "Fair Dataset Distillation via Cross-Group Barycenter Alignment" (ICML
    2026).

    >>> real = jnp.array([[[0.0], [2.0], [7.0], [7.0]]])  # groups with means 1 and 7
    >>> float(barycentre(real, jnp.array([[[1.0]]]), groups=2)), float(
    ...     barycentre(real, jnp.array([[[1.0]]]), groups=2, norm=1))
    (9.0, 3.0)
    """
    weights = _check_features(real, synthetic, weights)
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm}.")
    if real.shape[1] % _checks.count("groups", groups):
        raise ValueError(f"real must have {groups} equal blocks per class, got {real.shape}.")
    # With groups of equal weight, the weighted mean of a class is the mean of the groups' means.
    blocks = weights.reshape(len(weights), groups, -1)
    balanced = _normalise(blocks, axis=2).reshape(weights.shape)
    difference = _mean_difference(real, synthetic, balanced)
    return jnp.sum(jnp.square(difference) if norm == 2 else jnp.abs(difference))


def _check_features(real, synthetic, weights):
    """Check the shapes of features and weights, and return the weights, uniform by default."""
    if real.ndim != 3 or synthetic.ndim != 3 or real.shape[::2] != synthetic.shape[::2]:
        raise ValueError(
            "real [k, b, d] and synthetic [k, ipc, d] must agree in k and d, "
            f"got {real.shape} and {synthetic.shape}."
        )
    if weights is None:
        return jnp.ones(real.shape[:2])
    if weights.shape != real.shape[:2]:
        raise ValueError(f"weights must be [k, b] = {real.shape[:2]}, got {weights.shape}.")
    return weights


def _mean_difference(real, synthetic, weights):
    """Return weighted real minus synthetic means `[k, d]`; zeros for a class without weight."""
    shares = _normalise(weights, axis=1)
    target = jnp.einsum("kb,kbd->kd", shares, real.astype(jnp.float32), precision="highest")
    difference = target - synthetic.astype(jnp.float32).mean(1)
    return difference * (weights.sum(1, keepdims=True) > 0).astype(difference.dtype)


def _normalise(weights, *, axis):
    """Return weights that sum to one along an axis; zeros stay zero."""
    total = weights.sum(axis, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def cosine_rows(real: Any, synthetic: Any) -> jax.Array:
    """Return the layer-wise cosine distance between two gradients, the loss of DC and DSA.

    `D = Σ_tensors Σ_rows (1 − ⟨g_r, g'_r⟩ / (|g_r| |g'_r| + 1e-6))`. A row holds the weights of one
    output unit. Biases and the parameters of normalisation layers, which have one axis, contribute
    nothing. A row of zeros contributes 1, with gradient 0.

    Args:
        real: gradient of the parameters, a tree of arrays whose last axis counts outputs.
        synthetic: gradient with the same structure.

    Source: Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching" (ICLR 2021).

    >>> one = {"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "bias": jnp.array([1.0, 1.0])}
    >>> other = {"kernel": jnp.array([[3.0, 1.0], [0.0, 0.0]]), "bias": jnp.array([0.0, 5.0])}
    >>> round(float(cosine_rows(one, other)), 5)
    1.0
    """
    rows = lambda tensor: tensor.reshape(-1, tensor.shape[-1]).T
    pairs = zip(jax.tree.leaves(real), jax.tree.leaves(synthetic), strict=True)
    distances = [jnp.sum(1 - _cosine(rows(a), rows(b))) for a, b in pairs if a.ndim > 1]
    return jnp.asarray(sum(distances))


def squared(real: Any, synthetic: Any) -> jax.Array:
    """Return the squared distance between two trees, `Σ (g − g')²` over all entries."""
    pairs = zip(jax.tree.leaves(real), jax.tree.leaves(synthetic), strict=True)
    return jnp.asarray(sum(jnp.sum(jnp.square(a - b)) for a, b in pairs))


def cosine(real: Any, synthetic: Any) -> jax.Array:
    """Return one minus the cosine between two gradients, each flattened to a single vector."""
    flatten = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    return 1 - _cosine(flatten(real), flatten(synthetic))


def trajectory(student: Any, start: Any, target: Any) -> jax.Array:
    """Return the squared distance of the student to the target, relative to that of the start.

    `‖θ_N − θ*‖² / ‖θ_0 − θ*‖²` over all parameters, the loss of trajectory matching (Cazenavette
    et al., CVPR 2022).

    Args:
        student: parameters θ_N after training on synthetic images.
        start: parameters θ_0 from which the student was trained.
        target: parameters θ* that the expert reached.
    """
    return squared(student, target) / squared(start, target)


def _cosine(a, b):
    lengths = _length(a) * _length(b)
    return jnp.sum(a * b, -1) / (lengths + 1e-6)


def _length(vectors):
    """Return the norm along the last axis; its gradient at zero is 0 instead of nan."""
    # The inner `where` keeps the square root away from 0. Masking only its result is not enough:
    # the chain rule multiplies the masked 0 by the infinite slope of the root, which gives nan.
    square = jnp.sum(jnp.square(vectors), -1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
