"""`python -m certwright`: the same as the `certwright` command."""

from __future__ import annotations

from certwright.entry.cli import main

if __name__ == "__main__":
    main()
