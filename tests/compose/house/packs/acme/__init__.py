"""A config pack for tests."""
