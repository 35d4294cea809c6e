"""`/api/v1/uploads`: certificates that were issued elsewhere: try, upload, replace, and what an account admits."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import CALLER, Caller, Router, check_if_match, etag, json_response
from certwright.entry.api.certificates import CertificateOut, detail_json
from certwright.kernel.problems import Invalid
from certwright.rooms import uploads
from certwright.rooms.uploads import Purpose

router = Router(tags=["uploads"])

# A mebibyte as base64 and some line ends.
Text = Annotated[str, Field(max_length=1_500_000)]
Secret = Annotated[str, Field(max_length=1_500_000, json_schema_extra={"format": "password"})]
Passphrase = Annotated[str, Field(max_length=2000, json_schema_extra={"format": "password"})]
Encoding = Literal["text", "base64"]
Id = Annotated[str, Field(max_length=64)]
Label = Annotated[str, Field(max_length=200)]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FilesIn(In):
    """What to judge, as text; binary files (DER, P7B, PFX, JKS) as base64 with `encoding` base64."""

    certificate: Secret = Field(description="the certificate, with whatever stands beside it")
    key: Secret | None = Field(default=None, description="its private key, if it isn't in the same file")
    chain: Text | None = Field(default=None, description="intermediates, if they aren't in the same file")
    passphrase: Passphrase | None = Field(default=None, description="opens keys and stores; used once and forgotten")
    encoding: Encoding = Field(default="text", description="of certificate, key and chain")
    strict: bool = Field(default=False, description="PEM only, key without passphrase, chain complete")
    private: bool = Field(default=False, description="leave out what only public CAs must keep to")
    online: bool = Field(default=True, description="ask the CA for missing intermediates, and whether it was revoked")

    def given(self) -> uploads.Given:
        return uploads.Given(
            octets(self.certificate, self.encoding, "certificate"),
            octets(self.key, self.encoding, "key") if self.key is not None else None,
            octets(self.chain, self.encoding, "chain") if self.chain is not None else None,
            self.passphrase.encode() if self.passphrase else None,
        )


class ReplaceIn(FilesIn):
    allow_duplicate: bool = Field(default=False, description="even if this very certificate is there already")
    allow_fewer_names: bool = Field(default=False, description="even if it lacks names of the present version")

    def wishes(self, purpose: Purpose = Purpose.SERVER) -> uploads.Wishes:
        return uploads.Wishes(
            purpose=purpose, strict=self.strict, private=self.private, allow_duplicate=self.allow_duplicate,
            allow_fewer_names=self.allow_fewer_names, online=self.online,
        )  # fmt: skip


class CheckIn(ReplaceIn):
    purpose: Purpose = Field(default=Purpose.SERVER, description="client_ca: a CA's certificate to check clients by")
    replaces: Id | None = Field(default=None, description="the uploaded certificate it is to be a new version of")


class UploadIn(FilesIn):
    purpose: Purpose = Field(default=Purpose.SERVER, description="client_ca: a CA's certificate to check clients by")
    allow_duplicate: bool = Field(default=False, description="even if this very certificate is there already")
    name: Label | None = Field(default=None, description="3 to 63 letters, digits, . - _; default cert-xxxxxxxxxx")
    description: Annotated[str, Field(max_length=2000)] = ""
    tags: dict[Label, Label] = Field(default_factory=dict, max_length=100)
    project_id: Id | None = None

    def wishes(self) -> uploads.Wishes:
        return uploads.Wishes(
            purpose=self.purpose, strict=self.strict, private=self.private, allow_duplicate=self.allow_duplicate,
            online=self.online,
        )  # fmt: skip


class PolicyIn(In):
    legacy_rsa: bool = Field(description="admit RSA keys of 1024 to 2047 bits, with a warning that stays")


class FindingOut(BaseModel):
    """`where` names the input, and the block and line in it. An error blocks, a warning doesn't, a note is good to
    know. Each code has its page in the guide."""

    code: str
    severity: uploads.Severity
    where: str
    message: str
    fix: str


class RepairOut(BaseModel):
    code: str
    message: str
    where: str


class LeafOut(BaseModel):
    """What the judged certificate says."""

    subject: str
    issuer: str
    serial: str
    not_before: str
    not_after: str
    names: list[str]
    common_name: str | None
    key_algorithm: str
    signature_algorithm: str
    sha256: str
    sha1: str
    spki_sha256: str
    is_ca: bool
    self_signed: bool


class LinkOut(BaseModel):
    """`source`: given, known to this account, or fetched from the CA's address."""

    subject: str
    issuer: str
    sha256: str
    not_after: datetime
    source: uploads.Source


class ReferenceOut(BaseModel):
    id: str
    name: str


