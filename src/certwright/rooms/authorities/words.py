"""Values of the authorities room."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from certwright.x509.issue import NameConstraints, Subject

CA_STEP = "authorities.publish_crl"


class CaState(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    DISABLED = "disabled"
    DELETED = "deleted"
    EXPIRED = "expired"
    REVOKED = "revoked"


class CaOrigin(StrEnum):
    """Where a CA comes from: made here below one of ours or as a root; signed by a parent outside; brought with its
    key."""

    MADE = "made"
    OUTSIDE = "outside"
    IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA as people see it. What only its certificate can say is None while it waits for one (`pending`).

    `delete_at` is when a CA that waits to be deleted loses its key. `permitted` and `excluded` are its name
    constraints in words, `purposes` its extended key usages (None: any).
    """

    id: str
    project_id: str
    name: str
    kind: str
    origin: CaOrigin
    builtin: bool
    parent_id: str | None
    state: CaState
    subject: str
    key_algorithm: str
    hash_name: str
    serial: str | None
    sha256: str | None
    not_before: datetime | None
    not_after: datetime | None
    certificate_der: bytes | None
    csr_der: bytes | None
    path_len: int | None
    permitted: tuple[str, ...]
    excluded: tuple[str, ...]
    purposes: tuple[str, ...] | None
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
    revision: int


@dataclass(frozen=True, slots=True)
class CaRequest:
    """A CA to be made. Without `parent_id` a root; with `outside` a request for a parent that isn't ours.

    `days` counts from an hour before now and is cut off by the parent's end. `path_len` is how many CAs may stand
    below (None: any number). `purposes` are words or OIDs of extended key usages; empty means any.
    """

    name: str
    subject: Subject
    parent_id: str | None = None
    outside: bool = False
    key_algorithm: str = "EC_P256"
    hash_name: str | None = None
    days: int | None = None
    path_len: int | None = None
    constraints: NameConstraints = field(default_factory=NameConstraints)
    purposes: tuple[str, ...] = ()
    crl_days: int = 7
    crl_shards: int = 1
    ocsp_enabled: bool = False


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate one of our CAs issued, as people see it. `has_key` says whether its key is held here."""

    id: str
    authority_id: str
    project_id: str
    profile: str
    serial: str
    names: tuple[str, ...]
    subject: str
    sha256: str
    der: bytes
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    has_key: bool
    managed: bool
    """Whether it belongs to a certificate of the certificates room, which revokes, renews and deletes it."""
    revoked_at: datetime | None
    revocation_reason: str | None


@dataclass(frozen=True, slots=True)
class LeafRequest:
    """A certificate asked for by hand: a profile's name, who it is for, and a key to be made or a request (PEM)."""

    profile: str
    names: tuple[str, ...] = ()
    subject: Subject = field(default_factory=Subject)
    key_algorithm: str = "EC_P256"
    csr: str | None = None
    days: int | None = None


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """`reference` makes the request repeatable: asked twice, the same certificate is returned.

    `subject` is what OV and EV certificates say of their holder; without it there is at most a common name.
    `seconds` is the life asked for (None: the profile's default); the CA's own end cuts it off.
    """

    reference: str
    account_id: str
    project_id: str
    names: tuple[str, ...]
    public_key: object
    profile: str = "server"
    seconds: int | None = None
    common_name: str | None = None
    subject: Subject | None = None


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    id: str
    authority_id: str
    serial: str
    der: bytes
    chain_ders: tuple[bytes, ...]
    """From the issuing CA up, without the root."""


@dataclass(frozen=True, slots=True)
class CaProfile:
    """A kind of certificate somebody described; `body` as `x509.profiles.describe` writes it. Built-in ones have no
    id and no revision."""

    name: str
    body: dict[str, Any]
    id: str | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Crl:
    number: int
    der: bytes
    this_update: datetime
    next_update: datetime
