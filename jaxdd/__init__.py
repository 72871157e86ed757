"""Dataset distillation in JAX that does not amplify the bias of the data it distils."""

__version__ = "0.1.0"
