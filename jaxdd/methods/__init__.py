"""Distillation methods: how synthetic images are computed from real ones."""

from jaxdd.methods import cfm, experts, formation, spectral, zca
from jaxdd.methods.cfm import CurriculumState, curriculum_matching
from jaxdd.methods.distribution import State, distribution_matching
from jaxdd.methods.gradient import GradientState, gradient_matching
from jaxdd.methods.loop import chunk, run, steps
from jaxdd.methods.protocol import Method
from jaxdd.methods.trajectory import TrajectoryState, trajectory_matching

__all__ = [
    "CurriculumState",
    "GradientState",
    "Method",
    "State",
    "TrajectoryState",
    "cfm",
    "chunk",
    "curriculum_matching",
    "distribution_matching",
    "experts",
    "formation",
    "gradient_matching",
    "run",
    "spectral",
    "steps",
    "trajectory_matching",
    "zca",
]
