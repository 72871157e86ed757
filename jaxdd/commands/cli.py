"""The command line: parse arguments, run a command, and report errors on one line.

After bad input, the exit code is 2 and stderr has one line. After Ctrl-C, the exit code is 130 and
the state has been saved.
"""

import contextlib
import io
import logging
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import warnings
from typing import Any

import jax
import tyro

import jaxdd
from jaxdd.commands import arguments, errors, reference, runs, screen
from jaxdd.runs import context, options, processes, programs
from jaxdd.runs.trust import shipped

_EXPECTED_ERRORS = (
    ValueError, TypeError, ImportError, OSError, OverflowError, MemoryError,
    jax.errors.JaxRuntimeError,
)  # fmt: skip

_COMPLETION = "--tyro-write-completion"
_SHELLS = ("bash", "zsh", "fish", "tcsh")
_OPTIONS = {
    "-h, --help": "Show this help, or that of a command: `jaxdd COMMAND --help`.",
    "--version": "Show the version.",
    f"{_COMPLETION} SHELL FILE": "Write a script that completes commands and options in a shell: "
    f"{', '.join(_SHELLS)}.",
}


# --- parsing -----------------------------------------------------------------------------------


def _help(first: str = "") -> str:
    """Return the list of all commands, or of those that begin with a word."""
    lines = [f"usage: jaxdd {first or 'COMMAND'} ...", "", str(jaxdd.__doc__).split("\n", 1)[0]]
    groups = {
        title: {name: reference.summary(name) for name in names if f"{name} ".startswith(first)}
        for title, names in reference.GROUPS.items()
    }
    for title, entries in (groups | ({} if first else {"options": _OPTIONS})).items():
        lines += ["", title] if entries else []
        for name, text in entries.items():
            # A long name has a line of its own.
            lines += [f"  {name}"] if len(name) > 15 else []
            indented = f"  {name:<16}" if len(name) <= 15 else " " * 18
            width = min(shutil.get_terminal_size().columns, 100)
            lines += textwrap.wrap(text, width, initial_indent=indented, subsequent_indent=" " * 18)
    return "\n".join(lines)


def _command(words):
    """Return the name of the command that the arguments begin with."""
    names = {name.split()[0] for name in reference.COMMANDS}
    if words[0] not in names:
        hint = errors.did_you_mean(words[0], names)
        raise ValueError(f"unknown command {words[0]!r}{hint} `jaxdd --help` lists all")
    if words[0] in reference.COMMANDS:
        return words[0]
    name, names = " ".join(words[:2]), [x for x in reference.COMMANDS if x.startswith(words[0])]
    if name not in names:
        hint = errors.did_you_mean(name, names)
        raise ValueError(f"unknown command {name!r}{hint} `jaxdd {words[0]} --help` lists all")
    return name


def _parse(words):
    """Return the command to run."""
    name = _command(words)
    words = words[len(name.split()) :]
    method = _method(name, words)
    known = reference.options(name, method)
    _check_flags(name, words, known)
    printed, parser = io.StringIO(), arguments.parser(reference.COMMANDS[name], method)
    try:
        with contextlib.redirect_stderr(printed):
            command = tyro.cli(
                parser, prog=f"jaxdd {name}", args=words, description=reference.description(name)
            )
    except SystemExit as stopped:
        if not stopped.code:
            raise
        raise ValueError(errors.of_parser(printed.getvalue(), name, known)) from None
    for option in known:
        if option.metavar not in ("RUN", "SET") or command.keywords[option.name] is None:
            continue
        path = command.keywords[option.name]
        command.keywords[option.name] = shipped.resolve(path)
        if not command.keywords[option.name].exists():
            hint = errors.did_you_mean(str(path), shipped.ROOTS)
            text = f"{path} does not exist{hint} expected {option.metavar}: {option.help}"
            raise FileNotFoundError(text)
    return command


