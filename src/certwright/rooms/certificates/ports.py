"""The ports behind which every CA stands: the built-in one, ACME, commercial ones later.

A connector is a folder in `connectors/ca/` and passes `tests/certificates/ca_conformance.py`. Every CA is a
`CertificateAuthority`; what only some can do is a port of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Problem, Refused
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.certificates.words import Applicant, CertificateType, RevocationReason
from certwright.rooms.validation import Wanted
from certwright.x509.keys import PrivateKey


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a CA is and takes; facts rules need before anything is ordered.

    `ip_addresses`: a public CA that certifies public ones, too; private CAs certify any.
    `root_hashes`: what an applicant may choose of `default` and `sha256` for the chain up to the root.
    `checks_organisations`: for OV and EV the CA asks the organisation itself; else our own desk does before we order.
    `challenges`: the CA validates the names itself, with values of its own that are known only once something is
    ordered; such a CA is also `Challenging`. `caa_identifiers` are its CAA domain names; `caa_methods` what
    CAA records call its methods, and `account_uri` our account there (RFC 8657).
    """

    name: str
    public: bool
    methods: tuple[str, ...]
    revocation_reasons: tuple[RevocationReason, ...]
    challenges: bool = False
    types: tuple[CertificateType, ...] = (CertificateType.DV,)
    ip_addresses: bool = False
    root_hashes: tuple[str, ...] = ("default",)
    checks_organisations: bool = False
    caa_identifiers: tuple[str, ...] = ()
    caa_methods: Mapping[str, str] = field(default_factory=dict)
    account_uri: str | None = None


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """`reference` is the application's id: the same reference never yields two certificates.

    `methods` says per name how it is to be validated (`dns`, `file`), for CAs with challenges of their own.
    `organisation` are the facts to name in OV and EV certificates (`rooms.organisations.Facts` as a mapping).
    `replaces_der` is the version this order is to replace, if there is one. `contact` is whom the CA may ask,
    `technical_contact` whom about the servers. `root_hash` is one of the CA's `root_hashes`. `years` of coverage are
    still to be served; None for what was not bought here.
    """

    reference: str
    account_id: str
    project_id: str
    names: tuple[str, ...]
    csr_der: bytes
    methods: Mapping[str, str] = field(default_factory=dict)
    replaces_der: bytes | None = None
    certificate_type: CertificateType = CertificateType.DV
    organisation: Mapping[str, Any] | None = None
    contact: Applicant | None = None
    technical_contact: Applicant | None = None
    root_hash: str = "default"
    years: int | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    leaf_der: bytes
    chain_ders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Pending:
    """Ask again after this time; `why` says what the CA waits for, where somebody might want to know."""

    again: timedelta
    why: Problem | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The CA said no for good; `reasons` are its words."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """The CA waits until these are in place and `proceed` is called; with none there is nothing to publish."""

    wanted: tuple[Wanted, ...]


class CertificateAuthority(Protocol):
    """Every call may be repeated after a crash and then finds what it did before.

    Raises kernel.problems.Unavailable when the CA can't be reached or asks for patience; `extra["retry_after"]`, where
    it is there, says how many seconds.
    """

    capabilities: Capabilities

    async def submit(self, order: CertificateOrder) -> str:
        """Order a certificate; returns the CA's own id of the order."""
        ...

    async def collect(self, order_id: str, account_id: str) -> Issued | Pending | Needs | Rejected: ...

    async def revoke(self, leaf_der: bytes, reason: RevocationReason, account_id: str) -> None:
        """Content to find it revoked already. Raises MayNotRevoke where others than our account there may."""
        ...


@runtime_checkable
class Challenging(Protocol):
    """A CA that validates names itself. Before `proceed` it issues nothing: `submit` only asks what it wants to see,
    and whoever ordered may still walk away."""

    async def proceed(self, order_id: str, account_id: str) -> None:
        """Everything `Needs` named is in place: validate and issue."""
        ...


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nothing comes of the order any more."""


@dataclass(frozen=True, slots=True)
class TooLate:
    """The CA approved meanwhile: there is a certificate to collect; `words` say what became of the order."""

    words: str


@runtime_checkable
class Cancels(Protocol):
    """A CA that takes an order back for as long as it hasn't issued."""

    async def cancel(self, order_id: str, account_id: str) -> Cancelled | TooLate:
        """Content to find it cancelled already."""
        ...


