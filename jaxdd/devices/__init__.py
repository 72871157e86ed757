"""Devices: meshes, micro-batches and pools split over several of them."""
