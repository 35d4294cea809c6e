"""What a CertCentral-style API answers, as frozen values. Nothing here trusts the CA: whatever is missing, of another
type, too long or in a state we don't know raises `Malformed`, and nothing else is ever raised.

Shapes: dev.digicert.com, Services API v2. Numbers of orders, certificates and organisations are kept as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from certwright.kernel.shapes import LONGEST_TEXT, Malformed, document, line, list_of, mapping, member, needed, one_of

_MAX_CSR = 32_000
_MOST_DIGITS = 18


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
        # What `member` answers has the type of the reader it is given.
        return member(document(body), "errors", list_of(_fault), ())  # type: ignore[no-any-return]  # a generic's default
    except Malformed:
        return ()


def read_placed(body: bytes) -> Placed:
    members = document(body)
    return Placed(needed(members, "id", _number), member(members, "certificate_id", _number, None))


def read_order(body: bytes) -> OrderInfo:
    members = document(body)
    certificate = needed(members, "certificate", mapping)
    return OrderInfo(
        number=needed(members, "id", _number),
        status=needed(members, "status", one_of(OrderStatus)),
        certificate=member(certificate, "id", _number, None),
        certificate_status=member(certificate, "status", line, ""),
        serial=member(certificate, "serial_number", line, "").lower().lstrip("0"),
        valid_till=member(members, "order_valid_till", _moment, None),
        note=member(members, "note", line, ""),
        requests=member(members, "requests", list_of(_request), ()),
    )


def read_listed(body: bytes) -> tuple[Listed, ...]:
    return needed(document(body), "orders", list_of(_listed))


def read_reissues(body: bytes) -> tuple[Reissue, ...]:
    return needed(document(body), "certificates", list_of(_reissue))


def read_token(body: bytes) -> Token:
    members = document(body)
    value = needed(members, "dcv_random_value", line)
    if not 8 <= len(value) <= 255 or not value.isascii() or any(sign.isspace() for sign in value):
        raise Malformed("dcv_random_value: not a value that could be published")
    return Token(value, needed(members, "expiration_date", _moment))


def read_validation(body: bytes) -> Validation:
    members = document(body)
    return Validation(
        names=member(members, "dns_name_validations", list_of(_name_validation), ()),
        organisation_name=member(members, "organization_name", line, ""),
        organisations=member(members, "organization_validations", list_of(_organisation_validation), ()),
    )


def read_organisations(body: bytes) -> tuple[Organisation, ...]:
    return needed(document(body), "organizations", list_of(_organisation))


def read_organisation_number(body: bytes) -> str:
    return needed(document(body), "id", _number)


def read_organisation_validations(body: bytes) -> tuple[OrganisationValidation, ...]:
    # What `member` answers has the type of the reader it is given.
    return member(document(body), "validations", list_of(_organisation_validation), ())  # type: ignore[no-any-return]  # a generic's default


def read_products(body: bytes) -> Mapping[str, str]:
    products = needed(document(body), "products", list_of(mapping))
    return {needed(one, "name_id", line): member(one, "name", line, "") for one in products}


def read_revocation(body: bytes) -> Request | None:
    """None when it is done; a request when somebody has to approve it first."""
    return None if not body.strip() else _request(document(body))


# --- the parts -------------------------------------------------------------------------------------------------------


def _fault(value: Any) -> Fault:
    members = mapping(value)
    return Fault(member(members, "code", _loose, ""), member(members, "message", _loose, ""))


def _request(value: Any) -> Request:
    members = mapping(value)
    certificate = member(members, "certificate", mapping, {})
    return Request(
        type=member(members, "type", line, ""),
        status=needed(members, "status", line),
        comment=member(members, "processor_comment", _loose, "") or member(members, "comments", _loose, ""),
        certificate=member(certificate, "id", _number, None),
    )


def _listed(value: Any) -> Listed:
    members = mapping(value)
    return Listed(
        needed(members, "order_id", _number), member(members, "certificate_id", _number, None),
        needed(members, "status", one_of(OrderStatus)),
    )  # fmt: skip


def _reissue(value: Any) -> Reissue:
    members = mapping(value)
    return Reissue(
        certificate=needed(members, "id", _number),
        status=needed(members, "status", one_of(OrderStatus)),
        csr=member(members, "csr", _csr, ""),
        serial=member(members, "serial_number", line, "").lower().lstrip("0"),
        note=member(members, "note", line, ""),
    )


def _name_validation(value: Any) -> NameValidation:
    members = mapping(value)
    names = member(members, "dns_names", list_of(line), ())
    one = member(members, "dns_name", line, "") or member(members, "name_scope", line, "")
    found = tuple(name.lower() for name in (*names, one) if name)
    return NameValidation(found, needed(members, "status", line))


def _organisation_validation(value: Any) -> OrganisationValidation:
    members = mapping(value)
    details = member(members, "verification_details", mapping, {})
    open_parts = [
        str(part)[:60].replace("_", " ") for part, state in details.items() if str(state) in ("pending", "rejected")
    ]
    return OrganisationValidation(
        needed(members, "type", line), member(members, "status", line, "pending"), tuple(open_parts[:20])
    )


def _organisation(value: Any) -> Organisation:
    members = mapping(value)
    return Organisation(
        number=needed(members, "id", _number),
        name=needed(members, "name", line),
        status=member(members, "status", line, "active"),
        active=member(members, "is_active", _boolean, True),
        city=member(members, "city", line, ""),
        zip=member(members, "zip", line, ""),
        country=member(members, "country", line, ""),
    )


# --- the shapes ------------------------------------------------------------------------------------------------------


def _loose(value: Any) -> str:
    """Words for people: whatever it is, as one line of bounded length."""
    return " ".join(str(value).split())[:LONGEST_TEXT] if isinstance(value, (str, int)) else ""


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


def _moment(value: Any) -> datetime:
    """ISO 8601 with a zone, or a day in UTC."""
    text = value if isinstance(value, str) and len(value) <= 40 else ""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed("not a date and time") from None
