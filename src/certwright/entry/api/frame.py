"""Around every request: an id, a cap on the body, safe headers, one log line, a count, and an opaque 500."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from certwright.entry.api.base import MAX_BODY_BYTES, MAX_DOCUMENT_BODY_BYTES, problem_response
from certwright.kernel.problems import Problem
from certwright.platform.telemetry import REQUESTS

log = structlog.get_logger(__name__)

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Health checks, scrapes and the console's own files; the console's pages ask for news of themselves with HX-Request.
_ROUTINE = ("/healthz", "/readyz", "/metrics", "/static/")
# Where documents are sent to: the only bodies that may be larger.
_DOCUMENTS = re.compile(r"(/api/v1/organisation-(cases|verifications)|/desk|/verifications)/[a-z0-9_]+/documents")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
# Only for a server with an address of its own: on localhost it would bind every other program there to HTTPS.
_HSTS = "max-age=31536000"


class Frame:
    """ASGI middleware around the whole application, console included."""

    def __init__(self, app: ASGIApp, *, hsts: bool) -> None:
        self._app = app
        headers = _HEADERS | ({"strict-transport-security": _HSTS} if hsts else {})
        self._headers = tuple((name.encode(), value.encode()) for name, value in headers.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope["certwright.request_id"] = request_id
        status = 0

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # As octets, which they are in the end: this runs for every answer.
                own = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                there = {name for name, _ in own}
                own += [pair for pair in self._headers if pair[0] not in there]
                message["headers"] = [*own, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                await self._app(scope, _capped(receive, headers, _most(scope)), send_framed)
        # The one place where the unknown must stay opaque: it is logged whole, and the client gets an id to quote.
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"], request_id=request_id)
            if status:
                raise
            await _sorry(scope, headers, request_id)(scope, receive, send_framed)
        finally:
            _note(scope, status, time.perf_counter() - begun, request_id)


def _sorry(scope: Scope, headers: Headers, request_id: str) -> Response:
    """The problem document, or for a person at a browser the same as a page."""
    problem = _internal()
    if scope["path"].startswith("/acme/"):
        # RFC 8555 section 6.7.
        kind = "urn:ietf:params:acme:error:serverInternal"
        return JSONResponse({"type": kind, "detail": f"{problem.message} {problem.fix} ({request_id})", "status": 500},
                            500, media_type="application/problem+json")  # fmt: skip
    if scope["path"].startswith("/api/") or "text/html" not in headers.get("accept", ""):
        return problem_response(problem, request_id)
    text = f"{problem.message} {problem.fix}"
    page = f"<!doctype html><title>{problem.title}</title><h1>{problem.title}</h1><p>{text}<p>Request id: {request_id}"
    return Response(page, 500, media_type="text/html")


def _internal() -> Problem:
    problem = Problem(
        "internal", "Something went wrong here; it isn't your request's fault.",
        fix="Try again; if it lasts, give the request id to whoever runs this server.",
    )  # fmt: skip
    problem.status, problem.title = 500, "Internal error"
    return problem


def _most(scope: Scope) -> int:
    """How many bytes the body may have."""
    takes_documents = scope["method"] == "POST" and _DOCUMENTS.fullmatch(scope["path"])
    return MAX_DOCUMENT_BODY_BYTES if takes_documents else MAX_BODY_BYTES


def _capped(receive: Receive, headers: Headers, most: int) -> Receive:
    """The body, refused as soon as it is known to be too large."""
    seen = 0
    announced = headers.get("content-length", "")
    too_large = announced.isdigit() and int(announced) > most

    async def capped() -> Message:
        nonlocal seen
        if too_large:
            raise HTTPException(413, str(most))
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > most:
                raise HTTPException(413, str(most))
        return message

    return capped


def _is_routine(scope: Scope, method: str) -> bool:
    """What comes by itself every few seconds, or with every page, and would hide what somebody did."""
    if scope.get("certwright.routine"):
        return True
    if method not in ("GET", "HEAD"):
        return False
    return scope["path"].startswith(_ROUTINE) or Headers(scope=scope).get("hx-request") == "true"


def _note(scope: Scope, status: int, seconds: float, request_id: str) -> None:
    route = getattr(scope.get("route"), "path", "none")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    REQUESTS.labels(method, route, status).inc()
    caller = scope.get("certwright.caller")
    tell = log.debug if status < 400 and _is_routine(scope, method) else log.info
    tell(
        "request", method=method, route=route, path=scope["path"][:200], status=status,
        ms=round(seconds * 1000, 1), request_id=request_id, actor=caller.actor.id if caller else None,
    )  # fmt: skip
