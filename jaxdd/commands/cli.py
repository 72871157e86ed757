"""The command line: parse arguments, run a command, and report errors on one line.

After bad input, the exit code is 2 and stderr has one line. After Ctrl-C, the exit code is 130 and
the state has been saved.
"""

import contextlib
import dataclasses
import io
import logging
import re
import shlex
import signal
import sys
import threading
import warnings

import jax
import tyro

from jaxdd import __version__
from jaxdd.commands import arguments, reference
from jaxdd.runs import context, options, processes, programs

_RESUMABLE = ("demo", "run", "compare")

_EXPECTED_ERRORS = (
    ValueError, TypeError, ImportError, OSError, OverflowError, MemoryError,
    jax.errors.JaxRuntimeError,
)  # fmt: skip


# --- parsing -----------------------------------------------------------------------------------


def _app(method):
    """Return a tyro application; commands with options of a method have those of this one."""
    app, nested = tyro.extras.SubcommandApp(), {}
    for name, command in reference.COMMANDS.items():
        first, _, second = name.partition(" ")
        if second and first not in nested:
            nested[first] = tyro.extras.SubcommandApp()
            app.command(nested[first], name=first)
        place = nested[first] if second else app
        place.command(arguments.parser(command, method), name=second or first)
    return app


def _parse(words):
    """Return the command to run. Errors of tyro, which come in a box, become one line."""
    _check_repeated(words)
    method = _method(words)
    explanation = io.StringIO()
    try:
        with contextlib.redirect_stderr(explanation):
            return _app(method).cli(prog="jaxdd", args=words)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        # Without the box, rules and colours of the terminal.
        text = re.sub(r"[─│╭╮╰╯]|-{3,}|\x1b\[[0-9;]*m", " ", explanation.getvalue())
        raise ValueError(" ".join(text.split())) from None


def _check_repeated(words):
    """Reject options that are passed twice, of which tyro would use the last."""
    words = words[: words.index("--")] if "--" in words else words
    names = [word.split("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    names = [name.replace("--no-", "--", 1) for name in names]
    if repeated := [name for name in names if names.count(name) > 1]:
        count = names.count(repeated[0])
        raise ValueError(f"{repeated[0]} must be passed once, with all its values, got {count}")


def _method(words):
    """Return the value of --method, which determines the available options."""
    if not {"run", "compare"} & set(words[:1]):
        return "dm"
    # tyro needs the options class before it parses, so --method is read from the words.
    words = [part for word in words for part in word.split("=", 1)]
    places = [i for i, word in enumerate(words[:-1]) if word == "--method"]
    method = words[places[-1] + 1] if places else "dm"
    if method not in options.OPTIONS:
        raise ValueError(f"method must be one of {', '.join(options.OPTIONS)}, got {method!r}")
    known = {field.name for kind in options.OPTIONS.values() for field in dataclasses.fields(kind)}
    named = [word[2:].replace("-", "_") for word in words if word.startswith("--")]
    options.check_known(method, known & set(named))
    return method


# --- running -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet_interrupts():
    """Suppress the tracebacks of other threads when Ctrl-C ends the process."""

    # Rows in other threads, and JAX at exit, would print their own errors after the message.
    def stop(*_):
        threading.excepthook = sys.unraisablehook = lambda _: None
        logging.disable(logging.CRITICAL)
        raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _warnings_on_one_line():
    before = warnings.formatwarning
    warnings.formatwarning = lambda text, *_, **__: f"jaxdd: {text}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _missing_platforms():
    """Return JAX_PLATFORMS if there is no such device, else None."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        return getattr(jax.config, "jax_platforms") or "any"  # noqa: B009
    return None


def main(words: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        words: the arguments; those of the process by default.
    """
    words = sys.argv[1:] if words is None else words
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for terminals without UTF-8
    if words == ["--version"]:
        print(f"jaxdd {__version__}")
        return
    try:
        command = _parse(words)
        programs.prepare()
        with _quiet_interrupts(), _warnings_on_one_line(), programs.fixed_settings():
            command()
    except (context.Interrupted, KeyboardInterrupt) as stopped:
        print(f"jaxdd: {str(stopped) or 'stopped'}", file=sys.stderr)
        if words[:1] and words[0] in _RESUMABLE:
            again = words if "--resume" in words else [*words, "--resume"]
            print(f"continue with: jaxdd {shlex.join(again)}", file=sys.stderr)
        processes.leave(130)
    except _EXPECTED_ERRORS as error:  # caused by the user; others are bugs
        print(f"jaxdd: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        processes.leave(2)
    except (RuntimeError, AssertionError):
        if (platforms := _missing_platforms()) is None:
            raise
        print(f"jaxdd: no device for JAX_PLATFORMS={platforms}", file=sys.stderr)
        sys.exit(2)
