"""Sets that were distilled apart are joined by the names of their classes."""

import numpy as np
import pytest

import jaxdd
from jaxdd.data import datasets, files
from jaxdd.runs.folder import manifest, samples, store
from jaxdd.runs.scoring import labelled_sets
from jaxdd.runs.trust import merging, publication

SIZE = (4, 5, 3)


@pytest.fixture
def make(make_run, tmp_path):
    """Return `make(name, classes)`, which writes a run whose pixels are a different grey each."""

    def make(name, classes, *, ipc=2, size=SIZE, mean=0.4, named=True, hashes=None, **config):
        greys = np.linspace(0.1, 0.9, len(classes) * ipc).reshape(-1, ipc, 1, 1, 1)
        pixels = np.broadcast_to(greys, (len(classes), ipc, *size))
        moments = np.full(size[-1], mean), np.full(size[-1], 0.2)
        folder = make_run(
            tmp_path / name, (pixels - mean) / 0.2, names=classes, mean=moments[0], std=moments[1]
        )
        if not named or config:
            synthetic = store.read_synthetic(folder / "synthetic.npz")
            provenance = dict(synthetic.provenance)
            provenance["config"] = provenance["config"] | config
            if not named:
                del provenance["class_names"]
            synthetic = synthetic._replace(provenance=provenance)
            store.write_synthetic(folder / "synthetic.npz", synthetic)
            manifest.record(folder, ["synthetic.npz"])
            manifest.seal(folder, manifest.describe(synthetic))
        if hashes is not None:
            samples.write(folder, hashes)
            manifest.record(folder, [samples.NAME])
            manifest.seal(folder, manifest.describe(store.read_synthetic(folder / store.SYNTHETIC)))
        return folder

    return make


def greys(synthetic):
    """Return the grey of each image by class."""
    images = np.round(publication.to_pixels(synthetic)[..., 0, 0, 0], 4)
    return dict(zip(synthetic.classes, images.tolist(), strict=True))


def test_disjoint_classes(make, tmp_path):
    """Sets of two classes have greys 0.1, 0.3667; 0.6333, 0.9; they have other moments."""
    sets = make("a", ("dog", "cat")), make("b", ("owl",), mean=0.3)
    content = merging.merge(sets, tmp_path / "out")
    merged = jaxdd.load(tmp_path / "out", expect=content["root"])
    assert greys(merged) == {"dog": [0.1, 0.3667], "cat": [0.6333, 0.9], "owl": [0.1, 0.9]}
    assert merged.labels.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert merged.mean.tolist() == [0, 0, 0] and merged.std.tolist() == [1, 1, 1]
    assert [source["root"] for source in content["sources"]] == [
        manifest.read(folder)["root"] for folder in sets
    ]
    assert [source["classes"] for source in content["sources"]] == [["dog", "cat"], ["owl"]]
    assert content["sources"][0]["config"] == files.read_json(sets[0] / "config.json")


def test_equal_classes_in_another_order(make, tmp_path):
    merging.merge((make("a", ("dog", "cat")), make("b", ("cat", "dog"), ipc=1)), tmp_path / "out")
    assert greys(jaxdd.load(tmp_path / "out")) == {
        "dog": [0.1, 0.3667, 0.9], "cat": [0.6333, 0.9, 0.1]
    }  # fmt: skip


def test_numbered_classes_are_in_order(make, tmp_path):
    sets = make("a", ("5", "10")), make("b", ("09", "1"))
    merging.merge(sets, tmp_path / "out")
    assert jaxdd.load(tmp_path / "out").classes == ("1", "5", "09", "10")


def test_classes_can_be_added_to_a_merged_set(make, tmp_path):
    sets = [make(name, classes) for name, classes in (("a", ("dog",)), ("b", ("cat",)))]
    merging.merge(sets, tmp_path / "ab")
    sets.append(make("c", ("owl",)))
    content = merging.merge((tmp_path / "ab", sets[2]), tmp_path / "abc")
    roots = [manifest.read(folder)["root"] for folder in sets]
    assert [source["root"] for source in content["sources"]] == roots
    expected = {"dog": [0.1, 0.9], "cat": [0.1, 0.9], "owl": [0.1, 0.9]}
    assert greys(jaxdd.load(tmp_path / "abc")) == expected


def test_exported_sets_and_files_are_merged(make, tmp_path):
    """A merged set can be exported in turn, with a card."""
    publication.export(make("a", ("dog",)), tmp_path / "png", format="png")
    file = make("b", ("cat",)) / "synthetic.npz"
    content = merging.merge((tmp_path / "png", file), tmp_path / "out")
    assert [source["root"] is None for source in content["sources"]] == [False, True]
    merged = greys(jaxdd.load(tmp_path / "out"))
    np.testing.assert_allclose(merged["dog"], [0.1, 0.9], atol=1 / 255)
    for form in publication.FORMATS:
        again = publication.export(tmp_path / "out", tmp_path / "again" / form, format=form)
        assert again["sources"] == content["sources"] and again["parent"] == content["root"]
        text = (tmp_path / "again" / form / "README.md").read_text()
        assert "4 synthetic images, 2 for each of 2 classes" in text
        assert f"| {content['sources'][0]['root']} | arrays | dm | density | 0 | dog |" in text
        assert ("metadata.csv" in text) == (form == "png")
        assert jaxdd.load(tmp_path / "again" / form).classes == ("dog", "cat")


