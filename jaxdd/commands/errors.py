"""Error messages in the words of the command line, and suggestions for what was mistyped."""

import difflib
import inspect
import re
from collections.abc import Collection, Iterable

from jaxdd.commands.arguments import Option

_KINDS = {"INT": "an integer", "FLOAT": "a number"}


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return a question that suggests a name, or ";" if none is similar, to end a sentence.

    >>> did_you_mean("--lr", ["--learning-rate", "--lr-teacher"])
    '; did you mean --learning-rate?'
    """
    initials = [name for name in known if _initials(name) == word.strip("-")]
    close = difflib.get_close_matches(word, known, 1)
    longer = [name for name in known if len(word) > 4 and word.strip("-") in name]
    similar = initials + close + longer
    return f"; did you mean {similar[0]}?" if similar else ";"


def _initials(name):
    return "".join(part[0] for part in name.split("-") if part)


def in_options(message: str, known: Iterable[Option]) -> str:
    """Return an error message with options as on the command line instead of Python's names.

    >>> seeds = Option("eval_seeds", ("--seeds",), "INT", "", "", "options", int, 3)
    >>> in_options("eval_seeds must be at least 1, got 0", [seeds])
    '--seeds must be at least 1, got 0'
    """
    for option in known:
        name, flag = option.name, option.flags[0] if option.flags else option.metavar
        message = re.sub(rf"(?<![\w./'-]){name}='?([\w.-]*)'?", rf"{flag} \1", message)
        message = re.sub(rf"^{name}(?= (must|cannot|requires)\b)", flag, message)
        if "_" in name:  # others are words of a sentence, too
            message = re.sub(rf"(?<![\w./'-]){name}(?![\w/'=]|\.\w)", flag, message)
    return " ".join(message.split())


def of_file(error: OSError, words: list[str]) -> str:
    """Return the message of an error about a file, with the option that names the file."""
    if error.filename is None:
        return str(error)
    path = str(error.filename)
    at = words.index(path) if path in words else 0
    option = f"{words[at - 1]}: " if at and words[at - 1].startswith("-") else ""
    is_missing = isinstance(error, FileNotFoundError)
    return f"{option}{path} {'does not exist' if is_missing else f'({error.strerror})'}"


def of_parser(printed: str, command: str, known: list[Option]) -> str:
    """Return the message of an error of tyro, which comes in a box.

    Args:
        printed: what tyro printed.
        command: name of the command.
        known: arguments and options of the command.
    """
    text = re.sub(r"[│╭╮╰╯]|\x1b\[[0-9;]*m", " ", printed)
    body = re.split(r"[─-]{3,}", text + "---")[1]  # between the title and the help of the option
    words = body.split()
    names = {x.flags[0] if x.flags else x.metavar: x for x in known}
    named = [x for word in words for name, x in names.items() if name in re.split("[^-\\w]", word)]
    if words[:2] == ["Missing", "value"]:
        return f"{named[0].flags[0]} requires a value: {named[0].flags[0]} {named[0].metavar}"
    if words[:1] == ["Missing"]:
        missing = [x for x in named if x.value is inspect.Parameter.empty]
        usage = dict.fromkeys(" ".join((*x.flags[:1], x.metavar)) for x in missing)
        return f"`jaxdd {command}` requires {' and '.join(usage)}"
    if named and (value := re.search(r"'([^']*)'", body.partition(":")[2] or body)):
        (flag, *_), metavar = named[0].flags, named[0].metavar
        kind = _KINDS.get(metavar) or f"one of {metavar.strip('{} .').replace(',', ', ')}"
        return f"{flag} must be {kind}, got {value[1]!r}"
    return " ".join(words).replace("Unrecognized options:", "unexpected argument")
