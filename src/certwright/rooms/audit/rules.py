"""How an event becomes a link of the chain. Pure."""

from __future__ import annotations

import hashlib
from datetime import UTC
from typing import Any

import orjson

from certwright.rooms.audit.words import AuditEvent

FIRST_PREVIOUS = bytes(32)
"""What stands for the hash before the first link."""


def canonical(event: AuditEvent) -> bytes:
    """The event as JSON with sorted keys and UTC times to the microsecond: the same bytes whenever it is read."""
    facts: dict[str, Any] = {name: getattr(event, name) for name in AuditEvent.__slots__}
    facts["at"] = event.at.astimezone(UTC).isoformat(timespec="microseconds")
    return orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)


def link(previous: bytes, event: AuditEvent) -> bytes:
    """SHA-256 over the previous link and the event."""
    return hashlib.sha256(previous + canonical(event)).digest()
