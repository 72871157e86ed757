"""The weightings of a run, and a new one that is used through the command line."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import kde, methods, sampling, weights
from jaxdd.commands import cli
from jaxdd.data import datasets, files
from jaxdd.runs import bias, components, context, options, pipeline, progress, weightings
from jaxdd.runs import methods as run_methods
from jaxdd.runs.folder import labels_file, store
from jaxdd.weights import formulas, probes


@pytest.mark.parametrize(
    "change, factor, rule",
    [
        ({}, 0.2, "mean_distance"),
        (dict(bandwidth=0.5), 0.5, "mean_distance"),
        (dict(bandwidth_rule="median-distance"), 0.2, "median_distance"),
        (dict(bandwidth_rule="scott"), 1.0, "scott"),
        (dict(bandwidth_rule="silverman", bandwidth=2.0), 2.0, "silverman"),
    ],
    ids=str,
)
def test_bandwidth_rules(fake, change, factor, rule):
    points = jax.random.normal(jax.random.key(0), (40, 5))
    chosen = dataclasses.replace(fake.TINY, **change)
    pool = types.SimpleNamespace(labels=jnp.zeros(40, int), num_classes=1)
    key = (components.key(chosen, "median"),) if "median" in rule else ()
    expected = getattr(kde, rule)(*key, points, factor=factor)
    assert weightings._bandwidth(chosen, points, pool)(points) == expected


def test_bandwidths_that_are_numbers(fake):
    points = jnp.concatenate([jnp.zeros((20, 2)), jax.random.normal(jax.random.key(0), (20, 2))])
    pool = types.SimpleNamespace(labels=jnp.arange(40) // 20, num_classes=2)
    fixed = dataclasses.replace(fake.TINY, bandwidth_rule="fixed", bandwidth=0.3)
    assert weightings._bandwidth(fixed, points, pool) == 0.3
    likelihood = dataclasses.replace(fake.TINY, bandwidth_rule="likelihood")
    narrow, wide = weightings._bandwidth(likelihood, points, pool).tolist()
    assert narrow < 1e-4 and 0.1 < wide < 1


def test_density_weights_use_the_options(fake, tmp_path):
    data = fake.shades()
    chosen = dataclasses.replace(fake.TINY, clip=1.5, temperature=0.1, encoder_layer="features")
    pipeline.run(data, tmp_path, chosen, debias="density", **fake.OWN)
    arrays = files.read_arrays(tmp_path / "weights.npz")
    relative = arrays["weights"] * np.bincount(data.train.labels)[data.train.labels]
    assert relative.max() <= 1.5 * (1 + 1e-4) and relative.min() < 0.9
    pool = datasets.pool(data)
    expected = weights.by_density(
        components.key(chosen, "encoder"), pool, strategy=(), steps=2, layer="features",
        encoder=weights.default_encoder(pool, width=4, depth=1), temperature=0.1, clip=1.5,
    )  # fmt: skip
    np.testing.assert_allclose(arrays["log_density"], expected.log_density, rtol=1e-5)
    np.testing.assert_allclose(arrays["weights"], expected.weights, rtol=1e-5)


def test_weights_estimated_in_each_batch(fake, tmp_path, monkeypatch):
    calls, original = [], sampling.density_weighted

    def spy(sampler, embed, **fields):
        calls.append((embed(jnp.zeros((3, 8, 8, 1))).shape, fields["temperature"]))
        return original(sampler, embed, **fields)

    monkeypatch.setattr(sampling, "density_weighted", spy)
    chosen = dataclasses.replace(fake.TINY, weighting="batch", temperature=0.7, init="real")
    pipeline.run(fake.shades(), tmp_path, chosen, debias="density", **fake.OWN)
    assert calls == [((3, 128), 0.7)]


def choice_of(pool, verdict):
    shortcut = probes.Shortcut((0, 1), 0.1, 0.2, 5.0)
    trials = {name: weights.Trial(0.9, 0.9, 0.8, 99) for name in ("uniform", "weighted")}
    candidate = weights.Candidate(
        "tone", pool.weights, pool.weights, pool.labels, (0, 1), 0.5, 0.1, shortcut, trials,
        None if verdict == "biased" else "the gain is too small",
    )  # fmt: skip
    chosen = ("tone",) if verdict == "biased" else ()
    return weights.Choice(pool.weights, verdict, chosen, (candidate,))


@pytest.mark.parametrize("verdict", ["biased", "undecided", "none"])
def test_the_record_of_a_choice_is_kept(fake, tmp_path, monkeypatch, verdict):
    """Options and an embedding of the user reach the choice, and its record is in the result."""
    calls = []

    def choose(key, pool, **fields):
        calls.append(fields)
        return choice_of(pool, verdict)

    monkeypatch.setattr(weights, "choose", choose)
    chosen = dataclasses.replace(
        fake.TINY, encoder_steps=4, bandwidth=0.4, temperature=2.0, suspect=("border",),
        exclude=("tone", "own-embedding"),
    )  # fmt: skip
    data = fake.shades()
    embedding = np.arange(2 * len(data.train.labels)).reshape(-1, 2)
    fields = dict(debias="auto", resume=True, embedding=embedding, **fake.OWN)
    result = pipeline.run(data, tmp_path, chosen, **fields)
    assert result.choice["verdict"] == verdict and result.seconds["choose"] > 0
    assert result.choice["uniform"] is (verdict != "biased")
    assert result.choice["candidates"][0]["shortcut"]["blocks"] == [0, 1]
    assert calls[0]["search"][:3] == ((4, 12), (0.2, 0.4, 0.8, 1.6), (1.0, 1.4, 2.0, 2.8, 4.0))
    assert calls[0]["suspect"] == ("border",) and calls[0]["exclude"] == ("tone", "own-embedding")
    np.testing.assert_array_equal(calls[0]["embeddings"]["own-embedding"], embedding)
    assert {*files.read_arrays(tmp_path / "weights.npz")} == {"weights", "samples"}
    config = files.read_json(tmp_path / "config.json")
    assert config["suspect"] == ["border"] and len(config["embedding"]) == 32
    (tmp_path / "result.json").unlink()
    assert pipeline.run(data, tmp_path, chosen, **fields).choice == result.choice
    assert len(calls) == 1
    (tmp_path / "choice.json").write_text("{}")
    assert pipeline.run(data, tmp_path, chosen, **fields).choice == result.choice
    assert len(calls) == 2
    with pytest.raises(ValueError, match="embedding"):
        pipeline.run(data, tmp_path, chosen, **(fields | dict(embedding=-embedding)))


def test_weights_by_features_are_kept_for_their_row(fake, tmp_path, monkeypatch):
    fields = dict(rows=("plain", "tone"), resume=True, **fake.OWN)
    table = pipeline.compare(fake.shades(), tmp_path, fake.TINY, **fields)
    path = tmp_path / "weights/tone/weights.npz"
    values = files.read_arrays(path)["weights"]
    pool, key = datasets.pool(fake.shades()), components.key(fake.TINY, "encoder")
    expected = weights.by_candidate(key, pool, "tone", strategy=()).weights
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert table["tone"].weights != table["plain"].weights and table["tone"].choice is None
    monkeypatch.setattr(weights, "by_candidate", None)
    (tmp_path / "rows/tone/result.json").unlink()
    again = pipeline.compare(fake.shades(), tmp_path, fake.TINY, **fields)
    assert again["tone"].accuracy == table["tone"].accuracy


def test_weights_by_an_embedding(fake, tmp_path):
    """By default the embedding is that of an encoder; one that shows the attribute is better."""
    data = fake.shades()
    own = np.eye(2)[data.train.attributes]
    fields = dict(debias="embedding", **fake.OWN)
    evenness = [
        pipeline.run(data, tmp_path / name, fake.TINY, **options, **fields).weights[
            "group_evenness"
        ]
        for name, options in (("encoder", {}), ("own", dict(embedding=own)))
    ]
    assert evenness[1] > max(0.95, evenness[0])


CHOOSING = dataclasses.replace(options.DM(), encoder_width=4, depth=1, temperature=1.0)


@pytest.fixture(scope="module")
def finding(fake):
    """Return what `bias.find` returns with a check that rejects all weights."""
    trial = weights.Trial(0.9, 0.9, 0.3, 99)
    check = lambda pool, groups, blocks: lambda *_: (trial, trial)
    return bias.find(fake.shades(counts=(40, 60)), CHOOSING, check=check)


@pytest.mark.parametrize("name", ["tone", "layout", "embedding", "density"])
def test_the_weights_of_a_candidate_are_those_that_bias_shows(fake, tmp_path, name, finding):
    (candidate,) = [x for x in finding.choice.candidates if x.name == name]
    chosen = dataclasses.replace(fake.TINY, **{
        field: getattr(CHOOSING, field) for field in ("encoder_steps", "temperature")
    })  # fmt: skip
    best = finding.choice.record()["best"]
    if name == "density" and best:
        del best["evenness"]
        chosen = dataclasses.replace(chosen, **best)
    pipeline.run(fake.shades(counts=(40, 60)), tmp_path, chosen, debias=name, **fake.OWN)
    values = files.read_arrays(tmp_path / "weights.npz")["weights"]
    np.testing.assert_allclose(values, candidate.weights, rtol=1e-5)


def some_labels(data, *, known):
    """Return bias labels of the first training images, with names."""
    attributes = np.where(np.arange(len(data.train.labels)) < known, data.train.attributes, -1)
    return labels_file.BiasLabels(attributes, ("plain", "marked"))


def test_weights_by_the_bias_labels_of_some_images(fake, tmp_path):
    """The labels select the user's embedding; the record and config.json depend on the labels."""
    data = fake.shades(counts=(60, 80))
    own = np.eye(2)[data.train.attributes]
    labels = some_labels(data, known=80)
    fields = dict(embedding=own, **fake.OWN)
    result = pipeline.run(data, tmp_path / "out", fake.TINY, bias_labels=labels, **fields)
    assert result.weights["group_evenness"] > 0.95
    assert result.config["debias"] == "labels" and result.choice["chosen"] == ["own-embedding"]
    record = files.read_json(tmp_path / "out/choice.json")
    assert record == result.choice and record["labels"]["labels"] == 80
    assert record["labels"]["own_attribute"] == {"0": "plain", "1": "marked"}
    assert "as 80 bias labels show" in bias.headline(record) and bias.remarks(record) == []
    other = some_labels(data, known=79)
    again = dict(resume=True, **fields)
    with pytest.raises(ValueError, match="bias_labels"):
        pipeline.run(data, tmp_path / "out", fake.TINY, bias_labels=other, **again)
    pipeline.run(data, tmp_path / "out", fake.TINY, bias_labels=labels, **again)


