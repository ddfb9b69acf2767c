"""Many runs under one command: which values to try, jobs that never run twice, and a summary of all results.

`-m` describes a space of values in Hydra's own grammar (`space`). The group `sweep` says which of its points to run:
all of them (`grid`) or those that a sampler proposes (`search`). `folder` records what was asked and done. `jobs`
composes and checks each job and lets a launcher run it. `summary` and `best_experiment` report the results.
"""

from embfit.sweep.grid import Grid
from embfit.sweep.search import Optuna

__all__ = ["Grid", "Optuna"]
