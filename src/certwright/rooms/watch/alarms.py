"""Raising, changing, clearing and acknowledging alarms: the one place that writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Refused, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.watch import catalogue, rules, store
from certwright.rooms.watch.tables import alarms
from certwright.rooms.watch.words import (
    ALARM_CHANGED,
    ALARM_CLEARED,
    ALARM_RAISED,
    AlarmFact,
    Move,
    OpenAlarm,
    Severity,
    stamp,
)

_KEPT_VALUES = 12
_EVENTS = {"raised": ALARM_RAISED, "changed": ALARM_CHANGED, "cleared": ALARM_CLEARED}


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alarm is about. `location` says where it is: host, port, name, site."""

    type: str
    id: str
    name: str
    account_id: str
    project_id: str
    location: Mapping[str, Any] = field(default_factory=dict)


async def settle(
    tx: Tx,
    services: Services,
    subject: Subject,
    kind: str,
    fact: AlarmFact | None,
    standing: Any,
    *,
    undecided: bool = False,
    by: str = "watch",
) -> None:
    """Bring the alarm of (subject, kind) in line with the fact; `standing` is the open alarm's row, if there is one."""
    opened = None
    if standing is not None:
        opened = OpenAlarm(
            Severity(standing.severity), standing.threshold, standing.reason, tuple(standing.identity)
        )  # fmt: skip
    step = rules.move(opened, fact, undecided=undecided)
    if step is Move.RAISE and fact is not None:
        await _raise(tx, services, subject, fact, by)
    elif step is Move.CHANGE and fact is not None:
        await _change(tx, services, standing, fact, by)
    elif step is Move.CLEAR:
        await clear(tx, services, standing, by)
    elif fact is not None and fact.value is not None:
        await store.update_open_alarm(tx, standing.id, recent_values=_values(services, standing.recent_values, fact))


async def _raise(tx: Tx, services: Services, subject: Subject, fact: AlarmFact, by: str) -> None:
    now = services.clock.now()
    values = {
        "id": new_id("alarm", now),
        "account_id": subject.account_id,
        "project_id": subject.project_id,
        "kind": fact.kind,
        "object_type": subject.type,
        "object_id": subject.id,
        "object_name": subject.name,
        "location": dict(subject.location),
        "raised_at": now,
        **_facts(services, fact, []),
    }
    if await store.insert_alarm(tx, values):
        await _tell(tx, services, values, "raised", by)


async def _change(tx: Tx, services: Services, standing: Any, fact: AlarmFact, by: str) -> None:
    values = _facts(services, fact, standing.recent_values)
    worse = fact.severity.weight > Severity(standing.severity).weight
    if worse:
        # Somebody acknowledged a lesser thing than it has become.
        values |= {"acknowledged_at": None, "acknowledged_by": None}
    if await store.update_open_alarm(tx, standing.id, **values):
        await _tell(tx, services, _as_dict(standing) | values, "changed", by, worse=worse)


async def clear(tx: Tx, services: Services, standing: Any, by: str) -> None:
    """End an open alarm; `by` says through what."""
    now = services.clock.now()
    values = {"cleared_at": now, "changed_at": now, "cleared_by": by}
    if await store.update_open_alarm(tx, standing.id, **values):
        await _tell(tx, services, _as_dict(standing) | values, "cleared", by)


async def clear_all_of(tx: Tx, services: Services, object_id: str, by: str) -> None:
    """End every open alarm of an object that is no longer watched."""
    for standing in (await store.open_alarms(tx, [object_id])).values():
        await clear(tx, services, standing, by)


async def clear_kind(tx: Tx, services: Services, object_id: str, kind: str, by: str) -> None:
    """End the open alarm of an object and kind, if there is one."""
    standing = (await store.open_alarms(tx, [object_id])).get((object_id, kind))
    if standing is not None:
        await clear(tx, services, standing, by)


def _facts(services: Services, fact: AlarmFact, before: list[Any]) -> dict[str, Any]:
    return {
        "severity": fact.severity.value,
        "threshold": fact.threshold,
        "reason": fact.reason,
        "params": dict(fact.params),
        "identity": list(fact.identity),
        "addresses": list(fact.addresses),
        "recent_values": _values(services, before, fact),
        "changed_at": services.clock.now(),
    }


def _values(services: Services, before: list[Any], fact: AlarmFact) -> list[Any]:
    if fact.value is None:
        return list(before)
    latest = {"at": stamp(services.clock.now()), "value": fact.value}
    return [*before, latest][-_KEPT_VALUES:]


def _as_dict(row: Any) -> dict[str, Any]:
    return dict(row._mapping)


