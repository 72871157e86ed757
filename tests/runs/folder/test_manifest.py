"""What a manifest says, and that nothing of a set can be changed without being noticed."""

import hashlib
import json
import os
import shutil
import zipfile

import numpy as np
import pytest

import jaxdd
from jaxdd.data import files
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.trust import publication

CHANGED = "has the SHA-256|bytes, its manifest says|is not readable as JSON|was changed: it does"


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "out")


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def reseal(folder, **changes):
    """Writes a manifest as a stranger might: changed, with the root that it then has."""
    content = files.read_json(folder / manifest.NAME) | changes
    content["root"] = manifest.root(content)
    (folder / manifest.NAME).write_bytes(manifest._text(content))
    return content


# --- what it says ------------------------------------------------------------------------------


def test_a_manifest_says_what_the_set_is_and_where_it_comes_from(run):
    told, result = (files.read_json(run / name) for name in ("manifest.json", "result.json"))
    synthetic = store.read_synthetic(run / "synthetic.npz")
    assert (told["schema"], told["kind"], told["parent"]) == (1, "run", None)
    assert told["arrays"]["images"] == {
        "dtype": "float32", "shape": [3, 2, 4, 5, 3],
        "sha256": hashlib.sha256(synthetic.images.astype("<f4").tobytes("C")).hexdigest(),
    }  # fmt: skip
    assert told["arrays"].keys() == {"images", "labels", "mean", "std"}
    for name in ("config.json", "synthetic.npz", "weights.npz"):
        content = (run / name).read_bytes()
        expected = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert told["files"][name] == expected
        assert name == "config.json" or result["digests"][name] == expected["sha256"]
    assert told["normalisation"]["mean"] == synthetic.mean.tolist()
    assert told["classes"] == ["cat", "dog", "owl"]
    made = told["provenance"]
    assert made["source"] == {"name": "arrays", "blake2b": "0" * 32} and made["weights"] == "1" * 64
    assert (made["method"], made["debias"], made["seed"]) == ("dm", "kde", 0)
    assert made["config"] == result["config"] and made["versions"] == result["versions"]
    assert told["scores"]["accuracy"] == result["accuracy"]
    assert told["scores"]["random"] == result["random"]


def test_the_range_is_that_of_pixels_widened_to_the_set(run):
    """Channel by channel, in normalised units: (0 - mean) / std and (1 - mean) / std at least."""
    told = files.read_json(run / "manifest.json")["range"]
    images, _, mean, std, _ = store.read_synthetic(run / "synthetic.npz")
    by_channel = images.reshape(-1, 3)
    low, high = -np.float64(mean) / std, (1 - np.float64(mean)) / std
    np.testing.assert_allclose(told["low"], np.minimum(low, by_channel.min(0)), rtol=1e-6)
    np.testing.assert_allclose(told["high"], np.maximum(high, by_channel.max(0)), rtol=1e-6)
    assert told["low"][0] < low[0] and told["high"][2] == pytest.approx(high[2], rel=1e-6)
    outside = (by_channel < low) | (by_channel > high)
    assert 0 < told["outside"] == pytest.approx(outside.mean())


def test_the_root_can_be_computed_without_jaxdd(run):
    told = json.loads((run / "manifest.json").read_bytes())
    stated = told.pop("root")
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == stated


def test_the_root_depends_on_everything_but_times_and_places(run, make_run, tmp_path):
    told = files.read_json(run / "manifest.json")
    roots = {manifest.root(told | {name: "other"}) for name in told if name != "root"}
    assert len(roots | {told["root"]}) == len(told) == 11
    later = make_run(tmp_path / "elsewhere", date="2027-01-01", seconds={"data": 99.0})
    assert files.read_json(later / "manifest.json") == told
    better = make_run(tmp_path / "better", accuracy={"mean": 0.76, "std": 0.01, "n": 3})
    assert files.read_json(better / "manifest.json")["root"] != told["root"]


@pytest.mark.parametrize("how", ["big-endian", "Fortran order", "compressed"])
def test_hashes_of_arrays_are_those_of_any_container(run, tmp_path, how):
    arrays = files.read_arrays(run / "synthetic.npz")
    if how == "big-endian":
        arrays = {name: x.astype(x.dtype.newbyteorder(">")) for name, x in arrays.items()}
    if how == "Fortran order":
        arrays = {name: np.array(x, order="F") for name, x in arrays.items()}
    (np.savez_compressed if how == "compressed" else np.savez)(tmp_path / "a.npz", **arrays)
    assert (tmp_path / "a.npz").read_bytes() != (run / "synthetic.npz").read_bytes()
    found = manifest.describe(store.read_synthetic(tmp_path / "a.npz"))
    told = files.read_json(run / "manifest.json")
    assert found["arrays"] == told["arrays"]
    assert manifest.root(found) == manifest.root({name: told[name] for name in found})


# --- kept with the run -------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"schema": 1}'])
def test_a_lost_manifest_is_written_again_to_the_byte(run, copy, content):
    path = copy / "manifest.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert not manifest.is_kept(copy)
    manifest.keep(copy)
    assert path.read_bytes() == (run / "manifest.json").read_bytes()


