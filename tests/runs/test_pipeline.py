"""Runs and comparisons: their folders, interruptions, repairs and errors."""

import contextlib
import dataclasses
import json
import shutil
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import evaluate, methods, sampling, weights
from jaxdd.data import datasets, files
from jaxdd.methods import zca
from jaxdd.runs import components, options, pipeline, results
from jaxdd.runs.folder import checkpoint, manifest, store
from jaxdd.runs.reports import plot

ROWS = ("random", "random-density", "plain", "density", "oracle")
SCORES = ("accuracy", "aligned", "conflicting", "worst_group")


def images_of(folder):
    """Return the images of the run in a folder, or of all rows of a comparison."""
    if (folder / "synthetic.npz").exists():
        return store.read_synthetic(folder / "synthetic.npz").images
    return {path.name: images_of(path) for path in sorted((folder / "rows").iterdir())}


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def compared(fake, tmp_path_factory):
    folder, calls = tmp_path_factory.mktemp("compare") / "out", []
    report = lambda *task, **fields: calls.append(task)
    fields = dict(rows=ROWS, report=report, spent={"data": 3.0})
    table = pipeline.compare(fake.shades(), folder, fake.TINY, **fields, **fake.OWN)
    return folder, table, calls


@pytest.fixture
def copy(fake, compared, tmp_path):
    """Return a copy of the finished comparison and a function that resumes it."""
    folder = shutil.copytree(compared[0], tmp_path / "out")
    resume = lambda *rows: pipeline.compare(
        fake.shades(), folder, fake.TINY, rows=rows, resume=True, **fake.OWN
    )
    return folder, resume


# --- results and folders -----------------------------------------------------------------------


def test_a_comparison_holds_every_row_with_every_field(fake, compared):
    folder, table, calls = compared
    assert tuple(table) == ROWS and ("density", 6, 6) in calls
    rows = json.loads((folder / "compare.json").read_text())["rows"]
    assert rows == {name: row.to_dict() for name, row in table.items()}
    for row in table.values():
        assert all(getattr(row, name).n == getattr(row.random, name).n == 2 for name in SCORES)
        assert {*row.weights} == {
            "conflict_auc", "conflict_weight_share", "group_evenness", "effective_sample_size",
        }  # fmt: skip
        assert row.seconds["data"] == 3.0 and {"compile", "evaluate"} <= row.seconds.keys()
        assert row.device and row.versions["jax"] and row.date and row.seed == 0
        assert row.config["network"] == "jaxdd.networks.protocol:Functions()"
        assert row.config["own_method"] == f"{fake.add_one.__module__}:add_one"
    for name in ("density", "random-density"):
        assert {"embed", "density"} <= table[name].seconds.keys()
    for name in ("accuracy.png", "synthetic.png", "weights/density/embedding.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"


def test_distilled_rows_start_from_their_subsets(compared):
    """Six steps add six to the images of the random rows with the same weights."""
    images = images_of(compared[0])
    np.testing.assert_allclose(images["plain"], images["random"] + 6, atol=1e-5)
    np.testing.assert_allclose(images["density"], images["random-density"] + 6, atol=1e-5)
    assert (images["density"] != images["plain"]).any()


def test_a_run_equals_its_components_put_together_by_hand(fake, tmp_path):
    chosen = dataclasses.replace(fake.TINY, network="mlp", steps=2, strategy=("crop",))
    data = fake.shades()
    result = pipeline.run(data, tmp_path / "out", chosen, debias="oracle")
    parts, pool = components.build(data, chosen), datasets.pool(data)
    pool = sampling.reweight(pool, weights.oracle(pool, data.train.attributes, num_attributes=2))
    state = parts.method.init(components.subset(pool, chosen, weighted=True))
    key, fields = components.key(chosen, "distill"), dict(steps=2, chunk_length=2)
    fields |= dict(method=parts.method, sampler=parts.sampler)
    *_, (_, state, _) = methods.run(key, state, pool, **fields)
    np.testing.assert_array_equal(images_of(tmp_path / "out"), state.images)
    summary = evaluate.summary(parts.score(state.images))
    assert result.accuracy.mean == summary["accuracy"]["mean"]
    assert result.config["augmentation"] == ["crop"]
    assert result.weights["group_evenness"] == pytest.approx(1, abs=1e-4)
    assert manifest.is_sealed(tmp_path / "out") and manifest.check(tmp_path / "out")


def test_no_steps_give_the_real_images(fake, tmp_path):
    chosen = dataclasses.replace(fake.TINY, steps=0, ipc=40)
    pipeline.run(fake.shades(), tmp_path, chosen, debias="plain", **fake.OWN)
    expected = components.subset(datasets.pool(fake.shades()), chosen, weighted=False)
    np.testing.assert_array_equal(images_of(tmp_path), expected)


def test_gradient_matching_with_formation_and_representatives(fake, tmp_path):
    chosen = options.DC(
        ipc=1, batch_size=1, candidates=16, formation=3, steps=2, outer=2, inner=1, epochs=1,
        eval_seeds=1, chunk=2,
    )  # fmt: skip
    fields = dict(debias="oracle", network=fake.NETWORK)
    result = pipeline.run(fake.shades(), tmp_path / "out", chosen, **fields)
    assert 0 <= result.accuracy.mean <= 1 and images_of(tmp_path / "out").shape == (2, 1, 8, 8, 1)


def test_devices_that_share_the_images_make_the_same_rows(fake, tmp_path, mesh):
    """The number of samples is not a multiple of the four devices."""
    chosen = dataclasses.replace(fake.TINY, steps=2)
    fields = dict(rows=("random-density", "density", "fairdd"), network=fake.NETWORK)
    pipeline.compare(fake.shades(), tmp_path / "a", chosen, **fields)
    pipeline.compare(fake.shades(), tmp_path / "b", chosen, mesh=mesh, split_from=0, **fields)
    a, b = (images_of(tmp_path / side) for side in "ab")
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), a, b)
    a, b = (np.load(tmp_path / x / "weights/density/weights.npz")["weights"] for x in "ab")
    np.testing.assert_allclose(a, b, rtol=1e-3)


