"""Exporting sets, and loading sets that may come from an attacker."""

import csv
import io
import os
import pickle
import re
import shutil
import warnings
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

import jaxdd
from jaxdd import evaluate, networks
from jaxdd.data import datasets, files, folders
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.trust import publication


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "out")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name in publication.FORMATS:
        publication.export(run, folder / name, format=name)
    return folder


def relist(folder, **changes):
    """Write a manifest of the existing files, with a correct root, as an attacker could."""
    content = files.read_json(folder / "manifest.json")
    (folder / "manifest.json").unlink()
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    manifest.record(folder, names)
    kind, parent = content.pop("kind"), content.pop("parent")
    return manifest.seal(folder, content | changes, kind=kind, parent=parent)


def manifest_of(folder):
    return files.read_json(folder / "manifest.json")


# --- exporting --------------------------------------------------------------------------


@pytest.mark.parametrize("form", publication.FORMATS)
def test_an_exported_set_is_that_of_the_run(run, exported, form):
    folder = exported / form
    parent, synthetic, content = jaxdd.load(run), jaxdd.load(folder), manifest_of(folder)
    assert content["parent"] == manifest_of(run)["root"] != content["root"]
    assert jaxdd.load(folder, expect=content["root"]).classes == ("cat", "dog", "owl")
    assert (content["kind"], synthetic.classes) == (form, ("cat", "dog", "owl"))
    for name in ("config.json", "result.json"):
        assert (folder / name).read_bytes() == (run / name).read_bytes() and name in content[
            "files"
        ]
    assert synthetic.provenance["config"] == files.read_json(run / "config.json")
    for part in ("labels", "mean", "std"):
        np.testing.assert_array_equal(getattr(synthetic, part), getattr(parent, part))
    pixels = np.clip(publication.to_pixels(parent), 0, 1)
    difference = np.abs(np.clip(publication.to_pixels(synthetic), 0, 1) - pixels).max()
    assert difference < 1e-7 if form == "npz" else 1 / 1020 < difference < 1 / 510 + 1e-7
    assert form == "png" or (synthetic.images == parent.images).all()


def test_arrays_are_exported_as_safetensors(run, tmp_path):
    """The file can be read alone; its metadata hold the provenance."""
    numpy = pytest.importorskip("safetensors.numpy")
    publication.export(run, tmp_path / "set", format="safetensors")
    content, parent = manifest_of(tmp_path / "set"), jaxdd.load(run)
    assert {"synthetic.npz", "synthetic.safetensors"} <= content["files"].keys()
    assert jaxdd.load(tmp_path / "set", expect=content["root"]).classes == parent.classes
    path = shutil.move(tmp_path / "set" / "synthetic.safetensors", tmp_path)
    assert numpy.load_file(path).keys() == {"images", "labels", "mean", "std"}
    with pytest.warns(UserWarning, match="has no manifest"):
        alone = jaxdd.load(path)
    for name in ("images", "labels", "mean", "std"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(parent, name))
    assert alone.provenance == parent.provenance


