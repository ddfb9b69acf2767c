"""`python -m embfit`, and the console script `embfit`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; return the exit code."""
    from embfit.app import main as run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
