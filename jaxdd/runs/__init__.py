"""Runs: options, the whole way in a folder, reports and the command line."""
