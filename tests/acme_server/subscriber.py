"""An ACME client among servers that die: what it keeps on its disk, and what it does next.

It does what RFC 8555 lets a client do: it knows its keys and the addresses it was told, says again what nobody
answered, and looks at what there is before it does anything. A certificate is ordered, then renewed (RFC 9773), then
the first of the two is revoked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certwright.acme import jose
from certwright.acme.challenges import key_authorization
from certwright.acme.jose import b64url, from_b64url
from certwright.acme.renewal import certificate_id
from tests.acme_server.support import JOSE, csr

_LOOKS = 400
"""How often a client comes to see whether its challenge was looked at."""


class NoAnswer(Exception):
    """The server couldn't answer, or died; the client comes again later."""


class Surroundings(Protocol):
    """Where a client lives."""

    def publish(self, kind: str, name: str, token: str, said: str) -> None:
        """Put in place what a challenge of this kind is met with; `said` is the key authorization."""

    async def passing(self, look: int) -> None:
        """A little time, after the challenge was seen waiting for the `look`th time."""


@dataclass
class Wanted:
    """One certificate: its key, and what the client was told of it so far."""

    names: tuple[str, ...]
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    order: str | None = None
    chain: bytes | None = None

    @property
    def leaf(self) -> x509.Certificate:
        assert self.chain is not None
        return x509.load_pem_x509_certificates(self.chain)[0]


_ORDER_RANKS = ("pending", "ready", "processing", "valid")