def test_auto_uses_bias_labels_that_the_data_have(fake, tmp_path):
    """Without evidence for any features, it chooses as without labels and says so."""
    data = fake.shades(counts=(60, 80))
    own = np.eye(2)[data.train.attributes]
    some = some_labels(data, known=80)
    data = data._replace(
        train=data.train._replace(attributes=None), aligned=None, bias_labels=some.attributes,
        attribute_names=some.names,
    )  # fmt: skip
    fields = dict(embedding=own, **fake.OWN)
    result = pipeline.run(data, tmp_path / "out", fake.TINY, **fields)
    assert result.config["debias"] == "auto" and result.choice["labels"]["labels"] == 80
    assert result.choice["chosen"] == ["own-embedding"]
    random = np.random.default_rng(0).integers(0, 2, len(some.attributes))
    data = data._replace(bias_labels=random.astype(np.int32))
    result = pipeline.run(data, tmp_path / "random", fake.TINY, **fields)
    assert {"verdict", "candidates", "labels"} <= result.choice.keys()
    (sentence,) = bias.remarks(result.choice)
    assert result.choice["labels"]["rejection"] in sentence
    with pytest.raises(ValueError, match=result.choice["labels"]["rejection"][:20]):
        pipeline.run(data, tmp_path / "labels", fake.TINY, debias="labels", **fields)