async def _tell(
    tx: Tx, services: Services, alarm: Mapping[str, Any], what: str, by: str, *, worse: bool = False
) -> None:
    """The line of history and the event, in the same transaction as the change."""
    now = services.clock.now()
    line = new_id("almh", now)
    await store.insert_history(tx, _history(line, alarm, what, by) | {"at": now})
    payload = {
        "change_id": line,
        "alarm_id": alarm["id"],
        "project_id": alarm["project_id"],
        "kind": alarm["kind"],
        "object_type": alarm["object_type"],
        "object_id": alarm["object_id"],
        "object_name": alarm["object_name"],
        "severity": alarm["severity"],
        "threshold": alarm["threshold"],
        "reason": alarm["reason"],
        "params": alarm["params"],
        "addresses": alarm["addresses"],
        "location": alarm["location"],
        "recent_values": alarm["recent_values"],
        "raised_at": alarm["raised_at"].isoformat(),
        "at": now.isoformat(),
        "by": by,
        "worse": worse,
        "catalogue": catalogue.as_told(alarm["kind"]),
        "sentence": dict(
            zip(("template", "values"), catalogue.sentence_parts(alarm["reason"], alarm["params"]), strict=True)
        ),
    }
    await services.events.publish(
        tx, _EVENTS[what], account_id=alarm["account_id"], object_id=alarm["id"], payload=payload
    )


def _history(line: str, alarm: Mapping[str, Any], what: str, by: str) -> dict[str, Any]:
    return {
        "id": line,
        "alarm_id": alarm["id"],
        "what": what,
        "severity": alarm["severity"],
        "threshold": alarm["threshold"],
        "reason": alarm["reason"],
        "params": alarm["params"],
        "by": by,
    }


# For people


@dataclass(frozen=True, slots=True)
class AlarmFilter:
    """`state` is `open`, `cleared` or `all`; empty fields don't narrow."""

    state: str = "open"
    severity: str | None = None
    kind: str | None = None
    object_id: str | None = None


async def list_alarms(
    services: Services, actor: Actor, filter: AlarmFilter, *, after: str | None = None, limit: int = 20
) -> list[Any]:
    """Rows of `alarms`, newest first; `after` is the id of the last one seen."""
    where = [access.visible(alarms, actor, "alarm:alarm:list")]
    if filter.state == "open":
        where.append(alarms.c.cleared_at.is_(None))
    elif filter.state == "cleared":
        where.append(alarms.c.cleared_at.is_not(None))
    for column, value in (
        (alarms.c.severity, filter.severity),
        (alarms.c.kind, filter.kind),
        (alarms.c.object_id, filter.object_id),
    ):
        if value is not None:
            where.append(column == value)
    async with services.db.begin() as tx:
        return await store.alarm_page(tx, where, after=after, limit=limit)


async def get_alarm(services: Services, actor: Actor, alarm_id: str) -> tuple[Any, list[Any]]:
    """The alarm's row and its history, oldest first."""
    async with services.db.moment() as tx:
        row = await _visible(tx, actor, "alarm:alarm:get", alarm_id)
        return row, await store.history(tx, alarm_id)


async def acknowledge(
    services: Services, actor: Actor, alarm_id: str, *, acknowledged: bool = True
) -> tuple[Any, list[Any]]:
    """Say that somebody looks after it, or take that back. Raises Refused `alarm_cleared`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "alarm:alarm:ack", alarm_id)
        if row.cleared_at is not None:
            raise Refused(
                "alarm_cleared", "The alarm has been cleared; there is nothing left to acknowledge.",
                fix="Look at the open alarms.", extra={"cleared_at": row.cleared_at.isoformat()},
            )  # fmt: skip
        if (row.acknowledged_at is not None) is not acknowledged:
            by = actor.name if acknowledged else None
            done = await store.update_open_alarm(
                tx, alarm_id, acknowledged_at=now if acknowledged else None, acknowledged_by=by
            )
            if done:
                what = "acknowledged" if acknowledged else "unacknowledged"
                line = _history(new_id("almh", now), _as_dict(row), what, actor.name)
                await store.insert_history(tx, line | {"at": now})
                await audit.record(
                    tx, services, actor, "alarm:alarm:ack", "alarm", alarm_id, project_id=row.project_id,
                    before={"acknowledged": not acknowledged}, after={"acknowledged": acknowledged},
                )  # fmt: skip
        return await _again(tx, alarm_id), await store.history(tx, alarm_id)


async def _visible(tx: Tx, actor: Actor, action: str, alarm_id: str) -> Any:
    where: sa.ColumnElement[bool] = access.visible(alarms, actor, "alarm:alarm:get")
    row = await store.alarm(tx, alarm_id, where)
    if row is None:
        raise not_found("alarm", alarm_id)
    access.require(actor, action, project_id=row.project_id, resource=f"alarm:{alarm_id}")
    return row


async def _again(tx: Tx, alarm_id: str) -> Any:
    return await store.alarm(tx, alarm_id)