class JudgementOut(BaseModel):
    """`ok`: nothing is at error severity. `certificate` and `chain`: canonical PEM, ordered, without the root, as it is
    (or would be) stored. `successor_of`: uploaded certificates with the same names that it could replace."""

    ok: bool
    repaired: list[str]
    repairs: list[RepairOut]
    findings: list[FindingOut]
    leaf: LeafOut | None
    links: list[LinkOut]
    chain_complete: bool
    certificate: str
    chain: str
    has_key: bool
    successor_of: list[ReferenceOut]


class UploadedOut(BaseModel):
    certificate: CertificateOut
    version: int
    report: JudgementOut


class RecordOut(BaseModel):
    version_id: str
    version: int
    at: datetime
    by: str
    strict: bool
    repaired: list[str]
    findings: list[FindingOut]


class RecordsOut(BaseModel):
    items: list[RecordOut]


class QuotaOut(BaseModel):
    purpose: Purpose
    used: int
    limit: int


class QuotasOut(BaseModel):
    items: list[QuotaOut]


class PolicyOut(BaseModel):
    legacy_rsa: bool
    revision: int
    updated_at: datetime | None


def octets(text: str, encoding: Encoding, field: str) -> bytes:
    """What a field holds. Raises Invalid `bad_base64`."""
    if encoding == "text":
        return text.encode("utf-8", errors="replace")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(
            "bad_base64", "The field isn't base64.", field=field, fix="Send the file's octets as base64, or as text."
        ) from None


def _uploaded(made: uploads.Uploaded, status: int) -> Response:
    headers = {"ETag": etag(made.certificate.summary.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1/certificates/{made.certificate.id}"
    answer: dict[str, Any] = {
        "certificate": detail_json(made.certificate), "version": made.version, "report": made.judgement.as_dict(),
    }  # fmt: skip
    return json_response(answer, status, headers)


@router.post("/uploads", action="scm:cert:upload", status_code=201, response_model=UploadedOut)
async def upload(body: UploadIn, call: Caller = CALLER) -> Response:
    """Upload a certificate that was issued elsewhere, with its key; it becomes a certificate in state hosted.

    What is safely repaired is repaired and told; errors come back all at once, each with its place and remedy.
    """
    made = await uploads.upload(
        call.services, call.actor, body.given(), body.wishes(), name=body.name, description=body.description,
        tags=body.tags, project_id=body.project_id,
    )  # fmt: skip
    return _uploaded(made, 201)


@router.post("/uploads/check", action="scm:cert:upload", response_model=JudgementOut)
async def check(body: CheckIn, call: Caller = CALLER) -> Response:
    """Say what an upload would come to, with everything the account knows; nothing is stored."""
    found = await uploads.check(
        call.services, call.actor, body.given(), body.wishes(body.purpose), replaces=body.replaces
    )  # fmt: skip
    return json_response(found.as_dict())


@router.get("/uploads/quotas", action="scm:upload_policy:get", response_model=QuotasOut)
async def quotas(call: Caller = CALLER) -> Response:
    """How many uploaded certificates the account holds, and how many it may."""
    return json_response({"items": await uploads.quotas(call.services, call.actor)})


@router.get("/uploads/policy", action="scm:upload_policy:get", response_model=PolicyOut)
async def get_policy(call: Caller = CALLER) -> Response:
    return _policy(await uploads.get_policy(call.services, call.actor))


@router.patch("/uploads/policy", action="scm:upload_policy:update", response_model=PolicyOut)
async def set_policy(body: PolicyIn, request: Request, call: Caller = CALLER) -> Response:
    """What the account admits. Needs If-Match."""
    return _policy(
        await uploads.set_policy(
            call.services, call.actor, legacy_rsa=body.legacy_rsa, revision=check_if_match(request)
        )
    )  # fmt: skip


def _policy(policy: uploads.UploadPolicy) -> Response:
    return json_response(policy, headers={"ETag": etag(policy.revision)})


@router.post("/certificates/{certificate_id}/replace", action="scm:cert:replace", response_model=UploadedOut)
async def replace(certificate_id: str, body: ReplaceIn, call: Caller = CALLER) -> Response:
    """A newer upload becomes the next version of an uploaded certificate, and is deployed wherever that is used."""
    return _uploaded(
        await uploads.replace(call.services, call.actor, certificate_id, body.given(), body.wishes()), 200
    )  # fmt: skip


@router.get("/certificates/{certificate_id}/uploads", action="scm:cert:get", response_model=RecordsOut)
async def records(certificate_id: str, call: Caller = CALLER) -> Response:
    """What was found at each upload of it, newest first; warnings that remain are among them."""
    return json_response({"items": await uploads.records(call.services, call.actor, certificate_id)})
