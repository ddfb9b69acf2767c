"""A cluster of one machine: `sbatch`, `srun`, `sacct` and `scancel` that do what submitit and embfit ask of SLURM's.

A job runs at once, as a process of this machine; an array's all at a time. `install` writes the programs into a folder,
which is then put in front of PATH.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("sbatch", "srun", "sacct", "squeue", "scancel")


def install(folder: Path) -> Path:
    """Write the programs into a folder."""
    folder.mkdir(parents=True)
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        program.chmod(0o755)
    return folder


def sbatch(arguments: list[str]) -> None:
    """Start a batch script, once for each job of an array; keep it for `asked`."""
    [script] = [argument for argument in arguments if not argument.startswith("-")]
    text = Path(script).read_text(encoding="utf-8")
    number = os.getpid()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    last = re.match(r"0-(\d+)", options.get("array", ""))
    for task in range(int(last[1]) + 1) if last else [None]:
        own = {"SLURM_JOB_ID": str(number if task is None else number + 1 + task), "SLURM_JOB_NUM_NODES": "1"}
        tasks = options.get("ntasks-per-node", "1")
        own |= {"SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": tasks, "SLURM_JOB_NODELIST": "localhost"}
        if task is not None:
            own |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
        output = options.get("output", "slurm-%j.out").replace("%A", str(number)).replace("%a", str(task))
        file = Path(output.replace("%j", own["SLURM_JOB_ID"]))
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as said:
            subprocess.Popen(
                ["bash", script], stdout=said, stderr=said, env={**os.environ, **own}, start_new_session=True
            )
    print(f"Submitted batch job {number}")


def srun(arguments: list[str]) -> int:
    """Run a command as each of the job's tasks."""
    files = {"--output": None, "--error": None}
    while arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option in files:
            files[option] = arguments.pop(0)
    tasks = int(os.environ["SLURM_NTASKS"])
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    running = []
    for rank in range(tasks):
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        own |= {"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_TASKS_PER_NODE": str(tasks)}
        own |= {"SLURM_STEP_NODELIST": "localhost"}
        streams = {}
        for option, name in files.items():
            path = name and re.sub(r"%(A_%a|j)", job, name).replace("%t", str(rank))
            streams[option] = Path(path).open("ab") if path else None  # noqa: SIM115  # closed with this process
        running.append(
            subprocess.Popen(
                arguments, stdout=streams["--output"], stderr=streams["--error"], env={**os.environ, **own}
            )
        )
    return max(process.wait() for process in running)


def sacct(arguments: list[str]) -> None:
    """Tell that each job asked for runs, which is what one that has left no result does."""
    print("JobID|State|NodeList")
    for flag, job in itertools.pairwise(arguments):
        if flag == "-j":
            print(f"{job}_[0-9]|RUNNING|localhost")


def main(program: str, *arguments: str) -> int:
    """Run one of the programs."""
    if program == "sbatch":
        sbatch(list(arguments))
    elif program == "srun":
        return srun(list(arguments))
    elif program == "sacct":
        sacct(list(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