@pytest.mark.parametrize(
    "options, value",
    [
        (dict(debias="labels"), "those of all"),
        (dict(debias="tone", bias_labels=True), "'tone'"),
        (dict(weights=np.ones(33), bias_labels=True), "'custom'"),
    ],
    ids=str,
)
def test_missing_and_superfluous_bias_labels_are_rejected(fake, tmp_path, options, value):
    data = fake.shades()
    if "bias_labels" in options:
        options = options | dict(bias_labels=some_labels(data, known=10))
    with pytest.raises(ValueError, match=value):
        pipeline.run(data, tmp_path / "out", fake.TINY, **options, **fake.OWN)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, debias, value",
    [
        (dict(embedding=np.zeros((3, 2))), "auto", r"\(3, 2\)"),
        (dict(embedding=np.full((64, 2), np.nan)), "embedding", "nan"),
        (dict(embedding=np.zeros((64, 2))), "density", "density"),
        (dict(options=dict(exclude=("own-embedding",))), "auto", "own-embedding"),
    ],
    ids=str,
)
def test_bad_embeddings_are_reported_before_any_work(fake, tmp_path, change, debias, value):
    data = fake.shades()
    change = dict(change)
    if "embedding" in change and len(change["embedding"]) == 64:
        change["embedding"] = np.resize(change["embedding"], (len(data.train.labels), 2))
    chosen = dataclasses.replace(fake.TINY, **change.pop("options", {}))
    with pytest.raises(ValueError, match=value):
        pipeline.run(data, tmp_path / "out", chosen, debias=debias, **change, **fake.OWN)
    assert not (tmp_path / "out").exists()


