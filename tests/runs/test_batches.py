"""Batches computed ahead or shared by rows: when, what they give, interruptions and repairs."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdd import methods, networks, sampling, weights
from jaxdd.data import datasets, files
from jaxdd.devices import parallel
from jaxdd.runs import batches, components, context, options, pipeline, processes
from jaxdd.runs import methods as run_methods
from jaxdd.runs.folder import manifest, store

ROWS = ("plain", "density", "oracle")


def images_of(folder):
    return {
        path.name: store.read_synthetic(path / "synthetic.npz").images
        for path in (folder / "rows").iterdir()
    }


def config_of(folder, row):
    return files.read_json(folder / "rows" / row / "config.json")


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def compare(fake):
    def compare(folder, *rows, options=fake.TINY, **fields):
        fields = dict(network=fake.NETWORK) | fields
        return pipeline.compare(fake.shades(), folder, options, rows=rows, **fields)

    return compare


@pytest.fixture(scope="module")
def compared(fake, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "out"
    chosen = dataclasses.replace(fake.TINY, save_every=0.0)
    pipeline.compare(fake.shades(), folder, chosen, rows=ROWS, network=fake.NETWORK)
    return folder


# --- which rows share ----------------------------------------------------------------------------


def test_rows_with_weights_of_dm_share_their_batches(fake, tmp_path):
    def rows(*names, separate=False, network=fake.NETWORK, method=None, **change):
        chosen = options.make(**{**dict(ipc=2, depth=1), **change})
        built = context.build_context(fake.shades(), chosen, network=network, method=method)
        return batches.batch_rows(built, tmp_path, names, separate=separate)

    names = ("random", "random-density", *ROWS, "fairdd", "cobra")
    assert rows(*names) == dict.fromkeys(ROWS, ROWS)
    assert rows(*names, formation=2, init="noise") and rows("plain", "density")
    for change in (
        dict(separate=True), dict(method=fake.METHOD), dict(candidates=512), dict(zca="uniform"),
        dict(weighting="mean"),
    ):  # fmt: skip
        assert not rows(*names, **change)
    assert not rows("random", "plain", "fairdd")


def test_networks_that_start_from_values_of_images_do_not_share(fake, tmp_path):
    by_values = networks.Functions(
        lambda key, images: fake.NETWORK.init(key, images) + images.mean(), fake.NETWORK.apply
    )
    built = context.build_context(fake.shades(), fake.TINY, network=by_values)
    assert not batches.batch_rows(built, tmp_path, ROWS, separate=False)


def test_recorded_rows_keep_their_batches_and_added_ones_have_their_own(compare, tmp_path):
    compare(tmp_path, "plain", "density")
    before = images_of(tmp_path)
    compare(tmp_path, "oracle", resume=True)
    assert "batch_rows" not in config_of(tmp_path, "oracle")
    assert config_of(tmp_path, "plain")["batch_rows"] == ["plain", "density"]
    after = images_of(tmp_path)
    assert_equal({name: after[name] for name in before}, before)
    config = config_of(tmp_path, "plain") | {"batch_rows": ["plain", "magic"]}
    files.write_json(tmp_path / "rows/plain/config.json", config)
    with pytest.raises(ValueError, match="'magic'"):
        compare(tmp_path, "plain", resume=True)


# --- what they compute ---------------------------------------------------------------------------


def test_rows_equal_their_components_put_together_by_hand(fake, compared):
    """Each row matches the weighted sums of the features of batches from the mixture."""
    data, chosen = fake.shades(), fake.TINY
    parts, pool = (
        components.build(data, chosen, network=fake.NETWORK, threads=1),
        datasets.pool(data),
    )
    density = files.read_arrays(compared / "weights/density/weights.npz")["weights"]
    oracle = weights.oracle(pool, data.train.attributes, num_attributes=2)
    by_row = [jnp.ones(len(pool.images)), density, oracle]
    mixture, key = sampling.mixture(pool, by_row), components.key(chosen, "distill")
    prepare = run_methods.build_mean_features(fake.NETWORK, parts.strategy)
    for i, name in enumerate(ROWS):
        weighted = sampling.reweight(pool, by_row[i])
        state = parts.method.init(components.initial(weighted, chosen))
        for step in range(chosen.steps):
            key_batch, key_step = jax.random.split(jax.random.fold_in(key, step))
            batch = sampling.mixture_batch(key_batch, mixture, chosen.batch_size)
            features = jax.tree.map(lambda x, i=i: x[i], prepare(key_step, batch))
            state, _ = parts.method.step(key_step, state, features)
        np.testing.assert_allclose(images_of(compared)[name], state.images, atol=1e-4)
        assert config_of(compared, name)["batch_rows"] == [*ROWS]
        assert [record["step"] for record in store.progress(compared / "rows" / name)] == [2, 4, 6]


def test_separate_rows_equal_those_of_a_run(fake, compare, tmp_path):
    compare(tmp_path / "a", *ROWS, separate=True)
    pipeline.run(fake.shades(), tmp_path / "b", fake.TINY, debias="oracle", network=fake.NETWORK)
    run = store.read_synthetic(tmp_path / "b/synthetic.npz").images
    np.testing.assert_allclose(images_of(tmp_path / "a")["oracle"], run, atol=1e-5)
    with pytest.raises(ValueError, match="separate"):
        compare(tmp_path / "a", *ROWS, resume=True)


@pytest.mark.parametrize(
    "change",
    [
        {}, {"zca": "uniform"}, {"candidates": 12}, {"weighting": "mean"}, {"weighting": "batch"},
        {"formation": 2}, {"score_every": 4}, {"debias": "oracle", "ipc": 1},
    ],
    ids=str,
)  # fmt: skip
def test_batches_computed_ahead_give_the_set_of_steps_in_one_program(
    fake, tmp_path, monkeypatch, change
):
    def distil(folder, debias="density", **change):
        chosen, seen = dataclasses.replace(fake.TINY, **change), []
        report = lambda task, done, total, **fields: seen.append((task, done, *fields))
        data = fake.shades(counts=(40, 60))
        pipeline.run(data, folder, chosen, debias=debias, network=fake.NETWORK, report=report)
        images = store.read_synthetic(folder / "synthetic.npz").images
        return images, [entry for entry in seen if entry[0] == debias]

    ahead, report = distil(tmp_path / "ahead", **change)
    monkeypatch.setattr(batches, "can_compute_ahead", lambda context, source: False)
    expected, expected_report = distil(tmp_path / "steps", **change)
    np.testing.assert_allclose(ahead, expected, atol=1e-4)
    assert report == expected_report


def test_which_runs_compute_batches_ahead(fake, tmp_path, monkeypatch):
    def is_ahead(debias="plain", network=fake.NETWORK, **setup):
        distilled = []
        with monkeypatch.context() as patch:
            record = lambda context, runs, sources, *, workers: distilled.append(workers)
            patch.setattr(batches, "distil", record)
            patch.setattr(components.multiprocessing, "cpu_count", lambda: 3)
            folder = tmp_path / str(len([*tmp_path.iterdir()]))
            pipeline.run(fake.shades(), folder, fake.TINY, debias=debias, network=network, **setup)
            pipeline.run(
                fake.shades(), folder, fake.TINY, debias=debias, network=network, resume=True,
                **setup,
            )  # fmt: skip
        return distilled

    assert is_ahead() == [3] and is_ahead("oracle") == [3]  # once: the set is complete afterwards
    by_values = networks.Functions(
        lambda key, images: fake.NETWORK.init(key, images) + images.mean(), fake.NETWORK.apply
    )
    assert not is_ahead(network=by_values)
    assert not is_ahead("fairdd") and not is_ahead(method=fake.METHOD)
    assert not is_ahead(mesh=parallel.mesh(devices=jax.devices()[:1]))


def test_large_batches_are_computed_by_fewer_workers(fake, tmp_path, monkeypatch):
    """A batch of two classes of 8 images of 8×8×1 takes 4 kB, and as much augmented."""
    workers, pool = [], batches.futures.ThreadPoolExecutor

    def record(*count, **options):
        if options.get("thread_name_prefix") == processes.ROW_THREADS:
            workers.extend(count)
        return pool(*count, **options)

    monkeypatch.setattr(batches.futures, "ThreadPoolExecutor", record)
    monkeypatch.setattr(components.multiprocessing, "cpu_count", lambda: 8)
    for i, (limit, expected) in enumerate([(8 * 2**13, 8), (3 * 2**13, 3), (1, 1)]):
        monkeypatch.setattr(batches, "_AHEAD_BYTES", limit)
        pipeline.run(
            fake.shades(), tmp_path / str(i), fake.TINY, debias="plain", network=fake.NETWORK
        )
        assert workers == [expected]
        workers.clear()


# --- interruption and repair ---------------------------------------------------------------------


class PowerCut(BaseException):
    """Ends the process without warning, so that nothing is saved."""


@pytest.mark.parametrize("cores", [1, 2])
def test_a_killed_comparison_resumes_bit_for_bit(
    compare, compared, fake, tmp_path, monkeypatch, cores
):
    """One row is saved two chunks before the others, and chunks have another length afterwards."""
    monkeypatch.setattr(components.multiprocessing, "cpu_count", lambda: cores)

    def report(task, done, total, **_):
        if (task, done) == ("density", 4):
            raise PowerCut

    chosen = dataclasses.replace(fake.TINY, save_every=0.0)
    with pytest.raises(PowerCut):
        compare(tmp_path / "out", *ROWS, options=chosen, report=report)
    assert not [*tmp_path.glob("out/rows/*/synthetic.npz")]
    steps = {
        path.parents[1].name: int(path.name) for path in tmp_path.glob("out/rows/*/checkpoint/*")
    }
    assert steps["density"] == 2
    # Only one row is named, and it needs the weights of the others.
    chosen = dataclasses.replace(chosen, chunk=3)
    compare(tmp_path / "out", "density", options=chosen, resume=True)
    density = store.read_synthetic(tmp_path / "out/rows/density/synthetic.npz").images
    assert_equal(density, images_of(compared)["density"])
    compare(tmp_path / "out", *ROWS, options=chosen, resume=True)
    assert_equal(images_of(tmp_path / "out"), images_of(compared))
    roots = lambda folder: {x.name: manifest.read(x)["root"] for x in (folder / "rows").iterdir()}
    assert roots(tmp_path / "out") == roots(compared)


def test_a_lost_or_damaged_row_is_distilled_alone(compare, compared, tmp_path, monkeypatch):
    folder = shutil.copytree(compared, tmp_path / "out")
    shutil.rmtree(folder / "rows/density")
    (folder / "rows/oracle/synthetic.npz").write_bytes(b"")
    shutil.rmtree(folder / "rows/oracle/checkpoint")
    distilled, run = [], methods.run
    monkeypatch.setattr(
        methods, "run", lambda *a, **k: distilled.append(k["first"]) or run(*a, **k)
    )
    compare(folder, *ROWS, resume=True)
    assert sorted(distilled) == [0, 0, 2, 2, 4, 4]
    assert_equal(images_of(folder), images_of(compared))
    distilled.clear()
    (folder / "rows/plain/synthetic.npz").unlink()
    compare(folder, *ROWS, resume=True)  # from its last state
    assert not distilled
    assert_equal(images_of(folder), images_of(compared))


def test_a_row_that_fails_stops_the_others_which_save_their_states(compare, fake, tmp_path):
    def report(task, done, total, **_):
        if (task, done) == ("oracle", 4):
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        compare(tmp_path, *ROWS, report=report)
    for row, step in {"plain": 4, "density": 4, "oracle": 2}.items():
        assert (tmp_path / "rows" / row / "checkpoint" / str(step)).is_dir()
