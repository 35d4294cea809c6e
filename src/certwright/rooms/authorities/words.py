"""Values of the authorities room."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certwright.x509.issue import Subject


class CaState(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    DISABLED = "disabled"
    DELETED = "deleted"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA as people see it; `chain` are subjects from its issuer up to the root."""

    id: str
    project_id: str
    name: str
    kind: str
    builtin: bool
    parent_id: str | None
    state: CaState
    subject: str
    key_algorithm: str
    serial: str
    sha256: str
    not_before: datetime
    not_after: datetime
    certificate_der: bytes
    crl_number: int
    crl_next_update: datetime | None
    crl_url: str
    issued: int | None
    revision: int


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
class Crl:
    number: int
    der: bytes
    this_update: datetime
    next_update: datetime