@dataclass(frozen=True, slots=True)
class RenewalWindow:
    """When the CA would like a certificate to be renewed, and how soon to ask again."""

    start: datetime
    end: datetime
    explanation_url: str | None
    again: timedelta


@runtime_checkable
class RenewalInformation(Protocol):
    """A CA that says when to renew (RFC 9773)."""

    async def renewal_window(self, leaf_der: bytes) -> RenewalWindow | None:
        """None when this CA says nothing about this certificate."""
        ...


@runtime_checkable
class RevokesByKey(Protocol):
    """A CA that takes a revocation from whoever holds the certificate's private key."""

    async def revoke_with_key(self, leaf_der: bytes, key: PrivateKey, reason: RevocationReason) -> None:
        """Content to find it revoked already."""
        ...


class MayNotRevoke(Refused):
    """Our account at the CA may not, or no longer, revoke this certificate. Whoever holds its key may (`RevokesByKey`),
    and who shows control of all its names (`RevokesByControl`)."""


@dataclass(frozen=True, slots=True)
class ControlShown:
    """The CA saw what it wanted to see of every name."""


@runtime_checkable
class RevokesByControl(CertificateAuthority, Challenging, Protocol):
    """A CA that takes a revocation from an account that has shown control of all the names (RFC 8555 section 7.6)."""

    async def show_control(self, order: CertificateOrder) -> str:
        """Ask what the CA wants to see for these names; nothing is ever issued for it. Returns an id, for the same
        reference the same."""
        ...

    async def control_shown(self, order_id: str, account_id: str) -> ControlShown | Pending | Needs | Rejected:
        """How far it is; `Needs` until `proceed` says that everything is in place."""
        ...


class OutsideAuthorities(Protocol):
    """The CAs people added; each belongs to one account."""

    async def find(self, tx: Tx, account_id: str, ca: str) -> tuple[str, CertificateAuthority] | None:
        """The account's CA of this id or name, with its id; it is not deleted before the transaction ends."""
        ...

    async def names(self, tx: Tx, account_id: str) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class AuthorityDirectory:
    """The CAs certificates can be ordered from: those every account has, by the id stored on certificates, and those
    people added."""

    by_id: Mapping[str, CertificateAuthority]
    outside: OutsideAuthorities | None = None

    async def find(self, tx: Tx, account_id: str, ca: str) -> tuple[str, CertificateAuthority] | None:
        """The CA and the id to store for it."""
        known = self.by_id.get(ca)
        if known is not None:
            return ca, known
        return None if self.outside is None else await self.outside.find(tx, account_id, ca)

    async def names(self, tx: Tx, account_id: str) -> list[str]:
        """What `find` takes, for people."""
        return sorted([*self.by_id, *(await self.outside.names(tx, account_id) if self.outside else ())])


@dataclass(frozen=True, slots=True)
class Letter:
    """To the applicant of an OV or EV certificate that is to be revoked. `key` names the occasion: the same key is
    written once. `link` holds a secret, so whoever keeps the text wipes it once it was sent."""

    account_id: str
    certificate_id: str
    key: str
    to_address: str
    to_name: str
    certificate: str
    names: tuple[str, ...]
    serial: str
    reason: str
    link: str
    until: datetime


class Mail(Protocol):
    async def write(self, tx: Tx, services: Services, letter: Letter) -> None:
        """Put the letter into the outbox, in the caller's transaction."""
        ...


class Usage(Protocol):
    """Where a certificate is used; answered by the deployment room, which this room must not know."""

    async def bound_to(self, tx: Tx, certificate_id: str) -> tuple[str, ...]:
        """Names of the listeners it is bound to, for people."""
        ...

    async def certificates_on(self, tx: Tx, actor: Actor, target: str) -> tuple[str, ...]:
        """Ids of the certificates bound to a site of the target of this id or name, if the actor may see that."""
        ...

    async def serves(self, tx: Tx, version_id: str) -> bool:
        """Whether this version is what we last put on any listener."""
        ...
