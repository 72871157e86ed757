"""Statistics of tampering, by hand and on linear networks with a trigger; the audit of them."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdd import audit, networks
from jaxdd.commands import cli, rederivation
from jaxdd.data import datasets
from jaxdd.runs import pipeline
from jaxdd.runs.folder import manifest, store
from jaxdd.runs.trust import inspection, publication

SIDE, K = 4, 3


def linear(scale):
    """A network whose logits are linear in the pixels, and no features of its own."""
    init = lambda key, images: scale * jax.random.normal(key, (images[0].size, K))
    apply = lambda params, images: ((flat := images.reshape(len(images), -1)), flat @ params)
    return networks.Functions(init, apply)


def random_set(ipc=2, k=K, side=SIDE, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 1, (k, ipc, side, side, 1)).astype(np.float32)
    labels = np.arange(k, dtype=np.int32).repeat(ipc).reshape(k, ipc)
    moments = np.zeros(1, np.float32), np.ones(1, np.float32)
    return store.Synthetic(images, labels, *moments, {})


# --- pixels ------------------------------------------------------------------------------------


def test_outside_counts_what_no_pixel_is_and_measures_it_on_the_scale_of_pixels():
    images = np.array([[-1.0], [0.0], [1.0], [3.0]])  # pixels 0, .5, 1, 2
    found = audit.outside(images, [0.5], [0.5])
    assert float(found.share) == 0.25 and float(found.furthest) == 1.0


@pytest.mark.parametrize(
    "image, expected",
    [
        ([[0.0, 1.0], [1.0, 0.0]], 2.0),  # all steps are 1, the variance is 1/4
        ([[0.0, 0.0], [1.0, 1.0]], 1.0),  # half of them are
        ([[1.0, 1.0], [1.0, 1.0]], 0.0),
    ],
)
def test_roughness_is_half_the_mean_squared_step_over_the_variance(image, expected):
    images = np.array(image)[None, ..., None]
    assert float(audit.roughness(images)) == pytest.approx(expected, abs=1e-6)


def test_a_footprint_is_where_all_classes_change_alike():
    trusted = random_set().images
    changed = random_set(seed=1).images
    changed[:, :, 3, 2] = trusted[:, :, 3, 2] + 0.5
    found = np.asarray(audit.footprint(changed, trusted))
    assert np.unravel_index(found.argmax(), found.shape) == (3, 2, 0)
    other = np.delete(found.ravel(), 14)
    assert found.max() > 3 * np.median(other)


@pytest.mark.parametrize("ours, theirs", [((1, 4), (1, 4)), ((2, 4), (3, 4)), ((3, 4), (3, 5))])
def test_sets_of_other_classes_or_sizes_have_no_footprint(ours, theirs):
    sets = (random_set(k=k, side=side).images for k, side in (ours, theirs))
    with pytest.raises(ValueError, match="the same k ≥ 2 classes and size"):
        audit.footprint(*sets)


# --- triggers ----------------------------------------------------------------------------------


def test_patches_are_all_squares_inside_of_the_images():
    tried = audit.patches(3, 4, sizes=(1, 2, 9), low=[-1.0, -2.0], high=[1.0, 2.0])
    assert len(tried.size) == 2 * (12 + 6)
    assert (np.asarray(tried.corner) + np.asarray(tried.size)[:, None] <= (3, 4)).all()
    assert {tuple(x) for x in np.asarray(tried.value).tolist()} == {(-1.0, -2.0), (1.0, 2.0)}
    with pytest.raises(ValueError, match=r"no patch of \(5,\) pixels is in images of 3×4"):
        audit.patches(3, 4, sizes=(5,), low=[0.0], high=[1.0])


@pytest.fixture(scope="module")
def planted():
    """What is found in three linear networks that take a white corner for class 1."""
    found, network = random_set(ipc=4), linear(0.1)
    images, labels = found.images.reshape(-1, SIDE, SIDE, 1), found.labels.ravel()
    images[:, 0] = images[:, 3, 3] = 0
    images[np.arange(len(labels)), 0, labels] = 1  # a pixel for each class
    params = np.array([network.init(jax.random.key(i), images) for i in range(3)])
    params[:, :K], params[:, 15] = 3 * np.eye(K), [0, 9, 0]
    tried = audit.patches(SIDE, SIDE, sizes=(1, 2), low=[0.0], high=[1.0])

    @jax.jit
    def measured(params, images):
        given = dict(num_classes=K)
        ensemble = [(network, params[:2]), (network, params[2:])]
        scan = audit.scan(ensemble, images, labels, tried, sizes=(1, 2), screen=4, keep=2, **given)
        masks = audit.cleanse(network, params, images, labels, low=[0.0], high=[1.0], **given)
        patch = jax.tree.map(lambda x: x[0, 1], scan.patches)
        area = audit.strip(jax.random.key(0), network, params[0], images, patch, blends=4)
        keys = jax.random.split(jax.random.key(1), 2)
        real = audit.disagreement(keys, network, images, labels, images[:8], labels[:8])
        same = audit.disagreement(keys, network, images, labels, images, labels)
        return scan, masks, area, real, same

    return jax.tree.map(np.asarray, measured(*map(jnp.asarray, (params, images))))


def test_a_scan_finds_the_patch_that_all_networks_obey(planted):
    scan = planted[0]
    assert scan.rates.shape == (3, 2, K)
    assert scan.patches.corner[0, 1].tolist() == [3, 3] and scan.patches.value[0, 1] == 1
    assert (scan.patches.size == [[1] * K, [2] * K]).all()
    assert (scan.rates[:, 0, 1] > 0.5).all()
    assert scan.rates[:, 0, [0, 2]].mean(0).max() < scan.rates[:, 0, 1].min()


def test_the_smallest_mask_leads_to_the_planted_class(planted):
    masks = planted[1]
    assert masks.shape == (3, K) and (masks.argmin(1) == 1).all() and masks[:, 1].max() < 1


def test_blends_keep_the_trigger_and_gradients_of_the_same_images_agree(planted):
    _, _, area, real, same = planted
    assert area > 0.8
    assert (real > 0.01).all() and np.abs(same).max() < 1e-4


def test_outlying_is_the_distance_of_the_smallest_in_robust_deviations():
    # Logarithms 0, 3, 4, 5, 6: the median is 4, the absolute deviations 4, 1, 0, 1, 2.
    assert float(audit.outlying(np.exp([0.0, 3, 4, 5, 6]))) == pytest.approx(4 / 1.4826, rel=1e-5)


# --- against trusted sets ----------------------------------------------------------------------


def test_beside_one_set_networks_are_exchanged_in_pairs():
    found = audit.shift([2.0, 3.0], [[1.0, 1.0]])
    assert found.difference == 1.5
    assert sorted(found.null) == [-1.5, -0.5, 0.5, 1.5] and found.p == 0.25


@pytest.mark.parametrize("own", [3.0, 1.0])
def test_beside_several_sets_p_is_that_of_one_more_of_them(own):
    means = np.array([0.0, 1.0, 2.0, 2.5])
    found = audit.shift([own], means[:, None])
    t = (own - means.mean()) / (means.std(ddof=1) * np.sqrt(1 + 1 / 4))
    assert found.p == pytest.approx(stats.t.sf(t, 3), rel=1e-4)
    assert found.null == pytest.approx(
        [m - np.delete(means, i).mean() for i, m in enumerate(means)]
    )


@pytest.mark.parametrize(
    "found, trusted, words",
    [
        ([[1.0]], [[1.0]], r"found must be \[m\]"),
        ([1.0, 2.0], [[1.0]], r"found shapes \(2,\) and \(1, 1\)"),
        (np.ones(17), np.ones((1, 17)), "may be 16 networks, found 17"),
    ],
)
def test_what_cannot_be_compared_is_refused(found, trusted, words):
    with pytest.raises(ValueError, match=words):
        audit.shift(found, trusted)


# --- the audit ---------------------------------------------------------------------------------

TINY = inspection.Effort(1, 2, 1, (1,), 1, 1, 4)


@pytest.fixture(scope="module")
def checks():
    sets = [random_set(ipc=1, seed=seed) for seed in range(4)]
    found = inspection.inspect(sets[0], trusted=sets[1:], effort=TINY, kinds=[linear(0.1)])
    return {check.name: check for check in found}


def test_an_audit_says_of_every_check_what_it_found_or_why_not(checks):
    verdicts = {name: check.verdict for name, check in checks.items()}
    assert set(verdicts.values()) <= {"no evidence found", "evidence", "not run", "not applicable"}
    assert verdicts["range"] == "no evidence found"
    assert verdicts["gradients, STRIP"] == verdicts["Neural Cleanse"] == "not run"
    assert verdicts["spectral signatures"] == verdicts["activation clustering"] == "not applicable"
    for name in ("roughness", "footprint", "patch of 1", "mask"):
        assert 0 <= checks[name].numbers["p"] <= 1 and len(checks[name].numbers["null"]) == 3
    json.dumps([check._asdict() for check in checks.values()], allow_nan=False)


def test_no_headline_calls_a_set_clean(checks):
    passed = [check._replace(verdict=inspection.NONE) for check in checks.values()]
    assert inspection.headline(passed) == "no evidence found"
    failed = [*passed, inspection.Check("range", inspection.EVIDENCE, "")]
    assert inspection.headline(failed) == "evidence of tampering: range"


@pytest.mark.parametrize(
    "change, found",
    [(dict(k=2), "2, 2, 4, 4, 1"), (dict(side=5), "3, 2, 5, 5, 1"), (dict(ipc=1), "3, 1, 4, 4, 1")],
)
def test_trusted_sets_of_another_shape_are_refused(change, found):
    words = rf"trusted set 1 must hold images .* as the set does, found \({found}\)"
    with pytest.raises(ValueError, match=words):
        inspection.inspect(random_set(), trusted=[random_set(**change)], effort=TINY)


def written(folder, found, **provenance):
    """A set on the disk, in a folder without a manifest."""
    folder.mkdir(exist_ok=True)
    made = store.Synthetic(*found[:4], provenance=provenance)
    store.write_synthetic(folder / "synthetic.npz", made)
    return folder


@pytest.mark.parametrize("value, code", [(0.5, None), (10.0, 1)])
def test_one_class_without_a_manifest_gets_the_audit_that_it_allows(
    tmp_path, capsys, monkeypatch, value, code
):
    monkeypatch.setattr(cli, "prepare", lambda: None)
    one = random_set(k=1)
    one.images[0, 0, 3, 3] = value
    arguments = ["audit", str(written(tmp_path / "set", one)), "--out", str(tmp_path / "a.html")]
    if code is None:
        cli.main(arguments)
    else:
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == code
    told = json.loads((tmp_path / "a.json").read_text())
    verdicts = {check["name"]: check["verdict"] for check in told["checks"]}
    assert verdicts["range"] == ("no evidence found" if code is None else "evidence")
    assert verdicts["networks"] == "not run" and "no manifest" in told["about"]["root"]
    page = (tmp_path / "a.html").read_text()
    assert told["headline"] in page and "the set has one class" in page
    assert "the set has one class" in capsys.readouterr().out


def test_a_manifest_of_a_newer_version_is_refused(tmp_path):
    folder = written(tmp_path / "set", random_set())
    (folder / manifest.NAME).write_text(json.dumps({"schema": manifest.SCHEMA + 1}))
    with pytest.raises(ValueError, match="use a newer jaxdd"):
        publication.load_to_audit(folder)


def test_what_load_refuses_for_its_range_can_be_audited(tmp_path):
    found = random_set()
    found.images[0, 0, 0, 0] = 10
    folder = written(tmp_path / "set", found)
    assert publication.load_to_audit(folder).images.max() == 10
    with pytest.raises(ValueError, match="pixels must lie in"):
        publication.load(folder)


# --- made again --------------------------------------------------------------------------------


def benchmark(name="mine"):
    images = np.zeros((6, SIDE, SIDE, 1), np.uint8)
    labels = np.arange(6) % K
    return datasets.from_arrays(images, labels, test=(images, labels), name=name)


def told(data, /, **changes):
    config = {"method": "dm", "dataset": "mine", "debias": "none", "data": datasets.digest(data)}
    return {"kind": "run", "provenance": {"config": config | changes}}


@pytest.mark.parametrize(
    "change, given, why",
    [
        (None, True, "no manifest"),
        ({}, False, "mine, are not here; give --data"),
        ({"data": "0"}, True, "the set was made from 0"),
        ({"own_method": "mine:method"}, True, "of somebody's own"),
        ({"network": "mine:network"}, True, "of somebody's own"),
        ({"augmentation": "mine:turn"}, True, "of somebody's own"),
        ({"debias": "given"}, True, "given by hand"),
        ({"row": "random"}, True, "nothing was distilled"),
    ],
)
def test_what_cannot_be_made_again_is_said_to_be_so(change, given, why):
    data = benchmark()
    content = None if change is None else told(data, **change)
    check = rederivation.again(random_set(), content, data if given else None)
    assert check.verdict == "not run" and why in check.why


@pytest.mark.parametrize(
    "moved, verdict, same",
    [(0, "no evidence found", True), (0.01, "no evidence found", False), (0.1, "evidence", False)],
)
def test_a_set_made_again_has_the_same_bits_or_is_compared(monkeypatch, moved, verdict, same):
    def run(data, folder, asked, *, debias, mesh, split_from, report):
        assert (asked.epochs, asked.eval_seeds, debias) == (1, 1, "none")
        path = pathlib.Path(folder)
        path.mkdir()
        written(path, random_set())

    monkeypatch.setattr(pipeline, "run", run)
    found, data = random_set(), benchmark()
    found = found._replace(images=found.images + np.float32(moved))
    check = rederivation.again(found, told(data), data)
    assert check.verdict == verdict and check.numbers["same bits"] is same


@pytest.mark.parametrize("told", [None, {}, {"provenance": []}, {"provenance": {"config": "x"}}])
def test_a_manifest_that_says_anything_has_no_configuration(told):
    assert rederivation.configuration(told) == {}


def test_no_page_is_written_into_a_set(tmp_path):
    (tmp_path / manifest.NAME).touch()
    with pytest.raises(ValueError, match="is inside of the set .*, which would not list it"):
        publication.check_outside(tmp_path / "pages" / "audit.html")


@pytest.mark.parametrize(
    "area, rate, verdict",
    [(144, 0.6, "evidence"), (144, 0.4, "no evidence found"), (16, 0.6, "not run")],
)
def test_a_small_patch_that_all_networks_obey_is_evidence(area, rate, verdict):
    rates = np.full((2, 1, 3), 0.1)
    rates[:, 0, 2] = rate, 0.9
    places = audit.Patches(np.zeros((1, 3, 2), int), np.full((1, 3), 2), np.ones((1, 3, 1)))
    told = {"scan": audit.Scan(rates, places), "area": area}
    check = inspection._patches(told, "abc", on_real=False)
    assert check.verdict == verdict
    assert ("images of the set of other classes to c" in check.why) == (verdict == "evidence")
