"""A CA that sells over a CertCentral-style API (DigiCert Services API v2, as published on dev.digicert.com), whose
behaviour the test decides: a correct one that checks what it is sent, and any answer replaced, delayed or lost.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.servers.tls import context_of, issue

BASE = "/services/v2"
KEY = "TESTKEY0123456789ABCDEFGHIJ"
PRODUCTS = {
    "ssl_dv_geotrust": "GeoTrust Standard DV", "wildcard_dv_geotrust": "GeoTrust Wildcard DV",
    "cloud_dv_geotrust": "GeoTrust Cloud DV", "ssl_basic": "Basic OV", "ssl_ev_basic": "Basic EV",
}  # fmt: skip
METHODS = ("dns-txt-token", "dns-cname-token", "http-token", "email")
CANCELLABLE = ("pending", "needs_approval", "waiting_pickup", "reissue_pending", "processing")


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    type: str = "application/json"


LOST = Reply(0)
"""The connection is closed without an answer."""


class Said(Exception):
    """Ends a request with this answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def said(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode())


def error(code: str, message: str = "", status: int = 400, *headers: tuple[str, str]) -> Reply:
    document = {"errors": [{"code": code, "message": message or code}]}
    return Reply(status, json.dumps(document).encode(), headers)


@dataclass
class Wish:
    """A certificate asked for: by an order, or by a reissue inside one."""

    certificate: int
    names: list[str]
    csr_pem: str
    csr: x509.CertificateSigningRequest
    status: str = "pending"
    note: str = ""
    approved: set[str] = field(default_factory=set)
    looks: int = 0
    chain: list[bytes] = field(default_factory=list)
    serial: str = ""


@dataclass
class Order:
    number: int
    product: str
    reference: str
    method: str
    years: int
    organisation: int | None
    body: Mapping[str, Any]
    made_at: datetime
    first: Wish
    reissues: list[Wish] = field(default_factory=list)
    token: str = ""
    token_until: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wish(self) -> Wish:
        """What is under way, or was last."""
        return self.reissues[-1] if self.reissues else self.first

    @property
    def status(self) -> str:
        if self.reissues and self.first.status == "issued":
            return "reissue_pending" if self.reissues[-1].status in CANCELLABLE else "issued"
        return self.first.status

    @property
    def level(self) -> str:
        return "ev" if "_ev_" in self.product else "dv" if "dv" in self.product else "ov"


@dataclass
class Organisation:
    number: int
    facts: Mapping[str, Any]
    status: str = "active"
    validations: dict[str, str] = field(default_factory=dict)
    contacts: list[Any] = field(default_factory=list)


Fault = Reply | Callable[[], None]


