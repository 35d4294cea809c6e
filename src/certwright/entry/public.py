"""What anyone may fetch: certificates and revocation lists of the CAs, and answers about what they issued (OCSP).

Relying parties have no account here. The documents are made once, for these routes and for the listener without TLS
(entry.status_listener).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime

import structlog
from fastapi import Request, Response

from certwright.entry.api.base import PUBLIC, Router, services_of
from certwright.kernel.problems import Invalid, Unavailable, not_found
from certwright.platform.services import Services
from certwright.rooms import authorities
from certwright.x509 import ocsp
from certwright.x509.certificates import to_pem
from certwright.x509.crl import to_pem as crl_to_pem

log = structlog.get_logger(__name__)

router = Router(tags=["public"])

OCSP_TYPE = "application/ocsp-response"
_PEM_TYPE = "application/x-pem-file"
# RFC 5019 section 6.2: how long caches may hand an answer on; a revocation is told that much later there.
_ANSWER_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Document:
    """`content` is None when whoever asks has it already; `etag` is None for what nobody may keep."""

    content: bytes | None
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str | None = None

    @property
    def status(self) -> int:
        return 200 if self.content is not None else 304


# --- CAs and lists ---------------------------------------------------------------------------------------------------


async def ca_document(services: Services, file_name: str) -> Document:
    """`<id>.crt` is DER (RFC 5280 4.2.2.1 wants it so in AIA), `<id>.pem` is PEM; `roots.pem` is every root that is in
    use, for programs that take a file of several. Raises NotFound."""
    if file_name == "roots.pem":
        return Document("".join(to_pem(der) for der in await authorities.trusted_roots(services)).encode(), _PEM_TYPE)
    authority_id, _, ending = file_name.rpartition(".")
    if ending not in ("crt", "pem"):
        raise not_found("CA certificate", file_name[:80])
    _, der = await authorities.public_certificate(services, authority_id)
    if ending == "pem":
        return Document(to_pem(der).encode(), _PEM_TYPE)
    return Document(der, "application/pkix-cert")


async def crl_document(services: Services, file_name: str, if_none_match: str | None = None) -> Document:
    """`<id>.crl` is DER (RFC 5280 4.2.1.13), `<id>.pem` is PEM; `<id>-<n>` is one of several lists of a CA. A list that
    whoever asks has already isn't read. Raises NotFound."""
    name, _, ending = file_name.rpartition(".")
    authority_id, _, part = name.partition("-")
    if ending not in ("crl", "pem") or not (part == "" or (part.isascii() and part.isdigit() and len(part) <= 4)):
        raise not_found("CRL", file_name[:80])
    media_type = "application/pkix-crl" if ending == "crl" else _PEM_TYPE
    if if_none_match is not None:
        head = await authorities.newest_crl_head(services, authority_id, int(part or 0))
        if is_known(if_none_match, tag := _list_tag(head, ending)):
            return Document(None, media_type, _list_headers(head.made_at), tag)
    crl = await authorities.newest_crl(services, authority_id, int(part or 0))
    content = crl.der if ending == "crl" else crl_to_pem(crl.der).encode()
    return Document(content, media_type, _list_headers(crl.made_at), _list_tag(crl, ending))


def _list_tag(crl: authorities.Crl | authorities.CrlHead, ending: str) -> str:
    """A list never changes under its number and time."""
    return f'"{crl.number:x}-{int(crl.made_at.timestamp() * 1000):x}-{ending}"'


def _list_headers(changed: datetime) -> dict[str, str]:
    # Short, because a revocation publishes a new list at once.
    return {"Last-Modified": format_datetime(changed, usegmt=True), "Cache-Control": "public, max-age=300"}


def is_known(if_none_match: str | None, etag: str | None) -> bool:
    """Whether the client has this already (RFC 9110 section 13.1.2)."""
    if if_none_match is None or etag is None:
        return False
    return if_none_match.strip() == "*" or etag in (
        one.strip().removeprefix("W/") for one in if_none_match.split(",")
    )  # fmt: skip


