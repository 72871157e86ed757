"""Runs: options, registries, stages, run folders, reports, scoring and publication."""
