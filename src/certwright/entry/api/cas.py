"""`/api/v1/cas`: accounts with CAs outside, to order certificates from."""

from __future__ import annotations

from collections.abc import Mapping
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
from certwright.rooms import cas

router = Router(prefix="/cas", tags=["outside CAs"])

Name = Annotated[str, Field(max_length=200)]
Url = Annotated[str, Field(max_length=2000)]
Email = Annotated[str, Field(max_length=330)]
Text = Annotated[str, Field(max_length=500)]
Pem = Annotated[str, Field(max_length=200_000)]
Secret = Annotated[str, Field(max_length=2000, json_schema_extra={"format": "password"})]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LimitIn(In):
    """At most `count` in any period of `seconds`."""

    count: int = Field(ge=1, le=1_000_000)
    seconds: int = Field(ge=1, le=31 * 86_400)


class LimitsIn(In):
    """What the CA allows; what isn't given keeps its figure. Orders wait here before the CA would refuse them."""

    orders: LimitIn | None = None
    certificates_per_domain: LimitIn | None = None
    duplicates: LimitIn | None = Field(default=None, description="certificates for exactly the same names")
    failed_validations: LimitIn | None = Field(default=None, description="of one name")

    def value(self) -> dict[str, dict[str, int]]:
        return self.model_dump(exclude_none=True)


