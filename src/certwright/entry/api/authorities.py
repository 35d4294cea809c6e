"""`/api/v1/authorities` and `/api/v1/ca-profiles`: private CAs, what they issue, and kinds of certificates."""

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
from certwright.entry.api.certificates import SummaryOut
from certwright.entry.api.openapi import IF_MATCH
from certwright.kernel.problems import Problem
from certwright.rooms import authorities, certificates
from certwright.x509.certificates import to_pem
from certwright.x509.csr import to_pem as csr_to_pem
from certwright.x509.issue import NameConstraints, Subject

router = Router(tags=["private CA"])
_CAS = "/authorities"
_PROFILES = "/ca-profiles"

Name = Annotated[str, Field(max_length=200)]
Id = Annotated[str, Field(max_length=64)]
Word = Annotated[str, Field(max_length=80)]
Line = Annotated[str, Field(max_length=200)]
GeneralName = Annotated[str, Field(max_length=1024)]
Pem = Annotated[str, Field(max_length=200_000)]
SecretPem = Annotated[str, Field(max_length=200_000, json_schema_extra={"format": "password"})]
Passphrase = Annotated[str, Field(max_length=2000, json_schema_extra={"format": "password"})]
Reason = Annotated[Word, Field(description="unspecified, key_compromise, superseded, cessation_of_operation, …")]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SubjectIn(In):
    common_name: Line | None = None
    organization: Line | None = None
    organizational_unit: Line | None = None
    locality: Line | None = None
    state: Line | None = None
    country: Line | None = Field(default=None, description="two letters (ISO 3166)")
    serial_number: Line | None = None

    def said(self) -> Subject:
        return Subject(**self.model_dump())


class ConstraintsIn(In):
    """Names this CA may and may not certify; DNS subtrees (example.com) and networks (10.0.0.0/8); mailboxes
    (ann@example.com) and hosts of e-mail and of URIs, example.com alone or .example.com for those below it."""

    permitted_dns: list[GeneralName] = Field(default_factory=list, max_length=100)
    permitted_ips: list[Word] = Field(default_factory=list, max_length=100)
    permitted_emails: list[GeneralName] = Field(default_factory=list, max_length=100)
    permitted_uris: list[GeneralName] = Field(default_factory=list, max_length=100)
    excluded_dns: list[GeneralName] = Field(default_factory=list, max_length=100)
    excluded_ips: list[Word] = Field(default_factory=list, max_length=100)
    excluded_emails: list[GeneralName] = Field(default_factory=list, max_length=100)
    excluded_uris: list[GeneralName] = Field(default_factory=list, max_length=100)

    def said(self) -> NameConstraints:
        return NameConstraints(**{kind: tuple(names) for kind, names in self.model_dump().items()})


class AuthorityIn(In):
    """A root, a CA below one of ours (`parent_id`), or a request for a parent that isn't ours (`outside`)."""

    name: Name
    subject: SubjectIn
    parent_id: Id | None = None
    outside: bool = False
    key_algorithm: Word = Field(
        default="EC_P256",
        description="EC_P256, EC_P384, RSA_2048, RSA_3072 or RSA_4096; experimental: ML_DSA_65, ML_DSA_87",
    )
    key_store: Word = Field(default="software", description="software, or hsm: made in the HSM, never outside it")
    hash_name: Word | None = Field(default=None, description="sha256, sha384 or sha512; default what suits the key")
    days: int | None = Field(default=None, description="default 20 years for a root, 5 for others")
    path_len: int | None = Field(default=None, description="levels of CAs below it; 0 issues to servers and clients")
    name_constraints: ConstraintsIn = Field(default_factory=ConstraintsIn)
    purposes: list[Word] = Field(
        default_factory=list, max_length=20, description="extended key usages it may certify; empty means any"
    )
    crl_days: int = 7
    crl_shards: int = 1
    ocsp_enabled: bool = False
    project_id: Id | None = None


class AuthorityImport(In):
    """Bring your own CA. The passphrase opens the key and is forgotten."""

    name: Name
    certificate: Pem = Field(description="PEM: the CA's, then those above it")
    private_key: SecretPem
    passphrase: Passphrase | None = None
    crl_number: int = Field(default=0, description="of the last list published for it elsewhere")
    key_store: Word = Field(default="software", description="software; the HSM takes no key from outside")
    project_id: Id | None = None


