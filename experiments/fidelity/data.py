"""Data sets of FairDD and LfF."""

from experiments.fidelity.system import System

SYSTEMS: dict[str, System] = {}
"""Systems by title."""
