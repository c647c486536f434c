"""`python -m simsched` is the command `simsched`; Ctrl-C is quiet while it still loads."""

from __future__ import annotations

import sys


def main() -> None:
    """Open the door."""
    try:
        from simsched.cli import main as door
    except KeyboardInterrupt:
        sys.stderr.write("simsched: interrupted\n")
        sys.exit(130)
    door()


if __name__ == "__main__":
    main()
