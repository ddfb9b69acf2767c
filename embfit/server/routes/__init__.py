"""The routes: what each reads of a request, and how it answers."""
