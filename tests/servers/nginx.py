"""A private, real nginx for tests: own configuration, ports, pid file and logs below one directory.

Runs as root or as an ordinary user and never touches the machine's own nginx.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.servers.ports import free_port
from tests.servers.programs import find

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class SiteFiles:
    """Where one site lives: its configuration, certificate and key."""

    name: str
    conf: Path
    certificate: Path
    key: Path


class Nginx:
    """`http_port` serves `webroot` in clear (for file validation); `https_port` is where sites listen by default."""

    def __init__(self, directory: Path, *, nginx_binary: str = "nginx") -> None:
        found = find(nginx_binary)
        if found is None:
            raise FileNotFoundError(f"{nginx_binary} is not installed")
        self.binary = Path(found).resolve()
        self.directory = directory.resolve()
        self.conf_path = self.directory / "nginx.conf"
        self.webroot = self.directory / "webroot"
        self.certs = self.directory / "certs"
        self.sites = self.directory / "sites"
        self.error_log = self.directory / "error.log"
        self.access_log = self.directory / "access.log"
        self.pid_path = self.directory / "nginx.pid"
        self.http_port = free_port()
        self.https_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        for folder in (self.webroot, self.certs, self.sites, self.directory / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.webroot / "index.html").write_text("hello\n")
        self.conf_path.write_text(self._main_configuration())

    def _main_configuration(self) -> str:
        # As root the workers would become nobody, who can't enter a test's private directory.
        user = "user root;\n" if os.geteuid() == 0 else ""
        temporary = "".join(
            f"    {kind}_temp_path {self.directory}/tmp/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return (
            f"{user}worker_processes 1;\npid {self.pid_path};\nerror_log {self.error_log} info;\n"
            "events { worker_connections 256; }\n"
            "http {\n"
            f"    access_log {self.access_log};\n{temporary}"
            "    types { text/html html; text/plain txt; }\n    default_type text/plain;\n"
            "    server {\n"
            f"        listen 127.0.0.1:{self.http_port} default_server;\n"
            f"        root {self.webroot};\n"
            "    }\n"
            f"    include {self.sites}/*.conf;\n"
            "}\n"
        )

    def write_site(
        self,
        name: str,
        cert_pem: bytes,
        key_pem: bytes,
        *,
        server_names: Sequence[str] | None = None,
        listen: Sequence[str] | None = None,
        extra: str = "",
        files: str | None = None,
    ) -> SiteFiles:
        """Write a TLS site and its files; takes effect at the next start or reload.

        `listen` holds whole arguments of the directive (default: `127.0.0.1:<https_port> ssl`), `extra` further
        directives, `files` the base name of the certificate files when sites share them.
        """
        certificate, key = (self.certs / f"{files or name}.pem", self.certs / f"{files or name}.key")
        certificate.write_bytes(cert_pem)
        key.write_bytes(key_pem)
        key.chmod(0o600)
        conf = self.sites / f"{name}.conf"
        listens = "".join(f"    listen {what};\n" for what in listen or [f"127.0.0.1:{self.https_port} ssl"])
        conf.write_text(
            f"server {{\n{listens}"
            f"    server_name {' '.join(server_names if server_names is not None else [name])};\n"
            f"    ssl_certificate {certificate};\n"
            f"    ssl_certificate_key {key};\n"
            f"    root {self.webroot};\n{extra}"
            "}\n"
        )
        return SiteFiles(name, conf, certificate, key)

    def start(self) -> None:
        """Start and wait until the pid file and the clear-text port are there."""
        if self._process is not None:
            raise RuntimeError("this nginx runs already")
        self._process = subprocess.Popen(
            self._command("-g", "daemon off;"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        while not (self.pid_path.exists() and self._answers()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.error_log.read_text() if self.error_log.exists() else ""
                self.stop()
                raise RuntimeError(f"nginx didn't start: {said[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it, hard if it doesn't go; content to find it gone."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def reload(self) -> None:
        """Ask the running nginx to read its configuration again."""
        subprocess.run(self._command("-s", "reload"), check=True, capture_output=True)

    def test(self) -> str:
        """What `nginx -t` says (its standard error), whether good or bad."""
        return subprocess.run(self._command("-t"), check=False, capture_output=True).stderr.decode()

    def pid(self) -> int | None:
        """Process id of the running master, None when stopped."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.binary), "-p", str(self.directory), "-c", str(self.conf_path), *arguments]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.http_port), timeout=1):
                return True
        except OSError:
            return False
