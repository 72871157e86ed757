"""Tests of experiments are marked, so that the default run leaves them out."""

import contextlib
import pathlib

import pytest

from jaxdd.runs.reports import style

FOLDER = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker("experiments")


@pytest.fixture
def drawn(monkeypatch):
    """Figures that are drawn, before they are closed."""
    figures, original = [], style.figure

    @contextlib.contextmanager
    def recorded(*args, **options):
        with original(*args, **options) as figure:
            figures.append(figure)
            yield figure

    monkeypatch.setattr(style, "figure", recorded)
    return figures
