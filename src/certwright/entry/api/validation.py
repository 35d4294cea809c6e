"""Validation through the API: DNS connections, the check-it tool, the methods on offer, and the evidence ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

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
from certwright.rooms import validation

router = Router(tags=["validation"])

Name = Annotated[str, Field(max_length=1024)]
Zone = Annotated[str, Field(max_length=1024)]
Value = Annotated[str, Field(max_length=4000)]
CaaName = Annotated[str, Field(max_length=253)]
Secret = Annotated[str, Field(max_length=4000, json_schema_extra={"format": "password"})]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")


# --- DNS connections -------------------------------------------------------------------------------------------------


class ConnectionOut(BaseModel):
    """Everything but the secret. `problem` is what the last test said; null with `checked_at` set means it passed."""

    id: str
    project_id: str
    name: str
    kind: str
    zones: list[str]
    settings: dict[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime
    checked_at: datetime | None
    problem: dict[str, Any] | None


class ConnectionIn(In):
    """Which kinds and settings there are: `GET /dns-operators`. For kind rfc2136, `settings` are server, port (53),
    key_name and algorithm (hmac-sha256), and `secret` is the TSIG key in base 64. For kind lexicon they are provider
    (the DNS operator's name in dns-lexicon) and that provider's options, and `secret` is its API token or lines of
    option=value. For kind huawei they are access_key and endpoint, and `secret` is the secret key."""

    name: Annotated[str, Field(max_length=200)]
    kind: Annotated[str, Field(max_length=40)] = "rfc2136"
    zones: list[Zone] = Field(max_length=1000, description="zones that may be updated through it")
    settings: dict[str, Any] = Field(default_factory=dict)
    secret: Secret
    project_id: Annotated[str, Field(max_length=64)] | None = None


class ConnectionPatch(In):
    """What isn't given stays; a new secret replaces the old one."""

    name: Annotated[str, Field(max_length=200)] | None = None
    zones: list[Zone] | None = Field(default=None, max_length=1000)
    settings: dict[str, Any] | None = None
    secret: Secret | None = None


def _shown(connection: validation.DnsConnection, status: int = 200) -> Response:
    headers = {"ETag": etag(connection.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1/dns-connections/{connection.id}"
    return json_response(connection, status, headers)


@router.get("/dns-connections", action="dns:connection:list", response_model=Page[ConnectionOut])
async def list_connections(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    rows = await validation.list_connections(call.services, call.actor, after=read_cursor(cursor), limit=limit + 1)
    return page_of(rows, limit, lambda connection: connection.id)


@router.post("/dns-connections", action="dns:connection:create", status_code=201, response_model=ConnectionOut)
async def create_connection(body: ConnectionIn, call: Caller = CALLER) -> Response:
    """Keep a connection. From now on names of its zones validate by themselves in the same project. Test it next."""
    made = await validation.create_connection(
        call.services, call.actor, name=body.name, kind=body.kind, zones=body.zones, settings=body.settings,
        secret=body.secret, project_id=body.project_id,
    )  # fmt: skip
    return _shown(made, 201)


@router.get("/dns-connections/{connection_id}", action="dns:connection:get", response_model=ConnectionOut)
async def get_connection(connection_id: str, call: Caller = CALLER) -> Response:
    return _shown(await validation.get_connection(call.services, call.actor, connection_id))


@router.patch("/dns-connections/{connection_id}", action="dns:connection:update", response_model=ConnectionOut)
async def update_connection(
    connection_id: str, body: ConnectionPatch, request: Request, call: Caller = CALLER
) -> Response:
    """Needs If-Match."""
    revision = check_if_match(request)
    return _shown(
        await validation.update_connection(
            call.services, call.actor, connection_id, revision=revision, **body.model_dump()
        )
    )


@router.delete(
    "/dns-connections/{connection_id}", action="dns:connection:delete", status_code=204, response_class=Response
)
async def delete_connection(
    connection_id: str,
    call: Caller = CALLER,
    leave_records: Annotated[bool, Query(description="even if records written through it still stand")] = False,
) -> Response:
    """Forget the connection and its secret; refused while names wait to be validated through it, or while records
    written through it still stand."""
    await validation.delete_connection(call.services, call.actor, connection_id, leave_records=leave_records)
    return Response(status_code=204)


@router.post("/dns-connections/{connection_id}/test", action="dns:connection:update", response_model=ConnectionOut)
async def check_connection(connection_id: str, call: Caller = CALLER) -> Response:
    """Ask the DNS server whether every zone could be updated, changing nothing. See `problem` in the answer."""
    return _shown(await validation.check_connection(call.services, call.actor, connection_id))


class FieldOut(BaseModel):
    """What is asked for: a setting, or with `secret` a part of the secret. `choices` empty: any text."""

    name: str
    secret: bool
    required: bool
    choices: list[str]
    default: str


class OperatorOut(BaseModel):
    """Whom a connection can be made to: its `kind`, the `settings` that come with it, and what else to give."""

    key: str
    title: str
    kind: str
    settings: dict[str, str]
    fields: list[FieldOut]


class OperatorList(BaseModel):
    items: list[OperatorOut]
    next_cursor: None = None


@router.get("/dns-operators", action="dns:connection:list", response_model=OperatorList)
async def list_operators(call: Caller = CALLER) -> Response:
    """Whom DNS connections can be made to, and what each needs. Several secret fields go into `secret` as lines of
    name=value, a single one as it is."""
    return json_response({"items": validation.operators(call.services, call.actor), "next_cursor": None})


# --- the check-it tool -----------------------------------------------------------------------------------------------


class ExplanationOut(BaseModel):
    """`ok`, or why not: a stable code, a sentence, what to do, and what each server said."""

    ok: bool
    code: str
    message: str
    fix: str
    seen: dict[str, Any]


class CheckDnsIn(In):
    """`connection_id` also looks where that connection writes; `ca_identifiers` are a CA's CAA domain names."""

    name: Name
    type: Literal["TXT", "CNAME"] = "TXT"
    value: Value
    connection_id: Annotated[str, Field(max_length=64)] | None = None
    ca_identifiers: list[CaaName] = Field(default_factory=list, max_length=10)


class CheckFileIn(In):
    host: Name
    file_name: Annotated[str, Field(max_length=200)]
    content: Value


class CheckCaaIn(In):
    """`methods` (such as dns-01) and `account_uri` are what CAA parameters of RFC 8657 can narrow; left out, these
    parameters are not looked at."""

    name: Name
    ca_identifiers: list[CaaName] = Field(min_length=1, max_length=10)
    methods: list[Annotated[str, Field(max_length=40)]] = Field(default_factory=list, max_length=10)
    account_uri: Annotated[str, Field(max_length=1000)] | None = None


class CaaOut(BaseModel):
    """`add` are records that would let the CA issue, `found` those there are, one a line as in a zone file."""

    allowed: bool
    code: str
    message: str
    fix: str
    add: list[str]
    found: list[str]


def _explained(explanation: validation.Explanation) -> Response:
    return json_response({
        "ok": explanation.ok, "code": explanation.code, "message": explanation.sentence, "fix": explanation.fix,
        "seen": explanation.seen,
    })  # fmt: skip


@router.post("/tools/check-dns", action="scm:validation:check", response_model=ExplanationOut)
async def check_dns(body: CheckDnsIn, call: Caller = CALLER) -> Response:
    """Does a record take effect? Looks at every authoritative server and the resolvers, and explains."""
    return _explained(
        await validation.check_dns(
            call.services, call.actor, name=body.name, rdtype=body.type, value=body.value,
            connection_id=body.connection_id, ca_identifiers=body.ca_identifiers,
        )
    )  # fmt: skip


@router.post("/tools/check-file", action="scm:validation:check", response_model=ExplanationOut)
async def check_file(body: CheckFileIn, call: Caller = CALLER) -> Response:
    """Does the site serve this file below /.well-known/pki-validation/?"""
    return _explained(
        await validation.check_file(
            call.services, call.actor, host=body.host, file_name=body.file_name, content=body.content
        )
    )


@router.post("/tools/check-caa", action="scm:validation:check", response_model=CaaOut)
async def check_caa(body: CheckCaaIn, call: Caller = CALLER) -> Response:
    """May a CA known by these CAA domain names issue for the name?"""
    verdict = await validation.check_caa(
        call.services, call.actor, name=body.name, ca_identifiers=body.ca_identifiers, methods=body.methods,
        account_uri=body.account_uri,
    )  # fmt: skip
    return json_response({
        "allowed": verdict.allowed, "code": verdict.code, "message": verdict.sentence, "fix": verdict.fix,
        "add": verdict.add, "found": verdict.found,
    })  # fmt: skip


class OfferOut(BaseModel):
    """A method for one name today; `ends` is the day from which public CAs may not use it."""

    method: validation.Method
    allowed: bool
    code: str
    reason: str
    discouraged_since: str | None
    ends: str | None


class OfferList(BaseModel):
    items: list[OfferOut]
    next_cursor: None = None


@router.get("/tools/validation-methods", action="scm:validation:get", response_model=OfferList)
async def list_methods(
    name: Annotated[str, Query(max_length=1024)],
    call: Caller = CALLER,
    ca_kind: Annotated[validation.CaKind, Query()] = validation.CaKind.PRIVATE,
) -> Response:
    """How control of a name may be shown today; what is refused says why."""
    offers = await validation.method_offers(call.services, call.actor, name, ca_kind)
    return json_response({"items": offers, "next_cursor": None})


# --- mail ------------------------------------------------------------------------------------------------------------


class MailingOut(BaseModel):
    """The mailboxes of a domain, how often they were written to, and when last."""

    domain: str
    addresses: list[str]
    sent_at: datetime
    mailings: int


@router.post("/validations/{challenge_id}/mail", action="scm:validation:check", response_model=MailingOut)
async def resend_mail(challenge_id: str, call: Caller = CALLER) -> Response:
    """Write once more to the mailboxes of a name that is shown by mail; earlier links stay good. At most five times,
    and not within five minutes. The id is `challenge_id` of the certificate's `validation.domains[]`."""
    return json_response(await validation.resend(call.services, call.actor, challenge_id))


# --- the ledger ------------------------------------------------------------------------------------------------------


class EvidenceOut(BaseModel):
    """`scope` subtree also speaks for every name below `domain`; `reuse_until` follows today's rules."""

    id: str
    project_id: str
    domain: str
    scope: Literal["exact", "subtree"]
    method: validation.Method
    ca: str
    ca_kind: validation.CaKind
    subject_id: str
    validated_at: datetime
    reuse_until: datetime
    seen: dict[str, Any]


@router.get("/evidence", action="scm:evidence:list", response_model=Page[EvidenceOut])
async def list_evidence(
    call: Caller = CALLER,
    domain: Annotated[str | None, Query(max_length=1024, description="exactly this domain")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Newest first."""
    rows = await validation.list_evidence(
        call.services, call.actor, domain=domain, after=read_cursor(cursor), limit=limit + 1
    )
    return page_of(rows, limit, lambda entry: entry.id)
