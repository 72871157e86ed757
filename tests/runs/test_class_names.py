"""Tests of matching classes by name."""

import pytest

from jaxdd.runs import class_names


@pytest.mark.parametrize(
    ("names", "known", "expected"),
    [
        (["cat", "dog"], ["dog", "cat"], [1, 0]),
        (["1", "0"], ["cat", "dog"], [1, 0]),  # numbers of classes that have other names
        (["1", "2"], ["2", "1"], [1, 0]),  # numbers that are names
        (["00", "01"], ["0", "1"], [0, 1]),
        ([" a  b"], ["a b"], [0]),
        (["cafe\u0301"], ["caf\u00e9"], [0]),
        (["cat", "dog"], [], [0, 1]),
        (["3", "7"], [], [3, 7]),
    ],
)
def test_classes_are_matched_by_name_or_number(names, known, expected):
    assert class_names.positions(names, known, of="data").tolist() == expected


@pytest.mark.parametrize(
    ("names", "known", "message"),
    [
        (["bee", "cow"], ["ant", "bee", "cow"], "of pets; missing: 'ant'; additional: none"),
        (["bee", "z_ant"], ["ant", "bee"], "missing: 'ant'; additional: 'z_ant'"),
        (["0", "1"], ["1", "2"], "missing: '2'; additional: '0'"),
        (["Cat"], ["cat"], "missing: 'cat'; additional: 'Cat'"),
        ([f"c{i}" for i in range(9)], ["a"], "'c4', …"),
    ],
)
def test_other_classes_are_named(names, known, message):
    with pytest.raises(ValueError, match=message):
        class_names.positions(names, known, of="pets")
