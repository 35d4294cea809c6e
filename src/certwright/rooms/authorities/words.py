"""Values of the authorities room."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from certwright.kernel.problems import Problem
from certwright.x509.issue import NameConstraints, Subject

CA_STEP = "authorities.publish_crl"
STORE_STEP = "authorities.store_lists"


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


class KeyStore(StrEnum):
    """Where a CA's key is: sealed in the database, or made in an HSM that never gives it out."""

    SOFTWARE = "software"
    HSM = "hsm"


@dataclass(frozen=True, slots=True)
class TokenState:
    """An HSM's token as it is found now. `handles` are the keys with an id like ours that are in it, hex. What can't be
    known because of `problem` is empty."""

    configured: bool
    label: str = ""
    module: str = ""
    library: str = ""
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    handles: tuple[str, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class HsmState:
    """`keys` of ours are in the token (None: it can't be asked); those of the CAs called `missing` aren't."""

    token: TokenState
    keys: int | None
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA as people see it. What only its certificate can say is None while it waits for one (`pending`).

    `delete_at` is when a CA that waits to be deleted loses its key. `token_label` names the token of the HSM that has
    the key, if `key_store` is one. `problem` is why its last list or answer couldn't be signed (code, message, fix).
    `experimental`: its key is of a kind that few clients verify (ML-DSA).
    `permitted` and `excluded` are its name constraints in words, `purposes` its extended key usages (None: any).
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
    key_store: KeyStore
    token_label: str | None
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
    problem: dict[str, Any] | None
    experimental: bool
    revision: int

    @property
    def signs_leaves(self) -> bool:
        """Whether it certifies servers and clients: a root leaves that to the CAs below it, if it may have any."""
        return signs_leaves(self.kind, self.path_len)


def signs_leaves(kind: str, path_len: int | None) -> bool:
    return kind != "root" or path_len == 0


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
    key_store: str = KeyStore.SOFTWARE
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
    `seconds` is the life asked for (None: the profile's default); the CA's own end cuts it off. `internal` is the
    product's own, which policies don't judge, and so is what it is renewed by: `replaces` is the serial before.
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
    internal: bool = False
    replaces: str | None = None


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
    id and no revision. `problem` is why nothing is issued as it any more, though it was saved."""

    name: str
    body: dict[str, Any]
    id: str | None = None
    revision: int = 0
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class PolicyLimits:
    """What a policy lets certificates be. `allowed` and `refused` are rules as in `name_rules`; without any `allowed`
    every name is, and without `profiles` every profile. `max_days` is the longest life, `quota` how many certificates
    that are good a project may have from a CA; None is no limit."""

    allowed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    wildcards: bool = True
    profiles: tuple[str, ...] = ()
    max_days: int | None = None
    quota: int | None = None


@dataclass(frozen=True, slots=True)
class CaPolicy:
    """Limits on what private CAs issue: for one project and one CA, or for all of them (None). Several that apply all
    count: none widens what another one narrows."""

    id: str
    name: str
    project_id: str | None
    authority_id: str | None
    limits: PolicyLimits
    created_at: datetime
    updated_at: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class NameVerdict:
    """What the policies say to a name. `policy` and `rule` decided; None where no policy speaks of names."""

    name: str
    allowed: bool
    why: str
    policy: str | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyTrial:
    """What would come of a request: a verdict for each name, and the first problem of all (None: it would be issued).

    `policies` are the names of those that apply; `max_days` and `quota` the narrowest of their limits, `used` how many
    certificates count against the quota now (None where there is none).
    """

    verdicts: tuple[NameVerdict, ...]
    problem: Problem | None
    policies: tuple[str, ...]
    max_days: int | None
    quota: int | None
    used: int | None


@dataclass(frozen=True, slots=True)
class CrlHead:
    """Which list is the newest, without the list. It says that it is older than it is, for slow clocks."""

    number: int
    made_at: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class Crl:
    """As `CrlHead`, with the list."""

    number: int
    der: bytes
    made_at: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class StorageRequest:
    """An S3-compatible storage for a CA's lists. `endpoint` is its https (or http) address without a path; objects are
    called `<prefix><list>.crl` and `.pem`. `public_url`, if given, is where everybody finds what lies below the prefix.
    `secret_access_key` None keeps the one there is."""

    endpoint: str
    bucket: str
    access_key_id: str
    secret_access_key: str | None = field(default=None, repr=False)
    region: str = "us-east-1"
    prefix: str = ""
    public_url: str | None = None


@dataclass(frozen=True, slots=True)
class ListStorage:
    """Where a CA's lists are published to besides here. `waiting` counts lists whose newest isn't there yet; `problem`
    says why (code, message, fix)."""

    authority_id: str
    endpoint: str
    region: str
    bucket: str
    prefix: str
    access_key_id: str
    public_url: str | None
    waiting: int
    stored_at: datetime | None
    problem: dict[str, Any] | None
