"""An ACME client (RFC 8555) over the guarded egress client. It keeps nonces and the directory, and nothing else: what
must survive a crash is kept by the caller, between two calls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

from certwright.acme import headers, jose, objects
from certwright.acme.jose import SigningKey
from certwright.acme.objects import (
    Account,
    AccountStatus,
    Authorization,
    Challenge,
    Directory,
    Identifier,
    Order,
    RenewalInfo,
)
from certwright.connectors.ca.acme import refusals
from certwright.kernel.clock import Clock
from certwright.kernel.problems import Problem, Refused
from certwright.kernel.shapes import Malformed
from certwright.platform.egress import Egress, EgressProblem
from certwright.x509.certificates import CertificateFacts, read_certificates

T = TypeVar("T")

NONCE_TRIES: Final = 6
MOST_ALTERNATES: Final = 5
MOST_PAGES: Final = 5
_NONCES_KEPT = 32
# A CA's nonce is good for minutes to hours; an older one only costs a refused request.
_NONCE_LIFE = timedelta(minutes=5)
_DIRECTORY_LIFE = timedelta(hours=1)
_JSON_BYTES = 512 * 1024
_CHAIN_BYTES = 256 * 1024
_TIMEOUT = 30.0
_USUAL_PORT = 443
_JOSE = "application/jose+json"
_PEM_CHAIN = "application/pem-certificate-chain"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs a request: a key, and the URL of its account (None: the key speaks for itself)."""

    key: SigningKey
    kid: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    url: str
    body: bytes
    headers: Mapping[str, str]
    wait: timedelta | None
    """What Retry-After asked for."""

    @property
    def location(self) -> str | None:
        found = self.headers.get("location")
        try:
            return urljoin(self.url, found) if found else None
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate as downloaded, leaf first, and where its other chains are."""

    certificates: tuple[CertificateFacts, ...]
    alternates: tuple[str, ...] = ()


@dataclass
class Nonces:
    """Used newest first; bounded, and forgotten when old."""

    _kept: list[tuple[datetime, str]] = field(default_factory=list)

    def put(self, nonce: str | None, now: datetime) -> None:
        if nonce and len(nonce) <= 1000 and nonce.isascii() and nonce.isprintable():
            self._kept.append((now, nonce))
            del self._kept[:-_NONCES_KEPT]

    def take(self, now: datetime) -> str | None:
        while self._kept:
            at, nonce = self._kept.pop()
            if timedelta(0) <= now - at <= _NONCE_LIFE:
                return nonce
        return None


class AcmeClient:
    """One ACME server. Safe to share between tasks; each request is its own connection.

    Every call raises Unavailable (ask again, see `refusals`), Invalid or Refused (don't).
    """

    def __init__(self, egress: Egress, clock: Clock, directory_url: str, *, root_pem: str | None = None) -> None:
        self._egress = egress
        self._clock = clock
        self._directory_url = directory_url
        # A root given for this CA is the only one trusted for it.
        self._tls = ssl.create_default_context(cadata=root_pem) if root_pem else None
        self._nonces = Nonces()
        self._directory: tuple[datetime, Directory] | None = None
        # Its other resources may be on another host; another port than these isn't one of a CA.
        self._ports = {_USUAL_PORT, urlsplit(directory_url).port or _USUAL_PORT}

    # --- the directory and what needs no account -----------------------------------------------------------------

    async def directory(self, *, fresh: bool = False) -> Directory:
        """Read at most once an hour, unless asked `fresh`."""
        now = self._clock.now()
        if self._directory is not None and not fresh and timedelta(0) <= now - self._directory[0] < _DIRECTORY_LIFE:
            return self._directory[1]
        answer = await self._send("GET", self._directory_url, "the directory")
        found = _read(objects.read_directory, answer, "the directory")
        self._directory = (now, found)
        return found

    async def renewal_info(self, certificate_id: str) -> tuple[RenewalInfo, timedelta | None] | None:
        """The window and what Retry-After says; None where the CA has no ARI (RFC 9773)."""
        directory = await self.directory()
        if directory.renewal_info is None:
            return None
        url = directory.renewal_info.rstrip("/") + "/" + certificate_id
        answer = await self._send("GET", url, "the renewal information")
        return _read(objects.read_renewal_info, answer, "the renewal information"), answer.wait

    # --- accounts ------------------------------------------------------------------------------------------------

    async def new_account(
        self,
        key: SigningKey,
        *,
        contacts: Sequence[str] = (),
        agree_terms: bool = False,
        eab: tuple[str, bytes] | None = None,
        only_existing: bool = False,
    ) -> tuple[str, Account]:
        """The URL and state of this key's account, made if there is none and not `only_existing`."""
        directory = await self.directory()
        payload: dict[str, Any] = {"contact": [f"mailto:{address}" for address in contacts]} if contacts else {}
        if agree_terms:
            payload["termsOfServiceAgreed"] = True
        if only_existing:
            payload = {"onlyReturnExisting": True}
        elif eab is not None:
            payload["externalAccountBinding"] = jose.external_account_binding(
                key, url=directory.new_account, kid=eab[0], mac_key=eab[1]
            )
        answer = await self._post(directory.new_account, payload, Signer(key), "the account")
        return _location(answer, "the account"), _read(objects.read_account, answer, "the account")

    async def find_account(self, key: SigningKey) -> str | None:
        """The URL of the usable account of this key, or None."""
        try:
            url, account = await self.new_account(key, only_existing=True)
        except Refused as refused:
            if refused.code == "ca_account_unknown":
                return None
            raise
        return url if account.status is AccountStatus.VALID else None

    async def account(self, who: Signer) -> Account:
        return _read(objects.read_account, await self._post(_kid(who), None, who, "the account"), "the account")

    async def orders(self, who: Signer) -> tuple[str, ...]:
        """Where the account's orders are, in the CA's order, a few hundred at most; none where the CA lists none."""
        url = (await self.account(who)).orders
        found: list[str] = []
        for _ in range(MOST_PAGES):
            if url is None:
                break
            answer = await self._post(url, None, who, "the list of orders")
            found += _read(objects.read_order_list, answer, "the list of orders")
            links = headers.parse_links(answer.headers.get("link"), answer.url)
            url = next((link.url for link in links if "next" in link.relations), None)
        return tuple(dict.fromkeys(found))

    async def update_contacts(self, who: Signer, contacts: Sequence[str]) -> Account:
        payload = {"contact": [f"mailto:{address}" for address in contacts]}
        return _read(objects.read_account, await self._post(_kid(who), payload, who, "the contacts"), "the contacts")

    async def deactivate_account(self, who: Signer) -> None:
        await self._post(_kid(who), {"status": "deactivated"}, who, "closing the account")

    async def change_key(self, who: Signer, new: SigningKey) -> None:
        directory = await self.directory()
        if directory.key_change is None:
            raise Refused("ca_no_key_change", "The CA can't change an account's key.", fix="Add this CA anew.")
        inner = jose.key_change(who.key, new, account_url=_kid(who), url=directory.key_change)
        await self._post(directory.key_change, inner, who, "the change of key")

    # --- orders --------------------------------------------------------------------------------------------------

    async def new_order(
        self,
        who: Signer,
        identifiers: Sequence[Identifier],
        *,
        replaces: str | None = None,
        profile: str | None = None,
    ) -> tuple[str, Order]:
        """The URL of the order, which is all that is needed to go on after a crash."""
        directory = await self.directory()
        payload: dict[str, Any] = {"identifiers": [{"type": i.type, "value": i.value} for i in identifiers]}
        if replaces is not None and directory.renewal_info is not None:
            payload["replaces"] = replaces
        if profile is not None:
            payload["profile"] = profile
        answer = await self._post(directory.new_order, payload, who, "the order")
        return _location(answer, "the order"), _read(objects.read_order, answer, "the order")

    async def order(self, who: Signer, url: str) -> tuple[Order, timedelta | None]:
        answer = await self._post(url, None, who, "the order")
        return _read(objects.read_order, answer, "the order"), answer.wait

    async def authorization(self, who: Signer, url: str) -> tuple[Authorization, timedelta | None]:
        answer = await self._post(url, None, who, "an authorization")
        return _read(objects.read_authorization, answer, "an authorization"), answer.wait

    async def deactivate_authorization(self, who: Signer, url: str) -> None:
        """The name isn't to be shown any more (RFC 8555 section 7.5.2)."""
        await self._post(url, {"status": "deactivated"}, who, "giving up a name")

    async def respond(self, who: Signer, challenge: Challenge) -> None:
        """What is asked for is in place: look now."""
        await self._post(challenge.url, {}, who, "the challenge")

    async def finalize(self, who: Signer, order: Order, csr_der: bytes) -> tuple[Order, timedelta | None]:
        answer = await self._post(order.finalize, {"csr": jose.b64url(csr_der)}, who, "finalizing the order")
        return _read(objects.read_order, answer, "finalizing the order"), answer.wait

    async def download(self, who: Signer, url: str) -> Chain:
        what = "the certificate"
        answer = await self._post(url, None, who, what, accept=_PEM_CHAIN, max_bytes=_CHAIN_BYTES)
        try:
            found = read_certificates(answer.body)
        except Problem as problem:
            raise refusals.unreadable(what, problem.message.rstrip(".")) from problem
        if not found:
            raise refusals.unreadable(what, "it holds no certificate")
        return Chain(found, headers.alternates(answer.headers.get("link"), answer.url)[:MOST_ALTERNATES])

    async def revoke(self, who: Signer, leaf_der: bytes, reason: int | None) -> None:
        """`who` is the account, or the certificate's own key without an account; content to find it revoked."""
        directory = await self.directory()
        payload: dict[str, Any] = {"certificate": jose.b64url(leaf_der)}
        if reason is not None:
            payload["reason"] = reason
        try:
            await self._post(directory.revoke_cert, payload, who, "the revocation")
        except Refused as refused:
            if refused.code != "ca_already_revoked":
                raise

    # --- requests ------------------------------------------------------------------------------------------------

    async def _post(
        self,
        url: str,
        payload: Mapping[str, Any] | None,
        who: Signer,
        what: str,
        *,
        accept: str = "application/json",
        max_bytes: int = _JSON_BYTES,
    ) -> Answer:
        """A signed request; a nonce the server doesn't know any more is replaced, a bounded number of times."""
        for tried in range(NONCE_TRIES):
            body = jose.signed_request(payload, url=url, nonce=await self._nonce(), key=who.key, kid=who.kid)
            try:
                return await self._send("POST", url, what, body=body, accept=accept, max_bytes=max_bytes)
            except Problem as problem:
                if problem.extra.get("acme") != "badNonce" or tried == NONCE_TRIES - 1:
                    raise
        raise AssertionError("the last try returns or raises")

    async def reach(self) -> None:
        """Make sure that the CA is there, so that a request that follows isn't in doubt for nothing."""
        self._nonces.put(await self._nonce(), self._clock.now())

    async def _nonce(self) -> str:
        kept = self._nonces.take(self._clock.now())
        if kept is not None:
            return kept
        await self._send("HEAD", (await self.directory()).new_nonce, "a nonce")
        fresh = self._nonces.take(self._clock.now())
        if fresh is None:
            raise refusals.unreadable("a nonce", "it holds none")
        return fresh

    async def _send(
        self,
        method: str,
        url: str,
        what: str,
        *,
        body: bytes = b"",
        accept: str = "application/json",
        max_bytes: int = _JSON_BYTES,
    ) -> Answer:
        fields = {"Accept": accept} | ({"Content-Type": _JOSE} if body else {})
        try:
            fetched = await self._egress.fetch(
                url, method=method, headers=fields, content=body, max_bytes=max_bytes, timeout=_TIMEOUT,
                allowed_ports=self._ports, tls=self._tls,
            )  # fmt: skip
        except EgressProblem as problem:
            raise refusals.unreachable(problem) from problem
        now, said = self._clock.now(), fetched.headers or {}
        self._nonces.put(said.get("replay-nonce"), now)
        wait = headers.retry_after(said.get("retry-after"), now)
        if fetched.status >= 400:
            raise refusals.refusal(objects.read_problem(fetched.body), fetched.status, wait, what)
        if not 200 <= fetched.status < 300:
            raise refusals.unreadable(what, f"its status is {fetched.status}")
        return Answer(fetched.status, url, fetched.body, said, wait)


async def gather(calls: Sequence[Awaitable[T]], at_once: int = 8) -> list[T]:
    """The results of awaitables in their order, a few at a time; a problem is raised after all had their turn."""
    gate = asyncio.Semaphore(at_once)

    async def one(call: Awaitable[T]) -> T:
        async with gate:
            return await call

    results: list[T] = []
    for done in await asyncio.gather(*(one(call) for call in calls), return_exceptions=True):
        if isinstance(done, BaseException):
            raise done
        results.append(done)
    return results


def _read(read: Callable[[bytes], T], answer: Answer, what: str) -> T:
    try:
        return read(answer.body)
    except Malformed as malformed:
        raise refusals.unreadable(what, str(malformed)) from None


def _location(answer: Answer, what: str) -> str:
    """The URL of what was made; https like every resource."""
    url = answer.location
    if url is None or len(url) > 2048 or not url.startswith("https://"):
        raise refusals.unreadable(what, "it doesn't say where it is")
    return url


def _kid(who: Signer) -> str:
    assert who.kid is not None, "this request needs an account"
    return who.kid