@router.get("/ca/{file_name}", action=PUBLIC, response_class=Response)
async def ca_certificate(file_name: str, request: Request) -> Response:
    """A CA's certificate: `<id>.crt` is DER, `<id>.pem` is PEM; `roots.pem` is every root that is in use."""
    return _response(await ca_document(services_of(request), file_name))


@router.get("/crl/{file_name}", action=PUBLIC, response_class=Response)
async def revocation_list(file_name: str, request: Request) -> Response:
    """A CA's newest list: `<id>.crl` is DER, `<id>.pem` is PEM; `<id>-<n>` is one of several lists."""
    return _response(await crl_document(services_of(request), file_name, _if_none_match(request)))


def _if_none_match(request: Request) -> str | None:
    """Lines of one name are one list (RFC 9110 section 5.3)."""
    return ", ".join(request.headers.getlist("if-none-match")) or None


def _response(document: Document) -> Response:
    headers = dict(document.headers)
    if document.etag is not None:
        headers["ETag"] = document.etag
    if document.content is None:
        return Response(status_code=304, headers=headers)
    return Response(document.content, media_type=document.media_type, headers=headers)


# --- OCSP (RFC 6960 appendix A, RFC 5019) ----------------------------------------------------------------------------


def answer_document(answer: authorities.StatusAnswer, question: ocsp.Question) -> Document:
    """What was signed, with what caches may do with it (RFC 5019 section 6.2); one with a nonce is for one reader.

    Last-Modified isn't what the answer says of itself, an hour less: who has the one before must not take it for newer.
    """
    if answer.signed_at is None or answer.next_update is None or question.nonce is not None:
        return Document(answer.der, OCSP_TYPE, {"Cache-Control": "no-store"})
    # Given until half of its life: so much of it is left to every reader. It is short in the last hours of a CA.
    half = (answer.next_update - answer.signed_at) / 2
    seconds = min(_ANSWER_SECONDS, int(half.total_seconds()))
    headers = {
        "Last-Modified": format_datetime(answer.signed_at, usegmt=True),
        "Expires": format_datetime(answer.next_update, usegmt=True),
        "Cache-Control": f"public, max-age={seconds}, no-transform, must-revalidate",
    }
    return Document(answer.der, OCSP_TYPE, headers, f'"{hashlib.sha256(answer.der).hexdigest()[:32]}"')


def failed_answer(kind: ocsp.Failure) -> Document:
    """What can't be answered is said in the protocol, with 200, as clients expect (RFC 6960 section 2.3)."""
    return Document(ocsp.failure(kind), OCSP_TYPE, {"Cache-Control": "no-store"})


@router.get("/ocsp/{authority_id}/{question:path}", action=PUBLIC, response_class=Response)
async def status_by_get(authority_id: str, question: str, request: Request) -> Response:
    """The question as base 64 in the path."""
    try:
        asked = ocsp.question_from_path(question)
    except Invalid:
        return _response(failed_answer(ocsp.Failure.MALFORMED_REQUEST))
    return await _status(request, authority_id, asked)


@router.post("/ocsp/{authority_id}", action=PUBLIC, response_class=Response)
async def status_by_post(authority_id: str, request: Request) -> Response:
    """The question as DER in the body."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > ocsp.MAX_QUESTION_OCTETS:
            return _response(failed_answer(ocsp.Failure.MALFORMED_REQUEST))
    try:
        asked = ocsp.read_question(body)
    except Invalid:
        return _response(failed_answer(ocsp.Failure.MALFORMED_REQUEST))
    return await _status(request, authority_id, asked)


async def _status(request: Request, authority_id: str, question: ocsp.Question) -> Response:
    try:
        answer = await authorities.answer(services_of(request), authority_id, question)
    except Unavailable as problem:
        log.warning("a status request was put off", code=problem.code)
        return _response(failed_answer(ocsp.Failure.TRY_LATER))
    document = answer_document(answer, question)
    # Not to a POST: "not modified" is an answer to who reads (RFC 9110 section 13.1.2).
    if request.method != "POST" and is_known(_if_none_match(request), document.etag):
        document = Document(None, document.media_type, document.headers, document.etag)
    return _response(document)
