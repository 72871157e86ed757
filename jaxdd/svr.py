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
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVR
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxdd import _checks

KERNELS = ("linear", "rbf")
RESIDUALS = ("training", "leave-one-out")
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
    n = _checks.count("the number of targets", known.size, minimum=3)
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


class WorkingLikelihoodSVR(RegressorMixin, BaseEstimator):
    """Support vector regression whose tube is estimated from residuals by `jaxdd.svr.fit`.

    It starts with a tenth of the robust standard deviation of the targets, then alternates: fit,
    tube of the residuals, fit. With residuals="leave-one-out" the tube comes from residuals of
    kernel ridge regression instead and there is one fit. Where the residuals are all equal, as
    those of constant targets, the tube stays.

    The alternation descends no common objective and need not converge; three passes are what
    `experiments.svr` measured. In its simulations, by either kind of residuals, it was never worse
    than five-fold cross-validation with n of 100 or 300, and gained most with bounded noise; with n
    of 20 or 50 it was more often worse than better, most of all with leave-one-out residuals, which
    also take O(n³). On real data there was little to choose.

    Args:
        kernel: "linear" or "rbf".
        gamma: of the radial kernel, positive, or "scale": 1 / (d · variance of X).
        C: box of the dual, positive, in the unit of the targets; None takes the 95 % quantile of
            their distance from their median (1 where that is 0).
        passes: estimates of the tube from training residuals.
        residuals: "training" or "leave-one-out".

    Attributes:
        svr_: the fitted `sklearn.svm.SVR`.
        half_width_: its tube, in the unit of the targets.
        scale_: σ of the working likelihood, likewise.
        n_features_in_: number of features d.

    Source: Wu and Wang, arXiv 2003.03893, and the first author's code of its successor, whose
    start and box these are, but for the median.

    >>> x = np.linspace(-3, 3, 200)[:, None]
    >>> noise = np.random.default_rng(0).uniform(-0.5, 0.5, 200)
    >>> found = WorkingLikelihoodSVR(gamma=1.0).fit(x, np.sin(x[:, 0]) + noise)
    >>> bool(0.4 < found.half_width_ < 0.5)  # of uniform noise the tube is the bound
    True
    """

    def __init__(
        self,
        *,
        kernel: str = "rbf",
        gamma: float | str = "scale",
        C: float | None = None,  # noqa: N803, as in scikit-learn
        passes: int = 3,
        residuals: str = "training",
    ):
        self.kernel = kernel
        self.gamma = gamma
        self.C = C
        self.passes = passes
        self.residuals = residuals

    def fit(self, X: Any, y: Any) -> "WorkingLikelihoodSVR":  # noqa: N803
        """Fits the regression and its tube.

        Args:
            X: features `[n, d]`, n ≥ 3.
            y: targets `[n]`.

        Raises:
            TypeError: passes that are no integer.
            ValueError: an option out of range, too few samples, or values that are not finite.
        """
        passes = self._checked()
        X, y = validate_data(  # noqa: N806
            self, X, y, y_numeric=True, ensure_min_samples=3, dtype=np.float64
        )
        y = y.astype(np.float64)
        gamma = self._width(X)
        box = float(np.quantile(np.abs(y - np.median(y)), 0.95)) or 1.0
        start = float(np.subtract(*np.quantile(y, (0.75, 0.25)))) / 13.49
        model = SVR(kernel=self.kernel, gamma=gamma, C=self.C or box, epsilon=start)
        self.half_width_, self.scale_ = start, 0.0
        if self.residuals == "leave-one-out":
            known: dict[str, Any] = {"gamma": gamma} if self.kernel == "rbf" else {}
            self._take(leave_one_out(pairwise_kernels(X, metric=self.kernel, **known), y))
        else:
            for _ in range(passes):
                self._take(y - model.fit(X, y).predict(X))
                model.set_params(epsilon=self.half_width_)
        self.svr_ = model.set_params(epsilon=self.half_width_).fit(X, y)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Predicts targets `[m]` of features `[m, d]`.

        Raises:
            NotFittedError: before `fit`.
            ValueError: another number of features, or values that are not finite.
        """
        check_is_fitted(self)
        return self.svr_.predict(validate_data(self, X, reset=False, dtype=np.float64))

    def _take(self, residuals: np.ndarray) -> None:
        if np.ptp(residuals) > 0:
            tube = fit(residuals)
            self.half_width_, self.scale_ = float(tube.half_width), float(tube.scale)

    def _width(self, features: np.ndarray) -> Any:
        if self.gamma != "scale":
            return float(self.gamma)
        variance = features.var() * features.shape[1]
        return float(1 / variance) if variance else 1.0

    def _checked(self) -> int:
        for name, known in (("kernel", KERNELS), ("residuals", RESIDUALS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, found {getattr(self, name)!r}"
                )
        if isinstance(self.gamma, str) and self.gamma != "scale":
            raise ValueError(f"gamma must be positive or 'scale', found {self.gamma!r}")
        _checks.positive("gamma", 1.0 if self.gamma == "scale" else self.gamma)
        _checks.positive("C", 1.0 if self.C is None else self.C)
        return _checks.count("passes", self.passes)
