"""Time that a claim may take: `--budget 20m` does what Ctrl-C does, twenty minutes later."""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator


def seconds(text: str) -> float:
    """Returns the seconds in a time such as 90s, 20m or 1.5h.

    Raises:
        ValueError: for anything else.

    >>> seconds("20m")
    1200.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found:
        raise ValueError(f"a budget is a number and s, m or h, such as 20m, found {text!r}")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@contextlib.contextmanager
def deadline(budget: float | None, *, again: float = 30.0) -> Iterator[None]:
    """Does what Ctrl-C does once `budget` seconds are over; None is no limit.

    It is done again every `again` seconds until the block ends, since Python drops what is raised
    while it collects garbage.
    """
    if budget is None:
        yield
        return
    ended = threading.Event()

    def stop():
        after = budget
        while not ended.wait(min(after, threading.TIMEOUT_MAX)):
            os.kill(os.getpid(), signal.SIGINT)
            after = again

    # What a shell starts in the background ignores this signal unless it is told otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=stop, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)
