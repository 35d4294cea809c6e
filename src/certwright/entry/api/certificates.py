"""`/api/v1/certificates`: apply, look, check, withdraw, reissue, revoke, download, delete."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import CALLER, SIGNED_IN, Caller, Moment, Router, check_if_match, in_utc, json_response
from certwright.entry.api.certificate_export import export_response
from certwright.kernel.problems import Invalid
from certwright.rooms import certificates
from certwright.rooms.certificates import Detail, State, Summary

router = Router(prefix="/certificates", tags=["certificates"])

Id = Annotated[str, Field(max_length=64)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ApplicantIn(_In):
    name: str = Field(max_length=200)
    email: str = Field(max_length=330)
    phone: str = Field(max_length=60)


def _person(given: ApplicantIn | None) -> certificates.Applicant | None:
    return certificates.Applicant(**given.model_dump()) if given else None


class ApplicationIn(_In):
    """What is applied for. `names` may be left out when `csr` carries them."""

    names: list[Annotated[str, Field(max_length=1024)]] = Field(default_factory=list, max_length=1000)
    domain_type: Annotated[str, Field(max_length=40)] | None = Field(
        default=None, description="single, multi or wildcard; follows from the names"
    )
    validation_method: Annotated[str, Field(max_length=40)] = Field(default="dns", description="dns or file")
    per_name_methods: dict[str, Annotated[str, Field(max_length=40)]] = Field(
        default_factory=dict, description="exceptions from validation_method, by name"
    )
    key_algorithm: Annotated[str, Field(max_length=40)] = Field(
        default="EC_P256", description="EC_P256, EC_P384, RSA_2048, RSA_3072 or RSA_4096; unused with a csr"
    )
    csr: Annotated[str, Field(max_length=200_000)] | None = Field(
        default=None, description="PEM; then the key stays with you and we can't deploy"
    )
    csr_id: Id | None = Field(
        default=None, description="a CSR that is kept here, instead of csr; if its key is, we deploy and renew"
    )
    pin_key: bool = Field(default=False, description="keep that CSR's key for later versions, too")
    certificate_type: Annotated[str, Field(max_length=40)] | None = Field(
        default=None, description="dv, ov, ov_pro, ev or ev_pro; as it was bought, else dv"
    )
    organisation_id: Id | None = Field(default=None, description="whom OV and EV certificates name")
    applicant: ApplicantIn | None = None
    technical_contact: ApplicantIn | None = Field(default=None, description="whom to ask about the servers, if another")
    root_hash: Annotated[str, Field(max_length=40)] = Field(
        default="default", description="default or sha256, where the CA lets people choose"
    )
    consent: bool = Field(default=False, description="agreement to the privacy statement; must be true to apply")
    consent_version: Annotated[str, Field(max_length=100)] = Field(
        default="", description="version of the statement that was read (/privacy-statement); default: today's"
    )

    def value(self) -> certificates.Application:
        return certificates.Application(
            names=tuple(self.names),
            domain_type=self.domain_type,
            validation_method=self.validation_method,
            per_name_methods=self.per_name_methods,
            key_algorithm=self.key_algorithm,
            csr=self.csr,
            csr_id=self.csr_id,
            pin_key=self.pin_key,
            applicant=_person(self.applicant),
            technical_contact=_person(self.technical_contact),
            root_hash=self.root_hash,
            consent=self.consent,
            consent_version=self.consent_version,
            certificate_type=self.certificate_type,
            organisation_id=self.organisation_id,
        )


class ChangesIn(_In):
    """What the next version is to have; what is left out stays as it is."""

    csr: Annotated[str, Field(max_length=200_000)] | None = Field(
        default=None, description="PEM; needed if the last one was yours, too"
    )
    key_algorithm: Annotated[str, Field(max_length=40)] | None = None
    validation_method: Annotated[str, Field(max_length=40)] | None = None
    per_name_methods: dict[str, Annotated[str, Field(max_length=40)]] | None = None
    applicant: ApplicantIn | None = None
    technical_contact: ApplicantIn | None = None

    def changes(self, **more: Any) -> certificates.Changes:
        return certificates.Changes(
            csr=self.csr, key_algorithm=self.key_algorithm, validation_method=self.validation_method,
            per_name_methods=self.per_name_methods,
            applicant=_person(self.applicant), technical_contact=_person(self.technical_contact), **more,
        )  # fmt: skip


class ReissueIn(ChangesIn):
    names: list[Annotated[str, Field(max_length=1024)]] | None = Field(
        default=None, max_length=1000, description="all the names it is to have"
    )
    organisation_id: Id | None = None


class AddDomainsIn(ChangesIn):
    names: list[Annotated[str, Field(max_length=1024)]] = Field(max_length=1000, description="the names to add")


class CertificateIn(_In):
    """A certificate to be; without `application` it waits in `pending_application`."""

    name: Annotated[str, Field(max_length=200)] | None = None
    description: Annotated[str, Field(max_length=2000)] = ""
    tags: dict[Annotated[str, Field(max_length=200)], Annotated[str, Field(max_length=200)]] = Field(
        default_factory=dict, max_length=100
    )
    project_id: Id | None = None
    ca: Annotated[str, Field(max_length=64)] = certificates.BUILTIN_CA
    fallback_ca: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="asked instead when ca refuses for reasons of its own or stays away"
    )
    auto_renew: bool = True
    application: ApplicationIn | None = None


class CertificatePatch(_In):
    name: Annotated[str, Field(max_length=200)] | None = None
    description: Annotated[str, Field(max_length=2000)] | None = None
    tags: (
        Annotated[
            dict[Annotated[str, Field(max_length=200)], Annotated[str, Field(max_length=200)]], Field(max_length=100)
        ]
        | None
    ) = None
    auto_renew: bool | None = None
    notify: bool | None = None
    project_id: Id | None = None
    fallback_ca: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="a second CA; empty: none"
    )


class RevokeIn(_In):
    reason: certificates.RevocationReason = certificates.RevocationReason.UNSPECIFIED
    version_id: Id | None = Field(default=None, description="an earlier version that hasn't expired; default: current")


class SummaryOut(BaseModel):
    id: str
    project_id: str
    name: str
    description: str
    tags: dict[str, str]
    state: State
    progress: int | None
    expires_soon: bool
    ca: str
    uploaded: bool
    primary_name: str
    names: list[str]
    key_algorithm: str | None
    sha256: str | None
    serial: str | None
    not_before: datetime | None
    not_after: datetime | None
    auto_renew: bool
    notify: bool
    created_at: datetime
    updated_at: datetime
    revision: int


class DomainOut(BaseModel):
    """One name to prove: what to do (`instructions`), and what was last found (`explanation`). `ends` is the day from
    which public CAs may not use the method any more."""

    name: str
    unicode_name: str
    challenge_id: str | None
    ends: str | None
    method: str
    status: str
    instructions: dict[str, Any] | None
    explanation: dict[str, Any] | None
    evidence_id: str | None
    valid_until: datetime | None


class ValidationOut(BaseModel):
    all_valid: bool
    domains: list[DomainOut]


class ApplicationOut(BaseModel):
    id: str
    kind: str
    names: list[str]
    unicode_names: list[str]
    domain_type: str
    validation_method: str
    key_algorithm: str
    key_source: str
    csr_id: str | None
    key_pinned: bool
    certificate_type: str
    organisation_id: str | None
    applicant: dict[str, str] | None
    technical_contact: dict[str, str] | None
    root_hash: str
    per_name_methods: dict[str, str]
    consent_at: datetime | None
    consent_version: str
    submitted_at: datetime
    validated_at: datetime | None
    issued_at: datetime | None
    withdrawn_at: datetime | None
    withdrawal_refused: str | None
    failed_at: datetime | None
    failure: dict[str, Any] | None
    waiting_for: dict[str, Any] | None


class VersionOut(BaseModel):
    id: str
    number: int
    names: list[str]
    subject: str
    issuer: str
    serial: str
    sha256: str
    sha1: str
    key_algorithm: str
    signature_algorithm: str
    has_key: bool
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    superseded_at: datetime | None
    revoke_asked_at: datetime | None
    revoked_at: datetime | None
    revocation_reason: str | None
    revoked_by: str | None = Field(
        description="what the CA believed: `account` (ours), `key` (the certificate's), or `control` of its names"
    )
    waiting_for: dict[str, Any] | None = Field(description="why a revocation that was asked for isn't done yet")
    chain: list[str]


class RefusalOut(BaseModel):
    code: str
    message: str
    fix: str = ""


class CoverageOut(BaseModel):
    """What was bought; the time paid for is longer than one version lives."""

    order_id: str
    product: str
    certificate_type: str
    domain_type: str
    names: int
    wildcards: int
    years: int
    starts_at: datetime | None
    ends_at: datetime | None
    inherited_days: int
    renews_certificate_id: str | None
    renewed_by: list[str] = Field(description="certificates of renewal orders for this one")


class ConfirmationOut(BaseModel):
    """A link mailed to the applicant of an OV or EV certificate before a version is revoked. `state` is waiting,
    confirmed, ran_out, or replaced by a newer link."""

    id: str
    version_id: str
    version: int
    address: str
    mailed_at: datetime
    expires_at: datetime
    confirmed_at: datetime | None
    state: str


class CertificateOut(SummaryOut):
    purpose: certificates.Purpose
    application: ApplicationOut | None
    validation: ValidationOut | None
    versions: list[VersionOut]
    renew_at: datetime | None
    fallback_ca: str | None
    coverage: CoverageOut | None
    confirmations: list[ConfirmationOut]
    allowed_operations: list[str]
    refused_operations: dict[str, RefusalOut]


class CertificatePage(BaseModel):
    items: list[SummaryOut]
    next_cursor: str | None


class DraftOut(BaseModel):
    names: list[str]
    domain_type: str | None
    validation_method: str
    per_name_methods: dict[str, str]
    key_algorithm: str
    csr: str | None
    csr_id: str | None
    pin_key: bool
    certificate_type: str | None
    organisation_id: str | None
    applicant: dict[str, str] | None
    technical_contact: dict[str, str] | None
    root_hash: str


def detail_json(detail: Detail) -> dict[str, Any]:
    """The document of one certificate; CertificateOut says the same to OpenAPI."""
    refused = {o.value: verdict for o, verdict in detail.allowed.items() if verdict is not None}
    return {name: getattr(detail.summary, name) for name in SummaryOut.model_fields} | {
        "purpose": detail.purpose,
        "application": detail.application,
        "validation": validation_json(detail.validation),
        "versions": detail.versions,
        "renew_at": detail.renew_at,
        "fallback_ca": detail.fallback_ca,
        "coverage": detail.coverage,
        "confirmations": detail.confirmations,
        "allowed_operations": detail.allowed_operations,
        "refused_operations": {
            name: {"code": r.code, "message": r.message, "fix": r.fix} for name, r in refused.items()
        },
    }


def validation_json(state: Any) -> dict[str, Any] | None:
    if state is None:
        return None
    return {"all_valid": state.all_valid, "domains": [domain_json(domain) for domain in state.domains]}


def domain_json(domain: Any) -> dict[str, Any]:
    return {
        "name": domain.name,
        "unicode_name": domain.unicode_name,
        "challenge_id": domain.challenge_id,
        "ends": domain.ends,
        "method": str(domain.method),
        "status": str(domain.status),
        "instructions": domain.instructions,
        "explanation": domain.explanation,
        "evidence_id": domain.evidence_id,
        "valid_until": domain.valid_until,
    }


def _answer(detail: Detail, status: int = 200) -> Response:
    headers = {"ETag": f'"{detail.summary.revision}"'}
    if status in (201, 202):
        headers["Location"] = f"/api/v1/certificates/{detail.id}"
    return json_response(detail_json(detail), status, headers)


# --- list -----------------------------------------------------------------------------------------------------------


def filters_of(
    state: Annotated[list[State] | None, Query()] = None,
    search: Annotated[str | None, Query(max_length=300, description="part of a name, fingerprint or serial")] = None,
    type: Annotated[str | None, Query(max_length=40, description="dv, ov, ov_pro, ev or ev_pro")] = None,
    domain_type: Annotated[str | None, Query(max_length=40, description="single, multi or wildcard")] = None,
    ca: Annotated[str | None, Query(max_length=64)] = None,
    project_id: Annotated[str | None, Query(max_length=64)] = None,
    tag: Annotated[list[str] | None, Query(description="key:value")] = None,
    expires_after: Annotated[Moment | None, Query()] = None,
    expires_before: Annotated[Moment | None, Query()] = None,
    expires_soon: Annotated[bool | None, Query()] = None,
    key_algorithm: Annotated[str | None, Query(max_length=40)] = None,
    sha256: Annotated[str | None, Query(max_length=100)] = None,
    serial: Annotated[str | None, Query(max_length=100)] = None,
    deployed_on: Annotated[str | None, Query(max_length=200, description="id or name of a target")] = None,
) -> certificates.Filters:
    return certificates.Filters(
        states=tuple(state or ()), search=search, ca=ca, project_id=project_id, tag=_tags(tag or []),
        expires_after=expires_after, expires_before=expires_before, expires_soon=expires_soon,
        key_algorithm=key_algorithm, sha256=sha256, serial=serial, certificate_type=type, domain_type=domain_type,
        deployed_on=deployed_on,
    )  # fmt: skip


Wanted = Annotated[certificates.Filters, Depends(filters_of)]


@router.get("", action="scm:cert:list", response_model=CertificatePage)
async def list_certificates(
    filters: Wanted,
    call: Caller = CALLER,
    sort: Annotated[Literal["created", "expiry", "updated", "state"], Query()] = "created",
    direction: Annotated[Literal["asc", "desc"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """Certificates you may see, a page at a time; `next_cursor` is null on the last page."""
    descending = (direction or ("asc" if sort in ("expiry", "state") else "desc")) == "desc"
    after = _read_cursor(cursor, sort) if cursor else None
    rows = await certificates.list_certificates(
        call.services, call.actor, filters, sort=sort, descending=descending, after=after, limit=limit + 1
    )
    more = len(rows) > limit
    rows = rows[:limit]
    return json_response({"items": rows, "next_cursor": _cursor(rows[-1], sort) if more else None})


def _tags(given: list[str]) -> Mapping[str, str]:
    tags = {}
    for text in given:
        key, colon, value = text.partition(":")
        if not colon or not key or "\x00" in text:
            raise Invalid("tag_filter_invalid", f"{text[:60]!r} is not key:value.", field="tag", fix="Write team:shop.")
        tags[key] = value
    return tags


def _cursor(row: Summary, sort: str) -> str:
    value: Any = {
        "created": None,
        "expiry": row.not_after,
        "updated": row.updated_at,
        "state": "issued" if row.state is State.EXPIRED else row.state,
    }[sort]
    return base64.urlsafe_b64encode(orjson.dumps([sort, value, row.id])).decode().rstrip("=")


def _read_cursor(text: str, sort: str) -> tuple[Any, str]:
    wrong = Invalid(
        "cursor_invalid", "That is not a cursor of this list.", field="cursor", fix="Start again without a cursor."
    )
    try:
        made_for, value, row_id = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if made_for != sort or not isinstance(row_id, str) or "\x00" in row_id:
            raise wrong
        if sort == "updated" or (sort == "expiry" and value is not None):
            value = in_utc(datetime.fromisoformat(value))
        elif sort == "state" and (not isinstance(value, str) or "\x00" in value):
            raise wrong
    except (binascii.Error, ValueError, TypeError) as error:
        raise wrong from error
    return value, row_id


@router.get(
    "/export",
    action="scm:cert:list",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}, "application/json": {}}, "description": "The file"}},
)
async def export_certificates(
    filters: Wanted, call: Caller = CALLER, format: Annotated[Literal["csv", "json"], Query()] = "csv"
) -> Response:
    """All certificates that fit the filters as one file, newest first."""
    return await export_response(certificates.export_certificates(call.services, call.actor, filters), format)


class StatementOut(BaseModel):
    """What applicants agree to; `current`: it is today's."""

    version: str
    current: bool
    text: str