# --- settings of JAX ---------------------------------------------------------------------------


@contextlib.contextmanager
def jax_settings(**values):
    """Set flags of JAX for all threads, as environment variables do."""
    before = {name: getattr(jax.config, name) for name in values}
    try:
        for name, value in values.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


GROUPS = {
    "numbers": dict(
        jax_enable_x64=True, jax_softmax_custom_jvp=True, jax_numpy_dtype_promotion="strict",
        jax_numpy_rank_promotion="raise",
    ),
    "random numbers": dict(
        jax_threefry_partitionable=False, jax_default_prng_impl="rbg", jax_random_seed_offset=3,
        jax_legacy_prng_key="error",
    ),
    "checks": dict(
        jax_debug_nans=True, jax_debug_infs=True, jax_debug_key_reuse=True,
        jax_enable_checks=True, jax_check_tracer_leaks=True,
    ),
    "execution": dict(jax_disable_jit=True, jax_transfer_guard="disallow"),
}  # fmt: skip
SETTINGS = {name: value for group in GROUPS.values() for name, value in group.items()}


@pytest.fixture(scope="module")
def by_default(fake, tmp_path_factory):
    folder = tmp_path_factory.mktemp("default") / "out"
    pipeline.run(fake.shades(), folder, fake.TINY, debias="density", **fake.OWN)
    return manifest.read(folder)["root"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_seed_has_one_result_under_all_settings(fake, by_default, tmp_path, group):
    """The root covers weights, set, scores and configuration."""
    data, settings = fake.shades(), GROUPS[group]
    with jax_settings(**settings):
        pipeline.run(data, tmp_path, fake.TINY, debias="density", **fake.OWN)
        assert {name: getattr(jax.config, name) for name in settings} == settings
    assert manifest.read(tmp_path)["root"] == by_default


@pytest.mark.usefixtures("two_cores")
def test_rows_in_threads_have_one_result_under_all_settings(fake, tmp_path):
    data, fields = fake.shades(), dict(rows=["density", "oracle"], network=fake.NETWORK)
    pipeline.compare(data, tmp_path / "a", fake.TINY, **fields)
    with jax_settings(**SETTINGS):
        pipeline.compare(data, tmp_path / "b", fake.TINY, **fields)
    roots = [
        {path.name: manifest.read(path)["root"] for path in (tmp_path / side / "rows").iterdir()}
        for side in "ab"
    ]
    assert roots[0] == roots[1]


@pytest.mark.parametrize(
    "settings, flags",
    [
        (dict(jax_default_matmul_precision="highest"), None),
        (dict(jax_high_dynamic_range_gumbel=True), None),
        ({}, "--xla_cpu_enable_fast_math=true"),
    ],
    ids=["precision", "gumbel", "fast math"],
)
def test_other_arithmetic_is_recorded_and_not_resumed(fake, tmp_path, monkeypatch, settings, flags):
    fields = dict(debias="plain", **fake.OWN)
    with jax_settings(**settings), monkeypatch.context() as patch:
        if flags is not None:
            patch.setenv("XLA_FLAGS", flags)
        pipeline.run(fake.shades(), tmp_path, fake.TINY, **fields)
        pipeline.run(fake.shades(), tmp_path, fake.TINY, resume=True, **fields)
    value = str(*settings.values()) or flags
    with pytest.raises(ValueError, match=f"'{value}'"):
        pipeline.run(fake.shades(), tmp_path, fake.TINY, resume=True, **fields)


def test_a_precision_set_around_a_comparison_holds_in_its_rows(fake, tmp_path):
    with jax.default_matmul_precision("highest"):
        table = pipeline.compare(fake.shades(), tmp_path, fake.TINY, rows=["plain"], **fake.OWN)
    assert table["plain"].config["settings"]["default_matmul_precision"] == "highest"


def test_options_that_change_no_number_are_not_compared(fake, tmp_path):
    """Also not after an interruption, and the folder is that of an uninterrupted run."""
    fields, data = dict(debias="density", **fake.OWN), fake.shades()
    pipeline.run(data, tmp_path / "a", fake.TINY, **fields)
    slow = dataclasses.replace(fake.TINY, chunk=3, save_every=0.0)
    with pytest.raises(PowerCut):
        pipeline.run(data, tmp_path / "b", slow, report=cut_at("density", 3), **fields)
    other = dataclasses.replace(fake.TINY, chunk=1, score_every=4, preset="paper", save_every=9.0)
    pipeline.run(data, tmp_path / "b", other, resume=True, **fields)
    roots = [manifest.read(tmp_path / side)["root"] for side in "ab"]
    assert roots[0] == roots[1]
    assert (
        not {"chunk", "preset", "save_every"} & files.read_json(tmp_path / "b/config.json").keys()
    )


# --- interruption ------------------------------------------------------------------------------


class PowerCut(Exception):
    """Ends the process without warning."""


def cut_at(task, done):
    def report(name, at, total, **fields):
        if (name, at) == (task, done):
            raise PowerCut

    return report


def test_a_killed_run_resumes_bit_for_bit(fake, tmp_path, monkeypatch):
    chosen, data = dataclasses.replace(fake.TINY, save_every=0.0), fake.shades()
    whole = pipeline.run(data, tmp_path / "a", chosen, debias="density", **fake.OWN)
    cut = cut_at("density", 4)
    with pytest.raises(PowerCut):
        pipeline.run(data, tmp_path / "b", chosen, report=cut, debias="density", **fake.OWN)
    assert not (tmp_path / "b" / "result.json").exists()
    starts, run = [], methods.run
    monkeypatch.setattr(methods, "run", lambda *a, **k: starts.append(k["first"]) or run(*a, **k))
    fields = dict(debias="density", resume=True, **fake.OWN)
    resumed = pipeline.run(data, tmp_path / "b", chosen, **fields)
    assert_equal(images_of(tmp_path / "a"), images_of(tmp_path / "b"))
    assert starts == [2] and resumed.timeless() == whole.timeless()
    assert [record["step"] for record in store.progress(tmp_path / "b")] == [2, 4, 6]
    roots = [manifest.read(tmp_path / side)["root"] for side in "ab"]
    assert roots[0] == roots[1]


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(components.multiprocessing, "cpu_count", lambda: 2)


def interrupt_at(task, done):
    """Return a report function that sends Ctrl-C when a task reaches a step, in any thread."""

    def report(name, at, total, **fields):
        if (name, at) == (task, done):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.5)  # until the main thread has handled it

    return report


