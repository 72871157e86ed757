"""Several processes: joined for one run, of which the first one writes.

Every process runs the same program on the same data; its devices are part of one mesh. What they
must not differ in, such as when to stop, the first decides and `broadcast` tells the others; what
the user tells each of them is compared by `agree`. All of them see the run folder, but only the
first works in it: the others work in a copy of their own, which nobody keeps.

Before XLA joins them, which ends a process by SIGABRT where it fails, they meet at the port of the
coordinator in plain TCP: the first listens, the others say who they are and hear if all is well.
"""

import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import jaxlib
import numpy as np
from jax.experimental import multihost_utils

import jaxdd
from jaxdd.data import files

# What XLA says, which JAX raises as a ValueError where it has called the program before.
_OF_XLA = re.compile(r"(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ")

ROW = "jaxdd row"
"""Beginning of the names of threads that make rows of a comparison side by side."""


class Lost(Exception):
    """Another process of the run is gone; the state that was last saved is in the folder."""


class Absent(Exception):
    """The processes of a run did not come together in time."""


@contextlib.contextmanager
def joined(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    patience: int = 30,
    wait: float = 60,
) -> Iterator[None]:
    """Joins the processes of a run by `jax.distributed` while a block runs.

    Args:
        coordinator: host:port on which the first process listens.
        num_processes: of the run; with 1 nothing needs joining.
        process_id: of this process, from 0 on. What is None is found as
            `jax.distributed.initialize` finds it: the coordinator in $JAX_COORDINATOR_ADDRESS, and
            all three under Slurm, Open MPI, Kubernetes and on TPUs.
        patience: seconds without a sign of life after which a process counts as lost.
        wait: seconds within which all processes must have come.

    Raises:
        ValueError: for what is None and not found, for an address or a number out of range, and
            when processes were told different numbers or have different versions.
        Absent: when not all processes come in time.
        Lost: when another process fails or is killed.
    """
    if num_processes == 1:
        yield
        return
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    where = (coordinator, num_processes, process_id)
    done, others = threading.Event(), {}
    _check(*where)
    if coordinator and num_processes is not None and process_id is not None:
        lost = functools.partial(_end, process_id, done)
        others = _meet(coordinator, num_processes, process_id, wait)  # open until the block ends
        if process_id:
            coordinator = _relayed(coordinator, functools.partial(lost, 0))
        for number, connection in others.items():
            if not process_id:
                watch = functools.partial(_watch, connection, functools.partial(lost, number))
                threading.Thread(target=watch, daemon=True).start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=round(wait),
            heartbeat_timeout_seconds=patience,
        )
    except ValueError as error:
        raise _not_told(*where) or error from None
    try:
        yield
        multihost_utils.sync_global_devices("the run is done")
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and not _OF_XLA.match(str(error)):
            raise
        done.set()
        reason = " ".join(str(error).split())
        raise Lost(
            f"process {jax.process_index()} lost touch with another one: {reason}"
        ) from error
    done.set()
    jax.distributed.shutdown()
    _close(others)


# --- where the processes meet ------------------------------------------------------------------


def _check(coordinator, num_processes, process_id):
    if coordinator is not None:
        _address(coordinator)
    if num_processes is not None and num_processes < 1:
        raise ValueError(f"num-processes must be at least 1, found {num_processes}")
    if process_id is not None and not 0 <= process_id < (num_processes or process_id + 1):
        last = "" if num_processes is None else f" and below num-processes, {num_processes}"
        raise ValueError(f"process-id must be at least 0{last}, found {process_id}")


def _address(text: str) -> tuple[str, int]:
    """Returns host and port."""
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError(f"coordinator must be HOST:PORT, a port in 1..65535, found {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _not_told(coordinator, num_processes, process_id):
    """Returns an error about the options that no cluster stands in for, if there are any."""
    given = {
        "--coordinator HOST:PORT": coordinator,
        "--num-processes": num_processes,
        "--process-id": process_id,
    }
    absent = [name for name, value in given.items() if value is None]
    found = "no cluster was found that tells"
    return ValueError(f"--distributed needs {', '.join(absent)}: {found}") if absent else None


def _meet(
    coordinator: str, num_processes: int, process_id: int, wait: float
) -> dict[int, socket.socket]:
    """Returns connections to others by number once all have come and were told the same."""
    deadline = time.monotonic() + wait
    who = "process 0" if process_id else f"{num_processes - 1} more of {num_processes} processes"
    what = f"process {process_id} waits up to {wait:g} s for {who} at {coordinator}"
    print(f"jaxdd: {what}", file=sys.stderr, flush=True)
    said = {"num_processes": num_processes, **_versions()}
    if process_id:
        own = {"process_id": process_id, **said}
        connection, fault = _call(_address(coordinator), own, deadline)
        others = {0: connection}
    else:
        others, fault = _receive(coordinator, num_processes, said, deadline)
    if fault:
        _close(others)
        raise ValueError(fault)
    return others


def _close(connections):
    for connection in connections.values():
        connection.close()


def _versions() -> dict[str, str]:
    return {module.__name__: module.__version__ for module in (jax, jaxlib, jaxdd)}


def _receive(coordinator, num_processes, said, deadline):
    """The first process: returns connections to all others by number, and what is wrong with them.

    They are told, "" if nothing is. Whoever says nothing that makes sense is none of them.
    """
    fault, came = "", {}
    with contextlib.ExitStack() as stack:
        with _listening(coordinator) as listener:
            while len(came) < num_processes - 1 and not fault:
                connection = stack.enter_context(_accepted(listener, deadline, came, coordinator))
                caller = _heard(connection)
                if caller is not None:
                    came = {i: other for i, other in came.items() if not _has_left(other)}
                    number = caller.pop("process_id")
                    fault = _fault(number, caller, came, said)
                    came[f"{number} again" if number in came else number] = connection
        for connection in came.values():  # once the port is free for XLA
            with contextlib.suppress(OSError):
                _say(connection, fault)
        others = {} if fault else {number: own.dup() for number, own in came.items()}
    return others, fault


def _listening(coordinator: str) -> socket.socket:
    # XLA listens on all interfaces, too, unless this says otherwise.
    bound = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator)
    port, both = _address(bound)[1], socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ValueError(
            f"process 0 cannot listen on port {port}: {os.strerror(error.errno or 0)}; "
            "is there another process 0, or another run?"
        ) from None


