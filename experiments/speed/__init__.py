"""How fast jaxdd is: single pieces of work, and complete runs, compared with other libraries."""