def test_the_merged_set_is_scored_by_name(make, tmp_path):
    merging.merge((make("a", ("dog",)), make("b", ("cat",))), tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (20, *SIZE), np.uint8)
    data = datasets.from_arrays(images, np.arange(20) % 2)._replace(class_names=("cat", "dog"))
    labelled = labelled_sets.read(tmp_path / "out", data)
    pixels = labelled.images * np.float32(data.std) + np.float32(data.mean)
    assert labelled.labels.tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(pixels[:, 0, 0, 0], [0.1, 0.9, 0.1, 0.9], atol=1e-5)


def test_a_set_is_not_scored_on_training_samples_of_a_source(make, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, *SIZE), np.uint8)
    data = datasets.from_arrays(images, np.arange(20) % 2)._replace(class_names=("cat", "dog"))
    others = make("a", ("dog",), hashes=images[:0]), make("b", ("cat",), hashes=data.train.images)
    merging.merge(others, tmp_path / "out")
    assert any("0 of 4 test" in x for x in labelled_sets.read(tmp_path / "out", data).remarks)
    merging.merge((others[1], make("c", ("dog",), hashes=data.test.images)), tmp_path / "leaky")
    with pytest.raises(ValueError, match="4 of 4 test images"):
        labelled_sets.read(tmp_path / "leaky", data)
    content = merging.merge((others[1], make("d", ("dog",))), tmp_path / "unknown")
    assert samples.NAME not in content["files"]


def test_images_that_hold_smaller_ones(make, tmp_path):
    sets = make("a", ("dog",), formation=2), make("b", ("cat",), formation=2)
    merging.merge(sets, tmp_path / "out")
    assert publication.read(tmp_path / "out").config == {"formation": 2}
    with pytest.raises(ValueError, match="c has formation 1, .*a 2;"):
        merging.merge((sets[0], make("c", ("owl",))), tmp_path / "other")


def test_sets_without_names_are_merged_if_they_are_of_the_same_data(make, tmp_path):
    first, again = make("a", "01", named=False), make("b", "01", named=False)
    merging.merge((first, again), tmp_path / "out")
    assert jaxdd.load(tmp_path / "out").images.shape == (2, 4, *SIZE)
    same = [make(x, "01", named=False, dataset="cdigits", data=x * 32) for x in "cd"]
    merging.merge(same, tmp_path / "benchmark")
    for other in (make("e", "01", named=False, data="1" * 32), make("f", "01"), tmp_path / "out"):
        with pytest.raises(ValueError, match=" has no names of classes"):
            merging.merge((first, other), tmp_path / "x")
    assert not (tmp_path / "x").exists()


OTHERS = {
    "size": (dict(size=(4, 6, 3)), r"b are 4 × 6 × 3 .*a 4 × 5 × 3"),
    "channels": (dict(size=(4, 5, 1)), r"b are 4 × 5 × 1 .*a 4 × 5 × 3"),
    "count": (dict(ipc=3), "got 2 for dog; 3 for cat"),
    "whitening": (dict(zca="uniform"), r"b was distilled with ZCA whitening \(uniform\)"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_sets_that_do_not_fit_are_rejected(make, tmp_path, case):
    fields, message = OTHERS[case]
    with pytest.raises(ValueError, match=message):
        merging.merge((make("a", ("dog",)), make("b", ("cat",), **fields)), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_overlapping_classes_are_rejected(make, tmp_path):
    sets = make("a", ("dog", "cat")), make("b", ("cat", "owl"))
    with pytest.raises(ValueError, match="got 2 for dog, owl; 4 for cat"):
        merging.merge(sets, tmp_path / "out")


def test_bad_arguments(make, tmp_path):
    first = make("a", ("dog",))
    for sources, message in (((first,), "got 1"), ((first, first), "must differ")):
        with pytest.raises(ValueError, match=message):
            merging.merge(sources, tmp_path / "out")
    with pytest.raises(FileExistsError, match="choose another"):
        merging.merge((first, make("b", ("cat",))), tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="absent"):
        merging.merge((first, tmp_path / "absent"), tmp_path / "out")
    (first / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="result.json was changed"):
        merging.merge((first, tmp_path / "b"), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_full_disk_leaves_no_partial_set(make, tmp_path, request):
    sets = make("a", ("dog",)), make("b", ("cat",))
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="No space left"):
        merging.merge(sets, tmp_path / "out")
    assert not (tmp_path / "out").exists()
