"""Recording, sealing and verifying the files of a folder."""

import hashlib
import json
import os
import shutil
import zipfile
from concurrent import futures

import numpy as np
import pytest

import jaxdd
from jaxdd.data import files
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.trust import publication


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "out")


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def content_of(folder):
    return files.read_json(folder / manifest.NAME)


def forge(folder, **changes):
    """Change a manifest as an attacker would, and update its root."""
    content = content_of(folder) | changes
    content["root"] = manifest.root(content)
    (folder / manifest.NAME).write_bytes(manifest._text(content))


# --- recording ---------------------------------------------------------------------------------


def test_record_forget_and_is_intact(tmp_path):
    (tmp_path / "auto").mkdir()
    for name in ("auto/weights.npz", "a.png", "b.npz"):
        (tmp_path / name).write_text(name)
    assert not manifest.is_intact(tmp_path, "b.npz")
    manifest.record(tmp_path, ["auto/weights.npz", "b.npz"])
    manifest.record(tmp_path, ["a.png"], section="figures")
    content = content_of(tmp_path)
    digest = hashlib.sha256(b"b.npz").hexdigest()
    assert content["files"]["b.npz"] == {"size": 5, "sha256": digest}
    assert content["files"].keys() == {"auto/weights.npz", "b.npz"}
    assert content["figures"].keys() == {"a.png"} and "root" not in content
    for name in ("auto/weights.npz", "a.png", "b.npz"):
        assert manifest.is_intact(tmp_path, name)
    manifest.forget(tmp_path, ["a.png", "auto/weights.npz", "unknown"])
    assert content_of(tmp_path)["figures"] == {}
    assert not manifest.is_intact(tmp_path, "a.png") and manifest.is_intact(tmp_path, "b.npz")
    with pytest.raises(FileNotFoundError, match="absent"):
        manifest.record(tmp_path, ["absent"])


def test_threads_can_record_in_the_same_folder(tmp_path):
    names = [f"{i}.npz" for i in range(20)]
    for name in names:
        (tmp_path / name).write_text(name)
    with futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: manifest.record(tmp_path, [name]), names))
    assert content_of(tmp_path)["files"].keys() == {*names}


def test_changed_missing_and_linked_files_are_not_intact(copy):
    name, content = "weights.npz", (copy / "weights.npz").read_bytes()
    for change in (b"", content[:-1] + b"x", content + b"x"):
        (copy / name).write_bytes(change)
        assert not manifest.is_intact(copy, name)
    (copy / "other").write_bytes(content)
    (copy / name).unlink()
    assert not manifest.is_intact(copy, name)
    (copy / name).symlink_to("other")
    assert not manifest.is_intact(copy, name)
    (copy / name).unlink()
    (copy / name).write_bytes(content)
    assert manifest.is_intact(copy, name)


def test_recording_unseals_only_if_a_file_of_the_set_changes(copy):
    before = (copy / manifest.NAME).read_bytes()
    manifest.record(copy, ["weights.npz", "result.json"])
    assert (copy / manifest.NAME).read_bytes() == before
    (copy / "accuracy.png").write_text("picture")
    manifest.record(copy, ["accuracy.png"], section="figures")
    assert manifest.is_sealed(copy)
    files.write_json(copy / "result.json", {"accuracy": {"mean": 0.5}})
    manifest.record(copy, ["result.json"])
    assert not manifest.is_sealed(copy) and manifest.is_intact(copy, "accuracy.png")
    with pytest.raises(ValueError, match="unfinished.*--resume"):
        manifest.check(copy)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema": 1, "files": []}', b'{"schema": 9}'])
def test_a_damaged_manifest_records_nothing(copy, content):
    (copy / manifest.NAME).write_bytes(content)
    assert not manifest.is_sealed(copy) and not manifest.is_intact(copy, "weights.npz")
    manifest.record(copy, ["weights.npz"])
    assert content_of(copy)["files"].keys() == {"weights.npz"}


def test_only_existing_files_are_sealed(copy):
    """A flipped bit in a name must not make the finished folder invalid."""
    forge(copy, files=content_of(copy)["files"] | {"weightt.npz": {"size": 1, "sha256": ""}})
    manifest.seal(copy, manifest.describe(store.read_synthetic(copy / "synthetic.npz")))
    assert "weightt.npz" not in manifest.check(copy).manifest["files"]


def test_a_full_disk_leaves_the_old_manifest(copy, full_disk):
    before = (copy / manifest.NAME).read_bytes()
    (copy / "more").touch()
    with pytest.raises(OSError, match="No space left"):
        manifest.record(copy, ["more"])
    assert (copy / manifest.NAME).read_bytes() == before


# --- content -----------------------------------------------------------------------------------


