"""The command line, as `jaxdd` and `python -m jaxdd`; Ctrl-C is quiet even during imports."""

import os
import signal


def main() -> None:
    """Import the command line, which takes seconds, and run it."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # no work has begun
    from jaxdd.commands import cli

    if heeded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
