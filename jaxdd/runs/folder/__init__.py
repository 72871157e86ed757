"""The run folder: its files, checkpoints, expert networks and manifest."""
