"""What a CertCentral-style API answers, as frozen values. Nothing here trusts the CA: whatever is missing, of another
type, too long or in a state we don't know raises `Malformed`, and nothing else is ever raised.

Shapes: dev.digicert.com, Services API v2. Numbers of orders, certificates and organisations are kept as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

import orjson

MOST_ENTRIES = 1000
_MAX_TEXT = 4000
_MAX_CSR = 32_000
_MOST_DIGITS = 18

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


class Malformed(ValueError):
    """The CA's answer isn't of the published shape; the text names the member and never repeats long content."""


class OrderStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    NEEDS_APPROVAL = "needs_approval"
    NEEDS_CSR = "needs_csr"
    WAITING_PICKUP = "waiting_pickup"
    REISSUE_PENDING = "reissue_pending"
    ISSUED = "issued"
    REJECTED = "rejected"
    CANCELED = "canceled"
    REVOKED = "revoked"
    EXPIRED = "expired"


UNDER_WAY = frozenset((
    OrderStatus.PENDING, OrderStatus.PROCESSING, OrderStatus.NEEDS_APPROVAL, OrderStatus.NEEDS_CSR,
    OrderStatus.WAITING_PICKUP, OrderStatus.REISSUE_PENDING,
))  # fmt: skip
FRUITLESS = frozenset((OrderStatus.REJECTED, OrderStatus.CANCELED))


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of an error answer. `code` is the CA's own, such as `not_found|order`."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Placed:
    """An order or a reissue was taken. `certificate` is there when the CA tells its number at once."""

    order: str
    certificate: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """Something an administrator at the CA has to approve; `type` such as new_request, reissue, revoke."""

    type: str
    status: str
    comment: str
    certificate: str | None


@dataclass(frozen=True, slots=True)
class OrderInfo:
    """`certificate` is the number of the primary certificate; `valid_till` the last day that is paid for."""

    number: str
    status: OrderStatus
    certificate: str | None
    certificate_status: str
    serial: str
    valid_till: datetime | None
    note: str
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """An order found by our own reference."""

    order: str
    certificate: str | None
    status: OrderStatus


@dataclass(frozen=True, slots=True)
class Reissue:
    certificate: str
    status: OrderStatus
    csr: str
    serial: str
    note: str


@dataclass(frozen=True, slots=True)
class Token:
    """The value the CA looks for, the same for every name of an order, and until when."""

    value: str
    until: datetime


@dataclass(frozen=True, slots=True)
class NameValidation:
    """`names` of the order that this validation speaks for; `status` is `approved` once it is done."""

    names: tuple[str, ...]
    status: str


@dataclass(frozen=True, slots=True)
class OrganisationValidation:
    """`type` is ov or ev; `open` are the parts that are not verified yet."""

    type: str
    status: str
    open: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Validation:
    """How far the CA is with an order."""

    names: tuple[NameValidation, ...]
    organisation_name: str
    organisations: tuple[OrganisationValidation, ...]


@dataclass(frozen=True, slots=True)
class Organisation:
    number: str
    name: str
    status: str
    active: bool
    city: str
    zip: str
    country: str


# --- reading ---------------------------------------------------------------------------------------------------------


def read_faults(body: bytes) -> tuple[Fault, ...]:
    """What can be read of an error answer; garbage gives nothing."""
    try:
        # What `_member` answers has the type of the reader it is given.
        return _member(_object(body), "errors", _list_of(_fault), ())  # type: ignore[no-any-return]
    except Malformed:
        return ()


def read_placed(body: bytes) -> Placed:
    members = _object(body)
    return Placed(_needed(members, "id", _number), _member(members, "certificate_id", _number, None))


def read_order(body: bytes) -> OrderInfo:
    members = _object(body)
    certificate = _needed(members, "certificate", _mapping)
    return OrderInfo(
        number=_needed(members, "id", _number),
        status=_needed(members, "status", _one_of(OrderStatus)),
        certificate=_member(certificate, "id", _number, None),
        certificate_status=_member(certificate, "status", _text, ""),
        serial=_member(certificate, "serial_number", _text, "").lower().lstrip("0"),
        valid_till=_member(members, "order_valid_till", _moment, None),
        note=_member(members, "note", _text, ""),
        requests=_member(members, "requests", _list_of(_request), ()),
    )


def read_listed(body: bytes) -> tuple[Listed, ...]:
    return _needed(_object(body), "orders", _list_of(_listed))


def read_reissues(body: bytes) -> tuple[Reissue, ...]:
    return _needed(_object(body), "certificates", _list_of(_reissue))


def read_token(body: bytes) -> Token:
    members = _object(body)
    value = _needed(members, "dcv_random_value", _text)
    if not 8 <= len(value) <= 255 or not value.isascii() or any(sign.isspace() for sign in value):
        raise Malformed("dcv_random_value: not a value that could be published")
    return Token(value, _needed(members, "expiration_date", _moment))


def read_validation(body: bytes) -> Validation:
    members = _object(body)
    return Validation(
        names=_member(members, "dns_name_validations", _list_of(_name_validation), ()),
        organisation_name=_member(members, "organization_name", _text, ""),
        organisations=_member(members, "organization_validations", _list_of(_organisation_validation), ()),
    )


def read_organisations(body: bytes) -> tuple[Organisation, ...]:
    return _needed(_object(body), "organizations", _list_of(_organisation))


def read_organisation_number(body: bytes) -> str:
    return _needed(_object(body), "id", _number)


def read_organisation_validations(body: bytes) -> tuple[OrganisationValidation, ...]:
    # What `_member` answers has the type of the reader it is given.
    return _member(_object(body), "validations", _list_of(_organisation_validation), ())  # type: ignore[no-any-return]


def read_products(body: bytes) -> Mapping[str, str]:
    products = _needed(_object(body), "products", _list_of(_mapping))
    return {_needed(one, "name_id", _text): _member(one, "name", _text, "") for one in products}


def read_revocation(body: bytes) -> Request | None:
    """None when it is done; a request when somebody has to approve it first."""
    return None if not body.strip() else _request(_object(body))


# --- the parts -------------------------------------------------------------------------------------------------------


def _fault(value: Any) -> Fault:
    members = _mapping(value)
    return Fault(_member(members, "code", _loose, ""), _member(members, "message", _loose, ""))


def _request(value: Any) -> Request:
    members = _mapping(value)
    certificate = _member(members, "certificate", _mapping, {})
    return Request(
        type=_member(members, "type", _text, ""),
        status=_needed(members, "status", _text),
        comment=_member(members, "processor_comment", _loose, "") or _member(members, "comments", _loose, ""),
        certificate=_member(certificate, "id", _number, None),
    )


def _listed(value: Any) -> Listed:
    members = _mapping(value)
    return Listed(
        _needed(members, "order_id", _number), _member(members, "certificate_id", _number, None),
        _needed(members, "status", _one_of(OrderStatus)),
    )  # fmt: skip


def _reissue(value: Any) -> Reissue:
    members = _mapping(value)
    return Reissue(
        certificate=_needed(members, "id", _number),
        status=_needed(members, "status", _one_of(OrderStatus)),
        csr=_member(members, "csr", _csr, ""),
        serial=_member(members, "serial_number", _text, "").lower().lstrip("0"),
        note=_member(members, "note", _text, ""),
    )


def _name_validation(value: Any) -> NameValidation:
    members = _mapping(value)
    names = _member(members, "dns_names", _list_of(_text), ())
    one = _member(members, "dns_name", _text, "") or _member(members, "name_scope", _text, "")
    found = tuple(name.lower() for name in (*names, one) if name)
    return NameValidation(found, _needed(members, "status", _text))


def _organisation_validation(value: Any) -> OrganisationValidation:
    members = _mapping(value)
    details = _member(members, "verification_details", _mapping, {})
    open_parts = [
        str(part)[:60].replace("_", " ") for part, state in details.items() if str(state) in ("pending", "rejected")
    ]
    return OrganisationValidation(
        _needed(members, "type", _text), _member(members, "status", _text, "pending"), tuple(open_parts[:20])
    )


def _organisation(value: Any) -> Organisation:
    members = _mapping(value)
    return Organisation(
        number=_needed(members, "id", _number),
        name=_needed(members, "name", _text),
        status=_member(members, "status", _text, "active"),
        active=_member(members, "is_active", _boolean, True),
        city=_member(members, "city", _text, ""),
        zip=_member(members, "zip", _text, ""),
        country=_member(members, "country", _text, ""),
    )


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


def _loose(value: Any) -> str:
    """Words for people: whatever it is, as one line of bounded length."""
    return " ".join(str(value).split())[:_MAX_TEXT] if isinstance(value, (str, int)) else ""


def _csr(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_CSR:
        raise Malformed("not a signing request")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise Malformed("not true or false")


def _number(value: Any) -> str:
    """The CA writes its numbers as JSON numbers or as text. They become part of addresses: digits only."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    good = isinstance(text, str) and 0 < len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit()
    if not good or not int(text):
        raise Malformed("not a number")
    return text


def _list_of(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    def read_list(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Malformed("not a list")
        if len(value) > MOST_ENTRIES:
            raise Malformed(f"more than {MOST_ENTRIES} entries")
        return tuple(read(entry) for entry in value)

    return read_list


def _one_of(kind: type[E]) -> Callable[[Any], E]:
    def read_word(value: Any) -> E:
        try:
            return kind(value)
        except ValueError:
            raise Malformed(f"not one of {', '.join(kind)}") from None

    return read_word


def _moment(value: Any) -> datetime:
    """ISO 8601 with a zone, or a day in UTC."""
    text = value if isinstance(value, str) and len(value) <= 40 else ""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed("not a date and time") from None
