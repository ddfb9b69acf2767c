"""The version of embfit."""

__version__ = "0.1.0"
