"""Looking ahead: will the evidence a certificate rests on still count when it is renewed? If not, others are told in
time to do something about it.

The room doesn't raise alarms; it publishes that evidence runs out too early, and later that it lasts after all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from certwright.kernel.names import looks_like_ip
from certwright.platform.db import Tx
from certwright.platform.events import Event
from certwright.platform.jobs import Next
from certwright.platform.services import Services
from certwright.rooms.validation import rules, store
from certwright.rooms.validation.actions import evidence_ends, holders_of
from certwright.rooms.validation.rulebook import rules_of
from certwright.rooms.validation.words import CaKind, Method

FORESEE_STEP = "validation.foresee"
EVIDENCE_RUNS_OUT = "validation.evidence_runs_out"
EVIDENCE_LASTS = "validation.evidence_lasts"

# What changes meanwhile (evidence of another application, a DNS connection, the rules) is noticed within a day.
_LOOK_AGAIN = timedelta(days=1)


async def foresee(tx: Tx, services: Services, told: Sequence[Event]) -> None:
    """Of `certificate.version_issued` events: from now on look whether the evidence lasts until the renewal."""
    now = services.clock.now()
    # Of several versions of one certificate the last one told counts.
    issued = {event.object_id: event for event in told if "not_after" in event.payload}
    projects = await store.projects_of(tx, [str(event.payload["application_id"]) for event in issued.values()])
    packs = {account: await rules_of(tx, account) for account in {event.account_id for event in issued.values()}}
    rows = []
    for certificate_id, event in issued.items():
        subject_id = str(event.payload["application_id"])
        if subject_id not in projects:
            continue
        begins, ends = (datetime.fromisoformat(str(event.payload[key])) for key in ("not_before", "not_after"))
        needed_at = rules.planned_renewal(begins, ends, packs[event.account_id])
        rows.append({
            "id": certificate_id, "account_id": event.account_id, "project_id": projects[subject_id],
            "subject_id": subject_id, "needed_at": needed_at, "not_after": ends,
            # Not at once: what was just shown lasts a while, and many may have been issued together.
            "next_step_at": now + min(_LOOK_AGAIN, max((needed_at - now) / 8, timedelta(seconds=1))),
        })  # fmt: skip
    await store.foresee(tx, rows)


async def foresee_step(services: Services, certificate_id: str) -> Next:
    """Compare what there is with what the renewal will need; publish once that it runs out, once that it doesn't."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await store.foreseen_of(tx, certificate_id, lock=True)
        if row is None:
            return None
        if now >= row.not_after:
            await _tell_it_lasts(tx, services, row)
            return None
        gap = await _gap(tx, row, now)
        warn_at = rules.warn_at(gap, now) if gap else None
        if warn_at is None:
            await _tell_it_lasts(tx, services, row)
        elif warn_at <= now and row.told_at is None:
            await store.told(tx, certificate_id, now)
            await services.events.publish(
                tx, EVIDENCE_RUNS_OUT, account_id=row.account_id, object_id=certificate_id,
                payload=_payload(row, gap),
            )  # fmt: skip
    soon: timedelta = min(_LOOK_AGAIN, row.not_after - now)
    if warn_at is not None and warn_at > now:
        soon = min(soon, warn_at - now)
    return max(soon, timedelta(seconds=1))


async def _gap(tx: Tx, row: store.Row, now: datetime) -> dict[str, datetime | None]:
    shown = await store.of_subject(tx, row.subject_id)
    if not shown:
        return {}
    pack = await rules_of(tx, row.account_id)
    names = [one.name for one in shown]
    ends = await evidence_ends(
        tx, row.account_id, row.project_id, shown[0].ca, names, CaKind(shown[0].ca_kind), now, pack
    )
    by_dns = [one.name for one in shown if one.method in (Method.DNS, Method.DNS_01) and not looks_like_ip(one.name)]
    # Where a CNAME led the last time, it is expected to lead again.
    led = {one.name: one.seen_where for one in shown if one.seen_where is not None}
    places = rules.record_places(by_dns, single=len(names) == 1) | led
    held = await holders_of(tx, row.account_id, row.project_id, sorted(set(places.values())))
    return rules.evidence_gap(ends, [name for name, place in places.items() if place in held], row.needed_at)


def _payload(row: store.Row, gap: dict[str, datetime | None]) -> dict[str, Any]:
    ends = [end for end in gap.values() if end is not None]
    return {
        "certificate_id": row.id, "project_id": row.project_id, "names": sorted(gap),
        "until": min(ends).isoformat() if ends else None, "needed_at": row.needed_at.isoformat(),
    }  # fmt: skip


async def _tell_it_lasts(tx: Tx, services: Services, row: store.Row) -> None:
    if row.told_at is not None:
        await store.told(tx, row.id, None)
        await services.events.publish(
            tx, EVIDENCE_LASTS, account_id=row.account_id, object_id=row.id, payload={"certificate_id": row.id}
        )


async def renewal_over(services: Services, event: Event) -> None:
    """Listener: a certificate that is gone or revoked isn't renewed."""
    async with services.db.begin() as tx:
        row = await store.foreseen_of(tx, event.object_id, lock=True)
        if row is not None:
            await _tell_it_lasts(tx, services, row)
            await store.forget_foreseen(tx, event.object_id)
