"""Team B's choices."""
