"""Four simulated devices, one compilation cache for the session, and the shared data if it is there."""

import atexit
import errno
import os
import pathlib
import shutil
import tempfile

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

# Most of the suite's time is XLA compiling small programs, and half of that is optimising them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Many tests and both workers compile the same programs.
    cache = tempfile.mkdtemp(prefix="jaxdd-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import numpy as np  # noqa: E402
import pytest  # noqa: E402

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def vectors():
    """What the reference PyTorch implementation returns."""
    path = SHARED / "reference" / "vectors.npz"
    if not path.exists():
        pytest.skip(f"needs the reference numbers in {path}")
    with np.load(path) as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def data_dir():
    """The original files of MNIST and Fashion-MNIST."""
    path = SHARED / "data"
    if not path.exists():
        pytest.skip(f"needs the data files in {path}")
    return path


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is found to be full when the data is flushed."""

    def fsync(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
