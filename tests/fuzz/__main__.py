"""`python -m tests.fuzz TARGET [libFuzzer options]` runs a target by Atheris; without arguments, lists them.

New inputs are kept in build/fuzz/TARGET, where the next run starts, and inputs that fail in
build/fuzz/failed. Give one of those as the argument after the target to run it alone. With `quick` after
the target, it makes the same few inputs each time, and keeps none.
"""

import inspect
import shutil
import sys
from pathlib import Path

from tests.fuzz.inputs import SEEDS

BUILD = Path("build", "fuzz")
QUICK = ["-runs=2000", "-seed=1", "-timeout=20", "-verbosity=0"]


def main(arguments: list[str]) -> int:
    try:
        import atheris  # the extra `fuzz`: it has no wheel for every Python
    except ImportError:
        sys.exit("Atheris is not installed: pip install -e .[fuzz], on a Python that it has a wheel for")
    # Instruments what is imported here, and nothing that is there already.
    with atheris.instrument_imports(include=["rfc6455", "rfc6455_server.socketio"]):
        from tests.fuzz.targets import TARGETS
    if not arguments:
        for name, target in TARGETS.items():
            print(f"{name}: {inspect.getdoc(target)}")
        return 0
    name, *options = arguments
    if name not in TARGETS:
        sys.exit(f"no target {name}: one of {', '.join(TARGETS)}")
    failed = BUILD / "failed"
    failed.mkdir(parents=True, exist_ok=True)
    found = BUILD / name
    if options == ["quick"]:
        options, found = [*QUICK], BUILD / "quick"
        shutil.rmtree(found, ignore_errors=True)
    if not options or options[-1].startswith("-"):
        found.mkdir(exist_ok=True)
        options += [str(found), str(SEEDS / name)]
    options = ["-max_len=4096", f"-artifact_prefix={failed}/{name}-", *options]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
