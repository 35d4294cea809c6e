"""The audit log: what was done, by whom, in an order that can't be changed unseen."""

from __future__ import annotations

from datetime import timedelta

from certwright.platform.services import Services
from certwright.rooms.audit.actions import record, record_many, seal, seal_chore, values, values_of_many, verify
from certwright.rooms.audit.store import get_event, list_events, recorded, recorded_many
from certwright.rooms.audit.tables import GUARD_SQL, audit_events
from certwright.rooms.audit.words import AuditEvent, Entry, Filter, Finding, Head, Verdict

__all__ = [
    "GUARD_SQL",
    "AuditEvent",
    "Entry",
    "Filter",
    "Finding",
    "Head",
    "Verdict",
    "audit_events",
    "get_event",
    "list_events",
    "record",
    "record_many",
    "recorded",
    "recorded_many",
    "register",
    "seal",
    "values",
    "values_of_many",
    "verify",
]


def register(services: Services) -> None:
    services.jobs.every("audit.seal", timedelta(seconds=2), seal_chore)
