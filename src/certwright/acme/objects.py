"""The resources of RFC 8555 as frozen values, read from what a server sent. Nothing here trusts the server: whatever
is missing, of another type, too long or no https URL raises `Malformed`, and nothing else is ever raised."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

MAX_NAMES = 1000
_MAX_CHALLENGES = 50
_MAX_PROFILES = 100
_MAX_TEXT = 4000
_MAX_URL = 2048
ERROR_PREFIX = "urn:ietf:params:acme:error:"

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


class Malformed(ValueError):
    """The server's answer isn't what RFC 8555 says; the text names the member and never repeats long content."""


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
    status: AccountStatus
    contact: tuple[str, ...] = ()


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
    top = _object(body)
    meta = _member(top, "meta", _mapping, {})
    profiles = _member(meta, "profiles", _mapping, {})
    if len(profiles) > _MAX_PROFILES:
        raise Malformed("the directory has too many profiles")
    return Directory(
        new_nonce=_needed(top, "newNonce", _https),
        new_account=_needed(top, "newAccount", _https),
        new_order=_needed(top, "newOrder", _https),
        revoke_cert=_needed(top, "revokeCert", _https),
        key_change=_member(top, "keyChange", _https, None),
        renewal_info=_member(top, "renewalInfo", _https, None),
        terms_of_service=_member(meta, "termsOfService", _text, None),
        website=_member(meta, "website", _text, None),
        caa_identities=_member(meta, "caaIdentities", _texts, ()),
        external_account_required=_member(meta, "externalAccountRequired", _boolean, False),
        profiles={_text(name): _text(value) if isinstance(value, str) else "" for name, value in profiles.items()},
    )


def read_account(body: bytes) -> Account:
    top = _object(body)
    return Account(_needed(top, "status", _one_of(AccountStatus)), _member(top, "contact", _texts, ()))


def read_order(body: bytes) -> Order:
    top = _object(body)
    return Order(
        status=_needed(top, "status", _one_of(OrderStatus)),
        identifiers=_needed(top, "identifiers", _list_of(_identifier, MAX_NAMES)),
        authorizations=_needed(top, "authorizations", _list_of(_https, MAX_NAMES)),
        finalize=_needed(top, "finalize", _https),
        expires=_member(top, "expires", _moment, None),
        certificate=_member(top, "certificate", _https, None),
        error=_member(top, "error", _problem, None),
        replaces=_member(top, "replaces", _text, None),
        profile=_member(top, "profile", _text, None),
    )


def read_authorization(body: bytes) -> Authorization:
    top = _object(body)
    return Authorization(
        identifier=_needed(top, "identifier", _identifier),
        status=_needed(top, "status", _one_of(AuthorizationStatus)),
        challenges=_needed(top, "challenges", _list_of(_challenge, _MAX_CHALLENGES)),
        expires=_member(top, "expires", _moment, None),
        wildcard=_member(top, "wildcard", _boolean, False),
    )


def read_challenge(body: bytes) -> Challenge:
    return _challenge(_object(body))


def read_renewal_info(body: bytes) -> RenewalInfo:
    top = _object(body)
    window = _needed(top, "suggestedWindow", _mapping)
    start, end = _needed(window, "start", _moment), _needed(window, "end", _moment)
    if end <= start:
        raise Malformed("suggestedWindow ends before it starts")
    return RenewalInfo(start, end, _member(top, "explanationURL", _text, None))


def read_problem(body: bytes) -> ProblemDocument:
    """A problem document; whatever can't be read of it is left out, because an error must not hide behind another."""
    try:
        return _problem(_object(body))
    except Malformed:
        return ProblemDocument()


# --- the shapes ------------------------------------------------------------------------------------------------------


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise Malformed("the answer is not JSON") from None


def _needed(members: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> T:
    if members.get(name) is None:
        raise Malformed(f"{name} is missing")
    return _read(members, name, read)


def _member(members: Mapping[str, Any], name: str, read: Callable[[Any], T], default: Any) -> Any:
    # Some servers send null or "" for what they leave out.
    return default if members.get(name) in (None, "") else _read(members, name, read)


def _read(members: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> T:
    try:
        return read(members[name])
    except Malformed as error:
        raise Malformed(f"{name}: {error}") from None


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise Malformed("not a short text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return _list_of(_text, MAX_NAMES)(value)


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


def _list_of(read: Callable[[Any], T], most: int) -> Callable[[Any], tuple[T, ...]]:
    def read_list(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Malformed("not a list")
        if len(value) > most:
            raise Malformed(f"more than {most} entries")
        return tuple(read(entry) for entry in value)

    return read_list


def _one_of(kind: type[E]) -> Callable[[Any], E]:
    def read_word(value: Any) -> E:
        try:
            return kind(value)
        except ValueError:
            raise Malformed(f"not one of {', '.join(kind)}") from None

    return read_word


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
    members = _mapping(value)
    return Identifier(_needed(members, "type", _text), _needed(members, "value", _text).lower())


# RFC 8555 section 8.1: nothing outside the base 64 alphabet for URLs; the token becomes part of a path and a record.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,512}", re.ASCII)


def _token(value: Any) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise Malformed("not a token")
    return value


def _challenge(value: Any) -> Challenge:
    members = _mapping(value)
    return Challenge(
        type=_needed(members, "type", _text),
        url=_needed(members, "url", _https),
        # Kinds we don't know may have states we don't know, and no status at all before they begin (dns-persist-01).
        status=_member(members, "status", _one_of(ChallengeStatus), ChallengeStatus.PENDING),
        token=_member(members, "token", _token, ""),
        error=_member(members, "error", _problem, None),
    )


def _problem(value: Any, depth: int = 0) -> ProblemDocument:
    members = _mapping(value)

    def text(name: str) -> str:
        found = members.get(name)
        return found[:_MAX_TEXT] if isinstance(found, str) else ""

    kind, status = text("type"), members.get("status")
    subs = members.get("subproblems")
    identifier = members.get("identifier")
    try:
        named = _identifier(identifier) if identifier is not None else None
    except Malformed:
        named = None
    return ProblemDocument(
        kind=kind.removeprefix(ERROR_PREFIX) if kind.startswith(ERROR_PREFIX) else "",
        detail=text("detail"),
        status=status if isinstance(status, int) and not isinstance(status, bool) else None,
        instance=text("instance") or None,
        identifier=named,
        subproblems=tuple(_problem(sub, 1) for sub in subs[:MAX_NAMES] if isinstance(sub, dict))
        if isinstance(subs, list) and not depth
        else (),
    )
