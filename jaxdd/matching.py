"""Distances along which a synthetic set is pulled towards the real one.

`distribution` is the loss of distribution matching with the density weights of Cui et al.
"""

import jax
import jax.numpy as jnp


def distribution(
    real: jax.Array, synthetic: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Squared distance between weighted real and plain synthetic feature means, summed over classes.

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
