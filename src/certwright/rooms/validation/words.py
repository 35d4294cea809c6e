"""The values of the validation room: methods, records and files to publish, what was seen, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from certwright.kernel.names import looks_like_ip, parse_dns_name
from certwright.kernel.problems import Invalid
from certwright.platform.resolver import Look

VALUE_PREFIX = "certwright-validation="
SUGGESTED_TTL = 300
WELL_KNOWN = "/.well-known/pki-validation/"
ACME_WELL_KNOWN = "/.well-known/acme-challenge/"
"""Where http-01 looks (RFC 8555 section 8.3)."""
CNAME_TARGET = "certwright.invalid"
"""What the CNAMEs we ask for lead to: names that never exist (RFC 6761 6.4), so that nobody can take them over."""
MAILBOXES = ("admin", "administrator", "webmaster", "hostmaster", "postmaster")
"""Mailboxes that only who runs a domain has (BR 3.2.2.4.4)."""


class Method(StrEnum):
    """How control of a name is shown. The last three are ACME's own words."""

    DNS = "dns"
    FILE = "file"
    EMAIL = "email"
    HTTP_01 = "http-01"
    DNS_01 = "dns-01"
    TLS_ALPN_01 = "tls-alpn-01"


class CaKind(StrEnum):
    """Whose rules bind: the Baseline Requirements, or the operator's own."""

    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Offer:
    """One method for one name today. Not `allowed`: code and reason say why. Dates as ISO days."""

    method: Method
    allowed: bool
    code: str = ""
    reason: str = ""
    discouraged_since: str | None = None
    ends: str | None = None


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A record to publish; `ttl` in seconds."""

    name: str
    type: str
    value: str
    ttl: int = SUGGESTED_TTL

    @property
    def quoted(self) -> str:
        """The value as most DNS consoles want it: TXT in quotation marks."""
        return f'"{self.value}"' if self.type == "TXT" else self.value

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type, "value": self.value, "quoted": self.quoted, "ttl": self.ttl}


@dataclass(frozen=True, slots=True)
class FileToPublish:
    """A file to put on the site that answers for exactly `host`; `port` is where it is looked for over http."""

    host: str
    name: str
    content: str
    port: int = 80
    folder: str = WELL_KNOWN

    @property
    def path(self) -> str:
        return self.folder + self.name

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}{self.path}" if self.port == 80 else f"http://{host}:{self.port}{self.path}"

    def as_dict(self) -> dict[str, Any]:
        return {"url": self.url, "path": self.path, "content": self.content}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a CA with challenges of its own wants to see for one name, of use until `until`.

    For dns-01 and dns `place` is the name of the record; for http-01 and file the last part of the file's path.
    """

    name: str
    method: Method
    place: str
    value: str
    until: datetime
    record_type: str = "TXT"


@dataclass(frozen=True, slots=True)
class Mailing:
    """The mailboxes of `domain` that were written to; `mailings` times so far, last at `sent_at`."""

    domain: str
    addresses: tuple[str, ...]
    sent_at: datetime
    mailings: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "domain": self.domain, "addresses": list(self.addresses), "sent_at": self.sent_at.isoformat(),
            "mailings": self.mailings,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class MailedLink:
    """What a mailed link is about: who asks for which names, and until when it is good."""

    account_name: str
    domain: str
    names: tuple[str, ...]
    address: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class CaaRecord:
    """One CAA record (RFC 8659 4.1)."""

    flags: int
    tag: str
    value: str


@dataclass(frozen=True, slots=True)
class CaaFacts:
    """The relevant CAA set of a name: found at `at` by climbing, or nowhere; `failure` if a look-up failed,
    `broken` if that was for broken DNSSEC."""

    name: str
    wildcard: bool
    at: str | None = None
    records: tuple[CaaRecord, ...] = ()
    failure: str | None = None
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA as CAA knows it: its CAA domain names, and what RFC 8657 can narrow, where it is known: `methods` are the
    labels of validation methods that may be used (`dns-01`; `ca-tbr-7` for BR methods without a label of their own),
    `account_uri` names the account that orders."""

    identifiers: tuple[str, ...]
    methods: tuple[str, ...] = ()
    account_uri: str | None = None


@dataclass(frozen=True, slots=True)
class CaaVerdict:
    """`code`: caa_none, caa_permits, caa_forbids, caa_forbids_method, caa_forbids_account, caa_unknown_critical,
    caa_lookup_failed or caa_dnssec_failure. `add` are records, one a line as in a zone file, that would let the CA
    issue; `found` those there are."""

    allowed: bool
    code: str
    sentence: str
    fix: str = ""
    add: tuple[str, ...] = ()
    found: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delegation:
    """Where the CNAMEs of a name lead: `names` begins with the name itself. `loops`: they lead nowhere, in a circle or
    through too many; `known` is False when the DNS doesn't say."""

    names: tuple[str, ...]
    loops: bool = False
    known: bool = True

    @property
    def target(self) -> str | None:
        """The name at which the record counts instead; None: at the name itself."""
        return self.names[-1] if len(self.names) > 1 and not self.loops else None


@dataclass(frozen=True, slots=True)
class Misplaced:
    """The expected value, found at a name where it has no effect."""

    name: str
    doubled_zone: bool


@dataclass(frozen=True, slots=True)
class DnsFacts:
    """Everything looked up for one expected record.

    `authoritative` and `resolvers` are the looks for the record's own type; `other_type` is one look for a type that
    people publish by mistake; `written_at` the looks at servers where the record was written; `ca_identifiers` the
    CAA domain names of the CA (empty: the CA doesn't heed CAA, the facts are for information only). `delegation`: the
    name asked for leads elsewhere by CNAME; `record` and everything looked up is then where it leads.
    """

    record: DnsRecord
    zone: str | None
    nameservers: tuple[str, ...] = ()
    authoritative: tuple[Look, ...] = ()
    resolvers: tuple[Look, ...] = ()
    other_type: Look | None = None
    misplaced: Misplaced | None = None
    written_at: tuple[Look, ...] = ()
    dnssec_failure: str | None = None
    previous_values: frozenset[str] = frozenset()
    caa: CaaFacts | None = None
    ca_identifiers: tuple[str, ...] = ()
    delegation: Delegation | None = None


