"""Messages in the words of the command line: options, files, and names that were mistyped."""

import pytest

from jaxdd.commands import errors, reference

RUN = reference.options("run", "cfm")


@pytest.mark.parametrize(
    "message, expected",
    [
        ("save_every must be at least 0, got -1", "--save-every must be at least 0, got -1"),
        ("give its folder as data_dir.", "give its folder as --data-dir."),
        ("debias='custom' requires weights=", "--debias custom requires --weights"),
        (
            "a multiple of ipc=10 times class_parts=2",
            "a multiple of --ipc 10 times --class-parts 2",
        ),
        ("dataset must be a name", "DATASET must be a name"),
        ("runs/data_dir/a.png, data_dir.csv", "runs/data_dir/a.png, data_dir.csv"),
        ("the steps of the network must end", "the steps of the network must end"),
    ],
)
def test_python_names_become_options(message, expected):
    assert errors.in_options(message, RUN) == expected


@pytest.mark.parametrize(
    "word, expected",
    [
        ("--lr", "--learning-rate"),
        ("--eval-seeds", "--seeds"),
        ("--networks", "--network"),
        ("--epoch", "--epochs"),
        ("--parts", "--class-parts"),
        ("--xyzzy", ""),
    ],
)
def test_similar_names_are_suggested(word, expected):
    flags = [option.flags[0] for option in RUN if option.flags]
    question = errors.did_you_mean(word, flags)
    assert question == (f"; did you mean {expected}?" if expected else ";")


def test_files_are_named_with_their_option():
    missing, denied = (
        FileNotFoundError(2, "No such file", "w.npy"),
        PermissionError(13, "Denied", "x"),
    )
    words = ["run", "cdigits", "--weights", "w.npy"]
    assert errors.of_file(missing, words) == "--weights: w.npy does not exist"
    assert errors.of_file(missing, []) == "w.npy does not exist"
    assert errors.of_file(denied, words) == "x (Denied)"
    assert errors.of_file(OSError("other"), words) == "other"
