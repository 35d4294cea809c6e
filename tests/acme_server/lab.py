"""What real ACME clients are run in: `certwright serve` with its own CA and HTTPS, a DNS server for their names, and
for each client a folder, a part of the zone and a loopback address, so that they can all be at work together."""

from __future__ import annotations

import ipaddress
import os
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store

from certwright.entry import acme_clients
from certwright.entry.cli.client import Api
from certwright.entry.cli.session import sign_in
from certwright.entry.cli.settings import Connection
from certwright.entry.demo.servers import Product
from certwright.kernel.names import looks_like_ip
from tests.servers.dns import DnsServer, TsigKey, authoritative, zone_text
from tests.servers.ports import free_port

ZONE = "corp.test"
# Of the guide's example.
GUIDE_ZONE = "shop.internal"
CLIENTS = ("certbot", "lego", "dehydrated", "caddy", "certwright", "newcomer", "apache", "uacme")
EMAIL = f"ann@{ZONE}"
PASSWORD = "a long enough passphrase 7"  # of a throw-away product
PATIENCE = 120  # seconds; only reached when something is broken


@dataclass(frozen=True)
class Lab:
    """`open` and `bound` are ACME services as the API shows them: any client may come to the first, for 90 days; the
    second wants a key for binding, takes names of the zone only, and certificates live a week."""

    home: Path
    product: Product
    api: Api
    dns: DnsServer
    tsig: TsigKey
    http_port: int
    tls_port: int
    authority_id: str
    open: Mapping[str, Any]
    bound: Mapping[str, Any]
    token: str

    def bench(self, client: str, purpose: str = "") -> Bench:
        folder = self.home / (client + purpose)
        folder.mkdir()
        return Bench(self, client, folder, address_of(client))

    def told(self, client: str, asked: acme_clients.Asked) -> str:
        """What console and command line tell people to type into a client."""
        (recipe,) = [one for one in acme_clients.recipes(asked) if one.client == client]
        assert acme_clients.ROOT_FILE in recipe.text
        return recipe.text.replace(acme_clients.ROOT_FILE, str(self.product.root))

    def binding(self, name: str) -> tuple[str, str]:
        """(key id, HMAC key) for one account at the bound service."""
        made = self.api.post(f"/acme-directories/{self.bound['id']}/eab-keys", {"name": name})
        return made["id"], made["secret"]

    def account_states(self, service: Mapping[str, Any], contact: str) -> list[str]:
        found = self.api.get(f"/acme-directories/{service['id']}/accounts", limit=100)["items"]
        return [account["state"] for account in found if account["contacts"] == [f"mailto:{contact}"]]

    def orders(self, service: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        """Newest first."""
        found = self.api.get(f"/acme-directories/{service['id']}/orders", limit=100)["items"]
        return [order for order in found if name in order["names"]]

    def orders_of(self, slug: str) -> list[dict[str, Any]]:
        """Of a service that was made meanwhile; newest first."""
        (service,) = [one for one in self.api.get("/acme-directories")["items"] if one["slug"] == slug]
        return list(self.api.get(f"/acme-directories/{service['id']}/orders", limit=100)["items"])

    def leaf(self, certificate: x509.Certificate) -> dict[str, Any]:
        """What the product says of a certificate."""
        serial = f"{certificate.serial_number:x}"
        found = self.api.get(f"/authorities/{self.authority_id}/issued", search=serial)["items"]
        (leaf,) = [one for one in found if int(one["serial"], 16) == certificate.serial_number]
        return dict(leaf)

    def revoke(self, certificate: x509.Certificate) -> None:
        """By somebody here, as on the day a server was broken into."""
        leaf = self.leaf(certificate)
        self.api.post(f"/authorities/{self.authority_id}/issued/{leaf['id']}/revoke", {"reason": "key_compromise"})

    def await_listed(self, certificate: x509.Certificate) -> None:
        """Until the CA's published list names it as revoked; lists are made by the worker."""
        deadline = time.monotonic() + PATIENCE
        url = f"{self.product.url}/crl/{self.authority_id}.crl"
        context = ssl.create_default_context(cafile=str(self.product.root))
        while time.monotonic() < deadline:
            with urllib.request.urlopen(url, context=context, timeout=PATIENCE) as answer:
                crl = x509.load_der_x509_crl(answer.read())
            if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                return
            time.sleep(0.1)
        raise AssertionError(f"{url} doesn't name {certificate.serial_number:x}")


def address_of(client: str) -> str:
    return f"127.0.1.{CLIENTS.index(client) + 1}"


@dataclass(frozen=True)
class Bench:
    """One client's place. Its names are NAME.<client>.corp.test, all at `address`."""

    lab: Lab
    client: str
    folder: Path
    address: str

    def name(self, label: str) -> str:
        return f"{label}.{self.client}.{ZONE}"

    @property
    def http(self) -> str:
        """HOST:PORT at which http-01 is looked for."""
        return f"{self.address}:{self.lab.http_port}"

    @property
    def tls(self) -> str:
        """HOST:PORT at which tls-alpn-01 is looked for."""
        return f"{self.address}:{self.lab.tls_port}"

    def run(self, *command: object, fails: bool = False, **environ: object) -> str:
        """What the program said; it must succeed, or must not."""
        done = subprocess.run(
            [str(word) for word in command], cwd=self.folder, env=self.environ(**environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, f"{' '.join(str(w) for w in command)}\n{done.stdout[-4000:]}"
        return done.stdout

    def type(self, text: str, changes: Mapping[str, object], **environ: object) -> str:
        """Type what people are told to type, in a shell. `changes` is what differs here; each must be in the text."""
        for said, here in changes.items():
            assert said in text, f"{said!r} isn't in\n{text}"
            text = text.replace(said, str(here))
        return self.run("bash", "-euo", "pipefail", "-c", text, **environ)

    def environ(self, **more: object) -> dict[str, str]:
        """Without a word of the root: each client is told of it in its own way, and none is told not to look."""
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        return kept | {"HOME": str(self.folder)} | {key: str(value) for key, value in more.items()}

    def read(self, chain: Path, *names: str) -> x509.Certificate:
        """The certificate of a file with its chain, after seeing that it leads to the product's root and that it is for
        `names` and no others."""
        certificates = x509.load_pem_x509_certificates(chain.read_bytes())
        leaf = certificates[0]
        said = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert sorted(str(one.value) for one in said) == sorted(names)
        (root,) = x509.load_pem_x509_certificates(self.lab.product.root.read_bytes())
        name = names[0].replace("*", "any")
        server = x509.IPAddress(ipaddress.ip_address(name)) if looks_like_ip(name) else x509.DNSName(name)
        verifier = PolicyBuilder().store(Store([root])).build_server_verifier(server)
        verifier.verify(leaf, certificates[1:])
        return leaf


def owns(key: Path, certificate: x509.Certificate) -> bool:
    kind, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    own = serialization.load_pem_private_key(key.read_bytes(), None).public_key()
    return own.public_bytes(kind, form) == certificate.public_key().public_bytes(kind, form)


@contextmanager
def lab(home: Path, database_url: str) -> Iterator[Lab]:
    tsig = TsigKey("updater")
    records = [
        record
        for client in CLIENTS
        for record in (f"{client} A {address_of(client)}", f"*.{client} A {address_of(client)}")
    ]
    at = [address_of(client) for client in CLIENTS]
    http_port, tls_port, status_port = free_port(*at), free_port(*at), free_port()
    zones = {
        ZONE: zone_text(ZONE, records),
        GUIDE_ZONE: zone_text(GUIDE_ZONE, [f"www A {address_of('newcomer')}"]),
    }
    with authoritative(home / "dns", zones, keys=[tsig]) as dns:
        settings = {
            "DATABASE_URL": database_url, "ALLOWED_NETWORKS": "127.0.0.0/8", "DNS_SERVERS": dns.endpoint,
            "DNS_AUTHORITATIVE_PORT": str(dns.port), "VALIDATION_HTTP_PORT": str(http_port),
            "VALIDATION_TLS_PORT": str(tls_port), "STATUS_LISTEN": f"127.0.0.1:{status_port}",
        }  # fmt: skip
        product = Product(home / "data", home / "product.log", settings)
        try:
            setup = product.start()
            with Api(Connection(product.url, None, product.root)) as api:
                person = {"email": EMAIL, "name": "Ann", "password": PASSWORD, "account_name": "Corp"}
                api.post("/setup", {"token": setup, **person})
                made, _ = sign_in(api, EMAIL, PASSWORD, name="tests", days=1)
            with Api(Connection(product.url, made["token"], product.root)) as api:
                found = api.get("/authorities")["items"]
                (authority_id,) = [one["id"] for one in found if one["kind"] != "root"]
                api.patch(f"/authorities/{authority_id}", {"ocsp_enabled": True})
                free = {"name": "Open", "authority_id": authority_id, "eab_required": False}
                bound = {"name": "Bound", "authority_id": authority_id, "allowed_names": [f".{ZONE}"], "days": 7}
                yield Lab(
                    home, product, api, dns, tsig, http_port, tls_port, authority_id,
                    api.post("/acme-directories", free), api.post("/acme-directories", bound), made["token"],
                )  # fmt: skip
        finally:
            product.stop()


@contextmanager
def served(folder: Path, endpoint: str) -> Iterator[None]:
    """Plain files over HTTP, as the web server would that is there already."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    host, _, port = endpoint.rpartition(":")
    handler: Callable[..., Quiet] = partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer((host, int(port)), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_script(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return path
