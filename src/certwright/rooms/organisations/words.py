"""The values of the organisations room: who applies, what is checked, how a case stands, and whose turn it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

VERIFIED = "organisation.verified"
"""Event: a case ended well; payload `subject_id`, `case_id`, `organisation_id`. Its object is the subject."""
REFUSED = "organisation.refused"
"""Event: a case was refused, by a person or because the applicant was silent; payload `subject_id`, `case_id`,
`reasons`. Its object is the subject."""


class Level(StrEnum):
    """How deeply an organisation is looked at."""

    OV = "ov"
    EV = "ev"


class CertificateType(StrEnum):
    """The types whose subject names an organisation. Pro types differ in the certificate, not in what is checked."""

    OV = "ov"
    OV_PRO = "ov_pro"
    EV = "ev"
    EV_PRO = "ev_pro"

    @property
    def level(self) -> Level:
        return Level.EV if self in (CertificateType.EV, CertificateType.EV_PRO) else Level.OV


class Kind(StrEnum):
    """What sort of organisation it is; decides what it must name and whether anybody can verify it."""

    COMPANY = "company"
    SOLE_TRADER = "sole_trader"
    NON_PROFIT = "non_profit"
    PUBLIC_BODY = "public_body"
    UNLISTED = "unlisted"
    """In no public register: military, security services and the like."""


class Way(StrEnum):
    """How the applicant wants to be verified."""

    PHONE = "phone"
    """A specialist calls the number of the public directory."""
    DOCUMENTS = "documents"
    """The applicant sends papers."""
    OFFICIAL_MAIL = "official_mail"
    """A letter goes to the registered address."""


class Item(StrEnum):
    """What a specialist checks."""

    EXISTENCE = "existence"
    ADDRESS = "address"
    PHONE = "phone"
    APPLICANT_AUTHORITY = "applicant_authority"
    OPERATIONAL_EXISTENCE = "operational_existence"
    REQUESTER_AUTHORITY = "requester_authority"
    APPROVER_AUTHORITY = "approver_authority"


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"


class State(StrEnum):
    """Computed from stored facts, never stored itself (see `rules.state_of`)."""

    AWAITING_CHOICE = "awaiting_choice"
    AWAITING_DOCUMENTS = "awaiting_documents"
    QUEUED = "queued"
    IN_REVIEW = "in_review"
    AWAITING_SECOND = "awaiting_second"
    VERIFIED = "verified"
    REFUSED = "refused"
    CANCELLED = "cancelled"


ENDED = frozenset((State.VERIFIED, State.REFUSED, State.CANCELLED))


class Turn(StrEnum):
    APPLICANT = "applicant"
    DESK = "desk"
    NOBODY = "nobody"


class Operation(StrEnum):
    """What can happen to a case. The first two are the applicant's, the last two the product's."""

    CHOOSE = "choose"
    SEND = "send"
    CLAIM = "claim"
    RELEASE = "release"
    CHECK = "check"
    ATTACH = "attach"
    ASK = "ask"
    APPROVE = "approve"
    RETURN = "return"
    REFUSE = "refuse"
    CANCEL = "cancel"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is verified about an organisation. Countries are ISO 3166-1 alpha-2; `phone` is +digits (E.164)."""

    kind: Kind
    legal_name: str
    registration_number: str
    jurisdiction_country: str
    jurisdiction_region: str
    street: str
    city: str
    province: str
    postal_code: str
    country: str
    phone: str
    phone_source: str
    """The public directory the number was found in."""