@router.get("/privacy-statement", action=SIGNED_IN, response_model=StatementOut)
async def privacy_statement(
    call: Caller = CALLER,
    version: Annotated[str | None, Query(max_length=40, description="one agreed to earlier; default: today's")] = None,
) -> Response:
    """The privacy statement. Paragraphs are parted by empty lines; a line that begins with "# " is a heading."""
    found = await certificates.privacy_statement(call.services, version)
    today = certificates.current_privacy_statement(call.services).version
    return json_response({"version": found.version, "current": found.version == today, "text": found.text})


@router.get("/counts", action="scm:cert:list", response_model=dict[str, int])
async def count_certificates(call: Caller = CALLER) -> Response:
    """How many certificates you may see are in each state, and how many expire soon."""
    return json_response(await certificates.count_by_state(call.services, call.actor))


# --- one certificate ------------------------------------------------------------------------------------------------


@router.post("", action="scm:cert:apply", status_code=202, response_model=CertificateOut)
async def create_certificate(body: CertificateIn, call: Caller = CALLER) -> Response:
    """Make a certificate and submit its application. Goes on by itself: look at Location for state and what to do."""
    detail = await certificates.create_certificate(
        call.services,
        call.actor,
        application=body.application.value() if body.application else None,
        name=body.name,
        description=body.description,
        tags=body.tags,
        project_id=body.project_id,
        ca=body.ca,
        fallback_ca=body.fallback_ca,
        auto_renew=body.auto_renew,
    )
    return _answer(detail, 202)


