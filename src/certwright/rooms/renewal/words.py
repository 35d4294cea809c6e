"""The values of the renewal room: windows and freezes, the bucket, mass replacements, readiness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Window:
    """Renewals may run from `from_time` to `to_time` by the clocks of `zone`, on these weekdays (0 is Monday).

    A window whose end isn't after its beginning goes over midnight and belongs to the day it begins on. Wall clocks
    decide: an hour that the clocks skip is not in the window, one they show twice is in it twice.
    """

    weekdays: frozenset[int]
    from_time: time
    to_time: time
    zone: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Freeze:
    """No renewals from `from_at` until before `to_at`."""

    from_at: datetime
    to_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """When a renewal may run. `forced`: in spite of a closed window or a freeze, because it can't wait longer."""

    at: datetime
    forced: bool
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class WindowView:
    id: str
    project_id: str | None
    name: str
    weekdays: tuple[int, ...]
    from_time: time
    to_time: time
    zone: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FreezeView:
    id: str
    project_id: str | None
    from_at: datetime
    to_at: datetime
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens of an account at one CA: never more than `per_minute` renewals in any minute. Ordinary ones leave
    `reserve_percent` of what the bucket holds to urgent ones."""

    per_minute: int
    reserve_percent: int
    tokens: float
    filled_at: datetime


@dataclass(frozen=True, slots=True)
class LimitView:
    ca: str
    per_minute: int
    reserve_percent: int
    waiting: int
    revision: int


@dataclass(frozen=True, slots=True)
class RenewalView:
    """When a certificate is renewed and why then. `allowed` is None once it was started or while it is switched off."""

    certificate_id: str
    project_id: str
    name: str
    ca: str
    version_id: str
    renew_at: datetime
    need_by: datetime
    not_after: datetime
    source: str
    window_start: datetime | None
    window_end: datetime | None
    explanation_url: str | None
    asked_at: datetime | None
    held_until: datetime | None
    admitted_at: datetime | None
    started_at: datetime | None
    auto_renew: bool
    problem: Mapping[str, Any] | None
    allowed: Allowed | None


@dataclass(frozen=True, slots=True)
class Expected:
    """A renewal is due at `due`; windows and freezes let it go at `goes_at`, `need_by` at the latest."""

    due: datetime
    goes_at: datetime
    need_by: datetime


# --- mass replacement ------------------------------------------------------------------------------------------------


class CampaignState(StrEnum):
    PLANNING = "planning"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FINISHED = "finished"


class ItemState(StrEnum):
    """`excluded`: we can't replace it, somebody else must. `skipped`: nothing to replace any more."""

    WAITING = "waiting"
    GOING = "going"
    REPLACED = "replaced"
    FAILED = "failed"
    SKIPPED = "skipped"
    EXCLUDED = "excluded"


class Priority(StrEnum):
    BOUND_FIRST = "bound_first"
    """What a listener serves comes first, then what ends soonest."""
    SOONEST_END = "soonest_end"


