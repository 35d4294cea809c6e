"""A DNS server to which no name exists, for tests that ask about names without caring what is said.

The machine's own resolver isn't for them: what it says is not ours to know, and when it says nothing a test waits for
seconds. It is a process of its own, as threads don't go well with forking, and ends with whoever started it.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Response, recursion desired and available, NXDOMAIN; one question and nothing else (RFC 1035 section 4.1.1).
_FLAGS_AND_COUNTS = bytes.fromhex("8183 0001 0000 0000 0000")
_HEADER = 12


def answer(query: bytes) -> bytes:
    """The question alone comes back: what else stood in the query, such as EDNS, isn't known here."""
    at = _HEADER
    while query[at]:
        at += 1 + query[at]
    return query[:2] + _FLAGS_AND_COUNTS + query[_HEADER : at + 5]


@contextmanager
def no_names() -> Iterator[str]:
    """Its endpoint, "127.0.0.1:port"."""
    command = [sys.executable, "-S", str(Path(__file__))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _serve() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        print(f"127.0.0.1:{udp.getsockname()[1]}", flush=True)
        while True:
            ready, _, _ = select.select([udp, sys.stdin], [], [])
            if sys.stdin in ready:
                return  # closed: nobody needs it any more
            query, peer = udp.recvfrom(65535)
            if len(query) > _HEADER + 4:
                udp.sendto(answer(query), peer)


if __name__ == "__main__":
    _serve()
