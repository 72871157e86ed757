"""The audit of a set: verdicts, the page, and what is compared with trusted sets."""

import functools
import json

import jax
import numpy as np
import pytest

from jaxdd import audit, networks
from jaxdd.commands import cli
from jaxdd.data import datasets
from jaxdd.runs.folder import store
from jaxdd.runs.trust import inspection, publication

SIDE, K = 4, 3
TINY = inspection.Effort(1, 2, 1, (1,), 1, 1, 4)


def linear(key, images):
    return 0.1 * jax.random.normal(key, (images[0].size, K))


def apply_linear(params, images):
    flat = images.reshape(len(images), -1)
    return flat, flat @ params


LINEAR = networks.Functions(linear, apply_linear)


def random_set(ipc=2, k=K, side=SIDE, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 1, (k, ipc, side, side, 1)).astype(np.float32)
    labels = np.arange(k, dtype=np.int32).repeat(ipc).reshape(k, ipc)
    return store.Synthetic(images, labels, np.zeros(1, np.float32), np.ones(1, np.float32), {})


def write(folder, synthetic):
    """Write a set without a manifest and return its path."""
    folder.mkdir()
    store.write_synthetic(folder / "synthetic.npz", synthetic)
    return folder


@pytest.fixture(scope="module")
def checks():
    sets = [random_set(ipc=1, seed=seed) for seed in range(4)]
    checks = inspection.inspect(sets[0], trusted=sets[1:], effort=TINY, kinds=[LINEAR])
    return {check.name: check for check in checks}


def test_every_check_has_a_verdict(checks):
    verdicts = {name: check.verdict for name, check in checks.items()}
    assert set(verdicts.values()) <= {"no evidence found", "evidence", "not run", "not applicable"}
    assert verdicts["range"] == "no evidence found"
    assert verdicts["gradients, STRIP"] == verdicts["Neural Cleanse"] == "not run"
    assert verdicts["spectral signatures"] == verdicts["activation clustering"] == "not applicable"
    for name in ("roughness", "footprint", "patch of 1", "mask"):
        assert 0 <= checks[name].numbers["p"] <= 1 and len(checks[name].numbers["null"]) == 3
    json.dumps([check._asdict() for check in checks.values()], allow_nan=False)


def test_the_headline_never_calls_a_set_clean(checks):
    passed = [check._replace(verdict=inspection.NONE) for check in checks.values()]
    assert inspection.headline(passed) == "no evidence found"
    failed = [*passed, inspection.Check("range", inspection.EVIDENCE, "")]
    assert inspection.headline(failed) == "evidence of tampering: range"


@pytest.mark.parametrize("trusted", [0, 1])
def test_few_trusted_sets_give_no_verdict(trusted):
    statistics = [{"roughness": np.array([0.5 + i])} for i in range(1 + trusted)]
    sets = [random_set(seed=seed) for seed in range(1 + trusted)]
    checks = list(inspection._compare_all(statistics, sets, has_data=False))
    assert {check.verdict for check in checks} == {"not run"}


@pytest.mark.parametrize(
    "change, shape",
    [(dict(k=2), "2, 2, 4, 4, 1"), (dict(side=5), "3, 2, 5, 5, 1"), (dict(ipc=1), "3, 1, 4, 4, 1")],
)
def test_trusted_sets_must_have_the_same_shape(change, shape):
    with pytest.raises(ValueError, match=rf"trusted set 1 .*got \({shape}\)"):
        inspection.inspect(random_set(), trusted=[random_set(**change)], effort=TINY)


def named(synthetic, *names, **config):
    return synthetic._replace(provenance={"class_names": names, "config": config})


def test_trusted_sets_and_real_images_are_matched_by_the_names_of_classes():
    """In any order of classes the numbers are the same; other names are an error."""
    synthetic, trusted = random_set(), random_set(seed=1)
    order = [2, 0, 1]
    turned = trusted._replace(images=trusted.images[order])  # class i of it is class order[i]
    names = ("a", "b", "c")
    real = (255 * random_set(4, seed=2).images).astype(np.uint8).reshape(12, SIDE, SIDE, 1)
    labels = np.arange(3).repeat(4)
    data = datasets.from_arrays(real, labels, test=(real, labels))._replace(class_names=names)
    turned_data = datasets.from_arrays(real, np.argsort(order)[labels], test=(real, labels))
    turned_data = turned_data._replace(class_names=("c", "a", "b"))
    inspect = functools.partial(inspection.inspect, named(synthetic, *names), effort=TINY)
    inspect = functools.partial(inspect, kinds=[LINEAR])
    expected = inspect(trusted=[named(trusted, *names)], data=data)
    actual = inspect(trusted=[named(turned, "c", "a", "b")], data=turned_data)
    for check, other in zip(expected, actual, strict=True):
        assert (check.verdict, check.why) == (other.verdict, other.why)
    with pytest.raises(ValueError, match="missing: 'c'; additional: 'd'"):
        inspect(trusted=[named(trusted, "a", "b", "d")])
    with pytest.raises(ValueError, match="missing: 'c'; additional: 'owl'"):
        inspection.inspect(named(synthetic, "a", "b", "owl"), data=data, effort=TINY)
    with pytest.raises(ValueError, match="formation 1 .* and 2"):
        inspect(trusted=[named(trusted, *names, formation=2)])


@pytest.mark.parametrize("value, code", [(0.5, None), (10.0, 1)])
def test_the_command_audits_a_set_of_one_class_without_a_manifest(
    tmp_path, capsys, monkeypatch, value, code
):
    monkeypatch.setattr(cli.programs, "prepare", lambda: None)
    synthetic = random_set(k=1)
    synthetic.images[0, 0, 3, 3] = value
    folder = write(tmp_path / "set", synthetic)
    arguments = ["audit", str(folder), "--out", str(tmp_path / "a.html")]
    if code is None:
        cli.main(arguments)
    else:
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == code
    record = json.loads((tmp_path / "a.json").read_text())
    verdicts = {check["name"]: check["verdict"] for check in record["checks"]}
    assert verdicts["range"] == ("no evidence found" if code is None else "evidence")
    assert verdicts["networks"] == "not run" and "no manifest" in record["about"]["root"]
    page = (tmp_path / "a.html").read_text()
    assert record["headline"] in page and "the set has one class" in page
    assert "the set has one class" in capsys.readouterr().out


def test_a_set_out_of_range_can_be_audited_but_not_loaded(tmp_path):
    synthetic = random_set()
    synthetic.images[0, 0, 0, 0] = 10
    folder = write(tmp_path / "set", synthetic)
    assert publication.read(folder).synthetic.images.max() == 10
    with pytest.raises(ValueError, match=r"\.\.10"):
        publication.load(folder)


@pytest.mark.parametrize(
    "area, rate, verdict",
    [(144, 0.6, "evidence"), (144, 0.4, "no evidence found"), (16, 0.6, "not run")],
)
def test_a_small_patch_that_moves_all_networks_is_evidence(area, rate, verdict):
    rates = np.full((2, 1, 3), 0.1)
    rates[:, 0, 2] = rate, 0.9
    patches = audit.Patches(np.zeros((1, 3, 2), int), np.full((1, 3), 2), np.ones((1, 3, 1)))
    scan = audit.PatchScan(rates, patches)
    check = inspection._check_patches(scan, "abc", area=area, on_real=False)
    assert check.verdict == verdict
    assert ("images of the set of other classes to c" in check.why) == (verdict == "evidence")
