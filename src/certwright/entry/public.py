"""What anyone may fetch: certificates and revocation lists of the CAs. Relying parties have no account here."""

from __future__ import annotations

import hashlib
from email.utils import format_datetime

from fastapi import Request, Response

from certwright.entry.api.base import PUBLIC, Router, services_of
from certwright.kernel.problems import not_found
from certwright.rooms import authorities
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
    """`<id>.crl` is DER (RFC 5280 4.2.1.13), `<id>.pem` is PEM.."""
    authority_id, _, ending = file_name.rpartition(".")
    if ending not in ("crl", "pem"):
        raise not_found("CRL", file_name[:80])
    services = services_of(request)
    crl = await authorities.newest_crl(services, authority_id)
    content = crl.der if ending == "crl" else crl_to_pem(crl.der).encode()
    etag = '"' + hashlib.sha256(content).hexdigest()[:32] + '"'
    headers = {
        "ETag": etag,
        "Last-Modified": format_datetime(crl.this_update, usegmt=True),
        # Short, because a revocation publishes a new list at once.
        "Cache-Control": "public, max-age=300",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    media_type = "application/pkix-crl" if ending == "crl" else "application/x-pem-file"
    return Response(content, media_type=media_type, headers=headers)
