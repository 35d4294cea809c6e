"""Values of the audit log: an event as it was written, and what a verification found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from certwright.kernel.actor import Actor


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be recorded; see `actions.record`."""

    actor: Actor
    action: str
    object_type: str
    object_id: str
    project_id: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that was done. `before` and `after` hold the changed fields, never secrets."""

    id: str
    at: datetime
    account_id: str
    project_id: str | None
    actor_kind: str
    actor_id: str
    actor_name: str
    user_id: str | None
    request_id: str | None
    action: str
    object_type: str
    object_id: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    reason: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Narrows a listing; every field given must match. `action` may end in `*`; `since` is inclusive, `until` not."""

    action: str | None = None
    actor_id: str | None = None
    object_type: str | None = None
    object_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Finding(StrEnum):
    """What is wrong with the first bad row."""

    EVENT_CHANGED = "event_changed"
    EVENT_REMOVED = "event_removed"
    CHAIN_GAP = "chain_gap"
    CHAIN_CUT = "chain_cut"
    EVENT_NEVER_SEALED = "event_never_sealed"
    SEALING_STOPPED = "sealing_stopped"


EXPLANATIONS: dict[Finding, str] = {
    Finding.EVENT_CHANGED: "The event or its place in the chain was changed after it was sealed.",
    Finding.EVENT_REMOVED: "The chain holds an event that is no longer in the log.",
    Finding.CHAIN_GAP: "A link of the chain is missing.",
    Finding.CHAIN_CUT: "The chain ends before, or differs at, the position that was noted earlier.",
    Finding.EVENT_NEVER_SEALED: "An event is neither in the chain nor waiting for it.",
    Finding.SEALING_STOPPED: "Events have waited too long to be sealed: no worker seals them.",
}


@dataclass(frozen=True, slots=True)
class Head:
    """The newest link: note it outside the database and a chain cut at its end is found too. `hash` is hex."""

    position: int
    hash: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`sealed` links were checked, `unsealed` events wait; the rest says where the first bad row is."""

    ok: bool
    sealed: int
    unsealed: int
    head: Head | None
    finding: Finding | None = None
    first_bad_position: int | None = None
    first_bad_event: str | None = None

    @property
    def explanation(self) -> str:
        return EXPLANATIONS[self.finding] if self.finding else "Every event is as it was written."