def test_invalid_safetensors(run, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = files.read_arrays(run / "synthetic.npz")
    provenance = {"provenance": str(arrays.pop("provenance"))}
    for changed, metadata, message in (
        ({"images": arrays["images"] * np.nan}, provenance, "NaN"),
        ({"more": np.zeros(1)}, provenance, "got more"),
        ({}, None, "provenance"),
    ):
        numpy.save_file(arrays | changed, tmp_path / "a.safetensors", metadata)
        with pytest.raises(ValueError, match=f"a.safetensors is not a readable .*{message}"):
            jaxdd.load(tmp_path / "a.safetensors")


def test_the_effect_of_rounding_is_stated(run, exported):
    pixels = publication.to_pixels(jaxdd.load(run))
    rounding = files.read_json(exported / "png" / "manifest.json")["rounding"]
    assert rounding["cut"] == ((pixels < 0) | (pixels > 1)).mean() > 0
    assert rounding["furthest"] == max(-pixels.min(), pixels.max() - 1) > 0
    text = (exported / "png" / "README.md").read_text()
    assert (
        f"{100 * rounding['cut']:.1f} % of the" in text and f"by {rounding['furthest']:.3f}" in text
    )


def test_measured_scores_of_rounded_images_are_on_the_card(run, tmp_path):
    """The measured images are those that are read back from the files."""
    score, seen = {"mean": 0.5, "std": 0.02, "n": 3}, []
    measure = lambda images: seen.append(images) or {"accuracy": score, "aligned": score}
    publication.export(run, tmp_path / "out", format="png", measure=measure)
    np.testing.assert_array_equal(*seen, jaxdd.load(tmp_path / "out").images)
    assert manifest_of(tmp_path / "out")["rounding"]["scores"]["accuracy"] == score
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| this set, as PNG files | 50.0 ± 2.0 | 50.0 ± 2.0 | – | – |\n" in text
    assert "| before rounding | 75.0 ± 1.0 |" in text and "was not measured" not in text


def test_png_files_can_be_read_as_a_folder_of_images(exported):
    folder, synthetic = folders.read(exported / "png"), jaxdd.load(exported / "png")
    pixels = np.rint(255 * publication.to_pixels(synthetic)).astype(np.uint8)
    np.testing.assert_array_equal(folder.images, pixels.reshape(folder.images.shape))
    np.testing.assert_array_equal(folder.labels, synthetic.labels.reshape(-1))
    assert datasets.from_folder(folder).num_classes == 3


@pytest.mark.parametrize("form", publication.FORMATS)
def test_the_code_on_the_card_reads_the_set(exported, form, monkeypatch):
    monkeypatch.chdir(exported / form)
    content, namespace = files.read_json("manifest.json"), {}
    text = (exported / form / "README.md").read_text()
    plain, verified = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(plain, namespace)
    exec(verified.replace("ROOT", content["root"]), with_jaxdd := {})
    images, expected = namespace["images"], with_jaxdd["synthetic"].images
    np.testing.assert_allclose(images, expected.reshape(images.shape), atol=1e-6)
    assert namespace["labels"].reshape(-1).tolist() == [0, 0, 1, 1, 2, 2]


def test_the_card_has_a_head_scores_and_hashes(exported):
    text = (exported / "npz" / "README.md").read_text()
    content = files.read_json(exported / "npz" / "manifest.json")
    head = text.split("---\n")[1]
    assert 'pretty_name: "arrays, distilled to 2 per class"\n' in head and "\n- n<1K\n" in head
    assert "| this set | 75.0 ± 1.0 | 75.0 ± 1.0 | 75.0 ± 1.0 | 75.0 ± 1.0 |\n" in text
    assert f"`{content['parent']}`" in text and content["arrays"]["images"]["sha256"] in text
    assert "Rounding" not in text and "6 synthetic images, 2 for each of 3 classes" in text


@pytest.mark.parametrize("form", publication.FORMATS)
@pytest.mark.parametrize("k, ipc, channels", [(1, 1, 1), (1, 12, 3), (11, 1, 1)])
def test_one_class_and_one_image_per_class(make_run, tmp_path, form, k, ipc, channels):
    images = np.random.default_rng(1).normal(size=(k, ipc, 3, 2, channels)) / 4
    names = [f'a "{i}",\nb' for i in range(k)]
    run = make_run(tmp_path / "run", images, names=names)
    publication.export(run, tmp_path / "out", format=form)
    synthetic = jaxdd.load(tmp_path / "out")
    assert synthetic.images.shape == images.shape and synthetic.classes == tuple(names)
    np.testing.assert_allclose(synthetic.images, images, atol=1 / 255 / 0.2)
    assert synthetic.labels.tolist() == [[i] * ipc for i in range(k)]


def test_a_repository_of_the_hub(run, exported, tmp_path):
    """The table has the pixels of the PNG files; a set of PNG files stays one."""
    parquet = pytest.importorskip("pyarrow.parquet")
    _, pixels = publication.round_pixels(jaxdd.load(run))
    for source, kind in ((run, "npz"), (exported / "png", "png")):
        folder = tmp_path / kind
        publication.export(source, folder, format="hub")
        assert manifest_of(folder)["kind"] == kind
        assert jaxdd.load(folder).classes == ("cat", "dog", "owl")
        rows = parquet.read_table(folder / "train.parquet").to_pylist()
        images = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]
        np.testing.assert_array_equal(images, pixels.reshape(-1, 4, 5, 3))
        assert [row["label"] for row in rows] == [0, 0, 1, 1, 2, 2]
        head = (folder / "README.md").read_text("utf-8").split("---\n")[1]
        assert "\n  data_files: train.parquet\n" in head and "\nlicense: unknown\n" in head
    rounding = manifest_of(tmp_path / "png")["rounding"]
    assert rounding == manifest_of(exported / "png")["rounding"] and rounding["cut"] > 0


