"""Pure decisions about orders at such a CA: which product, how names are shown, what an order's state means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from certwright.connectors.ca.certcentral.objects import (
    FRUITLESS,
    Listed,
    Organisation,
    Validation,
)
from certwright.kernel.problems import Invalid, Refused
from certwright.rooms import cas
from certwright.rooms.certificates import Applicant, CertificateOrder, RevocationReason, Wanted
from certwright.rooms.validation import Method
from certwright.x509.csr import to_pem

# dev.digicert.com, "Revoke certificate".
REASONS: Final = {
    RevocationReason.UNSPECIFIED: "unspecified",
    RevocationReason.KEY_COMPROMISE: "keyCompromise",
    RevocationReason.AFFILIATION_CHANGED: "affiliationChanged",
    RevocationReason.SUPERSEDED: "superseded",
    RevocationReason.CESSATION_OF_OPERATION: "cessationOfOperation",
}
FILE_NAME: Final = "fileauth.txt"
"""Below /.well-known/pki-validation/ of each exact name."""
CNAME_LABEL: Final = "_dnsauth"
SETTLING: Final = timedelta(minutes=2)
"""So long after an answer was lost the CA may still be at work on the order."""
_OPERATIONAL = ("approved", "active", "complete", "completed", "valid")
_REFUSED = ("rejected", "refused", "denied")

# What the CA itself does in between goes on for days; ours only shortens the wait.
_LOOKS = tuple(timedelta(minutes=m) for m in (1, 5, 15, 60, 360))
_POLLS = ((timedelta(minutes=1), 5), (timedelta(minutes=10), 30), (timedelta(hours=2), 120), (timedelta(days=1), 600))
_LONGEST_POLL = timedelta(minutes=30)


# --- what is ordered -------------------------------------------------------------------------------------------------


def domain_type(names: Sequence[str]) -> str:
    if len(names) > 1:
        return "multi"
    return "wildcard" if names[0].startswith("*.") else "single"


def validation_of(certificate_type: str) -> str:
    """dv, ov or ev."""
    return certificate_type.partition("_")[0]


def product_for(order: CertificateOrder, settings: cas.ShopSettings) -> str:
    """The CA's name of what is to be ordered. Raises Refused `ca_not_sold`."""
    place = f"{order.certificate_type}/{domain_type(order.names)}"
    product = settings.products.get(place)
    if product is None:
        raise Refused(
            "ca_not_sold", f"No product of this CA is set for {place}.",
            fix=f"Edit this CA: --product {place}=NAME, with the CA's own name of the product.", extra={"place": place},
        )  # fmt: skip
    return product


def dcv_method(order: CertificateOrder, settings: cas.ShopSettings) -> str:
    """The CA's word for how the names are shown: one way for a whole order."""
    words = sorted(set(order.methods.values())) or ["dns"]
    if len(words) > 1:
        raise Invalid(
            "ca_methods_mixed", f"This CA has one way for all names of an order, and here are {' and '.join(words)}.",
            field="per_name_methods", fix="Choose dns for all of them.",
        )  # fmt: skip
    match words[0]:
        case "dns":
            return "dns-cname-token" if settings.dns_record == "CNAME" else "dns-txt-token"
        case "file":
            return "http-token"
        case "email":
            return "email"
        case other:
            raise Invalid("ca_method_unknown", f"This CA doesn't validate by {other[:40]!r}.",
                          field="validation_method", fix="Choose dns, file or email.")  # fmt: skip


def order_body(
    order: CertificateOrder, mine: cas.Purchase, settings: cas.ShopSettings, organisation: str | None
) -> dict[str, Any]:
    """`alternative_order_id` is our reference: the one thing by which an order whose answer was lost is found."""
    body: dict[str, Any] = {
        "certificate": _certificate(order),
        "order_validity": {"years": mine.years},
        "dcv_method": mine.method,
        "payment_method": settings.payment_method,
        "skip_approval": settings.skip_approval,
        "alternative_order_id": mine.reference,
        "comments": f"certwright {mine.reference}",
    }
    if organisation is not None:
        body["organization"] = {"id": int(organisation)}
    return body


def reissue_body(order: CertificateOrder, mine: cas.Purchase, settings: cas.ShopSettings) -> dict[str, Any]:
    return {
        "certificate": _certificate(order),
        "dcv_method": mine.method,
        "skip_approval": settings.skip_approval,
        "comments": f"certwright {mine.reference}",
    }


