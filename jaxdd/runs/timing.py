"""Wall time of the stages of a run, and of the compilation within them."""

import contextlib
import time
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the wall time of a block to `seconds[name]`."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


@contextlib.contextmanager
def compilation_counted(seconds: dict[str, float]) -> Iterator[None]:
    """Add the time that XLA compiles during a block, in any thread, to `seconds["compile"]`.

    The times of the stages include it.
    """
    seconds.setdefault("compile", 0.0)

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds["compile"] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
