"""All SQL of the deployment room. Reads for people take the tenant filter as `visible`, made by the access room."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from certwright.platform.db import Tx, is_one_of
from certwright.rooms.deployment.tables import bindings, rollout_items, rollout_steps, rollouts, sites, targets
from certwright.rooms.deployment.words import RolloutState, Step, Trigger

# A row of the columns the query names.
Row = Any
Visible = sa.ColumnElement[bool]

_TARGET = tuple(
    targets.c[n]
    for n in (
        "id", "account_id", "project_id", "name", "kind", "region", "config", "server", "health", "health_problem",
        "software", "discovered_at", "created_at", "updated_at", "revision",
    )
)  # fmt: skip
_SITE = tuple(
    sites.c[n] for n in ("id", "account_id", "project_id", "target_id", "key", "label", "names", "facts", "gone_at")
)
_BINDING = tuple(
    bindings.c[n]
    for n in (
        "id", "account_id", "project_id", "target_id", "site_id", "slot", "certificate_id", "deployed_version_id",
        "rollout_id", "deployed_at", "auto_deploy", "retry_at", "failures", "created_at",
    )
)  # fmt: skip
_ROLLOUT = tuple(
    rollouts.c[n]
    for n in (
        "id", "account_id", "project_id", "target_id", "state", "trigger", "requested_by", "next_step", "plan",
        "problem", "created_at", "started_at", "undo_asked_at", "finished_at", "step_attempts", "step_problem",
    )
)  # fmt: skip
_ITEM = tuple(
    rollout_items.c[n]
    for n in (
        "id", "rollout_id", "binding_id", "site_id", "site_label", "certificate_id", "version_id",
        "previous_certificate_id", "previous_version_id", "made_binding",
    )
)  # fmt: skip


# Targets


async def insert_target(tx: Tx, **values: Any) -> bool:
    """False when the account has a target of that name, or any account one for that server."""
    result = await tx.execute(insert(targets).values(**values).on_conflict_do_nothing().returning(targets.c.id))
    return result.one_or_none() is not None


async def target(tx: Tx, target_id: str, visible: Visible | None = None, *, lock: bool = False) -> Row | None:
    query = sa.select(*_TARGET).where(targets.c.id == target_id)
    if visible is not None:
        query = query.where(visible)
    if lock:
        query = query.with_for_update()
    return (await tx.execute(query)).one_or_none()


async def target_page(tx: Tx, visible: Visible, *, after: str | None, limit: int) -> Sequence[Row]:
    query = sa.select(*_TARGET).where(visible).order_by(targets.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(targets.c.id < after)
    return (await tx.execute(query)).all()


async def target_name_taken(tx: Tx, account_id: str, name: str, but: str = "") -> bool:
    return bool(
        await tx.scalar(
            sa.select(
                sa.exists().where(targets.c.account_id == account_id, targets.c.name == name, targets.c.id != but)
            )
        )
    )


async def update_target(tx: Tx, target_id: str, revision: int, **values: Any) -> bool:
    """Guarded by the revision the caller read; False when it changed meanwhile."""
    result = await tx.execute(
        sa.update(targets)
        .where(targets.c.id == target_id, targets.c.revision == revision)
        .values(revision=revision + 1, **values)
    )
    return result.rowcount == 1


async def claim_server(tx: Tx, target_id: str, server: str) -> bool:
    """Make this target the one of that server; False when another is. Undone with the rest when `tx` is."""
    try:
        async with tx.begin_nested():
            await tx.execute(sa.update(targets).where(targets.c.id == target_id).values(server=server))
    except IntegrityError:
        return False
    return True


async def record_health(tx: Tx, target_id: str, **values: Any) -> None:
    """What was found when looking; no change by a person, hence no new revision."""
    await tx.execute(sa.update(targets).where(targets.c.id == target_id).values(**values))


async def delete_target(tx: Tx, target_id: str) -> None:
    await tx.execute(sa.delete(targets).where(targets.c.id == target_id))


# Sites


async def sites_of(tx: Tx, target_id: str, *, with_gone: bool = False) -> Sequence[Row]:
    query = sa.select(*_SITE).where(sites.c.target_id == target_id).order_by(sites.c.label, sites.c.id)
    if not with_gone:
        query = query.where(sites.c.gone_at.is_(None))
    return (await tx.execute(query)).all()


async def sites_by_id(tx: Tx, site_ids: Sequence[str], visible: Visible | None = None) -> Sequence[Row]:
    """`visible` filters by the sites' targets."""
    query = sa.select(*_SITE).join(targets, targets.c.id == sites.c.target_id).where(sites.c.id.in_(site_ids))
    if visible is not None:
        query = query.where(visible)
    return (await tx.execute(query.order_by(sites.c.id))).all()