@router.get("/{certificate_id}", action="scm:cert:get", response_model=CertificateOut)
async def get_certificate(certificate_id: str, call: Caller = CALLER) -> Response:
    return _answer(await certificates.get_certificate(call.services, call.actor, certificate_id))


@router.patch("/{certificate_id}", action="scm:cert:update", response_model=CertificateOut)
async def update_certificate(
    certificate_id: str, body: CertificatePatch, request: Request, call: Caller = CALLER
) -> Response:
    """Rename, describe, tag, move, switch automatic renewal or notifications. Needs If-Match."""
    detail = await certificates.update_certificate(
        call.services, call.actor, certificate_id, revision=check_if_match(request), **body.model_dump()
    )
    return _answer(detail)


@router.delete("/{certificate_id}", action="scm:cert:delete", status_code=204, response_class=Response)
async def delete_certificate(certificate_id: str, call: Caller = CALLER) -> Response:
    """Delete for good. Private keys are erased; the audit trail stays. Deleting does not revoke."""
    await certificates.delete_certificate(call.services, call.actor, certificate_id)
    return Response(status_code=204)


# --- many at once ---------------------------------------------------------------------------------------------------


class BulkIn(_In):
    """One action on many certificates, each by the rules of the single operation."""

    action: certificates.BulkAction
    ids: list[Id] = Field(max_length=1000)
    tags: (
        Annotated[
            dict[Annotated[str, Field(max_length=200)], Annotated[str, Field(max_length=200)]], Field(max_length=100)
        ]
        | None
    ) = Field(default=None, description="for tag and untag")
    project_id: Id | None = Field(default=None, description="for move")
    reason: certificates.RevocationReason | None = Field(default=None, description="for revoke")

    def value(self) -> certificates.Bulk:
        return certificates.Bulk(self.action, self.tags, self.project_id, self.reason)


