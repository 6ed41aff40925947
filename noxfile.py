"""Runs the tests on every supported CPython that the machine has: `make test-all`."""

import os
import subprocess
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
"""The supported versions. The classifiers in pyproject.toml and the workflow's matrix list the same ones."""

nox.options.error_on_missing_interpreters = False  # reports a missing version and skips it


def pyenv_pythons() -> list[str]:
    """Returns the directories of pyenv's interpreters, the newest first; an empty list without pyenv.

    pyenv's shims, which are on the PATH, fail for a version that is installed but not selected.
    """
    try:
        root = subprocess.run(["pyenv", "root"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607 - on the PATH
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    found = Path(root, "versions").glob("3.*/bin")
    return [str(path) for path in sorted(found, key=version, reverse=True)]


def version(directory: Path) -> list[int]:
    """Returns the version of `versions/3.12.1/bin` as numbers, to sort by."""
    return [int(part) for part in directory.parent.name.split(".") if part.isdigit()]


os.environ["PATH"] = os.pathsep.join([*pyenv_pythons(), os.environ["PATH"]])


@nox.session(python=PYTHONS, reuse_venv=True)
def tests(session: nox.Session) -> None:
    """Runs the tests; the arguments after `--` go to pytest."""
    session.install("--quiet", "--editable", ".[dev]")
    session.run("pytest", *session.posargs)