@pytest.mark.usefixtures("two_cores")
def test_rows_at_once_equal_those_of_one_core_also_when_stopped(fake, tmp_path, monkeypatch):
    data, fields = fake.shades(), dict(rows=ROWS, network=fake.NETWORK)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(pipeline.Interrupted):
        report = interrupt_at("plain", 2)
        pipeline.compare(data, tmp_path / "a", fake.TINY, report=report, **fields)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "a/rows/plain/checkpoint").exists()
    assert not (tmp_path / "a/compare.json").exists()
    a = pipeline.compare(data, tmp_path / "a", fake.TINY, resume=True, **fields)
    monkeypatch.setattr(components.multiprocessing, "cpu_count", lambda: 1)
    b = pipeline.compare(data, tmp_path / "b", fake.TINY, **fields)
    assert_equal(images_of(tmp_path / "a"), images_of(tmp_path / "b"))
    assert [row.accuracy for row in a.values()] == [row.accuracy for row in b.values()]


@pytest.mark.usefixtures("two_cores")
def test_ctrl_c_is_immediate_while_nothing_is_distilled(fake, tmp_path):
    # In the background SIGINT is ignored; this restores the behaviour in a terminal.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for when in (("embedding", 0), ("evaluate random", 0)):
            with pytest.raises(KeyboardInterrupt):
                fields = dict(rows=["random-density"], report=interrupt_at(*when), resume=True)
                pipeline.compare(fake.shades(), tmp_path, fake.TINY, network=fake.NETWORK, **fields)
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("two_cores")
def test_a_row_that_fails_stops_the_others_which_save_their_states(fake, tmp_path):
    started = set()

    def report(task, done, total, **fields):
        started.add(task)
        if task == "plain" and "oracle" in started:
            raise OSError("No space left on device")
        time.sleep(0.02 if task == "plain" else 0)  # this row must not end before the other starts

    chosen = dataclasses.replace(fake.TINY, steps=4000, save_every=1000.0)
    fields = dict(rows=["plain", "oracle"], report=report, network=fake.NETWORK)
    with pytest.raises(OSError, match="No space"):
        pipeline.compare(fake.shades(), tmp_path, chosen, **fields)
    assert (tmp_path / "rows/oracle/checkpoint").exists()


