"""One file per claim; its docstring holds the question, command, cost and result."""
