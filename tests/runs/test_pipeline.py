"""Runs and comparisons in their folders.

What a method and an evaluation compute is tested elsewhere: here most sets are "distilled" by a
step that adds one, and judged by a network of one matrix.
"""

import dataclasses
import functools
import json
import shutil
import signal
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import evaluate, methods, networks, sampling, weights
from jaxdd.data import datasets, files
from jaxdd.methods import cfm, spectral, zca
from jaxdd.runs import components, options, pipeline
from jaxdd.runs import old_results as results
from jaxdd.runs.folder import checkpoint, guides, manifest, store, whitenings
from jaxdd.runs.reports import report
from jaxdd.weights import blind_features, formulas, probes

TINY = options.DM(
    ipc=2, steps=6, batch_size=8, depth=1, epochs=2, eval_seeds=2, chunk=2, encoder_steps=2,
    encoder_width=4,
    temperature=0.3,
)  # fmt: skip
GROUPS = ("accuracy", "aligned", "conflicting", "worst_group")


def shades(attributes=True, counts=(12, 30), strategy=()):
    """Two classes of 8×8 grey images, dark and bright; an attribute marks the corner."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], counts)
    marks = np.where(rng.random(len(labels)) < 0.2, 1 - labels, labels)
    images = rng.integers(0, 100, (len(labels), 8, 8)) + 100 * labels[:, None, None]
    images[:, :2, :2] = 255 * marks[:, None, None]
    images = images.astype(np.uint8)
    return datasets.from_arrays(images, labels, marks if attributes else None, strategy=strategy)


def matrix(key, images):
    return jax.random.normal(key, (images[0].size, 2)) / images[0].size


def apply(params, images):
    flat = images.reshape(len(images), -1)
    return flat, flat @ params


NETWORK = networks.Functions(matrix, apply)


def add_one(key, state, batch):
    images = state.images + 1
    return methods.State(images, ()), {"loss": batch.weights.sum() + jax.random.uniform(key)}


METHOD = methods.Method(lambda images: methods.State(images, ()), add_one)
OWN = dict(network=NETWORK, method=METHOD)
ROWS = ("random", "random-kde", "none", "kde", "oracle")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "out"
    reports = []
    report = lambda *task, **fields: reports.append(task)
    given = dict(rows=ROWS, report=report, spent={"data": 3.0})
    found = pipeline.compare(shades(), folder, TINY, **given, **OWN)
    return folder, found, reports


def test_compare_writes_every_row_with_every_field(compared):
    folder, found, _ = compared
    assert tuple(found["rows"]) == ROWS and found["finished"] is True
    assert json.loads((folder / "compare.json").read_text()) == found
    for row in found["rows"].values():
        for group in GROUPS:
            assert row[group]["n"] == 2 and row["random"][group]["n"] == 2
        assert set(row["weights"]) == {
            "conflict_auc", "conflict_weight_share", "group_evenness", "effective_sample_size",
        }  # fmt: skip
        assert {"seed", "device", "versions", "config"} <= set(row)
        assert row["seconds"]["data"] == 3.0 and {"compile", "evaluate"} <= set(row["seconds"])
        assert row["config"]["network"] == "jaxdd.networks.protocol:Functions()"
        assert row["config"]["own_method"] == f"{__name__}:add_one"
    for name in ("kde", "random-kde"):
        assert {"embed", "density"} <= set(found["rows"][name]["seconds"])


def test_cores_that_share_the_images_make_the_same_rows(tmp_path, mesh):
    """Four devices, and two samples more than they can share evenly."""
    options = dataclasses.replace(TINY, steps=2, width=4, temperature=0.3)
    given = dict(rows=("random-kde", "kde", "fairdd"))
    data = shades()
    pipeline.compare(data, tmp_path / "one", options, **given)
    pipeline.compare(data, tmp_path / "many", options, mesh=mesh, split_from=0, **given)
    for name in ("random", *given["rows"]):
        one, many = (
            store.read_synthetic(tmp_path / side / "rows" / name / "synthetic.npz").images
            for side in ("one", "many")
        )
        np.testing.assert_allclose(many, one, atol=1e-4)
    one, many = (np.load(tmp_path / side / "weights.npz")["weights"] for side in ("one", "many"))
    np.testing.assert_allclose(many, one, rtol=1e-3)


def sets(folder):
    """The images of the rows in the folder of a comparison."""
    return {
        path.parent.name: store.read_synthetic(path).images
        for path in folder.glob("rows/*/synthetic.npz")
    }


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Two rows at once, whatever the machine has."""
    folder = tmp_path_factory.mktemp("beside") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components.multiprocessing, "cpu_count", lambda: 2)
        return folder, pipeline.compare(shades(), folder, TINY, rows=ROWS, network=NETWORK)


def test_rows_side_by_side_are_those_of_one_core(beside, tmp_path, monkeypatch):
    monkeypatch.setattr(components.multiprocessing, "cpu_count", lambda: 1)
    found = pipeline.compare(shades(), tmp_path, TINY, rows=ROWS, network=NETWORK)["rows"]
    for name, row in beside[1]["rows"].items():
        assert [found[name][score] for score in GROUPS] == [row[score] for score in GROUPS]
    jax.tree.map(np.testing.assert_array_equal, sets(tmp_path), sets(beside[0]))


def interrupted(task, at):
    """A report that is as Ctrl-C when a task gets there, in whatever thread."""

    def report(name, done, total, **fields):
        if (name, done) == (task, at):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.5)  # until the main thread has heeded it

    return report


