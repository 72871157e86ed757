"""Looking for a bias, with a stub for the choice: what is analysed, scored and written."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxdd import networks, weights
from jaxdd.data import datasets, duplicates, folders
from jaxdd.runs import bias
from jaxdd.runs.options import DM
from jaxdd.runs.reports import bias_page
from jaxdd.weights import contrastive

N, K = 60, 3
PAIR = np.array([0, 0, 1])  # classes 0 and 1 share a group


@pytest.fixture(scope="module")
def data():
    """Return images of brightness i whose attribute is the class, except for every tenth sample."""
    labels = np.arange(N) % K
    attributes = np.where(np.arange(N) % 10 == 0, (labels + 1) % K, labels)
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 6, 6, 1))
    return datasets.from_arrays(
        images.copy(), labels, attributes, test_fraction=0.2, name="grey shades"
    )


def brightness(pool):
    return np.asarray(pool.images)[:, 0, 0, 0]


def candidate(pool, name, score, **fields):
    """Return a candidate in which samples with a score above 0.5 are in the other group."""
    own = PAIR[np.asarray(pool.labels)]
    groups = np.where(score > 0.5, 1 - own, own)
    return weights.Candidate(name, pool.weights, jnp.asarray(score), groups, (0, 0, 1), **fields)


def choice_of(pool, verdict="biased"):
    """Return a choice: tone knows the conflicting samples, own-embedding the opposite."""
    conflicts = (brightness(pool) % 10 == 0).astype(float)
    names = {"tone": conflicts, bias.OWN_EMBEDDING: 1 - conflicts, "density": conflicts}
    candidates = tuple(candidate(pool, name, score) for name, score in names.items())
    search = [dict(encoder_steps=90, bandwidth=0.4, temperature=1.4, evenness=0.9)]
    chosen = ("tone",) if verdict == "biased" else ()
    samples = np.arange(len(pool.labels))
    return weights.Choice(pool.weights, verdict, chosen, candidates, samples, search=search)


@pytest.fixture
def find(data, monkeypatch):
    """Return `find`, in which `weights.choose` records its arguments and returns `choice_of`."""

    def find(data=data, *args, **options):
        def choose(key, pool, *, report, preview, **fields):
            preview(choice_of(pool, "none"))
            report(4, 4)
            find.fields, find.pool = fields, pool
            return choice_of(pool)

        monkeypatch.setattr(weights, "choose", choose)
        return bias.find(data, *args, **options)

    return find


def test_options_reach_the_choice(find, data):
    calls = []
    embedding = np.arange(2 * len(data.train.labels)).reshape(-1, 2)
    finding = find(
        data, DM(suspect=("border",), exclude=("tone",), clip=3.0), embedding=embedding,
        max_samples=30, progress=lambda *progress: calls.append(progress), comparisons={},
    )  # fmt: skip
    fields = find.fields
    assert calls == [(4, 4)] and fields["comparisons"] == {} and fields["clip"] == 3
    assert fields["suspect"] == ("border",) and fields["exclude"] == ("tone",)
    rows = embedding[finding.samples]
    np.testing.assert_array_equal(fields["embeddings"][bias.OWN_EMBEDDING], rows)
    np.testing.assert_array_equal(find.pool.labels, data.train.labels[finding.samples])


@pytest.mark.parametrize("max_samples", [12, 48, 1000])
def test_every_class_contributes_its_share_of_samples(data, find, max_samples):
    finding = find(max_samples=max_samples)
    labels = data.train.labels
    expected = np.bincount(labels) * min(1, max_samples / len(labels)) // 1
    np.testing.assert_array_equal(np.bincount(labels[finding.samples]), expected)
    if max_samples < len(labels):
        seeds = (find(data, DM(seed=seed), max_samples=max_samples).samples for seed in (0, 1))
        again, other = seeds
        np.testing.assert_array_equal(finding.samples, again)
        assert not np.array_equal(finding.samples, other)


def test_the_area_under_the_curve_uses_the_bias_labels(data, find):
    auc = {"tone": 1, bias.OWN_EMBEDDING: 0, "density": 1}
    assert find().auc == auc
    unlabelled = datasets.from_arrays(*data.train[:2], test_fraction=0.2)
    assert find(unlabelled).auc is None


def test_images_to_label_are_analysed_ones_and_include_typical_ones_of_each_class(find, data):
    finding = find(max_samples=30, ask=10)
    assert len(set(finding.to_label)) == 10 and {*finding.to_label} <= {*finding.samples}
    assert {*data.train.labels[finding.to_label[:3]]} == {0, 1, 2}
    assert not len(find(ask=0).to_label)


def test_candidates_are_previewed_without_a_verdict(find):
    previews = []
    finding = find(preview=previews.append)
    (preview,) = previews
    assert preview.is_preview and not finding.is_preview and not len(preview.to_label)
    assert preview.commands == finding.commands and preview.auc == finding.auc


def test_commands_accept_a_candidate(find):
    finding = find(embedding_path="my rows.npy")
    assert finding.dataset == "'grey shades'"
    assert finding.commands == {
        "tone": "jaxdd run 'grey shades' --debias tone",
        "own-embedding": "jaxdd run 'grey shades' --debias embedding --embedding 'my rows.npy'",
        "density": "jaxdd run 'grey shades' --debias density --encoder-steps 90 --bandwidth 0.4 "
        "--temperature 1.4",
    }
    assert find(dataset="set --seed 3").commands["tone"] == "jaxdd run set --seed 3 --debias tone"


def test_files_of_a_folder_are_checked(tmp_path, find):
    for i in range(40):
        path = tmp_path / f"{i % 2}/{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8 + 2 * (i % 2), 8), i).save(path)
    data = datasets.from_folder(folders.read(tmp_path, resize=8), name="pets")
    assert not find(data).file_checks
    checks = {check.name: check for check in find(data, folder=tmp_path).file_checks}
    assert checks["size"].accuracy == 1


@pytest.mark.parametrize(
    "fields, value",
    [
        (dict(max_samples=0), "0"),
        (dict(ask=-1), "-1"),
        (dict(embedding=np.zeros((5, 2))), r"\(5, 2\)"),
        (dict(embedding=np.full((48, 2), np.nan)), "nan"),
    ],
    ids=str,
)
def test_bad_arguments_are_reported_before_any_work(fields, value, find):
    with pytest.raises(ValueError, match=value):
        find(**fields)
    assert not hasattr(find, "pool")


@pytest.mark.parametrize(
    "verdict, chosen, names, expected",
    [
        ("biased", ["tone"], ["tone"], "a bias in colours and brightness (tone)"),
        (
            "biased",
            ["layout", "mine"],
            [],
            "a bias in where things are or how they are turned (layout) and in mine",
        ),
        ("biased", [bias.OWN_EMBEDDING], [], "a bias in your embedding"),
        ("undecided", [], ["border", "tone"], "perhaps a bias in the outer band (border)"),
        ("undecided", [], ["embedding"], "perhaps a bias of unknown kind (embedding)"),
        ("none", [], ["tone", "density"], "no evidence of a bias"),
        ("none", [], ["density"], "could not be tested"),
    ],
)
def test_headlines(verdict, chosen, names, expected):
    record = dict(verdict=verdict, chosen=chosen, candidates=[{"name": name} for name in names])
    assert expected in bias.headline(record)


def read_csv(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_json_and_csv(find, data, tmp_path):
    finding = find()._replace(to_label=np.array([4, 7]))
    bias.write_json(tmp_path / "a.json", finding, data)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["verdict"] == "biased" and content["samples"] == 48
    assert content["to_label"] == [4, 7] and content["auc"]["tone"] == 1
    assert content["commands"] == finding.commands
    assert content["duplicates"] == duplicates.exact(data).counts()
    assert content["near_duplicates"] == duplicates.near(data).counts()
    bias.write_csv(tmp_path / "a.csv", finding, data)
    lines = read_csv(tmp_path / "a.csv")
    assert len(lines) == 48
    shades = data.train.images[finding.samples, 0, 0, 0]
    for line, index, shade in zip(lines, finding.samples, shades, strict=True):
        label = data.train.labels[index]
        conflicts = shade % 10 == 0
        assert line["index"] == str(index) and line["class"] == str(label)
        assert float(line["tone_score"]) == conflicts and float(line["tone_weight"]) == 1
        pair = PAIR[label] == (1 if conflicts else 0)
        assert line["tone_resembles"] == ("0; 1" if pair else "2")


def test_samples_of_a_folder_are_named_by_file(find, data, tmp_path):
    names = tuple(f'train/{i}, "ü".png' for i in range(48))
    data = data._replace(train_files=names, class_names=("cat", "dog", "a,b"))
    finding = find(data)._replace(to_label=np.array([1]))
    bias.write_json(tmp_path / "a.json", finding, data)
    assert json.loads((tmp_path / "a.json").read_text())["to_label"] == [names[1]]
    bias.write_csv(tmp_path / "a.csv", finding, data)
    first = read_csv(tmp_path / "a.csv")[0]
    assert first["file"] == names[0] and first["class"] in data.class_names


# --- unusual data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n, k, shape",
    [
        (30, 1, (8, 8, 3)),  # one class
        (4, 2, (8, 8, 3)),  # two images per class
        (60, 3, (8, 8, 1)),  # grey images
        (60, 3, (3, 3, 3)),  # too small for features
    ],
    ids=str,
)
def test_unusual_data_have_a_verdict(n, k, shape, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *shape), np.uint8)
    data = datasets.from_arrays(images, np.arange(n) % k, test=(images, np.arange(n) % k))
    check = lambda pool, groups, blocks: lambda *_: 2 * [weights.Trial(0.9, 0.9, 0.3, 99)]
    encoder = contrastive.Encoder(networks.ConvNet(k, width=4, depth=1, norm=None), 4, 3)
    search = weights.Search((1,), (0.2,), (1.0,), encoder=encoder)
    finding = bias.find(data, check=check, search=search, ask=3)
    assert finding.choice.verdict in ("none", "undecided")
    assert len(finding.to_label) <= 3 and np.isfinite(finding.choice.weights).all()
    bias.write_json(tmp_path / "a.json", finding, data)
    bias.write_csv(tmp_path / "a.csv", finding, data)
    bias_page.write(tmp_path / "a.html", finding, data)
    assert len(read_csv(tmp_path / "a.csv")) == n


def test_a_thousand_classes(tmp_path, monkeypatch):
    """At least one sample of each class is analysed, and no table or page fails."""
    labels = np.arange(2000) % 1000
    images = np.zeros((2000, 4, 4, 1), np.uint8)
    data = datasets.from_arrays(images, labels, test=(images, labels))

    def choose(key, pool, **_):
        n, score = len(pool.labels), np.linspace(0, 1, len(pool.labels))
        groups = (np.asarray(pool.labels) + 1) % 1000
        many = weights.Candidate("tone", pool.weights, score, groups, (*range(1000),))
        return weights.Choice(pool.weights, candidates=(many,), samples=np.arange(n))

    monkeypatch.setattr(weights, "choose", choose)
    finding = bias.find(data, max_samples=500)
    assert np.bincount(data.train.labels[finding.samples]).tolist() == [1] * 1000
    assert len(finding.to_label) == 20
    bias.write_csv(tmp_path / "a.csv", finding, data)
    for line in read_csv(tmp_path / "a.csv"):
        assert int(line["tone_resembles"]) == (int(line["class"]) + 1) % 1000