async def insert_site(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(sites).values(**values))


async def update_site(tx: Tx, site_id: str, **values: Any) -> None:
    await tx.execute(sa.update(sites).where(sites.c.id == site_id).values(**values))


async def forget_gone_sites(tx: Tx, target_id: str, keep: Sequence[str], now: datetime) -> None:
    """Sites not in `keep` are gone: kept while bound, dropped otherwise."""
    gone = sa.and_(sites.c.target_id == target_id, sites.c.id.not_in(keep))
    bound = sa.exists().where(bindings.c.site_id == sites.c.id)
    await tx.execute(sa.delete(sites).where(gone, ~bound))
    await tx.execute(sa.update(sites).where(gone, sites.c.gone_at.is_(None)).values(gone_at=now))


# Bindings


def _bindings_with_places() -> sa.Select[Any]:
    return (
        sa.select(*_BINDING, targets.c.name.label("target"), sites.c.label.label("site"), sites.c.facts.label("facts"))
        .join(targets, targets.c.id == bindings.c.target_id)
        .join(sites, sites.c.id == bindings.c.site_id)
    )


async def binding(tx: Tx, binding_id: str, visible: Visible | None = None, *, lock: bool = False) -> Row | None:
    query = _bindings_with_places().where(bindings.c.id == binding_id)
    if visible is not None:
        query = query.where(visible)
    if lock:
        query = query.with_for_update(of=bindings)
    return (await tx.execute(query)).one_or_none()