def _accepted(listener, deadline, came, coordinator):
    listener.settimeout(max(deadline - time.monotonic(), 0.01))
    try:
        return listener.accept()[0]
    except TimeoutError:
        here = ", ".join(map(str, [0, *sorted(came)]))
        raise Absent(f"not all processes came to {coordinator} in time: only {here} did") from None


def _heard(connection):
    """What a caller says, None if it makes no sense."""
    connection.settimeout(5)
    try:
        with connection.makefile("rb") as lines:
            caller = json.loads(lines.readline(2**16))
    except (OSError, ValueError):
        return None
    return caller if isinstance(caller, dict) and "process_id" in caller else None


def _has_left(connection):
    """Whether a caller, who has nothing more to say, is gone."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _fault(number, caller, came, said):
    if found := files.differences(said, caller):
        return f"processes 0 (there) and {number} (here) differ: {found}"
    return f"process-id must differ between processes, found {number} twice" * (number in came)


def _call(address, said, deadline):
    """Every other process: returns a connection to the first one, and what it says is wrong."""
    connection = _reached(address, deadline)
    try:
        _say(connection, said)
        connection.settimeout(max(deadline - time.monotonic(), 0.01) + 5)  # the first ends it
        with connection.makefile("rb") as lines:
            return connection, json.loads(lines.readline())
    except (OSError, ValueError):
        connection.close()
        raise Absent("process 0 ended before all processes had come") from None


def _say(connection, what):
    connection.settimeout(5)
    connection.sendall(json.dumps(what).encode() + b"\n")


def _reached(address, deadline):
    """A connection to host and port, where somebody may have to start listening first."""
    while True:
        left = deadline - time.monotonic()
        try:
            return socket.create_connection(address, timeout=max(min(left, 5), 0.1))
        except OSError as error:
            if left <= 0:
                where = "{}:{}".format(*address)
                raise Absent(f"process 0 is not at {where}: {error.strerror or error}") from None
        time.sleep(0.1)


# --- the way to the coordinator ----------------------------------------------------------------


def _relayed(coordinator: str, end: Callable[[], None]) -> str:
    """Returns an address here that leads to the coordinator's; `end` is called when that is gone.

    XLA would end the process by SIGABRT if it saw its connection break. It only sees this one.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            near = listener.accept()[0]
            try:
                far = _reached(_address(coordinator), time.monotonic() + 10)
            except Absent:
                return end()
            far.settimeout(None)
            for pair in (near, far), (far, near):
                threading.Thread(
                    target=_relay, args=(*pair, pair[0] is far, end), daemon=True
                ).start()

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _relay(source, sink, is_far, end):
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
    if is_far:
        end()


def _watch(connection, end):
    """Calls `end` when the process at the other end, which says no more, is gone.

    XLA would notice later, and end this process by SIGABRT unless it is talking to that one.
    """
    with contextlib.suppress(OSError), connection:
        connection.settimeout(None)
        connection.recv(1)
    end()


def _end(process_id, done, other):
    """Ends this process, unless the run is done or it comes to its end by itself."""
    if done.wait(2):  # where it talks to the other process, it notices and says more
        return
    print(
        f"jaxdd: process {process_id} lost touch with process {other}; "
        "go on with the same command and --resume",
        file=sys.stderr,
        flush=True,
    )
    os._exit(3)


# --- what they share ---------------------------------------------------------------------------


def leave(code: int) -> NoReturn:
    """Ends this process; neither other processes nor threads of `ROW` are waited for any more."""
    rows = any(thread.name.startswith(ROW) for thread in threading.enumerate())
    if not jax.distributed.is_initialized() and not rows:
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


def agree(told: dict[str, Any]) -> None:
    """Compares what the processes were told, and their versions.

    Args:
        told: values as in `files.write_json`, by name.

    Raises:
        ValueError: in every process, with the values of the first one and of one that differs.
    """
    if not jax.distributed.is_initialized():
        return
    text = json.dumps(files.to_json(_versions() | told)).encode()
    longest = int(multihost_utils.process_allgather(np.int32(len(text))).max())
    padded = np.frombuffer(text.ljust(longest), np.uint8)
    first, *others = (json.loads(bytes(row)) for row in multihost_utils.process_allgather(padded))
    for i, other in enumerate(others, 1):
        if found := files.differences(first, other):
            jax.distributed.shutdown()
            raise ValueError(f"processes 0 (there) and {i} (here) differ: {found}")


@contextlib.contextmanager
def own_folder(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields the folder to the first process, and to every other one a copy for the time being."""
    folder = files.expand(folder)
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
