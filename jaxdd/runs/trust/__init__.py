"""Publishing, signing and auditing synthetic sets."""