@pytest.fixture
def cores(monkeypatch):
    """Two cores, whatever the machine has."""
    monkeypatch.setattr(components.multiprocessing, "cpu_count", lambda: 2)


@pytest.mark.usefixtures("cores")
def test_a_comparison_that_is_stopped_while_it_distils_goes_on_to_the_same_bits(beside, tmp_path):
    heeded = signal.getsignal(signal.SIGINT)
    with pytest.raises(pipeline.Interrupted):
        pipeline.compare(
            shades(), tmp_path, TINY, rows=ROWS, report=interrupted("none", 2), network=NETWORK
        )
    assert signal.getsignal(signal.SIGINT) is heeded
    assert (tmp_path / "rows" / "none" / "checkpoint").exists()
    assert not (tmp_path / "compare.json").exists()
    pipeline.compare(shades(), tmp_path, TINY, rows=ROWS, resume=True, network=NETWORK)
    jax.tree.map(np.testing.assert_array_equal, sets(tmp_path), sets(beside[0]))


@pytest.fixture
def heeding():
    """Ctrl-C as in a terminal, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("cores", "heeding")
def test_a_comparison_is_stopped_at_once_while_nothing_is_distilled(tmp_path):
    for when in (("embedding", 0), ("evaluate random", 0)):
        with pytest.raises(KeyboardInterrupt):
            given = dict(rows=["random-kde"], report=interrupted(*when), resume=True)
            pipeline.compare(shades(), tmp_path, TINY, **given, network=NETWORK)


@pytest.mark.usefixtures("cores")
def test_a_row_that_fails_stops_the_others_which_keep_their_states(tmp_path):
    def report(task, done, total, **fields):
        if (task, done) == ("none", 4):
            raise OSError("No space left on device")

    asked = dataclasses.replace(TINY, steps=4000, save_every=1000.0)
    with pytest.raises(OSError, match="No space"):
        pipeline.compare(
            shades(), tmp_path, asked, rows=["none", "oracle"], report=report, network=NETWORK
        )
    assert (tmp_path / "rows" / "oracle" / "checkpoint").exists()


def test_compare_writes_the_figures(compared):
    folder, *_ = compared
    for name in ("accuracy", "synthetic", "weights", "embedding"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_distilled_rows_start_from_their_subsets(compared):
    """none starts from the images of random, kde from those of random-kde; six steps add six."""
    folder, *_ = compared
    read = lambda name: store.read_synthetic(folder / "rows" / name / "synthetic.npz").images
    np.testing.assert_allclose(read("none"), read("random") + 6, atol=1e-5)
    np.testing.assert_allclose(read("kde"), read("random-kde") + 6, atol=1e-5)
    assert (read("kde") != read("none")).any()


def test_a_report_tells_of_networks_and_methods_of_ones_own(compared):
    """They are in the configuration, and there is no command that would repeat them."""
    folder, *_ = compared
    page = report.render(report.read(folder))
    assert "jaxdd.networks.protocol:Functions()" in page and f"{__name__}:add_one" in page
    assert "How to repeat it" in page and "jaxdd compare arrays" not in page


def test_compare_reports_progress(compared):
    *_, reports = compared
    assert ("kde", 6, 6) in reports and ("kde", 2, 6) in reports


def test_a_finished_comparison_is_read_back(compared, monkeypatch):
    folder, found, _ = compared
    monkeypatch.setattr(pipeline._Attempt, "row", None)  # nothing is computed any more
    again = pipeline.compare(shades(), folder, TINY, rows=ROWS, resume=True, **OWN)
    assert again["rows"] == found["rows"]


def test_what_the_options_ask_for_is_distilled_and_judged(tmp_path):
    """A run with a method of the library has the numbers of the parts, put together by hand."""
    asked = dataclasses.replace(TINY, network="mlp", steps=2, strategy=("crop",))
    found = pipeline.run(shades(), tmp_path / "out", asked, debias="oracle")
    data, asked = shades(), asked
    made, pool = components.build(data, asked), datasets.pool(data)
    pool = sampling.reweight(pool, weights.oracle(pool, data.train.attributes, num_attributes=2))
    state = made.method.init(components.subset(pool, asked, weighted=True))
    key, kwargs = components.key(asked, "distill"), dict(method=made.method, sampler=made.sampler)
    *_, (_, state, _) = methods.run(key, state, pool, steps=2, chunk_length=2, **kwargs)
    images = store.read_synthetic(tmp_path / "out" / "synthetic.npz").images
    np.testing.assert_array_equal(images, state.images)
    scores = evaluate.summary(made.score(state.images))
    assert {name: found[name] for name in scores} == files.to_json(scores)
    assert found["config"]["augmentation"] == ["crop"]
    assert found["weights"]["group_evenness"] == pytest.approx(1, abs=1e-4)


def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """Stopped in the second of three chunks, as by a power cut just after the checkpoint."""
    asked, data = dataclasses.replace(TINY, save_every=0.0), shades()
    pipeline.run(data, tmp_path / "a", asked, debias="kde", **OWN)

    class PowerCut(Exception):
        pass

    def cut(task, done, total, **fields):
        if task == "kde" and done == 4:
            raise PowerCut

    with pytest.raises(PowerCut):
        pipeline.run(data, tmp_path / "b", asked, report=cut, debias="kde", **OWN)
    assert not (tmp_path / "b" / "result.json").exists()
    steps = []
    original = methods.run

    def spied(*arguments, **options):
        steps.append(options["first"])
        return original(*arguments, **options)

    monkeypatch.setattr(methods, "run", spied)
    pipeline.run(data, tmp_path / "b", asked, resume=True, debias="kde", **OWN)
    one, other = (store.read_synthetic(tmp_path / x / "synthetic.npz") for x in "ab")
    np.testing.assert_array_equal(one.images, other.images)
    assert steps == [2]
    assert [record["step"] for record in store.progress(tmp_path / "b")] == [2, 4, 6]


WHITENED = dataclasses.replace(TINY, zca="weighted", save_every=0.0)


def test_networks_see_the_set_whitened_and_it_is_kept_as_pixels(tmp_path):
    """Six steps add six to whitened images; the folder has what that is in pixels."""
    with pytest.warns(UserWarning, match="64 values by .* images is regularised"):
        result = pipeline.run(shades(), tmp_path, WHITENED, debias="oracle", **OWN)
    pool, made = datasets.pool(shades()), whitenings.of(tmp_path)
    pool = sampling.reweight(
        pool, weights.oracle(pool, shades().train.attributes, num_attributes=2)
    )
    with pytest.warns(UserWarning, match="regularised"):
        fitted = zca.fit(pool, weighted=True)
    for one, other in zip(made, fitted, strict=True):
        np.testing.assert_array_equal(one, other)
    seen = zca.whiten(components.subset(pool, WHITENED, weighted=True), made) + 6
    images = store.read_synthetic(tmp_path / "synthetic.npz").images
    np.testing.assert_allclose(images, zca.unwhiten(seen, made), atol=1e-4)
    assert "whiten" in result["seconds"] and "whitening.npz" in result["digests"]
    task = zca.whiten_task(datasets.task(shades()), made)
    scores = evaluate.evaluate(
        jax.random.split(components.key(WHITENED, "evaluate"), 2), NETWORK, seen, task, epochs=2
    )
    assert result["accuracy"]["each"] == pytest.approx(scores.accuracy.tolist())


def test_a_whitening_that_is_lost_is_fitted_again_and_one_that_is_there_is_read(
    tmp_path, monkeypatch
):
    fits, original = [], zca.fit
    monkeypatch.setattr(zca, "fit", lambda *a, **k: fits.append(1) or original(*a, **k))
    cut = lambda task, done, total, **_: 1 / (task != "none" or done != 4)
    run = functools.partial(pipeline.run, shades(), tmp_path / "a", debias="none", **OWN)
    plain = dataclasses.replace(WHITENED, zca="plain")
    with pytest.warns(UserWarning), pytest.raises(ZeroDivisionError):
        run(plain, report=cut)
    first = run(plain, resume=True)
    with pytest.warns(UserWarning):
        whole = pipeline.run(shades(), tmp_path / "b", plain, debias="none", **OWN)
    assert len(fits) == 2 and first["digests"] == whole["digests"]
    (tmp_path / "a" / store.WHITENING).unlink()
    with pytest.warns(UserWarning):
        assert run(plain, resume=True)["digests"] == first["digests"]
    assert len(fits) == 3 and manifest.is_kept(tmp_path / "a")


def test_what_whitening_does_not_go_with_is_refused_before_any_work(tmp_path):
    for changed, match in (
        (dict(formation=2), "zca is of whole images.* found formation"),
        (dict(weighting="batch"), "found weighting batch"),
    ):
        with pytest.raises(ValueError, match=match):
            pipeline.run(
                shades(),
                tmp_path / "a",
                dataclasses.replace(WHITENED, **changed),
                debias="kde",
                **OWN,
            )
    with pytest.raises(ValueError, match="cfm keeps images within the range of pixels"):
        options.CFM(zca="plain")
    large = datasets.from_arrays(
        np.arange(4 * 65 * 65).reshape(4, 65, 65) % 251 / 251, [0, 0, 1, 1]
    )
    with pytest.raises(ValueError, match="at most 4,096 values.* found 65 × 65 × 1"):
        pipeline.run(large, tmp_path / "a", WHITENED, debias="none", **OWN)
    assert not (tmp_path / "a").exists()


def test_other_rows_of_a_finished_comparison_are_kept(tmp_path):
    pipeline.compare(shades(), tmp_path, TINY, rows=["none"], **OWN)
    found = pipeline.compare(shades(), tmp_path, TINY, rows=["oracle"], resume=True, **OWN)["rows"]
    assert list(found) == ["random", "none", "oracle"]


def test_a_table_that_lacks_a_finished_row_is_made_again(tmp_path):
    """Killed between the last file of a new row and the table that holds it."""
    pipeline.compare(shades(), tmp_path, TINY, rows=["none"], **OWN)
    before = (tmp_path / "compare.json").read_bytes()
    pipeline.compare(shades(), tmp_path, TINY, rows=["oracle"], resume=True, **OWN)
    (tmp_path / "compare.json").write_bytes(before)
    found = pipeline.compare(shades(), tmp_path, TINY, rows=["oracle"], resume=True, **OWN)["rows"]
    assert list(found) == ["random", "none", "oracle"]


@pytest.fixture
def again(compared, tmp_path):
    """A copy of the finished comparison, and a function that resumes it with some rows."""
    folder = shutil.copytree(compared[0], tmp_path / "out")
    return folder, lambda *rows: pipeline.compare(
        shades(), folder, TINY, rows=rows, resume=True, **OWN
    )


def test_rows_whose_sets_are_damaged_are_made_again(again, compared):
    """From the state, or from the data where there are only real images; the table loses none."""
    folder, resume = again
    (folder / "rows" / "kde" / "synthetic.npz").write_bytes(b"")
    shutil.rmtree(folder / "rows" / "random-kde")
    made = resume("none")["rows"]
    assert list(made) == list(ROWS)
    for name, row in compared[1]["rows"].items():
        assert made[name]["accuracy"] == row["accuracy"] and made[name]["digests"] == row["digests"]
        assert manifest.check(folder / "rows" / name).manifest["provenance"]["debias"] == name


def test_a_row_without_a_state_to_make_it_from_leaves_the_table(again):
    folder, resume = again
    (folder / "rows" / "kde" / "synthetic.npz").unlink()
    shutil.rmtree(folder / "rows" / "kde" / "checkpoint")
    before = (folder / "compare.json").read_bytes()
    with pytest.raises(ValueError, match="delete .*rows/kde/result.json and resume to distil anew"):
        resume("none")
    assert (folder / "compare.json").read_bytes() == before


def test_weights_and_figures_that_rows_share_are_made_again(again, compared):
    folder, resume = again
    figures = [folder / f"{name}.png" for name in ("weights", "accuracy", "synthetic")]
    config = folder / "rows" / "kde" / "config.json"
    for path in (folder / "weights.npz", *figures, folder / "rows" / "none" / "synthetic.png"):
        path.unlink()
    config.write_text("[")
    assert resume("none") == compared[1]
    assert config.read_bytes() == (compared[0] / "rows" / "kde" / "config.json").read_bytes()
    assert (folder / "weights.npz").read_bytes() == (compared[0] / "weights.npz").read_bytes()
    assert all(map(store.is_drawn, [*figures, folder / "rows" / "none" / "synthetic.png"]))
    for name in ("weights.npz", "embedding.png", "compare.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-60])
        with pytest.raises(ValueError, match=f"{name} .*; delete it and resume"):
            resume("none")
        (folder / name).write_bytes(content)


def test_a_folder_that_is_deleted_is_not_made_anew(tmp_path):
    def delete(task, done, total, **fields):
        if (task, done) == ("none", 2):
            shutil.rmtree(tmp_path / "out")

    with pytest.raises(FileNotFoundError, match="out is gone, expected the folder that the run"):
        pipeline.run(shades(), tmp_path / "out", TINY, debias="none", report=delete, **OWN)
    assert not (tmp_path / "out").exists()


def test_a_method_of_ones_own_is_looked_at_before_there_is_a_folder(tmp_path):
    no_images = METHOD._replace(init=lambda images: {"pixels": images})
    with pytest.raises(TypeError, match="state must hold images of the shape .*, found None"):
        pipeline.run(shades(), tmp_path / "out", TINY, network=NETWORK, method=no_images)
    with pytest.raises(TypeError, match="a method must have init and step, found function"):
        pipeline.run(shades(), tmp_path / "out", TINY, network=NETWORK, method=add_one)
    assert not (tmp_path / "out").exists()


def test_a_row_that_fails_leaves_a_finished_comparison_as_it_was(tmp_path):
    found = pipeline.compare(shades(), tmp_path, TINY, rows=["none"], **OWN)
    (tmp_path / "rows" / "none" / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="none/result.json does not hold a result"):
        pipeline.compare(shades(), tmp_path, TINY, rows=["oracle"], resume=True, **OWN)
    assert json.loads((tmp_path / "compare.json").read_text()) == found
    assert (tmp_path / "synthetic.png").exists()


def test_stopped_while_the_last_state_is_saved(tmp_path, monkeypatch):
    save = checkpoint.save

    def interrupted(*arguments):
        save(*arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(checkpoint, "save", interrupted)
    with pytest.raises(pipeline.Interrupted, match="step 6 of 6"):
        pipeline.run(shades(), tmp_path / "out", TINY, debias="none", **OWN)


def test_seconds_are_those_of_all_attempts(tmp_path):
    """Of what has been saved: each stage, and the steps up to the state that is gone on from."""
    asked = dataclasses.replace(TINY, save_every=0.0)

    def cut(task, done, total, **fields):
        if (task, done) == ("kde", 6):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(shades(), tmp_path, asked, report=cut, debias="kde", **OWN)
    before = json.loads((tmp_path / "seconds.json").read_text())
    assert min(before[stage] for stage in ("embed", "density", "distill")) > 0
    after = pipeline.run(shades(), tmp_path, asked, resume=True, debias="kde", **OWN)["seconds"]
    assert after["embed"] == before["embed"] and after["distill"] > before["distill"]
    (tmp_path / "result.json").unlink()
    (tmp_path / "seconds.json").write_text('{"embed": "long"}')
    again = pipeline.run(shades(), tmp_path, asked, resume=True, debias="kde", **OWN)["seconds"]
    assert "evaluate" in again and "embed" not in again


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: pipeline.run(shades(), folder, TINY, debias="none", resume=True, **OWN),
        lambda folder: pipeline.compare(shades(), folder, TINY, rows=["none"], resume=True, **OWN),
    ],
    ids=["run", "compare"],
)
def test_one_process_works_in_a_folder(tmp_path, make):
    found = make(tmp_path)
    # Of a run, which is not finished without it.
    aside = [path.rename(tmp_path / "aside") for path in tmp_path.glob("result.json")]
    with store.lock(tmp_path):
        with pytest.raises(BlockingIOError, match="another process is at work in"):
            make(tmp_path)
    for path in aside:
        path.rename(tmp_path / "result.json")
    assert make(tmp_path) == found


def test_a_finished_run_is_read_without_its_lock(tmp_path):
    """As in a folder that cannot be written to."""
    found = pipeline.run(shades(), tmp_path, TINY, debias="none", **OWN)
    with store.lock(tmp_path):
        again = pipeline.run(shades(), tmp_path, TINY, debias="none", resume=True, **OWN)
    assert again == found


def test_weights_do_not_depend_on_the_attributes(tmp_path):
    found = []
    for attributes in (True, False):
        folder = tmp_path / str(attributes)
        pipeline.run(shades(attributes=attributes), folder, TINY, debias="kde", **OWN)
        found.append(files.read_arrays(folder / "weights.npz")["weights"])
    np.testing.assert_array_equal(*found)


def test_without_attributes_the_oracle_row_and_the_diagnostics_are_skipped(tmp_path):
    data = shades(attributes=False)
    rows = pipeline.compare(data, tmp_path / "out", TINY, rows=ROWS, **OWN)["rows"]
    assert "oracle" not in rows and rows["kde"]["accuracy"]["mean"] >= 0
    found = rows["kde"]["weights"]
    assert found.pop("effective_sample_size") > 0 and set(found.values()) == {None}
    with pytest.raises(ValueError, match="oracle needs bias attributes, arrays has none"):
        pipeline.run(data, tmp_path / "other", TINY, debias="oracle", **OWN)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("debias", ["KDE", "", "group"])
def test_unknown_weights_are_refused_before_there_is_a_folder(tmp_path, debias):
    with pytest.raises(ValueError, match=f"debias must be one of none, kde, .*, found '{debias}'"):
        pipeline.run(shades(), tmp_path / "out", TINY, debias=debias, **OWN)
    assert not (tmp_path / "out").exists()


def test_weights_of_ones_own(tmp_path):
    """Of any scale; they draw, start, are kept and compared, and others are another run."""
    data = shades()
    mine = np.where(data.train.attributes == data.train.labels, 0, 7)
    mine[:2] = 7  # a class without weight is refused
    found = pipeline.run(data, tmp_path / "run", TINY, weights=mine, **OWN)
    kept = files.read_arrays(tmp_path / "run" / "weights.npz")["weights"]
    expected = sampling.reweight(datasets.pool(data), mine).weights
    np.testing.assert_array_equal(kept, expected)
    assert found["config"]["debias"] == "given"
    rows = pipeline.compare(data, tmp_path / "all", TINY, rows=["none"], weights=mine, **OWN)[
        "rows"
    ]
    assert list(rows) == ["random", "none", "given"]
    assert rows["given"]["accuracy"] == found["accuracy"]
    with pytest.raises(ValueError, match="another configuration: weights is .* there and"):
        pipeline.run(data, tmp_path / "run", TINY, weights=mine + 1, resume=True, **OWN)
    for wrong in (mine[1:], -mine, mine * np.nan, mine * (data.train.labels == 0)):
        with pytest.raises(ValueError, match="weights must be"):
            pipeline.run(data, tmp_path / "new", TINY, weights=wrong, **OWN)
    with pytest.raises(ValueError, match="there are weights, .* nothing to debias by oracle"):
        pipeline.run(data, tmp_path / "new", TINY, weights=mine, debias="oracle", **OWN)
    with pytest.raises(ValueError, match="given weights need weights, found none"):
        pipeline.run(data, tmp_path / "new", TINY, debias="given", **OWN)
    assert not (tmp_path / "new").exists()


def test_weights_estimated_from_each_batch(tmp_path, monkeypatch):
    """The sampler weighs by density in the trained encoder's space; resumed, it is made again."""
    seen = []
    weighed = sampling.density_weighted

    def spied(sampler, embed, **options):
        seen.append((embed(jnp.zeros((3, 8, 8, 1))).shape, options["temperature"]))
        return weighed(sampler, embed, **options)

    monkeypatch.setattr(sampling, "density_weighted", spied)
    asked = dataclasses.replace(TINY, weighting="batch", temperature=0.7, init="real")
    pipeline.run(shades(), tmp_path, asked, debias="kde", **OWN)
    assert seen == [((3, 128), 0.7)]


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, dict(factor=0.2, rule="mean_distance")),
        (dict(bandwidth=0.5), dict(factor=0.5, rule="mean_distance")),
        (dict(bandwidth_rule="median-distance"), dict(factor=0.2, rule="median_distance")),
        (dict(bandwidth_rule="scott"), dict(factor=1.0, rule="scott")),
        (dict(bandwidth_rule="silverman", bandwidth=2.0), dict(factor=2.0, rule="silverman")),
    ],
    ids=str,
)
def test_rules_of_the_bandwidth(change, expected):
    """Each rule is the one of its name, and its factor the option's, or its own."""
    from jaxdd import kde

    points = jax.random.normal(jax.random.key(0), (40, 5))
    asked = dataclasses.replace(TINY, **change)
    pool = types.SimpleNamespace(labels=jnp.zeros(40, int), num_classes=1)
    found = pipeline._bandwidth(asked, points, pool)(points)
    rule, key = getattr(kde, expected["rule"]), components.key(asked, "median")
    arguments = (key, points) if "median" in expected["rule"] else (points,)
    assert found == rule(*arguments, factor=expected["factor"])


