"""Several processes that work on one run, of which the first one writes the files.

Every process runs the same program on the same data, and its devices are part of one mesh. `agree`
compares values that users may have passed differently; `broadcast` distributes decisions of the
first process. All processes see the run folder, but only the first one writes to it: the others
work in temporary copies.

JAX connects the processes, watches them, and ends them if one of them is lost: see `joined`.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jaxlib
import numpy as np
from jax.experimental import multihost_utils

import jaxdd
from jaxdd.data import files

INITIALIZATION_TIMEOUT = 60
"""Seconds to wait until all processes have started."""

HEARTBEAT_TIMEOUT = 20
"""Seconds without a heartbeat after which a process counts as lost."""

ROW_THREADS = "jaxdd row"
"""Prefix of the names of threads that compute rows of a comparison, or batches ahead."""

# Messages of XLA about the failure of another process. JAX raises a ValueError instead of a
# JaxRuntimeError if it has called the compiled program before.
_CONNECTION_LOST = re.compile(
    "(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): "
)


@contextlib.contextmanager
def joined(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Iterator[None]:
    """Connect the processes of a run by `jax.distributed` while a block runs.

    If a process is killed or loses the network, the others end within `HEARTBEAT_TIMEOUT` seconds:
    either with the error below, or by SIGABRT (exit code 134) with a message of XLA such as
    "Terminating process because the JAX distributed service detected fatal errors". The same
    happens after `INITIALIZATION_TIMEOUT` seconds if not all processes have started, or if their
    numbers of processes differ. Start all of them again with `--resume`.

    Args:
        coordinator: HOST:PORT at which process 0 listens; $JAX_COORDINATOR_ADDRESS by default.
        num_processes: number of processes; with 1 there is nothing to connect.
        process_id: number of this process, from 0. Under Slurm, Open MPI, Kubernetes and on TPUs,
            JAX detects all three arguments.

    Raises:
        ValueError: for an invalid address or number, or one that is neither passed nor detected.
        ConnectionError: if another process is lost.
    """
    if num_processes == 1:
        yield
        return
    _check(coordinator, num_processes, process_id)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=INITIALIZATION_TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            shutdown_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except ValueError as error:
        raise ValueError(
            "--distributed requires --coordinator, --num-processes and --process-id, except on "
            f"clusters that JAX detects: {error}"
        ) from error
    try:
        yield
        multihost_utils.sync_global_devices("end of the run")
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not _CONNECTION_LOST.match(str(error)):
            raise
        raise ConnectionError(
            f"Process {jax.process_index()} lost its connection to another process; start all "
            f"processes again with --resume. XLA reports: {' '.join(str(error).split())}"
        ) from error
    jax.distributed.shutdown()


def _check(coordinator, num_processes, process_id):
    host, _, port = (coordinator or "HOST:1").rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError(f"coordinator must be HOST:PORT, port in 1..65535, got {coordinator!r}.")
    if num_processes is not None and num_processes < 1:
        raise ValueError(f"num-processes must be at least 1, got {num_processes}.")
    if process_id is not None and not 0 <= process_id < (num_processes or process_id + 1):
        raise ValueError(
            f"process-id must be in 0..num-processes − 1, got {process_id} of {num_processes}."
        )


def agree(settings: dict[str, Any]) -> None:
    """Check that all processes have the same settings, and the same versions of JAX and jaxdd.

    Args:
        settings: values that `files.write_json` accepts, by name.

    Raises:
        ValueError: settings or versions differ; raised in every process, with both values.
    """
    if not jax.distributed.is_initialized():
        return
    versions = {module.__name__: module.__version__ for module in (jax, jaxlib, jaxdd)}
    text = json.dumps(files.to_json(versions | settings)).encode()
    length = int(multihost_utils.process_allgather(np.int32(len(text))).max())
    padded = np.frombuffer(text.ljust(length), np.uint8)
    first, *others = (json.loads(bytes(x)) for x in multihost_utils.process_allgather(padded))
    for i, other in enumerate(others, 1):
        if differences := files.differences(first, other):
            jax.distributed.shutdown()
            raise ValueError(f"Process {i} (here) differs from process 0 (there): {differences}.")


def is_first() -> bool:
    """Return whether this process is the one that writes and reports."""
    return jax.process_index() == 0


def broadcast(tree: Any) -> Any:
    """Return the arrays of the first process in every process; shapes must be the same."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


@contextlib.contextmanager
def own_folder(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield the folder to the first process, and a temporary copy to every other one."""
    folder = files.expand(folder)
    if jax.process_count() == 1:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxdd-") as scratch:
        own = folder if is_first() else pathlib.Path(scratch) / folder.name
        if not is_first() and folder.is_dir():
            shutil.copytree(folder, own)
        multihost_utils.sync_global_devices("all folders are copied")  # before the first writes
        yield own


def leave(code: int) -> NoReturn:
    """End this process without waiting for other processes or for threads named `ROW_THREADS`."""
    has_rows = any(thread.name.startswith(ROW_THREADS) for thread in threading.enumerate())
    if not jax.distributed.is_initialized() and not has_rows:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # sys.exit would wait for a process that is lost
