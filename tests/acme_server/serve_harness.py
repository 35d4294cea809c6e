"""Forks `certwright serve` again and again, and kills it; driven by test_acme_sigkill.py, a command a line.

    start OPTION…    `certwright serve OPTION…`; its process id is printed
    kill             SIGKILL for all of its processes but PostgreSQL's, at once
    kill-first       SIGKILL for the first of them
    stop             SIGTERM for the first of them

Each life is a process of its own, that is started as from the command line and knows only what lies in its data
directory. Forking saves it the two seconds it takes to import the product.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

from certwright.entry import app, serve  # noqa: F401  (what a start would import)
from certwright.entry.cli.app import run


def live(log: str, options: list[str]) -> None:
    """In the child: what it prints goes where ours goes, what it logs to a file."""
    os.setsid()
    for path, flags, descriptor in ((os.devnull, os.O_RDONLY, 0), (log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 2)):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["certwright", "serve", *options]
    run()


def main(log: str) -> None:
    # Children share what was imported instead of copying it at their first collection.
    gc.freeze()
    alive: int | None = None
    for line in sys.stdin:
        word, *options = line.split()
        if word == "start":
            assert alive is None
            alive = os.fork()
            if alive == 0:
                live(log, options)
                os._exit(0)
            print(f"process {alive}", flush=True)
        else:
            assert alive is not None
            if word == "kill":
                # PostgreSQL is a group of its own.
                os.killpg(alive, signal.SIGKILL)
            end(alive, signal.SIGTERM if word == "stop" else signal.SIGKILL)
            alive = None
            print("ended", flush=True)
    if alive is not None:
        end(alive, signal.SIGTERM)


def end(pid: int, how: signal.Signals) -> None:
    # Once it is waited for, the kernel has closed what it held.
    os.kill(pid, how)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1])
