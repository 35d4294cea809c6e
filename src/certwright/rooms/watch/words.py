"""The words of watching: what was looked at, what was seen, what was expected, and what to raise an alarm about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

EXCEPTION = "ALM-2001006"
DIFFERS = "ALM-2001010"
OVERDUE = "ALM-2001011"
DEPLOYMENT = "ALM-2001012"
EVIDENCE = "ALM-2001014"
DESK = "ALM-2001016"
WRONG_CERTIFICATE = "ALM-2001017"
CA_ENDS = "ALM-2001018"

ALARM_RAISED = "alarm.raised"
ALARM_CHANGED = "alarm.changed"
ALARM_CLEARED = "alarm.cleared"


class Severity(StrEnum):
    """As in ITU-T X.733; `cleared` is what an alarm becomes, never what a fact has."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    WARNING = "warning"
    CLEARED = "cleared"

    @property
    def weight(self) -> int:
        """Larger is worse."""
        return _WEIGHTS[self]


_WEIGHTS = {
    Severity.CRITICAL: 4,
    Severity.MAJOR: 3,
    Severity.MINOR: 2,
    Severity.WARNING: 1,
    Severity.CLEARED: 0,
}


class StartTls(StrEnum):
    """How TLS begins: at once, or after a short dialogue in clear (RFC 3207, RFC 9051 6.2.1, PostgreSQL SSLRequest)."""

    NONE = "none"
    SMTP = "smtp"
    IMAP = "imap"
    POSTGRES = "postgres"


class Origin(StrEnum):
    """Whether a person added the endpoint or a binding brought it."""

    MANUAL = "manual"
    BINDING = "binding"


class Chain(StrEnum):
    """Whether a client that knows only roots can build a path from what the server sent."""

    COMPLETE = "complete"
    """Every link up to a self-signed certificate or to a root we know."""
    UNKNOWN_ROOT = "unknown_root"
    """Every link up to a CA certificate whose own issuer is neither served nor known here."""
    INCOMPLETE = "incomplete"
    """The certificate's own issuer is missing."""
    BROKEN = "broken"
    """A certificate that names its issuer was not signed by the issuer that was served."""


@dataclass(frozen=True, slots=True)
class Link:
    """One served certificate, for people. Names are RFC 4514 strings; `fingerprint` is SHA-256 in lower-case hex."""

    subject: str
    issuer: str
    fingerprint: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class ServedChain:
    """What the certificates a server sent say. `names` are the SAN entries of the leaf, A-labels and addresses."""

    fingerprint: str
    serial: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    state: Chain
    trusted: bool
    """Whether the path ends at a root we know."""
    detail: str
    links: tuple[Link, ...]

    @property
    def earliest_not_after(self) -> datetime:
        return min(link.not_after for link in self.links)


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at one address of an endpoint.

    `problem` is a stable code when no certificate was got (`dns`, `resolver_away`, `denied`, `no_route`, `refused`,
    `timeout`, `starttls`, `tls`, `no_certificate`, `unreadable`), `detail` a sentence about it. `failures` counts the
    looks in a row that got no certificate, this one included. `latency` is in seconds.
    """

    address: str
    at: datetime
    chain: ServedChain | None = None
    chain_der: tuple[bytes, ...] = ()
    problem: str | None = None
    detail: str = ""
    tls_version: str | None = None
    cipher: str | None = None
    group: str | None = None
    latency: float | None = None
    failures: int = 0

    @property
    def reachable(self) -> bool:
        """Whether a TLS server answered there, whatever it served."""
        return self.problem is None or self.problem in ("no_certificate", "unreadable")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What should be there.

    `name` must be covered by the certificate. `fingerprint` is that of the intended version, None when any will do.
    Until `settle_until` a different certificate is tolerated, because a rollout may be on its way. `confirm` is how
    many failed looks in a row count as a failure (1: the first).
    """

    name: str
    fingerprint: str | None = None
    settle_until: datetime | None = None
    confirm: int = 1


@dataclass(frozen=True, slots=True)
class AlarmFact:
    """One thing wrong, for which an alarm stands.

    `reason` is a stable code whose sentence `catalogue.sentence` makes from `params`; `threshold` is the row of the
    alarm's threshold table that was crossed; `value` the measured figure in the unit the catalogue names; `identity`
    what makes the fact another one: when it changes, the alarm changes.
    """

    kind: str
    severity: Severity
    reason: str
    threshold: int | None = None
    value: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    identity: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """`facts` are what is wrong, at most one a kind; about the kinds in `undecided` this look can't tell anything."""

    facts: tuple[AlarmFact, ...] = ()
    undecided: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OpenAlarm:
    """What an open alarm says at present, as far as deciding its next move needs it."""

    severity: Severity
    threshold: int | None
    reason: str
    identity: tuple[str, ...]


class Move(StrEnum):
    """What happens to the one open alarm of an object and kind."""

    KEEP = "keep"
    RAISE = "raise"
    CHANGE = "change"
    CLEAR = "clear"


def stamp(at: datetime) -> str:
    """A UTC time as the API writes it, for facts kept as JSON: `2026-11-21T09:05:07Z`."""
    return at.isoformat().replace("+00:00", "Z")
