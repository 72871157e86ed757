"""Data sets: benchmarks by name, your own images, everything to one form on the way in."""
