"""Training and evaluation of networks, soft labels, LfF and SelecMix."""

from experiments.fidelity.system import System

SYSTEMS: dict[str, System] = {}
"""Systems by title."""
