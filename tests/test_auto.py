"""The search with hand-made judges, pseudo-groups by hand, and both outcomes on real digits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import evaluate, reweight
from jaxdd.data import benchmarks, datasets, files
from jaxdd.runs import auto, jobs, pipeline, weighing

OPTIONS = jobs.Options(encoder_steps=2, encoder_width=4, depth=2)


@pytest.fixture(scope="module")
def digits():
    return jobs.prepare(benchmarks.load("cdigits", conflict=0.1), OPTIONS)


def judged(monkeypatch, plain, weighed):
    """Sets the accuracies of uniform weights and of all others."""

    def trial(weights):
        uniform = abs(float(weights.max() / weights.min()) - 1) < 0.5
        return auto.Trial(*(plain if uniform else weighed))

    monkeypatch.setattr(auto, "judge", lambda job, groups: trial)


def test_pseudo_groups_are_the_nearest_means():
    """Means are 0, 10 and that of nobody; 6 is nearer to 10, 4 to 0, whatever their labels are."""
    embeddings = jnp.array([[-2.0, 1], [6.0, 1], [-4.0, 1], [4.0, 1], [16.0, 1], [10.0, 1]])
    labels = jnp.array([0, 0, 0, 2, 2, 2])
    found = auto.pseudo_groups(embeddings, labels, num_classes=3)
    assert found.tolist() == [0, 2, 0, 0, 2, 2]


def test_the_weights_that_balance_the_pseudo_groups_best_are_chosen(monkeypatch, digits):
    judged(monkeypatch, (0.9, 0.9, 0.1, 99), (0.8, 0.8, 0.8, 99))
    choice = auto.choose(digits)
    balances = [each["balance"] for each in choice.balances]
    assert len(balances) == 2 * 4 * 5 and choice.best == np.argmax(balances)
    assert {each["encoder_steps"] for each in choice.balances} == {2, 6}
    assert {each["bandwidth"] for each in choice.balances} == {0.1, 0.2, 0.4, 0.8}
    best = {
        name: value for name, value in choice.balances[choice.best].items() if name != "balance"
    }
    again = weighing.weigh(digits._replace(options=dataclasses.replace(digits.options, **best)))
    np.testing.assert_array_equal(again.weights, choice.weights)
    longest = weighing.embed(
        digits._replace(options=dataclasses.replace(digits.options, encoder_steps=6))
    )
    labels = jnp.asarray(digits.benchmark.train.labels)
    groups = auto.pseudo_groups(longest.embeddings, labels, num_classes=10)
    balance = reweight.group_balance(
        choice.weights, labels, groups, num_classes=10, num_attributes=10
    )
    assert float(balance) == max(balances)


@pytest.mark.parametrize(
    "plain, weighed",
    [
        ((0.9, 0.95, 0.4, 999), (0.7, 0.75, 0.55, 999)),  # .15 gained, .2 behind
        ((0.9, 0.95, 0.4, 999), (0.4, 0.4, 0.6, 999)),  # .2 gained, .5 lost
        ((0.9, 0.95, 0.5, 50), (0.91, 0.95, 0.65, 50)),  # both not surely: sqrt(2 / 50) is .2
        ((0.9, 0.95, 0.5, 50), (0.8, 0.8, 0.69, 50)),
        ((0.89, 0.91, 0.27, 397), (0.49, 0.49, 0.35, 397)),  # MNIST
        ((0.76, 0.91, 0.27, 999), (0.53, 0.58, 0.36, 999)),  # Fashion-MNIST
        ((0.9, 0.9, float("nan"), 0), (1.0, 1.0, float("nan"), 0)),  # nobody disagrees
    ],
)
def test_uniform_where_weights_do_not_pay(monkeypatch, digits, plain, weighed):
    judged(monkeypatch, plain, weighed)
    choice = auto.choose(digits)
    assert choice.weighed is None and auto.record(choice)["uniform"]
    labels = digits.benchmark.train.labels
    np.testing.assert_allclose(choice.weights, 1 / np.bincount(labels)[labels], rtol=1e-6)


@pytest.mark.parametrize(
    "plain, weighed",
    [
        ((0.9, 0.95, 0.4, 999), (0.7, 0.74, 0.58, 999)),  # .18 gained, .16 behind
        ((0.9, 0.95, 0.4, 999), (0.5, 0.5, 0.61, 999)),  # .21 gained, .4 lost
        ((0.9, 0.95, 0.5, 50), (0.8, 0.8, 0.71, 50)),  # .21 gained, .2 by chance
        ((0.9, 0.95, 0.5, 999), (0.6, 0.6, 0.7, 999)),  # .2 gained, .3 lost
        ((0.94, 0.98, 0.15, 557), (0.52, 0.52, 0.52, 557)),  # coloured Fashion-MNIST
    ],
)
def test_weights_where_they_pay(plain, weighed):
    assert auto.pays(auto.Trial(*plain), auto.Trial(*weighed))


def test_held_out_samples_are_in_no_set(monkeypatch, digits):
    """A fifth of 1,437 - 100 agreeing and of 100 disagreeing samples; the overall accuracy by hand."""
    drawn, labels = [], digits.benchmark.train.labels
    monkeypatch.setattr(
        auto.distill,
        "initial_real",
        lambda key, pool, **_: drawn.append(pool.weights) or jnp.ones(1),
    )
    accuracies = jnp.full(4, 0.9), jnp.full(4, 0.2)
    monkeypatch.setattr(auto.parallel, "thread_rows", lambda _: lambda rows: accuracies)
    groups = np.where(np.arange(len(labels)) < 100, (labels + 1) % 10, labels)
    trial = auto.judge(digits, groups)(reweight.uniform(jnp.asarray(labels), num_classes=10))
    overall = (0.9 * (len(labels) - 100) + 0.2 * 100) / len(labels)
    np.testing.assert_allclose(trial, (overall, 0.9, 0.2, 20), rtol=1e-6)
    absent = np.asarray(drawn[0]) == 0
    assert absent[:100].sum() == 20 and absent.sum() == 20 + (len(labels) - 100) // 5
    assert len(drawn) == 4 and all((weights == drawn[0]).all() for weights in drawn)


def test_no_class_is_held_out_whole(monkeypatch):
    """Of classes of 1, 2, 3 and 40 samples at most a half; sets hold nobody else, though 10 were asked."""
    counts, drawn, tested = [1, 2, 3, 40], [], []
    labels = np.repeat(np.arange(4), counts)
    images = np.arange(46, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 1), np.uint8)
    test = datasets.Dataset(images, labels.astype(np.int32))
    job = jobs.prepare(datasets.from_arrays(images, labels, test=test), OPTIONS)

    def scores(key, network, images, labels, test, *, mean, std, **_):
        drawn.append(np.rint(255 * np.asarray(images * std + mean))[..., 0, 0, 0].astype(int))
        tested.append(np.asarray(test[0])[:, 0, 0, 0])
        return evaluate.Scores(*[jnp.ones(1)] * 7)

    monkeypatch.setattr(auto.evaluate, "evaluate", scores)
    monkeypatch.setattr(
        auto.jax.lax,
        "map",
        lambda f, rows: jax.tree.map(
            lambda *x: jnp.stack(x),
            *[f(jax.tree.map(lambda x: x[i], rows)) for i in range(len(rows[0]))],
        ),
    )
    monkeypatch.setattr(auto.parallel, "thread_rows", lambda function: function)
    groups = np.where(np.arange(46) % 2, (labels + 1) % 4, labels)
    heavy = jnp.asarray(np.arange(46) == 20, jnp.float32) + jnp.asarray(labels != 3, jnp.float32)
    for weights in (jnp.ones(46), heavy):
        trial = auto.judge(job, groups)(weights)
        assert trial.counted >= 1
        for sets, held in zip(drawn, tested, strict=True):
            assert len(held) and not np.isin(sets, held).any()
            assert (labels[sets] == np.arange(4)[:, None]).all()
        assert (np.bincount(labels[tested[0]], minlength=4) <= np.array(counts) // 2).all()


def test_nothing_is_trained_where_nobody_disagrees(monkeypatch, digits):
    monkeypatch.delattr(auto.evaluate, "evaluate")
    labels = digits.benchmark.train.labels
    assert not auto.pays(*[auto.judge(digits, labels)(jnp.ones(len(labels)))] * 2)


@pytest.mark.parametrize(
    "change, match",
    [
        (dict(bandwidth_rule="fixed", bandwidth=1.0), "factor of a bandwidth_rule.*found fixed"),
        (dict(weighting="batch"), "found weighting batch"),
    ],
)
def test_bad_options(tmp_path, change, match, digits):
    job = digits._replace(options=dataclasses.replace(digits.options, **change))
    with pytest.raises(ValueError, match=match):
        auto.choose(job)
    with pytest.raises(ValueError, match=match):
        pipeline.run(job, tmp_path / "run", debias="auto", resume=False)
    assert not (tmp_path / "run").exists()


def test_run_and_comparison_keep_the_choice(tmp_path, monkeypatch, digits):
    judged(monkeypatch, (0.9, 0.9, 0.1, 99), (0.8, 0.8, 0.8, 99))
    options = dataclasses.replace(
        OPTIONS, ipc=1, steps=1, batch_size=2, width=4, epochs=1, eval_seeds=1
    )
    job = jobs.prepare(digits.benchmark, options)
    result = pipeline.run(job, tmp_path / "run", debias="auto", resume=False)
    assert not result["choice"]["uniform"] and len(result["choice"]["balances"]) == 40
    rows = pipeline.compare(job, tmp_path / "all", resume=False, names=("kde", "auto"))["rows"]
    assert rows["auto"]["choice"] == result["choice"] and "choice" not in rows["kde"]
    assert rows["auto"]["weights"] == result["weights"] != rows["kde"]["weights"]

    def never(job):
        raise AssertionError("chosen twice")

    monkeypatch.setattr(auto, "choose", never)
    (tmp_path / "run/result.json").unlink()
    again = pipeline.run(job, tmp_path / "run", debias="auto", resume=True)
    record = tmp_path / "run/choice.json"
    assert again["choice"] == result["choice"] == files.read_json(record)
    for damage in ("", "[1]", "{}", "null"):
        (tmp_path / "run/result.json").unlink(missing_ok=True)
        record.write_text(damage)
        with pytest.raises(ValueError, match="choice.json does not hold.*delete it and resume"):
            pipeline.run(job, tmp_path / "run", debias="auto", resume=True)
    record.unlink()
    with pytest.raises(AssertionError, match="chosen twice"):
        pipeline.run(job, tmp_path / "run", debias="auto", resume=True)


@pytest.mark.parametrize("name, uniform", [("cdigits", False), ("digits", True)])
def test_weights_for_coloured_digits_and_none_for_grey_ones(monkeypatch, name, uniform):
    """What the module is for, on 1,437 real images."""
    monkeypatch.setattr(auto, "_DRAWS", 1)
    conflict = 0.1 if name == "cdigits" else None
    options = jobs.Options(encoder_width=16)
    choice = auto.choose(jobs.prepare(benchmarks.load(name, conflict=conflict), options))
    assert (choice.weighed is None) == uniform
    if not uniform:
        assert choice.trials["best"].disagreeing > choice.trials["uniform"].disagreeing + 0.2