class BulkLineOut(BaseModel):
    """`ok`: it will be, or was, done; else `problem` says why not."""

    id: str
    name: str
    primary_name: str
    ok: bool
    problem: dict[str, Any] | None


class BulkOut(BaseModel):
    ok: int
    refused: int
    items: list[BulkLineOut]


def _bulk_answer(lines: list[certificates.Line]) -> Response:
    items = [
        {
            "id": line.id, "name": line.name, "primary_name": line.primary_name, "ok": line.fine,
            "problem": None if line.problem is None else line.problem.as_dict(),
        }
        for line in lines
    ]  # fmt: skip
    fine = sum(line.fine for line in lines)
    return json_response({"ok": fine, "refused": len(lines) - fine, "items": items})


@router.post("/bulk/preview", action="scm:cert:list", response_model=BulkOut)
async def preview_bulk(body: BulkIn, call: Caller = CALLER) -> Response:
    """Says of each certificate whether the action would be done to it, and why not. Changes nothing."""
    return _bulk_answer(await certificates.bulk_preview(call.services, call.actor, body.value(), body.ids))


@router.post("/bulk", action="scm:cert:list", response_model=BulkOut)
async def perform_bulk(body: BulkIn, call: Caller = CALLER) -> Response:
    """Do it to each certificate that allows it, at most 200; the answer says of each what became of it."""
    return _bulk_answer(await certificates.bulk_perform(call.services, call.actor, body.value(), body.ids))


