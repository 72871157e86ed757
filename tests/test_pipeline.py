import dataclasses
import json
import signal

import numpy as np
import pytest

from jaxdd import distill
from jaxdd.data import datasets
from jaxdd.runs import checkpoint, jobs, pipeline, store, weighing

TINY = jobs.Options(
    ipc=2,
    steps=6,
    batch_size=8,
    width=4,
    depth=2,
    epochs=2,
    eval_seeds=2,
    chunk=2,
    encoder_steps=2,
    encoder_width=4,
)
GROUPS = ("accuracy", "aligned", "conflicting", "worst_group")


def shades(attributes=True, counts=(12, 30)):
    """Two classes of 8×8 grey images, dark and bright; an attribute marks the corner."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], counts)
    marks = np.where(rng.random(len(labels)) < 0.2, 1 - labels, labels)
    images = rng.integers(0, 100, (len(labels), 8, 8)) + 100 * labels[:, None, None]
    images[:, :2, :2] = 255 * marks[:, None, None]
    return datasets.from_arrays(images.astype(np.uint8), labels, marks if attributes else None)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "out"
    reports = []
    job = jobs.prepare(shades(), TINY, lambda *task, **fields: reports.append(task))
    return folder, pipeline.compare(job, folder, resume=False), reports


def test_compare_writes_every_row_with_every_field(compared):
    folder, found, _ = compared
    assert tuple(found["rows"]) == pipeline.ROWS
    assert json.loads((folder / "compare.json").read_text())["rows"].keys() == found["rows"].keys()
    for row in found["rows"].values():
        for group in GROUPS:
            assert row[group]["n"] == 2 and row["random"][group]["n"] == 2
        assert set(row["weights"]) == {
            "conflict_auc",
            "conflict_mass",
            "group_balance",
            "effective_sample_size",
        }
        assert {"data", "seed", "device", "versions", "config"} - {"data"} <= set(row)
        assert {"embed", "density", "compile", "evaluate"} <= set(row["seconds"])


def test_compare_writes_the_figures(compared):
    folder, *_ = compared
    for name in ("accuracy", "synthetic", "weights", "embedding"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_distilled_rows_moved_away_from_their_initial_subset(compared):
    """none starts from the images of random, and kde from those of random-kde."""
    folder, *_ = compared
    images = {
        name: store.read_synthetic(folder / "rows" / name / "synthetic.npz").images
        for name in pipeline.ROWS
    }
    for start, end in (("random", "none"), ("random-kde", "kde")):
        moved = np.abs(images[start] - images[end]).max()
        assert 0 < moved < 5
    assert (images["kde"] != images["none"]).any()


def test_compare_reports_progress(compared):
    *_, reports = compared
    assert ("kde", 6, 6) in reports and ("kde", 2, 6) in reports


def test_a_finished_comparison_is_read_back(compared):
    folder, found, _ = compared
    job = jobs.prepare(shades(), TINY)
    job = job._replace(score=None, method=None)  # nothing is computed any more
    assert pipeline.compare(job, folder, resume=True)["rows"] == found["rows"]


def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """Stopped in the second of three chunks, as by a power cut just after the checkpoint."""
    options = dataclasses.replace(TINY, save_every=0.0)
    benchmark = shades()
    pipeline.run(jobs.prepare(benchmark, options), tmp_path / "a", debias="kde", resume=False)

    class PowerCut(Exception):
        pass

    def cut(task, done, total, **fields):
        if task == "kde" and done == 4:
            raise PowerCut

    with pytest.raises(PowerCut):
        pipeline.run(
            jobs.prepare(benchmark, options, cut), tmp_path / "b", debias="kde", resume=False
        )
    assert not (tmp_path / "b" / "result.json").exists()
    steps = []
    original = distill.run

    def spied(*arguments, **options):
        steps.append(options["first"])
        return original(*arguments, **options)

    monkeypatch.setattr(distill, "run", spied)
    pipeline.run(jobs.prepare(benchmark, options), tmp_path / "b", debias="kde", resume=True)
    one, other = (store.read_synthetic(tmp_path / x / "synthetic.npz") for x in "ab")
    np.testing.assert_array_equal(one.images, other.images)
    assert steps == [2]
    assert [record["step"] for record in store.progress(tmp_path / "b")] == [2, 4, 6]


def test_other_rows_of_a_finished_comparison_are_kept(tmp_path):
    job = jobs.prepare(shades(), dataclasses.replace(TINY, network="mlp"))
    pipeline.compare(job, tmp_path / "out", resume=False, names=["none"])
    found = pipeline.compare(job, tmp_path / "out", resume=True, names=["oracle"])["rows"]
    assert list(found) == ["random", "none", "oracle"]


def test_stopped_while_the_last_state_is_saved(tmp_path, monkeypatch):
    job = jobs.prepare(shades(), dataclasses.replace(TINY, network="mlp"))
    save = checkpoint.save

    def interrupted(*arguments):
        save(*arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(checkpoint, "save", interrupted)
    with pytest.raises(pipeline.Interrupted, match="step 6 of 6"):
        pipeline.run(job, tmp_path / "out", debias="none", resume=False)


def test_seconds_are_those_of_all_attempts(tmp_path):
    """Of what has been saved: each stage, and the steps up to the state that is gone on from."""
    options = dataclasses.replace(TINY, save_every=0.0)

    def cut(task, done, total, **fields):
        if (task, done) == ("kde", 6):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(jobs.prepare(shades(), options, cut), tmp_path, debias="kde", resume=False)
    before = json.loads((tmp_path / "seconds.json").read_text())
    assert min(before[stage] for stage in ("embed", "density", "distill")) > 0
    after = pipeline.run(jobs.prepare(shades(), options), tmp_path, debias="kde", resume=True)[
        "seconds"
    ]
    assert after["embed"] == before["embed"] and after["distill"] > before["distill"]
    (tmp_path / "result.json").unlink()
    (tmp_path / "seconds.json").write_text('{"embed": "long"}')
    with pytest.raises(ValueError, match="seconds.json does not hold seconds by stage"):
        pipeline.run(jobs.prepare(shades(), options), tmp_path, debias="kde", resume=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda job, folder: pipeline.run(job, folder, debias="none", resume=True),
        lambda job, folder: pipeline.compare(job, folder, resume=True, names=["none"]),
    ],
    ids=["run", "compare"],
)
def test_one_process_works_in_a_folder(tmp_path, make):
    job = jobs.prepare(shades(), dataclasses.replace(TINY, network="mlp"))
    found = make(job, tmp_path)
    # Of a run, which is not finished without it.
    aside = [path.rename(tmp_path / "aside") for path in tmp_path.glob("result.json")]
    with store.alone(tmp_path):
        with pytest.raises(BlockingIOError, match="another process is at work in"):
            make(job, tmp_path)
    for path in aside:
        path.rename(tmp_path / "result.json")
    assert make(job, tmp_path) == found


def test_a_finished_run_is_read_without_its_lock(tmp_path):
    """As in a folder that cannot be written to."""
    job = jobs.prepare(shades(), dataclasses.replace(TINY, network="mlp"))
    found = pipeline.run(job, tmp_path, debias="none", resume=False)
    with store.alone(tmp_path):
        assert pipeline.run(job, tmp_path, debias="none", resume=True) == found


def test_weights_do_not_depend_on_the_attributes():
    with_attributes = weighing.weigh(jobs.prepare(shades(), TINY)).weights
    without = weighing.weigh(jobs.prepare(shades(attributes=False), TINY)).weights
    np.testing.assert_array_equal(with_attributes, without)


def test_without_attributes_the_oracle_row_and_the_diagnostics_are_skipped(tmp_path):
    job = jobs.prepare(shades(attributes=False), dataclasses.replace(TINY, network="mlp"))
    rows = pipeline.compare(job, tmp_path / "out", resume=False)["rows"]
    assert "oracle" not in rows and rows["kde"]["accuracy"]["mean"] >= 0
    weights = rows["kde"]["weights"]
    assert weights.pop("effective_sample_size") > 0 and set(weights.values()) == {None}
    with pytest.raises(ValueError, match="oracle needs bias attributes, arrays has none"):
        pipeline.run(job, tmp_path / "other", debias="oracle", resume=False)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "change",
    [
        dict(weighting="mean", init="noise", bandwidth_rule="scott"),
        dict(weighting="batch", init="real", bandwidth_rule="median-distance"),
        dict(bandwidth_rule="likelihood", embedding="features", clip=2.0),
        dict(bandwidth_rule="fixed", bandwidth=0.3, dtype="bfloat16", network="convnet"),
        dict(steps=0, ipc=40),
        dict(ipc=1, batch_size=1, candidates=16, formation=3),
        dict(method="dc", outer=2, inner=1, network="convnet"),
    ],
    ids=str,
)
def test_every_option_runs(tmp_path, change):
    options = dataclasses.replace(TINY, **{"steps": 2, "eval_seeds": 1, "network": "mlp", **change})
    job = jobs.prepare(shades(), options)
    result = pipeline.run(job, tmp_path / "out", debias="kde", resume=False)
    assert 0 <= result["accuracy"]["mean"] <= 1
    images = store.read_synthetic(tmp_path / "out" / "synthetic.npz").images
    assert images.shape == (2, options.ipc, 8, 8, 1)


MTT = dataclasses.replace(
    TINY,
    method="mtt",
    network="mlp",
    steps=2,
    eval_seeds=1,
    inner=2,
    experts=2,
    expert_epochs=2,
    expert_updates=2,
    span=1,
    latest=1,
)


def test_trajectory_matching_keeps_its_experts_for_other_runs(tmp_path):
    """The second run, of another IPC, reads them; one of another rate refuses them."""
    options = dataclasses.replace(MTT, buffer=str(tmp_path / "buffer"))
    pipeline.run(jobs.prepare(shades(), options), tmp_path / "a", debias="none", resume=False)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "buffer" / "none").glob("*")}
    assert len(written) == 3
    other = jobs.prepare(shades(), dataclasses.replace(options, ipc=1))
    result = pipeline.run(other, tmp_path / "b", debias="none", resume=False)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert {"experts", "distill"} <= set(result["seconds"])
    with pytest.raises(ValueError, match="experts of something else: expert_rate is 0.01 there"):
        changed = dataclasses.replace(options, expert_rate=0.02)
        pipeline.run(jobs.prepare(shades(), changed), tmp_path / "c", debias="none", resume=False)
    with pytest.raises(ValueError, match="fairdd needs a loss of groups: dm, dc or dsa, found mtt"):
        pipeline.run(other, tmp_path / "d", debias="fairdd", resume=False)
    assert not (tmp_path / "d").exists()


def test_the_row_over_groups(tmp_path):
    job = jobs.prepare(shades(), dataclasses.replace(TINY, network="mlp", steps=2, eval_seeds=1))
    rows = pipeline.compare(job, tmp_path / "out", resume=False, names=("fairdd",))["rows"]
    assert list(rows) == ["random", "fairdd"]
    assert rows["fairdd"]["weights"]["group_balance"] == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="unknown row 'magic'; known are random, random-kde, none"):
        pipeline.compare(job, tmp_path / "new", resume=False, names=("magic",))


def test_the_clip_bounds_the_weights():
    options = dataclasses.replace(TINY, clip=1.5, temperature=0.1)
    job = jobs.prepare(shades(), options)
    weights, labels = weighing.weigh(job).weights, job.benchmark.train.labels
    relative = weights * np.bincount(labels)[labels]
    assert relative.max() <= 1.5 * (1 + 1e-4) and relative.min() < 0.9


def test_presets_and_learning_rates():
    quick, paper = (jobs.Options(preset=p).resolved() for p in ("quick", "paper"))
    assert (quick.steps, quick.width) == (200, 32) and (paper.steps, paper.width) == (20000, 128)
    assert jobs.Options(ipc=100).resolved().learning_rate == 10
    assert jobs.Options(ipc=100, learning_rate=2.0).resolved().learning_rate == 2


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(ipc=0), "ipc must be at least 1 .*found 0"),
        (dict(steps=-1), "steps must be at least 0 .*found -1"),
        (dict(batch_size=0), "batch_size must be at least 1"),
        (dict(eval_seeds=0), "eval_seeds must be at least 1"),
        (dict(temperature=0.0), "temperature must be positive and finite, found 0.0"),
        (dict(temperature=float("nan")), "temperature must be positive and finite, found nan"),
        (dict(bandwidth=-1.0), "bandwidth must be positive and finite, found -1.0"),
        (dict(bandwidth=float("inf")), "bandwidth must be positive and finite, found inf"),
        (dict(learning_rate=-1.0), "learning_rate must be positive"),
        (dict(clip=0.5), "clip must be at least 1, found 0.5"),
        (dict(temperature=1e-300), "temperature must be positive and finite, found 1e-300"),
        (dict(bandwidth=1e300), "bandwidth must be positive and finite, found 1e[+]300"),
        (dict(save_every=-1.0), "save_every must be at least 0 and finite, found -1.0"),
        (dict(batch_size=2**31), "batch_size must be at least 1 and fit 32 bits, found 2147483648"),
        (dict(seed=-1), "seed must be at least 0 .*found -1"),
        (dict(candidates=4), "candidates must be at least 8 .*found 4"),
        (dict(formation=0), "formation must be at least 1"),
        (dict(method="dc", inner=0), "inner must be at least 1"),
        (dict(method="mtt", experts=0), "experts must be at least 1"),
        (dict(method="mtt", expert_rate=0.0), "expert_rate must be positive"),
        (dict(method="mtt", latest=9), r"beyond the 10 expert_epochs, found 9 \+ 2"),
        (dict(bandwidth_rule="fixed"), "the fixed bandwidth rule needs a bandwidth"),
    ],
    ids=str,
)
def test_bad_options(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change).resolved()
