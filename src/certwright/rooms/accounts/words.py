"""Values of the accounts room: who there is, and how they prove it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant. `set_up_at` is None until the set-up link was used."""

    id: str
    name: str
    set_up_at: datetime | None
    revision: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Project:
    """Partitions an account's certificates and targets; grants may be narrowed to one."""

    id: str
    account_id: str
    name: str
    description: str
    is_default: bool
    revision: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A person. `has_password` is False until an invited user followed the link."""

    id: str
    account_id: str
    email: str
    name: str
    has_password: bool
    disabled_at: datetime | None
    last_sign_in_at: datetime | None
    revision: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    account_id: str
    name: str
    description: str
    revision: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser. It ends at `expires_at`, or two hours after `last_seen_at`."""

    id: str
    user_id: str
    address: str
    user_agent: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Token:
    """An API token without its secret. `policies` narrow it; None means everything its user may do."""

    id: str
    account_id: str
    user_id: str
    name: str
    policies: tuple[str, ...] | None
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    revision: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SignedIn:
    """`secret` goes into the cookie and is stored nowhere."""

    session: Session
    user: User
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OneTimeLink:
    """`secret` is shown once; the entry makes the address people open from it."""

    id: str
    expires_at: datetime
    secret: str = field(repr=False)
