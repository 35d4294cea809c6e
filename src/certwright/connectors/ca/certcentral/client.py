"""A client of a CertCentral-style ordering API (DigiCert Services API v2) over the guarded egress client. It keeps
nothing: what must survive a crash is kept by the caller, between two calls."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import orjson

from certwright.acme.headers import retry_after
from certwright.connectors.ca.certcentral import objects, refusals
from certwright.connectors.ca.certcentral.objects import (
    Listed,
    OrderInfo,
    Organisation,
    OrganisationValidation,
    Placed,
    Reissue,
    Request,
    Token,
    Validation,
)
from certwright.kernel.clock import Clock
from certwright.kernel.problems import NotFound, Problem
from certwright.kernel.shapes import Malformed
from certwright.platform.egress import Egress, EgressProblem, Fetched
from certwright.rooms.cas import ShopCredentials
from certwright.x509.certificates import CertificateFacts, read_certificates

T = TypeVar("T")

KEY_HEADER: Final = "X-DC-DEVKEY"
_JSON_BYTES = 1024 * 1024
_CHAIN_BYTES = 256 * 1024
_TIMEOUT = 30.0
_USUAL_PORT = 443


class CertCentralClient:
    """One account at one CA. Safe to share between tasks; each request is its own connection.

    Every call raises Unavailable (ask again, see `refusals`), Refused or NotFound (don't).
    """

    def __init__(self, egress: Egress, clock: Clock, ca: ShopCredentials) -> None:
        self._egress = egress
        self._clock = clock
        self._base = ca.base_url.rstrip("/")
        self._key = ca.api_key
        # A root given for this CA is the only one trusted for it.
        self._tls = ssl.create_default_context(cadata=ca.root_pem) if ca.root_pem else None
        self._ports = {urlsplit(ca.base_url).port or _USUAL_PORT}

    # --- products and organisations ----------------------------------------------------------------------------------

    async def products(self) -> Mapping[str, str]:
        return await self._json("GET", "product", "the list of products", objects.read_products)

    async def organisations(self, name: str) -> tuple[Organisation, ...]:
        """Those whose name is like this one."""
        path = f"organization?filters%5Bname%5D={quote(name, safe='')}"
        return await self._json("GET", path, "the list of organizations", objects.read_organisations)

    async def create_organisation(self, facts: Mapping[str, Any]) -> str:
        """Its number. The CA refuses a second one with the same facts."""
        return await self._json("POST", "organization", "the organization", objects.read_organisation_number, facts)

    async def organisation_validations(self, number: str) -> tuple[OrganisationValidation, ...]:
        path = f"organization/{number}/validation"
        return await self._json("GET", path, "the organization's state", objects.read_organisation_validations)

    async def submit_organisation(self, number: str, validations: Sequence[Mapping[str, Any]]) -> None:
        """Have the CA verify it."""
        body = {"validations": list(validations)}
        await self._send("POST", f"organization/{number}/validation", "the organization's verification", body)

    # --- orders ------------------------------------------------------------------------------------------------------

    async def order(self, product: str, body: Mapping[str, Any]) -> Placed:
        """What this order costs is spent with the answer 201, whether or not it arrives."""
        return await self._json("POST", f"order/certificate/{quote(product, safe='')}", "the order",
                                objects.read_placed, body)  # fmt: skip

    async def reissue(self, order: str, body: Mapping[str, Any]) -> Placed:
        return await self._json("POST", f"order/certificate/{order}/reissue", "the reissue", objects.read_placed, body)

    async def orders_of(self, reference: str) -> tuple[Listed, ...]:
        """The orders that carry our reference, oldest first."""
        try:
            found = await self._json(
                "GET", f"order/alternate/{quote(reference, safe='')}", "the search for the order", objects.read_listed
            )
        except NotFound:
            return ()
        return tuple(sorted(found, key=lambda one: int(one.order)))

    async def reissues(self, order: str) -> tuple[Reissue, ...]:
        return await self._json("GET", f"order/certificate/{order}/reissue", "the list of reissues",
                                objects.read_reissues)  # fmt: skip

    async def info(self, order: str) -> OrderInfo:
        return await self._json("GET", f"order/certificate/{order}", "the order's state", objects.read_order)

    async def validation(self, order: str) -> Validation:
        return await self._json("GET", f"order/certificate/{order}/validation", "the order's validations",
                                objects.read_validation)  # fmt: skip

    async def token(self, order: str) -> Token:
        """The value that is to be published; the same one until it expires, then a new one."""
        return await self._json("PUT", f"order/certificate/{order}/dcv-random-value", "the value to publish",
                                objects.read_token)  # fmt: skip

    async def check(self, order: str) -> None:
        """What is published is in place: look now. Raises Refused when the CA doesn't see it."""
        await self._send("PUT", f"order/certificate/{order}/check-dcv", "the check of the domains")

    async def cancel(self, order: str, note: str) -> None:
        await self._send("PUT", f"order/certificate/{order}/status", "the cancellation",
                         {"status": "canceled", "note": note})  # fmt: skip

    # --- certificates ------------------------------------------------------------------------------------------------

    async def download(self, certificate: str) -> tuple[CertificateFacts, ...]:
        """Leaf first, without the root."""
        what = "the certificate"
        path = f"certificate/{certificate}/download/format/pem_noroot"
        fetched = await self._send("GET", path, what, accept="*/*", max_bytes=_CHAIN_BYTES)
        try:
            found = read_certificates(fetched.body)
        except Problem as problem:
            raise refusals.unreadable(what, problem.message.rstrip(".")) from problem
        leaves = [one for one in found if not one.is_ca]
        if len(leaves) != 1:
            raise refusals.unreadable(what, f"it holds {len(leaves)} certificates that belong to no CA")
        return (leaves[0], *(one for one in found if one.is_ca))

    async def revoke(self, serial: str, reason: str, comment: str, *, skip_approval: bool) -> Request | None:
        """None when it is revoked; a request when somebody has to approve it first."""
        body = {"revocation_reason": reason, "comments": comment, "skip_approval": skip_approval}
        fetched = await self._send("PUT", f"certificate/{serial}/revoke", "the revocation", body)
        return self._read(objects.read_revocation, fetched, "the revocation")

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _json(
        self, method: str, path: str, what: str, read: Callable[[bytes], T], body: Mapping[str, Any] | None = None
    ) -> T:
        return self._read(read, await self._send(method, path, what, body), what)

    def _read(self, read: Callable[[bytes], T], fetched: Fetched, what: str) -> T:
        try:
            return read(fetched.body)
        except Malformed as malformed:
            raise refusals.unreadable(what, str(malformed)) from None

    async def _send(
        self,
        method: str,
        path: str,
        what: str,
        body: Mapping[str, Any] | None = None,
        *,
        accept: str = "application/json",
        max_bytes: int = _JSON_BYTES,
    ) -> Fetched:
        # A redirect is an answer like any other and refused below: the key goes to the address of the settings alone.
        fields = {"Accept": accept, "Content-Type": "application/json", KEY_HEADER: self._key}
        if body is None and method != "GET":
            fields["Content-Length"] = "0"
        try:
            fetched = await self._egress.fetch(
                f"{self._base}/{path}", method=method, headers=fields,
                content=orjson.dumps(body) if body is not None else b"", max_bytes=max_bytes, timeout=_TIMEOUT,
                allowed_ports=self._ports, tls=self._tls,
            )  # fmt: skip
        except EgressProblem as problem:
            raise refusals.unreachable(problem) from problem
        if fetched.status >= 400:
            wait: timedelta | None = retry_after((fetched.headers or {}).get("retry-after"), self._clock.now())
            raise refusals.refusal(objects.read_faults(fetched.body), fetched.status, wait, what)
        if not 200 <= fetched.status < 300:
            raise refusals.unreadable(what, f"its status is {fetched.status}")
        return fetched
