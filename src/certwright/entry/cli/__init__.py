"""The `certwright` command: starts the product, and works with it over its API.

Exit codes: 0 done, 1 refused or failed, 2 used wrongly, 3 not signed in (or not permitted to be), 4 not reachable.
"""

from __future__ import annotations


def main() -> None:
    """Entry of the console script. Everything heavy is imported by the command that needs it."""
    import sys

    if sys.argv[1:2] == ["x509"]:
        # The offline commands are used on one file at a time, in loops: without the tree of all others they start
        # in half the time.
        from certwright.entry.cli.x509 import run as run_offline

        run_offline(sys.argv[2:])
    else:
        from certwright.entry.cli.app import run

        run()