@dataclass
class Subscriber:
    base: str
    key_id: str
    secret: str
    names: tuple[str, ...]
    kinds: tuple[str, ...] = ("http-01",)
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    kid: str | None = None
    revoked: bool = False
    nonce: str | None = None
    said: list[str] = field(default_factory=list)
    """Every answer, for whoever has to find out what went wrong."""
    orders: dict[str, Any] = field(default_factory=dict)
    """What was told last of each order, by its address."""
    shown: set[str] = field(default_factory=set)
    """Authorizations that were said to be valid."""
    answered: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """The last request of each kind that was answered: its nonce is used."""

    def __post_init__(self) -> None:
        self.wanted = [Wanted(self.names), Wanted(self.names)]

    @property
    def in_hand(self) -> int:
        """How many certificates it has."""
        return sum(wanted.chain is not None for wanted in self.wanted)

    @property
    def is_content(self) -> bool:
        return self.revoked

    async def post(self, http: httpx2.AsyncClient, url: str, payload: Any, *, by_key: bool = False) -> httpx2.Response:
        """Raises NoAnswer."""
        for _ in range(3):
            if self.nonce is None:
                self.nonce = (await self.send(http, "HEAD", f"{self.base}/new-nonce")).headers.get("replay-nonce")
                if self.nonce is None:
                    raise NoAnswer
            nonce, self.nonce = self.nonce, None
            body = jose.signed_request(payload, url=url, nonce=nonce, key=self.key, kid=None if by_key else self.kid)
            answer = await self.send(http, "POST", url, body)
            self.nonce = answer.headers.get("replay-nonce")
            if b":badNonce" not in answer.content:
                break
        if answer.status_code == 503:
            assert answer.headers["retry-after"]
            raise NoAnswer
        parts = url.removeprefix(f"{self.base}/").split("/")
        self.answered["finalize" if parts[-1] == "finalize" else parts[0]] = url, body
        self.said.append(f"{url.removeprefix(self.base)} {answer.status_code} {answer.text[:300]}")
        return answer

    async def send(self, http: httpx2.AsyncClient, method: str, url: str, body: bytes = b"") -> httpx2.Response:
        """Raises NoAnswer when the connection breaks."""
        headers = {"content-type": JOSE} if body else {}
        try:
            return await http.request(method, url, content=body, headers=headers)
        except httpx2.TransportError as error:
            raise NoAnswer from error

    async def ask(self, http: httpx2.AsyncClient, url: str) -> Any:
        answer = await self.post(http, url, None)
        assert answer.status_code == 200, self.said
        return answer.json()

    # --- what is still missing ----------------------------------------------------------------------------------------

    async def go_on(self, http: httpx2.AsyncClient, around: Surroundings) -> None:
        """Raises NoAnswer."""
        await self._register(http)
        before: Wanted | None = None
        for wanted in self.wanted:
            if wanted.chain is None:
                await self._obtain(http, around, wanted, before)
            before = wanted
        await self._revoke(http)

    async def _register(self, http: httpx2.AsyncClient) -> None:
        if self.kid is not None:
            return
        url = f"{self.base}/new-account"
        binding = jose.external_account_binding(self.key, url=url, kid=self.key_id, mac_key=from_b64url(self.secret))
        answer = await self.post(http, url, {"externalAccountBinding": binding}, by_key=True)
        assert answer.status_code in (200, 201), self.said
        self.kid = answer.headers["location"]

    async def _obtain(
        self, http: httpx2.AsyncClient, around: Surroundings, wanted: Wanted, before: Wanted | None
    ) -> None:
        if wanted.order is None:
            replaces = None if before is None else await self._due(http, before.leaf)
            answer = await self._ask_for(http, wanted, replaces)
            assert answer.status_code == 201, self.said
            wanted.order = answer.headers["location"]
            self._heard(wanted.order, answer.json())
        order = self._heard(wanted.order, await self.ask(http, wanted.order))
        for url, kind in zip(order["authorizations"], self.kinds, strict=True):
            await self._show(http, around, url, kind)
        order = self._heard(wanted.order, await self.ask(http, wanted.order))
        if order["status"] == "ready":
            answer = await self.post(http, order["finalize"], {"csr": csr(*wanted.names, key=wanted.key)})
            assert answer.status_code == 200, self.said
            order = self._heard(wanted.order, answer.json())
        assert order["status"] == "valid", self.said
        answer = await self.post(http, order["certificate"], None)
        assert answer.status_code == 200, self.said
        wanted.chain = answer.content

    async def _ask_for(self, http: httpx2.AsyncClient, wanted: Wanted, replaces: str | None) -> httpx2.Response:
        asked: dict[str, Any] = {"identifiers": [{"type": "dns", "value": name} for name in wanted.names]}
        if replaces is not None:
            asked["replaces"] = replaces
        return await self.post(http, f"{self.base}/new-order", asked)

    async def _due(self, http: httpx2.AsyncClient, leaf: x509.Certificate) -> str:
        """How renewal information calls a certificate, once it was heard that there is such."""
        name = certificate_id(leaf.public_bytes(Encoding.DER))
        answer = await self.send(http, "GET", f"{self.base}/renewal-info/{name}")
        if answer.status_code == 503:
            raise NoAnswer
        assert answer.status_code == 200, answer.text
        assert answer.json()["suggestedWindow"]
        assert name is not None
        return name

    async def _show(self, http: httpx2.AsyncClient, around: Surroundings, url: str, kind: str) -> None:
        for look in range(_LOOKS):
            proof = await self.ask(http, url)
            if proof["status"] == "valid":
                self.shown.add(url)
                return
            assert proof["status"] == "pending", self.said
            challenge = next(one for one in proof["challenges"] if one["type"] == kind)
            if challenge["status"] == "pending":
                said = key_authorization(challenge["token"], self.key)
                around.publish(kind, proof["identifier"]["value"], challenge["token"], said)
                await self.post(http, challenge["url"], {})
            await around.passing(look)
        pytest.fail(f"nobody looks: {self.said}")

    async def _revoke(self, http: httpx2.AsyncClient) -> None:
        if self.revoked:
            return
        answer = await self._ask_to_revoke(http)
        assert answer.status_code == 200 or b":alreadyRevoked" in answer.content, self.said
        self.revoked = True

    async def _ask_to_revoke(self, http: httpx2.AsyncClient) -> httpx2.Response:
        payload = {"certificate": b64url(self.wanted[0].leaf.public_bytes(Encoding.DER)), "reason": 4}
        return await self.post(http, f"{self.base}/revoke-cert", payload)

    # --- what was answered --------------------------------------------------------------------------------------------

    def _heard(self, url: str, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """An order doesn't fall behind what was told of it."""
        known = self.orders.get(url)
        if known is not None:
            for name in ("identifiers", "authorizations", "finalize", "expires", "replaces"):
                assert order.get(name) == known.get(name), f"{known} became {order}: {self.said}"
            ranks = [_ORDER_RANKS.index(one["status"]) for one in (known, order)]
            assert ranks == sorted(ranks), f"{known} became {order}: {self.said}"
        self.orders[url] = order
        return order

    async def still_true(self, http: httpx2.AsyncClient) -> None:
        """All that was ever answered: the account, its orders, what was shown, the certificates, the revocation."""
        for url, body in list(self.answered.values()):
            again = await self.send(http, "POST", url, body)
            assert again.status_code == 400, f"{url}: {again.text}"
            assert again.json()["type"] == "urn:ietf:params:acme:error:badNonce", f"{url}: {again.text}"
        if self.kid is None:
            return
        found = await self.post(http, f"{self.base}/new-account", {"onlyReturnExisting": True}, by_key=True)
        assert (found.status_code, found.headers["location"]) == (200, self.kid), self.said
        assert found.json()["status"] == "valid", self.said
        listed = (await self.ask(http, found.json()["orders"]))["orders"]
        assert set(self.orders) <= set(listed), f"{self.said}: {listed}"
        for order in list(self.orders):
            self._heard(order, await self.ask(http, order))
        for shown in self.shown:
            assert (await self.ask(http, shown))["status"] == "valid", self.said
            await self._is_replaced_once(http, order)
        for wanted in self.wanted:
            if wanted.chain is not None:
                assert wanted.order is not None
                served = await self.post(http, self.orders[wanted.order]["certificate"], None)
                assert (served.status_code, served.content) == (200, wanted.chain), self.said
        if self.revoked:
            assert b":alreadyRevoked" in (await self._ask_to_revoke(http)).content, self.said

    async def _is_replaced_once(self, http: httpx2.AsyncClient, url: str) -> None:
        """Asked again for what an order replaces, the server means that very order, or says that it is done."""
        order = self.orders[url]
        if "replaces" not in order:
            return
        again = await self._ask_for(http, self.wanted[1], order["replaces"])
        if order["status"] == "valid":
            assert again.status_code == 409, self.said
            assert b":alreadyReplaced" in again.content, self.said
        else:
            assert (again.status_code, again.headers["location"]) == (201, url), self.said
