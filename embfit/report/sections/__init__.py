"""The parts of the page: each a function that gathers what is shown, and a template of the same name."""
