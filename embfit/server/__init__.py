"""The server: a bundle's champion answers over HTTP, and a new champion takes its place between two requests."""

from embfit.server.settings import ServerSettings

__all__ = ["ServerSettings"]
