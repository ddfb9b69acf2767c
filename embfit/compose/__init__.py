"""Turns a command line and YAML files into checked values, before anything heavy is imported.

`search_path` finds the folders of choices, `composition` composes one configuration, `hydra_errors` turns Hydra's
errors into short messages, `provenance` records where each value was written, `preflight` checks every value against
the code that receives it, `rules` checks values of different groups against each other, and `build` makes the objects
that a task names.
"""
