"""Recording, sealing and verifying what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from certwright.kernel.actor import Actor
from certwright.kernel.clock import SystemClock
from certwright.kernel.ids import new_id
from certwright.platform.db import Database, Tx
from certwright.platform.services import Services
from certwright.rooms.audit import store
from certwright.rooms.audit.rules import FIRST_PREVIOUS, link
from certwright.rooms.audit.words import Entry, Finding, Head, Verdict

log = structlog.get_logger(__name__)

_BATCH = 2000
_LONGEST_WAIT = timedelta(minutes=10)


async def record(
    tx: Tx,
    services: Services,
    actor: Actor,
    action: str,
    object_type: str,
    object_id: str,
    *,
    project_id: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
) -> None:
    """Note in the transaction of the change itself that `actor` did `action`. Never pass secrets in before/after."""
    await record_many(tx, services, [Entry(actor, action, object_type, object_id, project_id, before, after, reason)])


async def record_many(tx: Tx, services: Services, entries: Sequence[Entry]) -> None:
    """Several events in one statement, for batches."""
    await store.insert_events(tx, [_row(services, entry) for entry in entries])


def values(services: Services, entry: Entry) -> dict[str, Any]:
    """The parameters of the parts of a statement that `recorded` makes."""
    return store.written(_row(services, entry))


def values_of_many(services: Services, entries: Sequence[Entry]) -> dict[str, Any]:
    """The same for the statement `recorded_many`."""
    return store.written_many([_row(services, entry) for entry in entries])


def _row(services: Services, entry: Entry) -> dict[str, Any]:
    now = services.clock.now()
    return {
        "id": new_id("aud", now),
        "at": now,
        "account_id": entry.actor.account_id,
        "project_id": entry.project_id,
        "actor_kind": entry.actor.kind,
        "actor_id": entry.actor.id,
        "actor_name": entry.actor.name,
        "user_id": entry.actor.user_id,
        "request_id": entry.actor.request_id,
        "action": entry.action,
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "before": entry.before,
        "after": entry.after,
        "reason": entry.reason,
    }


async def seal(services: Services) -> int:
    """Chore: link every committed event into the chain, batch by batch. Returns how many; 0 while another seals."""
    total = 0
    while True:
        async with services.db.begin() as tx:
            if not await store.lock_chain(tx):
                return total
            events = await store.unsealed_events(tx, _BATCH)
            if not events:
                return total
            position, digest = await store.chain_head(tx) or (0, FIRST_PREVIOUS)
            links = []
            for event in events:
                position, digest = position + 1, link(digest, event)
                links.append((position, event.id, digest))
            await store.append_links(tx, links)
        total += len(links)
        # The log stream is a second place, outside the database, that remembers how far the chain reached.
        log.debug("audit sealed", events=len(links), position=position, head=digest.hex())


async def seal_chore(services: Services) -> None:
    await seal(services)


async def verify(db: Database, *, now: datetime | None = None, noted: Head | None = None) -> Verdict:
    """Check the whole chain against the events, in constant memory.

    Finds changed, removed and re-ordered events, gaps, events kept out of the chain, and sealing that stopped. Given
    a `noted` head of an earlier verification (or of a log line) it also finds a chain cut off at its end.
    """
    now = now or SystemClock().now()
    sealed, digest, head, noted_seen = 0, FIRST_PREVIOUS, None, False
    async with db.begin() as tx:
        async for position, event_id, stored, event in store.chain_with_events(tx):
            finding = None
            if position != sealed + 1:
                finding, position = Finding.CHAIN_GAP, sealed + 1
            elif event is None:
                finding = Finding.EVENT_REMOVED
            elif (digest := link(digest, event)) != stored:
                finding = Finding.EVENT_CHANGED
            elif noted and position == noted.position:
                noted_seen = stored.hex() == noted.hash.lower()
                finding = None if noted_seen else Finding.CHAIN_CUT
            if finding:
                waiting = (await store.waiting(tx))[0]
                return Verdict(False, sealed, waiting, head, finding, position, event_id)
            sealed, head = position, Head(position, stored.hex())
        never = await store.never_sealed(tx)
        waiting, oldest, since = await store.waiting(tx)
    if noted and not noted_seen:
        return Verdict(False, sealed, waiting, head, Finding.CHAIN_CUT, sealed + 1, None)
    if never is not None:
        return Verdict(False, sealed, waiting, head, Finding.EVENT_NEVER_SEALED, None, never)
    if since is not None and now - since > _LONGEST_WAIT:
        return Verdict(False, sealed, waiting, head, Finding.SEALING_STOPPED, None, oldest)
    return Verdict(True, sealed, waiting, head)
