"""Tools that experiments share, and the tables of their results."""