@pytest.mark.filterwarnings("ignore")
def test_the_library_of_the_hub_reads_a_repository(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    publication.export(run, tmp_path / "set", format="hub")
    folder, cache = str(tmp_path / "set"), str(tmp_path / "cache")
    table = datasets.load_dataset(folder, split="train", cache_dir=cache)
    assert table.features["label"].names == ["cat", "dog", "owl"]
    assert isinstance(table.features["image"], datasets.Image)
    assert table["label"] == [0, 0, 1, 1, 2, 2]
    _, pixels = publication.round_pixels(jaxdd.load(run))
    images = np.stack([np.asarray(image) for image in table["image"]])
    np.testing.assert_array_equal(images, pixels.reshape(-1, 4, 5, 3))
    hub = pytest.importorskip("huggingface_hub")
    assert hub.DatasetCard.load(tmp_path / "set" / "README.md").data.license == "unknown"


def test_invalid_exports(make_run, exported, tmp_path):
    run = make_run(tmp_path / "run", np.zeros((2, 1, 4, 4, 2)))
    with pytest.raises(ValueError, match="got 2"):
        publication.export(run, tmp_path / "out", format="png")
    with pytest.raises(ValueError, match="got 'jpg'"):
        publication.export(run, tmp_path / "out", format="jpg")
    with pytest.raises(ValueError, match="got 2"):
        publication.export(run, tmp_path / "out", format="hub")
    with pytest.raises(ValueError, match="has eight bits"):
        publication.export(exported / "png", tmp_path / "out")
    with pytest.raises(FileExistsError, match="run is not an empty folder; choose another"):
        publication.export(exported / "npz", tmp_path / "run")
    with pytest.raises(ValueError, match="got npz"):
        publication.export(run, tmp_path / "out", measure=lambda _: pytest.fail("measured"))
    bare = shutil.copytree(exported / "npz", tmp_path / "bare")
    (bare / "result.json").unlink()
    relist(bare)
    with pytest.raises(ValueError, match="result.json"):
        publication.export(bare, tmp_path / "out")
    shutil.rmtree(bare)
    (tmp_path / "cmp" / "rows").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="the runs of a comparison are in .*rows"):
        publication.export(tmp_path / "cmp", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cmp", "run"]


def test_a_set_is_exported_neither_into_a_set_nor_onto_a_link(exported, tmp_path):
    source = shutil.copytree(exported / "npz", tmp_path / "set")
    for place in (source / "out", source / "new" / "out"):
        with pytest.raises(ValueError, match="out is inside the set"):
            publication.export(source, place)
    (tmp_path / "empty").mkdir()
    for target in ("nowhere", "empty", "set"):
        (tmp_path / f"to {target}").symlink_to(target)
        with pytest.raises(FileExistsError, match=f"to {target} is not an empty folder"):
            publication.export(source, tmp_path / f"to {target}")
    with pytest.raises(ValueError, match="is inside the set"):
        publication.export(source, tmp_path / "to set" / "out")
    manifest.check(source)


def test_a_full_disk_leaves_no_partial_set(run, tmp_path, full_disk):
    with pytest.raises(OSError, match="No space left"):
        publication.export(run, tmp_path / "out", format="png")
    assert list(tmp_path.iterdir()) == []


# --- hostile sets -------------------------------------------------------------------------


class Payload:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def as_pickle(path, payload):
    path.write_bytes(pickle.dumps({"data": payload}))


def as_torch(path, payload):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload))


def as_object(path, payload):
    np.savez(path, **(files.read_arrays(path) | {"labels": np.array([payload], object)}))


@pytest.mark.parametrize("name", ["synthetic.npz", "set.pt"])
@pytest.mark.parametrize("write", [as_pickle, as_torch, as_object])
def test_pickles_are_rejected_and_not_run(run, exported, tmp_path, write, name):
    """Checked for a bare file and for a folder whose manifest lists the file with its hash."""
    folder = shutil.copytree(exported / "npz", tmp_path / "set")
    payload = Payload(tmp_path / "was run")
    write(folder / "synthetic.npz", payload)
    (folder / "synthetic.npz").rename(folder / name)
    relist(folder)
    with pytest.raises(ValueError, match=r"\.npz") as error:
        jaxdd.load(folder)
    with pytest.raises(ValueError, match="pickles|not a readable synthetic set"):
        jaxdd.load(folder / name)
    assert "\n" not in str(error.value) and not (tmp_path / "was run").exists()
    pickle.loads(pickle.dumps(payload))
    assert (tmp_path / "was run").exists(), "the payload works"


