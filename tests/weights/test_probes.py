"""Cross-fitted probes against scikit-learn, and shortcut tests derived by hand."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model

from jaxdd.weights import probes

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnames=("steps", "power"))
def fit(x, onehot, used, *, penalty, **options):
    bound = probes._inverse_bound(x, used, penalty=penalty)
    return probes._fit(x, onehot, used, bound, penalty=penalty, **options)


def clusters(n=300, d=5, k=3, apart=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    centres = apart * rng.normal(size=(k, d))
    return (centres[labels] + rng.normal(size=(n, d))).astype(np.float32), labels


def test_probe_equals_scikit_learn():
    """The objective is that of scikit-learn with C = 1 / (n · penalty)."""
    features, labels = clusters()
    used = np.arange(300) < 200
    x = probes._standardise(jnp.asarray(features))
    result = fit(x, jax.nn.one_hot(labels, 3), used, penalty=0.01, steps=600, power=0.0)
    x = (features - features.mean(0)) / features.std(0)
    peer = linear_model.LogisticRegression(C=1 / (200 * 0.01), tol=1e-8, max_iter=1000)
    expected = peer.fit(x[used], labels[used]).predict_proba(x)
    np.testing.assert_allclose(jax.nn.softmax(result), expected, atol=2e-4)


def test_predictions_are_out_of_fold():
    """With random labels and more features than samples, predictions are no better than chance."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(120, 200)).astype(np.float32), rng.integers(0, 2, 120)
    result = probes.crossfit(KEY, features, labels, num_classes=2)
    assert 0.3 < np.mean(np.argmax(result, 1) == labels) < 0.7
    x, onehot = probes._standardise(features), jax.nn.one_hot(labels, 2)
    scores = fit(x, onehot, np.ones(120, bool), penalty=1e-3, steps=40, power=0.0)
    assert (np.argmax(scores, 1) == labels).all()


def test_matrices_are_factorised_one_by_one():
    """Two programs that factorise batches at the same time deadlock in jaxlib 0.10."""
    features, labels = clusters()
    fit = functools.partial(probes.crossfit, num_classes=3, folds=4)
    program = str(jax.make_jaxpr(lambda x: fit(KEY, x, labels))(features))
    assert re.findall(r"f32\[([\d,]*)\] = cholesky", program) == ["6,6"]


def test_probabilities_are_calibrated():
    features, labels = clusters(n=3000, apart=0.7)
    result = np.asarray(probes.crossfit(KEY, features, labels, num_classes=3))
    np.testing.assert_allclose(result.sum(1), 1, rtol=1e-5)
    assert result.max(1).mean() == pytest.approx(np.mean(result.argmax(1) == labels), abs=0.02)


def test_power_minimises_the_generalised_cross_entropy():
    """The gradient of the written-out loss is zero at the solution."""
    features, labels = clusters()
    x, onehot = probes._standardise(jnp.asarray(features)), jax.nn.one_hot(labels, 3)
    scores = fit(x, onehot, np.ones(300, bool), penalty=0.01, steps=400, power=0.7)
    fitted = jnp.linalg.lstsq(x, scores)[0]

    def loss(w):
        own = (jax.nn.softmax(x @ w) * onehot).sum(1)
        return jnp.mean((1 - own**0.7) / 0.7) + 0.005 * jnp.sum(w[:-1] ** 2)

    np.testing.assert_allclose(jax.grad(loss)(fitted), 0, atol=2e-5)


def test_power_ignores_exceptions():
    """One feature is the attribute, another the class; in a tenth of the samples they differ."""
    rng = np.random.default_rng(0)
    labels = np.arange(4000) % 2
    attribute = np.where(rng.random(4000) < 0.1, 1 - labels, labels)
    seen = np.stack([2.0 * attribute, 0.7 * labels], 1) + rng.normal(size=(4000, 2)) * [0.5, 1.0]
    plain, powered = (
        np.asarray(probes.crossfit(KEY, seen.astype(np.float32), labels, num_classes=2, power=q))
        for q in (0.0, 0.7)
    )
    accuracy = lambda x: np.mean(x.argmax(1) == attribute)
    assert accuracy(powered) > accuracy(plain) + 0.005 and accuracy(powered) > 0.96


