"""From a command line and YAML to values that are known to be right, before anything heavy is imported or touched.

`search_path` says which folders hold choices, `composition` puts one configuration together, `explain` turns Hydra's
refusals into short messages, `provenance` knows where each value was written, `preflight` holds every value to the code
that it is for, `rules` holds values of different groups to each other, and `build` makes the objects that a task names.
"""
