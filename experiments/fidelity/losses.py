"""Losses of FairDD, COBRA, MTT, CFM, ELF and supervised contrastive learning."""

from experiments.fidelity.system import System

SYSTEMS: dict[str, System] = {}
"""Systems by title."""