def test_a_sealed_manifest_describes_the_set(run):
    content, synthetic = content_of(run), store.read_synthetic(run / "synthetic.npz")
    assert (content["schema"], content["kind"], content["parent"]) == (1, "run", None)
    assert content["arrays"]["images"] == {
        "dtype": "float32", "shape": [3, 2, 4, 5, 3],
        "sha256": hashlib.sha256(synthetic.images.astype("<f4").tobytes("C")).hexdigest(),
    }  # fmt: skip
    assert content["arrays"].keys() == {"images", "labels", "mean", "std"}
    expected = {"config.json", "result.json", "synthetic.npz", "weights.npz"}
    assert content["files"].keys() == expected
    assert content["normalisation"]["mean"] == synthetic.mean.tolist()
    assert content["classes"] == ["cat", "dog", "owl"]


def test_the_range_is_that_of_pixels_widened_to_the_set(run):
    """Channel by channel, in normalised units: (0 - mean) / std and (1 - mean) / std at least."""
    stated = content_of(run)["range"]
    images, _, mean, std, _ = store.read_synthetic(run / "synthetic.npz")
    by_channel = images.reshape(-1, 3)
    low, high = -np.float64(mean) / std, (1 - np.float64(mean)) / std
    np.testing.assert_allclose(stated["low"], np.minimum(low, by_channel.min(0)), rtol=1e-6)
    np.testing.assert_allclose(stated["high"], np.maximum(high, by_channel.max(0)), rtol=1e-6)
    assert stated["low"][0] < low[0] and stated["high"][2] == pytest.approx(high[2], rel=1e-6)
    outside = (by_channel < low) | (by_channel > high)
    assert 0 < stated["outside"] == pytest.approx(outside.mean())


def test_the_root_can_be_computed_without_jaxdd(run):
    content = json.loads((run / "manifest.json").read_bytes())
    root = content.pop("root")
    content.pop("figures", None)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == root


def test_the_root_depends_on_everything_but_times_places_and_figures(run, make_run, tmp_path):
    content = content_of(run)
    roots = {manifest.root(content | {name: "other"}) for name in content if name != "root"}
    assert len(roots | {content["root"]}) == len(content) == 9
    assert manifest.root(content | {"figures": {"a.png": {}}}) == content["root"]
    later = make_run(tmp_path / "elsewhere", date="2027-01-01")
    assert content_of(later) == content
    better = make_run(tmp_path / "better", accuracy={"mean": 0.76, "std": 0.01, "n": 3})
    assert content_of(better)["root"] != content["root"]


@pytest.mark.parametrize("how", ["big-endian", "Fortran order", "compressed"])
def test_array_hashes_do_not_depend_on_the_container(run, tmp_path, how):
    arrays = files.read_arrays(run / "synthetic.npz")
    if how == "big-endian":
        arrays = {name: x.astype(x.dtype.newbyteorder(">")) for name, x in arrays.items()}
    if how == "Fortran order":
        arrays = {name: np.array(x, order="F") for name, x in arrays.items()}
    (np.savez_compressed if how == "compressed" else np.savez)(tmp_path / "a.npz", **arrays)
    assert (tmp_path / "a.npz").read_bytes() != (run / "synthetic.npz").read_bytes()
    description = manifest.describe(store.read_synthetic(tmp_path / "a.npz"))
    assert description["arrays"] == content_of(run)["arrays"]


# --- verification ------------------------------------------------------------------------------


def test_any_changed_byte_is_rejected_before_anything_but_json_is_parsed(copy, monkeypatch):
    """Change random bytes of the manifest and of the set by random masks."""
    root = content_of(copy)["root"]
    assert jaxdd.load(copy, expect=root).classes == ("cat", "dog", "owl")
    for name in ("read_array", "read_magic"):
        monkeypatch.setattr(np.lib.format, name, lambda *_, **__: pytest.fail("parsed"))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_, **__: pytest.fail("parsed"))
    rng = np.random.default_rng(0)
    for name, count in (("manifest.json", 700), ("synthetic.npz", 300)):
        path, intact = copy / name, (copy / name).read_bytes()
        for place in rng.permutation(len(intact))[:count]:
            changed = bytearray(intact)
            changed[place] ^= rng.integers(1, 256)
            path.write_bytes(changed)
            with pytest.raises(ValueError, match="json|npz"):
                jaxdd.load(copy)
        path.write_bytes(intact)
    assert manifest.check(copy).manifest["root"] == root


def rename(folder):
    (folder / "weights.npz").rename(folder / "weight.npz")


def link(folder, name="weights.npz"):
    """Replace a file by a link to the same bytes, which can be changed elsewhere."""
    shutil.move(folder / name, folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)