# --- application ----------------------------------------------------------------------------------------------------


@router.post("/{certificate_id}/application", action="scm:cert:apply", status_code=202, response_model=CertificateOut)
async def apply(certificate_id: str, body: ApplicationIn, call: Caller = CALLER) -> Response:
    """Submit the application of a certificate that waits for one (first time, after withdrawal, after a failure)."""
    return _answer(await certificates.apply(call.services, call.actor, certificate_id, body.value()), 202)


@router.get("/{certificate_id}/draft", action="scm:cert:get", response_model=DraftOut)
async def read_draft(certificate_id: str, call: Caller = CALLER) -> Response:
    return json_response(await certificates.read_draft(call.services, call.actor, certificate_id))


@router.put("/{certificate_id}/draft", action="scm:cert:apply", status_code=204, response_class=Response)
async def save_draft(certificate_id: str, body: ApplicationIn, call: Caller = CALLER) -> Response:
    """Keep what was typed so far, unjudged."""
    await certificates.save_draft(call.services, call.actor, certificate_id, body.value())
    return Response(status_code=204)


@router.post("/{certificate_id}/validation/check", action="scm:validation:check", response_model=ValidationOut)
async def check_validation(certificate_id: str, call: Caller = CALLER) -> Response:
    """Look now at each domain that waits, and say per domain what was looked for, where, and what was found."""
    await certificates.check_domains(call.services, call.actor, certificate_id)
    detail = await certificates.get_certificate(call.services, call.actor, certificate_id)
    return json_response(validation_json(detail.validation) or {"all_valid": True, "domains": []})


