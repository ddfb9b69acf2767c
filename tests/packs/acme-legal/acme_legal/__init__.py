"""Team A's choices, and the code that they name."""