@dataclass(frozen=True, slots=True)
class FileAttempt:
    """One fetch of the file: either an answer (`status`) or a problem (`code`, `message` of the guarded client)."""

    url: str
    address: str | None = None
    status: int | None = None
    body: bytes = b""
    redirects: tuple[str, ...] = ()
    code: str | None = None
    message: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TlsAttempt:
    """One tls-alpn-01 connection to `name`: what was presented (`names`, `digest` of RFC 8737's extension), or a
    problem (`code`, `message` of the guarded client). `spoke`: the other side agreed on the protocol acme-tls/1."""

    name: str
    port: int
    address: str | None = None
    spoke: bool = False
    names: tuple[str, ...] = ()
    digest: bytes | None = None
    code: str | None = None
    message: str = ""
    fix: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The attempts in the order made: http first, then https."""

    file: FileToPublish
    attempts: tuple[FileAttempt, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a check passed or not, for a person: stable code, one sentence, what to do. `seen` is machine-readable."""

    ok: bool
    code: str
    sentence: str
    fix: str = ""
    seen: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"ok": self.ok, "code": self.code, "message": self.sentence}
        if self.fix:
            out["fix"] = self.fix
        if self.seen:
            out["seen"] = dict(self.seen)
        return out


class Act(StrEnum):
    """What a challenge needs next: the first missing fact."""

    WRITE = "write"
    CHECK = "check"
    HOLD = "hold"
    """Validated; the record stays until the certificate is issued or the application given up."""
    REMOVE = "remove"
    DONE = "done"


class ChallengeStatus(StrEnum):
    """Computed from stored facts: validated_at, expires_at, cancelled_at and the clock."""

    PENDING = "pending"
    VALID = "valid"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class DomainState:
    """One name of an application. `record` or `file` says what to publish while it is pending, `instead` a record that
    does as well, `mailing` who was written to; `automatic` that a DNS connection does it, or our own responder for
    tls-alpn-01, which listens at `responder`; `valid_until` until when its
    evidence may be used. `ends` is the ISO day from which public CAs may not use the method any more.
    `delegated_from`: the name the CA asks for, a CNAME that leads to the name of `record`."""

    name: str
    method: Method
    status: ChallengeStatus
    automatic: bool = False
    connection_id: str | None = None
    record: DnsRecord | None = None
    instead: DnsRecord | None = None
    delegated_from: str | None = None
    file: FileToPublish | None = None
    responder: str | None = None
    mailing: Mailing | None = None
    ends: str | None = None
    explanation: Mapping[str, Any] | None = None
    checked_at: datetime | None = None
    next_check_at: datetime | None = None
    evidence_id: str | None = None
    valid_until: datetime | None = None
    expires_at: datetime | None = None
    challenge_id: str | None = None

    @property
    def unicode_name(self) -> str:
        """The name in U-labels, for people."""
        if looks_like_ip(self.name):
            return self.name
        try:
            return parse_dns_name(self.name).unicode
        except Invalid:
            return self.name

    @property
    def instructions(self) -> Mapping[str, Any] | None:
        """What to do, as one document: `{"kind": "record"|"file"|"mail"|"tls-alpn"|"none", …}`; None once nothing is
        left to do.

        A record's `instead` is another one that does as well; `delegated_from` the CNAME that leads to its name.
        """
        if self.status is not ChallengeStatus.PENDING:
            return None
        if self.responder is not None:
            return {"kind": "tls-alpn", "automatic": True, "listen": self.responder, "port": 443}
        if self.automatic:
            return {"kind": "none", "automatic": True, "connection_id": self.connection_id}
        if self.mailing is not None:
            return {"kind": "mail", "automatic": False} | self.mailing.as_dict()
        if self.record is not None:
            more: dict[str, Any] = {"instead": self.instead.as_dict()} if self.instead is not None else {}
            if self.delegated_from is not None:
                more["delegated_from"] = self.delegated_from
            return {"kind": "record", "automatic": False} | self.record.as_dict() | more
        return {"kind": "file", "automatic": False} | self.file.as_dict() if self.file is not None else None


@dataclass(frozen=True, slots=True)
class ValidationState:
    """All names of one application; `all_valid` is False when there are none."""

    all_valid: bool
    domains: tuple[DomainState, ...]


@dataclass(frozen=True, slots=True)
class DomainResult:
    """What "check now" found for one name."""

    name: str
    method: Method
    status: ChallengeStatus
    explanation: Explanation | None


def texts(values: Sequence[str], limit: int = 3) -> str:
    """A few values for a sentence, shortened."""
    shown = ", ".join(repr(value if len(value) <= 80 else value[:77] + "…") for value in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")


@dataclass(frozen=True, slots=True)
class DnsConnection:
    """A connection as people see it: everything but the secret. `problem` is what the last test said, if it failed."""

    id: str
    project_id: str
    name: str
    kind: str
    zones: tuple[str, ...]
    settings: Mapping[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime
    checked_at: datetime | None
    problem: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One entry of the ledger; `reuse_until` is computed from today's rules."""

    id: str
    project_id: str
    domain: str
    scope: str
    method: Method
    ca: str
    ca_kind: CaKind
    subject_id: str
    validated_at: datetime
    reuse_until: datetime
    seen: Mapping[str, Any]