def test_bandwidths_that_are_numbers():
    points = jnp.concatenate([jnp.zeros((20, 2)), jax.random.normal(jax.random.key(0), (20, 2))])
    pool = types.SimpleNamespace(labels=jnp.arange(40) // 20, num_classes=2)
    fixed = dataclasses.replace(TINY, bandwidth_rule="fixed", bandwidth=0.3)
    assert pipeline._bandwidth(fixed, points, pool) == 0.3
    likely = dataclasses.replace(TINY, bandwidth_rule="likelihood")
    narrow, wide = pipeline._bandwidth(likely, points, pool).tolist()
    assert narrow < 1e-4 and 0.1 < wide < 1


def test_the_encoder_and_the_clip_are_those_of_the_options(tmp_path):
    data = shades()
    asked = dataclasses.replace(TINY, clip=1.5, temperature=0.1, embedding="features")
    pipeline.run(data, tmp_path, asked, debias="kde", **OWN)
    stored = files.read_arrays(tmp_path / "weights.npz")
    relative = stored["weights"] * np.bincount(data.train.labels)[data.train.labels]
    assert relative.max() <= 1.5 * (1 + 1e-4) and relative.min() < 0.9
    pool = datasets.pool(data)
    by_hand = weights.by_density(
        components.key(asked, "encoder"), pool, strategy=(), steps=2, layer="features",
        encoder=weights.default_encoder(pool, width=4, depth=1), temperature=0.1, clip=1.5,
    )  # fmt: skip
    np.testing.assert_allclose(stored["log_density"], by_hand.log_density, rtol=1e-5)
    np.testing.assert_allclose(stored["weights"], by_hand.weights, rtol=1e-5)


def chosen(pool, objection):
    """What a choice looks like, with an objection or without."""
    trial = weights.Trial(0.9, 0.9, 0.8, 99)
    values = [dict(encoder_steps=2, bandwidth=0.2, temperature=1.0, evenness=0.5)]
    weighed = (
        None
        if objection
        else weights.DensityWeights(
            pool.weights, pool.weights, jnp.ones(2), {}, jnp.ones((len(pool.labels), 3))
        )
    )
    trials = {"uniform": trial, "best": trial}
    return weights.Choice(pool.weights, weighed, values, 0, trials, objection)


@pytest.mark.parametrize("objection", [None, "they gain too little"])
def test_chosen_weights_and_why_are_kept(tmp_path, monkeypatch, objection):
    """The search is multiples of the options; the record is in the result and read back."""
    calls = []

    def choose(key, pool, **options):
        calls.append(options["search"][:3])
        return chosen(pool, objection)

    monkeypatch.setattr(weights, "choose", choose)
    asked = dataclasses.replace(TINY, encoder_steps=4, bandwidth=0.4, temperature=2.0)
    result = pipeline.run(shades(), tmp_path, asked, debias="auto", **OWN)
    assert result["choice"]["rejection"] == objection
    assert result["choice"]["uniform"] is (objection is not None)
    assert result["seconds"]["choose"] > 0
    assert calls == [((4, 12), (0.2, 0.4, 0.8, 1.6), (1.0, 1.4, 2.0, 2.8, 4.0))]
    (tmp_path / "result.json").unlink()
    resumed = dict(debias="auto", resume=True, **OWN)
    again = pipeline.run(shades(), tmp_path, asked, **resumed)
    assert again["choice"] == result["choice"] and len(calls) == 1
    record = tmp_path / "choice.json"
    assert results.read_choice(record) == result["choice"]
    changed = record.read_text().replace("0.5", "0.6")
    for damage in ("", "[1]", "{}", "null", changed):
        (tmp_path / "result.json").unlink(missing_ok=True)
        record.write_text(damage)
        with pytest.raises(ValueError, match="choice.json does not hold.*delete it and resume"):
            pipeline.run(shades(), tmp_path, asked, **resumed)
    record.unlink()
    assert pipeline.run(shades(), tmp_path, asked, **resumed)["choice"] == result["choice"]
    assert len(calls) == 2


def test_the_view_that_was_chosen_is_in_the_record(tmp_path, monkeypatch):
    told = {"tone": probes.Shortcut((0, 1), 0.1, 0.2, 5.0)}

    def choose(key, pool, **_):
        return weights.Choice(pool.weights, None, [], 0, {}, None, told, {"tone": None})

    monkeypatch.setattr(weights, "choose", choose)
    choice = pipeline.run(shades(), tmp_path, TINY, debias="auto", **OWN)["choice"]
    assert choice["features"] == "tone" and choice["uniform"] is False
    assert choice["shortcuts"]["tone"] == told["tone"]._asdict() | {"blocks": [0, 1]}
    assert results.read_choice(tmp_path / "choice.json") == choice
    assert set(files.read_arrays(tmp_path / "weights.npz")) == {"weights"}


def test_weights_by_a_named_view_are_kept_for_their_row(tmp_path, monkeypatch):
    """Those of `by_view` with the options' clip, in a folder of their own, made once."""
    found = pipeline.compare(shades(), tmp_path, TINY, rows=("none", "tone"), **OWN)["rows"]
    kept = files.read_arrays(tmp_path / "tone" / "weights.npz")["weights"]
    pool, key = datasets.pool(shades()), components.key(TINY, "encoder")
    np.testing.assert_allclose(
        kept, weights.by_features(key, pool, blind_features.tone).weights, rtol=1e-4
    )
    assert found["tone"]["weights"] != found["none"]["weights"] and "choice" not in found["tone"]
    monkeypatch.setattr(weights, "by_features", None)
    (tmp_path / "rows" / "tone" / "result.json").unlink()
    again = pipeline.compare(shades(), tmp_path, TINY, rows=("tone",), resume=True, **OWN)["rows"]
    assert again["tone"]["accuracy"] == found["tone"]["accuracy"]


def test_images_too_few_or_small_for_a_view_are_refused_before_other_rows(tmp_path):
    small = datasets.from_arrays(np.zeros((12, 3, 5, 1), np.uint8), np.arange(12) % 2)
    few = shades()
    few = few._replace(train=jax.tree.map(lambda array: array[[0, -1]], few.train))
    for data, found in ((small, r"of 3×5"), (few, "2 of 8×8")):
        with pytest.raises(ValueError, match=f"border needs at least 3 images.*found .*{found}"):
            pipeline.compare(data, tmp_path / "out", TINY, rows=("none", "border"))
    assert not (tmp_path / "out").exists()


def test_a_comparison_keeps_the_choice_of_its_row(tmp_path, monkeypatch):
    """In a folder of its own, beside the weights with the options' own values."""
    monkeypatch.setattr(weights, "choose", lambda key, pool, **_: chosen(pool, None))
    found = pipeline.compare(shades(), tmp_path, TINY, rows=("kde", "auto"), **OWN)["rows"]
    assert found["auto"]["choice"]["uniform"] is False and "choice" not in found["kde"]
    assert found["auto"]["weights"] != found["kde"]["weights"]
    kept = [files.read_arrays(tmp_path / path / "weights.npz")["weights"] for path in ("", "auto")]
    assert (kept[0] != kept[1]).any()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(bandwidth_rule="scott"), "auto chooses the factor of a bandwidth_rule .*found scott"),
        (dict(weighting="batch"), "auto chooses weights of the whole set, found weighting batch"),
    ],
)
def test_options_that_leave_nothing_to_choose(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        asked = dataclasses.replace(TINY, **change)
        pipeline.run(shades(), tmp_path / "out", asked, debias="auto", **OWN)
    assert not (tmp_path / "out").exists()


MTT = options.MTT(
    ipc=2, batch_size=8, epochs=2, chunk=2, steps=2, eval_seeds=2,
    syn_steps=2, num_experts=2, train_epochs=2, expert_updates=2, expert_epochs=1,
    max_start_epoch=1,
)  # fmt: skip


def test_trajectory_matching_keeps_its_experts_for_other_runs(tmp_path):
    """The second run, of another IPC, reads them; one of another rate refuses them."""
    asked = dataclasses.replace(MTT, buffer_path=str(tmp_path / "buffer"))
    own = dict(debias="none", network=NETWORK)
    pipeline.run(shades(), tmp_path / "a", asked, **own)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "buffer" / "none").glob("*")}
    assert len(written) == 3
    other = dataclasses.replace(asked, ipc=1)
    result = pipeline.run(shades(), tmp_path / "b", other, **own)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert {"experts", "distill"} <= set(result["seconds"])
    manifest = tmp_path / "buffer" / "none" / "manifest.json"
    kept = files.read_json(manifest)
    old = {"expert_epochs": kept["train_epochs"], "expert_rate": kept["lr_teacher"]}
    now = ("train_epochs", "lr_teacher", "augmentation")
    files.write_json(manifest, {n: v for n, v in kept.items() if n not in now} | old)
    with pytest.raises(ValueError, match="augmentation is .*'flip'.* there and"):
        pipeline.run(shades(), tmp_path / "e", asked, **own)  # it had all six
    files.write_json(manifest, kept)
    with pytest.raises(ValueError, match="experts of something else: lr_teacher is 0.01 there"):
        changed = dataclasses.replace(asked, lr_teacher=0.02)
        pipeline.run(shades(), tmp_path / "c", changed, **own)
    with pytest.raises(ValueError, match="fairdd needs a loss of groups: dm, dc or dsa, found mtt"):
        pipeline.run(shades(), tmp_path / "d", other, debias="fairdd")
    assert not (tmp_path / "d").exists()


