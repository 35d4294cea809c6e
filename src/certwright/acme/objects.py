"""The resources of RFC 8555 as frozen values, read from what a server sent. Nothing here trusts the server: whatever
is missing, of another type, too long or no https URL raises `Malformed`, and nothing else is ever raised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from certwright.kernel.shapes import LONGEST_TEXT, Malformed, document, line, list_of, mapping, member, needed, one_of

MAX_NAMES = 1000
_MAX_CHALLENGES = 50
_MAX_PROFILES = 100
_MAX_URL = 2048
ERROR_PREFIX = "urn:ietf:params:acme:error:"


class OrderStatus(StrEnum):
    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ChallengeStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AccountStatus(StrEnum):
    VALID = "valid"
    DEACTIVATED = "deactivated"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Identifier:
    """`type` is `dns` or `ip` (RFC 8738); others are kept as they are. `value` is lower case, without `*.`."""

    type: str
    value: str


@dataclass(frozen=True, slots=True)
class ProblemDocument:
    """RFC 7807 as ACME uses it. `kind` is the last part of an ACME error type (`badNonce`), else empty."""

    kind: str = ""
    detail: str = ""
    status: int | None = None
    instance: str | None = None
    identifier: Identifier | None = None
    subproblems: tuple[ProblemDocument, ...] = ()

    def words(self, limit: int = 300) -> str:
        """What the server said, in one bounded line for people, its subproblems with their names."""
        said = [self.detail or self.kind]
        for sub in self.subproblems:
            who = f"{sub.identifier.value}: " if sub.identifier else ""
            said.append(who + (sub.detail or sub.kind))
        text = " ".join(" ".join(part.split()) for part in said if part)
        text = "".join(c for c in text if c.isprintable())
        return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True, slots=True)
class Directory:
    """`renewal_info` is None where the server has no ARI (RFC 9773); `profiles` name → description.

    Terms and website are for people and may be any text; whoever makes a link of them looks at the scheme first.
    """

    new_nonce: str
    new_account: str
    new_order: str
    revoke_cert: str
    key_change: str | None = None
    renewal_info: str | None = None
    terms_of_service: str | None = None
    website: str | None = None
    caa_identities: tuple[str, ...] = ()
    external_account_required: bool = False
    profiles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """`orders` is where its orders are listed (section 7.1.2.1); some CAs leave it out."""

    status: AccountStatus
    contact: tuple[str, ...] = ()
    orders: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    status: OrderStatus
    identifiers: tuple[Identifier, ...]
    authorizations: tuple[str, ...]
    finalize: str
    expires: datetime | None = None
    certificate: str | None = None
    error: ProblemDocument | None = None
    replaces: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """`token` is empty for kinds that have none (dns-persist-01)."""

    type: str
    url: str
    status: ChallengeStatus
    token: str = ""
    error: ProblemDocument | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    identifier: Identifier
    status: AuthorizationStatus
    challenges: tuple[Challenge, ...]
    expires: datetime | None = None
    wildcard: bool = False

    @property
    def name(self) -> str:
        """The name as it stands in the order: with its `*.` for a wildcard."""
        return f"*.{self.identifier.value}" if self.wildcard else self.identifier.value


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """When the CA would like the certificate to be renewed (RFC 9773 section 4.2)."""

    start: datetime
    end: datetime
    explanation_url: str | None = None


# --- reading ---------------------------------------------------------------------------------------------------------


def read_directory(body: bytes) -> Directory:
    top = document(body)
    meta = member(top, "meta", mapping, {})
    profiles = member(meta, "profiles", mapping, {})
    if len(profiles) > _MAX_PROFILES:
        raise Malformed("the directory has too many profiles")
    return Directory(
        new_nonce=needed(top, "newNonce", _https),
        new_account=needed(top, "newAccount", _https),
        new_order=needed(top, "newOrder", _https),
        revoke_cert=needed(top, "revokeCert", _https),
        key_change=member(top, "keyChange", _https, None),
        renewal_info=member(top, "renewalInfo", _https, None),
        terms_of_service=member(meta, "termsOfService", line, None),
        website=member(meta, "website", line, None),
        caa_identities=member(meta, "caaIdentities", _texts, ()),
        external_account_required=member(meta, "externalAccountRequired", _boolean, False),
        profiles={line(name): line(value) if isinstance(value, str) else "" for name, value in profiles.items()},
    )


def read_account(body: bytes) -> Account:
    top = document(body)
    return Account(
        needed(top, "status", one_of(AccountStatus)), member(top, "contact", _texts, ()),
        # Optional to us, so a CA whose list can't be used isn't refused for it.
        _lenient(top, "orders"),
    )  # fmt: skip


def read_order_list(body: bytes) -> tuple[str, ...]:
    """The addresses of an account's orders, one page of them (section 7.1.2.1)."""
    return needed(document(body), "orders", list_of(_https, MAX_NAMES))