def test_folds_fitted_one_by_one_are_the_same(monkeypatch):
    features, labels = clusters()
    result = []
    for largest in (2**25, 1):
        monkeypatch.setattr(probes, "_MAX_SCORES", largest)
        probes._crossfit.clear_cache()
        result.append(probes.crossfit(KEY, features, labels, num_classes=3))
    np.testing.assert_allclose(*result, atol=1e-4)


def test_every_fold_has_its_share_of_every_class():
    labels = jnp.asarray(np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [31, 1, 8])))
    fold = probes.assign_folds(KEY, labels, folds=3)
    for c in range(3):
        sizes = np.bincount(fold[labels == c], minlength=3)
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_probabilities_are_invariant_to_scale_and_constants(scale):
    features, labels = clusters()
    constant = np.concatenate([features * scale, np.full((300, 1), 7, np.float32)], 1)
    one, other = (probes.crossfit(KEY, x, labels, num_classes=3) for x in (features, constant))
    agreed = np.argmax(one, 1) == np.argmax(other, 1)
    assert np.isfinite(other).all() and agreed.mean() > (0.99 if scale > 1 else 0.9)


def test_empty_and_lone_classes():
    features, labels = clusters()
    labels = np.where(labels == 2, 0, labels)
    labels[0] = 3
    result = probes.crossfit(KEY, features, labels, num_classes=5)
    assert np.isfinite(result).all() and result[:, [2, 4]].max() < 0.1
    one = probes.crossfit(KEY, features, np.zeros(300, int), num_classes=1)
    np.testing.assert_array_equal(one, np.ones((300, 1)))


@pytest.mark.parametrize(
    "change, error, value",
    [
        (dict(features=np.zeros((4, 2), int)), TypeError, "int"),
        (dict(features=np.zeros(4, np.float32)), ValueError, r"got \(4,\)"),
        (dict(features=np.full((4, 2), np.nan)), ValueError, "got nan"),
        (dict(labels=np.array([0, 1, 2, 0])), ValueError, r"got 0\.\.2"),
        (dict(labels=np.zeros(3, int)), ValueError, r"got \(3,\)"),
        (dict(folds=1), ValueError, "got 1"),
        (dict(folds=5), ValueError, "got 5"),
        (dict(power=1.5), ValueError, "got 1.5"),
    ],
)
def test_invalid_arguments_are_rejected(change, error, value):
    valid = dict(features=np.zeros((4, 2), np.float32), labels=[0, 1, 0, 1], num_classes=2)
    with pytest.raises(error, match=value):
        probes.crossfit(KEY, **(valid | change))


def test_probabilities_must_match():
    certain, labels = np.eye(2), np.arange(2)
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(2, 3\)"):
        probes.shortcut(certain, np.ones((2, 3)), labels)
    with pytest.raises(ValueError, match=r"got 1\.\.2"):
        probes.shortcut(certain, certain, labels + 1)
    with pytest.raises(ValueError, match="blind.*nan"):
        probes.shortcut(certain * np.nan, certain, labels)


# --- shortcut tests ------------------------------------------------------------------------------


def predicting(classes, k=4, sure=0.9):
    """Return probabilities `[n, k]` of a probe that predicts the classes."""
    return np.where(np.eye(k)[classes] > 0, sure, (1 - sure) / (k - 1))