def test_weights_enter_curriculum_matching_where_they_are_asked_to(tmp_path, monkeypatch):
    """The oracle's in Φ alone, of a teacher whose parameters are all zero."""
    seen = {}

    def fill(key, folder, manifest, network, pools, **given):
        seen.update(pools, folder=folder, told=manifest)
        shapes = jax.eval_shape(network.init, key, jnp.zeros((1, 8, 8, 1)))
        params = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
        moments = spectral.Statistics(*map(jnp.ones, ((), 1, (1, 1), 2, (2, 1))))
        return cfm.Guide(params, (moments,), -jnp.ones(1), jnp.ones(1))

    monkeypatch.setattr(guides, "fill", fill)
    asked = options.CFM(
        ipc=2, batch_size=4, width=2, depth=1, epochs=1, chunk=2, steps=4, eval_seeds=1,
        weighted=("signal",), buffer_path=str(tmp_path / "buffer"),
    )  # fmt: skip
    result = pipeline.run(shades(), tmp_path / "a", asked, debias="oracle", network=NETWORK)
    assert result["config"]["weighted"] == ["signal"] and "experts" in result["seconds"]
    assert seen["teacher"] is seen["covariance"] and seen["folder"] == tmp_path / "buffer/oracle"
    found, flat = (np.asarray(seen[part].weights) for part in ("signal", "teacher"))
    assert len(set(flat[flat > flat.min()])) <= 1 and np.ptp(found) > np.ptp(flat)
    told = seen["told"]["weights"]
    assert told["teacher"] == told["covariance"] != told["signal"]
    steps = store.progress(tmp_path / "a")
    assert [row["step"] for row in steps] == [2, 4] and steps[0]["beta"] > steps[1]["beta"]
    images = store.read_synthetic(tmp_path / "a" / "synthetic.npz").images
    assert np.abs(images).max() <= 1
    with pytest.raises(ValueError, match="fairdd needs a loss of groups: dm, dc or dsa, found cfm"):
        pipeline.run(shades(), tmp_path / "c", asked, debias="fairdd")