def test_ctrl_c_while_the_last_state_is_saved(fake, tmp_path, monkeypatch):
    save = checkpoint.save

    def save_and_interrupt(*args):
        save(*args)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(checkpoint, "save", save_and_interrupt)
    with pytest.raises(pipeline.Interrupted, match="6"):
        pipeline.run(fake.shades(), tmp_path / "out", fake.TINY, debias="plain", **fake.OWN)


def test_a_folder_that_is_deleted_during_the_run_is_not_created_again(fake, tmp_path):
    def delete(task, done, total, **fields):
        if (task, done) == ("plain", 2):
            shutil.rmtree(tmp_path / "out")

    with pytest.raises(FileNotFoundError, match="out"):
        fields = dict(debias="plain", report=delete, **fake.OWN)
        pipeline.run(fake.shades(), tmp_path / "out", fake.TINY, **fields)
    assert not (tmp_path / "out").exists()


def test_seconds_add_up_over_attempts(fake, tmp_path):
    chosen = dataclasses.replace(fake.TINY, save_every=0.0)
    fields = dict(debias="density", **fake.OWN)
    with pytest.raises(PowerCut):
        pipeline.run(fake.shades(), tmp_path, chosen, report=cut_at("density", 6), **fields)
    before = results.read_timing(tmp_path)["seconds"]
    assert min(before[stage] for stage in ("embed", "density", "distill")) > 0
    after = pipeline.run(fake.shades(), tmp_path, chosen, resume=True, **fields).seconds
    assert after["embed"] == before["embed"] and after["distill"] > before["distill"]
    (tmp_path / "result.json").unlink()
    (tmp_path / "timing.json").write_text('{"seconds": {"embed": "long"}}')
    seconds = pipeline.run(fake.shades(), tmp_path, chosen, resume=True, **fields).seconds
    assert "evaluate" in seconds and "embed" not in seconds