def member(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def twice(path, arrays):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for name in (*arrays, "labels"):
            archive.writestr(f"{name}.npy", member(arrays[name]))


def without_ending(path, arrays):
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*arrays, "labels"):
            ending = "" if f"{name}.npy" in archive.namelist() else ".npy"
            archive.writestr(name + ending, member(arrays[name]))


def bomb(path, arrays):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in arrays:
            big = np.zeros(10**6, np.int8) if name == "images" else arrays[name]
            archive.writestr(f"{name}.npy", member(big))


def other(**changes):
    return lambda path, arrays: np.savez(path, **(arrays | changes))


IMAGES = np.zeros((3, 2, 4, 5, 3), np.float32)
HAZARDS = {
    "twice": (twice, "it holds an array twice"),
    "twice under two names": (without_ending, "it holds an array twice"),
    "surplus": (other(more=np.zeros(1)), "got more"),
    "missing": (lambda p, a: np.savez(p, **{n: a[n] for n in a if n != "std"}), "set: 'std'"),
    "bomb": (bomb, "got 1,00"),
    "NaN": (other(images=IMAGES * np.nan), "images.*NaN"),
    "infinite": (other(images=IMAGES - np.inf), "images.*infinite"),
    "too bright": (other(images=IMAGES + 10), r"got 2.5..3.4"),
    "too dark": (other(images=IMAGES - 10), "got -2.6"),
    "no class": (other(labels=np.full((3, 2), 3, np.int32)), r"labels.*got 3"),
    "float64": (other(images=IMAGES.astype(float)), "images.*got float64"),
    "flat": (other(images=IMAGES[0]), r"images.*got \(2, 4"),
    "text": (lambda path, _: path.write_text("text"), "not a readable .npz file"),
}  # fmt: skip


@pytest.mark.parametrize("hazard", HAZARDS)
def test_invalid_bare_files(run, tmp_path, monkeypatch, hazard):
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 100_000)
    write, match = HAZARDS[hazard]
    write(tmp_path / "a.npz", files.read_arrays(run / "synthetic.npz"))
    with pytest.raises(ValueError, match=match) as error:
        jaxdd.load(tmp_path / "a.npz")
    assert "\n" not in str(error.value) and "a.npz" in str(error.value)


@pytest.mark.parametrize("hazard", ["twice", "surplus", "missing", "bomb", "NaN", "no class"])
def test_invalid_arrays_with_a_valid_manifest(exported, tmp_path, monkeypatch, hazard):
    """The hashes match, but the arrays do not form a set."""
    folder = shutil.copytree(exported / "npz", tmp_path / "set")
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 100_000)
    write, match = HAZARDS[hazard]
    write(folder / "synthetic.npz", files.read_arrays(folder / "synthetic.npz"))
    relist(folder)
    with pytest.raises(ValueError, match=match):
        jaxdd.load(folder)


def test_pixels_out_of_range_need_an_expected_root(make_run, exported, tmp_path):
    """A value of 10, a common trigger, is out of range; a manifest cannot understate the range."""
    images = store.read_synthetic(exported / "npz" / "synthetic.npz").images.copy()
    images[0, 0, -1, -1] = 10
    folder = make_run(tmp_path / "run", images)
    with pytest.raises(ValueError, match="run: pixels .*got .*3.4"):
        jaxdd.load(folder)
    content = manifest_of(folder)
    assert content["range"]["high"] == [10, 10, 10]
    synthetic = jaxdd.load(folder, expect=content["root"])
    assert synthetic.images.max() == 10 and 0 < content["range"]["outside"] < 1
    honest = files.read_json(exported / "npz" / "manifest.json")["range"]
    (folder / "timing.json").unlink()
    root = relist(folder, range=honest)
    with pytest.raises(ValueError, match=r"range.high is \[.* there and \[10.0, 10.0, 10.0\] here"):
        jaxdd.load(folder, expect=root)


@pytest.mark.parametrize("home", ("~nobody-of-this-name", "~nobody-of-this-name/set"))
def test_unknown_home_folders(run, home):
    for call in (
        lambda: jaxdd.load(home),
        lambda: publication.export(run, home),
        lambda: store.create(home, {}, resume=False),
        lambda: folders.read(home),
    ):
        with pytest.raises(ValueError, match="~nobody"):
            call()


