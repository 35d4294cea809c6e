"""Ports for servers of tests that nobody else takes between choosing one and listening on it.

They lie below those the system gives to outgoing connections and to whoever asks for any port, and above those of the
demonstration. Each is this process's for as long as it lives: it locks the port's byte of a file that all test
processes of this user share, and never gives the port out again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import tempfile
from functools import cache
from pathlib import Path

PORTS = range(20_000, 32_000)

_given: set[int] = set()


def free_port(*addresses: str) -> int:
    """A port nobody else gets, free for UDP and TCP on every one of the addresses (default: 127.0.0.1)."""
    for _ in range(1000):
        port = secrets.choice(PORTS)
        # A process's own locks don't hold it up.
        if port not in _given and _claim(port):
            _given.add(port)
            if all(_is_free(address, port) for address in addresses or ("127.0.0.1",)):
                return port
    raise RuntimeError("no free port was found")


@cache
def _claims() -> int:
    path = Path(tempfile.gettempdir()) / f"certwright-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _claim(port: int) -> bool:
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True
