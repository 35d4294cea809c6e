"""What the demonstration starts: the product, a private nginx, a private Knot DNS. All of it ends with it."""

from __future__ import annotations

import base64
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_PATIENCE = 15.0
# Below those the system gives to outgoing connections: one of these could have the port whenever nobody listens.
_PORTS = range(12_000, 20_000)


class DemoError(Exception):
    """A step can't succeed; the message is the reason that is printed."""


def find(program: str, package: str) -> str:
    """The full path; Debian keeps servers where ordinary users don't look."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise DemoError(f"{program} is not installed (Debian: apt-get install {package})")
    return str(Path(found).resolve())


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that are free for TCP and UDP now."""
    ports: list[int] = []
    while len(ports) < count:
        port = secrets.choice(_PORTS)
        if port not in ports and _is_free(port):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True


def _end_with_parent() -> None:
    """In the child: be told to stop when the demonstration dies, even of SIGKILL. Only Linux has this."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def start(
    command: Sequence[str],
    *,
    log: Path,
    environ: Mapping[str, str] | None = None,
    pipe: bool = False,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """A process in a group of its own, so that Ctrl-C reaches us alone and we stop things in order.

    What it says goes to `log`; with `pipe` its standard output is ours to read.
    """
    with log.open("ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if pipe else out, stderr=out, env=environ,
            start_new_session=True, preexec_fn=_end_with_parent, cwd=cwd,
        )  # fmt: skip


def stop(process: subprocess.Popen[bytes] | None, patience: float = _PATIENCE) -> None:
    """Ask, wait, then make it."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(there: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not there():
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"{what} didn't start: {tail(log, 5)}")
        time.sleep(0.02)


def tail(log: Path, lines: int) -> str:
    found = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return "\n".join(found[-lines:])


