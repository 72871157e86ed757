"""Distillation methods: how synthetic images are computed from real ones."""