def test_folders_without_a_set(tmp_path):
    (tmp_path / "cmp" / "rows").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="cmp has no synthetic.npz"):
        jaxdd.load(tmp_path / "cmp")
    os.mkfifo(tmp_path / "synthetic.npz")
    for place in (tmp_path, tmp_path / "synthetic.npz"):
        with pytest.raises(ValueError, match="synthetic.npz must be a regular file"):
            jaxdd.load(place)


def test_a_bare_file_is_verified_by_its_hash(run):
    path, content = run / "synthetic.npz", files.read_json(run / "manifest.json")
    digest = content["files"]["synthetic.npz"]["sha256"]
    with pytest.warns(UserWarning, match="its hash is the expected one"):
        assert jaxdd.load(path, expect=digest).classes == ("cat", "dog", "owl")
    assert publication.read(path).manifest is None
    with pytest.raises(ValueError, match=f"has the SHA-256 {digest}"):
        jaxdd.load(path, expect=content["root"])
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        jaxdd.load(run / "absent")


def recoded(form):
    def write(folder):
        with Image.open(folder / "images/0/0.png") as image:
            image.convert("RGB").save(folder / "images/0/0.png", form)

    return write


def resized(folder):
    Image.new("RGB", (4, 5)).save(folder / "images/0/0.png")


def table(change):
    def write(folder):
        with open(folder / "metadata.csv", newline="") as file:
            rows = change(list(csv.reader(file)))
        with open(folder / "metadata.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)

    return write


PNGS = {
    "JPEG": (recoded("JPEG"), "is not a readable set of PNG files: cannot identify image"),
    "size": (resized, r"got RGB of \(4, 5\)"),
    "grey": (
        lambda folder: Image.new("L", (5, 4)).save(folder / "images/0/0.png"),
        r"got L of \(5, 4\)",
    ),
    "other pixels": (
        lambda folder: Image.new("RGB", (5, 4)).save(folder / "images/0/0.png"),
        "does not hold the set of its manifest: arrays.pixels.sha256 is",
    ),
    "other labels": (
        table(lambda rows: [rows[0], *([name, "0", kind] for name, _, kind in rows[1:])]),
        "arrays.labels.sha256 is",
    ),
    "fewer": (table(lambda rows: rows[:-1]), "metadata.csv must have 6 rows of file_name, label"),
    "columns": (table(lambda rows: [row[:2] for row in rows]), "metadata.csv must have 6 rows of"),
    "elsewhere": (
        table(lambda rows: [*rows[:-1], ["../secret.png", *rows[-1][1:]]]),
        r"is not a readable set of PNG files: '\.\./secret.png'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", PNGS)
def test_invalid_png_folders(exported, tmp_path, reason):
    """The manifest lists the files with correct hashes."""
    folder = shutil.copytree(exported / "png", tmp_path / "set")
    change, match = PNGS[reason]
    change(folder)
    relist(folder)
    with pytest.raises(ValueError, match=match) as error:
        jaxdd.load(folder)
    assert "\n" not in str(error.value)


def test_pixels_are_not_decoded_beyond_the_limit(exported, tmp_path, monkeypatch):
    folder = shutil.copytree(exported / "png", tmp_path / "set")
    arrays = files.read_json(folder / "manifest.json")["arrays"]
    arrays["pixels"]["shape"] = [3, 2, 40_000, 50_000, 3]
    relist(folder, arrays=arrays)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="40000, 50000"):
        jaxdd.load(folder)


# --- rounding -----------------------------------------------------------------------


def test_png_files_score_as_the_arrays_do(digits):
    """Scores agree within half a point; test_torch_peers checks the same in PyTorch."""
    folder, images, labels = digits
    task = evaluate.task(
        images, labels, num_classes=10, mean=np.float32([0.3]), std=np.float32([0.4]), strategy=()
    )
    network, keys = networks.MLP(10, width=64), jax.random.split(jax.random.key(0), 3)
    score = jax.jit(lambda images: evaluate.evaluate(keys, network, images, task, epochs=400))
    exact, rounded = (
        float(score(jaxdd.load(folder / form).images).accuracy.mean()) for form in ("npz", "png")
    )
    assert exact > 0.6 and abs(exact - rounded) < 0.005
