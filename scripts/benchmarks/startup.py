"""How long a command takes to answer what is wrong with it, and a run to reach its first stage, beside `import torch`.

Each command is a process of its own; commands alternate, and the processor time of each (user and system, so that
other work on the machine matters little) is compared with that of `python -c "import torch"` of the same round. As in
an installed package, all modules have their bytecode: a first round writes it and is not counted.

    python scripts/benchmarks/startup.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

EMBFIT = ["-m", "embfit"]
TO_FIRST_STAGE = """
import os, sys
from embfit.app import main
from embfit.run.folder import RunFolder

def stop(run, name):
    assert name == "load data", name
    os._exit(0)

RunFolder.stage = stop
main(sys.argv[1:])
os._exit(1)  # it never came there
"""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with TemporaryDirectory() as folder:
        commands = commands_in(Path(folder))
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment = {**kept, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        for command, code in commands.values():
            processor_seconds(command, code, environment)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, (command, code) in commands.items():
                seconds[name].append(processor_seconds(command, code, environment))
    first = next(iter(commands))
    print(f"{'command':42}  seconds  times import torch")
    for name, found in seconds.items():
        ratio = median(one / torch for one, torch in zip(found, seconds[first], strict=True))
        print(f"{name:42}  {median(found):7.2f}  {ratio:7.2f}")


def commands_in(folder: Path) -> dict[str, tuple[list[str], int]]:
    """Return the commands to compare, each with the exit code that it has, the yardstick first."""
    run = ["data=beir", f"data.path={folder}", f"store.dir={folder}/store", f"run.dir={folder}/run"]
    return {
        "import torch": (["-c", "import torch"], 0),
        "--help": ([*EMBFIT, "--help"], 0),
        "loss=mlr": ([*EMBFIT, "loss=mlr"], 2),
        "data=beir data.path=/nowhere": ([*EMBFIT, "data=beir", "data.path=/nowhere"], 2),
        "training.epochs=abc": ([*EMBFIT, "training.epochs=abc"], 2),
        "trainer.num_nodes=abc": ([*EMBFIT, "trainer.num_nodes=abc"], 2),
        "a run, until it loads data": (["-c", TO_FIRST_STAGE, *run], 0),
    }


def processor_seconds(command: Sequence[str], code: int, environment: Mapping[str, str]) -> float:
    """Run Python with these arguments and return its processor time; another exit code than expected is an error."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