async def bindings_where(tx: Tx, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> Sequence[Row]:
    query = _bindings_with_places().where(*conditions).order_by(bindings.c.id)
    found: Sequence[Row] = (await tx.execute(query if limit is None else query.limit(limit))).all()
    return found


async def binding_at(tx: Tx, site_id: str, slot: str) -> Row | None:
    query = _bindings_with_places().where(bindings.c.site_id == site_id, bindings.c.slot == slot)
    return (await tx.execute(query)).one_or_none()


async def insert_binding(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(bindings).values(**values))


async def update_binding(tx: Tx, binding_id: str, **values: Any) -> None:
    await tx.execute(sa.update(bindings).where(bindings.c.id == binding_id).values(**values))


async def delete_binding(tx: Tx, binding_id: str) -> None:
    await tx.execute(sa.delete(bindings).where(bindings.c.id == binding_id))


async def site_labels_of_certificate(tx: Tx, certificate_id: str) -> Sequence[str]:
    """`target: site` of every binding."""
    query = (
        sa.select(targets.c.name + ": " + sites.c.label)
        .select_from(bindings)
        .join(targets, targets.c.id == bindings.c.target_id)
        .join(sites, sites.c.id == bindings.c.site_id)
        .where(bindings.c.certificate_id == certificate_id)
        .order_by(bindings.c.id)
    )
    return (await tx.scalars(query)).all()


async def certificates_on(tx: Tx, visible: Visible, target: str) -> Sequence[str]:
    """Ids of the certificates bound to a site of the target of this id or name."""
    named = sa.select(targets.c.id).where(visible, sa.or_(targets.c.id == target, targets.c.name == target))
    query = sa.select(bindings.c.certificate_id).where(bindings.c.target_id.in_(named)).distinct()
    return (await tx.scalars(query)).all()


async def bindings_to_renew(tx: Tx, certificate_id: str, version_id: str) -> Sequence[Row]:
    """Deployed bindings that follow new versions, don't have this one, and have no rollout on the way to it."""
    on_the_way = sa.exists().where(
        rollout_items.c.binding_id == bindings.c.id,
        rollout_items.c.version_id == version_id,
        rollout_items.c.rollout_id == rollouts.c.id,
        rollouts.c.finished_at.is_(None),
    )
    return await bindings_where(
        tx,
        bindings.c.certificate_id == certificate_id,
        bindings.c.auto_deploy,
        bindings.c.deployed_version_id.is_not(None),
        bindings.c.deployed_version_id != version_id,
        sites.c.gone_at.is_(None),
        ~on_the_way,
    )


async def certificates_bound(tx: Tx, certificate_ids: Sequence[str]) -> set[str]:
    """Those of them that are bound anywhere."""
    b = bindings.c
    return set(
        (await tx.scalars(sa.select(b.certificate_id).where(is_one_of(b.certificate_id, certificate_ids)))).all()
    )


async def is_deployed(tx: Tx, version_id: str) -> bool:
    return bool(await tx.scalar(sa.select(sa.exists().where(bindings.c.deployed_version_id == version_id))))


async def bindings_to_retry(tx: Tx, now: datetime, limit: int) -> Sequence[Row]:
    return await bindings_where(tx, bindings.c.retry_at <= now, limit=limit)


# Rollouts


async def insert_rollout(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(rollouts).values(**values))


async def insert_item(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(rollout_items).values(**values))


async def rollout(tx: Tx, rollout_id: str, visible: Visible | None = None, *, lock: bool = False) -> Row | None:
    query = (
        sa.select(*_ROLLOUT, targets.c.name.label("target"))
        .join(targets, targets.c.id == rollouts.c.target_id)
        .where(rollouts.c.id == rollout_id)
    )
    if visible is not None:
        query = query.where(visible)
    if lock:
        query = query.with_for_update(of=rollouts)
    return (await tx.execute(query)).one_or_none()


async def rollout_page(
    tx: Tx,
    visible: Visible,
    *,
    certificate_id: str | None,
    target_id: str | None,
    state: RolloutState | None,
    after: str | None,
    limit: int,
) -> Sequence[Row]:
    query = (
        sa.select(*_ROLLOUT, targets.c.name.label("target"))
        .join(targets, targets.c.id == rollouts.c.target_id)
        .where(visible)
        .order_by(rollouts.c.id.desc())
        .limit(limit)
    )
    if certificate_id is not None:
        query = query.where(
            sa.exists().where(
                rollout_items.c.rollout_id == rollouts.c.id, rollout_items.c.certificate_id == certificate_id
            )
        )
    if target_id is not None:
        query = query.where(rollouts.c.target_id == target_id)
    if state is not None:
        query = query.where(rollouts.c.state == state.value)
    if after is not None:
        query = query.where(rollouts.c.id < after)
    return (await tx.execute(query)).all()


async def items_of(tx: Tx, rollout_ids: Sequence[str]) -> Sequence[Row]:
    query = sa.select(*_ITEM).where(rollout_items.c.rollout_id.in_(rollout_ids)).order_by(rollout_items.c.id)
    return (await tx.execute(query)).all()


async def unfinished_rollouts(tx: Tx, target_id: str) -> Sequence[Row]:
    """Id and state of those that run, wait, or could not be undone."""
    query = sa.select(rollouts.c.id, rollouts.c.state).where(
        rollouts.c.target_id == target_id, rollouts.c.finished_at.is_(None)
    )
    return (await tx.execute(query)).all()


async def unfinished_of_binding(tx: Tx, binding_id: str) -> Sequence[Row]:
    """Id and state of the unfinished rollouts that move this binding."""
    query = (
        sa.select(rollouts.c.id, rollouts.c.state)
        .join(rollout_items, rollout_items.c.rollout_id == rollouts.c.id)
        .where(rollout_items.c.binding_id == binding_id, rollouts.c.finished_at.is_(None))
    )
    return (await tx.execute(query)).all()


async def waiting_rollout(tx: Tx, target_id: str, trigger: Trigger) -> str | None:
    """One that hasn't started and so can take more items."""
    query = (
        sa.select(rollouts.c.id)
        .where(
            rollouts.c.target_id == target_id, rollouts.c.trigger == trigger.value, rollouts.c.started_at.is_(None),
            rollouts.c.finished_at.is_(None),
        )
        .order_by(rollouts.c.id).limit(1).with_for_update()
    )  # fmt: skip
    found: str | None = await tx.scalar(query)
    return found


async def begin_rollout(tx: Tx, rollout_id: str, target_id: str, now: datetime) -> Row | None:
    """Give the rollout its target, in the order they were asked for. None when it has it now; else what has it or is
    before this one: id, state, problem."""
    await tx.execute(sa.select(targets.c.id).where(targets.c.id == target_id).with_for_update())
    other = rollouts.c
    before = (
        sa.select(other.id, other.state, other.problem)
        .where(
            other.target_id == target_id, other.finished_at.is_(None), other.id != rollout_id,
            sa.or_(other.started_at.is_not(None), other.id < rollout_id),
        )
        .order_by(other.started_at.is_(None), other.id)
        .limit(1)
    )  # fmt: skip
    in_the_way = (await tx.execute(before)).one_or_none()
    if in_the_way is None:
        await tx.execute(
            sa.update(rollouts)
            .where(rollouts.c.id == rollout_id, rollouts.c.started_at.is_(None))
            .values(started_at=now)
        )
    return in_the_way


async def next_waiting(tx: Tx, target_id: str) -> str | None:
    query = (
        sa.select(rollouts.c.id)
        .where(
            rollouts.c.target_id == target_id, rollouts.c.started_at.is_(None), rollouts.c.finished_at.is_(None)
        )
        .order_by(rollouts.c.id).limit(1)
    )  # fmt: skip
    found: str | None = await tx.scalar(query)
    return found


async def move_rollout(
    tx: Tx, rollout_id: str, leaves: Step | None, enters: Step | None, state: RolloutState, **values: Any
) -> bool:
    """Guarded by the step it leaves; False when another worker moved it already."""
    came_from = rollouts.c.next_step.is_(None) if leaves is None else rollouts.c.next_step == leaves.value
    result = await tx.execute(
        sa.update(rollouts)
        .where(rollouts.c.id == rollout_id, came_from)
        .values(next_step=enters and enters.value, state=state.value, **values)
    )
    return result.rowcount == 1


# Steps of rollouts


async def begin_step(tx: Tx, **values: Any) -> str:
    """Note that a step begins; the note of an interrupted run of the same step is used again."""
    interrupted: str | None = await tx.scalar(
        sa.select(rollout_steps.c.id).where(
            rollout_steps.c.rollout_id == values["rollout_id"],
            rollout_steps.c.step == values["step"],
            rollout_steps.c.finished_at.is_(None),
        )
    )
    if interrupted is not None:
        return interrupted
    await tx.execute(sa.insert(rollout_steps).values(**values))
    return str(values["id"])


async def last_step(tx: Tx, rollout_id: str, step: Step) -> str | None:
    """The note of the newest run of a step."""
    c = rollout_steps.c
    query = sa.select(c.id).where(c.rollout_id == rollout_id, c.step == step.value)
    found: str | None = await tx.scalar(query.order_by(c.started_at.desc(), c.id.desc()).limit(1))
    return found


async def end_step(tx: Tx, step_id: str, **values: Any) -> None:
    await tx.execute(sa.update(rollout_steps).where(rollout_steps.c.id == step_id).values(**values))


async def steps_of(tx: Tx, rollout_id: str) -> Sequence[Row]:
    c = rollout_steps.c
    query = (
        sa.select(c.id, c.step, c.started_at, c.finished_at, c.outcome, c.details, c.problem)
        .where(c.rollout_id == rollout_id)
        .order_by(c.id)
    )
    return (await tx.execute(query)).all()


async def failed_undos(tx: Tx, rollout_id: str, since: datetime | None) -> int:
    c = rollout_steps.c
    query = sa.select(sa.func.count()).where(
        c.rollout_id == rollout_id, c.step == Step.UNDO.value, c.outcome == "failed"
    )
    if since is not None:
        query = query.where(c.started_at >= since)
    return int(await tx.scalar(query) or 0)