class AuthorityPatch(In):
    name: Name | None = None
    crl_enabled: bool | None = None
    crl_days: int | None = None
    crl_shards: int | None = None
    ocsp_enabled: bool | None = None


class SubordinateIn(In):
    """A CA whose key is elsewhere."""

    csr: Pem = Field(description="PEM; its key is used, its subject and extensions aren't")
    subject: SubjectIn
    days: int | None = Field(default=None, description="default 5 years, at most what is left of the parent")
    path_len: int | None = Field(default=None, description="levels of CAs below it; 0 issues to servers and clients")
    name_constraints: ConstraintsIn = Field(default_factory=ConstraintsIn)
    purposes: list[Word] = Field(
        default_factory=list, max_length=20, description="extended key usages it may certify; empty means any"
    )
    project_id: Id | None = None


class CertificateIn(In):
    certificate: Pem = Field(description="PEM: what the parent signed, then the parent's own chain")


class RenewIn(In):
    days: int | None = Field(default=None, description="default as long as the certificate before")


class RevokeIn(In):
    reason: Reason = "unspecified"


class ProblemOut(BaseModel):
    model_config = ConfigDict(extra="allow")

    code: str
    message: str


class AuthorityOut(BaseModel):
    """What its certificate says is null while it is `pending`; then `csr_pem` is what the parent has to sign. `problem`
    is why its last list or answer couldn't be signed. `experimental`: few clients verify what it signs (ML-DSA)."""

    id: str
    project_id: str
    name: str
    kind: str
    origin: authorities.CaOrigin
    builtin: bool
    parent_id: str | None
    state: authorities.CaState
    subject: str
    key_algorithm: str
    key_store: authorities.KeyStore
    token_label: str | None
    hash_name: str
    serial: str | None
    sha256: str | None
    not_before: datetime | None
    not_after: datetime | None
    certificate_pem: str | None
    csr_pem: str | None
    path_len: int | None
    permitted: list[str]
    excluded: list[str]
    purposes: list[str] | None
    delete_at: datetime | None
    crl_enabled: bool
    crl_days: int
    crl_shards: int
    crl_number: int
    crl_next_update: datetime | None
    crl_url: str
    ocsp_enabled: bool
    ocsp_url: str
    issued: int | None
    problem: ProblemOut | None
    experimental: bool
    revision: int


class AuthorityList(BaseModel):
    items: list[AuthorityOut]
    next_cursor: None = None


class HsmOut(BaseModel):
    """The HSM for CA keys. `keys` of ours are in the token (null: it can't be asked); those of the CAs `missing`
    aren't."""

    configured: bool
    label: str
    module: str
    library: str
    manufacturer: str
    model: str
    serial: str
    firmware: str
    keys: int | None
    missing: list[str]
    problem: ProblemOut | None


class IssueIn(In):
    """Names (DNS or IP) and a key made here, or a CSR."""

    names: list[GeneralName] = Field(default_factory=list, max_length=1000)
    key_algorithm: Annotated[str, Field(max_length=40)] = "EC_P256"
    csr: Pem | None = None
    days: int | None = Field(default=None, description="1 to 199; default 90")
    name: Name | None = None
    description: Annotated[str, Field(max_length=2000)] = ""
    project_id: Id | None = None
    auto_renew: bool = True


class LeafIn(In):
    """A certificate that isn't managed: for a person, a device, a server elsewhere."""

    profile: Word = Field(default="client", description="server, client, or one of /ca-profiles")
    names: list[GeneralName] = Field(default_factory=list, max_length=1000, description="DNS, IP, e-mail, URI")
    subject: SubjectIn = Field(default_factory=SubjectIn)
    key_algorithm: Word = "EC_P256"
    csr: Pem | None = Field(default=None, description="PEM; its key is used, its names and subject aren't")
    days: int | None = Field(default=None, description="default 90, at most what the profile says")


class BatchIn(In):
    requests: list[LeafIn] = Field(min_length=1, max_length=1000)
    project_id: Id | None = None


class LeafOut(BaseModel):
    id: str
    authority_id: str
    project_id: str
    profile: str
    serial: str
    names: list[str]
    subject: str
    sha256: str
    certificate_pem: str
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    has_key: bool
    managed: bool
    revoked_at: datetime | None
    revocation_reason: str | None