def _check_flags(name, words, known):
    """Reject unknown options, and options that are passed twice, of which tyro uses the last."""
    words = words[: words.index("--")] if "--" in words else words
    long = {flag: option.flags[0] for option in known for flag in option.flags}
    words = [word.split("=")[0] for word in words]
    used = [word.replace("_", "-") for word in words if word.startswith("--") or word in long]
    used = [long.get(word, word) for word in used]
    for flag in used:
        if flag not in long and flag != "--help":
            owners = [method for method in options.OPTIONS if flag in _long_flags(name, method)]
            if owners:
                raise ValueError(f"{flag} is an option of --method {' and '.join(owners)}")
            hint = errors.did_you_mean(flag, [*long])
            raise ValueError(f"unknown option {flag}{hint} `jaxdd {name} --help` lists all")
        if (count := used.count(flag)) > 1:
            raise ValueError(f"{flag} must be passed once, with all its values, got {count}")


def _long_flags(name, method="dm"):
    return {option.flags[0] for option in reference.options(name, method) if option.flags}


def _method(name, words):
    """Return the value of --method, which determines the available options."""
    if "--method" not in _long_flags(name):
        return "dm"
    # Before tyro parses the arguments, because it needs the options.
    words = [part for word in words for part in word.split("=", 1)]
    places = [i for i, word in enumerate(words[:-1]) if word == "--method"]
    method = words[places[-1] + 1] if places else "dm"
    if method not in options.OPTIONS:
        raise ValueError(f"method must be one of {', '.join(options.OPTIONS)}, got {method!r}")
    return method


def _known(words):
    """Return the options of the command that the arguments begin with, or [] for an unknown one."""
    try:
        name = _command(words)
        return reference.options(name, _method(name, words))
    except ValueError:
        return []


def _write_completion(words):
    """Write a script for a shell, with the options of all methods."""
    if len(words) != 2 or words[0] not in _SHELLS:
        raise ValueError(f"{_COMPLETION} requires SHELL FILE, SHELL one of {', '.join(_SHELLS)}")
    app, nested = tyro.extras.SubcommandApp(), {}
    for name, command in reference.COMMANDS.items():
        first, _, second = name.partition(" ")
        if second and first not in nested:
            nested[first] = tyro.extras.SubcommandApp()
            app.command(nested[first], name=first)
        known = {x.name: x for method in options.OPTIONS for x in reference.options(name, method)}
        parser: Any = arguments.parser(command, known=known.values())
        place = nested[first] if second else app
        place.command(parser, name=second or first, help=reference.summary(name))
    app.cli(prog="jaxdd", args=[_COMPLETION, *words])


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
    try:
        if words == ["--version"]:
            print(f"jaxdd {jaxdd.__version__}")
            return
        if words[:1] == [_COMPLETION]:
            _write_completion(words[1:])
            return
        first = [word for word in words if word not in ("-h", "--help")]
        if first in ([], ["datasets"], ["sets"]):
            print(_help(*first))
            return
        command = _parse(words)
        programs.prepare()
        is_quiet = command.keywords.get("output", screen.Output()).quiet
        with contextlib.redirect_stdout(io.StringIO() if is_quiet else sys.stdout):
            with _quiet_interrupts(), _warnings_on_one_line(), programs.fixed_settings():
                command()
    except (context.Interrupted, KeyboardInterrupt) as stopped:
        print(f"jaxdd: {str(stopped) or 'stopped'}", file=sys.stderr)
        if runs.RESUMABLE in getattr(stopped, "__notes__", ()):
            again = words if "--resume" in words else [*words, "--resume"]
            print(f"continue with: jaxdd {shlex.join(again)}", file=sys.stderr)
        processes.leave(130)
    except _EXPECTED_ERRORS as error:  # caused by the user; others are bugs
        text = errors.of_file(error, words) if isinstance(error, OSError) else str(error)
        text = errors.in_options(text, _known(words))
        print(f"jaxdd: {text or type(error).__name__}", file=sys.stderr)
        processes.leave(2)
    except (RuntimeError, AssertionError):
        if (platforms := _missing_platforms()) is None:
            raise
        print(f"jaxdd: no device for JAX_PLATFORMS={platforms}", file=sys.stderr)
        sys.exit(2)
