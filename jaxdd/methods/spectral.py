"""Spectral matching: filtered feature covariances and class signals of two sets, compared.

With features of a *fixed* extractor, Ψ `[d, d]` their covariance and Φ `[d, k]` the sum of each
class's features over the mass of all, a set is `f(Ψ) G`, where f acts on the eigenvalues of Ψ:

| method | filter | signal | gain | relation |
| --- | --- | --- | --- | --- |
| distribution matching | `identity` | class | 1 | equal, up to class shares |
| gradient matching, linear head | `linear` and `identity` | none and class | λ and 1 | bound |
| kernel ridge, linear kernel | `ridge` | class | 1 / (λ + β) | equal weights W |

Source: Bo, Liu and Wang, "Understanding Dataset Distillation via Spectral Filtering" (ICLR 2026).
The theorem is about a linear head under the squared error and a linear kernel. Where it gives a
bound, equal spectra do not imply equal gradients or trajectories. Its Ψ is the second moment,
`centred=False` here, and only with that are the relations above equalities; its code takes the
centred covariance, which is the default. Ψ and Φ are per sample: kernel ridge regression on n
samples adds nβ to its kernel.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdd import _checks

Signal = Literal["none", "mean", "class"]
"""What a filter is applied to: the identity, the mean feature, or Φ."""


class Statistics(NamedTuple):
    """Moments of the features of one layer.

    Attributes:
        mass: sum of the weights.
        mean: `[d]`, zero without mass.
        scatter: weighted sum of the outer products of centred features, `[d, d]`.
        class_mass: `[k]`.
        class_means: `[k, d]`, zero for a class without mass.
    """

    mass: jax.Array
    mean: jax.Array
    scatter: jax.Array
    class_mass: jax.Array
    class_means: jax.Array


class Filter(NamedTuple):
    """A function of a spectrum.

    Attributes:
        apply: of Ψ `[d, d]` and G `[d, m]`, gives `f(Ψ) G`, without an eigendecomposition.
        gain: f itself, of eigenvalues of any shape.
    """

    apply: Callable[[jax.Array, jax.Array], jax.Array]
    gain: Callable[[jax.Array], jax.Array]


class Profile(NamedTuple):
    """What a set keeps along each eigenvector of the real Ψ, the largest eigenvalue first, `[d]`.

    Attributes:
        eigenvalues: of the real Ψ.
        variance: `vᵀ Ψ_s v / λ`; 0 where the real features do not vary.
        error: `‖vᵀ(Φ − Φ_s)‖ / ‖vᵀΦ‖`; 0 where the real classes give no signal.
        signal: `‖vᵀΦ‖`.
    """

    eigenvalues: jax.Array
    variance: jax.Array
    error: jax.Array
    signal: jax.Array


class Band(NamedTuple):
    """What a set keeps in several neighbouring directions.

    Attributes:
        directions: how many.
        share: of the real variance that is in them.
        variance: what the set has of it, 1 for as much as the real images.
        error: of the class signal in them, 0 for none.
    """

    directions: int
    share: float
    variance: float
    error: float


def statistics(
    features: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    weights: ArrayLike | None = None,
    *,
    size: int = 2048,
) -> Statistics:
    """Moments of features, micro-batch by micro-batch, centred before they are multiplied.

    Args:
        features: `[n, d]`, floating; of one layer (`jax.tree.map` serves several). Of maps
            `[n, h, w, d]` every position counts, and those of a sample share its weight.
        labels: `[n]` integers.
        num_classes: k; classes may be empty.
        weights: `[n]`, non-negative; None weighs all alike.
        size: samples at a time.

    Raises:
        TypeError: features that are not floating, labels that are no integers.
        ValueError: other shapes, values that are not finite, negative weights, or no mass.
    """
    features = _checks.finite("features", _checks.floating("features", features))
    if features.ndim not in (2, 4) or not features.size:
        raise ValueError(
            f"features must be [n, d] or [n, h, w, d] with all of them ≥ 1, found {features.shape}"
        )
    return stream_statistics(lambda part: part, features, labels, num_classes, weights, size=size)


def stream_statistics(
    extract: Callable[[jax.Array], Any],
    samples: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    weights: ArrayLike | None = None,
    *,
    size: int = 256,
) -> Any:
    """Moments of the features of samples that are extracted, and forgotten, `size` at a time.

    Args:
        extract: from samples `[b, ...]` to a tree of features `[b, d]` and `[b, h, w, d]`.
        samples: `[n, ...]`, of any type that `extract` takes.
        labels: as in `statistics`.
        num_classes: as in `statistics`.
        weights: as in `statistics`.
        size: samples at a time.

    Returns:
        A tree like that of the features, of `Statistics`.

    Raises:
        TypeError: as in `statistics`.
        ValueError: as in `statistics`.
    """
    samples = jnp.asarray(samples)
    n, size = len(samples), _checks.count("size", size)
    labels = _checks.integers("labels", labels, num_classes, length=n)
    weights = jnp.ones(n) if weights is None else _checks.floating("weights", weights)
    if weights.shape != (n,):
        raise ValueError(f"weights must be [n] = {(n,)}, found {weights.shape}")
    found = _checks.values(_checks.nonnegative("weights", weights))
    if found is not None and not found.sum() > 0:
        raise ValueError(f"weights must have a positive sum, found {found.sum()}")
    rows = jax.nn.one_hot(labels, num_classes, dtype=weights.dtype) * weights[:, None]

    def moments(part, rows):
        return jax.tree.map(lambda features: _moments(features, rows), extract(part))

    if n <= size:
        return moments(samples, rows)

    def cut(array):
        padded = jnp.pad(array, ((0, -n % size), *((0, 0),) * (array.ndim - 1)))
        return padded.reshape(-1, size, *array.shape[1:])

    def add(state, batch):
        pairs = state, moments(*batch)
        return jax.tree.map(merge, *pairs, is_leaf=_is_statistics), None

    batches = cut(samples), cut(rows)
    shapes = jax.eval_shape(moments, *(batch[0] for batch in batches))
    nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    return jax.lax.scan(add, nothing, batches)[0]


def merge(one: Statistics, other: Statistics) -> Statistics:
    """Returns the moments of two parts together (Chan, Golub and LeVeque, 1983)."""
    parts = jax.tree.map(lambda *pair: jnp.stack(pair), one, other)
    mass, class_mass = parts.mass.sum(0), parts.class_mass.sum(0)
    mean = _ratio(jnp.einsum("s,sd->d", parts.mass, parts.mean, precision="highest"), mass)
    sums = jnp.einsum("sk,skd->kd", parts.class_mass, parts.class_means, precision="highest")
    # Scatter around the common mean = scatter within the parts + that of their means around it.
    offset = parts.mean - mean
    between = jnp.einsum("s,sd,se->de", parts.mass, offset, offset, precision="highest")
    class_means = _ratio(sums, class_mass[:, None])
    return Statistics(mass, mean, parts.scatter.sum(0) + between, class_mass, class_means)


def shift(state: Statistics, origin: jax.Array) -> Statistics:
    """The moments of the features less a vector `[d]`; Φ is then that of the differences to it."""
    there = (state.class_mass > 0)[:, None]
    means = jnp.where(there, state.class_means - origin, 0)
    return state._replace(mean=state.mean - origin, class_means=means)


def covariance(state: Statistics, *, centred: bool = True) -> jax.Array:
    """Ψ `[d, d]` over the mass: the covariance, or the second moment where not centred."""
    psi = _ratio(state.scatter, state.mass)
    return psi if centred else psi + jnp.outer(state.mean, state.mean)


def signal_matrix(state: Statistics, signal: Signal) -> jax.Array:
    """G `[d, m]`: the identity, the mean feature (m = 1) or Φ (m = k).

    Raises:
        ValueError: another signal.
    """
    if signal == "none":
        return jnp.eye(len(state.mean), dtype=state.mean.dtype)
    if signal == "mean":
        return state.mean[:, None]
    if signal != "class":
        raise ValueError(f"signal must be none, mean or class, found {signal!r}")
    return state.class_means.T * _ratio(state.class_mass, state.mass)


def identity() -> Filter:
    """f(λ) = 1, all pass."""
    return Filter(lambda psi, signal: signal, jnp.ones_like)


def linear() -> Filter:
    """f(λ) = λ, low pass."""
    return Filter(_product, lambda spectrum: spectrum)


def ridge(beta: ArrayLike) -> Filter:
    """f(λ) = 1 / (λ + β), high pass, the more the smaller β; by Cholesky.

    Where Ψ lacks rank the gain is 1 / β.

    Raises:
        ValueError: β is not positive and finite.
    """
    beta = _checks.positive("beta", beta)

    def apply(psi, signal):
        factor = jax.scipy.linalg.cho_factor(psi + beta * jnp.eye(len(psi), dtype=psi.dtype))
        return jax.scipy.linalg.cho_solve(factor, signal)

    return Filter(apply, lambda spectrum: 1 / (spectrum + beta))


def loss(
    real: Statistics,
    synthetic: Statistics,
    filter: Filter,
    *,
    signal: Signal = "class",
    synthetic_filter: Filter | None = None,
    centred: bool = True,
    squared: bool = True,
) -> jax.Array:
    """Distance `‖f(Ψ) G − f(Ψ_s) G_s‖²` between two sets, in the Frobenius norm.

    Args:
        real: moments of the real features.
        synthetic: moments of the synthetic ones.
        filter: f.
        signal: what G is.
        synthetic_filter: f of the synthetic set where it differs, as with other numbers of steps.
        centred: whether Ψ is the covariance or the second moment.
        squared: the norm itself where False, as curriculum frequency matching takes it; its
            gradient at zero is zero.

    Raises:
        ValueError: moments of other sizes, or another signal.
    """
    given: dict[str, Any] = dict(synthetic_filter=synthetic_filter, centred=centred)
    return losses(real, synthetic, filter, signals=(signal,), squared=squared, **given)[0]


def losses(
    real: Statistics,
    synthetic: Statistics,
    filter: Filter,
    *,
    signals: Sequence[Signal],
    synthetic_filter: Filter | None = None,
    centred: bool = True,
    squared: bool = True,
) -> tuple[jax.Array, ...]:
    """The `loss` of each signal, at the price of one.

    Args:
        real: as in `loss`.
        synthetic: as in `loss`.
        filter: as in `loss`.
        signals: what G is, one after another.
        synthetic_filter: as in `loss`.
        centred: as in `loss`.
        squared: as in `loss`.

    Raises:
        ValueError: as in `loss`.
    """
    _same(real, synthetic)

    def filtered(state, by):
        found = [signal_matrix(state, signal) for signal in signals]
        ends = [sum(g.shape[1] for g in found[: i + 1]) for i in range(len(found) - 1)]
        psi = covariance(state, centred=centred)
        return jnp.split(by.apply(psi, jnp.concatenate(found, 1)), ends, axis=1)

    pairs = zip(
        filtered(real, filter), filtered(synthetic, synthetic_filter or filter), strict=True
    )
    squares = [jnp.sum(jnp.square(one - other)) for one, other in pairs]
    return tuple(squares if squared else map(_root, squares))


def profile(real: Statistics, synthetic: Statistics, *, centred: bool = True) -> Profile:
    """What a set keeps of the real variance and class signal, eigenvector by eigenvector.

    Not to be differentiated: eigenvectors have no gradient where eigenvalues meet.

    Raises:
        ValueError: moments of other sizes.
    """
    _same(real, synthetic)
    psi, reached = (covariance(state, centred=centred) for state in (real, synthetic))
    spectrum, vectors = jnp.linalg.eigh(psi)
    spectrum, vectors = spectrum[::-1], vectors[:, ::-1]
    least = len(psi) * jnp.finfo(psi.dtype).eps * spectrum[0]
    kept = jnp.sum(vectors * _product(reached, vectors), 0)
    signal, there = signal_matrix(real, "class"), signal_matrix(synthetic, "class")
    lengths = [_root(jnp.square(_product(vectors.T, x)).sum(1)) for x in (signal - there, signal)]
    varying = jnp.where(spectrum > least, spectrum, 0)
    return Profile(spectrum, _ratio(kept, varying), _ratio(*lengths), lengths[1])


def bands(
    profile: Profile, *, shares: Sequence[float] = (0.5, 0.9, 0.99, 0.999)
) -> tuple[Band, ...]:
    """Sums a profile up: the directions that hold the first half of the real variance, and so on.

    Args:
        profile: known values, not traced ones.
        shares: of the variance at which bands end, rising; what is left is not shown.

    Raises:
        ValueError: shares that do not rise within (0, 1].

    >>> flat = Profile(*(jnp.ones(4),) * 4)
    >>> [(band.directions, band.variance) for band in bands(flat, shares=(0.5, 0.75))]
    [(2, 1.0), (1, 1.0)]
    """
    edges = np.array([0.0, *shares])
    if not (np.diff(edges) > 0).all() or edges[-1] > 1:
        raise ValueError(f"shares must rise within (0, 1], found {tuple(shares)}")
    found = (np.asarray(jax.device_get(each), float) for each in profile)
    spectrum, variance, error, signal = (np.maximum(each, 0) for each in found)
    ends = np.searchsorted(np.cumsum(spectrum) / spectrum.sum(), edges[1:] - 1e-9) + 1
    made = []
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        if first == end:  # a single direction fills several bands
            continue
        part = slice(first, end)
        mass, energy = spectrum[part].sum(), np.square(signal[part]).sum()
        kept = (spectrum * variance)[part].sum() / (mass or 1)
        missed = np.sqrt(np.square(error * signal)[part].sum() / (energy or 1))
        share = mass / spectrum.sum()
        made.append(Band(len(spectrum[part]), float(share), float(kept), float(missed)))
    return tuple(made)


def _moments(features, rows):
    """Moments of one batch, `rows` `[n, k]` being each sample's weight in its class's column."""
    features = _checks.floating("features", features)
    features = features.reshape(len(features), -1, features.shape[-1])
    rows = rows.astype(features.dtype)
    weights, class_mass = rows.sum(1), rows.sum(0)
    mass = weights.sum()
    mean = _ratio(_product(weights, features.mean(1)), mass)
    centred = features - mean
    means = mean + _ratio(_product(rows.T, centred.mean(1)), class_mass[:, None])
    weighted = centred * (weights / features.shape[1])[:, None, None]
    flat = (-1, features.shape[2])
    scatter = _product(weighted.reshape(flat).T, centred.reshape(flat))
    return Statistics(mass, mean, scatter, class_mass, means * (class_mass > 0)[:, None])


def _is_statistics(tree):
    return isinstance(tree, Statistics)


def _same(real, synthetic):
    if real.class_means.shape != synthetic.class_means.shape:
        raise ValueError(
            "real and synthetic must have the same [classes, features], found "
            f"{real.class_means.shape} and {synthetic.class_means.shape}"
        )


def _product(a, b):
    return jnp.matmul(a, b, precision="highest")


def _ratio(a, b):
    """The quotient, and 0 where the divisor is 0, also for gradients."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _root(square):
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
