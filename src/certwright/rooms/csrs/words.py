"""The vocabulary of signing requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certwright.x509.csr import Subject


class Origin(StrEnum):
    GENERATED = "generated"
    UPLOADED = "uploaded"


@dataclass(frozen=True, slots=True)
class UsedBy:
    """How many certificates were applied for with a request, and how many of these applications are open."""

    certificates: int = 0
    open_applications: int = 0


@dataclass(frozen=True, slots=True)
class Csr:
    """A request as doors show it. `names` are A-labels and addresses; `key_algorithm` is for people: "EC P-256"."""

    id: str
    project_id: str
    name: str
    origin: Origin
    names: tuple[str, ...]
    subject: Subject
    key_algorithm: str
    spki_sha256: str
    has_key: bool
    pem: str
    used_by: UsedBy
    created_at: datetime
    updated_at: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that an application is made with; `key_id` is None when its key is with its owner."""

    id: str
    der: bytes
    pem: str
    key_id: str | None


@dataclass(frozen=True, slots=True)
class Download:
    file_name: str
    media_type: str
    content: bytes
