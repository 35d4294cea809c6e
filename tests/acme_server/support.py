"""An ACME client that says exactly what a test wants, and the world its challenges are looked for in."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dns.message
import dns.rdatatype
import httpx2
import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certwright.acme import jose
from certwright.acme.challenges import dns_value, key_authorization
from certwright.acme.jose import b64url, from_b64url
from certwright.entry.app import create_app
from certwright.rooms import acme_server, authorities
from certwright.rooms.acme_server import AcmeDirectory, DirectoryRequest, Prover
from tests.conftest import World
from tests.servers.hostile_dns import HostileDns, hostile_dns, reply

JOSE = "application/jose+json"


@dataclass
class Outside:
    """What the validator meets: files by path on one HTTP port of 127.0.0.1, some of them moved, and a scripted DNS."""

    port: int
    dns: HostileDns
    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.files.clear()
        self.moved.clear()
        self.records.clear()
        self.asked.clear()


@contextmanager
def outside() -> Iterator[Outside]:
    world: Outside

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            world.asked.append(f"{self.headers.get('Host')}{self.path}")
            content, moved = world.files.get(self.path), world.moved.get(self.path)
            self.send_response(302 if moved is not None else 404 if content is None else 200)
            if moved is not None:
                self.send_header("Location", moved)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    def answer(query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        found = world.records.get((name, kind))
        if found is not None:
            return reply(query, *(f"{name}. 5 IN {kind} {data}" for data in found))
        if name == "silent.example":
            return reply(query, rcode=2)
        if kind == "A" and name != "nowhere.example":
            return reply(query, f"{name}. 5 IN A 127.0.0.1")
        if kind == "SOA" and name == "example":
            return reply(query, "example. 5 IN SOA ns.example. admin.example. 1 1 1 1 1")
        if kind == "NS" and name == "example":
            return reply(query, "example. 5 IN NS ns.example.")
        soa = ["example. 5 IN SOA ns.example. admin.example. 1 1 1 1 1"]
        return reply(query, authority=soa, rcode=3 if name == "nowhere.example" else 0)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    with hostile_dns(answer) as resolver:
        world = Outside(server.server_address[1], resolver)
        thread.start()
        try:
            yield world
        finally:
            server.shutdown()
            server.server_close()


def open_directory(world: World, **changes: Any) -> AcmeDirectory:
    """An ACME service on the built-in issuing CA, without EAB unless asked for."""
    values: dict[str, Any] = {"name": "Servers", "authority_id": builtin_ca(world), "eab_required": False}
    return world.run(acme_server.create_directory(world.services, world.actor, DirectoryRequest(**values | changes)))


def builtin_ca(world: World) -> str:
    async def find() -> str:
        await authorities.ensure_builtin(world.services, world.account.id, world.project_id)
        async with world.services.db.begin() as tx:
            return await authorities.builtin_issuing_id(tx, world.account.id)

    return world.run(find())


class Client:
    """One ACME client; `post` signs, `raw` sends whatever it is given."""

    def __init__(self, world: World, directory: AcmeDirectory, outside: Outside | None = None, app: Any = None) -> None:
        self.world = world
        self.outside = outside
        self.app = app or create_app(world.services)
        self.base = directory.url.removesuffix("/directory")
        self.key: Any = ec.generate_private_key(ec.SECP256R1())
        self.kid: str | None = None
        self.nonce: str | None = None

    def send(self, method: str, url: str, **kwargs: Any) -> httpx2.Response:
        async def go() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.app, client=("192.0.2.7", 50000))
            async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as client:
                return await client.request(method, url, **kwargs)

        response = self.world.run(go())
        self.nonce = response.headers.get("replay-nonce", self.nonce)
        return response

    def fresh_nonce(self) -> str:
        response = self.send("HEAD", f"{self.base}/new-nonce")
        assert response.status_code == 200
        return response.headers["replay-nonce"]

    def raw(self, url: str, body: bytes, content_type: str = JOSE) -> httpx2.Response:
        return self.send("POST", url, content=body, headers={"content-type": content_type})

    def post(self, url: str, payload: Mapping[str, Any] | None, *, by_key: bool = False) -> httpx2.Response:
        """As clients do: a nonce that isn't taken (the clock was moved) is replaced by the one that came with that."""
        for _ in range(2):
            nonce, self.nonce = self.nonce or self.fresh_nonce(), None
            body = jose.signed_request(payload, url=url, nonce=nonce, key=self.key, kid=None if by_key else self.kid)
            response = self.raw(url, body)
            if b":badNonce" not in response.content:
                break
        return response

    def at(self, *parts: str) -> str:
        return "/".join((self.base, *parts))

    def register(self, **payload: Any) -> Client:
        response = self.post(self.at("new-account"), {"termsOfServiceAgreed": True} | payload, by_key=True)
        assert response.status_code in (200, 201), response.text
        self.kid = response.headers["location"]
        return self

    def bind(self, key_id: str, secret: str) -> Client:
        binding = jose.external_account_binding(
            self.key, url=self.at("new-account"), kid=key_id, mac_key=from_b64url(secret)
        )
        return self.register(externalAccountBinding=binding)

    def order(self, *names: str, **more: Any) -> httpx2.Response:
        identifiers = [{"type": "ip" if name[0].isdigit() else "dns", "value": name} for name in names]
        return self.post(self.at("new-order"), {"identifiers": identifiers} | more)

    def read(self, url: str) -> Any:
        response = self.post(url, None)
        assert response.status_code == 200, response.text
        return response.json()

    @staticmethod
    def order_url(order: Mapping[str, Any]) -> str:
        return str(order["finalize"]).removesuffix("/finalize")

    def challenge(self, authorization: Mapping[str, Any], kind: str) -> dict[str, Any]:
        return next(dict(one) for one in authorization["challenges"] if one["type"] == kind)

    def show(self, authorization: Mapping[str, Any], kind: str = "http-01") -> dict[str, Any]:
        """Publishes what the challenge asks for, and returns the challenge."""
        assert self.outside is not None
        challenge = self.challenge(authorization, kind)
        said = key_authorization(challenge["token"], self.key)
        if kind == "http-01":
            self.outside.files[f"/.well-known/acme-challenge/{challenge['token']}"] = said.encode()
        else:
            place = (f"_acme-challenge.{authorization['identifier']['value']}", "TXT")
            self.outside.records.setdefault(place, []).append(f'"{dns_value(said)}"')
        return challenge

    def look(self, challenge: Mapping[str, Any]) -> httpx2.Response:
        """Has the challenge looked at, and waits until that is over."""
        response = self.post(challenge["url"], {})
        self.settle()
        return response

    def settle(self) -> None:
        self.world.run(self.world.services.port(Prover).idle())

    def prove(self, order: Mapping[str, Any], kind: str = "http-01") -> None:
        for url in order["authorizations"]:
            authorization = self.read(url)
            if authorization["status"] == "pending":
                self.look(self.show(authorization, kind))
                assert self.read(url)["status"] == "valid", self.read(url)

    def obtain(self, *names: str, kind: str = "http-01", key: Any = None, **more: Any) -> list[x509.Certificate]:
        """A certificate for the names, with the chain."""
        response = self.order(*names, **more)
        assert response.status_code == 201, response.text
        self.prove(response.json(), kind)
        done = self.post(response.json()["finalize"], {"csr": csr(*names, key=key)})
        assert done.status_code == 200, done.text
        assert done.json()["status"] == "valid"
        chain = self.post(done.json()["certificate"], None)
        assert chain.headers["content-type"] == "application/pem-certificate-chain"
        return x509.load_pem_x509_certificates(chain.content)


def csr(*names: str, key: Any = None, common_name: str | None = None, must_staple: bool = False) -> str:
    """As finalize takes it."""
    import ipaddress

    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = [] if common_name is None else [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]
    sans: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    if must_staple:
        builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
    return b64url(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))


def tampered(body: bytes, **members: Any) -> bytes:
    """The same JWS with members of the outer object replaced (None takes one away)."""
    said = orjson.loads(body) | members
    return orjson.dumps({key: value for key, value in said.items() if value is not None})


def problem(response: httpx2.Response) -> str:
    """The kind of a refusal, after checking that it is a problem document with a sentence and a nonce for the next."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = response.json()
    assert document["status"] == response.status_code
    assert len(document["detail"]) > 10
    kind: str = document["type"]
    assert kind.startswith("urn:ietf:params:acme:error:")
    return kind.rpartition(":")[2]
