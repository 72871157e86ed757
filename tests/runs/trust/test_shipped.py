"""The sets that come with jaxdd: roots, sizes, licences, and distilling one again."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import jaxdd
from experiments.tools import shipped_sets
from jaxdd.runs import results
from jaxdd.runs.folder import manifest
from jaxdd.runs.scoring import labelled_sets
from jaxdd.runs.trust import publication, shipped

NAMES = list(shipped.ROOTS)
SMALLEST = "cdigits-10-plain-ipc10"
PLATFORM = "AMD EPYC", True  # CPU, and whether it has AVX-512, on which the sets were made


@pytest.mark.parametrize("name", NAMES)
def test_sets_have_the_root_images_scores_and_command_of_their_name(name):
    published = publication.read(name)
    dataset, percent, debias, ipc = re.fullmatch(r"(.+)-(\d+)-(\w+)-ipc(\d+)", name).groups()
    assert published.manifest["root"] == shipped.ROOTS[name]
    assert jaxdd.load(name, expect=shipped.ROOTS[name]).images.shape[:2] == (10, int(ipc))
    config, result = published.config, json.loads(published.contents["result.json"])
    assert (config["dataset"], config["debias"]) == (dataset, debias)
    share = result["weights"]["conflict_weight_share"]
    assert debias != "plain" or share == pytest.approx(int(percent) / 100, abs=0.005)
    card = published.contents["README.md"].decode()
    assert f"jaxdd run {dataset} --debias {debias}" in card and "| conflicting |" in card
    assert results.percent(results.Result.from_dict(result).accuracy) in card
    stored = labelled_sets.load(name)
    assert stored.samples is not None and stored.config == config and not stored.is_run


def test_sets_are_complete_small_and_licensed():
    paths = [path for path in shipped.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) < 3_000_000
    folders = {path.name for path in shipped.FOLDER.iterdir() if path.is_dir()}
    assert folders == {*NAMES} == {*shipped_sets.SETS}
    texts = [(shipped.FOLDER / name / "README.md").read_text("utf-8") for name in NAMES]
    licences = {re.search(r"^license: (\S+)$", text, re.M)[1] for text in texts}
    assert licences == {"cc-by-4.0", "cc-by-sa-3.0", "mit"}
    credits = (shipped.FOLDER / "LICENCES.md").read_text("utf-8")
    assert all(f"`{name}`" in credits for name in NAMES)


def test_a_changed_set_is_rejected(tmp_path, monkeypatch):
    """One byte of any file, and a set that was changed together with its manifest."""
    folder = shutil.copytree(shipped.FOLDER / SMALLEST, tmp_path / SMALLEST)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    synthetic = jaxdd.load(SMALLEST)
    for path in folder.iterdir():
        content = path.read_bytes()
        middle = len(content) // 2
        changed = bytes([content[middle] ^ 1])
        path.write_bytes(content[:middle] + changed + content[middle + 1 :])
        with pytest.raises(ValueError, match=path.name):
            jaxdd.load(SMALLEST)
        path.write_bytes(content)
    (folder / "samples.npz").unlink()
    root = manifest.seal(folder, manifest.describe(synthetic), kind="npz")
    expected = shipped.ROOTS[SMALLEST]
    with pytest.raises(ValueError, match=f"has the root {root}, expected {expected}"):
        jaxdd.load(SMALLEST)
    with pytest.raises(ValueError, match="expected 0000"):
        jaxdd.load(SMALLEST, expect="0" * 64)


def test_a_path_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.resolve("cdigits") == pathlib.Path("cdigits")
    assert shipped.resolve(SMALLEST) == shipped.FOLDER / SMALLEST
    assert shipped.root_of(shipped.FOLDER / SMALLEST) == shipped.ROOTS[SMALLEST]
    (tmp_path / SMALLEST).mkdir()
    assert shipped.resolve(SMALLEST) == pathlib.Path(SMALLEST)
    assert shipped.root_of(tmp_path / SMALLEST) is None


AGAIN = """
import json, sys
from jaxdd.runs import programs
programs.prepare()
from jaxdd.commands import cli
from jaxdd.data import benchmarks
from jaxdd.runs.trust import publication, rederivation
name, out = sys.argv[1:]
with programs.fixed_settings():
    published = publication.read(name)
    check = rederivation.distil_again(published, benchmarks.load(published.config["dataset"]))
cli.main(["evaluate", name, "--out", out, "--quiet"])
print(json.dumps({"verdict": check.verdict, **check.numbers}))
"""


def platform():
    """Return the name of the CPU and whether it has AVX-512, as in `PLATFORM`; None if unknown."""
    path = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", path.read_text() if path.exists() else "", re.M)
    return (names[0], " avx512f " in path.read_text()) if names else None


@pytest.mark.slow
def test_the_smallest_set_can_be_distilled_again_and_has_the_scores_of_its_card(tmp_path):
    """In a process without the compiler options of the tests; to the bit on the same platform."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_DISABLE"))}
    command = [sys.executable, "-c", AGAIN, SMALLEST, str(tmp_path / "scores.json")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout.splitlines()[-1])
    assert measured["verdict"] == "no evidence found"
    stated = json.loads(publication.read(SMALLEST).contents["result.json"])
    (row,) = json.loads((tmp_path / "scores.json").read_text()).values()
    difference = row["accuracy"]["mean"] - stated["accuracy"]["mean"]
    assert abs(difference) < 0.05
    if platform() == PLATFORM and results.circumstances()["versions"] == stated["versions"]:
        assert measured["identical"]