class ShopIn(In):
    """How certificates are ordered from a CA that sells; what isn't given keeps its value."""

    products: dict[Annotated[str, Field(max_length=60)], Annotated[str, Field(max_length=100)]] | None = Field(
        default=None, max_length=50, description="CA's name of the product per type and names, as `ov/single`"
    )
    years: int | None = Field(
        default=None, ge=1, le=3, description="coverage asked for what was not bought from the catalogue"
    )
    payment_method: Text | None = None
    skip_approval: bool | None = Field(default=None, description="don't wait for an administrator at the CA")
    dns_record: Text | None = Field(default=None, description="TXT or CNAME")
    cname_target: Text | None = Field(default=None, description="what a CNAME for the CA ends with")
    caa_identifiers: list[Text] | None = Field(default=None, max_length=20, description="its names in CAA records")

    def value(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class CaIn(In):
    """A CA that speaks ACME (RFC 8555), where an account is made with the first test or order; or one that sells, over
    an API like DigiCert's, with a key from its console."""

    name: Name
    kind: Annotated[str, Field(max_length=40)] = Field(default="acme", description="acme or certcentral")
    directory_url: Url = Field(description="https address of the ACME directory, or of the ordering API")
    public: bool = Field(default=True, description="whether browsers trust it; decides which names it takes")
    contacts: list[Email] = Field(default_factory=list, max_length=50, description="e-mail addresses the CA may use")
    agree_terms: bool = Field(default=False, description="you agree to the CA's terms of service")
    profile: Text | None = Field(default=None, description="one of the CA's certificate profiles")
    preferred_chain: Text | None = Field(default=None, description="common name of the root to prefer")
    root_pem: Pem | None = Field(default=None, description="root that vouches for the directory's own certificate")
    eab_kid: Text | None = Field(default=None, description="key id of an external account binding")
    eab_key: Secret | None = Field(default=None, description="its MAC key in base 64; kept sealed, never shown")
    api_key: Secret | None = Field(default=None, description="of a CA that sells; kept sealed, never shown")
    settings: ShopIn | None = Field(default=None, description="of a CA that sells")
    limits: LimitsIn = Field(default_factory=LimitsIn)
    project_id: Annotated[str, Field(max_length=64)] | None = None


class CaPatch(In):
    """What isn't given stays; an empty text removes. The directory can't be changed: an account belongs to one."""

    name: Name | None = None
    public: bool | None = None
    contacts: list[Email] | None = Field(default=None, max_length=50)
    agree_terms: bool | None = None
    profile: Text | None = None
    preferred_chain: Text | None = None
    root_pem: Pem | None = None
    eab_kid: Text | None = None
    eab_key: Secret | None = None
    api_key: Secret | None = None
    settings: ShopIn | None = None
    limits: LimitsIn | None = None


class LimitOut(BaseModel):
    count: int
    seconds: int


class OffersOut(BaseModel):
    """What the CA's directory said when it was last read."""

    terms_of_service: str | None
    website: str | None
    caa_identities: list[str]
    external_account_required: bool
    profiles: dict[str, str]
    renewal_info: bool
    key_change: bool


class CaOut(BaseModel):
    """Everything but keys. `account_url` is null until the CA knows us; `problem` is what the last test said."""

    id: str
    project_id: str
    name: str
    kind: str
    directory_url: str
    public: bool
    contacts: list[str]
    terms_agreed_at: datetime | None
    profile: str | None
    preferred_chain: str | None
    root_pem: str | None
    account_url: str | None
    eab_kid: str | None
    limits: dict[str, LimitOut]
    offers: OffersOut | None
    key_algorithm: str | None
    key_change_pending: bool
    settings: dict[str, Any] | None
    revision: int
    created_at: datetime
    updated_at: datetime
    checked_at: datetime | None
    problem: dict[str, Any] | None


def ca_json(ca: cas.Ca) -> Mapping[str, Any]:
    shown = {name: getattr(ca, name) for name in CaOut.model_fields}
    return shown | {"limits": {use.value: limit.as_dict() for use, limit in ca.limits.items()}}


def _shown(ca: cas.Ca, status: int = 200) -> Response:
    headers = {"ETag": etag(ca.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1/cas/{ca.id}"
    return json_response(ca_json(ca), status, headers)


@router.get("", action="scm:ca:list", response_model=Page[CaOut])
async def list_cas(call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    rows = await cas.list_cas(call.services, call.actor, after=read_cursor(cursor), limit=limit + 1)
    return page_of(rows, limit, lambda ca: ca.id, ca_json)


@router.post("", action="scm:ca:create", status_code=201, response_model=CaOut)
async def add_ca(body: CaIn, call: Caller = CALLER) -> Response:
    """Add a CA and, for ACME, make the key of our account there. Nothing is contacted: test it next."""
    fields = body.model_dump(exclude={"limits", "settings"}) | {
        "limits": body.limits.value(), "settings": body.settings.value() if body.settings else None,
    }  # fmt: skip
    return _shown(await cas.add_ca(call.services, call.actor, **fields), 201)


@router.get("/{ca_id}", action="scm:ca:get", response_model=CaOut)
async def get_ca(ca_id: str, call: Caller = CALLER) -> Response:
    return _shown(await cas.get_ca(call.services, call.actor, ca_id))


@router.patch("/{ca_id}", action="scm:ca:update", response_model=CaOut)
async def update_ca(ca_id: str, body: CaPatch, request: Request, call: Caller = CALLER) -> Response:
    """Needs If-Match. New contacts reach the CA with the next test or order."""
    fields = body.model_dump(exclude={"limits", "settings"}) | {
        "limits": body.limits.value() if body.limits else None,
        "settings": body.settings.value() if body.settings else None,
    }  # fmt: skip
    return _shown(await cas.update_ca(call.services, call.actor, ca_id, revision=check_if_match(request), **fields))


@router.delete("/{ca_id}", action="scm:ca:delete", status_code=204, response_class=Response)
async def delete_ca(
    ca_id: str,
    call: Caller = CALLER,
    deactivate: Annotated[bool, Query(description="close the account at the CA first")] = False,
) -> Response:
    """Forget a CA that no certificate needs any more, and erase the key of our account."""
    await cas.delete_ca(call.services, call.actor, ca_id, deactivate=deactivate)
    return Response(status_code=204)


@router.post("/{ca_id}/test", action="scm:ca:update", response_model=CaOut)
async def check_ca(ca_id: str, call: Caller = CALLER) -> Response:
    """Read the directory, and find or make our account. See `problem` in the answer."""
    return _shown(await cas.check_ca(call.services, call.actor, ca_id))


@router.post("/{ca_id}/new-account", action="scm:ca:update", response_model=CaOut)
async def new_account(ca_id: str, call: Caller = CALLER) -> Response:
    """Leave our account behind, for one the CA closed or whose key others may hold, and register another. See `problem`
    in the answer. Certificates of the old account are revoked by their keys, or by showing their names anew."""
    return _shown(await cas.new_account(call.services, call.actor, ca_id))


@router.post("/{ca_id}/change-key", action="scm:ca:update", response_model=CaOut)
async def change_key(ca_id: str, call: Caller = CALLER) -> Response:
    """Give our account a new key and erase the old one; the account's URL stays."""
    return _shown(await cas.change_key(call.services, call.actor, ca_id))