def test_a_shortcut_through_blocks_of_classes():
    """The blind probe predicts only pairs of classes; 3/4 of the baseline predictions are right."""
    labels = np.arange(400) % 4
    half = labels // 2
    blind = np.where(np.arange(4) // 2 == half[:, None], 0.45, 0.05)
    baseline = predicting(np.where(np.arange(400) % 32 < 24, labels, (labels + 2) % 4))
    result = probes.shortcut(blind, baseline, labels)
    assert result.blocks in ((0, 0, 1, 1), (1, 1, 0, 0))
    assert (result.blind, result.baseline) == (0, 0.24)
    assert result.z_score == pytest.approx(np.sqrt(0.24 * 200))
    nothing = np.full((400, 4), 0.25)
    assert probes.shortcut(nothing, baseline, labels).z_score < -3


def test_finest_blocks_near_the_best_are_returned():
    """Six classes form pairs; one probe predicts the class well, the other only the pair."""
    labels, chance = np.arange(2400) % 6, np.random.default_rng(0).random((2, 2400))
    pair = labels // 2 * 2 + 1 - labels % 2
    baseline = predicting(np.where(chance[0] < 0.25, (labels + 2) % 6, labels), 6)
    certain, doubtful = (predicting(np.where(chance[1] < e, pair, labels), 6) for e in (0.04, 0.46))
    assert len(set(probes.shortcut(certain, baseline, labels).blocks)) == 6
    assert len(set(probes.shortcut(doubtful, baseline, labels).blocks)) == 3


def test_a_thousand_classes_are_merged_in_a_few_stages():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(1000), 1000)
    result = list(probes._merge(probabilities, np.arange(1000)))
    counts = [blocks.max() + 1 for blocks in result]
    assert counts[0] == 1000 and counts[-1] == 2 and len(counts) <= 32
    ten = [blocks.max() + 1 for blocks in probes._merge(probabilities[:10, :10], np.arange(10))]
    assert ten == list(range(10, 1, -1))


def test_errors_are_compared_pairwise():
    """In the tested half one probe errs on 20 of 200, the other on 4 more: z = 4 / √4."""
    labels = np.arange(400) % 2
    wrong = lambda n: predicting(np.where(np.arange(400) < n, 1 - labels, labels), 2)
    result = probes.shortcut(wrong(40), wrong(50), labels)
    assert (result.blind, result.baseline) == (0.1, 0.12)
    assert result.z_score == pytest.approx(2)
    assert probes.shortcut(wrong(50), wrong(40), labels).z_score == pytest.approx(-2)


def test_selection_of_blocks_is_not_biased():
    """Both probes are random; choosing blocks by the errors of one gives it no advantage."""
    rng = np.random.default_rng(0)
    blind, baseline = (rng.dirichlet(np.ones(200), 4000) for _ in range(2))
    assert abs(probes.shortcut(blind, baseline, np.arange(4000) % 200).z_score) < 3


def test_blocks_with_nearly_all_samples_are_skipped():
    """A partition into one class and a block with nine tenths of the samples is uninformative."""
    labels = np.repeat([0, 1, 2], [45, 45, 10])
    blind = np.where(labels[:, None] == 2, [0.05, 0.05, 0.9], [0.475, 0.475, 0.05])
    result = probes.shortcut(blind, predicting(labels, 3), labels)
    assert result.blocks == (0, 1, 2)


@pytest.mark.parametrize("k, labels", [(1, [0, 0]), (2, [0, 0, 0])])
def test_nothing_to_test(k, labels):
    same = np.full((len(labels), k), 1 / k)
    assert probes.shortcut(same, same, np.array(labels)) == ((0,) * k, 0, 0, 0)


def test_products_do_not_depend_on_the_default_precision():
    """TF32, the default of GPUs, makes a factorised matrix indefinite, and all scores NaN."""
    x, labels = clusters(30)
    program = jax.make_jaxpr(functools.partial(probes.crossfit, num_classes=3))(KEY, x, labels)
    assert "Precision.HIGHEST" in str(program) and "precision=None" not in str(program)


def test_products_by_blocks_are_as_exact_as_float32():
    """A plain float32 sum over the samples, as on GPUs, has hundreds of times that error."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(5000, 1)) + 0.1 * rng.normal(size=(5000, 12))).astype(np.float32)
    share = rng.uniform(0, 1 / 2500, 5000).astype(np.float32)
    exact = (x.astype(float) * share[:, None].astype(float)).T @ x.astype(float)
    blocks = np.asarray(jax.jit(probes._products_by_blocks)(x, share))
    assert np.abs(blocks - exact).max() < 2e-7 * exact.max()
    plain = np.add.accumulate(x[:, 0] * share * x[:, 0], dtype=np.float32)[-1]
    assert np.abs(plain - exact[0, 0]) > 5 * np.abs(blocks - exact).max()