def cover(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def add_score(folder):
    result = files.read_json(folder / "result.json")
    files.write_json(folder / "result.json", result | {"accuracy": {"mean": 0.99}})


TAMPERED = {
    "changed": (lambda folder: np.savez(folder / "weights.npz", weights=np.ones(8)), "weights.npz"),
    "grown": (lambda folder: os.truncate(folder / "config.json", 10**9), "got 1000000000"),
    "added": (lambda folder: (folder / "a.txt").touch(), "a.txt is not listed"),
    "added below": (
        lambda folder: (folder / "more").mkdir() or (folder / "more" / "synthetic.npz").touch(),
        "more/synthetic.npz is not listed",
    ),
    "removed": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "renamed": (rename, "weights.npz is missing"),
    "linked": (link, "weights.npz must not be a link"),
    "linked manifest": (lambda folder: link(folder, "manifest.json"), "manifest.json must be a"),
    "folder for a manifest": (cover, "manifest.json must be a regular file"),
    "other scores": (add_score, "result.json was changed"),
    "no scores": (lambda folder: (folder / "result.json").unlink(), "result.json is missing"),
}


@pytest.mark.parametrize("tampering", TAMPERED)
def test_folders_that_do_not_agree_with_their_manifest(copy, tampering):
    damage, match = TAMPERED[tampering]
    damage(copy)
    with pytest.raises(ValueError, match=match) as error:
        jaxdd.load(copy)
    assert "\n" not in str(error.value)


def test_files_that_the_root_does_not_cover_are_reported(copy):
    (copy / "checkpoint" / "2").mkdir(parents=True)
    for name in ("checkpoint/2/state", "report.html", "synthetic.png"):
        (copy / name).write_text("any")
    with pytest.raises(ValueError, match="synthetic.png is not listed"):
        manifest.check(copy)
    manifest.record(copy, ["synthetic.png"], section="figures")
    (copy / "synthetic.png").write_text("another picture")
    uncovered = ("checkpoint", "report.html", "synthetic.png", "timing.json")
    assert manifest.check(copy).uncovered == uncovered


def replace(section, **changes):
    return lambda folder: forge(folder, **{section: content_of(folder).get(section, {}) | changes})


def rewrite(before, after):
    def change(folder):
        content = (folder / "manifest.json").read_text()
        assert before in content
        (folder / "manifest.json").write_text(content.replace(before, after, 1))

    return change


BAD = {
    "newer": (lambda f: forge(f, schema=2), "version 2"),
    "no version": (lambda f: forge(f, schema="1"), "got '1'"),
    "kind": (lambda f: forge(f, kind="zip"), "run, npz, png"),
    "no files": (lambda f: forge(f, files={}), "got {}"),
    "outside": (replace("files", **{"../a": {}}), r"'\.\./a'"),
    "absolute": (replace("files", **{"/etc/passwd": {}}), "'/etc/passwd'"),
    "itself": (replace("files", **{"manifest.json": {}}), "must not list 'manifest.json'"),
    "no hash": (replace("files", **{"config.json": {"size": 1}}), "size and sha256 of config.json"),
    "figure": (replace("figures", **{"run.py": {}}), "run.py"),
    "shape": (
        replace("arrays", images={"dtype": "float32", "shape": [3, 2, 5, 4, 3], "sha256": ""}),
        r"arrays.images.shape is \[3, 2, 5, 4, 3\]",
    ),
    "surplus array": (replace("arrays", more={}), "arrays.more is"),
    "mean": (replace("normalisation", mean=[0.5, 0.5, 0.5]), "normalisation.mean is .0.5, 0.5"),
    "range": (replace("range", high=[1.0, 1.0, 1.0]), "range.high is .1.0, 1.0, 1.0"),
    "classes": (lambda f: forge(f, classes=["owl", "dog", "cat"]), "classes is .'owl', 'dog', "),
    "root": (rewrite('"root": "', '"root": "0'), "was changed"),
    "spaces": (rewrite('"schema": 1', '"schema":  1'), "was changed"),
    "nested": (
        rewrite('"schema": 1', f'"deep": {"[" * 400}{"]" * 400},\n "schema": 1'),
        "was changed|maximum recursion",
    ),
    "twice": (rewrite('"schema": 1', '"schema": 1,\n "schema": 1'), "was changed"),
    "NaN": (rewrite('"outside": 0.', '"outside": NaN, "o": 0.'), "Out of range"),
}  # fmt: skip


@pytest.mark.parametrize("reason", BAD)
def test_bad_manifests_even_with_a_correct_root(copy, reason):
    change, match = BAD[reason]
    change(copy)
    with pytest.raises(ValueError, match=match) as error:
        jaxdd.load(copy)
    assert "\n" not in str(error.value) and str(copy) in str(error.value)


def test_a_huge_manifest_is_not_read(copy, monkeypatch):
    os.truncate(copy / "manifest.json", 2**40)
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("parsed"))
    with pytest.raises(ValueError, match="got 1,099,511,627,776"):
        jaxdd.load(copy)


@pytest.mark.parametrize(
    "expect, match",
    [
        ("0" * 64, f"has the root [0-9a-f]{{64}}, expected {'0' * 64}"),
        ("0" * 63, f"got '{'0' * 63}'"),
        (b"0" * 64, "got b'000"),
        ("", "got ''"),
    ],
)
def test_another_root_than_expected(run, expect, match):
    with pytest.raises(ValueError, match=match):
        jaxdd.load(run, expect=expect)


def test_a_folder_without_manifest(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(ValueError, match="has no manifest.json"):
        jaxdd.load(copy, expect="0" * 64)
    with pytest.warns(UserWarning, match="has no manifest"):
        assert jaxdd.load(copy).classes == ("cat", "dog", "owl")
    with pytest.raises(FileNotFoundError, match="--resume"):
        publication.export(copy, copy.parent / "export")
