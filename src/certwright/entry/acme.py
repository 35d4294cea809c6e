"""The HTTP side of the ACME server (RFC 8555 section 6): what every answer carries, and which resource is meant.

Not routes of the API: bodies are JWS, refusals are ACME's problem documents, and a certificate takes six requests, so
each of them should cost little.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from certwright.acme.requests import MAX_OCTETS, AcmeProblem, malformed
from certwright.kernel.problems import Forbidden, NotFound, Problem, Refused, TooMany, Unavailable
from certwright.platform.limits import Bucket, Rate, take
from certwright.platform.services import Services
from certwright.rooms import acme_server
from certwright.rooms.acme_server import Reply, Served, protocol
from certwright.rooms.acme_server.protocol import Asked, Signed

log = structlog.get_logger(__name__)

_JOSE = "application/jose+json"
_CHAIN = "application/pem-certificate-chain"
_PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class _Resource:
    path: str


_RESOURCES = {
    (path.split("/")[0], *path.split("/")[2:3]): _Resource(f"/acme/{{slug}}/{path}")
    for path in (
        "new-account", "new-order", "revoke-cert", "key-change", "account/{id}", "account/{id}/orders", "order/{id}",
        "order/{id}/finalize", "cert/{id}", "authz/{id}", "directory", "new-nonce", "renewal-info/{id}",
    )
}  # fmt: skip
_RESOURCES |= {("challenge", kind): _Resource("/acme/{slug}/challenge/{id}/" + kind) for kind in acme_server.CHALLENGES}
# What can be had without an account; a POST-as-GET gets the first two as well (section 6.3).
_METHODS = {
    "directory": ("GET", "HEAD", "POST"), "new-nonce": ("GET", "HEAD", "POST"), "renewal-info": ("GET", "HEAD"),
}  # fmt: skip
# How often one address may register at one directory.
_REGISTRATIONS = Rate(burst=100, per_second=1 / 30)
_MOST_ADDRESSES = 10_000
_UNKNOWN = _Resource("/acme/{slug}/*")


class AcmeDoor:
    """ASGI middleware: what is below /acme/<slug>/ is answered here, all else goes on to `app`."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services
        self._nonces = services.port(acme_server.Nonces)
        self._directories = services.port(acme_server.KnownDirectories)
        self._registrations: dict[tuple[str, str], Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/acme/"):
            await self._app(scope, receive, send)
            return
        slug, *parts = scope["path"].split("/")[2:]
        # For the log and the metrics, as the API's routes tell theirs.
        scope["route"] = _RESOURCES.get((*parts[:1], *parts[2:3]), _UNKNOWN)
        # Orders, and what became of them, are kept; eight lines for each would hide all else.
        scope["certwright.routine"] = True
        response = await self._respond(Request(scope, receive), slug, tuple(parts))
        await response(scope, receive, send)

    async def _respond(self, request: Request, slug: str, parts: tuple[str, ...]) -> Response:
        methods = _METHODS.get(parts[0] if parts else "", ("POST",))
        if request.method not in methods:
            return _refusal(AcmeProblem("malformed", f"This is asked with {' or '.join(methods)}.", status=405),
                            {"Allow": ", ".join(methods)})  # fmt: skip
        signed = request.method == "POST"
        try:
            served = await self._directories.get(slug)
            if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
                # No id has it, and no database takes it.
                raise _nothing_here()
            if signed:
                answer = await self._answer(served, request, parts)
            else:
                answer = await self._unsigned(served, request.method, parts)
        except (AcmeProblem, Problem) as problem:
            refused = _as_acme(problem)
            if isinstance(problem, Unavailable):
                # Without a database there is no key to make a nonce with.
                return _refusal(refused, {"Retry-After": "5"})
            if not signed or isinstance(problem, NotFound):
                return _refusal(refused, {})
            # Each answer to a signed request carries a nonce for the next, refusals too (section 6.5).
            try:
                return _refusal(refused, await self._headers(slug))
            except Unavailable:
                return _refusal(refused, {})
        headers = await self._headers(slug) if signed or parts == ("new-nonce",) else {}
        return _response(answer, headers)

    async def _headers(self, slug: str) -> dict[str, str]:
        index = acme_server.directory_url(self._services, slug, "directory")
        return {
            "Replay-Nonce": await self._nonces.fresh(),
            "Cache-Control": "no-store",
            "Link": f'<{index}>;rel="index"',
        }

    async def _unsigned(self, served: Served, method: str, parts: tuple[str, ...]) -> Reply:
        match parts:
            case ("directory",):
                return protocol.directory(self._services, served)
            case ("new-nonce",):
                # Section 7.2: 200 for HEAD, 204 for GET.
                return Reply(status=200 if method == "HEAD" else 204)
            case ("renewal-info", renewal_id):
                return await protocol.renewal_info(self._services, served, renewal_id)
            case _:
                raise _nothing_here()

    async def _answer(self, served: Served, request: Request, parts: tuple[str, ...]) -> Reply:
        services = self._services
        url = acme_server.directory_url(services, served.slug, *parts)
        if query := request.scope["query_string"]:
            url += f"?{query.decode('latin-1')}"
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _JOSE:
            raise AcmeProblem("malformed", f"The Content-Type must be {_JOSE}.", status=415)
        body = await _body(request)

        async def ask(by: Signed = Signed.BY_ACCOUNT) -> Asked:
            return await protocol.ask(services, served, url, body, by=by)

        async def at_once(resource: Callable[..., Awaitable[Reply]], *which: str) -> Reply:
            return await protocol.answer_at_once(services, served, url, body, resource, *which)

        match parts:
            case ("directory",):
                return protocol.directory(services, protocol.only_reading(await ask()).served)
            case ("new-nonce",):
                protocol.only_reading(await ask())
                return Reply(status=204)
            case ("new-account",):
                self._allow_registration(served, request)
                return await protocol.new_account(services, await ask(Signed.BY_KEY))
            case ("new-order",):
                return await at_once(protocol.new_order)
            case ("revoke-cert",):
                return await protocol.revoke(services, await ask(Signed.BY_EITHER))
            case ("key-change",):
                return await protocol.key_change(services, await ask())
            case ("account", account_id):
                return await protocol.account(services, await ask(), account_id)
            case ("account", account_id, "orders"):
                cursor = request.query_params.get("cursor")
                return await protocol.orders(services, await ask(), account_id, cursor)
            case ("order", order_id):
                return await at_once(protocol.order, order_id)
            case ("order", order_id, "finalize"):
                return await at_once(protocol.finalize, order_id)
            case ("cert", order_id):
                return await at_once(protocol.certificate, order_id)
            case ("authz", authorization_id):
                return await at_once(protocol.authorization, authorization_id)
            case ("challenge", authorization_id, challenge):
                return await at_once(protocol.challenge, authorization_id, challenge)
            case _:
                raise _nothing_here()

    def _allow_registration(self, served: Served, request: Request) -> None:
        """Where no key for binding is asked for, anybody can register, and each account stays for months."""
        if served.eab_required:
            return
        place = (served.id, request.client.host if request.client else "")
        if len(self._registrations) >= _MOST_ADDRESSES:
            self._registrations.clear()
        bucket, seconds = take(self._registrations.get(place), _REGISTRATIONS, self._services.clock.now())
        self._registrations[place] = bucket
        if seconds:
            raise AcmeProblem("rateLimited", f"Too many accounts were asked for from this address; the next one is "
                              f"possible in {seconds} s.", retry_after=seconds)  # fmt: skip


def _nothing_here() -> AcmeProblem:
    return AcmeProblem("malformed", "There is nothing at this address.", status=404)


async def _body(request: Request) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_OCTETS:
        raise _too_large()
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_OCTETS:
                raise _too_large()
    except ClientDisconnect:
        # Nobody hears it; but it is no failure of ours, to be logged as one.
        raise malformed("The request ended before its end.") from None
    return body


def _too_large() -> AcmeProblem:
    return AcmeProblem("malformed", f"The request is larger than {MAX_OCTETS // 1024} KiB.", status=413)


def _response(answer: Reply, headers: dict[str, str]) -> Response:
    if answer.location is not None:
        headers["Location"] = answer.location
    if answer.retry_after is not None:
        headers["Retry-After"] = str(answer.retry_after)
    for url, relation in answer.links:
        link = f'<{url}>;rel="{relation}"'
        headers["Link"] = f"{headers['Link']}, {link}" if "Link" in headers else link
    if answer.chain is not None:
        return Response(answer.chain, answer.status, headers, _CHAIN)
    if answer.document is None:
        return Response(status_code=answer.status, headers=headers)
    return Response(orjson.dumps(answer.document), answer.status, headers, "application/json")


def _refusal(problem: AcmeProblem, headers: dict[str, str]) -> Response:
    if problem.location is not None:
        headers["Location"] = problem.location
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    return Response(orjson.dumps(problem.document()), problem.status, headers, _PROBLEM)


def _as_acme(problem: AcmeProblem | Problem) -> AcmeProblem:
    """What a room refused, in ACME's words; the sentence and how to fix it stay."""
    if isinstance(problem, AcmeProblem):
        return problem
    # The CA is the service's, not the client's, to choose.
    fix = "Ask whoever runs this ACME service." if problem.code == "ca_not_active" else problem.fix
    said = f"{problem.message} {fix}".strip()
    match problem:
        case NotFound():
            return AcmeProblem("malformed", said, status=404)
        case Unavailable():
            return AcmeProblem("serverInternal", said, status=503)
        case TooMany():
            return AcmeProblem("rateLimited", said)
        case Refused() | Forbidden():
            return AcmeProblem("unauthorized", said)
        case _:
            return AcmeProblem("malformed", said)
