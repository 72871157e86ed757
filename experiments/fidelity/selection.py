"""Selection and preparation of images: RDED, DREAM, IDC and ZCA."""

from experiments.fidelity.system import System

SYSTEMS: dict[str, System] = {}
"""Systems by title."""
