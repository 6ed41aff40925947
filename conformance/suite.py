"""Where the Autobahn test suite comes from: a Docker image, or an environment of Python 2.7 made here.

The suite is written for Python 2. Its Docker image is the usual way; without a Docker engine, an environment
with the pinned releases of ``requirements-python27.txt`` is made once, under ``conformance/.wstest``.
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
    """Neither Docker nor a Python 2.7 to make an environment with."""


class Suite:
    """A way to run ``wstest``: ``command`` comes before its arguments."""

    def __init__(self, name: str, command: list[str], reports: str) -> None:
        self.name = name
        self._command = command
        self._reports = reports  # the folder of reports, as the suite sees it

    def start(self, mode: str, config: dict[str, object], folder: str) -> subprocess.Popen[str]:
        """Starts the suite; its reports go to ``folder`` below `REPORTS`, its output to a pipe."""
        target = REPORTS / folder
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        (target / "config.json").write_text(
            json.dumps({**config, "outdir": f"{self._reports}/{folder}"}, indent=1)
        )
        arguments = ["-m", mode, "-s", f"{self._reports}/{folder}/config.json"]
        if mode == "fuzzingserver":
            arguments += ["-u", "0"]  # it would take port 8080 for a page of its own
        return subprocess.Popen(
            [*self._command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def find_suite() -> Suite:
    """Docker where an engine answers, else the local environment; raises `SuiteMissingError`."""
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
    asked = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60)
    return asked.returncode == 0


def _make_environment() -> None:
    python27 = next(_candidates(), None)
    if python27 is None:
        raise SuiteMissingError(
            "no Docker engine, and no Python 2.7: put python2.7 on the PATH, or its path into PYTHON27"
        )
    print(f"making an environment for the suite with {python27.name}, once", flush=True)
    shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
    boot = _ENVIRONMENT / "boot"
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Newer releases of virtualenv cannot make an environment for Python 2.7.
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
    # A shim of pyenv stands on the PATH whether or not that version is active.
    if (
        on_path is not None
        and subprocess.run([on_path, "-V"], capture_output=True, check=False).returncode == 0
    ):
        yield Path(on_path)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(root.glob("versions/2.7*/bin/python2.7"))