def test_gradient_matching_runs(tmp_path):
    asked = options.DC(
        ipc=1, batch_size=1, candidates=16, formation=3, steps=2, outer=2, inner=1, epochs=1,
        eval_seeds=1, chunk=2,
    )  # fmt: skip
    result = pipeline.run(shades(), tmp_path / "out", asked, debias="oracle", network=NETWORK)
    assert 0 <= result["accuracy"]["mean"] <= 1
    assert store.read_synthetic(tmp_path / "out" / "synthetic.npz").images.shape == (2, 1, 8, 8, 1)


def test_the_row_over_groups(tmp_path):
    asked = dataclasses.replace(TINY, steps=2)
    own = dict(rows=("fairdd",), network=NETWORK)
    rows = pipeline.compare(shades(), tmp_path / "out", asked, **own)["rows"]
    assert list(rows) == ["random", "fairdd"]
    assert rows["fairdd"]["weights"]["group_evenness"] == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="unknown row 'magic'; known are random, random-kde, none"):
        pipeline.compare(shades(), tmp_path / "new", asked, rows=("magic",))
    with pytest.raises(ValueError, match="fairdd needs a loss of groups: .*found .*:add_one"):
        pipeline.compare(shades(), tmp_path / "new", asked, rows=("fairdd",), **OWN)
    assert not (tmp_path / "new").exists()