def answers(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


class Server(Protocol):
    """Something started here."""

    def stop(self) -> None: ...


# --- nginx ----------------------------------------------------------------------------------------------------------


class Nginx:
    """Serves `name` over TLS with a certificate that expired yesterday, and `webroot` in clear."""

    def __init__(self, directory: Path, name: str) -> None:
        self.program = find("nginx", "nginx-light")
        self.directory = directory
        self.config = directory / "nginx.conf"
        self.webroot = directory / "webroot"
        self.log = directory / "error.log"
        self.access_log = directory / "access.log"
        self.http_port, self.https_port = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        for folder in (self.webroot, directory / "tmp", directory / "certs"):
            folder.mkdir(parents=True)
        (self.webroot / "index.html").write_text("open for business\n")
        certificate, key = expired_certificate(name)
        (directory / "certs" / "shop.pem").write_bytes(certificate)
        _write_private(directory / "certs" / "shop.key", key)
        self.config.write_text(self._configuration(name))

    def _configuration(self, name: str) -> str:
        scratch = self.directory / "tmp"
        temporary = "".join(
            f"    {kind}_temp_path {scratch}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # As root its workers would become another user, who may not enter a private temporary directory.
        user = "user root;\n" if os.geteuid() == 0 else ""
        return (
            f"{user}worker_processes 1;\npid {self.directory}/nginx.pid;\nerror_log {self.log} info;\n"
            "events { worker_connections 512; }\nhttp {\n"
            f"    access_log {self.access_log};\n    default_type text/plain;\n{temporary}"
            f"    server {{\n        listen {LOOPBACK}:{self.http_port};\n        server_name {name};\n"
            f"        root {self.webroot};\n    }}\n"
            f"    server {{\n        listen {LOOPBACK}:{self.https_port} ssl;\n        server_name {name};\n"
            f"        ssl_certificate {self.directory}/certs/shop.pem;\n"
            f"        ssl_certificate_key {self.directory}/certs/shop.key;\n"
            f"        root {self.webroot};\n    }}\n}}\n"
        )

    def start(self) -> None:
        command = [self.program, "-p", str(self.directory), "-c", str(self.config), "-g", "daemon off;"]
        self._process = start(command, log=self.log)
        wait_until(lambda: answers(self.https_port) and answers(self.http_port), self._process, self.log, "nginx")

    def publish(self, path: str, content: str) -> None:
        """Put a file below the web root, as an administrator would."""
        file = (self.webroot / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.webroot.resolve()):
            raise DemoError(f"the file is to be published at {path}, which is outside the site")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def fetches(self, path: str) -> int:
        """How often the file was fetched with success, according to nginx itself."""
        return sum(f'GET {path} HTTP/1.1" 200' in line for line in self.access_log.read_text().splitlines())

    def stop(self) -> None:
        stop(self._process)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def expired_certificate(name: str) -> tuple[bytes, bytes]:
    """A self-signed certificate that ended yesterday, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=91)).not_valid_after(now - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), pem


# --- Knot DNS -------------------------------------------------------------------------------------------------------


class Knot:
    """The authoritative server of one zone, whose records a TSIG key may change (RFC 2136)."""

    def __init__(self, directory: Path, zone: str, addresses: Mapping[str, str]) -> None:
        self.program = find("knotd", "knot")
        self.zone = zone
        self.key_name = "demo-key"
        self.secret = base64.b64encode(secrets.token_bytes(32)).decode()
        self.port = 0
        self.log = directory / "knot.log"
        self._directory = directory
        self._config = directory / "knot.conf"
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "db").mkdir(parents=True)
        records = "".join(f"{name}. A {address}\n" for name, address in addresses.items())
        (directory / "zone").write_text(
            f"$ORIGIN {zone}.\n$TTL 60\n@ SOA ns1.{zone}. hostmaster.{zone}. 1 3600 600 86400 5\n"
            f"@ NS ns1.{zone}.\nns1.{zone}. A {LOOPBACK}\n{records}"
        )

    def _configure(self) -> None:
        (self.port,) = free_ports(1)
        directory, zone = self._directory, self.zone
        self._config.write_text(
            f"server:\n    rundir: {directory}\n    listen: [ {LOOPBACK}@{self.port} ]\n    udp-workers: 1\n"
            "    tcp-workers: 1\n    background-workers: 1\n"
            # Its working directory: the path of a socket must fit into 107 bytes, however long the directory's is.
            "control:\n    listen: /proc/self/cwd/knot.sock\n"
            "log:\n  - target: stderr\n    any: info\n"
            f"database:\n    storage: {directory}/db\n    journal-db-max-size: 16M\n    kasp-db-max-size: 16M\n"
            "    timer-db-max-size: 16M\n"
            f"key:\n  - id: {self.key_name}\n    algorithm: hmac-sha256\n    secret: {self.secret}\n"
            f"acl:\n  - id: update\n    key: {self.key_name}\n    action: update\n"
            f"zone:\n  - domain: {zone}\n    file: {directory}/zone\n    zonefile-sync: -1\n"
            "    zonefile-load: difference\n    journal-content: all\n    acl: update\n"
        )
        # It holds the secret.
        self._config.chmod(0o600)

    def start(self) -> None:
        # Between finding a free port and listening on it somebody else may take it.
        for attempts_left in (2, 1, 0):
            self._configure()
            self._process = start([self.program, "-c", str(self._config)], log=self.log, cwd=self._directory)
            try:
                wait_until(self._serves, self._process, self.log, "Knot DNS")
                return
            except DemoError:
                stop(self._process)
                if not attempts_left:
                    raise

    def _serves(self) -> bool:
        return answers(self.port) and bool(self.ask(self.zone, "SOA"))

    def ask(self, name: str, rdtype: str) -> list[str]:
        """The texts of the records this server has."""
        import dns.exception
        import dns.message
        import dns.query

        try:
            answer = dns.query.udp(dns.message.make_query(name + ".", rdtype), LOOPBACK, port=self.port, timeout=1)
        except (OSError, dns.exception.DNSException):
            return []
        return [record.to_text() for group in answer.answer for record in group]

    def stop(self) -> None:
        stop(self._process)


# --- the product ----------------------------------------------------------------------------------------------------


class Product:
    """`certwright serve` on a data directory of its own. `settings` as in the environment, without the prefix."""

    def __init__(self, data_dir: Path, log: Path, settings: Mapping[str, str], *, options: Sequence[str] = ()) -> None:
        (port,) = free_ports(1)
        self._options = options
        self.url = f"https://{LOOPBACK}:{port}"
        self.root = data_dir / "root.pem"
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CERTWRIGHT_")}
        own = {
            "DATA_DIR": str(data_dir),
            "LISTEN": f"{LOOPBACK}:{port}",
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "warning",
            **settings,
        }
        self._environ = kept | {f"CERTWRIGHT_{key}": value for key, value in own.items()}

    def start(self) -> str:
        """Start it, and return the token of the one-time set-up link it prints."""
        command = [sys.executable, "-m", "certwright", "serve", *self._options]
        process = start(command, log=self.log, environ=self._environ, pipe=True)
        self._process = process
        assert process.stdout is not None
        # Ends at the latest when the process does; the demonstration's own alarm bounds it otherwise.
        for line in process.stdout:
            _, found, token = line.decode().strip().partition("/setup?token=")
            if found:
                return token
        raise DemoError(f"the product ended with {process.wait(_PATIENCE)} instead of starting: {tail(self.log, 1)}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        stop(self._process, 30)
        if self._process and self._process.stdout:
            self._process.stdout.close()
