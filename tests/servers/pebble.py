"""A private, real Pebble (Let's Encrypt's ACME test CA) on free ports, at its own hostility unless told otherwise:
nonces refused at random, authorizations sometimes reused, challenges validated for real.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from tests.servers.ports import free_port
from tests.servers.programs import find
from tests.servers.tls import issue

_PATIENCE = 60.0


@dataclass(frozen=True)
class Pebble:
    """`root_pem` vouches for the directory's TLS; it looks for http-01 on `http_port` and for tls-alpn-01 on
    `tls_port`."""

    directory_url: str
    root_pem: str
    http_port: int
    tls_port: int
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def pebble(
    directory: Path,
    dns: str,
    *,
    http_port: int | None = None,
    tls_port: int | None = None,
    eab: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Pebble]:
    """Running; `dns` is the HOST:PORT it resolves names at, `eab` makes it take only accounts bound to these keys
    (kid → MAC key in base 64 for URLs)."""
    program = find("pebble")
    assert program is not None
    directory.mkdir(parents=True, exist_ok=True)
    root = issue("Pebble TLS root", ca=True)
    server = issue("127.0.0.1", root)
    (directory / "tls.pem").write_bytes(server.certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        server.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    listen, management, looked_at = free_port(), free_port(), http_port or free_port()
    answered_at = tls_port or free_port()
    config = {
        "listenAddress": f"127.0.0.1:{listen}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(directory / "tls.pem"),
        "privateKey": str(directory / "tls.key"),
        "httpPort": looked_at,
        "tlsPort": answered_at,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": eab is not None,
        "externalAccountMACKeys": dict(eab or {}),
    }
    (directory / "pebble.json").write_text(json.dumps({"pebble": config}))
    log = directory / "pebble.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "-config", str(directory / "pebble.json"), "-dnsserver", dns],
            stdout=out, stderr=subprocess.STDOUT, cwd=directory,
            # Validation otherwise begins after a random sleep of up to 15 seconds.
            env=os.environ | {"PEBBLE_VA_NOSLEEP": "1"} | dict(environ or {}),
        )  # fmt: skip
    root_pem = root.certificate.public_bytes(serialization.Encoding.PEM).decode()
    running = Pebble(f"https://127.0.0.1:{listen}/dir", root_pem, looked_at, answered_at, process, log)
    try:
        _await(running, listen)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _await(running: Pebble, port: int) -> None:
    context = ssl.create_default_context(cadata=running.root_pem)
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and running.process.poll() is None:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=1) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1"),
            ):
                return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"pebble didn't start: {running.log.read_text(errors='replace')[-2000:]}")
