"""The values of the cas room: an account with a CA, its orders there, and what counts against its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from certwright.x509.keys import PrivateKey


class CaKind(StrEnum):
    """How a CA is spoken to."""

    ACME = "acme"
    CERTCENTRAL = "certcentral"
    """Sells certificates over an ordering interface like DigiCert's Services API v2."""


class Use(StrEnum):
    """What counts against a limit of the CA; `subject` of each is said beside it."""

    ORDER = "orders"
    """One per order; no subject."""
    CERTIFICATE = "certificates_per_domain"
    """One per registered domain of a certificate asked for."""
    DUPLICATE = "duplicates"
    """One per certificate asked for; the subject is a digest of its set of names."""
    FAILURE = "failed_validations"
    """One per name the CA couldn't validate."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` in any `period`."""

    count: int
    period: timedelta

    def as_dict(self) -> dict[str, int]:
        return {"count": self.count, "seconds": int(self.period.total_seconds())}


Limits = Mapping[Use, Limit]


@dataclass(frozen=True, slots=True)
class Offers:
    """What the CA's directory said when it was last read."""

    terms_of_service: str | None = None
    website: str | None = None
    caa_identities: tuple[str, ...] = ()
    external_account_required: bool = False
    profiles: Mapping[str, str] = field(default_factory=dict)
    renewal_info: bool = False
    key_change: bool = False


@dataclass(frozen=True, slots=True)
class Ca:
    """An account with a CA as people see it: no key, no secret. `problem` is what the last test said, if it failed."""

    id: str
    project_id: str
    name: str
    kind: str
    directory_url: str
    public: bool
    contacts: tuple[str, ...]
    terms_agreed_at: datetime | None
    profile: str | None
    preferred_chain: str | None
    root_pem: str | None
    account_url: str | None
    eab_kid: str | None
    limits: Limits
    offers: Offers | None
    key_algorithm: str | None
    key_change_pending: bool
    settings: Mapping[str, Any] | None
    revision: int
    created_at: datetime
    updated_at: datetime
    checked_at: datetime | None
    problem: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that is needed to act with the account at the CA; never leaves the process, never shown."""

    id: str
    account_id: str
    directory_url: str
    root_pem: str | None
    contacts: tuple[str, ...]
    terms_agreed: bool
    key: PrivateKey
    account_url: str | None
    eab_kid: str | None
    eab_key: bytes | None


@dataclass(frozen=True, slots=True)
class ShopSettings:
    """How certificates are ordered from a CA that sells them.

    `products` maps `type/domain type` (`ov/single`) to the CA's own name of a product. `years` is the coverage asked
    for where nothing was bought here. `dns_record` is TXT or CNAME, `cname_target` what a CNAME ends with.
    `caa_identifiers` are the CA's names in CAA records.
    """

    products: Mapping[str, str]
    years: int
    payment_method: str
    skip_approval: bool
    dns_record: str
    cname_target: str
    caa_identifiers: Sequence[str]


@dataclass(frozen=True, slots=True)
class ShopCredentials:
    """All that is needed to order from a CA that sells; never leaves the process, never shown."""

    id: str
    base_url: str
    root_pem: str | None
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Purchase:
    """One order at a CA that sells, from the intention to its end.

    `placing_at`: when the CA was last about to hear of it; without `order_number` it may or may not have. A purchase
    with `reissue_of` is a reissue inside that order of the CA. `shown_until`: until when the value is good that was
    given out to be published. `looks`: how often the CA was told to look at it, last at `looked_at`, when it `said`
    what it missed. `failed_at`: it is over.
    """

    id: str
    ca_id: str
    account_id: str
    reference: str
    names: tuple[str, ...]
    method: str
    csr_der: bytes
    product: str
    validation: str
    years: int
    reissue_of: str | None
    organisation_number: str | None
    created_at: datetime
    placing_at: datetime | None
    order_number: str | None
    certificate_number: str | None
    shown_until: datetime | None
    go_at: datetime | None
    looks: int
    looked_at: datetime | None
    said: str
    leaf_sha256: str | None
    failed_at: datetime | None
    failure: tuple[str, ...]
    cancelled_at: datetime | None


@dataclass(frozen=True, slots=True)
class CaOrder:
    """One order at a CA, from the intention to its end. `placing_at`: the CA may have heard of it; `order_url`: it has.

    Without `csr_der` only the names are shown, and nothing is issued. `go_at`: everything is published, the CA may
    validate and issue; `answers` times it was told to look, last at `answered_at`. `failed_at`: it is over.
    """

    id: str
    ca_id: str
    account_id: str
    reference: str
    names: tuple[str, ...]
    methods: Mapping[str, str]
    csr_der: bytes | None
    replaces: str | None
    profile: str | None
    placing_at: datetime | None
    order_url: str | None
    created_at: datetime
    go_at: datetime | None
    answers: int
    answered_at: datetime | None
    finalize_intended_at: datetime | None
    failed_at: datetime | None
    failure: tuple[str, ...]
