"""The vocabulary of certificates: states, operations, applications, and the facts rules decide on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """What the API calls the state of a certificate. `expired` is computed, never stored."""

    PENDING_APPLICATION = "pending_application"
    PENDING_DOMAIN_VALIDATION = "pending_domain_validation"
    PENDING_ORGANIZATION_VALIDATION = "pending_organization_validation"
    TO_BE_ISSUED = "to_be_issued"
    ISSUED = "issued"
    APPROVAL_FAILED = "approval_failed"
    VERIFYING_DOMAIN_ADDITION = "verifying_domain_addition"
    VERIFYING_REISSUE = "verifying_reissue"
    VERIFYING_WITHDRAWAL = "verifying_withdrawal"
    VERIFYING_REVOCATION = "verifying_revocation"
    REVOCATION_PENDING_DOMAIN_VALIDATION = "revocation_pending_domain_validation"
    REVOKED = "revoked"
    HOSTED = "hosted"
    EXPIRED = "expired"
    REFUND_REVIEW = "refund_review"


PROGRESS: Mapping[State, int] = {
    State.PENDING_APPLICATION: 0,
    State.PENDING_DOMAIN_VALIDATION: 40,
    State.PENDING_ORGANIZATION_VALIDATION: 70,
    State.TO_BE_ISSUED: 90,
    State.ISSUED: 100,
}
"""Percent done of a first application; other states have no percentage."""


class Operation(StrEnum):
    APPLY = "apply"
    SAVE_DRAFT = "save_draft"
    VERIFY_DOMAINS = "verify_domains"
    WITHDRAW = "withdraw"
    REISSUE = "reissue"
    ADD_DOMAINS = "add_domains"
    RENEW = "renew"
    APPLY_AGAIN = "apply_again"
    REVOKE = "revoke"
    REVOKE_EARLIER = "revoke_earlier"
    DOWNLOAD = "download"
    EXPORT_KEY = "export_key"
    REPLACE = "replace"
    DEPLOY = "deploy"
    SET_AUTO_RENEW = "set_auto_renew"
    UPDATE = "update"
    WITHDRAW_PRIVACY = "withdraw_privacy"
    DELETE = "delete"


class DomainType(StrEnum):
    SINGLE = "single"
    MULTI = "multi"
    WILDCARD = "wildcard"


class CertificateType(StrEnum):
    """How much of the holder is verified: the domains alone, or the organisation, too (BR 7.1.2.7)."""

    DV_BASIC = "dv_basic"
    DV = "dv"
    OV = "ov"
    OV_PRO = "ov_pro"
    EV = "ev"
    EV_PRO = "ev_pro"

    @property
    def names_organisation(self) -> bool:
        return self not in (CertificateType.DV_BASIC, CertificateType.DV)


class Purpose(StrEnum):
    """What a certificate is for; `client_ca`: its owner's servers check their clients by it."""

    SERVER = "server"
    CLIENT_CA = "client_ca"


class KeySource(StrEnum):
    SYSTEM = "system"
    UPLOADED_CSR = "uploaded_csr"


