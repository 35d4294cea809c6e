"""`/api/v1/organisations`, `/organisation-verifications` (the applicant's side), `/organisation-cases` (the desk) and
`/organisation-links` (the mailed link)."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from certwright.entry.api.base import (
    CALLER,
    PUBLIC,
    SIGNED_IN,
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
    services_of,
)
from certwright.entry.api.openapi import IF_MATCH
from certwright.kernel.problems import Invalid
from certwright.rooms import organisations
from certwright.rooms.organisations import (
    CertificateType,
    Item,
    Kind,
    Level,
    Operation,
    Outcome,
    State,
    Turn,
    Way,
)

router = Router(tags=["organisations"])

Text = Annotated[str, Field(max_length=500)]
Words = Annotated[str, Field(max_length=5000)]
Id = Annotated[str, Field(max_length=64)]
IdFilter = Annotated[str | None, Query(max_length=64)]
Base64 = Annotated[str, Field(max_length=14 * 1024 * 1024, json_schema_extra={"contentEncoding": "base64"})]
Secret = Annotated[str, Field(max_length=200, json_schema_extra={"format": "password"})]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")


# --- organisations ---------------------------------------------------------------------------------------------------


class JurisdictionIn(In):
    """Where it is registered."""

    country: Text = Field(description="ISO 3166-1 alpha-2")
    region: Text = ""


class AddressIn(In):
    street: Text
    city: Text
    province: Text = ""
    postal_code: Text = ""
    country: Text = Field(description="ISO 3166-1 alpha-2")


class PhoneIn(In):
    """A number of a public directory, by which a specialist calls back."""

    number: Text = Field(description="with the country's code: +49 30 1234567")
    source: Text = Field(description="the public directory it was found in")


class ContactIn(In):
    name: Text
    email: Text
    phone: Text = ""
    role: Text = ""


class OrganisationIn(In):
    """As the public register spells it."""

    kind: Literal["company", "sole_trader", "non_profit", "public_body", "unlisted"]
    legal_name: Text
    registration_number: Text = Field(default="", description="only public bodies have none")
    jurisdiction: JurisdictionIn
    address: AddressIn
    phone: PhoneIn
    contacts: list[ContactIn] = Field(default_factory=list, max_length=50)
    project_id: Id | None = None


class OrganisationPatch(In):
    """What isn't given stays. Other facts have to be verified anew; contacts don't."""

    kind: Literal["company", "sole_trader", "non_profit", "public_body", "unlisted"] | None = None
    legal_name: Text | None = None
    registration_number: Text | None = None
    jurisdiction: JurisdictionIn | None = None
    address: AddressIn | None = None
    phone: PhoneIn | None = None
    contacts: list[ContactIn] | None = Field(default=None, max_length=50)


def _facts(body: OrganisationIn | OrganisationPatch) -> dict[str, Any]:
    """The facts given, by the names of the room."""
    found: dict[str, Any] = {
        "kind": body.kind, "legal_name": body.legal_name, "registration_number": body.registration_number,
    }  # fmt: skip
    if body.jurisdiction is not None:
        found |= {"jurisdiction_country": body.jurisdiction.country, "jurisdiction_region": body.jurisdiction.region}
    if body.address is not None:
        found |= body.address.model_dump()
    if body.phone is not None:
        found |= {"phone": body.phone.number, "phone_source": body.phone.source}
    return {name: value for name, value in found.items() if value is not None}


class JurisdictionOut(BaseModel):
    country: str
    region: str


class AddressOut(BaseModel):
    street: str
    city: str
    province: str
    postal_code: str
    country: str


class PhoneOut(BaseModel):
    number: str
    source: str


class FactsOut(BaseModel):
    kind: Kind
    legal_name: str
    registration_number: str
    jurisdiction: JurisdictionOut
    address: AddressOut
    phone: PhoneOut


class ContactOut(BaseModel):
    name: str
    email: str
    phone: str
    role: str


class VerificationOut(BaseModel):
    """Of the facts as they are now. `usable_until` is by the rule in force today, counted from the oldest evidence."""

    case_id: str
    ca: str
    level: Level
    evidence_at: datetime
    usable_until: datetime


class OrganisationOut(FactsOut):
    id: str
    project_id: str
    contacts: list[ContactOut]
    verifications: list[VerificationOut]
    open_cases: int
    revision: int
    created_at: datetime
    updated_at: datetime


class KindOut(BaseModel):
    """`problem` says why organizations of this kind can't be verified; ask before paying."""

    kind: Kind
    sentence: str
    verifiable: bool
    problem: dict[str, Any] | None


