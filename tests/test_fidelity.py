"""jaxdd agrees with the authors' code."""

import pytest

from experiments.fidelity import compare


@pytest.mark.parametrize("title", compare.SYSTEMS)
def test_agreement_with_the_authors(title):
    system = compare.SYSTEMS[title]
    measured = system.compare()
    assert measured.keys() == system.tolerance.keys()
    for what, difference in measured.items():
        assert difference <= system.tolerance[what], what
