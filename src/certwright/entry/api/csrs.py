"""`/api/v1/csrs`: signing requests kept on their own, with or without their private key."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import (
    CALLER,
    Caller,
    Cursor,
    Limit,
    Page,
    Router,
    check_if_match,
    etag,
    json_response,
    page_of,
    read_cursor,
)
from certwright.kernel.problems import Invalid
from certwright.rooms import csrs

router = Router(prefix="/csrs", tags=["signing requests"])

Name = Annotated[str, Field(max_length=200)]
Id = Annotated[str, Field(max_length=64)]
Line = Annotated[str, Field(max_length=500)]
Pem = Annotated[str, Field(max_length=200_000)]
SecretPem = Annotated[str, Field(max_length=200_000, json_schema_extra={"format": "password"})]
Passphrase = Annotated[str, Field(max_length=2000, json_schema_extra={"format": "password"})]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SubjectIn(In):
    """What isn't given is left out of the request. Public CAs take the names only."""

    common_name: Line = Field(default="", description="CN; a host name here becomes the first name")
    organization: Line = Field(default="", description="O")
    organizational_unit: Line = Field(default="", description="OU; public CAs refuse it")
    country: Line = Field(default="", description="C, two letters (ISO 3166)")
    province: Line = Field(default="", description="ST")
    locality: Line = Field(default="", description="L")


class CsrIn(In):
    """A key and a request to be made here."""

    names: list[Annotated[str, Field(max_length=1024)]] = Field(
        default_factory=list, max_length=1000, description="host names and IP addresses, the primary one first"
    )
    subject: SubjectIn = Field(default_factory=SubjectIn)
    key_algorithm: Annotated[str, Field(max_length=40)] = Field(
        default="EC_P256", description="EC_P256, EC_P384, RSA_2048, RSA_3072 or RSA_4096"
    )
    name: Name | None = Field(default=None, description="what to call it; default csr-xxxxxxxxxx")
    project_id: Id | None = None


class CsrUpload(In):
    """A request made elsewhere; with its private key, certificates for it can be deployed and renewed here."""

    csr: Pem = Field(description="PEM")
    private_key: SecretPem | None = Field(default=None, description="PEM; must belong to the request; kept sealed")
    passphrase: Passphrase | None = Field(default=None, description="opens the private key; used once and forgotten")
    name: Name | None = Field(default=None, description="what to call it; default csr-xxxxxxxxxx")
    project_id: Id | None = None


class CsrPatch(In):
    name: Name | None = None
    project_id: Id | None = None


class KeyExport(In):
    passphrase: Passphrase | None = Field(default=None, description="encrypts the key (PKCS#8, AES-256)")


class SubjectOut(BaseModel):
    common_name: str
    organization: str
    organizational_unit: str
    country: str
    province: str
    locality: str


class UsedByOut(BaseModel):
    """Certificates that were applied for with it, and how many of these applications are open."""

    certificates: int
    open_applications: int


class CsrOut(BaseModel):
    """Everything but the key. `origin` is generated or uploaded; `has_key` says whether its key is held here."""

    id: str
    project_id: str
    name: str
    origin: csrs.Origin
    names: list[str]
    subject: SubjectOut
    key_algorithm: str
    spki_sha256: str
    has_key: bool
    pem: str
    used_by: UsedByOut
    created_at: datetime
    updated_at: datetime
    revision: int


_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-pem-file": {}, "application/pkcs10": {}}, "description": "The file"}
}


def _shown(csr: csrs.Csr, status: int = 200) -> Response:
    headers = {"ETag": etag(csr.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1/csrs/{csr.id}"
    return json_response(csr, status, headers)


def _file(file: csrs.Download) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{file.file_name}"', "Cache-Control": "no-store"}
    return Response(file.content, media_type=file.media_type, headers=headers)


@router.get("", action="scm:csr:list", response_model=Page[CsrOut])
async def list_csrs(
    call: Caller = CALLER,
    name: Annotated[str | None, Query(max_length=200, description="the whole name")] = None,
    search: Annotated[str | None, Query(max_length=300, description="part of its name or of a name inside")] = None,
    project_id: Annotated[str | None, Query(max_length=64)] = None,
    has_key: Annotated[bool | None, Query(description="whether its key is held here")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Newest first."""
    for field, text in (("name", name), ("search", search), ("project_id", project_id)):
        if text is not None and "\x00" in text:
            raise Invalid("text_invalid", "The text holds a NUL character.", field=field, fix="Remove it.")
    rows = await csrs.list_csrs(
        call.services, call.actor, name=name, search=search, project_id=project_id, has_key=has_key,
        after=read_cursor(cursor), limit=limit + 1,
    )  # fmt: skip
    return page_of(rows, limit, lambda csr: csr.id)


@router.post("", action="scm:csr:create", status_code=201, response_model=CsrOut)
async def generate(body: CsrIn, call: Caller = CALLER) -> Response:
    """Make a key and a request with it. The key is sealed, and leaves only by export-key."""
    made = await csrs.generate(
        call.services, call.actor, names=body.names, subject=csrs.Subject(**body.subject.model_dump()),
        key_algorithm=body.key_algorithm, name=body.name, project_id=body.project_id,
    )  # fmt: skip
    return _shown(made, 201)


@router.post("/upload", action="scm:csr:create", status_code=201, response_model=CsrOut)
async def upload(body: CsrUpload, call: Caller = CALLER) -> Response:
    """Keep a request made elsewhere, alone or with its private key."""
    return _shown(await csrs.upload(call.services, call.actor, **body.model_dump()), 201)


@router.get("/{csr_id}", action="scm:csr:get", response_model=CsrOut)
async def get_csr(csr_id: str, call: Caller = CALLER) -> Response:
    return _shown(await csrs.get_csr(call.services, call.actor, csr_id))


@router.patch("/{csr_id}", action="scm:csr:update", response_model=CsrOut)
async def update_csr(csr_id: str, body: CsrPatch, request: Request, call: Caller = CALLER) -> Response:
    """Rename it, or move it to another project with its key. Needs If-Match."""
    return _shown(
        await csrs.update_csr(
            call.services, call.actor, csr_id, revision=check_if_match(request), **body.model_dump()
        )
    )  # fmt: skip


@router.delete("/{csr_id}", action="scm:csr:delete", status_code=204, response_class=Response)
async def delete_csr(csr_id: str, call: Caller = CALLER) -> Response:
    """Delete for good; its key is erased. Certificates that were applied for with it keep their own copy."""
    await csrs.delete_csr(call.services, call.actor, csr_id)
    return Response(status_code=204)


@router.get("/{csr_id}/download", action="scm:csr:get", response_class=Response, responses=_FILE)
async def download(
    csr_id: str, call: Caller = CALLER, format: Annotated[csrs.CsrFormat, Query(description="pem or der")] = "pem"
) -> Response:
    """The request as a file."""
    return _file(await csrs.export_csr(call.services, call.actor, csr_id, format))


@router.post("/{csr_id}/export-key", action="scm:csr:export_key", secret=True, response_class=Response, responses=_FILE)
async def export_key(csr_id: str, body: KeyExport, call: Caller = CALLER) -> Response:
    """The private key as PKCS#8 PEM, encrypted if a passphrase is given. Audited."""
    return _file(await csrs.export_key(call.services, call.actor, csr_id, body.passphrase))
