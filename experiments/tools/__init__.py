"""What the claims are computed with, and the tables that are made of them."""
