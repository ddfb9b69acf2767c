"""The Docker and compose files, as far as they can be held to the repository without Docker."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from embfit.app import main
from embfit.server import ServerSettings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
SERVICE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]["search"]
KNOWN = {"FROM", "WORKDIR", "RUN", "ENV", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments; lines that go on are joined."""
    joined = re.sub(r"\\\n\s*", "", DOCKERFILE)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_every_instruction_is_known_and_every_file_is_there() -> None:
    found = instructions()
    assert {name for name, _ in found} == KNOWN
    for name, arguments in found:
        if name == "COPY" and "--from" not in arguments:
            assert all((ROOT / source).exists() for source in shlex.split(arguments)[:-1]), arguments
        if name in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(word, str) for word in json.loads(arguments))


def test_the_image_installs_extras_that_there_are_under_the_constraints() -> None:
    installs = [arguments for name, arguments in instructions() if name == "RUN" and "pip install" in arguments]
    assert all("--constraint scripts/constraints.txt" in one and "--no-cache-dir" in one for one in installs)
    [extras] = re.findall(r"'\.\[(.*)\]'", DOCKERFILE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*extras.split(",")} <= project["optional-dependencies"].keys()
    assert ">=3.11" in project["requires-python"]


def test_nothing_runs_as_root_and_the_port_is_the_servers() -> None:
    by_name = dict(instructions())  # the last of each
    assert by_name["USER"] == "embfit"
    assert int(by_name["EXPOSE"]) == ServerSettings().port
    assert f":{ServerSettings().port}/health" in by_name["HEALTHCHECK"]
    assert SERVICE["ports"] == [f"127.0.0.1:${{PORT:-8000}}:{ServerSettings().port}"]
    assert (SERVICE["read_only"], SERVICE["volumes"][0].endswith(":ro")) == (True, True)
    assert float(SERVICE["stop_grace_period"].rstrip("s")) > ServerSettings().stop_seconds
    assert (ROOT / "docker" / SERVICE["build"]["context"] / SERVICE["build"]["dockerfile"]).is_file()


@pytest.mark.slow  # downloads PyTorch
@pytest.mark.skipif(shutil.which("docker") is None, reason="Docker is not installed here")
def test_the_image_is_built_and_has_what_a_server_needs() -> None:
    image = f"embfit-test-{os.getpid()}"
    build = ["docker", "build", "--file", str(ROOT / "docker" / "Dockerfile"), "--tag", image, str(ROOT)]
    subprocess.run(build, check=True, timeout=3600)
    try:
        asked = ["docker", "run", "--rm", "--network", "none", image, "serve", "bundle.name=docs"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=False)
        said = " ".join((done.stdout + done.stderr).split())
        assert (done.returncode, "has no bundle 'docs'" in said) == (1, True), said
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], check=True, timeout=300)


@pytest.mark.parametrize("command", [json.loads(dict(instructions())["CMD"]), SERVICE["command"]])
def test_their_commands_compose(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in command]
    assert main([*words, "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["bundle"]["name"], shown["server"]["host"]) == ("docs", "0.0.0.0")
