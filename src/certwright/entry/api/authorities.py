"""`/api/v1/authorities`: the private CAs, and certificates issued from them at once."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import CALLER, Caller, Router, json_response
from certwright.entry.api.certificates import SummaryOut
from certwright.rooms import authorities, certificates
from certwright.x509.certificates import to_pem

router = Router(prefix="/authorities", tags=["private CA"])


class AuthorityOut(BaseModel):
    id: str
    project_id: str
    name: str
    kind: str
    builtin: bool
    parent_id: str | None
    state: authorities.CaState
    subject: str
    key_algorithm: str
    serial: str
    sha256: str
    not_before: datetime
    not_after: datetime
    certificate_pem: str
    crl_number: int
    crl_next_update: datetime | None
    crl_url: str
    issued: int | None
    revision: int


class AuthorityList(BaseModel):
    items: list[AuthorityOut]
    next_cursor: None = None


class IssueIn(BaseModel):
    """Names (DNS or IP) and a key made here, or a CSR."""

    model_config = ConfigDict(extra="forbid")

    names: list[Annotated[str, Field(max_length=1024)]] = Field(default_factory=list, max_length=1000)
    key_algorithm: Annotated[str, Field(max_length=40)] = "EC_P256"
    csr: Annotated[str, Field(max_length=200_000)] | None = None
    days: int | None = Field(default=None, description="1 to 199; default 90")
    name: Annotated[str, Field(max_length=200)] | None = None
    description: Annotated[str, Field(max_length=2000)] = ""
    project_id: Annotated[str, Field(max_length=64)] | None = None
    auto_renew: bool = True


def authority_json(authority: authorities.Authority) -> dict[str, Any]:
    fields = {name: getattr(authority, name) for name in AuthorityOut.model_fields if name != "certificate_pem"}
    return fields | {"certificate_pem": to_pem(authority.certificate_der)}


@router.get("", action="ccm:ca:list", response_model=AuthorityList)
async def list_authorities(call: Caller = CALLER) -> Response:
    found = await authorities.list_authorities(call.services, call.actor)
    return json_response({"items": [authority_json(a) for a in found], "next_cursor": None})


@router.get("/{authority_id}", action="ccm:ca:get", response_model=AuthorityOut)
async def get_authority(authority_id: str, call: Caller = CALLER) -> Response:
    return json_response(authority_json(await authorities.get_authority(call.services, call.actor, authority_id)))


@router.post("/{authority_id}/certificates", action="ccm:cert:issue", status_code=201, response_model=SummaryOut)
async def issue(authority_id: str, body: IssueIn, call: Caller = CALLER) -> Response:
    """A server certificate from this CA at once; you vouch for the names. Key, record and audit are committed first."""
    summary = await certificates.issue_private(
        call.services, call.actor, authority_id=authority_id, **body.model_dump()
    )
    headers = {"Location": f"/api/v1/certificates/{summary.id}", "ETag": f'"{summary.revision}"'}
    return json_response(summary, 201, headers)
