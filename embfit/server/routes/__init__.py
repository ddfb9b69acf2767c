"""The HTTP routes: each reads a request and builds its answer."""