class BatchItem(BaseModel):
    """One request's answer, in the order asked: either is null."""

    certificate: LeafOut | None
    problem: ProblemOut | None


class BatchOut(BaseModel):
    items: list[BatchItem]


class ExportIn(In):
    server: Word = Field(default="pem", description="nginx, apache, haproxy, tomcat, iis (PFX), kubernetes, pem, …")
    legacy: bool = Field(default=False, description="PFX that programs of before 2019 open")


class KitIn(In):
    """A client for a listener with mutual TLS: of the CA `authority_id`, or of a new hierarchy called `ca_name`."""

    authority_id: Id | None = None
    ca_name: Name = ""
    names: list[GeneralName] = Field(default_factory=list, max_length=100, description="e-mail, DNS, IP, URI")
    subject: SubjectIn = Field(default_factory=SubjectIn)
    key_algorithm: Word = "EC_P256"
    days: int | None = None
    legacy: bool = Field(default=False, description="PFX that programs of before 2019 open")
    project_id: Id | None = None


class ProfileIn(In):
    name: Word
    body: dict[str, Any] = Field(description="key_usage, extended_key_usage, max_days, names, policies, extensions, …")


class ProfileBody(In):
    body: dict[str, Any]


class ProfileOut(BaseModel):
    """Built-in ones have no id. `problem` is why nothing is issued as it any more, though it was saved once."""

    id: str | None
    name: str
    body: dict[str, Any]
    revision: int
    problem: ProblemOut | None


class ProfileList(BaseModel):
    items: list[ProfileOut]
    next_cursor: None = None


_ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}, "description": "The archive"}}


def authority_json(ca: authorities.Authority) -> dict[str, Any]:
    fields = {name: getattr(ca, name) for name in AuthorityOut.model_fields if not name.endswith("_pem")}
    return fields | {
        "certificate_pem": to_pem(ca.certificate_der) if ca.certificate_der else None,
        "csr_pem": csr_to_pem(ca.csr_der).decode() if ca.csr_der else None,
    }


