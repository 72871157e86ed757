"""Statistics, filters, losses and profiles against NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd.methods import spectral

RNG = np.random.default_rng(0)
X, Z = RNG.normal(3, 1, (40, 5)), RNG.normal(3, 1, (4, 5))
Y, YZ = RNG.integers(0, 2, 40), np.array([0, 1, 0, 1])
W = RNG.uniform(0.1, 2, 40)
FILTERS = {
    "identity": spectral.identity(),
    "linear": spectral.linear(),
    "ridge": spectral.ridge(0.01),
}


def second(x):
    return x.T @ x / len(x), x.T @ np.eye(3)[Y[: len(x)]] / len(x)


@jax.jit
def program(x, w, z):
    whole = spectral.statistics(x, Y, 3, w)
    streamed = spectral.statistics(x, Y, 3, w, size=7)
    halves = [spectral.statistics(x[s], Y[s], 3, w[s]) for s in (slice(25), slice(25, 40))]
    plain, turned = spectral.statistics(x, Y, 3), spectral.statistics(x[::-1], Y[::-1], 3)
    flat = spectral.statistics(x, Y, 3, jnp.full(40, 0.5))

    def ridged(z):
        state = spectral.statistics(z, YZ, 3)
        return spectral.losses(plain, state, spectral.ridge(0.01), squared=False)[0]

    psi = spectral.covariance(plain) + jnp.outer(plain.mean, plain.mean)  # the second moment
    phi = spectral._signal_matrix(plain, "class")
    applied = {name: f.apply(psi, phi) for name, f in FILTERS.items()}

    states = whole, streamed, spectral.merge(*halves), plain, turned, flat
    synthetic = spectral.statistics(z, YZ, 3)
    profile = spectral.profile(plain, synthetic)
    applied["means"] = spectral.losses(plain, synthetic, FILTERS["identity"])[0]
    return states, applied, profile, jax.value_and_grad(ridged)(z)


@pytest.fixture(scope="module")
def result():
    with jax.enable_x64(True):
        return jax.device_get(program(X, W, Z))


def test_statistics_are_those_of_numpy(result):
    whole, streamed, merged, plain, turned, flat = result[0]
    for state in (whole, streamed, merged):
        np.testing.assert_allclose(state.mean, np.average(X, 0, W), rtol=1e-10)
        np.testing.assert_allclose(
            state.scatter / state.mass, np.cov(X.T, aweights=W, ddof=0), rtol=1e-9
        )
        for k in range(2):
            mean = np.average(X[Y == k], 0, W[Y == k])
            np.testing.assert_allclose(state.class_means[k], mean, rtol=1e-10)
        assert not state.class_means[2].any()
    for state in (turned, flat):
        np.testing.assert_allclose(state.scatter / state.mass, plain.scatter / 40, rtol=1e-9)
        np.testing.assert_allclose(state.class_means, plain.class_means, rtol=1e-9)


@jax.enable_x64(True)
def test_filters_apply_their_gain_and_give_the_named_methods(result):
    applied, (psi, phi) = result[1], second(X)
    spectrum, vectors = np.linalg.eigh(psi)
    for name, f in FILTERS.items():
        gain = np.asarray(jax.device_get(f.gain(jnp.asarray(spectrum))))
        expected = vectors * gain @ vectors.T @ phi
        np.testing.assert_allclose(applied[name], expected, rtol=1e-7, atol=1e-8, err_msg=name)
        side = np.sign(np.round(gain[-1] - gain[0], 6))
        assert side == {"identity": 0, "linear": 1}.get(name, -1), name
    distance = np.square(phi - Z.T @ np.eye(3)[YZ] / 4).sum()
    np.testing.assert_allclose(applied["means"], distance, rtol=1e-8)
    onehot = np.eye(3)[Y]
    dual = X.T @ np.linalg.solve(X @ X.T / 40 + 0.01 * np.eye(40), onehot) / 40
    np.testing.assert_allclose(applied["ridge"], dual, atol=1e-6)


def numpy_loss(z):
    def part(x, y):
        psi = np.cov(x.T, ddof=0) + 0.01 * np.eye(5)
        return np.linalg.solve(psi, x.T @ np.eye(3)[y] / len(x))

    return np.linalg.norm(part(X, Y) - part(z, YZ))


def test_loss_and_gradient_of_singular_covariances(result):
    value, gradient = result[3]
    np.testing.assert_allclose(value, numpy_loss(Z), rtol=1e-6)
    step = 1e-6 * np.eye(20).reshape(20, 4, 5)
    expected = [(numpy_loss(Z + e) - numpy_loss(Z - e)) / 2e-6 for e in step]
    np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-4, atol=1e-4)


def test_profile_against_numpy(result):
    spectrum, vectors = np.linalg.eigh(np.cov(X.T, ddof=0))
    retained = np.diag(vectors.T @ np.cov(Z.T, ddof=0) @ vectors) / spectrum
    phi, other = second(X)[1], Z.T @ np.eye(3)[YZ] / 4
    error = np.linalg.norm(vectors.T @ (phi - other), axis=1)
    error /= np.linalg.norm(vectors.T @ phi, axis=1)
    length = np.linalg.norm(vectors.T @ phi, axis=1)
    for field, expected in zip(result[2], (spectrum, retained, error, length), strict=True):
        np.testing.assert_allclose(field, expected[::-1], rtol=1e-7)


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (lambda: spectral.ridge(0.0), "beta.*got 0.0"),
        (lambda: spectral.statistics(X[0], Y, 3), r"features.*got \(5,\)"),
        (lambda: spectral.statistics(X * np.nan, Y, 3), "features.*nan"),
        (lambda: spectral.statistics(X, Y, 3, -W), "weights.*got -"),
        (lambda: spectral.statistics(X, Y, 3, 0 * W), "weights.*got 0"),
        (lambda: spectral.statistics(X, Y, 3, W[1:]), r"weights.*got \(39,\)"),
        (lambda: spectral.statistics(X, Y[1:], 3), "labels.*39"),
    ],
)
def test_invalid_inputs_raise(call, value):
    with pytest.raises(ValueError, match=value):
        call()


def test_float32_statistics_far_from_zero_are_accurate():
    features = np.float32(1000 + X[:4])

    @jax.jit
    def filtered(features):
        state = spectral.statistics(features, np.zeros(4, int), 1, size=3)
        profile = spectral.profile(state, state)
        return state, profile, spectral.losses(state, state, spectral.ridge(1e-3))[0]

    state, profile, same = filtered(features)
    expected = np.cov(features.T.astype(float), ddof=0)
    np.testing.assert_allclose(spectral.covariance(state), expected, atol=1e-4)
    np.testing.assert_allclose(profile.variance, [1, 1, 1, 0, 0], atol=1e-4)
    assert same == 0 and not np.asarray(profile.error).any()


def test_other_sizes_dtypes_and_signals_raise():
    with pytest.raises(TypeError, match="features.*int32"):
        spectral.statistics(np.ones((2, 2), np.int32), np.zeros(2, int), 1)
    state = spectral.Statistics(*map(jnp.zeros, ((), 2, (2, 2), 3, (3, 2))))
    other = state._replace(class_means=jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(4, 2\)"):
        spectral.losses(state, other, spectral.identity())
    mix: Any = "mix"
    with pytest.raises(ValueError, match="got 'mix'"):
        spectral.losses(state, state, spectral.identity(), signals=(mix,))
