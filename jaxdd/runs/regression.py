"""Support vector regression that finds its tube itself, as an estimator of scikit-learn.

Importing this module imports scikit-learn, which is a requirement of jaxdd; `jaxdd.svr`, with the
formulas, does without.
"""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVR
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxdd import _checks, svr

KERNELS = ("linear", "rbf")
RESIDUALS = ("training", "leave-one-out")


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
            self._take(svr.leave_one_out(pairwise_kernels(X, metric=self.kernel, **known), y))
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
            tube = svr.fit(residuals)
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