def _certificate(order: CertificateOrder) -> dict[str, Any]:
    return {
        "common_name": order.names[0],
        "dns_names": list(order.names),
        "csr": to_pem(order.csr_der).decode(),
        "signature_hash": "sha256",
    }


def organisation_body(facts: Mapping[str, Any], contact: Applicant) -> dict[str, Any]:
    first, _, last = contact.name.strip().rpartition(" ")
    return {
        "name": facts["legal_name"], "address": facts["street"], "city": facts["city"], "state": facts["province"],
        "zip": facts["postal_code"], "country": str(facts["country"]).lower(), "telephone": facts["phone"],
        "organization_contact": {
            "first_name": first or last, "last_name": last, "email": contact.email, "telephone": contact.phone,
        },
    }  # fmt: skip


def validation_body(validation: str, contact: Applicant) -> dict[str, Any]:
    """EV needs a person who answers for the order."""
    if validation != "ev":
        return {"type": validation}
    first, _, last = contact.name.strip().rpartition(" ")
    person = {"first_name": first or last, "last_name": last, "job_title": "Applicant", "telephone": contact.phone,
              "email": contact.email}  # fmt: skip
    return {"type": validation, "verified_users": [person]}


def same_organisation(facts: Mapping[str, Any], found: Sequence[Organisation]) -> Organisation | None:
    """The one of these facts: same name (whatever its capitals), country, city and postal code."""

    def plain(text: str) -> str:
        return " ".join(text.casefold().split())

    def key(name: str, country: str, city: str, postal_code: str) -> tuple[str, ...]:
        return plain(name), plain(country), plain(city), plain(postal_code)

    wanted = key(facts["legal_name"], facts["country"], facts["city"], facts["postal_code"])
    return next((one for one in found if key(one.name, one.country, one.city, one.zip) == wanted), None)


def first_fruitful(found: Sequence[Listed]) -> tuple[Listed | None, tuple[Listed, ...]]:
    """Of the orders with our reference, oldest first: the one that counts, and those to be taken back."""
    alive = [one for one in found if one.status not in FRUITLESS]
    return (alive[0] if alive else None), tuple(alive[1:])


# --- what is shown ---------------------------------------------------------------------------------------------------


def open_names(names: Sequence[str], validation: Validation) -> tuple[str, ...]:
    """The names of an order the CA has yet to see; one it says nothing about is one of them."""
    done: set[str] = set()
    waiting: set[str] = set()
    for one in validation.names:
        (done if one.status in _OPERATIONAL else waiting).update(one.names)
    return tuple(name for name in names if name in waiting or name not in done)


def wanted(
    names: Sequence[str], method: str, value: str, until: datetime, settings: cas.ShopSettings
) -> tuple[Wanted, ...]:
    """What to publish for these names; nothing for e-mail, which the CA writes itself."""

    def one(name: str) -> Wanted:
        base = name.removeprefix("*.")
        if method == "http-token":
            return Wanted(name, Method.FILE, FILE_NAME, value, until)
        if method == "dns-cname-token":
            return Wanted(name, Method.DNS, f"{CNAME_LABEL}.{base}", f"{value}.{settings.cname_target}", until, "CNAME")
        return Wanted(name, Method.DNS, base, value, until)

    return () if method == "email" else tuple(one(name) for name in names)


def organisation_open(validation: Validation, level: str) -> tuple[str, ...] | None:
    """The parts of the organisation's verification that are missing; None when nothing of it is."""
    mine = [one for one in validation.organisations if one.type == level]
    waiting = [one for one in mine if one.status not in _OPERATIONAL]
    return tuple(part for one in waiting for part in one.open) if waiting else None


def organisation_refused(validation: Validation, level: str) -> bool:
    return any(one.type == level and one.status in _REFUSED for one in validation.organisations)


# --- when to ask again -----------------------------------------------------------------------------------------------


def tell_to_look(mine: cas.Purchase, now: datetime) -> bool:
    """Whether the CA is to be told (again) to look at what is published."""
    if mine.looked_at is None:
        return True
    return now - mine.looked_at >= _LOOKS[min(mine.looks, len(_LOOKS)) - 1]


def poll_after(mine: cas.Purchase, now: datetime) -> timedelta:
    """Often while it is fresh, seldom later: organisations take days."""
    age = now - (mine.go_at or mine.created_at)
    return next((timedelta(seconds=pause) for limit, pause in _POLLS if age < limit), _LONGEST_POLL)
