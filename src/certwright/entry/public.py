"""What anyone may fetch: certificates and revocation lists of the CAs. Relying parties have no account here."""

from __future__ import annotations

import hashlib
from datetime import datetime
from email.utils import format_datetime

from fastapi import Request, Response

from certwright.entry.api.base import PUBLIC, Router, services_of
from certwright.kernel.problems import Invalid, not_found
from certwright.rooms import authorities
from certwright.x509 import ocsp
from certwright.x509.certificates import to_pem
from certwright.x509.crl import to_pem as crl_to_pem

router = Router(tags=["public"])


@router.get("/ca/{file_name}", action=PUBLIC, response_class=Response)
async def ca_certificate(file_name: str, request: Request) -> Response:
    """`<id>.crt` is DER (RFC 5280 4.2.2.1 wants it so in AIA), `<id>.pem` is PEM."""
    authority_id, _, ending = file_name.rpartition(".")
    if ending not in ("crt", "pem"):
        raise not_found("CA certificate", file_name[:80])
    _, der = await authorities.public_certificate(services_of(request), authority_id)
    if ending == "pem":
        return Response(to_pem(der), media_type="application/x-pem-file")
    return Response(der, media_type="application/pkix-cert")


@router.get("/crl/{file_name}", action=PUBLIC, response_class=Response)
async def revocation_list(file_name: str, request: Request) -> Response:
    """`<id>.crl` is DER (RFC 5280 4.2.1.13), `<id>.pem` is PEM; `<id>-<n>` is one of several lists of a CA."""
    name, _, ending = file_name.rpartition(".")
    authority_id, _, part = name.partition("-")
    if ending not in ("crl", "pem") or not (part == "" or (part.isascii() and part.isdigit() and len(part) <= 4)):
        raise not_found("CRL", file_name[:80])
    crl = await authorities.newest_crl(services_of(request), authority_id, int(part or 0))
    content = crl.der if ending == "crl" else crl_to_pem(crl.der).encode()
    # Short, because a revocation publishes a new list at once.
    return _kept(request, content, "application/pkix-crl" if ending == "crl" else "application/x-pem-file",
                 crl.this_update, "public, max-age=300")  # fmt: skip


def _kept(request: Request, content: bytes, media_type: str, changed: datetime, cache: str) -> Response:
    etag = '"' + hashlib.sha256(content).hexdigest()[:32] + '"'
    headers = {"ETag": etag, "Last-Modified": format_datetime(changed, usegmt=True), "Cache-Control": cache}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


# --- OCSP (RFC 6960 appendix A, RFC 5019) ----------------------------------------------------------------------------

_OCSP = "application/ocsp-response"
# RFC 5019 section 6.2: how long caches may hand an answer on; a revocation is told that much later there.
_ANSWER_SECONDS = 3600


@router.get("/ocsp/{authority_id}/{question:path}", action=PUBLIC, response_class=Response)
async def status_by_get(authority_id: str, question: str, request: Request) -> Response:
    """The question as base 64 in the path."""
    try:
        asked = ocsp.question_from_path(question)
    except Invalid:
        return _failure()
    return await _status(request, authority_id, asked)


@router.post("/ocsp/{authority_id}", action=PUBLIC, response_class=Response)
async def status_by_post(authority_id: str, request: Request) -> Response:
    """The question as DER in the body."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > ocsp.MAX_QUESTION_OCTETS:
            return _failure()
    try:
        asked = ocsp.read_question(body)
    except Invalid:
        return _failure()
    return await _status(request, authority_id, asked)


def _failure() -> Response:
    """What can't be read is answered in the protocol, with 200, as clients expect (RFC 6960 section 2.3)."""
    return Response(ocsp.failure(ocsp.Failure.MALFORMED_REQUEST), media_type=_OCSP,
                    headers={"Cache-Control": "no-store"})  # fmt: skip


async def _status(request: Request, authority_id: str, question: ocsp.Question) -> Response:
    answer = await authorities.answer(services_of(request), authority_id, question)
    if answer.this_update is None or question.nonce is not None:
        return Response(answer.der, media_type=_OCSP, headers={"Cache-Control": "no-store"})
    assert answer.next_update is not None
    cache = f"public, max-age={_ANSWER_SECONDS}, no-transform, must-revalidate"
    response = _kept(request, answer.der, _OCSP, answer.this_update, cache)
    response.headers["Expires"] = format_datetime(answer.next_update, usegmt=True)
    return response
