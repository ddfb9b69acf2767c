"""Where the jobs of a sweep run: in this process, in several processes side by side, or on a cluster.

A job is prepared before it is launched: its configuration is resolved and its folder is named. The process that runs it
reads no command line and composes nothing, so a job that waits in a queue for a day is still the one that was asked
for.
"""

from embfit.launcher.in_process import InProcess
from embfit.launcher.parallel import Parallel
from embfit.launcher.prepared_job import PreparedJob
from embfit.launcher.slurm import Slurm

__all__ = ["InProcess", "Parallel", "PreparedJob", "Slurm"]