# --- repair ------------------------------------------------------------------------------------


def test_a_finished_comparison_computes_nothing(copy, compared, monkeypatch):
    for module, name in ((components, "initial"), (evaluate, "summary"), (weights, "encode")):
        monkeypatch.setattr(module, name, None)
    folder, resume = copy
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix}
    table = resume(*ROWS)
    assert {n: r.to_dict() for n, r in table.items()} == {
        n: r.to_dict() for n, r in compared[1].items()
    }
    assert {path: path.stat().st_mtime_ns for path in before} == before


PRODUCTS = [
    "rows/density/synthetic.npz", "rows/density/result.json", "rows/density/manifest.json",
    "rows/density/synthetic.png", "rows/random-density/synthetic.npz", "compare.json",
    "synthetic.png", "weights/density/weights.npz", "weights/density/figures.npz",
    "weights/density/embedding.png", "manifest.json",
]  # fmt: skip


@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
def test_damaged_products_are_computed_again_bit_for_bit(copy, compared, damage):
    """Every third product is damaged at once, so that all products get each kind of damage."""
    folder, resume = copy
    for start in range(3):
        for name in PRODUCTS[start::3]:
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[:-60] if damage == "cut" else b"")
            if damage == "missing":
                (folder / name).unlink()
        if "compare.json" in PRODUCTS[start::3] and damage != "missing":
            (folder / "compare.json").unlink()  # only repeats the results of the rows
        table = resume("plain")
        assert list(table) == list(ROWS)
        for name, row in compared[1].items():
            assert table[name].timeless() == row.timeless()
        assert_equal(images_of(folder), images_of(compared[0]))
        for name in PRODUCTS:
            if name.endswith(("npz", "png")):
                assert (folder / name).read_bytes() == (compared[0] / name).read_bytes()
        manifest.check(folder / "rows/density")


def test_figures_that_cannot_be_drawn_do_not_stop_a_run(copy, compared, monkeypatch):
    """The run ends with warnings, and the next one draws the figures."""
    folder, resume = copy
    missing = ("accuracy.png", "synthetic.png", "weights/density/embedding.png")
    for name in missing:
        (folder / name).unlink()

    def draw(path, *args, **options):
        path.write_bytes(b"half")
        raise RuntimeError("no font")

    with monkeypatch.context() as patch:
        for name in ("accuracy_bars", "comparison", "embedding_map"):
            patch.setattr(plot, name, draw)
        with pytest.warns(UserWarning, match="no font") as warned:
            table = resume(*ROWS)
    assert {name: row.accuracy for name, row in table.items()} == {
        name: row.accuracy for name, row in compared[1].items()
    }
    assert all(any(name in str(x.message) for x in warned) for name in missing)
    resume(*ROWS)
    for name in missing:
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"


def test_a_lost_row_is_distilled_again_from_the_data(copy, compared):
    folder, resume = copy
    shutil.rmtree(folder / "rows/density")
    resume("density")
    assert_equal(images_of(folder), images_of(compared[0]))


