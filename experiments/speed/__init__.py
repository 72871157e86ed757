"""How fast jaxdd is: pieces of work against their peers, and the whole way."""
