"""An ACME server whose behaviour the test decides: a correct one (signatures, nonces and URLs are checked) with renewal
information, profiles and alternate chains, and any answer replaced by whatever the test puts in its way.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.servers.tls import Issued, context_of, issue

ERROR = "urn:ietf:params:acme:error:"


@dataclass(frozen=True)
class Reply:
    """An answer; `headers` may name a header twice."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    type: str = "application/json"


class Said(Exception):
    """Ends a request with this answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def problem(kind: str, detail: str = "", status: int = 400, *headers: tuple[str, str], **more: Any) -> Reply:
    """A problem document of an ACME kind."""
    document = {"type": ERROR + kind, "detail": detail or kind, "status": status} | more
    return Reply(status, json.dumps(document).encode(), headers, "application/problem+json")


@dataclass
class Order:
    number: int
    account: str
    names: list[str]
    status: str = "pending"
    profile: str | None = None
    replaces: str | None = None
    csr: x509.CertificateSigningRequest | None = None
    looks: int = 0
    """How often it was asked for since it was finalized."""
    error: Mapping[str, Any] | None = None
    leaf: bytes = b""
    chains: list[bytes] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    """Names whose challenge was answered."""
    given_up: set[str] = field(default_factory=set)
    """Names whose authorization was deactivated."""


Fault = Reply | Callable[[], None]
"""Instead of the usual answer: another one, or something to do (and then the usual answer)."""


class FakeAcme:
    """Change the attributes between requests; `seen` holds (resource, payload) of every accepted request.

    `in_the_way["new-order"].append(problem(…))` replaces the next answer of a resource: directory, nonce, new-account,
    account, orders, new-order, order, authorization, challenge, finalize, certificate, revoke, key-change,
    renewal-info.
    `lost["new-order"].append(…)` replaces the answer, too, but after the request was done.
    """

    def __init__(self) -> None:
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.in_the_way: dict[str, deque[Fault]] = defaultdict(deque)
        self.lost: dict[str, deque[Reply]] = defaultdict(deque)
        self.with_order_lists = True
        self.orders_a_page = 2
        self.revokes_for_control = True
        self.shares_orders = False
        """A second order for the names of one that is pending gets the first one's address, as at Let's Encrypt."""
        self.seen: list[tuple[str, Any]] = []
        self.profiles: dict[str, str] = {}
        self.with_ari = True
        self.ari_window: tuple[datetime, datetime] | None = None
        self.ari_windows: dict[str, tuple[datetime, datetime]] = {}
        """By the certificate's id; for all others `ari_window` holds."""
        self.ari_wait = "21600"
        self.ari_explanation: str | None = None
        self.terms: str | None = None
        self.eab: dict[str, bytes] | None = None
        self.caa_identities: list[str] = []
        self.offered = ["http-01", "dns-01", "tls-alpn-01"]
        self.valid_names: set[str] = set()
        """Authorizations of these are valid from the start."""
        self.failing: dict[str, Mapping[str, Any]] = {}
        """Name → the error its validation ends with."""
        self.processing_looks = 0
        """So many looks at a finalized order say `processing`."""
        self.retry_after: str | None = None
        self.order_life = timedelta(days=7)
        self.issued_names: list[str] | None = None
        """Certificates are made out to these names instead."""
        self.issued_other_key = False
        self.issued_other_chain = False
        """The intermediate that comes along has the right name and another key."""
        self.serves_certificate_of: int | None = None
        """The number of another order, whose certificate is given out for all."""
        self.replaced: set[str] = set()
        self.accounts: dict[str, dict[str, Any]] = {}
        self.orders: dict[int, Order] = {}
        self.revoked: dict[bytes, int | None] = {}
        self._nonces: set[str] = set()
        self._lock = threading.RLock()
        self._keys: dict[str, Issued] = {
            "First Root": issue("First Root", ca=True), "Second Root": issue("Second Root", ca=True),
        }  # fmt: skip
        self._intermediate = ec.generate_private_key(ec.SECP256R1())
        self.base = ""
        self.root_pem = ""

    @property
    def directory_url(self) -> str:
        return f"{self.base}/directory"

    def requests(self, resource: str) -> list[Any]:
        return [payload for name, payload in self.seen if name == resource]

    # --- answering -----------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, body: bytes) -> Reply:
        resource, _, rest = path.strip("/").partition("/")
        with self._lock:
            while self.in_the_way[resource]:
                fault = self.in_the_way[resource].popleft()
                if isinstance(fault, Reply):
                    self.seen.append((resource, "in the way"))
                    return fault
                fault()
            try:
                if method in ("GET", "HEAD"):
                    return self._plain(resource, rest)
                reply = self._signed(resource, rest, f"{self.base}{path}", body)
            except Said as said:
                return said.reply
            return self.lost[resource].popleft() if self.lost[resource] else reply

    def _plain(self, resource: str, rest: str) -> Reply:
        if resource == "directory":
            return self._json(self._directory())
        if resource == "nonce":
            return Reply(200, b"")
        if resource == "renewal-info" and self.ari_window is not None:
            self.seen.append(("renewal-info", rest))
            start, end = self.ari_windows.get(rest, self.ari_window)
            told: dict[str, Any] = {"suggestedWindow": {"start": start.isoformat(), "end": end.isoformat()}}
            if self.ari_explanation is not None:
                told["explanationURL"] = self.ari_explanation
            return self._json(told, headers=(("Retry-After", self.ari_wait),))
        return problem("malformed", "nothing there", 404)

    def _directory(self) -> dict[str, Any]:
        meta: dict[str, Any] = {"profiles": self.profiles, "caaIdentities": self.caa_identities}
        if self.terms:
            meta["termsOfService"] = self.terms
        if self.eab is not None:
            meta["externalAccountRequired"] = True
        found: dict[str, Any] = {
            "newNonce": f"{self.base}/nonce", "newAccount": f"{self.base}/new-account",
            "newOrder": f"{self.base}/new-order", "revokeCert": f"{self.base}/revoke",
            "keyChange": f"{self.base}/key-change", "meta": meta,
        }  # fmt: skip
        if self.with_ari:
            found["renewalInfo"] = f"{self.base}/renewal-info"
        return found

    def _signed(self, resource: str, rest: str, url: str, body: bytes) -> Reply:
        jws = json.loads(body)
        header = json.loads(_decode(jws["protected"]))
        if header["nonce"] not in self._nonces:
            return problem("badNonce", "that nonce is not known")
        self._nonces.discard(header["nonce"])
        if header["url"] != url or ("kid" in header) == ("jwk" in header):
            return problem("malformed", "the header is wrong")
        kid = header.get("kid")
        if kid is not None and kid not in self.accounts:
            return problem("accountDoesNotExist", "no such account", 400)
        jwk = header.get("jwk") or self.accounts[kid]["jwk"]
        if not _verifies(jws, jwk):
            return problem("malformed", "the signature is wrong")
        if kid is not None and self.accounts[kid]["status"] != "valid":
            return problem("unauthorized", "the account is closed", 403)
        payload = json.loads(_decode(jws["payload"])) if jws["payload"] else None
        self.seen.append((resource, payload))
        answer: Callable[..., Reply] = getattr(self, "_" + resource.replace("-", "_"))
        return answer(rest, payload, jwk, kid)

    def _json(self, value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
        return Reply(status, json.dumps(value).encode(), headers)

    def nonce(self) -> str:
        fresh = secrets.token_urlsafe(12)
        self._nonces.add(fresh)
        return fresh

    def forget_nonces(self) -> None:
        self._nonces.clear()

    # --- accounts ------------------------------------------------------------------------------------------------

    def _new_account(self, _: str, payload: Any, jwk: Any, __: Any) -> Reply:
        known = next((url for url, a in self.accounts.items() if a["jwk"] == jwk), None)
        if known is not None:
            return self._account_reply(known, 200)
        if payload.get("onlyReturnExisting"):
            return problem("accountDoesNotExist", "no account has this key")
        if self.terms and not payload.get("termsOfServiceAgreed"):
            return problem("userActionRequired", "agree to the terms", 403, instance=self.terms)
        if self.eab is not None:
            self._check_binding(payload.get("externalAccountBinding"), jwk)
        url = f"{self.base}/account/{len(self.accounts) + 1}"
        self.accounts[url] = {"jwk": jwk, "status": "valid", "contact": payload.get("contact", [])}
        return self._account_reply(url, 201)

    def _check_binding(self, binding: Any, jwk: Any) -> None:
        if not binding:
            raise Said(problem("externalAccountRequired", "bind it to your account", 403))
        header = json.loads(_decode(binding["protected"]))
        key = (self.eab or {}).get(header["kid"])
        said = f"{binding['protected']}.{binding['payload']}".encode()
        good = key is not None and header["alg"] == "HS256" and header["url"] == f"{self.base}/new-account"
        good = good and hmac.compare_digest(
            hmac.new(key or b"", said, hashlib.sha256).digest(), _decode(binding["signature"])
        )
        if not good or json.loads(_decode(binding["payload"])) != jwk:
            raise Said(problem("unauthorized", "the binding is wrong", 403))

    def _account_reply(self, url: str, status: int) -> Reply:
        shown = {key: self.accounts[url][key] for key in ("status", "contact")}
        if self.with_order_lists:
            shown["orders"] = f"{self.base}/orders/{url.rsplit('/', 1)[1]}/0"
        return self._json(shown, status, (("Location", url),))

    def _account(self, rest: str, payload: Any, _: Any, kid: str) -> Reply:
        self.accounts[kid] |= {key: payload[key] for key in ("contact", "status") if key in (payload or {})}
        return self._account_reply(kid, 200)

    def _orders(self, rest: str, _: Any, __: Any, kid: str) -> Reply:
        number, _, page = rest.partition("/")
        mine = [o for o in self.orders.values() if o.account == kid and o.account.endswith(f"/{number}")]
        start = int(page) * self.orders_a_page
        shown = mine[start : start + self.orders_a_page]
        links = ()
        if start + self.orders_a_page < len(mine):
            links = (("Link", f'<{self.base}/orders/{number}/{int(page) + 1}>;rel="next"'),)
        return self._json({"orders": [f"{self.base}/order/{o.number}" for o in shown]}, headers=links)

    def _key_change(self, _: str, payload: Any, __: Any, kid: str) -> Reply:
        header, inner = json.loads(_decode(payload["protected"])), json.loads(_decode(payload["payload"]))
        if not _verifies(payload, header["jwk"]) or inner != {"account": kid, "oldKey": self.accounts[kid]["jwk"]}:
            return problem("malformed", "the inner request is wrong")
        self.accounts[kid]["jwk"] = header["jwk"]
        return self._account_reply(kid, 200)

    # --- orders --------------------------------------------------------------------------------------------------

    def _new_order(self, _: str, payload: Any, __: Any, kid: str) -> Reply:
        profile, replaces = payload.get("profile"), payload.get("replaces")
        if profile is not None and profile not in self.profiles:
            return problem("invalidProfile", f"no profile {profile}")
        if replaces is not None and replaces in self.replaced:
            return problem("alreadyReplaced", "somebody was first", 409)
        if replaces is not None:
            self.replaced.add(replaces)
        number = len(self.orders) + 1
        names = [entry["value"] for entry in payload["identifiers"]]
        for entry in payload["identifiers"]:
            if entry["type"] != ("ip" if _is_ip(entry["value"]) else "dns"):
                return problem("malformed", f"{entry} is of the wrong type")
        for known in self.orders.values():
            if self.shares_orders and known.account == kid and known.status == "pending" and known.names == names:
                return self._order_reply(known, 201)
        order = self.orders[number] = Order(number, kid, names, profile=profile, replaces=replaces)
        return self._order_reply(order, 201)

    def _order_reply(self, order: Order, status: int = 200) -> Reply:
        if order.status == "pending" and all(self._state(order, name) == "valid" for name in order.names):
            order.status = "ready"
        if any(self._state(order, name) in ("invalid", "deactivated") for name in order.names):
            order.status = "invalid"
        shown: dict[str, Any] = {
            "status": order.status,
            "expires": (self.now() + self.order_life).isoformat(),
            "identifiers": [{"type": "ip" if _is_ip(name) else "dns", "value": name} for name in order.names],
            "authorizations": [f"{self.base}/authorization/{order.number}/{i}" for i in range(len(order.names))],
            "finalize": f"{self.base}/finalize/{order.number}",
        }
        if order.status == "valid":
            shown["certificate"] = f"{self.base}/certificate/{order.number}"
        for name in ("profile", "replaces", "error"):
            if getattr(order, name) is not None:
                shown[name] = getattr(order, name)
        headers = (("Location", f"{self.base}/order/{order.number}"),)
        return self._json(shown, status, headers + self._wait())

    def _wait(self) -> tuple[tuple[str, str], ...]:
        return (("Retry-After", self.retry_after),) if self.retry_after else ()

    def _order(self, rest: str, *_: Any) -> Reply:
        order = self.orders[int(rest)]
        if order.status == "processing":
            order.looks += 1
            if order.looks > self.processing_looks:
                order.status = "valid"
        return self._order_reply(order)

    def _state(self, order: Order, name: str) -> str:
        if name in order.given_up:
            return "deactivated"
        if name in self.valid_names:
            return "valid"
        if name not in order.tried:
            return "pending"
        return "invalid" if name in self.failing else "valid"

    def _authorization(self, rest: str, payload: Any, *_: Any) -> Reply:
        number, index = (int(part) for part in rest.split("/"))
        order = self.orders[number]
        name = order.names[index]
        if payload is not None:
            if payload != {"status": "deactivated"} or self._state(order, name) not in ("pending", "valid"):
                return problem("malformed", "it can only be deactivated")
            order.given_up.add(name)
        state = self._state(order, name)
        offered = ["dns-01"] if name.startswith("*.") else self.offered
        if _is_ip(name):
            offered = [kind for kind in offered if kind != "dns-01"]
        challenges = []
        for kind in offered:
            challenge = {
                "type": kind, "url": f"{self.base}/challenge/{number}/{index}/{kind}", "status": state,
                "token": f"token-{number}-{index}-{kind}",
            }  # fmt: skip
            if state == "invalid":
                challenge["error"] = self.failing[name]  # type: ignore[assignment]
            challenges.append(challenge)
        shown = {
            "identifier": {"type": "ip" if _is_ip(name) else "dns", "value": name.removeprefix("*.")}, "status": state,
            "expires": (self.now() + self.order_life).isoformat(), "challenges": challenges,
        }  # fmt: skip
        if name.startswith("*."):
            shown["wildcard"] = True
        return self._json(shown, headers=self._wait())

    def _challenge(self, rest: str, payload: Any, *_: Any) -> Reply:
        number, index, kind = rest.split("/")
        if payload is not None:
            order = self.orders[int(number)]
            order.tried.add(order.names[int(index)])
        return self._json({"type": kind, "url": f"{self.base}/challenge/{rest}", "status": "processing"})

    def _finalize(self, rest: str, payload: Any, *_: Any) -> Reply:
        order = self.orders[int(rest)]
        if order.status != "ready":
            return problem("orderNotReady", f"it is {order.status}", 403)
        try:
            order.csr = x509.load_der_x509_csr(_decode(payload["csr"]))
        except ValueError:
            return problem("badCSR", "it can't be read")
        order.status = "processing"
        order.chains = self._issue(order)
        if not self.processing_looks:
            order.status = "valid"
        return self._order_reply(order)

    def _issue(self, order: Order) -> list[bytes]:
        """The same leaf with two chains."""
        assert order.csr is not None
        names = self.issued_names or order.names
        key = ec.generate_private_key(ec.SECP256R1()).public_key() if self.issued_other_key else order.csr.public_key()
        start = self.now().replace(microsecond=0) - timedelta(hours=1)
        intermediate = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Fake Intermediate")])
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(intermediate)
            .public_key(key)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=90))
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._intermediate.public_key()), critical=False
            )
            .sign(self._intermediate, hashes.SHA256())
        )
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        order.leaf = leaf.public_bytes(serialization.Encoding.DER)
        return [pem + self._cross(intermediate, root, start) for root in self._keys]

    def _cross(self, name: x509.Name, root: str, start: datetime) -> bytes:
        foreign = self.issued_other_chain
        issuer = self._keys[root]
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer.certificate.subject)
            .public_key((ec.generate_private_key(ec.SECP256R1()) if foreign else self._intermediate).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=900))
            .add_extension(x509.BasicConstraints(True, 0), critical=True)
            .sign(issuer.key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    def _certificate(self, rest: str, *_: Any) -> Reply:
        number, _, which = rest.partition("/")
        number = str(self.serves_certificate_of or number)
        chains = self.orders[int(number)].chains
        links = [("Link", f'<{self.directory_url}>;rel="index"')]
        links += [
            ("Link", f'<{self.base}/certificate/{number}/{i}>;rel="alternate"')
            for i in range(len(chains))
            if i != int(which or 0)
        ]
        return Reply(200, chains[int(which or 0)], tuple(links), "application/pem-certificate-chain")

    def _may_revoke(self, kid: str, der: bytes) -> bool:
        """RFC 8555 section 7.6: whoever ordered it, and whoever holds authorizations for all its names."""
        if any(order.leaf == der and order.account == kid for order in self.orders.values()):
            return True
        if not self.revokes_for_control:
            return False
        san = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        shown = {
            name
            for order in self.orders.values()
            if order.account == kid
            for name in order.tried
            if self._state(order, name) == "valid"
        }
        return all(str(one.value) in shown for one in san.value)

    def _revoke(self, _: str, payload: Any, jwk: Any, kid: str | None) -> Reply:
        der = _decode(payload["certificate"])
        if der in self.revoked:
            return problem("alreadyRevoked", "it is revoked")
        reason = payload.get("reason")
        if reason not in (None, 0, 1, 4, 5):
            return problem("badRevocationReason", f"not {reason}")
        if kid is None and _public(jwk) != x509.load_der_x509_certificate(der).public_key():
            return problem("unauthorized", "not the certificate's key", 403)
        if kid is not None and not self._may_revoke(kid, der):
            return problem("unauthorized", "another account ordered it, and not all names are shown", 403)
        self.revoked[der] = reason
        return Reply(200, b"")


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _general_name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if _is_ip(name) else x509.DNSName(name)


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _public(jwk: Mapping[str, str]) -> ec.EllipticCurvePublicKey:
    x, y = (int.from_bytes(_decode(jwk[part])) for part in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _verifies(jws: Mapping[str, str], jwk: Mapping[str, str]) -> bool:
    signature = _decode(jws["signature"])
    der = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    try:
        _public(jwk).verify(der, f"{jws['protected']}.{jws['payload']}".encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


@contextmanager
def fake_acme() -> Iterator[FakeAcme]:
    """Running on a free port of 127.0.0.1."""
    fake = FakeAcme()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            if self.headers.get("content-type") != "application/jose+json":
                self._send(problem("malformed", "the type is wrong", 415))
                return
            self._answer(self.rfile.read(int(self.headers.get("content-length", 0))))

        def _answer(self, body: bytes) -> None:
            self._send(fake.handle(self.command, self.path, body))

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.type)
            self.send_header("Content-Length", str(len(reply.body)))
            self.send_header("Replay-Nonce", fake.nonce())
            for name, value in reply.headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:
            return

    root = issue("Fake ACME TLS root", ca=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = context_of(issue("127.0.0.1", root))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    fake.base = f"https://127.0.0.1:{server.server_address[1]}"
    fake.root_pem = root.certificate.public_bytes(serialization.Encoding.PEM).decode()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