def _shown(ca: authorities.Authority, status: int = 200) -> Response:
    headers = {"ETag": etag(ca.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1/authorities/{ca.id}"
    return json_response(authority_json(ca), status, headers)


_LEAF = tuple(name for name in LeafOut.model_fields if name != "certificate_pem")


def leaf_json(leaf: authorities.Leaf) -> dict[str, Any]:
    return {name: getattr(leaf, name) for name in _LEAF} | {"certificate_pem": to_pem(leaf.der)}


# --- CAs -------------------------------------------------------------------------------------------------------------


@router.get(_CAS, action="ccm:ca:list", response_model=AuthorityList)
async def list_authorities(call: Caller = CALLER) -> Response:
    found = await authorities.list_authorities(call.services, call.actor)
    return json_response({"items": [authority_json(a) for a in found], "next_cursor": None})


@router.post(_CAS, action="ccm:ca:create", status_code=201, response_model=AuthorityOut)
async def create_authority(body: AuthorityIn, call: Caller = CALLER) -> Response:
    """Make a CA. The ceremony's record (who, when, which key, which certificate) is in the audit log."""
    asked = authorities.CaRequest(
        name=body.name, subject=body.subject.said(), parent_id=body.parent_id, outside=body.outside,
        key_algorithm=body.key_algorithm, key_store=body.key_store, hash_name=body.hash_name, days=body.days,
        path_len=body.path_len,
        constraints=body.name_constraints.said(),
        purposes=tuple(body.purposes), crl_days=body.crl_days, crl_shards=body.crl_shards,
        ocsp_enabled=body.ocsp_enabled,
    )  # fmt: skip
    made = await authorities.create_authority(call.services, call.actor, asked, project_id=body.project_id)
    return _shown(made, 201)


@router.post(f"{_CAS}/import", action="ccm:ca:create", status_code=201, response_model=AuthorityOut)
async def import_authority(body: AuthorityImport, call: Caller = CALLER) -> Response:
    """Bring your own CA: certificate and key."""
    return _shown(await authorities.import_authority(call.services, call.actor, **body.model_dump()), 201)


@router.get(f"{_CAS}/{{authority_id}}", action="ccm:ca:get", response_model=AuthorityOut)
async def get_authority(authority_id: str, call: Caller = CALLER) -> Response:
    return _shown(await authorities.get_authority(call.services, call.actor, authority_id))


@router.get(
    f"{_CAS}/{{authority_id}}/chain", action="ccm:ca:get", response_class=Response,
    responses={200: {"content": {"application/x-pem-file": {}}, "description": "The certificates, PEM"}},
)  # fmt: skip
async def authority_chain(authority_id: str, call: Caller = CALLER) -> Response:
    """Its certificate and those above it, nearest first, up to the root as far as they are known: a file for programs
    that check what it issued."""
    found = await authorities.authority_chain(call.services, call.actor, authority_id)
    return Response("".join(to_pem(der) for der in found), media_type="application/x-pem-file")


@router.patch(f"{_CAS}/{{authority_id}}", action="ccm:ca:update", response_model=AuthorityOut)
async def update_authority(
    authority_id: str, body: AuthorityPatch, request: Request, call: Caller = CALLER
) -> Response:
    """Name and publishing; counts for what is issued from now on. Needs If-Match."""
    changed = await authorities.update_authority(
        call.services, call.actor, authority_id, revision=check_if_match(request), **body.model_dump()
    )
    return _shown(changed)


@router.post(f"{_CAS}/{{authority_id}}/certificate", action="ccm:ca:update", response_model=AuthorityOut)
async def install_certificate(authority_id: str, body: CertificateIn, call: Caller = CALLER) -> Response:
    """The certificate an outside parent signed for a pending CA; or the next one, for the same key and subject."""
    done = await authorities.install_certificate(call.services, call.actor, authority_id, body.certificate)
    return _shown(done)


@router.post(f"{_CAS}/{{authority_id}}/subordinates", action="ccm:ca:create", status_code=201, response_model=LeafOut)
async def certify_authority(authority_id: str, body: SubordinateIn, call: Caller = CALLER) -> Response:
    """A certificate for a CA whose key is elsewhere, from its request. It is led as whatever this CA issued."""
    asked = authorities.CaRequest(
        name="elsewhere", subject=body.subject.said(), days=body.days, path_len=body.path_len,
        constraints=body.name_constraints.said(), purposes=tuple(body.purposes),
    )  # fmt: skip
    made = await authorities.certify_authority(
        call.services, call.actor, authority_id, asked, body.csr, project_id=body.project_id
    )
    location = {"Location": f"/api/v1/authorities/{authority_id}/issued/{made.id}"}
    return json_response(leaf_json(made), 201, location)


@router.post(
    f"{_CAS}/{{authority_id}}/renew",
    action="ccm:ca:update", response_model=AuthorityOut, openapi_extra={"parameters": [IF_MATCH]},
)  # fmt: skip
async def renew_authority(authority_id: str, body: RenewIn, request: Request, call: Caller = CALLER) -> Response:
    """A new certificate for the same name and key that ends later; a root signs its own, the CA above any other one.
    Both certificates verify what was issued under either. Needs If-Match."""
    done = await authorities.renew_authority(
        call.services, call.actor, authority_id, days=body.days, revision=check_if_match(request)
    )
    return _shown(done)


@router.post(f"{_CAS}/{{authority_id}}/disable", action="ccm:ca:disable", response_model=AuthorityOut)
async def disable_authority(authority_id: str, call: Caller = CALLER) -> Response:
    """Nothing is issued any more; lists and answers go on."""
    return _shown(await authorities.disable_authority(call.services, call.actor, authority_id))


@router.post(f"{_CAS}/{{authority_id}}/enable", action="ccm:ca:disable", response_model=AuthorityOut)
async def enable_authority(authority_id: str, call: Caller = CALLER) -> Response:
    return _shown(await authorities.enable_authority(call.services, call.actor, authority_id))


@router.post(f"{_CAS}/{{authority_id}}/revoke", action="ccm:ca:disable", response_model=AuthorityOut)
async def revoke_authority(authority_id: str, body: RevokeIn, call: Caller = CALLER) -> Response:
    """The parent's list says so at once. Can't be taken back."""
    return _shown(await authorities.revoke_authority(call.services, call.actor, authority_id, body.reason))


@router.delete(f"{_CAS}/{{authority_id}}", action="ccm:ca:delete", response_model=AuthorityOut)
async def delete_authority(
    authority_id: str,
    call: Caller = CALLER,
    days: Annotated[int, Query(description="to wait before the key is erased, 7 to 30")] = 7,
) -> Response:
    """Begins the waiting; until its end the CA can be restored."""
    return _shown(await authorities.delete_authority(call.services, call.actor, authority_id, days=days))


@router.post(f"{_CAS}/{{authority_id}}/restore", action="ccm:ca:delete", response_model=AuthorityOut)
async def restore_authority(authority_id: str, call: Caller = CALLER) -> Response:
    return _shown(await authorities.restore_authority(call.services, call.actor, authority_id))


# --- the HSM ---------------------------------------------------------------------------------------------------------


def _hsm(found: authorities.HsmState) -> Response:
    token = found.token
    fields = {name: getattr(token, name) for name in HsmOut.model_fields if hasattr(token, name)}
    problem = None if token.problem is None else token.problem.as_dict()
    return json_response(fields | {"keys": found.keys, "missing": found.missing, "problem": problem})


@router.get("/hsm", action="iam:setting:get", response_model=HsmOut)
async def get_hsm(call: Caller = CALLER) -> Response:
    """The token of the HSM as it is now, for administrators of the first account. A refused PIN isn't tried again."""
    return _hsm(await authorities.hsm_state(call.services, call.actor))


@router.post("/hsm/check", action="iam:setting:update", response_model=HsmOut)
async def check_hsm(call: Caller = CALLER) -> Response:
    """The same, and tries a PIN that was refused before once more; the token may lock by it."""
    return _hsm(await authorities.hsm_state(call.services, call.actor, anew=True))


# --- certificates ----------------------------------------------------------------------------------------------------


@router.post(
    f"{_CAS}/{{authority_id}}/certificates", action="ccm:cert:issue", status_code=201, response_model=SummaryOut
)
async def issue(authority_id: str, body: IssueIn, call: Caller = CALLER) -> Response:
    """A server certificate from this CA at once; you vouch for the names. Key, record and audit are committed first."""
    summary = await certificates.issue_private(
        call.services, call.actor, authority_id=authority_id, **body.model_dump()
    )
    headers = {"Location": f"/api/v1/certificates/{summary.id}", "ETag": f'"{summary.revision}"'}
    return json_response(summary, 201, headers)


@router.post(f"{_CAS}/{{authority_id}}/issued", action="ccm:cert:issue", response_model=BatchOut, hot=True)
async def issue_leaves(authority_id: str, body: BatchIn, call: Caller = CALLER) -> Response:
    """Up to 1,000 certificates in one transaction, from keys made here or CSRs; each has its own answer."""
    asked = [
        authorities.LeafRequest(
            profile=one.profile, names=tuple(one.names), subject=one.subject.said(), key_algorithm=one.key_algorithm,
            csr=one.csr, days=one.days,
        )
        for one in body.requests
    ]  # fmt: skip
    found = await authorities.issue_leaves(call.services, call.actor, authority_id, asked, project_id=body.project_id)
    items = [
        {"certificate": None, "problem": one.as_dict()}
        if isinstance(one, Problem)
        else {"certificate": leaf_json(one), "problem": None}
        for one in found
    ]
    return json_response({"items": items})


@router.get(f"{_CAS}/{{authority_id}}/issued", action="ccm:cert:list", response_model=Page[LeafOut])
async def list_leaves(
    authority_id: str,
    call: Caller = CALLER,
    search: Annotated[str | None, Query(max_length=300, description="a whole name, or a serial's beginning")] = None,
    revoked: bool | None = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Everything the CA issued, newest first; certificates that are managed here, too."""
    rows = await authorities.list_leaves(
        call.services, call.actor, authority_id, search=search, revoked=revoked, after=read_cursor(cursor),
        limit=limit + 1,
    )  # fmt: skip
    return page_of(rows, limit, lambda leaf: leaf.id, leaf_json)


@router.get(f"{_CAS}/{{authority_id}}/issued/{{leaf_id}}", action="ccm:cert:get", response_model=LeafOut)
async def get_leaf(authority_id: str, leaf_id: str, call: Caller = CALLER) -> Response:
    return json_response(leaf_json(await authorities.get_leaf(call.services, call.actor, authority_id, leaf_id)))


@router.post(
    f"{_CAS}/{{authority_id}}/issued/{{leaf_id}}/export", action="ccm:cert:export", secret=True,
    response_class=Response, responses=_ZIP,
)  # fmt: skip
async def export_leaf(authority_id: str, leaf_id: str, body: ExportIn, call: Caller = CALLER) -> Response:
    """An archive for one kind of server, device or browser, with the key where it is held here. Audited."""
    name, content = await authorities.export_leaf(
        call.services, call.actor, authority_id, leaf_id, server=body.server, legacy=body.legacy
    )
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, media_type="application/zip", headers=headers)


@router.post(f"{_CAS}/{{authority_id}}/issued/{{leaf_id}}/revoke", action="ccm:cert:revoke", response_model=LeafOut)
async def revoke_leaf(authority_id: str, leaf_id: str, body: RevokeIn, call: Caller = CALLER) -> Response:
    """Its list is made anew at once. Content to find it revoked."""
    leaf = await authorities.revoke_leaf(call.services, call.actor, authority_id, leaf_id, body.reason)
    return json_response(leaf_json(leaf))


@router.delete(
    f"{_CAS}/{{authority_id}}/issued/{{leaf_id}}", action="ccm:cert:delete", status_code=204, response_class=Response
)
async def delete_leaf(authority_id: str, leaf_id: str, call: Caller = CALLER) -> Response:
    """Out of the list, its key erased. Doesn't revoke: lists and OCSP still know it."""
    await authorities.delete_leaf(call.services, call.actor, authority_id, leaf_id)
    return Response(status_code=204)


@router.post(
    "/client-kits", action="ccm:cert:issue", secret=True, response_class=Response, responses=_ZIP
)  # fmt: skip
async def client_kit(body: KitIn, call: Caller = CALLER) -> Response:
    """Mutual TLS in one step: the CAs and lists for the listener, key, certificate and PFX for the client."""
    name, content = await authorities.client_kit(
        call.services, call.actor,
        authorities.LeafRequest(
            profile="client", names=tuple(body.names), subject=body.subject.said(), key_algorithm=body.key_algorithm,
            days=body.days,
        ),
        authority_id=body.authority_id, ca_name=body.ca_name, project_id=body.project_id, legacy=body.legacy,
    )  # fmt: skip
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, media_type="application/zip", headers=headers)


# --- profiles --------------------------------------------------------------------------------------------------------


def _profile(profile: authorities.CaProfile, status: int = 200) -> Response:
    return json_response(_profile_json(profile), status, {"ETag": etag(profile.revision)})


def _profile_json(profile: authorities.CaProfile) -> dict[str, Any]:
    problem = None if profile.problem is None else profile.problem.as_dict()
    return {
        "id": profile.id, "name": profile.name, "body": profile.body, "revision": profile.revision, "problem": problem,
    }  # fmt: skip


@router.get(_PROFILES, action="ccm:profile:list", response_model=ProfileList)
async def list_profiles(call: Caller = CALLER) -> Response:
    """Built-in ones first."""
    found = await authorities.list_profiles(call.services, call.actor)
    return json_response({"items": [_profile_json(profile) for profile in found], "next_cursor": None})


@router.post(_PROFILES, action="ccm:profile:create", status_code=201, response_model=ProfileOut)
async def create_profile(body: ProfileIn, call: Caller = CALLER) -> Response:
    return _profile(await authorities.create_profile(call.services, call.actor, body.name, body.body), 201)


@router.patch(f"{_PROFILES}/{{name}}", action="ccm:profile:update", response_model=ProfileOut)
async def update_profile(name: str, body: ProfileBody, request: Request, call: Caller = CALLER) -> Response:
    """What is issued from now on follows it. Needs If-Match."""
    changed = await authorities.update_profile(
        call.services, call.actor, name, body.body, revision=check_if_match(request)
    )
    return _profile(changed)


@router.delete(f"{_PROFILES}/{{name}}", action="ccm:profile:delete", status_code=204, response_class=Response)
async def delete_profile(name: str, call: Caller = CALLER) -> Response:
    """What was issued by it stays."""
    await authorities.delete_profile(call.services, call.actor, name)
    return Response(status_code=204)
