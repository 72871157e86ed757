"""Tests of experiments are marked, so that the default run leaves them out."""

import pathlib

FOLDER = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker("experiments")