def test_no_steps_give_the_real_images(tmp_path):
    asked = dataclasses.replace(TINY, steps=0, ipc=40)
    pipeline.run(shades(), tmp_path, asked, debias="none", **OWN)
    images = store.read_synthetic(tmp_path / "synthetic.npz").images
    expected = components.subset(datasets.pool(shades()), asked, weighted=False)
    np.testing.assert_array_equal(images, expected)


def test_the_augmentation_is_part_of_the_run(tmp_path):
    """It is in the record, and a finished run is not taken for one with another."""
    result = pipeline.run(shades(), tmp_path, TINY, debias="none", **OWN)
    assert result["config"]["augmentation"] == []
    with pytest.raises(ValueError, match=r"augmentation is \[\] there and \['crop'\] here"):
        data = shades(strategy=("crop",))
        pipeline.run(data, tmp_path, TINY, debias="none", resume=True, **OWN)
    with pytest.raises(ValueError, match="augmentation is .*here; strategy is None there"):
        asked = dataclasses.replace(TINY, strategy=("crop",))
        pipeline.run(shades(), tmp_path, asked, debias="none", resume=True, **OWN)


def before(folder, **changed):
    """Makes the folder look like one of the version before, which had all six operations."""
    config = files.read_json(folder / "config.json")
    for name in ("augmentation", "strategy", "network", "zca"):
        config.pop(name)
    old = dict(outer=None, inner=None, experts=None, expert_rate=0.01, span=None, latest=None)
    old |= dict(expert_epochs=None, expert_updates=None, buffer=None)
    files.write_json(folder / "config.json", config | old | changed)


