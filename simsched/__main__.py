"""`python -m simsched` is the command `simsched`."""

from __future__ import annotations

from simsched.cli import main

main()