def test_rows_can_be_added_and_others_are_kept(fake, tmp_path):
    fields = dict(resume=True, **fake.OWN)
    pipeline.compare(fake.shades(), tmp_path, fake.TINY, rows=["plain"], **fields)
    before = (tmp_path / "compare.json").read_bytes()
    for _ in range(2):
        table = pipeline.compare(fake.shades(), tmp_path, fake.TINY, rows=["oracle"], **fields)
        assert list(table) == ["random", "plain", "oracle"]
        (tmp_path / "compare.json").write_bytes(before)  # killed before the table was written


@pytest.mark.parametrize("command", ["run", "compare"])
def test_one_process_works_in_a_folder(fake, tmp_path, command):
    fields = dict(resume=True, **fake.OWN)
    if command == "run":
        make = lambda: pipeline.run(fake.shades(), tmp_path, fake.TINY, debias="plain", **fields)
    else:
        make = lambda: pipeline.compare(
            fake.shades(), tmp_path, fake.TINY, rows=["plain"], **fields
        )
    make()
    with store.lock(tmp_path), pytest.raises(BlockingIOError, match=str(tmp_path)):
        make()
    make()


# --- whitening ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ZCA")
def test_networks_see_the_set_whitened_and_pixels_are_stored(fake, tmp_path):
    """Six steps add six to whitened images; the folder holds the unwhitened result."""
    whitened = dataclasses.replace(fake.TINY, zca="weighted", save_every=0.0)
    data = fake.shades()
    result = pipeline.run(data, tmp_path, whitened, debias="oracle", **fake.OWN)
    pool, whitening = datasets.pool(data), store.whitening_of(tmp_path)
    pool = sampling.reweight(pool, weights.oracle(pool, data.train.attributes, num_attributes=2))
    assert_equal(whitening, zca.fit(pool, weighted=True))
    start, moments = components.subset(pool, whitened, weighted=True), (data.mean, data.std)
    seen = zca.whiten(start, whitening, *moments) + 6
    unwhitened = zca.unwhiten(seen, whitening, *moments)
    np.testing.assert_allclose(images_of(tmp_path), unwhitened, atol=1e-4)
    task = zca.whiten_task(datasets.task(data), whitening)
    keys = jax.random.split(components.key(whitened, "evaluate"), 2)
    scores = evaluate.evaluate(keys, fake.NETWORK, seen, task, epochs=2)
    assert result.accuracy.each == pytest.approx(scores.accuracy.tolist())
    assert "whiten" in result.seconds and manifest.is_intact(tmp_path, "whitening.npz")
    root = manifest.read(tmp_path)["root"]
    (tmp_path / "whitening.npz").unlink()
    fields = dict(debias="oracle", resume=True, **fake.OWN)
    pipeline.run(data, tmp_path, whitened, **fields)
    assert manifest.read(tmp_path)["root"] == root


# --- bad input ---------------------------------------------------------------------------------


def test_bad_input_is_rejected_before_there_is_a_folder(fake, tmp_path):
    data, tiny, own = fake.shades(), fake.TINY, fake.OWN
    batch = dataclasses.replace(tiny, weighting="batch")
    no_images = fake.METHOD._replace(init=lambda images: {"pixels": images})
    wide = datasets.from_arrays(np.arange(4 * 65 * 65).reshape(4, 65, 65) % 251 / 251, [0, 0, 1, 1])
    flat = datasets.from_arrays(np.zeros((12, 3, 5, 1), np.uint8), np.arange(12) % 2)
    few = data._replace(train=jax.tree.map(lambda array: array[[0, -1]], data.train))
    cases = [
        (ValueError, "'magic'", data, tiny, dict(debias="magic", **own)),
        (ValueError, "65 × 65", wide, dataclasses.replace(tiny, zca="uniform"), own),
        (ValueError, "arrays", fake.shades(attributes=False), tiny, dict(debias="oracle", **own)),
        (ValueError, "add_one", data, tiny, dict(debias="fairdd", **own)),
        (ValueError, "scott", data, dataclasses.replace(tiny, bandwidth_rule="scott"), own),
        (ValueError, "batch", data, batch, own),
        (ValueError, "3×5", flat, tiny, dict(debias="border")),
        (ValueError, "got 2 of 8×8", few, tiny, dict(debias="tone")),
        (ValueError, "custom", data, tiny, dict(debias="custom", **own)),
        (ValueError, "'oracle'", data, tiny, dict(debias="oracle", weights=np.ones(42), **own)),
        (ValueError, "weights", data, tiny, dict(weights=np.ones(41), **own)),
        (ValueError, "weights", data, tiny, dict(weights=-np.ones(42), **own)),
        (ValueError, "weights", data, tiny, dict(weights=data.train.labels, **own)),
        (TypeError, "None", data, tiny, dict(network=fake.NETWORK, method=no_images)),
        (TypeError, "function", data, tiny, dict(network=fake.NETWORK, method=fake.add_one)),
    ]
    for error, match, bad_data, chosen, fields in cases:
        with pytest.raises(error, match=match):
            pipeline.run(bad_data, tmp_path / "out", chosen, **fields)
    with pytest.raises(ValueError, match="'magic'"):
        pipeline.compare(data, tmp_path / "out", tiny, rows=("magic",))
    assert not (tmp_path / "out").exists()


