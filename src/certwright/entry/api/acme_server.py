"""`/api/v1/acme-directories`: ACME services on private CAs, keys that bind their clients, accounts and orders."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from certwright.entry.api.authorities import Id, In, Name, Word
from certwright.entry.api.base import (
    CALLER,
    Caller,
    Cursor,
    Limit,
    Moment,
    Page,
    Router,
    check_if_match,
    etag,
    json_response,
    page_of,
    read_cursor,
)
from certwright.entry.api.ca_policies import Rules
from certwright.rooms import acme_server

router = Router(tags=["ACME server"])
_DIRECTORIES = "/acme-directories"
_ONE = f"{_DIRECTORIES}/{{directory_id}}"

Url = Annotated[str, Field(max_length=500)]


class DirectorySettings(In):
    eab_required: bool = Field(default=True, description="clients must show a key from here before they may order")
    allowed_names: Rules = Field(default_factory=list, description="names that may be ordered; empty: any")
    profiles: list[Word] = Field(
        default_factory=lambda: ["server"],
        max_length=100,
        description="kinds a client may name; the first is the usual",
    )
    challenges: list[Word] = Field(
        default_factory=lambda: list(acme_server.CHALLENGES), max_length=10, description="http-01, dns-01, tls-alpn-01"
    )
    days: int | None = Field(default=None, description="life of certificates; default 90, at most the profile's")
    reuse_days: int = Field(default=0, description="how long a proof is good for further orders; 0: each proves anew")
    terms_url: Url | None = None
    website: Url | None = None


class DirectoryIn(DirectorySettings):
    """An ACME service on one CA, for one project."""

    name: Name
    authority_id: Id
    slug: Word | None = Field(default=None, description="part of its address; never changes; made of the name")
    project_id: Id | None = None


class DirectoryPatch(DirectorySettings):
    """What is left out stays."""

    name: Name = ""
    enabled: bool = Field(default=True, description="false: clients are answered that it is closed")


class DirectoryOut(BaseModel):
    """`url` is what clients are given."""

    id: str
    project_id: str
    authority_id: str
    slug: str
    name: str
    url: str
    eab_required: bool
    allowed_names: list[str]
    profiles: list[str]
    challenges: list[str]
    days: int | None
    reuse_days: int
    terms_url: str | None
    website: str | None
    enabled: bool
    created_at: datetime
    revision: int


class DirectoryList(BaseModel):
    items: list[DirectoryOut]
    next_cursor: None = None


class KeyIn(In):
    """A key for external account binding (RFC 8555 section 7.3.4)."""

    name: Name
    project_id: Id | None = Field(default=None, description="whose certificates its clients get; default the service's")
    allowed_names: Rules = Field(default_factory=list, description="names its clients may order; empty: the service's")
    reusable: bool = Field(default=False, description="binds any number of accounts, not just one")
    expires_at: Moment | None = None


class KeyOut(BaseModel):
    """`id` is what clients call the key id (kid)."""

    id: str
    directory_id: str
    project_id: str
    name: str
    allowed_names: list[str]
    reusable: bool
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class NewKeyOut(KeyOut):
    """`secret` is the MAC key in base 64 for URLs, shown this once."""

    secret: str


class KeyRevocation(In):
    with_accounts: bool = Field(default=False, description="turn away the accounts it bound, too")


class AccountOut(BaseModel):
    id: str
    directory_id: str
    project_id: str
    state: acme_server.AccountState
    thumbprint: str
    contacts: list[str]
    eab_key_id: str | None
    created_at: datetime
    deactivated_at: datetime | None


class AuthorizationOut(BaseModel):
    """One name of an order and how far its proof is; `error` is the sentence the client got."""

    name: str
    state: acme_server.AuthorizationState
    challenge: str | None
    looks: int
    error: str | None
    validated_at: datetime | None
    expires_at: datetime


class OrderOut(BaseModel):
    """`authorizations` are filled where one order is asked for."""

    id: str
    directory_id: str
    acme_account_id: str
    state: acme_server.OrderState
    names: list[str]
    profile: str
    replaces: str | None
    issued_id: str | None
    serial: str | None
    error: str | None
    created_at: datetime
    expires_at: datetime
    authorizations: list[AuthorizationOut]


def _shown(directory: acme_server.AcmeDirectory, status: int = 200) -> Response:
    headers = {"ETag": etag(directory.revision)}
    if status == 201:
        headers["Location"] = f"/api/v1{_DIRECTORIES}/{directory.id}"
    return json_response(asdict(directory), status, headers)


# --- services --------------------------------------------------------------------------------------------------------


@router.get(_DIRECTORIES, action="ccm:acme:list", response_model=DirectoryList)
async def list_directories(
    call: Caller = CALLER, authority_id: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    found = await acme_server.list_directories(call.services, call.actor, authority_id=authority_id)
    return json_response({"items": [asdict(one) for one in found], "next_cursor": None})


@router.post(_DIRECTORIES, action="ccm:acme:create", status_code=201, response_model=DirectoryOut)
async def create_directory(body: DirectoryIn, call: Caller = CALLER) -> Response:
    """Open an ACME service. Clients that order there prove control of their names by themselves."""
    request = acme_server.DirectoryRequest(**body.model_dump(exclude={"project_id"}))
    made = await acme_server.create_directory(call.services, call.actor, request, project_id=body.project_id)
    return _shown(made, 201)


@router.get(_ONE, action="ccm:acme:get", response_model=DirectoryOut)
async def get_directory(directory_id: str, call: Caller = CALLER) -> Response:
    return _shown(await acme_server.get_directory(call.services, call.actor, directory_id))


@router.patch(_ONE, action="ccm:acme:update", response_model=DirectoryOut)
async def update_directory(
    directory_id: str, body: DirectoryPatch, request: Request, call: Caller = CALLER
) -> Response:
    """Needs If-Match. Counts for new orders; accounts and orders that are there stay."""
    changed = await acme_server.update_directory(
        call.services, call.actor, directory_id, body.model_dump(exclude_unset=True), revision=check_if_match(request)
    )
    return _shown(changed)


@router.delete(_ONE, action="ccm:acme:delete", status_code=204, response_class=Response)
async def delete_directory(directory_id: str, call: Caller = CALLER) -> Response:
    """Close a disabled service for good, with its accounts and orders. What was issued stays."""
    await acme_server.delete_directory(call.services, call.actor, directory_id)
    return Response(status_code=204)


# --- keys ------------------------------------------------------------------------------------------------------------


@router.get(f"{_ONE}/eab-keys", action="ccm:acme:list", response_model=Page[KeyOut])
async def list_eab_keys(directory_id: str, call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """Newest first, without their secrets."""
    rows = await acme_server.list_eab_keys(
        call.services, call.actor, directory_id, after=read_cursor(cursor), limit=limit + 1
    )
    return page_of(rows, limit, lambda key: key.id, asdict)


@router.post(
    f"{_ONE}/eab-keys", action="ccm:acme:bind", status_code=201, response_model=NewKeyOut, secret=True
)  # fmt: skip
async def create_eab_key(directory_id: str, body: KeyIn, call: Caller = CALLER) -> Response:
    """A key id and its secret, to give to a client."""
    made = await acme_server.create_eab_key(call.services, call.actor, directory_id, **body.model_dump())
    return json_response(asdict(made.key) | {"secret": made.secret}, 201, {"Cache-Control": "no-store"})


@router.post(f"{_ONE}/eab-keys/{{key_id}}/revoke", action="ccm:acme:bind", response_model=KeyOut)
async def revoke_eab_key(directory_id: str, key_id: str, body: KeyRevocation, call: Caller = CALLER) -> Response:
    """It binds no more accounts; its secret is erased. Content to find it revoked."""
    done = await acme_server.revoke_eab_key(
        call.services, call.actor, directory_id, key_id, with_accounts=body.with_accounts
    )
    return json_response(asdict(done))


# --- accounts --------------------------------------------------------------------------------------------------------


@router.get(f"{_ONE}/accounts", action="ccm:acme:list", response_model=Page[AccountOut])
async def list_accounts(directory_id: str, call: Caller = CALLER, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """Clients that registered, newest first."""
    rows = await acme_server.list_accounts(
        call.services, call.actor, directory_id, after=read_cursor(cursor), limit=limit + 1
    )
    return page_of(rows, limit, lambda account: account.id, asdict)


@router.get(f"{_ONE}/accounts/{{acme_account_id}}", action="ccm:acme:get", response_model=AccountOut)
async def get_account(directory_id: str, acme_account_id: str, call: Caller = CALLER) -> Response:
    return json_response(
        asdict(await acme_server.get_account(call.services, call.actor, directory_id, acme_account_id))
    )


@router.post(
    f"{_ONE}/accounts/{{acme_account_id}}/deactivate", action="ccm:acme:update", response_model=AccountOut
)  # fmt: skip
async def deactivate_account(directory_id: str, acme_account_id: str, call: Caller = CALLER) -> Response:
    """Turn a client away for good. Its certificates stay; revoke them on their own."""
    done = await acme_server.deactivate_account(call.services, call.actor, directory_id, acme_account_id)
    return json_response(asdict(done))


# --- orders ----------------------------------------------------------------------------------------------------------


@router.get(f"{_ONE}/orders", action="ccm:acme:list", response_model=Page[OrderOut])
async def list_orders(
    directory_id: str,
    call: Caller = CALLER,
    account: Annotated[str | None, Query(max_length=64, description="of this ACME account alone")] = None,
    state: acme_server.OrderState | None = None,
    search: Annotated[str | None, Query(max_length=300, description="a whole name")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Newest first; `error` says why one failed."""
    rows = await acme_server.list_orders(
        call.services, call.actor, directory_id, acme_account_id=account, state=state, search=search,
        after=read_cursor(cursor), limit=limit + 1,
    )  # fmt: skip
    return page_of(rows, limit, lambda order: order.id, asdict)


@router.get(f"{_ONE}/orders/{{order_id}}", action="ccm:acme:get", response_model=OrderOut)
async def get_order(directory_id: str, order_id: str, call: Caller = CALLER) -> Response:
    """With every name's proof, and what was wrong with those that failed."""
    return json_response(asdict(await acme_server.get_order(call.services, call.actor, directory_id, order_id)))