class CampaignReason(StrEnum):
    KEY_COMPROMISE = "key_compromise"
    DISTRUST = "distrust"
    CA_INCIDENT = "ca_incident"
    MISISSUANCE = "misissuance"
    ALGORITHM = "algorithm"
    DRILL = "drill"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which certificates: all that is given must hold. `names` is a pattern, `*` standing for any characters."""

    ca: str | None = None
    key_algorithm: str | None = None
    issuer: str | None = None
    issued_before: datetime | None = None
    names: str | None = None
    project_id: str | None = None

    def as_dict(self) -> dict[str, str]:
        before = self.issued_before.isoformat() if self.issued_before else None
        given = {
            "ca": self.ca, "key_algorithm": self.key_algorithm, "issuer": self.issuer, "issued_before": before,
            "names": self.names, "project_id": self.project_id,
        }  # fmt: skip
        return {word: value for word, value in given.items() if value is not None}

    @classmethod
    def of(cls, stored: Mapping[str, str]) -> Criteria:
        before = stored.get("issued_before")
        return cls(**{**stored, "issued_before": datetime.fromisoformat(before) if before else None})  # type: ignore[arg-type]  # texts but for that one


@dataclass(frozen=True, slots=True)
class Destination:
    """Another CA to get new versions from, and the methods of validation it takes."""

    ca: str
    methods: frozenset[str]


@dataclass(frozen=True, slots=True)
class Replaceable:
    """Whether a certificate can be replaced from here: now, later (`busy`) or never."""

    state: ItemState
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class PreviewLine:
    certificate_id: str
    name: str
    ca: str
    not_after: datetime
    state: ItemState
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """When the last one would be started at the rates set; `needed_per_hour` would make the deadline."""

    ends_at: datetime
    in_time: bool
    needed_per_hour: int


@dataclass(frozen=True, slots=True)
class Preview:
    """`counts` by code: `replaceable`, `busy` and each reason why not; `excluded` names the first of those."""

    replaced: int
    counts: Mapping[str, int]
    excluded: tuple[PreviewLine, ...]
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Campaign:
    """`to_ca`: the id of the CA that new versions come from, None: from that of each certificate."""

    id: str
    project_id: str
    name: str
    reason: str
    criteria: Mapping[str, str]
    deadline: datetime
    per_hour: int
    priority: str
    to_ca: str | None
    state: CampaignState
    counts: Mapping[str, int]
    created_at: datetime
    ended_at: datetime | None
    started_by: str
    estimate: Estimate | None


@dataclass(frozen=True, slots=True)
class CampaignItem:
    """`ca` is the one that its new version comes from."""

    id: str
    certificate_id: str
    name: str
    ca: str
    not_after: datetime
    bound: bool
    state: ItemState
    reason_code: str
    reason: str
    attempts: int
    retry_at: datetime | None
    application_id: str | None
    ended_at: datetime | None


# --- readiness -------------------------------------------------------------------------------------------------------


class Renewer(StrEnum):
    """Who renews a certificate."""

    US = "us"
    US_BY_ORDER = "us_by_order"
    OWNER = "owner"
    NOBODY = "nobody"


class Proof(StrEnum):
    """How control of its names is shown for the next version."""

    NOT_NEEDED = "not_needed"
    AUTOMATIC = "automatic"
    BY_HAND = "by_hand"
    ENDED = "ended"


class Survival(StrEnum):
    YES = "yes"
    WITH_WORK = "with_work"
    NO = "no"


@dataclass(frozen=True, slots=True)
class NameProof:
    name: str
    method: str
    automatic: bool


@dataclass(frozen=True, slots=True)
class ReadinessFacts:
    """`method_ended`: a method in use that public CAs may no longer take at the moment asked about. `evidence_until`:
    until when all names can be used again without new proof."""

    uploaded: bool
    has_key: bool
    auto_renew: bool
    bought: bool
    coverage_ends_at: datetime | None
    public: bool
    life: timedelta
    proofs: tuple[NameProof, ...]
    method_ended: str | None
    evidence_until: datetime | None
    renew_at: datetime


@dataclass(frozen=True, slots=True)
class RuleStep:
    """Limits of one time: lives in days and the age of a domain validation."""

    begins: datetime
    life_days: int
    reuse_days: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether it survives these limits; `times_a_year` somebody has to act."""

    life_days: int
    reuse_days: int
    survives: Survival
    times_a_year: float


@dataclass(frozen=True, slots=True)
class Readiness:
    who: Renewer
    who_reason: str
    proof: Proof
    proof_reason: str
    evidence_until: datetime | None
    evidence_reusable: bool
    outcome: Outcome
    steps: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class ReadinessLine:
    certificate_id: str
    project_id: str
    name: str
    primary_name: str
    ca: str
    not_after: datetime
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class ReadinessSummary:
    """`outcomes` at the moment asked about; `steps` per set of limits, keyed `<life>/<reuse>`."""

    at: datetime
    certificates: int
    life_days: int
    reuse_days: int
    who: Mapping[str, int]
    proof: Mapping[str, int]
    outcomes: Mapping[str, int]
    steps: Mapping[str, Mapping[str, int]]
