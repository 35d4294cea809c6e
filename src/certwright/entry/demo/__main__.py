"""`python -m certwright.entry.demo [file|dns]`: prints `demo: passed` or `demo: failed at <step>: <reason>`."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from rich.console import Console

from certwright.entry.demo.story import METHODS, tell

_LONGEST = 300
"""Seconds after which a run is given up, wherever it hangs."""


def _interrupted(number: int, _: FrameType | None) -> None:
    # Only once: what stops everything in order must not be interrupted itself.
    for known in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(known, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    method = sys.argv[1] if len(sys.argv) > 1 else METHODS[0]
    console = Console()
    if method not in METHODS:
        console.print(f"demo: failed at start: DEMO is {' or '.join(METHODS)}, not {method}")
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _interrupted)
    signal.alarm(_LONGEST)
    failure = tell(method, console)
    signal.alarm(0)
    if failure is None:
        console.print("[bold green]demo: passed[/]")
        return 0
    console.print(f"demo: failed at {failure}", style="bold red", markup=False, soft_wrap=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
