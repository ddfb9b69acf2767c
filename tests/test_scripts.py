"""The scripts with an environment that the user already has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(script: str, *arguments: str, python: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(SCRIPTS / script), *arguments],
        cwd=cwd,
        env=environment | {"EMBFIT_PYTHON": python, "XDG_CONFIG_HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A Python without packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    return str(tmp_path / "bare" / "bin" / "python")


@pytest.mark.parametrize("python", ["nope", "/", __file__])
def test_what_is_no_program(tmp_path, python):
    done = run("environment", python=python, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"EMBFIT_PYTHON={python} is no program; name a Python, such as ENV/bin/python\n"


def test_what_is_no_python(tmp_path):
    done = run("environment", python="/bin/ls", cwd=tmp_path)
    assert done.stderr == "EMBFIT_PYTHON=/bin/ls is no Python of 3.11 or newer\n"


def test_an_environment_that_lacks_packages(tmp_path, bare):
    first, remedy = run("environment", "dev", python=bare, cwd=tmp_path).stderr.splitlines()
    assert first.startswith(f"EMBFIT_PYTHON={bare} lacks hydra torch ")
    assert remedy.endswith(f"{bare} -m pip install -c scripts/constraints.txt -e '.[dev]'")


def test_a_path_is_that_of_the_folder_in_which_it_was_typed(tmp_path):
    given = os.path.relpath(sys.executable, tmp_path)
    assert Path(run("environment", python=given, cwd=tmp_path).stdout.strip()).samefile(sys.executable)


def test_the_quickstart_takes_overrides_from_any_folder(tmp_path):
    done = run(
        "quickstart", "--explain", "training.lr", "loss=mrl", "training.lr=1e-4", python=sys.executable, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    place = "conf/experiment/quickstart.yaml:"
    assert done.stdout.startswith(f"training.lr  0.0001  command line, over 5e-05 in {place}")
