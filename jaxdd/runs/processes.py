"""Several processes: joined for one run, of which the first one writes.

Every process runs the same program on the same data; its devices are part of one mesh. What they
must not differ in, such as when to stop, the first decides and `broadcast` tells the others. All of
them see the run folder, but only the first works in it: the others work in a copy of their own,
which nobody keeps.
"""

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils


class Lost(Exception):
    """Another process of the run is gone; the state that was last saved is in the folder."""


@contextlib.contextmanager
def joined(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    patience: int = 30,
) -> Iterator[None]:
    """Joins the processes of a run by `jax.distributed` while a block runs.

    Args:
        coordinator: host:port on which the first process listens.
        num_processes: of the run; with 1 nothing needs joining.
        process_id: of this process, from 0 on. What is None is found as
            `jax.distributed.initialize` finds it: the coordinator in $JAX_COORDINATOR_ADDRESS, and
            all three under Slurm, Open MPI, Kubernetes and on TPUs.
        patience: seconds without a sign of life after which a process counts as lost.

    Raises:
        ValueError: for what is None and not found.
        Lost: when another process fails or is killed.
    """
    if num_processes == 1:
        yield
        return
    jax.distributed.initialize(
        coordinator, num_processes, process_id, heartbeat_timeout_seconds=patience
    )
    try:
        yield
        multihost_utils.sync_global_devices("the run is done")
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())
        raise Lost(
            f"process {jax.process_index()} lost touch with another one: {reason}"
        ) from error
    jax.distributed.shutdown()


def leave(code: int) -> NoReturn:
    """Ends this process; one that was joined to others does not wait for them any more."""
    if jax.process_count() == 1:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # sys.exit would wait for a lost process to come to the end, too


def is_first() -> bool:
    """Returns whether this process is the one that writes and reports."""
    return jax.process_index() == 0


def broadcast(tree: Any) -> Any:
    """Returns the arrays of the first process in every process, of the same shapes everywhere."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


@contextlib.contextmanager
def own_folder(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields the folder to the first process, and to every other one a copy for the time being."""
    folder = pathlib.Path(folder).expanduser()
    if jax.process_count() == 1:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxdd-") as scratch:
        mine = folder
        if not is_first():
            mine = pathlib.Path(scratch) / folder.name
            if folder.is_dir():
                shutil.copytree(folder, mine)
        multihost_utils.sync_global_devices("every process has its copy")
        yield mine
