"""One file per claim: the docstring holds the command, the cost and what was found."""
