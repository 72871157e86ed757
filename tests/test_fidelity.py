"""jaxdd agrees with the authors' code."""

import pathlib

import pytest

from experiments.fidelity import compare


@pytest.mark.parametrize("title", compare.SYSTEMS)
def test_agreement_with_the_authors(title):
    system = compare.SYSTEMS[title]
    measured = system.compare()
    assert measured.keys() == system.tolerance.keys()
    for what, difference in measured.items():
        assert difference <= system.tolerance[what], what


def test_the_page_is_generated_from_the_results():
    page = pathlib.Path(__file__).parents[1] / "docs" / "results" / "fidelity.md"
    assert page.read_text(encoding="utf-8").endswith("\n".join(compare.page()) + "\n")
