"""Vectors in a team's own database: each version of a bundle has a collection, searched through the same interface."""