def test_a_sound_manifest_is_left_alone(copy):
    """Whoever signed it need not sign it again because another version would say more."""
    reseal(copy, more="of a version between")
    before = (copy / "manifest.json").read_bytes()
    manifest.keep(copy)
    assert (copy / "manifest.json").read_bytes() == before


def test_a_run_that_was_scored_again_gets_another(run, copy):
    """As after a set was made again by other versions."""
    tell(copy)
    manifest.keep(copy)
    told, before = (files.read_json(folder / "manifest.json") for folder in (copy, run))
    assert told["scores"]["accuracy"] == {"mean": 0.99} and told["root"] != before["root"]
    assert jaxdd.load(copy).manifest == told


def test_a_run_of_the_version_before_gets_one(copy):
    """Its digests are shorter, and its set does not know the hash of its weights."""
    for name in ("manifest.json", "result.json"):
        (copy / name).unlink()
    synthetic = store.read_synthetic(copy / "synthetic.npz")
    del synthetic.provenance["weights"]
    store.write_synthetic(copy / "synthetic.npz", synthetic)
    short = lambda name: hashlib.blake2b((copy / name).read_bytes(), digest_size=16).hexdigest()
    digests = {name: short(name) for name in ("synthetic.npz", "weights.npz")}
    assert store.lacking(copy, digests) == []
    assert store.lacking(copy, digests | {"weights.npz": "0" * 32}) == ["weights.npz"]
    scores = files.read_json(copy.parent / "copy" / "config.json")
    score = {"mean": 0.5, "std": 0.0, "n": 1}
    row = dict.fromkeys(("accuracy", "aligned", "conflicting", "worst_group"), score)
    result = {**row, "random": row, "weights": {}, "digests": digests, "config": scores}
    files.write_json(copy / "result.json", result)
    with pytest.warns(
        UserWarning, match="has no manifest, thus no provenance, and nothing says whose"
    ):
        assert jaxdd.load(copy).manifest is None
    manifest.keep(copy)
    told = jaxdd.load(copy).manifest
    assert told and told["provenance"]["weights"] is None and told["provenance"]["seed"] is None


# --- tampering ---------------------------------------------------------------------------------


def test_any_changed_byte_is_refused_before_anything_but_json_is_parsed(copy, monkeypatch):
    """Nearly half of the bytes of the manifest, and a tenth of the set's, by random masks."""
    root = files.read_json(copy / "manifest.json")["root"]
    assert jaxdd.load(copy, expect=root).classes == ("cat", "dog", "owl")
    rng, flips = np.random.default_rng(0), 0
    for name in ("read_array", "read_magic"):
        monkeypatch.setattr(np.lib.format, name, lambda *_, **__: pytest.fail("parsed"))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_, **__: pytest.fail("parsed"))
    for name, most in (("manifest.json", 1_500), ("synthetic.npz", 600)):
        path, good = copy / name, (copy / name).read_bytes()
        for at in rng.permutation(len(good))[:most]:
            content = bytearray(good)
            content[at] ^= rng.integers(1, 256)
            path.write_bytes(content)
            with pytest.raises(ValueError, match=f"{CHANGED}|is no manifest: |newer than version"):
                jaxdd.load(copy)
            flips += 1
        path.write_bytes(good)
    assert flips >= 2_000


def rename(folder):
    (folder / "weights.npz").rename(folder / "weight.npz")


def link(folder, name="weights.npz"):
    """The very bytes, but what is behind a link can be changed elsewhere."""
    shutil.move(folder / name, folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)


