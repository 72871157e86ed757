"""Four simulated devices for the whole suite, and the shared data where a checkout has it."""

import os
import pathlib

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

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