class RevocationReason(StrEnum):
    """What a subscriber may pick (BR 7.2.2); the CA names the subset it takes."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key_compromise"
    AFFILIATION_CHANGED = "affiliation_changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation_of_operation"


class RevokedBy(StrEnum):
    """What the CA believed a revocation by (RFC 8555 section 7.6)."""

    ACCOUNT = "account"
    """Our account there, which ordered it."""
    KEY = "key"
    """A signature with the certificate's own key."""
    CONTROL = "control"
    """Control of all its names, shown anew."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """All that `allowed_operations` looks at, gathered once.

    `client_ca`: uploaded to check clients by; servers can't serve it. `revocation_asked`: of the current version.
    `revoking`: the CA has yet to hear of a revocation asked for. `earlier`: numbers of the versions before the current
    one that could still be used by whoever has their key.
    """

    state: State
    has_version: bool
    has_key: bool
    uploaded: bool = False
    client_ca: bool = False
    bound_to: tuple[str, ...] = ()
    revocation_asked: bool = False
    revoking: bool = False
    earlier: tuple[int, ...] = ()
    domain_type: DomainType | None = None
    name_count: int = 0
    purchase: Purchase | None = None
    holds_personal_data: bool = False


@dataclass(frozen=True, slots=True)
class Purchase:
    """What was bought and how far it reaches today; None on certificates that were not ordered.

    `names_left`: how many names the quota still takes. `reissue_open`: inside the CA's reissue window (None in the
    product: while it is valid). `coverage_left`: the paid time is not over. `renewal_open`: 30 calendar days or less
    before it ends. `revocation_closed`: the last 30 days of a one-year certificate.
    """

    paid: bool
    names_left: int
    reissue_open: bool
    coverage_left: bool
    renewal_open: bool
    revocation_closed: bool


@dataclass(frozen=True, slots=True)
class Applicant:
    """Whom to ask about an application; never part of the certificate."""

    name: str
    email: str
    phone: str

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "email": self.email, "phone": self.phone}


@dataclass(frozen=True, slots=True)
class Application:
    """What an applicant asks for, as typed. `names` may be empty when a CSR carries them.

    `csr` is a CSR pasted, `csr_id` one that is kept here; `pin_key` keeps that one's key for the versions to come.
    """

    names: tuple[str, ...] = ()
    domain_type: str | None = None
    validation_method: str = "dns"
    per_name_methods: Mapping[str, str] = field(default_factory=dict)
    key_algorithm: str = "EC_P256"
    csr: str | None = None
    csr_id: str | None = None
    pin_key: bool = False
    applicant: Applicant | None = None
    technical_contact: Applicant | None = None
    root_hash: str = "default"
    consent: bool = False
    consent_version: str = ""
    # None: as it was bought, else DV.
    certificate_type: str | None = None
    organisation_id: str | None = None

    def as_draft(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "domain_type": self.domain_type,
            "validation_method": self.validation_method,
            "per_name_methods": dict(self.per_name_methods),
            "key_algorithm": self.key_algorithm,
            "csr": self.csr,
            "csr_id": self.csr_id,
            "pin_key": self.pin_key,
            "applicant": self.applicant.as_dict() if self.applicant else None,
            "technical_contact": self.technical_contact.as_dict() if self.technical_contact else None,
            "root_hash": self.root_hash,
            "certificate_type": self.certificate_type,
            "organisation_id": self.organisation_id,
        }


@dataclass(frozen=True, slots=True)
class Changes:
    """What a reissue is to change; None leaves it as it was. `names` are all of them, not only new ones."""

    names: tuple[str, ...] | None = None
    csr: str | None = None
    key_algorithm: str | None = None
    validation_method: str | None = None
    per_name_methods: Mapping[str, str] | None = None
    applicant: Applicant | None = None
    technical_contact: Applicant | None = None
    organisation_id: str | None = None


UNCHANGED = Changes()

VOUCHED = "vouched"
"""Validation method of private certificates issued on the word of somebody who may use the CA."""


@dataclass(frozen=True, slots=True)
class JudgedApplication:
    """An application that passed every rule: names as A-labels, primary first."""

    names: tuple[str, ...]
    unicode_names: tuple[str, ...]
    domain_type: DomainType
    validation_method: str
    per_name_methods: Mapping[str, str]
    key_algorithm: str
    csr_der: bytes | None
    applicant: Applicant | None
    consent_version: str
    certificate_type: CertificateType = CertificateType.DV
    organisation_id: str | None = None
    technical_contact: Applicant | None = None
    root_hash: str = "default"
    # The key of `csr_der` is held here: of a CSR that is kept, or the one a version before was pinned to.
    key_held: bool = False

    @property
    def key_source(self) -> KeySource:
        return KeySource.SYSTEM if self.csr_der is None or self.key_held else KeySource.UPLOADED_CSR


@dataclass(frozen=True, slots=True)
class VersionMaterial:
    """One issued version as other rooms use it: leaf and chain, and where its private key is (None: not held here)."""

    version_id: str
    certificate_id: str
    account_id: str
    project_id: str
    name: str
    number: int
    leaf_der: bytes
    chain_ders: tuple[bytes, ...]
    names: tuple[str, ...]
    key_id: str | None
    sha256: str
    not_before: datetime
    not_after: datetime
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What the event `certificate.version_issued` told, of a version that is still the certificate's current one."""

    version_id: str
    certificate_id: str
    account_id: str
    project_id: str
    sha256: str
    not_before: datetime
    not_after: datetime