def cover(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def tell(folder):
    result = files.read_json(folder / "result.json")
    files.write_json(folder / "result.json", result | {"accuracy": {"mean": 0.99}})


TAMPERED = {
    "changed": (lambda folder: np.savez(folder / "weights.npz", weights=np.ones(8)), CHANGED),
    "grown": (lambda folder: os.truncate(folder / "config.json", 10**9), "has 1000000000 bytes"),
    "added": (lambda folder: (folder / "a.txt").touch(), "holds 'a.txt', which its manifest does"),
    "added below": (
        lambda folder: (folder / "more").mkdir() or (folder / "more" / "synthetic.npz").touch(),
        "holds 'more/synthetic.npz', which",
    ),
    "removed": (lambda folder: (folder / "config.json").unlink(), "lacks config.json, which its"),
    "renamed": (rename, "lacks weights.npz, which its manifest lists"),
    "linked": (link, "weights.npz is a link, expected a file"),
    "linked manifest": (
        lambda folder: link(folder, "manifest.json"),
        "manifest.json is a link, expected a file",
    ),
    "folder for a manifest": (cover, "manifest.json is no file, expected a file"),
    "other scores": (tell, "result.json is not what the manifest says: scores.accuracy.mean is 0."),
    "no scores": (lambda folder: (folder / "result.json").unlink(), "result.json"),
}


@pytest.mark.parametrize("tampering", TAMPERED)
def test_files_that_are_not_those_of_the_manifest(copy, tampering):
    damage, match = TAMPERED[tampering]
    damage(copy)
    with pytest.raises((ValueError, OSError), match=match) as refused:
        jaxdd.load(copy)
    assert "\n" not in str(refused.value)


def test_what_a_run_needs_for_itself_is_named_as_not_covered(copy):
    (copy / "checkpoint" / "2").mkdir(parents=True)
    for name in ("checkpoint/2/state", "report.html", "synthetic.png"):
        (copy / name).write_text("any")
    assert manifest.check(copy).uncovered == ("checkpoint", "report.html", "synthetic.png")


def replaced(name, **changes):
    return lambda folder: reseal(
        folder, **{name: files.read_json(folder / "manifest.json")[name] | changes}
    )


def rewrite(before, after):
    def change(folder):
        content = (folder / "manifest.json").read_text()
        assert before in content
        (folder / "manifest.json").write_text(content.replace(before, after, 1))

    return change


BAD = {
    "newer": (lambda f: reseal(f, schema=2), "is of version 2, newer than version 1, which this"),
    "no version": (lambda f: reseal(f, schema="1"), "schema must be a version, found '1'"),
    "kind": (lambda f: reseal(f, kind="zip"), "must be of a kind out of run, npz, png"),
    "no files": (lambda f: reseal(f, files={}), "must list files, found {}"),
    "outside": (replaced("files", **{"../a": {}}), r"lists '\.\./a', which is no name of a file"),
    "absolute": (replaced("files", **{"/etc/passwd": {}}), "lists '/etc/passwd', which is no"),
    "itself": (replaced("files", **{"manifest.json": {}}), "lists 'manifest.json', which is no"),
    "no hash": (replaced("files", **{"config.json": {"size": 1}}), "must give size and sha256 of"),
    "shape": (
        replaced("arrays", images={"dtype": "float32", "shape": [3, 2, 5, 4, 3], "sha256": ""}),
        r"does not hold the set of its manifest: .*arrays.images.shape is \[3, 2, 5, 4, 3\] there",
    ),
    "surplus array": (replaced("arrays", more={}), "arrays.more is"),
    "mean": (replaced("normalisation", mean=[0.5, 0.5, 0.5]), "normalisation.mean is .0.5, 0.5"),
    "range": (replaced("range", high=[1.0, 1.0, 1.0]), "range.high is .1.0, 1.0, 1.0. there and"),
    "classes": (lambda f: reseal(f, classes=["owl", "dog", "cat"]), "classes is .'owl', 'dog', "),
    "root": (rewrite('"root": "', '"root": "0'), "was changed: it does not state its root"),
    "spaces": (rewrite('"schema": 1', '"schema":  1'), "was changed: .*as written"),
    "nested": (
        rewrite('"schema": 1', f'"deep": {"[" * 400}{"]" * 400},\n "schema": 1'),
        "was changed|is no manifest: maximum recursion",
    ),
    "twice": (rewrite('"schema": 1', '"schema": 1,\n "schema": 1'), "was changed: .*as written"),
    "NaN": (rewrite('"outside": 0.', '"outside": NaN, "o": 0.'), "is no manifest: Out of range"),
}  # fmt: skip


@pytest.mark.parametrize("reason", BAD)
def test_bad_manifests(copy, reason):
    """Also those with the right root, which anybody can compute."""
    change, match = BAD[reason]
    change(copy)
    with pytest.raises(ValueError, match=match) as refused:
        jaxdd.load(copy)
    assert "\n" not in str(refused.value) and str(copy) in str(refused.value)


def test_a_huge_manifest_is_not_read(copy, monkeypatch):
    os.truncate(copy / "manifest.json", 2**40)
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("parsed"))
    with pytest.raises(ValueError, match="has 1,099,511,627,776 bytes, expected at most"):
        jaxdd.load(copy)


@pytest.mark.parametrize(
    "expect, match",
    [
        ("0" * 64, f"has the root [0-9a-f]{{64}}, expected {'0' * 64}"),
        ("0" * 63, "expect must be 64 hexadecimal digits in lower case, found '000"),
        (b"0" * 64, "expect must be 64 hexadecimal digits"),
        ("", "expect must be 64 hexadecimal digits in lower case, found ''"),
    ],
)
def test_another_root_than_expected(run, expect, match):
    with pytest.raises(ValueError, match=match):
        jaxdd.load(run, expect=expect)


def test_a_folder_without_manifest(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(ValueError, match="has no manifest.json, expected one with the root 00"):
        jaxdd.load(copy, expect="0" * 64)
    with pytest.warns(UserWarning, match="has no manifest.*checked were its arrays, their shapes"):
        found = jaxdd.load(copy)
    assert found.manifest is None and found.classes == ("cat", "dog", "owl")
    with pytest.raises(
        FileNotFoundError, match="has no manifest.json; a finished run gets one by its"
    ):
        publication.export(copy, copy.parent / "export")
