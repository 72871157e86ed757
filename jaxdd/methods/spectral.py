"""Spectral matching: compare filtered feature covariances and class signals of two sets.

For the features of a *fixed* network, let Ψ `[d, d]` be their covariance and Φ `[d, k]` the sum of
each class's features divided by the total weight. A set is then described by `f(Ψ) G`, where f acts
on the eigenvalues λ of Ψ and the signal G is Φ, the mean feature or the identity:

| method | filter f | signal G | gain f(λ) | relation |
| --- | --- | --- | --- | --- |
| distribution matching | `identity` | class | 1 | equal, up to class shares |
| gradient matching, linear head | `linear` and `identity` | none and class | λ and 1 | bound |
| kernel ridge regression, linear kernel | `ridge` | class | 1 / (λ + β) | equal weights W |

Source: Bo, Liu and Wang, "Understanding Dataset Distillation via Spectral Filtering" (ICLR 2026).
Their theorem is about a linear head under the squared error and a linear kernel. For a bound, equal
spectra do not imply equal gradients. The relations hold with the second moment as Ψ; this module
uses the covariance, as their code does. Ψ and Φ are means over samples, so that kernel ridge
regression on n samples adds n β to its kernel.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import _axes, _checks

Signal = Literal["none", "mean", "class"]
"""The signal G: the identity, the mean feature, or Φ."""


class Statistics(NamedTuple):
    """Weighted moments of the features of one layer.

    Attributes:
        mass: total weight.
        mean: `[d]`, zero without weight.
        scatter: weighted sum of the outer products of centred features, `[d, d]`.
        class_mass: total weight of each class, `[k]`.
        class_means: `[k, d]`, zero for a class without weight.
    """

    mass: jax.Array
    mean: jax.Array
    scatter: jax.Array
    class_mass: jax.Array
    class_means: jax.Array


class Filter(NamedTuple):
    """A function of eigenvalues.

    Attributes:
        apply: from Ψ `[d, d]` and G `[d, m]` to `f(Ψ) G`, without an eigendecomposition.
        gain: f, of eigenvalues of any shape.
    """

    apply: Callable[[jax.Array, jax.Array], jax.Array]
    gain: Callable[[jax.Array], jax.Array]


class Profile(NamedTuple):
    """How well a set preserves each eigenvector v of the real Ψ; `[d]`, largest eigenvalue first.

    Attributes:
        eigenvalues: λ of the real Ψ.
        variance: `vᵀ Ψ_s v / λ`, synthetic over real variance; 0 where real features do not vary.
        error: `‖vᵀ(Φ − Φ_s)‖ / ‖vᵀΦ‖`, relative error of the class signal; 0 if that is zero.
        signal: `‖vᵀΦ‖`, size of the class signal.
    """

    eigenvalues: jax.Array
    variance: jax.Array
    error: jax.Array
    signal: jax.Array


class Band(NamedTuple):
    """How well a set preserves a range of eigenvectors.

    Attributes:
        directions: number of eigenvectors.
        share: their share of the real variance.
        variance: synthetic variance divided by real variance.
        error: relative error of the class signal.
    """

    directions: int
    share: float
    variance: float
    error: float


def statistics(
    samples: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    weights: ArrayLike | None = None,
    *,
    extract: Callable[[jax.Array], Any] | None = None,
    size: int = 2048,
) -> Any:
    """Return the weighted moments of features, holding those of `size` samples at a time.

    Args:
        samples: features `[n, d]`, or maps `[n, h, w, d]`, whose positions share the weight of a
            sample; with `extract`, any samples `[n, ...]`.
        labels: `[n]` integers.
        num_classes: k; classes may be empty.
        weights: `[n]`, non-negative; uniform by default.
        extract: from samples `[b, ...]` to a tree of features `[b, d]` or `[b, h, w, d]`. Defaults
            to the samples themselves.
        size: samples processed at a time.

    Returns:
        `Statistics`; with `extract`, a tree of them like that of the features.
    """
    if extract is None:
        samples = _checks.finite("features", _checks.floating("features", samples))
        if samples.ndim not in (2, 4) or not samples.size:
            raise ValueError(
                f"Expected non-empty features [n, d] or [n, h, w, d], got {samples.shape}."
            )
        extract = lambda part: part
    samples = jnp.asarray(samples)
    n, size = len(samples), _checks.count("size", size)
    labels = _checks.integers("labels", labels, num_classes, length=n)
    weights = jnp.ones(n) if weights is None else _checks.floating("weights", weights)
    if weights.shape != (n,):
        raise ValueError(f"weights must be [n] = {(n,)}, got {weights.shape}.")
    known = _checks.values(_checks.nonnegative("weights", weights))
    if known is not None and not known.sum() > 0:
        raise ValueError(f"weights must have a positive sum, got {known.sum()}.")
    # Row i holds the weight of sample i in the column of its class.
    rows = jax.nn.one_hot(labels, num_classes, dtype=weights.dtype) * weights[:, None]

    def moments(part, rows):
        return jax.tree.map(lambda features: _moments(features, rows), extract(part))

    if n <= size:
        return moments(samples, rows)

    # One pass that is still centred. Σ x xᵀ − n m mᵀ would also take one pass, but subtracts two
    # large matrices and loses the small eigenvalues in float32, on which a high-pass filter
    # depends. So each part is centred on its own mean, and `merge` adds the spread of the means.
    # The last part is padded with samples of weight zero, which change nothing.
    def cut(array):
        padded = jnp.pad(array, ((0, -n % size), *((0, 0),) * (array.ndim - 1)))
        return padded.reshape(-1, size, *array.shape[1:])

    def add(state, part):
        is_statistics = lambda tree: isinstance(tree, Statistics)
        return jax.tree.map(merge, state, moments(*part), is_leaf=is_statistics), None

    parts = cut(samples), cut(rows)
    shapes = jax.eval_shape(moments, *(part[0] for part in parts))
    zero = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    return jax.lax.scan(add, _axes.match(zero, parts), parts)[0]


def _moments(features, rows):
    """Return the moments of features of one part, with weights `[n, k]` by class."""
    features = _checks.floating("features", features)
    features = features.reshape(len(features), -1, features.shape[-1])
    rows = rows.astype(features.dtype)
    weights, class_mass = rows.sum(1), rows.sum(0)
    mass = weights.sum()
    mean = _ratio(_product(weights, features.mean(1)), mass)
    centred = features - mean[None, None]
    means = mean[None] + _ratio(_product(rows.T, centred.mean(1)), class_mass[:, None])
    present = (class_mass > 0).astype(means.dtype)[:, None]
    weighted = centred * (weights / features.shape[1])[:, None, None]
    flat = (-1, features.shape[2])
    scatter = _product(weighted.reshape(flat).T, centred.reshape(flat))
    return Statistics(mass, mean, scatter, class_mass, means * present)


def merge(first: Statistics, second: Statistics) -> Statistics:
    """Return the moments of two disjoint parts together (Chan, Golub and LeVeque, 1983)."""
    parts = jax.tree.map(lambda *pair: jnp.stack(pair), first, second)
    mass, class_mass = parts.mass.sum(0), parts.class_mass.sum(0)
    mean = _ratio(jnp.einsum("s,sd->d", parts.mass, parts.mean, precision="highest"), mass)
    sums = jnp.einsum("sk,skd->kd", parts.class_mass, parts.class_means, precision="highest")
    # Total scatter = scatter within the parts + scatter of the parts' means.
    offset = parts.mean - mean[None]
    between = jnp.einsum("s,sd,se->de", parts.mass, offset, offset, precision="highest")
    class_means = _ratio(sums, class_mass[:, None])
    return Statistics(mass, mean, parts.scatter.sum(0) + between, class_mass, class_means)


def shift(state: Statistics, origin: jax.Array) -> Statistics:
    """Return the moments of the features minus a vector `[d]`."""
    present = (state.class_mass > 0)[:, None]
    means = jnp.where(present, state.class_means - origin[None], 0)
    return state._replace(mean=state.mean - origin, class_means=means)


def covariance(state: Statistics) -> jax.Array:
    """Return Ψ `[d, d]`, the covariance."""
    return _ratio(state.scatter, state.mass)


def _signal_matrix(state: Statistics, signal: Signal) -> jax.Array:
    """Return G: the identity `[d, d]`, the mean feature `[d, 1]`, or Φ `[d, k]`."""
    if signal == "none":
        return jnp.eye(len(state.mean), dtype=state.mean.dtype)
    if signal == "mean":
        return state.mean[:, None]
    if signal != "class":
        raise ValueError(f"signal must be 'none', 'mean' or 'class', got {signal!r}.")
    return state.class_means.T * _ratio(state.class_mass, state.mass)[None]


def identity() -> Filter:
    """Return f(λ) = 1, the filter that changes nothing."""
    return Filter(lambda psi, signal: signal, jnp.ones_like)


def linear() -> Filter:
    """Return f(λ) = λ, a low-pass filter: the directions of large variance dominate."""
    return Filter(_product, lambda eigenvalues: eigenvalues)


def ridge(beta: ArrayLike) -> Filter:
    """Return f(λ) = 1 / (λ + β), a high-pass filter; stronger for smaller β.

    Args:
        beta: β, positive. It is also a floor: directions without variance get the gain 1 / β.
    """
    beta = _checks.positive("beta", beta)

    # Ψ + β I is symmetric and positive definite, so Cholesky solves for f(Ψ) G. An eigenvalue
    # decomposition costs more, and its gradient is infinite where two eigenvalues are equal, as
    # the zero eigenvalues of a set with few images are.
    def apply(psi, signal):
        factor = jax.scipy.linalg.cho_factor(psi + beta * jnp.eye(len(psi), dtype=psi.dtype))
        return jax.scipy.linalg.cho_solve(factor, signal)

    return Filter(apply, lambda eigenvalues: 1 / (eigenvalues + beta))


def losses(
    real: Statistics,
    synthetic: Statistics,
    filter: Filter,
    *,
    signals: Sequence[Signal] = ("class",),
    squared: bool = True,
) -> tuple[jax.Array, ...]:
    """Return the distance `‖f(Ψ) G − f(Ψ_s) G_s‖²` of two sets in the Frobenius norm, by signal.

    Args:
        real: moments of real features.
        synthetic: moments of synthetic features.
        filter: f.
        signals: the signals G. Several cost little more than one.
        squared: return squared norms; otherwise norms, whose gradient at zero is zero.
    """
    _check_sizes(real, synthetic)

    # Signals are filtered side by side, so that Ψ is factorised once.
    def filtered(state):
        matrices = [_signal_matrix(state, signal) for signal in signals]
        ends = np.cumsum([matrix.shape[1] for matrix in matrices])[:-1].tolist()
        return jnp.split(
            filter.apply(covariance(state), jnp.concatenate(matrices, 1)), ends, axis=1
        )

    pairs = zip(filtered(real), filtered(synthetic), strict=True)
    squares = [jnp.sum(jnp.square(a - b)) for a, b in pairs]
    return tuple(squares if squared else map(_root, squares))


def profile(real: Statistics, synthetic: Statistics) -> Profile:
    """Return how much real variance and class signal a set retains, by eigenvector.

    The result has no useful gradient, because eigenvectors have none where eigenvalues are equal.

    Args:
        real: moments of real features.
        synthetic: moments of synthetic features.
    """
    _check_sizes(real, synthetic)
    psi, psi_synthetic = covariance(real), covariance(synthetic)
    eigenvalues, vectors = jnp.linalg.eigh(psi)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    variance = jnp.sum(vectors * _product(psi_synthetic, vectors), 0)  # vᵀ Ψ_s v for each v
    phi, phi_synthetic = _signal_matrix(real, "class"), _signal_matrix(synthetic, "class")
    error, signal = (
        _root(jnp.square(_product(vectors.T, x)).sum(1)) for x in (phi - phi_synthetic, phi)
    )
    # Eigenvalues that are zero up to rounding are noise, and ratios to them are meaningless.
    rounding = len(psi) * jnp.finfo(psi.dtype).eps * eigenvalues[0]
    varying = jnp.where(eigenvalues > rounding, eigenvalues, 0)
    return Profile(eigenvalues, _ratio(variance, varying), _ratio(error, signal), signal)


def bands(
    profile: Profile, *, shares: Sequence[float] = (0.5, 0.9, 0.99, 0.999)
) -> tuple[Band, ...]:
    """Summarise a profile in bands that end at given shares of the real variance.

    This function runs on the host and cannot be transformed by JAX.

    Args:
        profile: a concrete (not traced) profile.
        shares: increasing, in (0, 1]; directions beyond the last share are left out.

    >>> flat = Profile(*(jnp.ones(4),) * 4)
    >>> [(band.directions, band.variance) for band in bands(flat, shares=(0.5, 0.75))]
    [(2, 1.0), (1, 1.0)]
    """
    _checks.concrete("spectral.bands", profile)
    edges = np.array([0.0, *shares])
    if not (np.diff(edges) > 0).all() or edges[-1] > 1:
        raise ValueError(f"shares must increase within (0, 1], got {tuple(shares)}.")
    eigenvalues, variance, error, signal = (
        np.maximum(np.asarray(jax.device_get(field), float), 0) for field in profile
    )
    ends = np.searchsorted(np.cumsum(eigenvalues) / eigenvalues.sum(), edges[1:] - 1e-9) + 1
    summary = []
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        if first == end:  # a single direction spans several bands
            continue
        part = slice(first, end)
        real_variance, energy = eigenvalues[part].sum(), np.square(signal[part]).sum()
        retained = (eigenvalues * variance)[part].sum() / (real_variance or 1)
        missed = np.sqrt(np.square(error * signal)[part].sum() / (energy or 1))
        share = real_variance / eigenvalues.sum()
        summary.append(Band(int(end - first), float(share), float(retained), float(missed)))
    return tuple(summary)


def _check_sizes(real, synthetic):
    if real.class_means.shape != synthetic.class_means.shape:
        raise ValueError(
            "real and synthetic must agree in [classes, features], "
            f"got {real.class_means.shape} and {synthetic.class_means.shape}."
        )


def _product(a, b):
    return jnp.matmul(a, b, precision="highest")


def _ratio(a, b):
    """Return a / b, or 0 where b is 0, with finite gradients."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _root(square):
    """Return the square root, with gradient 0 at 0."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