def test_custom_weights_of_any_scale(fake, tmp_path):
    data = fake.shades()
    own = np.where(data.train.attributes == data.train.labels, 0, 7)
    own[:2] = 7  # a class without weight is rejected
    result = pipeline.run(data, tmp_path / "a", fake.TINY, weights=own, **fake.OWN)
    stored = files.read_arrays(tmp_path / "a/weights.npz")["weights"]
    np.testing.assert_array_equal(stored, sampling.reweight(datasets.pool(data), own).weights)
    assert result.config["debias"] == "custom"
    fields = dict(rows=["plain"], weights=own, **fake.OWN)
    table = pipeline.compare(data, tmp_path / "b", fake.TINY, **fields)
    assert list(table) == ["random", "plain", "custom"]
    assert table["custom"].accuracy == result.accuracy
    with pytest.raises(ValueError, match="weights"):
        fields = dict(weights=own + 1, resume=True, **fake.OWN)
        pipeline.run(data, tmp_path / "a", fake.TINY, **fields)


def test_losses_of_bias_groups(fake, tmp_path):
    chosen = dataclasses.replace(fake.TINY, steps=2)
    rows = ["random", "fairdd", "cobra", "cobra-l1"]
    fields = dict(rows=rows, network=fake.NETWORK)
    table = pipeline.compare(fake.shades(), tmp_path, chosen, **fields)
    assert list(table) == rows
    assert table["fairdd"].weights["group_evenness"] == pytest.approx(1, abs=1e-4)
    start, fairdd, cobra, l1 = (
        store.read_synthetic(tmp_path / "rows" / row / "synthetic.npz").images for row in rows
    )
    assert len({images.tobytes() for images in (start, fairdd, cobra, l1)}) == 4


def test_losses_of_groups_need_batches_of_real_images(fake):
    run = types.SimpleNamespace(
        data=fake.shades(), own_method=None, follows=None, options=options.DC(ipc=2)
    )
    weightings.check(run, "cobra")
    with pytest.raises(ValueError, match="got dc"):
        weightings.check(run, "cobra-l1")
    run.follows, run.options = "experts", options.MTT(ipc=2)
    for name in ("fairdd", "cobra"):
        with pytest.raises(ValueError, match=f"{name} .*got mtt"):
            weightings.check(run, name)


@pytest.mark.parametrize("values, rejected", [(20, False), (21, True)])
def test_attributes_of_many_rare_values_are_rejected(values, rejected):
    """Value 0 has 80 images of one class and the others one each: sizes G² / (1/80 + G - 1)."""
    attributes = np.r_[np.zeros(80, int), np.arange(1, values)]
    labels = np.zeros(len(attributes), int)
    images = np.zeros((len(labels), 2, 2), np.uint8)
    data = datasets.from_arrays(images, labels, attributes, test=(images, labels))
    check = lambda: weightings._check_groups(types.SimpleNamespace(data=data))
    if not rejected:
        return check()
    with pytest.raises(ValueError, match="21 values: 20 of 21 groups .* would be 22 of 100;"):
        check()


def test_diagnostics(fake):
    shared = context.build_context(fake.shades(), fake.TINY, report=progress.silent, **fake.OWN)
    data, pool = shared.data, shared.pool
    expected = formulas.diagnose(
        pool.weights, pool.labels, jnp.asarray(data.train.attributes), jnp.asarray(data.aligned),
        num_classes=2, num_attributes=2,
    )  # fmt: skip
    diagnostics = weightings.diagnose(shared, pool.weights)
    assert diagnostics == pytest.approx(files.to_json(expected._asdict()))


# --- extension ---------------------------------------------------------------------------------


def bright_first(run):
    """Weight each image by its mean brightness."""
    return weightings.SampleWeights(run.context.pool.images.mean((1, 2, 3)) + 1.0)


def build_shrink(options, network, strategy, **_):
    step = lambda key, state, batch: (
        state._replace(images=state.images / 2),
        {"loss": jax.random.uniform(key)},
    )
    return methods.Method(lambda images: methods.State(images, ()), step)


def test_a_new_weighting_and_a_new_method_take_one_entry_each(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(options, "OPTIONS", dict(options.OPTIONS))

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Shrink(options.DM):  # registers itself
        method: str = "shrink"

    entry = run_methods.MethodEntry(build_shrink)
    monkeypatch.setitem(run_methods.METHODS, "shrink", entry)
    bright = weightings.Weighting(
        "bright first", "distilled with bright images first", bright_first
    )
    monkeypatch.setitem(weightings.WEIGHTINGS, "bright", bright)
    words = "compare cdigits --method shrink --rows plain bright --ipc 1 --steps 2 --epochs 1"
    words += " --seeds 1 --network mlp --out"
    cli.main([*words.split(), str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert "bright" in shown and "plain" in shown
    images = store.read_synthetic(tmp_path / "out/rows/bright/synthetic.npz").images
    assert (
        np.abs(images).max() < 3 and store.read_result(tmp_path / "out/rows/bright").choice is None
    )
    cli.main(["report", str(tmp_path / "out")])
    page = (tmp_path / "out/report.html").read_text()
    assert "distilled with bright images first" in page
    cli.main(["cite", str(tmp_path / "out")])
