"""The conformance tools.

``python -m conformance run [--quick] [--role ROLE] [--without-numpy]``, ``… clauses [--markdown]``,
``… slugs [--write]``.
"""

import argparse
import sys
from collections.abc import Sequence

from conformance import clauses, slugs
from conformance.runner import ALL, QUICK, run
from conformance.suite import SuiteMissingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0; 1 if a result is not the expected one; 2 if the suite cannot run."""
    parser = argparse.ArgumentParser(prog="python -m conformance")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="run the Autobahn test suite")
    command.add_argument("--quick", action="store_true", help="run only a sample of the compression cases")
    command.add_argument("--role", choices=["server", "client"], help="test only this role (both)")
    command.add_argument("--without-numpy", action="store_true", help="run as if numpy were not installed")
    command = commands.add_parser("clauses", help="show the map of the RFCs' clauses")
    command.add_argument("--markdown", action="store_true", help="write docs/rfc-clauses.md")
    command = commands.add_parser("slugs", help="show the table of the errors' slugs")
    command.add_argument("--write", action="store_true", help="write docs/slugs.md")
    options = parser.parse_args(arguments)
    if options.command == "clauses":
        return clauses.show(markdown_file=options.markdown)
    if options.command == "slugs":
        return slugs.show(write=options.write)
    roles = [options.role] if options.role else ["server", "client"]
    try:
        return run(QUICK if options.quick else ALL, roles, without_numpy=options.without_numpy)
    except SuiteMissingError as error:
        print(f"python -m conformance: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
