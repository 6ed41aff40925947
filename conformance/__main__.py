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
    """The exit status: 0, 1 where something is not as expected, 2 where it cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m conformance")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="run the Autobahn test suite")
    command.add_argument("--quick", action="store_true", help="a sample of the compression cases only")
    command.add_argument("--role", choices=["server", "client"], help="one of our roles (both)")
    command.add_argument("--without-numpy", action="store_true", help="as if it were not installed")
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