class FakeCertCentral:
    """Change the attributes between requests; `seen` holds (resource, payload) of every accepted request.

    `in_the_way["order"].append(error(…))` replaces the next answer of a resource: products, organizations,
    organization, org-validation, org-submit, order, alternate, info, validation, token, check, status, reissue,
    reissues, download, revoke. `lost["order"] = 1`: what is asked is done, and the answer never arrives.
    """

    def __init__(self) -> None:
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.key = KEY
        self.in_the_way: dict[str, deque[Fault]] = defaultdict(deque)
        self.lost: Counter[str] = Counter()
        self.after: dict[str, Callable[[], None]] = {}
        """Per resource what happens once, after it was done and before it is answered."""
        self.seen: list[tuple[str, Any]] = []
        self.asked: Counter[str] = Counter()
        """Requests per resource, those refused included."""
        self.products = dict(PRODUCTS)
        self.published: dict[str, str] = {}
        """What the CA sees: name → value."""
        self.token_life = timedelta(days=30)
        self.processing_looks = 0
        self.needs_approval = False
        self.revocation_needs_approval = False
        self.organisations_pass = True
        self.rejects: str | None = None
        """The note with which every order is rejected once its names are shown."""
        self.issued_names: list[str] | None = None
        self.issued_other_key = False
        self.orders: dict[int, Order] = {}
        self.organisations: dict[int, Organisation] = {}
        self.revoked: dict[str, str] = {}
        """Serial number → reason."""
        self._lock = threading.RLock()
        self._numbers = iter(range(100_001, 10_000_000))
        self._root = issue("Fake Shop Root", ca=True)
        self._intermediate = ec.generate_private_key(ec.SECP256R1())
        self.base = ""
        self.root_pem = ""

    @property
    def base_url(self) -> str:
        return f"{self.base}{BASE}/"

    def requests(self, resource: str) -> list[Any]:
        return [payload for name, payload in self.seen if name == resource]

    # --- answering ---------------------------------------------------------------------------------------------------

    def handle(self, method: str, target: str, key: str | None, body: bytes) -> Reply:
        split = urlsplit(target)
        if not split.path.startswith(BASE + "/"):
            return error("not_found|route", status=404)
        parts = [unquote(part) for part in split.path.removeprefix(BASE).strip("/").split("/")]
        with self._lock:
            if key != self.key:
                return error("access_denied|invalid_api_key", "the key is not known", 401)
            found = self._route(method, parts)
            if found is None:
                return error("not_found|route", status=404)
            resource, answer, arguments = found
            self.asked[resource] += 1
            while self.in_the_way[resource]:
                fault = self.in_the_way[resource].popleft()
                if isinstance(fault, Reply):
                    self.seen.append((resource, "in the way"))
                    return fault
                fault()
            try:
                payload = json.loads(body) if body else None
                reply: Reply = answer(*arguments, payload=payload, query=parse_qs(split.query))
            except Said as end:
                return end.reply
            except ValueError:
                return error("bad_request_format")
            self.seen.append((resource, payload))
            if resource in self.after:
                self.after.pop(resource)()
            if self.lost[resource]:
                self.lost[resource] -= 1
                return LOST
            return reply

    def _route(self, method: str, parts: list[str]) -> tuple[str, Callable[..., Reply], tuple[Any, ...]] | None:
        match method, parts:
            case "GET", ["product"]:
                return "products", self._products, ()
            case "GET", ["organization"]:
                return "organizations", self._organizations, ()
            case "POST", ["organization"]:
                return "organization", self._organization, ()
            case "GET", ["organization", number, "validation"]:
                return "org-validation", self._org_validation, (number,)
            case "POST", ["organization", number, "validation"]:
                return "org-submit", self._org_submit, (number,)
            case "GET", ["order", "alternate", reference]:
                return "alternate", self._alternate, (reference,)
            case "POST", ["order", "certificate", product]:
                return "order", self._order, (product,)
            case "GET", ["order", "certificate", number]:
                return "info", self._info, (number,)
            case "GET", ["order", "certificate", number, "validation"]:
                return "validation", self._validation, (number,)
            case "PUT", ["order", "certificate", number, "dcv-random-value"]:
                return "token", self._token, (number,)
            case "PUT", ["order", "certificate", number, "check-dcv"]:
                return "check", self._check, (number,)
            case "PUT", ["order", "certificate", number, "status"]:
                return "status", self._status, (number,)
            case "POST", ["order", "certificate", number, "reissue"]:
                return "reissue", self._reissue, (number,)
            case "GET", ["order", "certificate", number, "reissue"]:
                return "reissues", self._reissues, (number,)
            case "GET", ["certificate", number, "download", "format", "pem_noroot"]:
                return "download", self._download, (number,)
            case "PUT", ["certificate", number, "revoke"]:
                return "revoke", self._revoke, (number,)
        return None

    def _known(self, number: str) -> Order:
        """By number, or by the serial number of its primary certificate."""
        for order in self.orders.values():
            if str(order.number) == number or (order.first.serial and order.first.serial == number.lower()):
                return order
        raise Said(error("not_found|order", "no such order", 404))

    def _products(self, **_: Any) -> Reply:
        return said(
            {"products": [{"name_id": k, "name": v, "type": "ssl_certificate"} for k, v in self.products.items()]}
        )

    # --- organisations -----------------------------------------------------------------------------------------------

    def _shown(self, one: Organisation) -> dict[str, Any]:
        facts = {word: one.facts.get(word, "") for word in ("name", "address", "city", "state", "zip", "country")}
        return {"id": one.number, "status": one.status, "is_active": one.status == "active"} | facts

    def _organizations(self, query: Mapping[str, list[str]], **_: Any) -> Reply:
        text = query.get("filters[name]", [""])[0].lower()
        found = [o for o in self.organisations.values() if text in str(o.facts["name"]).lower()]
        return said({"organizations": [self._shown(one) for one in found],
                     "page": {"total": len(found), "limit": 1000, "offset": 0}})  # fmt: skip

    def _organization(self, payload: Any, **_: Any) -> Reply:
        needed = {"name", "address", "city", "country", "telephone", "organization_contact"}
        if not needed <= set(payload) or len(payload["name"]) > 64 or len(payload["country"]) != 2:
            raise Said(error("invalid_organization", "something is missing"))
        if {"first_name", "last_name", "email", "telephone"} - set(payload["organization_contact"]):
            raise Said(error("invalid_organization_contact"))
        if any(o.facts["name"] == payload["name"] for o in self.organisations.values()):
            raise Said(error("duplicate_organization", "there is one already"))
        number = next(self._numbers)
        self.organisations[number] = Organisation(number, payload)
        return said({"id": number}, 201)

    def _org(self, number: str) -> Organisation:
        if int(number) not in self.organisations:
            raise Said(error("not_found|organization", status=404))
        return self.organisations[int(number)]

    def _org_validation(self, number: str, **_: Any) -> Reply:
        return said({"validations": [{"type": t, "status": s} for t, s in self._org(number).validations.items()]})

    def _org_submit(self, number: str, payload: Any, **_: Any) -> Reply:
        one = self._org(number)
        for wanted in payload["validations"]:
            if wanted["type"] not in ("ov", "ev"):
                raise Said(error("invalid_validation_type"))
            if wanted["type"] == "ev" and not wanted.get("verified_users"):
                raise Said(error("missing_verified_user"))
            one.validations[wanted["type"]] = "active" if self.organisations_pass else "pending"
            one.contacts += wanted.get("verified_users", [])
        return Reply(204, b"")

    # --- orders ------------------------------------------------------------------------------------------------------

    def _wish(self, certificate: Any) -> Wish:
        needed = {"common_name", "csr", "signature_hash"}
        if not needed <= set(certificate) or certificate["signature_hash"] != "sha256":
            raise Said(error("invalid_certificate"))
        try:
            csr = x509.load_pem_x509_csr(certificate["csr"].encode())
        except ValueError:
            raise Said(error("csr_invalid_cannot_parse", "the CSR can't be read")) from None
        names = list(dict.fromkeys([certificate["common_name"], *certificate.get("dns_names", [])]))
        return Wish(next(self._numbers), names, certificate["csr"], csr)

    def _order(self, product: str, payload: Any, **_: Any) -> Reply:
        if product not in self.products:
            raise Said(error("not_found|product", "no such product", 404))
        unknown = set(payload) - {
            "certificate", "order_validity", "dcv_method", "payment_method", "skip_approval", "alternative_order_id",
            "comments", "organization",
        }  # fmt: skip
        if unknown or payload.get("dcv_method") not in METHODS or payload["order_validity"]["years"] not in (1, 2, 3):
            raise Said(error("bad_request_format", f"not known: {sorted(unknown)}"))
        wish = self._wish(payload["certificate"])
        organisation = payload.get("organization", {}).get("id")
        if "dv" not in product and organisation not in self.organisations:
            raise Said(error("missing_organization", "an organization is needed"))
        if payload["dcv_method"] == "http-token" and any(name.startswith("*.") for name in wish.names):
            raise Said(error("invalid_dcv_method", "not for wildcards"))
        order = Order(
            next(self._numbers), product, payload.get("alternative_order_id", ""), payload["dcv_method"],
            payload["order_validity"]["years"], organisation, payload, self.now(), wish,
        )  # fmt: skip
        if self.needs_approval or not payload.get("skip_approval"):
            wish.status = "needs_approval"
        self.orders[order.number] = order
        answer: dict[str, Any] = {
            "id": order.number, "certificate_id": wish.certificate,
            "requests": [{"id": next(self._numbers), "status": "approved"}],
        }  # fmt: skip
        if order.method != "email":
            answer["dcv_random_value"] = self._fresh(order)
        return said(answer, 201)

    def double(self, number: int) -> int:
        """As if the CA had taken the same order twice."""
        old = self.orders[number]
        wish = Wish(next(self._numbers), list(old.first.names), old.first.csr_pem, old.first.csr)
        made = next(self._numbers)
        self.orders[made] = Order(
            made, old.product, old.reference, old.method, old.years, old.organisation, old.body, self.now(), wish
        )
        return made

    def _alternate(self, reference: str, **_: Any) -> Reply:
        found = [o for o in self.orders.values() if o.reference == reference]
        shown = [
            {"order_id": o.number, "certificate_id": o.first.certificate, "status": o.status} for o in reversed(found)
        ]
        return said({"orders": shown, "page": {"total": len(shown), "limit": 1000, "offset": 0}})

    def _info(self, number: str, **_: Any) -> Reply:
        order = self._known(number)
        self._move(order)
        till = order.made_at + timedelta(days=365 * order.years)
        certificate: dict[str, Any] = {
            "id": order.first.certificate, "common_name": order.first.names[0], "dns_names": order.first.names,
            "csr": order.first.csr_pem, "status": order.first.status,
        }  # fmt: skip
        if order.first.serial:
            certificate["serial_number"] = order.first.serial.upper()
        return said({
            "id": order.number, "status": order.status, "certificate": certificate, "requests": order.requests,
            "product": {"name_id": order.product}, "note": order.first.note,
            "order_valid_till": till.date().isoformat(), "alternative_order_id": order.reference,
        })  # fmt: skip

    def _validation(self, number: str, **_: Any) -> Reply:
        order = self._known(number)
        shown: dict[str, Any] = {
            "order_id": str(order.number), "order_status": order.status,
            "dns_name_validations": [
                {"name_scope": name, "status": "approved" if name in order.wish.approved else "pending",
                 "method": order.method, "dns_names": [name]}
                for name in order.wish.names
            ],
        }  # fmt: skip
        if order.organisation is not None:
            one = self.organisations[order.organisation]
            status = one.validations.get(order.level, "pending")
            details = {"address_verification": "pending" if status == "pending" else "complete"}
            shown |= {
                "organization_id": str(one.number), "organization_name": one.facts["name"],
                "organization_validations": [
                    {"type": order.level, "status": status, "verification_details": details}
                ],
            }  # fmt: skip
        return said(shown)

    # --- domains -----------------------------------------------------------------------------------------------------

    def _fresh(self, order: Order) -> str:
        if order.token_until <= self.now():
            order.token, order.token_until = secrets.token_hex(16), self.now() + self.token_life
        return order.token

    def _token(self, number: str, **_: Any) -> Reply:
        order = self._known(number)
        if order.method == "email":
            raise Said(error("invalid_dcv_method", "this order is validated by mail"))
        if order.wish.status not in CANCELLABLE:
            raise Said(error("invalid_order_status"))
        value = self._fresh(order)
        return said({"dcv_random_value": value, "expiration_date": order.token_until.isoformat(timespec="seconds")})

    def sees(self, order: Order, name: str) -> bool:
        good = order.token_until > self.now() and bool(order.token)
        if order.method == "dns-cname-token":
            return good and self.published.get(name) == f"{order.token}.dcv.digicert.com"
        return good and self.published.get(name) == order.token

    def _check(self, number: str, **_: Any) -> Reply:
        order = self._known(number)
        if order.wish.status not in CANCELLABLE:
            raise Said(error("invalid_order_status"))
        order.wish.approved |= {name for name in order.wish.names if self.sees(order, name)}
        self._move(order)
        unseen = [name for name in order.wish.names if name not in order.wish.approved]
        if unseen and order.method == "http-token":
            raise Said(error("file_random_value_not_found", "the value is not at the expected place"))
        states = [
            {"dns_name": name, "status": "pending" if name in unseen else "approved"} for name in order.wish.names
        ]
        return said({"order_status": order.status, "certificate_id": order.wish.certificate,
                     "dcv_status": "pending" if unseen else "valid", "dns_name_validations": states})  # fmt: skip

    def answer_mail(self, order: Order) -> None:
        order.wish.approved |= set(order.wish.names)
        self._move(order)

    def _move(self, order: Order) -> None:
        """On to the next state as far as it goes."""
        wish = order.wish
        if wish.status == "pending" and set(wish.names) <= wish.approved:
            if self.rejects is not None:
                wish.status, wish.note = "rejected", self.rejects
                return
            holder = None if order.organisation is None else self.organisations[order.organisation]
            if holder is not None and holder.validations.get(order.level) != "active":
                return
            wish.status = "processing"
        if wish.status == "processing":
            wish.looks += 1
            if wish.looks > self.processing_looks:
                self._issue(wish)

    def _status(self, number: str, payload: Any, **_: Any) -> Reply:
        order = self._known(number)
        if payload.get("status") != "canceled" or not payload.get("note"):
            raise Said(error("invalid_status"))
        if order.wish.status not in CANCELLABLE:
            raise Said(error("invalid_order_status", f"the order is {order.status}"))
        order.wish.status = "canceled"
        return Reply(204, b"")

    # --- reissuing ---------------------------------------------------------------------------------------------------

    def _reissue(self, number: str, payload: Any, **_: Any) -> Reply:
        order = self._known(number)
        if order.status != "issued":
            raise Said(error("invalid_order_status", f"the order is {order.status}"))
        wish = self._wish(payload["certificate"])
        wish.approved = set(order.first.approved) & set(wish.names)
        order.method = payload.get("dcv_method", order.method)
        order.reissues.append(wish)
        if self.needs_approval:
            wish.status = "needs_approval"
        self._move(order)
        return said({"id": order.number, "requests": [{"id": next(self._numbers), "status": "approved"}]}, 201)

    def _reissues(self, number: str, **_: Any) -> Reply:
        order = self._known(number)
        self._move(order)
        shown = [
            {"id": wish.certificate, "status": wish.status, "csr": wish.csr_pem, "common_name": wish.names[0],
             "dns_names": wish.names, "serial_number": wish.serial.upper(), "note": wish.note}
            for wish in order.reissues
        ]  # fmt: skip
        return said({"certificates": shown})

    # --- certificates ------------------------------------------------------------------------------------------------

    def _issue(self, wish: Wish) -> None:
        names = self.issued_names or wish.names
        key = ec.generate_private_key(ec.SECP256R1()).public_key() if self.issued_other_key else wish.csr.public_key()
        start = self.now().replace(microsecond=0) - timedelta(hours=1)
        intermediate = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Fake Shop Intermediate")])
        number = x509.random_serial_number()
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])]))
            .issuer_name(intermediate)
            .public_key(key)  # type: ignore[arg-type]
            .serial_number(number)
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=199))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .sign(self._intermediate, hashes.SHA256())
        )
        above = (
            x509.CertificateBuilder()
            .subject_name(intermediate)
            .issuer_name(self._root.certificate.subject)
            .public_key(self._intermediate.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=900))
            .add_extension(x509.BasicConstraints(True, 0), critical=True)
            .sign(self._root.key, hashes.SHA256())
        )
        wish.chain = [c.public_bytes(serialization.Encoding.PEM) for c in (leaf, above)]
        wish.serial, wish.status = f"{number:x}", "issued"

    def _wishes(self) -> Iterator[tuple[Order, Wish]]:
        for order in self.orders.values():
            for wish in (order.first, *order.reissues):
                yield order, wish

    def _download(self, number: str, **_: Any) -> Reply:
        for _order, wish in self._wishes():
            if str(wish.certificate) == number and wish.chain:
                return Reply(200, b"".join(wish.chain), (), "application/x-pem-file")
        raise Said(error("not_found|certificate", status=404))

    def _revoke(self, number: str, payload: Any, **_: Any) -> Reply:
        reasons = ("unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation")
        if payload.get("revocation_reason") not in reasons:
            raise Said(error("invalid_revocation_reason"))
        for order, wish in self._wishes():
            if wish.serial == number.lower() or str(wish.certificate) == number:
                if wish.status == "revoked":
                    raise Said(error("certificate_revoke_failed", "it is revoked"))
                if order.status == "reissue_pending":
                    raise Said(error("reissue_pending", "a reissue is pending"))
                if self.revocation_needs_approval:
                    request = {
                        "id": next(self._numbers), "type": "revoke", "status": "pending",
                        "certificate": {"id": wish.certificate}, "comments": payload.get("comments", ""),
                    }  # fmt: skip
                    order.requests.append(request)
                    return said(request, 201)
                self.revoke(wish, payload["revocation_reason"])
                return Reply(204, b"")
        raise Said(error("not_found|certificate", status=404))

    def revoke(self, wish: Wish, reason: str) -> None:
        wish.status = "revoked"
        self.revoked[wish.serial] = reason


@contextmanager
def fake_certcentral() -> Iterator[FakeCertCentral]:
    """Running on a free port of 127.0.0.1."""
    fake = FakeCertCentral()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.command != "GET" and self.headers.get("content-type") != "application/json":
                reply = error("bad_request_format", status=415)
            elif self.command != "GET" and "content-length" not in self.headers:
                reply = error("length_required", status=411)
            else:
                reply = fake.handle(self.command, self.path, self.headers.get("x-dc-devkey"), body)
            if reply is LOST:
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.type)
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in reply.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:
            return

    root = issue("Fake Shop TLS root", ca=True)
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
