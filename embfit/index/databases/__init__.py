"""Vectors in a team's own database: a collection for each version of a bundle, searched behind the same seam."""
