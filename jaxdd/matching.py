"""Distances along which a synthetic set is pulled towards the real one.

`distribution` is the loss of distribution matching with the density weights of Cui et al.;
`GRADIENT_DISTANCES` holds the distances between the gradients that real and synthetic images cause;
`trajectory` compares where training on synthetic images leads with where an expert went.
"""

from typing import Any

import jax
import jax.numpy as jnp


def distribution(
    real: jax.Array, synthetic: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Squared distance between weighted real and plain synthetic feature means, over all classes.

    `L = Σ_c ‖ Σ_i w_ci ψ(x_ci) / Σ_i w_ci − mean_s ψ(s_cs) ‖²`, a *sum* over the d features, as in
    Zhao & Bilen, "Dataset Condensation with Distribution Matching" (WACV 2023), with the weighted
    mean of Cui et al., "Mitigating Bias in Dataset Distillation" (ICML 2024).

    Args:
        real: features `[k, b, d]`.
        synthetic: features `[k, ipc, d]`.
        weights: `[k, b]` non-negative; None weighs all alike. A class whose weights are all zero
            adds nothing.

    Returns:
        The scalar loss, float32.

    Raises:
        ValueError: for shapes that disagree.

    >>> real = jnp.array([[[0.0], [4.0]]])
    >>> float(distribution(real, jnp.array([[[1.0]]]))), float(
    ...     distribution(real, jnp.array([[[1.0]]]), jnp.array([[3.0, 1.0]])))
    (1.0, 0.0)
    """
    if real.ndim != 3 or synthetic.ndim != 3 or real.shape[::2] != synthetic.shape[::2]:
        raise ValueError(
            "real [k, b, d] and synthetic [k, ipc, d] must agree in k and d, "
            f"found {real.shape} and {synthetic.shape}"
        )
    if weights is None:
        weights = jnp.ones(real.shape[:2])
    if weights.shape != real.shape[:2]:
        raise ValueError(f"weights must be [k, b] = {real.shape[:2]}, found {weights.shape}")
    total = weights.sum(1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1)
    target = jnp.einsum("kb,kbd->kd", weights, real.astype(jnp.float32), precision="highest")
    difference = target - synthetic.astype(jnp.float32).mean(1)
    return jnp.sum(jnp.square(difference) * (total > 0))


def cosine_rows(real: Any, synthetic: Any) -> jax.Array:
    """Layer-wise cosine distance between two gradients, the loss of DC and DSA.

    `D = Σ_tensors Σ_rows (1 − ⟨g_r, g'_r⟩ / (|g_r| |g'_r| + 1e-6))`, where a row holds the weights
    into one output unit; biases and the parameters of norms, which have one axis, contribute
    nothing, and a row of zeros contributes 1 without a gradient that is not a number.

    Args:
        real: gradient of the parameters, a tree of arrays whose last axis counts outputs.
        synthetic: likewise.

    Returns:
        The scalar distance.

    Source: Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching" (ICLR 2021).

    >>> one = {"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "bias": jnp.array([1.0, 1.0])}
    >>> other = {"kernel": jnp.array([[3.0, 1.0], [0.0, 0.0]]), "bias": jnp.array([0.0, 5.0])}
    >>> round(float(cosine_rows(one, other)), 5)
    1.0
    """

    def rows(tensor):
        return tensor.reshape(-1, tensor.shape[-1]).T

    distances = [
        jnp.sum(1 - _cosine(rows(one), rows(other)))
        for one, other in zip(jax.tree.leaves(real), jax.tree.leaves(synthetic), strict=True)
        if one.ndim > 1
    ]
    return jnp.asarray(sum(distances))


def squared(real: Any, synthetic: Any) -> jax.Array:
    """Squared distance between two gradients, `Σ (g − g')²` over all parameters, biases too."""
    pairs = zip(jax.tree.leaves(real), jax.tree.leaves(synthetic), strict=True)
    return jnp.asarray(sum(jnp.sum(jnp.square(one - other)) for one, other in pairs))


def cosine(real: Any, synthetic: Any) -> jax.Array:
    """One minus the cosine between two gradients as single vectors, biases too."""
    one, other = (
        jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
        for tree in (real, synthetic)
    )
    return 1 - _cosine(one, other)


def trajectory(reached: Any, start: Any, target: Any) -> jax.Array:
    """Squared distance still to go to `target`, as a share of that from `start`, over parameters.

    `‖θ_N − θ*‖² / ‖θ_0 − θ*‖²`, the loss of trajectory matching (Cazenavette et al., CVPR 2022).
    """
    return squared(reached, target) / squared(start, target)


GRADIENT_DISTANCES = {"cosine-rows": cosine_rows, "mse": squared, "cosine": cosine}
"""Distances between gradients by name."""


def _cosine(one, other):
    lengths = _length(one) * _length(other)
    return jnp.sum(one * other, -1) / (lengths + 1e-6)


def _length(vectors):
    """Euclidean norm along the last axis, with gradient 0 where `jnp.linalg.norm` has none."""
    square = jnp.sum(jnp.square(vectors), -1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