@router.post("/{certificate_id}/withdraw", action="scm:cert:withdraw", response_model=CertificateOut)
async def withdraw(certificate_id: str, call: Caller = CALLER) -> Response:
    """Take the open application back, as long as nothing has been ordered from the CA."""
    return _answer(await certificates.withdraw(call.services, call.actor, certificate_id))


@router.post("/{certificate_id}/reissue", action="scm:cert:renew", status_code=202, response_model=CertificateOut)
async def reissue(certificate_id: str, body: ReissueIn | None = None, call: Caller = CALLER) -> Response:
    """A new version now, with a new key and whatever else is to change; deployed wherever the certificate is bound.

    The version it replaces works on until the new one is deployed, and is revoked as superseded some days after nothing
    serves it any more; for OV and EV once the applicant followed a mailed link.
    """
    changes = certificates.UNCHANGED
    if body is not None:
        names = None if body.names is None else tuple(body.names)
        changes = body.changes(names=names, organisation_id=body.organisation_id)
    await certificates.reissue(call.services, call.actor, certificate_id, changes)
    return _answer(await certificates.get_certificate(call.services, call.actor, certificate_id), 202)


@router.post("/{certificate_id}/add-domains", action="scm:cert:renew", status_code=202, response_model=CertificateOut)
async def add_domains(certificate_id: str, body: AddDomainsIn, call: Caller = CALLER) -> Response:
    """More names for a multi-domain certificate, within its quota; the version there is works until the new one is."""
    await certificates.add_domains(call.services, call.actor, certificate_id, body.names, body.changes())
    return _answer(await certificates.get_certificate(call.services, call.actor, certificate_id), 202)


