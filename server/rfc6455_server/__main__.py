"""``python -m rfc6455_server`` is the command ``rfc6455-server``."""

import sys

from rfc6455_server.command.cli import main

if __name__ == "__main__":
    sys.exit(main())