def test_a_folder_of_the_version_before_is_read(tmp_path):
    """With the augmentation that it had, which for images of one's own included flips."""
    mixed = ("color", "crop", "cutout", "flip", "scale", "rotate")
    result = pipeline.run(shades(strategy=mixed), tmp_path, TINY, debias="none", **OWN)
    before(
        tmp_path, network="jaxdd.networks.protocol:Functions()", own_method=f"{__name__}:add_one"
    )
    again = pipeline.run(shades(strategy=mixed), tmp_path, TINY, debias="none", resume=True, **OWN)
    assert again == result
    with pytest.raises(ValueError, match="augmentation is .*'flip'.* there and"):
        pipeline.run(shades(), tmp_path, TINY, debias="none", resume=True, **OWN)
    said = dataclasses.replace(TINY, strategy=mixed)  # as the command line can
    again = pipeline.run(shades(), tmp_path, said, debias="none", resume=True, **OWN)
    assert again == result


def test_diagnoses_are_those_of_the_weights():
    data = shades()
    pool = datasets.pool(data)
    found = pipeline._diagnosis(data, pool, pool.weights)
    expected = formulas.diagnose(
        pool.weights, pool.labels, jnp.asarray(data.train.attributes), jnp.asarray(data.aligned),
        num_classes=2, num_attributes=2,
    )  # fmt: skip
    assert found == pytest.approx(files.to_json(expected._asdict()))
