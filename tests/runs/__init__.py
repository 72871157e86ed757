"""A package, so that its modules may have the same names as modules in other folders."""