def test_a_run_with_another_configuration_is_not_resumed(fake, tmp_path):
    fields = dict(debias="plain", resume=True, **fake.OWN)
    pipeline.run(fake.shades(), tmp_path, fake.TINY, **fields)
    with pytest.raises(ValueError, match="crop"):
        pipeline.run(fake.shades(strategy=("crop",)), tmp_path, fake.TINY, **fields)
    with pytest.raises(ValueError, match="seed"):
        pipeline.run(fake.shades(), tmp_path, dataclasses.replace(fake.TINY, seed=1), **fields)
    with pytest.raises(FileExistsError):
        pipeline.run(fake.shades(), tmp_path, fake.TINY, **fields | dict(resume=False))


def test_without_bias_labels_the_oracle_row_and_the_diagnostics_are_left_out(fake, tmp_path):
    data = fake.shades(attributes=False)
    table = pipeline.compare(data, tmp_path / "a", fake.TINY, rows=ROWS, **fake.OWN)
    assert "oracle" not in table and table["density"].by_group is None
    diagnostics = dict(table["density"].weights)
    assert diagnostics.pop("effective_sample_size") > 0 and set(diagnostics.values()) == {None}
    pipeline.run(fake.shades(), tmp_path / "b", fake.TINY, debias="density", **fake.OWN)
    paths = (tmp_path / "a/weights/density/weights.npz", tmp_path / "b/weights.npz")
    assert_equal(*(files.read_arrays(path)["weights"] for path in paths))


def test_a_tie_of_attributes_is_a_warning(fake, tmp_path):
    data = fake.shades(counts=(12, 30))
    tied = data.train._replace(attributes=np.arange(len(data.train.labels)) % 2)
    chosen = dataclasses.replace(fake.TINY, steps=0)
    with pytest.warns(UserWarning, match="attributes 0, 1"):
        pipeline.run(data._replace(train=tied), tmp_path, chosen, debias="plain", **fake.OWN)


# --- compilation -------------------------------------------------------------------------------


def test_runs_that_differ_in_seed_or_steps_trace_nothing_new(fake, tmp_path):
    """Methods, samplers and evaluations are cached on the options that they use."""
    chosen = dataclasses.replace(fake.TINY, network="mlp", steps=4, strategy=("crop",))
    data, traced = fake.shades(), []

    def count(event, duration, fun_name="", **_):
        if event == "/jax/core/compile/jaxpr_trace_duration":
            traced.append(fun_name)

    fields = dict(debias="oracle")
    pipeline.run(data, tmp_path / "a", chosen, **fields)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        pipeline.run(data, tmp_path / "b", dataclasses.replace(chosen, seed=1, steps=6), **fields)
        again = list(traced)
        traced.clear()
        pipeline.run(data, tmp_path / "c", dataclasses.replace(chosen, batch_size=7), **fields)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert not again and traced
    assert not jnp.isnan(store.read_result(tmp_path / "b").accuracy.mean)