@router.post("/{certificate_id}/apply-again", action="scm:cert:apply", response_model=CertificateOut)
async def apply_again(certificate_id: str, call: Caller = CALLER) -> Response:
    """Use the paid time left after a revocation: the certificate waits for an application again."""
    return _answer(await certificates.apply_again(call.services, call.actor, certificate_id))


@router.post("/{certificate_id}/withdraw-privacy", action="scm:cert:withdraw_privacy", response_model=CertificateOut)
async def withdraw_privacy(certificate_id: str, call: Caller = CALLER) -> Response:
    """Erase the contact data and the organization's details kept with it, for good. The issued certificate stays."""
    return _answer(await certificates.withdraw_privacy(call.services, call.actor, certificate_id))


@router.post("/{certificate_id}/revoke", action="scm:cert:revoke", status_code=202, response_model=CertificateOut)
async def revoke(certificate_id: str, body: RevokeIn, call: Caller = CALLER) -> Response:
    """Revoke the current version, or an earlier one by its id. Can't be undone. A reissue under way goes on."""
    detail = await certificates.revoke(
        call.services, call.actor, certificate_id, body.reason, version_id=body.version_id
    )  # fmt: skip
    return _answer(detail, 202)


@router.post("/{certificate_id}/confirmation/mail", action="scm:cert:revoke", response_model=CertificateOut)
async def mail_confirmation(certificate_id: str, call: Caller = CALLER) -> Response:
    """Mail the applicant of an OV or EV certificate a new link for the revocation that waits for one; the link before
    it is dead then. At most once in five minutes."""
    await certificates.mail_revocation_again(call.services, call.actor, certificate_id)
    return _answer(await certificates.get_certificate(call.services, call.actor, certificate_id))


@router.get(
    "/{certificate_id}/download",
    action="scm:cert:download",
    response_class=Response,
    responses={200: {"content": {"application/x-pem-file": {}, "application/zip": {}}, "description": "The file"}},
)
async def download(
    certificate_id: str,
    call: Caller = CALLER,
    format: Annotated[certificates.Format, Query(description="a PEM part, or the archive for a server")] = "fullchain",
) -> Response:
    """The current version as a file: a part in PEM (fullchain, leaf, chain, root, key) or an archive.

    `key` and the archives for servers (nginx, apache, tomcat, iis, weblogic, resin, haproxy, kubernetes) hold the
    private key: they need scm:cert:export_key and are audited as key reads. pem, der and p7b hold certificates alone.
    """
    file = await certificates.download(call.services, call.actor, certificate_id, format)
    headers = {"Content-Disposition": f'attachment; filename="{file.file_name}"', "Cache-Control": "no-store"}
    return Response(file.content, media_type=file.media_type, headers=headers)
