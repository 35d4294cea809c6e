"""The `certwright` command: starts the product, and works with it over its API.

Exit codes: 0 done, 1 refused or failed, 2 used wrongly, 3 not signed in (or not permitted to be), 4 not reachable.
"""

from __future__ import annotations


def main() -> None:
    """Entry of the console script. Everything heavy is imported by the command that needs it."""
    from certwright.entry.cli.app import run

    run()