@dataclass(frozen=True, slots=True)
class Contact:
    name: str
    email: str
    phone: str
    role: str


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asked for the certificate. `user_id` is the signed-in person, who may then not judge the case."""

    name: str
    email: str
    phone: str
    user_id: str | None = None
    locale: str = "en"


@dataclass(frozen=True, slots=True)
class Verification:
    """A verification of the organisation as it is now. `usable_until` is by the rule in force today."""

    case_id: str
    ca: str
    level: Level
    evidence_at: datetime
    usable_until: datetime


@dataclass(frozen=True, slots=True)
class Organisation:
    id: str
    project_id: str
    facts: Facts
    contacts: tuple[Contact, ...]
    verifications: tuple[Verification, ...]
    open_cases: int
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class CaseState:
    """What the certificates room is told. `facts` are what was (or is being) verified: the subject is made of them.

    `usable`: verified, and not too old for a certificate issued now. `evidence_at` is when the oldest fact was looked
    up; `usable_until` is by the rule in force now.
    """

    case_id: str
    subject_id: str
    state: State
    turn: Turn
    usable: bool
    facts: Facts | None
    verified_at: datetime | None
    evidence_at: datetime | None
    usable_until: datetime | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """All a rule looks at. `waiting_since`: when it became the applicant's turn, None when it isn't.

    `outcomes` holds the newest outcome of each item, `checkers` who recorded checks, `applicants` every person on the
    applicant's side (user ids).
    """

    level: Level
    way: Way | None = None
    asked: bool = False
    waiting_since: datetime | None = None
    claimed_by: str | None = None
    worked_at: datetime | None = None
    approved_by: str | None = None
    verified_at: datetime | None = None
    refused_at: datetime | None = None
    cancelled_at: datetime | None = None
    reasons: tuple[str, ...] = ()
    outcomes: Mapping[Item, Outcome] = field(default_factory=dict)
    checkers: frozenset[str] = frozenset()
    applicants: frozenset[str] = frozenset()
    documents: int = 0
    may_be_alone: bool = False
    """Whether the operator lets applicants verify this case themselves."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of what the applicant sees. `state`: done, open, later or failed."""

    item: str
    state: str
    turn: Turn
    sentence: str


@dataclass(frozen=True, slots=True)
class Check:
    id: str
    item: Item
    outcome: Outcome
    source: str
    note: str
    by_name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Document:
    """Facts about a file; its content is sealed. `size` in bytes; `media_type` was recognised by the content."""

    id: str
    name: str
    media_type: str
    size: int
    sha256: str
    from_applicant: bool
    by_name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class DocumentContent:
    file_name: str
    """ASCII, made from the id: what the sender called it goes into no header."""
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Vetting:
    """A case as the applicant's account sees it: no sources, notes or names of the desk."""

    id: str
    project_id: str
    subject_id: str
    organisation_id: str | None
    legal_name: str | None
    type: CertificateType
    ca: str
    state: State
    turn: Turn
    way: Way | None
    asked: str | None
    progress: tuple[Progress, ...]
    documents: tuple[Document, ...]
    reasons: tuple[str, ...]
    refused_unless_by: datetime | None
    reused_from: str | None
    created_at: datetime
    verified_at: datetime | None


@dataclass(frozen=True, slots=True)
class Case:
    """A case as the desk sees it, with `allowed`: what the person asking may do now."""

    id: str
    account_id: str
    project_id: str
    subject_id: str
    organisation_id: str | None
    type: CertificateType
    level: Level
    ca: str
    state: State
    turn: Turn
    facts: Facts | None
    applicant: Applicant | None
    way: Way | None
    asked: str | None
    required: tuple[Item, ...]
    missing: tuple[Item, ...]
    checks: tuple[Check, ...]
    documents: tuple[Document, ...]
    claimed_by: str | None
    claimed_by_name: str | None
    claimed_at: datetime | None
    approved_by_name: str | None
    approved_at: datetime | None
    seconded_by_name: str | None
    returned: str | None
    reasons: tuple[str, ...]
    refused_unless_by: datetime | None
    reused_from: str | None
    forgotten_at: datetime | None
    created_at: datetime
    verified_at: datetime | None
    evidence_at: datetime | None
    refused_at: datetime | None
    cancelled_at: datetime | None
    alone: bool
    """An applicant approved it, as the operator allowed (`lone_desk`)."""
    due_at: datetime | None
    """While it is the desk's turn: when the working days its product promises are over."""
    revision: int
    allowed: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """What the page behind a mailed link shows before anything is chosen."""

    case_id: str
    legal_name: str
    type: CertificateType
    applicant_name: str
    expires_at: datetime
