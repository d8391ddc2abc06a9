"""The entry point of `genlab`, `python -m genlab` and `torchrun ... -m genlab`."""

import contextlib
import sys

from genlab.errors import Interrupted
from genlab.stop import Stop


def main() -> int:
    """Runs the command of the process, and returns its exit code.

    Signals are caught before anything else is imported, so that there is an answer to an early one too.
    """
    with Stop() as stop:
        try:
            with stop.at_once("before it began; nothing was written"):
                from genlab.cli.main import main as run
        except Interrupted as error:
            with contextlib.suppress(OSError, ValueError):
                print(f"genlab: {error}", file=sys.stderr)
            return error.exit_code
        return run()


if __name__ == "__main__":
    sys.exit(main())
