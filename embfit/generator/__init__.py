"""Synthetic queries."""
