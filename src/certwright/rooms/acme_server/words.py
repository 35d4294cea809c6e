"""Values of the ACME server's room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

VALIDATE_STEP = "acme_server.validate"

CHALLENGES = ("http-01", "dns-01", "tls-alpn-01")


class AccountState(StrEnum):
    """RFC 8555 section 7.1.6: `deactivated` by the client, `revoked` by somebody here."""

    VALID = "valid"
    DEACTIVATED = "deactivated"
    REVOKED = "revoked"


class OrderState(StrEnum):
    """As RFC 8555 section 7.1.6 says, without `processing`: signing happens inside the request that finalizes."""

    PENDING = "pending"
    READY = "ready"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationState(StrEnum):
    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"


class ChallengeState(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


# --- what people lead -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DirectoryRequest:
    """An ACME service to be opened on a CA; see `AcmeDirectory` for the fields. Without `slug` one is made of the
    name."""

    name: str
    authority_id: str
    slug: str | None = None
    eab_required: bool = True
    allowed_names: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ("server",)
    challenges: tuple[str, ...] = CHALLENGES
    days: int | None = None
    reuse_days: int = 0
    terms_url: str | None = None
    website: str | None = None


@dataclass(frozen=True, slots=True)
class AcmeDirectory:
    """An ACME service of one CA, found at `url`. `days` is the life of its certificates (None: the profile's usual
    one), `reuse_days` how long a proof of control is good for further orders (0: each order proves anew)."""

    id: str
    project_id: str
    authority_id: str
    slug: str
    name: str
    url: str
    eab_required: bool
    allowed_names: tuple[str, ...]
    profiles: tuple[str, ...]
    challenges: tuple[str, ...]
    days: int | None
    reuse_days: int
    terms_url: str | None
    website: str | None
    enabled: bool
    created_at: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class EabKey:
    """A key for external account binding; `id` is what clients call the key id. Accounts it binds order for
    `project_id`, and only names that `allowed_names` covers (empty: all the directory allows)."""

    id: str
    directory_id: str
    project_id: str
    name: str
    allowed_names: tuple[str, ...]
    reusable: bool
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewEabKey:
    """A key just made, with its secret: base 64 for URLs, shown this once."""

    key: EabKey
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AcmeAccount:
    """A client that registered. `thumbprint` is that of its key (RFC 7638)."""

    id: str
    directory_id: str
    project_id: str
    state: AccountState
    thumbprint: str
    contacts: tuple[str, ...]
    eab_key_id: str | None
    created_at: datetime
    deactivated_at: datetime | None


@dataclass(frozen=True, slots=True)
class SeenAuthorization:
    """One name of an order and how far its proof is; `error` is the sentence the client got."""

    name: str
    state: AuthorizationState
    challenge: str | None
    looks: int
    error: str | None
    validated_at: datetime | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AcmeOrder:
    """An order as people see it; `authorizations` is filled where one order is asked for."""

    id: str
    directory_id: str
    acme_account_id: str
    state: OrderState
    names: tuple[str, ...]
    profile: str
    replaces: str | None
    issued_id: str | None
    serial: str | None
    error: str | None
    created_at: datetime
    expires_at: datetime
    authorizations: tuple[SeenAuthorization, ...] = ()


# --- what clients meet ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Served:
    """A directory as the requests of clients need it; its tenant is the operator's account."""

    id: str
    slug: str
    account_id: str
    project_id: str
    authority_id: str
    eab_required: bool
    allowed_names: tuple[str, ...]
    profiles: tuple[str, ...]
    challenges: tuple[str, ...]
    days: int | None
    reuse_days: int
    terms_url: str | None
    website: str | None
    policed: bool
    """Whether the operator's account has policies of names at all; without any, none needs to be asked."""


@dataclass(frozen=True, slots=True)
class Client:
    """The account behind a verified request. `allowed_names` is what its key for binding allows (None: not bound)."""

    id: str
    account_id: str
    project_id: str
    jwk: Mapping[str, str]
    thumbprint: str
    allowed_names: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a verified request brings to the statement that answers it: a nonce that may be good, the id of the key it
    was made with, and the account as it was known when the signature was verified."""

    nonce: str
    nonce_key: str
    directory_id: str
    client: Client
    now: datetime


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request is answered with: a JSON document or the text of a chain, a status, a place, and others that
    belong to it (`Link: <…>;rel=…`)."""

    document: Mapping[str, Any] | None = None
    status: int = 200
    location: str | None = None
    links: tuple[tuple[str, str], ...] = ()
    retry_after: int | None = None
    chain: str | None = None
