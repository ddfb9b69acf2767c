"""Many runs as one: which values to try, jobs that are never done twice, and a summary of all.

`-m` gives a space in Hydra's own grammar (`space`). A choice of the group `sweep` says which of its points to run: all
(`grid`) or what a sampler proposes (`search`). `folder` remembers what was asked and done, `jobs` composes and checks
each job and has a launcher run it, `summary` and `best` tell the end.
"""

from embfit.sweep.grid import Grid
from embfit.sweep.search import Optuna

__all__ = ["Grid", "Optuna"]
