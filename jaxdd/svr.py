"""The insensitive tube of support vector regression, from residuals, by a working likelihood.

Support vector regression ignores residuals up to a half-width ε, which somebody has to choose. Here
the likelihood does: its loss is that of the noise density

    p(r) = exp(−max(|r| − ε, 0) / σ) / 2(σ + ε)

flat up to ε and exponential beyond it (the ε-Laplacian). Given n residuals, `fit` maximises it over
ε and σ together, in O(n log n) and without an optimiser; both have the unit of the residuals.

Derivation. With the excess S(ε) = Σ max(|rᵢ| − ε, 0) and the number N(ε) of residuals beyond ε, the
mean negative log-likelihood is

    L(ε, σ) = log 2(σ + ε) + S(ε) / nσ

1. Between two neighbouring values of |r| the excess is linear in ε, with slope −N, and L for a
   given σ is concave: it is least at one of the ends. So ε is one of |r₁|, …, |rₙ|, or 0.
2. For a given ε, ∂L/∂σ = 0 is nσ² = S(σ + ε), so σ(ε) = (S + √(S² + 4nεS)) / 2n, and there
   L = log 2(σ + ε) + σ / (σ + ε).
3. Sorted, all n + 1 excesses are one cumulative sum; the least L is the answer.

Where the density is the noise's, the share σ / (σ + ε) lies outside, by which `p` is meant in the
standard errors for large n: σ / √(np) of σ, and σ √((2 − p) / p(1 − p)n) of ε.

What it says of other noise: of the normal, ε near .848 standard deviations, with 40 % outside; of
Laplace's, ε near 0; heavy tails and outliers shrink the tube. Degenerate cases:

* Bounded noise. At ε = max |r| nothing is outside, σ is 0, and the density is the uniform one, with
  L = log 2ε. For uniform noise this is, or is near, the answer. A small sample may lead to it too:
  of normal residuals a third of the samples of n = 20 do, 4 % at 50 and next to none at 100, where
  the standard deviation of ε is still .33 (of normal residuals with standard deviation 1).
* Residuals that are zero but for a few: ε = 0 and σ is the mean of |r|, as of Laplace's density.
* All residuals zero: the likelihood has no bound. Equal residuals are refused.
* The residuals of the fit itself. They are too small where the fit is flexible and n is small, and
  those of a support vector regression pile up at its own ε. `leave_one_out` gives residuals that
  were not fitted, by kernel ridge regression.

Source: Wu and Wang, "Support vector regression with a data-driven insensitive loss by a working
likelihood", arXiv 2003.03893; the closed form is derived above.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import _checks

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-6, 3))
"""Penalties that `leave_one_out` chooses among, in mean eigenvalues of the kernel matrix."""


class Tube(NamedTuple):
    """An insensitive tube.

    Attributes:
        half_width: ε, in the unit of the residuals.
        scale: σ, likewise; 0 where no residual lies outside.
        loss: mean negative log-likelihood of the residuals.
    """

    half_width: Any
    scale: Any
    loss: Any


def fit(residuals: ArrayLike) -> Tube:
    """Fits the tube to residuals by maximum likelihood, see the head of this module.

    NumPy arrays are worked on by NumPy, in their precision and without compiling; all others by
    JAX, under any of its transformations. Under a trace values are not checked, and residuals that
    are all zero give nan.

    Args:
        residuals: `[n]`, n ≥ 3, floating, in any order; a batch by `jax.vmap`.

    Returns:
        `Tube` of scalars. Of equal likelihoods, the narrower tube.

    Raises:
        TypeError: they are not floating.
        ValueError: another shape, fewer than three, or (where they are concrete) not finite or
            all equal.

    >>> tube = fit(np.array([-9.0, -1.0, -0.6, -0.5, 0.2, 0.8, 1.0]))
    >>> f"{tube.half_width:.1f} {tube.scale:.3f} {tube.loss:.3f}"
    '0.5 1.806 2.312'
    """
    xp, known = _array("residuals", residuals)
    if known.ndim != 1 or len(known) < 3:
        raise ValueError(f"residuals must be [n] with n ≥ 3, found shape {known.shape}")
    found = _checks.values(_checks.finite("residuals", known))
    if found is not None and found.min() == found.max():
        raise ValueError(f"residuals must differ, found {len(found)} that are all {found[0]}")
    magnitudes, n = xp.abs(known), len(known)
    unit = xp.max(magnitudes)
    knots = xp.concat([xp.zeros_like(magnitudes[:1]), xp.sort(magnitudes / unit)])
    # Sums of what is not negative: differences of large sums would cancel in float32.
    steps = xp.diff(knots) * xp.arange(n, 0, -1, dtype=knots.dtype) / n
    excess = xp.concat([xp.cumsum(steps[::-1])[::-1], xp.zeros_like(steps[:1])])
    scales = (excess + xp.sqrt(excess**2 + 4 * knots * excess)) / 2
    losses = xp.log(2 * (scales + knots)) + scales / (scales + knots)
    best = xp.argmin(losses)
    return Tube(unit * knots[best], unit * scales[best], xp.log(unit) + losses[best])


def loss(residuals: ArrayLike, half_width: Any, scale: Any) -> Any:
    """Returns the mean negative log-likelihood L(ε, σ) of residuals.

    Args:
        residuals: `[n]`, floating.
        half_width: ε, at least 0, in their unit.
        scale: σ, positive, in their unit.

    Raises:
        TypeError: residuals that are not floating.
        ValueError: (where they are concrete) residuals that are not finite, a negative half-width
            or a scale that is not positive.

    >>> f"{loss(np.array([0.5, -2.0]), 1.0, 1.0):.4f}"  # log 4 + (0 + 1) / 2
    '1.8863'
    """
    xp, known = _array("residuals", residuals)
    half_width = _checks.nonnegative("the half-width", half_width)
    scale = _checks.positive("the scale", scale)
    excess = xp.maximum(xp.abs(_checks.finite("residuals", known)) - half_width, 0)
    return xp.log(2 * (scale + half_width)) + xp.mean(excess) / scale


def leave_one_out(gram: ArrayLike, targets: ArrayLike) -> Any:
    """Returns by how much each target misses the prediction of a fit to all the others.

    The fit is kernel ridge regression with an intercept that is not penalised: its smoother H is
    linear, so leaving sample i out gives rᵢ / (1 − Hᵢᵢ) without another fit. The penalty is the one
    of `PENALTIES`, times the mean eigenvalue of the centred kernel matrix, with the least sum of
    their squares. O(n³). Arrays of NumPy and JAX are treated as in `fit`.

    Args:
        gram: kernel matrix `[n, n]` of the samples, symmetric and positive semi-definite.
        targets: `[n]`, floating.

    Returns:
        `[n]`, in the unit of the targets.

    Raises:
        TypeError: they are not floating.
        ValueError: shapes that disagree, fewer than three samples, or (where they are concrete)
            values that are not finite.

    >>> x = np.arange(5.0)
    >>> bool(np.abs(leave_one_out(np.outer(x, x), 2 * x + 1)).max() < 0.01)  # of a line
    True
    """
    xp, known = _array("targets", targets)
    kernel = _array("gram", gram)[1]
    n = _checks.count("the number of targets", known.size, least=3)
    if known.shape != (n,) or kernel.shape != (n, n):
        raise ValueError(
            "targets and gram must be [n] and [n, n], found shapes "
            f"{known.shape} and {kernel.shape}"
        )
    known, kernel = _checks.finite("targets", known), _checks.finite("gram", kernel)
    level = xp.mean(kernel, axis=0)
    eigenvalues, vectors = xp.linalg.eigh(kernel - level - level[:, None] + xp.mean(level))
    eigenvalues = xp.maximum(eigenvalues, 0)
    spread = xp.mean(eigenvalues)
    unit = xp.where(spread > 0, spread, 1)  # of samples that are all the same, any will do
    penalties = xp.asarray(PENALTIES, dtype=known.dtype)[:, None] * unit
    kept = penalties / (eigenvalues + penalties)  # eigenvalues of I − H without the intercept
    left = (kept * (vectors.T @ (known - xp.mean(known)))) @ vectors.T
    residuals = left / (kept @ vectors.T**2 - 1 / n)
    return residuals[xp.argmin(xp.sum(residuals**2, axis=1))]


def _array(name: str, array: ArrayLike) -> tuple[Any, Any]:
    """Returns NumPy or `jax.numpy`, and the array as one of theirs in float32 or wider."""
    xp: Any = np if isinstance(array, np.ndarray) else jnp
    found = xp.asarray(array)
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, found {found.dtype}")
    return xp, found.astype(jnp.promote_types(found.dtype, jnp.float32))
