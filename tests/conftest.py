"""Session settings and fixtures: simulated devices, cached programs, data, run folders."""

import atexit
import contextlib
import dataclasses
import errno
import gc
import importlib.metadata
import os
import pathlib
import re
import shutil
import tempfile

TESTS = pathlib.Path(__file__).resolve().parent


def program_cache():
    """Return a folder for compiled programs that later sessions read, if one can be written."""
    folder = TESTS.parent / ".pytest_cache" / "programs" / importlib.metadata.version("jax")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxdd-tests-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# XLA needs most of the time of the suite to compile small programs, half of it to optimise them.
FLAGS = ["--xla_force_host_platform_device_count=4", "--xla_backend_optimization_level=0"]
FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")  # compiles 15 % faster
if [int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2]] <= [0, 10]:
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # compiles twice as fast
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The first process chooses the cache; workers inherit it, since they compile the same programs.
OWN_CACHE = None if "JAX_COMPILATION_CACHE_DIR" in os.environ else program_cache()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(OWN_CACHE))
# Caching a program of a single operation would take as long as compiling it.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import sklearn.datasets  # noqa: E402
from xdist.scheduler import LoadScopeScheduling  # noqa: E402

from jaxdd.data import files  # noqa: E402
from jaxdd.devices import parallel  # noqa: E402
from jaxdd.runs import options, results  # noqa: E402
from jaxdd.runs.folder import manifest, store  # noqa: E402
from jaxdd.runs.trust import publication  # noqa: E402

# Tracing creates millions of long-lived objects, all of which every garbage collection visits.
gc.set_threshold(50_000, 20, 100)


def pytest_configure():
    if OWN_CACHE is not None:
        with contextlib.suppress(OSError):  # another session may prune at the same time
            files.prune(OWN_CACHE, 2**30)


def pytest_ignore_collect(collection_path, config):
    """Do not import the tests of experiments if all of them would be deselected."""
    if collection_path == TESTS / "experiments" and "not experiments" in config.option.markexpr:
        return True
    return None


def pytest_collection_modifyitems(items):
    """Start with the largest files, so that all workers end at about the same time."""
    items.sort(key=lambda item: -item.path.stat().st_size)


class FileScheduling(LoadScopeScheduling):
    """Distribute tests by file, in the order of the items: tests of a file share programs."""

    def _split_scope(self, nodeid):
        return nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # otherwise xdist orders files by number of tests
    return FileScheduling(config, log)


@pytest.fixture(scope="module", autouse=True)
def release_programs():
    """Drop compiled programs before the process runs out of memory mappings.

    A worker compiles thousands of programs, each of which holds several of the 65,530 mappings that
    Linux grants a process; XLA aborts if none is left.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()


@pytest.fixture(scope="session")
def vectors():
    """Return outputs of the reference PyTorch implementation, see tests/reference/README.md."""
    return files.read_arrays(TESTS / "reference" / "vectors.npz")


@pytest.fixture(scope="session")
def data_dir():
    """The folder with the original files of MNIST and Fashion-MNIST."""
    path = TESTS.parents[1] / "shared" / "data"
    if not path.exists():
        pytest.skip(f"needs the data files in {path}")
    return path


@pytest.fixture(scope="session")
def mesh():
    """A mesh of four simulated devices."""
    if jax.device_count() < 4:
        pytest.skip("needs four (simulated) devices")
    return parallel.mesh(devices=jax.devices()[:4])


@pytest.fixture(scope="session")
def collectives():
    """Return a function that lists the transfers between devices: kind and number of elements."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"

    def transfers(compiled):
        for shapes, kind in re.findall(rf"= (.*?) ({kinds})[\w-]*\(", compiled.as_text()):
            sizes = [
                np.prod([int(n) for n in size.split(",") if n], initial=1)
                for size in re.findall(r"\[([\d,]*)\]", shapes)
            ]
            yield kind, max(sizes)

    return transfers


@pytest.fixture
def full_disk(monkeypatch):
    """Make the disk appear full when data is flushed."""

    def fsync(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture(scope="session")
def make_run():
    """Return a function that writes a folder like that of `jaxdd run`, without running anything."""

    def make(
        folder, images=None, *, names=("cat", "dog", "owl"), mean=None, std=None,
        date="2026-01-01", **result,
    ):  # fmt: skip
        if images is None:
            images = np.random.default_rng(0).uniform(-1.5, 1.6, (3, 2, 4, 5, 3))
        k, ipc, *_, channels = images.shape
        mean = np.linspace(0.4, 0.5, channels) if mean is None else mean
        std = np.linspace(0.3, 0.2, channels) if std is None else std
        labels = np.repeat(np.arange(k, dtype=np.int32)[:, None], ipc, axis=1)
        config = {"command": "run", "dataset": "arrays", "data": "0" * 32, "debias": "density"}
        config |= {"augmentation": [], **dataclasses.asdict(options.DM(ipc=ipc))}
        provenance = {"config": config, "class_names": names[:k], "weights": "1" * 64}
        store.create(folder, config)
        moments = np.float32(mean), np.float32(std)
        synthetic = store.Synthetic(np.float32(images), labels, *moments, provenance)
        store.write_synthetic(folder / "synthetic.npz", synthetic)
        files.write_arrays(folder / "weights.npz", {"weights": np.ones(7) / 7})
        scores = dict.fromkeys(results.SCORES, {"mean": 0.75, "std": 0.01, "n": 3})
        content = {"device": "cpu", "versions": {"jax": "0.10"}, "seed": 0, "config": config}
        content |= {"weights": {"group_evenness": 0.5}, "random": scores, **scores, **result}
        files.write_json(folder / "result.json", content)
        files.write_json(folder / "timing.json", {"seconds": {"data": 1.5}, "date": date})
        products = "config.json", "result.json", "synthetic.npz", "weights.npz"
        manifest.record(folder, products)
        manifest.seal(folder, manifest.describe(synthetic))
        return folder

    return make


@pytest.fixture(scope="session")
def digits(make_run, tmp_path_factory):
    """Return five digits per class, exported in every format, and test images with labels.

    Pixels slightly exceed [0, 1], as after distillation; the mean is 0.3 and the std 0.4.
    """
    data = sklearn.datasets.load_digits()
    pixels, labels = data.images[..., None] / 16, data.target
    chosen = np.stack([pixels[labels == k][:5] for k in range(10)])
    chosen = 0.5 + 1.04 * (chosen - 0.5) + np.random.default_rng(0).normal(0, 0.01, chosen.shape)
    folder, mean, std = tmp_path_factory.mktemp("digits"), np.full(1, 0.3), np.full(1, 0.4)
    make_run(folder / "run", (chosen - mean) / std, names=(), mean=mean, std=std)
    for form in publication.FORMATS:
        publication.export(folder / "run", folder / form, format=form)
    return folder, np.rint(255 * pixels[500:]).astype(np.uint8), labels[500:]