def read_order(body: bytes) -> Order:
    top = document(body)
    return Order(
        status=needed(top, "status", _order_status),
        identifiers=needed(top, "identifiers", list_of(_identifier, MAX_NAMES)),
        authorizations=needed(top, "authorizations", list_of(_https, MAX_NAMES)),
        finalize=needed(top, "finalize", _https),
        expires=member(top, "expires", _moment, None),
        certificate=member(top, "certificate", _https, None),
        error=member(top, "error", _problem, None),
        replaces=member(top, "replaces", line, None),
        profile=member(top, "profile", line, None),
    )


def read_authorization(body: bytes) -> Authorization:
    top = document(body)
    return Authorization(
        identifier=needed(top, "identifier", _identifier),
        status=needed(top, "status", one_of(AuthorizationStatus)),
        challenges=needed(top, "challenges", list_of(_challenge, _MAX_CHALLENGES)),
        expires=member(top, "expires", _moment, None),
        wildcard=member(top, "wildcard", _boolean, False),
    )


def read_challenge(body: bytes) -> Challenge:
    return _challenge(document(body))


def read_renewal_info(body: bytes) -> RenewalInfo:
    top = document(body)
    window = needed(top, "suggestedWindow", mapping)
    start, end = needed(window, "start", _moment), needed(window, "end", _moment)
    if end <= start:
        raise Malformed("suggestedWindow ends before it starts")
    return RenewalInfo(start, end, member(top, "explanationURL", line, None))


def read_problem(body: bytes) -> ProblemDocument:
    """A problem document; whatever can't be read of it is left out, because an error must not hide behind another."""
    try:
        return _problem(document(body))
    except Malformed:
        return ProblemDocument()


# --- the shapes ------------------------------------------------------------------------------------------------------


def _order_status(value: Any) -> OrderStatus:
    """Pebble gives an order that can't be finalized any more the status of the authorization that is to blame."""
    if value in (AuthorizationStatus.DEACTIVATED, AuthorizationStatus.EXPIRED, AuthorizationStatus.REVOKED):
        return OrderStatus.INVALID
    return one_of(OrderStatus)(value)


def _lenient(members: Mapping[str, Any], name: str) -> str | None:
    try:
        found: str | None = member(members, name, _https, None)
    except Malformed:
        return None
    return found


def _texts(value: Any) -> tuple[str, ...]:
    return list_of(line, MAX_NAMES)(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Malformed("not true or false")
    return value


def _https(value: Any) -> str:
    """RFC 8555 section 6.1: every resource of an ACME server is an https URL."""
    if not isinstance(value, str) or len(value) > _MAX_URL or not value.isascii() or not value.isprintable():
        raise Malformed("not a URL")
    try:
        split = urlsplit(value)
        usable = split.scheme == "https" and bool(split.hostname) and (split.port is None or split.port > 0)
    except ValueError:
        usable = False
    if not usable or " " in value:
        raise Malformed("not an https URL")
    return value


_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,12}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)  # fmt: skip


def _moment(value: Any) -> datetime:
    """RFC 3339, in UTC; fractions beyond a microsecond, which Go's servers send, are cut."""
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Malformed("not a date and time")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    offset = timedelta(0)
    if zone not in ("Z", "z"):
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6])) * (-1 if zone[0] == "-" else 1)
    try:
        return datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second),
            int((fraction or "0").ljust(6, "0")[:6]), tzinfo=timezone(offset),
        ).astimezone(UTC)  # fmt: skip
    except (ValueError, OverflowError):
        raise Malformed("not a date and time") from None


def _identifier(value: Any) -> Identifier:
    members = mapping(value)
    return Identifier(needed(members, "type", line), needed(members, "value", line).lower())


# RFC 8555 section 8.1: nothing outside the base 64 alphabet for URLs; the token becomes part of a path and a record.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,512}", re.ASCII)


def _token(value: Any) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise Malformed("not a token")
    return value


def _challenge(value: Any) -> Challenge:
    members = mapping(value)
    return Challenge(
        type=needed(members, "type", line),
        url=needed(members, "url", _https),
        # Kinds we don't know may have states we don't know, and no status at all before they begin (dns-persist-01).
        status=member(members, "status", one_of(ChallengeStatus), ChallengeStatus.PENDING),
        token=member(members, "token", _token, ""),
        error=member(members, "error", _problem, None),
    )


def _problem(value: Any, depth: int = 0) -> ProblemDocument:
    members = mapping(value)

    def said(name: str) -> str:
        found = members.get(name)
        return found[:LONGEST_TEXT] if isinstance(found, str) else ""

    kind, status = said("type"), members.get("status")
    subs = members.get("subproblems")
    identifier = members.get("identifier")
    try:
        named = _identifier(identifier) if identifier is not None else None
    except Malformed:
        named = None
    return ProblemDocument(
        kind=kind.removeprefix(ERROR_PREFIX) if kind.startswith(ERROR_PREFIX) else "",
        detail=said("detail"),
        status=status if isinstance(status, int) and not isinstance(status, bool) else None,
        instance=said("instance") or None,
        identifier=named,
        subproblems=tuple(_problem(sub, 1) for sub in subs[:MAX_NAMES] if isinstance(sub, dict))
        if isinstance(subs, list) and not depth
        else (),
    )
