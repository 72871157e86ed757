"""The run folder: its files, checkpoints and manifest."""