class KindsOut(BaseModel):
    items: list[KindOut]


def facts_json(facts: organisations.Facts) -> dict[str, Any]:
    return {
        "kind": facts.kind, "legal_name": facts.legal_name, "registration_number": facts.registration_number,
        "jurisdiction": {"country": facts.jurisdiction_country, "region": facts.jurisdiction_region},
        "address": {
            "street": facts.street, "city": facts.city, "province": facts.province, "postal_code": facts.postal_code,
            "country": facts.country,
        },
        "phone": {"number": facts.phone, "source": facts.phone_source},
    }  # fmt: skip


def organisation_json(one: organisations.Organisation) -> dict[str, Any]:
    rest = ("id", "project_id", "contacts", "verifications", "open_cases", "revision", "created_at", "updated_at")
    return facts_json(one.facts) | {name: getattr(one, name) for name in rest}


def _organisation(one: organisations.Organisation, status: int = 200) -> Response:
    headers = {"ETag": etag(one.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1/organisations/{one.id}"
    return json_response(organisation_json(one), status, headers)


@router.get("/organisation-kinds", action=SIGNED_IN, response_model=KindsOut)
async def list_kinds(call: Caller = CALLER) -> Response:
    """The kinds of organizations, and whether they can be verified at all. Ask before paying for OV or EV."""
    items = []
    for kind, sentence in organisations.rules.KINDS.items():
        problem = organisations.rules.why_not_verifiable(kind)
        said = problem.as_dict() if problem else None
        items.append({"kind": kind, "sentence": sentence, "verifiable": problem is None, "problem": said})
    return json_response({"items": items})


@router.get("/organisations", action="scm:organisation:list", response_model=Page[OrganisationOut])
async def list_organisations(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    rows = await organisations.list_organisations(
        call.services, call.actor, after=read_cursor(cursor), limit=limit + 1
    )  # fmt: skip
    return page_of(rows, limit, lambda one: one.id, organisation_json)


@router.post("/organisations", action="scm:organisation:create", status_code=201, response_model=OrganisationOut)
async def add_organisation(body: OrganisationIn, call: Caller = CALLER) -> Response:
    """Add an organization to apply for. Nothing is verified before somebody applies in its name."""
    made = await organisations.add_organisation(
        call.services, call.actor, facts=_facts(body), contacts=[one.model_dump() for one in body.contacts],
        project_id=body.project_id,
    )  # fmt: skip
    return _organisation(made, 201)


@router.get("/organisations/{organisation_id}", action="scm:organisation:get", response_model=OrganisationOut)
async def get_organisation(organisation_id: str, call: Caller = CALLER) -> Response:
    return _organisation(await organisations.get_organisation(call.services, call.actor, organisation_id))


@router.patch("/organisations/{organisation_id}", action="scm:organisation:update", response_model=OrganisationOut)
async def update_organisation(
    organisation_id: str, body: OrganisationPatch, request: Request, call: Caller = CALLER
) -> Response:  # fmt: skip
    """Needs If-Match. Facts stay as they are while they are being verified."""
    contacts = None if body.contacts is None else [one.model_dump() for one in body.contacts]
    changed = await organisations.update_organisation(
        call.services, call.actor, organisation_id, revision=check_if_match(request), facts=_facts(body),
        contacts=contacts,
    )  # fmt: skip
    return _organisation(changed)


@router.delete(
    "/organisations/{organisation_id}", action="scm:organisation:delete", status_code=204, response_class=Response
)
async def delete_organisation(organisation_id: str, call: Caller = CALLER) -> Response:
    """Forget an organization with its contacts."""
    await organisations.delete_organisation(call.services, call.actor, organisation_id)
    return Response(status_code=204)


# --- the applicant's side --------------------------------------------------------------------------------------------


class ProgressOut(BaseModel):
    item: str
    state: Literal["done", "open", "later", "failed"]
    turn: Turn
    sentence: str


class DocumentOut(BaseModel):
    """`media_type` was recognised by the content; `size` is in bytes."""

    id: str
    name: str
    media_type: str
    size: int
    sha256: str
    from_applicant: bool
    by_name: str
    at: datetime


class VettingOut(BaseModel):
    """How far the verification for an application is, what is missing, and whose turn it is. `refused_unless_by` is
    when silence ends it."""

    id: str
    project_id: str
    subject_id: str
    organisation_id: str | None
    legal_name: str | None
    type: CertificateType
    ca: str
    state: State
    turn: Turn
    way: Way | None
    asked: str | None
    progress: list[ProgressOut]
    documents: list[DocumentOut]
    reasons: list[str]
    refused_unless_by: datetime | None
    reused_from: str | None
    created_at: datetime
    verified_at: datetime | None


class WayIn(In):
    way: Literal["phone", "documents", "official_mail"]


class DocumentIn(In):
    """A PDF, PNG or JPEG of at most 10 MB."""

    name: Annotated[str, Field(max_length=400)]
    content: Base64 = Field(description="the file in base 64")

    def bytes(self) -> bytes:
        try:
            return base64.b64decode(self.content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Invalid(
                "content_not_base64", "The content is not base 64.", field="content", fix="Encode the file's bytes."
            ) from error


_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {kind: {} for kind in organisations.rules.EXTENSIONS},
        "description": "The file; browsers save it and never show it",
    }
}


def _file(file: organisations.DocumentContent) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{file.file_name}"',
        "Cache-Control": "no-store",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(file.content, media_type=file.media_type, headers=headers)


def _made(document: organisations.Document, where: str) -> Response:
    return json_response(document, 201, {"Location": f"/api/v1/{where}/documents/{document.id}"})


@router.get("/organisation-verifications", action="scm:vetting:list", response_model=Page[VettingOut])
async def list_vettings(
    call: Caller = CALLER,
    state: Annotated[State | None, Query()] = None,
    subject: IdFilter = None,
    organisation: IdFilter = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Verifications of the account's organizations, newest first; `subject` is the application that waits."""
    rows = await organisations.list_vettings(
        call.services, call.actor, state=state, subject_id=subject, organisation_id=organisation,
        after=read_cursor(cursor), limit=limit + 1,
    )  # fmt: skip
    return page_of(rows, limit, lambda one: one.id)


@router.get("/organisation-verifications/{case_id}", action="scm:vetting:get", response_model=VettingOut)
async def get_vetting(case_id: str, call: Caller = CALLER) -> Response:
    return json_response(await organisations.get_vetting(call.services, call.actor, case_id))


@router.post("/organisation-verifications/{case_id}/way", action="scm:vetting:choose", response_model=VettingOut)
async def choose(case_id: str, body: WayIn, call: Caller = CALLER) -> Response:
    """Choose how to be verified; possible until a specialist takes the case."""
    return json_response(await organisations.choose(call.services, call.actor, case_id, body.way))


@router.post(
    "/organisation-verifications/{case_id}/documents",
    action="scm:vetting:send", status_code=201, response_model=DocumentOut,
)  # fmt: skip
async def send_document(case_id: str, body: DocumentIn, call: Caller = CALLER) -> Response:
    """Send a document. What was asked for counts as sent with the first."""
    kept = await organisations.send_document(
        call.services, call.actor, case_id, name=body.name, content=body.bytes()
    )  # fmt: skip
    return _made(kept, f"organisation-verifications/{case_id}")


@router.get(
    "/organisation-verifications/{case_id}/documents/{document_id}",
    action="scm:vetting:download", response_class=Response, responses=_FILE,
)  # fmt: skip
async def download_sent(case_id: str, document_id: str, call: Caller = CALLER) -> Response:
    """A document that was sent with the application; audited."""
    return _file(await organisations.download_sent(call.services, call.actor, case_id, document_id))


class LinkIn(In):
    token: Secret


class LinkWayIn(LinkIn):
    way: Literal["phone", "documents", "official_mail"]


class LinkOut(BaseModel):
    case_id: str
    legal_name: str
    type: CertificateType
    applicant_name: str
    expires_at: datetime


@router.post("/organisation-links/look", action=PUBLIC, response_model=LinkOut)
async def look_link(body: LinkIn, request: Request) -> Response:
    """What a mailed link is about. Changes nothing; the token is in the body so that no log holds it."""
    return json_response(await organisations.look_link(services_of(request), body.token))


@router.post("/organisation-links/choose", action=PUBLIC, status_code=204, response_class=Response)
async def choose_by_link(body: LinkWayIn, request: Request) -> Response:
    """Choose with the token of a mailed link; it works once."""
    await organisations.choose_by_link(services_of(request), body.token, body.way)
    return Response(status_code=204)


# --- the desk --------------------------------------------------------------------------------------------------------


class ApplicantOut(BaseModel):
    name: str
    email: str
    phone: str
    user_id: str | None
    locale: str


class CheckOut(BaseModel):
    id: str
    item: Item
    outcome: Outcome
    source: str
    note: str
    by_name: str
    at: datetime


class CaseOut(BaseModel):
    """A case with its evidence. `missing` items keep it from being approved; `allowed` is what you may do now, as far
    as your permissions go. Facts and applicant are null once privacy authorization was withdrawn."""

    id: str
    account_id: str
    project_id: str
    subject_id: str
    organisation_id: str | None
    type: CertificateType
    level: Level
    ca: str
    state: State
    turn: Turn
    facts: FactsOut | None
    applicant: ApplicantOut | None
    way: Way | None
    asked: str | None
    required: list[Item]
    missing: list[Item]
    checks: list[CheckOut]
    documents: list[DocumentOut]
    claimed_by: str | None
    claimed_by_name: str | None
    claimed_at: datetime | None
    approved_by_name: str | None
    approved_at: datetime | None
    seconded_by_name: str | None
    returned: str | None
    reasons: list[str]
    refused_unless_by: datetime | None
    reused_from: str | None
    forgotten_at: datetime | None
    created_at: datetime
    verified_at: datetime | None
    evidence_at: datetime | None
    refused_at: datetime | None
    cancelled_at: datetime | None
    alone: bool
    due_at: datetime | None
    revision: int
    allowed: list[Operation]


class CheckIn(In):
    """What was found about one item, and where."""

    item: Literal[
        "existence", "address", "phone", "applicant_authority", "operational_existence", "requester_authority",
        "approver_authority",
    ]  # fmt: skip
    outcome: Literal["passed", "failed"]
    source: Text = Field(description="the register, directory or paper it was found in")
    note: Words = ""


class WordsIn(In):
    words: Words


class ReasonsIn(In):
    reasons: list[Annotated[str, Field(max_length=1000)]] = Field(min_length=1, max_length=50)


def case_json(case: organisations.Case) -> dict[str, Any]:
    shown = {name: getattr(case, name) for name in CaseOut.model_fields}
    return shown | {"facts": facts_json(case.facts) if case.facts else None}


def _case(case: organisations.Case) -> Response:
    return json_response(case_json(case), 200, {"ETag": etag(case.revision)})


@router.get("/organisation-cases", action="desk:case:list", response_model=Page[CaseOut])
async def list_cases(
    call: Caller = CALLER,
    state: Annotated[State | None, Query()] = None,
    mine: Annotated[bool, Query(description="only those you have taken")] = False,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Cases of every account, oldest first, for specialists of the operator."""
    rows = await organisations.list_cases(
        call.services, call.actor, state=state, mine=mine, after=read_cursor(cursor), limit=limit + 1
    )
    return page_of(rows, limit, lambda case: case.id, case_json)


@router.get("/organisation-cases/{case_id}", action="desk:case:get", response_model=CaseOut)
async def get_case(case_id: str, call: Caller = CALLER) -> Response:
    return _case(await organisations.get_case(call.services, call.actor, case_id))


@router.post("/organisation-cases/{case_id}/claim", action="desk:case:work", response_model=CaseOut)
async def claim(case_id: str, call: Caller = CALLER) -> Response:
    """Take a case from the queue."""
    return _case(await organisations.claim(call.services, call.actor, case_id))


@router.post("/organisation-cases/{case_id}/release", action="desk:case:work", response_model=CaseOut)
async def release(case_id: str, call: Caller = CALLER) -> Response:
    """Put a case back; a colleague's only when nobody worked on it for a day."""
    return _case(await organisations.release(call.services, call.actor, case_id))


@router.post("/organisation-cases/{case_id}/checks", action="desk:case:work", response_model=CaseOut)
async def record_check(case_id: str, body: CheckIn, call: Caller = CALLER) -> Response:
    """Record what was found. A later check of the same item counts instead of an earlier one."""
    return _case(await organisations.record_check(call.services, call.actor, case_id, **body.model_dump()))


@router.post("/organisation-cases/{case_id}/ask", action="desk:case:work", response_model=CaseOut)
async def ask(case_id: str, body: WordsIn, call: Caller = CALLER) -> Response:
    """Ask the applicant for documents."""
    return _case(await organisations.ask(call.services, call.actor, case_id, body.words))


@router.post(
    "/organisation-cases/{case_id}/approve",
    action="desk:case:decide", response_model=CaseOut, openapi_extra={"parameters": [IF_MATCH]},
)  # fmt: skip
async def approve(case_id: str, request: Request, call: Caller = CALLER) -> Response:
    """Approve what was read: needs If-Match. For EV a second person does the same."""
    return _case(
        await organisations.approve(call.services, call.actor, case_id, revision=check_if_match(request))
    )  # fmt: skip


@router.post("/organisation-cases/{case_id}/return", action="desk:case:decide", response_model=CaseOut)
async def give_back(case_id: str, body: WordsIn, call: Caller = CALLER) -> Response:
    """Not approved as the second person: back to the first, with what is to be mended."""
    return _case(await organisations.give_back(call.services, call.actor, case_id, body.words))


@router.post("/organisation-cases/{case_id}/refuse", action="desk:case:decide", response_model=CaseOut)
async def refuse(case_id: str, body: ReasonsIn, call: Caller = CALLER) -> Response:
    """Refuse with reasons the applicant reads."""
    return _case(await organisations.refuse(call.services, call.actor, case_id, body.reasons))


@router.post(
    "/organisation-cases/{case_id}/documents",
    action="desk:case:work", status_code=201, response_model=DocumentOut,
)  # fmt: skip
async def attach_document(case_id: str, body: DocumentIn, call: Caller = CALLER) -> Response:
    """Attach evidence, such as an extract of a register."""
    kept = await organisations.attach_document(
        call.services, call.actor, case_id, name=body.name, content=body.bytes()
    )  # fmt: skip
    return _made(kept, f"organisation-cases/{case_id}")


@router.get(
    "/organisation-cases/{case_id}/documents/{document_id}",
    action="desk:document:download", response_class=Response, responses=_FILE,
)  # fmt: skip
async def download(case_id: str, document_id: str, call: Caller = CALLER) -> Response:
    """A document of a case; audited in both accounts."""
    return _file(await organisations.download(call.services, call.actor, case_id, document_id))
