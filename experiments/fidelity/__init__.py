"""Comparisons of jaxdd with the code of the authors whose methods it reimplements.

    python -m experiments.fidelity.compare

Each system has a file of vectors in tests/reference/authors: inputs, and what the unmodified code
of the authors returned for them. `compare` measures the agreement and writes results/fidelity.json.
"""
