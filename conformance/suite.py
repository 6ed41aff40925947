"""Finds the Autobahn test suite: a Docker image, or an environment with Python 2.7.

The suite is written for Python 2, and usually runs from its Docker image. Without a Docker engine, this
module installs the pinned releases of ``requirements-python27.txt`` once, under ``conformance/.wstest``.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
REPORTS = HERE / "reports"
_ENVIRONMENT = HERE / ".wstest"
_IMAGE = "crossbario/autobahn-testsuite:25.10.1"
_CONTAINER_REPORTS = "/reports"


class SuiteMissingError(Exception):
    """There is neither a Docker engine nor a Python 2.7."""


class Suite:
    """A way to run ``wstest``: ``command`` is put before its arguments."""

    def __init__(self, name: str, command: list[str], reports: str) -> None:
        self.name = name
        self._command = command
        self._reports = reports  # the path of the reports folder inside the container, or on this machine

    def start(self, mode: str, config: dict[str, object], folder: str) -> subprocess.Popen[str]:
        """Starts the suite. It writes its reports to ``folder`` below `REPORTS`, and its output to a pipe."""
        target = REPORTS / folder
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        (target / "config.json").write_text(
            json.dumps({**config, "outdir": f"{self._reports}/{folder}"}, indent=1)
        )
        arguments = ["-m", mode, "-s", f"{self._reports}/{folder}/config.json"]
        if mode == "fuzzingserver":
            arguments += ["-u", "0"]  # otherwise it serves a page on port 8080
        return subprocess.Popen(
            [*self._command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def find_suite() -> Suite:
    """Returns the Docker image if an engine runs, else the local environment. Raises `SuiteMissingError`."""
    REPORTS.mkdir(exist_ok=True)
    if _docker_answers():
        command = ["docker", "run", "--rm", "--init", "--network", "host"]
        command += ["--volume", f"{REPORTS}:{_CONTAINER_REPORTS}", _IMAGE, "wstest"]
        return Suite("Docker", command, _CONTAINER_REPORTS)
    wstest = _ENVIRONMENT / "bin" / "wstest"
    if not wstest.exists():
        _make_environment()
    return Suite("local", [str(wstest)], str(REPORTS))


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    answer = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60)
    return answer.returncode == 0


def _make_environment() -> None:
    python27 = next(_candidates(), None)
    if python27 is None:
        raise SuiteMissingError(
            "no Docker engine and no Python 2.7: put python2.7 on the PATH, or set PYTHON27 to its path"
        )
    print(f"installing the suite for {python27.name} (only once)", flush=True)
    shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
    boot = _ENVIRONMENT / "boot"
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Newer releases of virtualenv do not support Python 2.7.
    for command in (
        [sys.executable, "-m", "venv", str(boot)],
        [str(boot / "bin" / "python"), *pip, "virtualenv==20.21.1"],
        [str(boot / "bin" / "virtualenv"), "--quiet", "--python", str(python27), str(_ENVIRONMENT)],
        [
            str(_ENVIRONMENT / "bin" / "pip"),
            "install",
            "--quiet",
            "-r",
            str(HERE / "requirements-python27.txt"),
        ],
    ):
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def _candidates() -> Iterator[Path]:
    if "PYTHON27" in os.environ:
        yield Path(os.environ["PYTHON27"])
    on_path = shutil.which("python2.7")
    # A shim of pyenv is on the PATH even if that version is not active.
    if (
        on_path is not None
        and subprocess.run([on_path, "-V"], capture_output=True, check=False).returncode == 0
    ):
        yield Path(on_path)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(root.glob("versions/2.7*/bin/python2.7"))
