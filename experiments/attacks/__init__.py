"""The attacks of `experiments.reliability`, one module per group."""
