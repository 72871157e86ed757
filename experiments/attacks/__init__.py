"""What `experiments.reliability` tries: one module for each group of attacks."""
