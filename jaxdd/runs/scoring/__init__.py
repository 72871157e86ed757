"""Scoring of synthetic sets, including sets made by other tools."""
