"""Mass replacement: every certificate that matches gets a new version by a deadline, at a rate, the important first.

A campaign is planned in pages by its own step; then the step lets items go at the campaign's rate and at the rates of
their CAs. Each item has a step of its own that asks for its reissue once, and ends when it hears how that went.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from certwright.kernel.actor import Actor, Grant, Statement, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, InvalidFields, NotFound, Refused, not_found
from certwright.platform.db import Tx, is_one_of
from certwright.platform.events import Event
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms import access, audit, certificates
from certwright.rooms.renewal import campaign_store as store
from certwright.rooms.renewal import rules
from certwright.rooms.renewal import store as queue_store
from certwright.rooms.renewal.ports import Serving
from certwright.rooms.renewal.rules import Move
from certwright.rooms.renewal.tables import campaign_items, campaigns
from certwright.rooms.renewal.words import (
    Bucket,
    Campaign,
    CampaignItem,
    CampaignReason,
    CampaignState,
    Criteria,
    Destination,
    Estimate,
    ItemState,
    Preview,
    PreviewLine,
    Priority,
    Replaceable,
)

log = structlog.get_logger(__name__)

STEP = "renewal.campaign"
ITEM_STEP = "renewal.replace"

_I = campaign_items.c
_PAGE = 1000
_MOST_AT_ONCE = 200
_LOOK_IN = timedelta(minutes=10)
_PAUSE = timedelta(seconds=1)
_UNDER_WAY = timedelta(hours=1)
_OPEN = (ItemState.WAITING, ItemState.GOING)
_HOUR = timedelta(hours=1)


# --- preview and start -----------------------------------------------------------------------------------------------


async def preview(
    services: Services,
    actor: Actor,
    criteria: Criteria,
    *,
    deadline: datetime,
    per_hour: int,
    to_ca: str | None = None,
    show: int = 100,
) -> Preview:
    """What a campaign would do: how many it replaces, which it can't and why (the first `show`), and when it would end.

    Counts certificates the actor may reissue. Nothing is kept. `to_ca` is the id or name of another CA to get the new
    versions from. Raises NotFound (field criteria.ca or to_ca).
    """
    now = services.clock.now()
    rules.judge_criteria(criteria)
    rules.judge_campaign("preview", per_hour, deadline, now)
    access.require_somewhere(actor, "scm:campaign:create")
    counts: Counter[str] = Counter()
    per_ca: Counter[str] = Counter()
    excluded: list[PreviewLine] = []
    async with services.db.begin() as tx:
        match = await _match(tx, services, actor.account_id, criteria)
        to = await _destination(tx, services, actor.account_id, to_ca)
        after: str | None = None
        while True:
            found = await certificates.standing(tx, actor, "scm:cert:renew", match, now, after=after, limit=_PAGE)
            for one in found:
                verdict = rules.replaceable(one, to)
                counts[verdict.code] += 1
                if verdict.state is ItemState.WAITING:
                    per_ca[to.ca if to is not None else one.ca] += 1
                elif len(excluded) < show:
                    excluded.append(PreviewLine(one.certificate_id, one.name, one.ca, one.not_after, *_words(verdict)))
            if len(found) < _PAGE:
                break
            after = found[-1].certificate_id
        estimate = await _estimate(tx, actor.account_id, per_ca, deadline, per_hour, now)
    return Preview(sum(per_ca.values()), dict(counts), tuple(excluded), estimate)


def _words(verdict: Replaceable) -> tuple[ItemState, str, str]:
    return verdict.state, verdict.code, verdict.reason


async def _match(tx: Tx, services: Services, account_id: str, criteria: Criteria) -> certificates.Match:
    """The criteria with the CA's id for its name. Raises NotFound (field criteria.ca)."""
    ca = criteria.ca
    if ca is not None:
        found = await services.port(certificates.AuthorityDirectory).find(tx, account_id, ca)
        if found is None:
            raise not_found("CA", ca[:80]).at("criteria.ca")
        ca = found[0]
    return certificates.Match(
        ca, criteria.key_algorithm, criteria.issuer, criteria.issued_before, criteria.names, criteria.project_id
    )


async def _destination(tx: Tx, services: Services, account_id: str, ca: str | None) -> Destination | None:
    if ca is None:
        return None
    found = await services.port(certificates.AuthorityDirectory).find(tx, account_id, ca)
    if found is None:
        raise not_found("CA", ca[:80]).at("to_ca")
    return Destination(found[0], frozenset(found[1].capabilities.methods))


async def _estimate(
    tx: Tx, account_id: str, left: dict[str, int] | Counter[str], deadline: datetime, per_hour: int, now: datetime
) -> Estimate:
    known = {row.ca: row.per_minute for row in await queue_store.queues(tx, account_id)}
    own = {certificates.BUILTIN_CA: rules.OWN_PER_MINUTE}
    rates = {ca: known.get(ca) or own.get(ca, rules.OUTSIDE_PER_MINUTE) for ca in left}
    return rules.estimate(now=now, deadline=deadline, per_hour=per_hour, left=left, per_minute=rates)


async def start(
    services: Services,
    actor: Actor,
    criteria: Criteria,
    *,
    name: str,
    reason: CampaignReason,
    deadline: datetime,
    per_hour: int,
    priority: Priority = Priority.BOUND_FIRST,
    to_ca: str | None = None,
    project_id: str | None = None,
) -> Campaign:
    """Start a mass replacement of what matches among the certificates the actor may reissue, by versions of the CA
    `to_ca` (id or name) if one is given. Nobody is asked again: look at `preview` first."""
    now = services.clock.now()
    rules.judge_criteria(criteria)
    rules.judge_campaign(name, per_hour, deadline, now)
    campaign_id = new_id("cmp", now)
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "scm:campaign:create", project_id)
        match = await _match(tx, services, actor.account_id, criteria)
        to = await _destination(tx, services, actor.account_id, to_ca)
        if to is not None:
            certificates.may_order(services, actor, to.ca, project)
        await store.insert_campaign(
            tx, id=campaign_id, account_id=actor.account_id, project_id=project, name=name, reason=reason.value,
            criteria={**criteria.as_dict(), **({"ca": match.ca} if match.ca else {})}, deadline=deadline,
            per_hour=per_hour, priority=priority.value, to_ca=to.ca if to is not None else None,
            state=CampaignState.PLANNING.value,
            started_by=_kept_actor(actor), tokens=1.0, filled_at=now, created_at=now,
            next_step_at=services.jobs.due_when_started(),
        )  # fmt: skip
        await services.jobs.announce(tx, STEP, campaign_id)
        row = await store.campaign(tx, campaign_id)
        await _tell(tx, services, actor, row, "started", action="scm:campaign:create")
        return await _view(tx, row, now)


def _kept_actor(actor: Actor) -> dict[str, Any]:
    """Who started it and which certificates they could reissue then: planning goes on when they have gone."""
    return {
        "kind": actor.kind, "id": actor.id, "name": actor.name, "user_id": actor.user_id,
        "grants": [
            {
                "policy": grant.policy, "project_id": grant.project_id,
                "statements": [[s.effect, list(s.actions), list(s.resources)] for s in grant.statements],
            }
            for grant in actor.grants
        ],
    }  # fmt: skip


def _actor_of(row: store.Row) -> Actor:
    kept = row.started_by
    grants = tuple(
        Grant(
            grant["policy"],
            tuple(Statement(effect, tuple(actions), tuple(names)) for effect, actions, names in grant["statements"]),
            grant["project_id"],
        )
        for grant in kept["grants"]
    )
    return Actor(kept["kind"], kept["id"], kept["name"], row.account_id, grants, kept["user_id"])


# --- reading and steering --------------------------------------------------------------------------------------------


async def list_campaigns(
    services: Services, actor: Actor, *, after: str | None = None, limit: int = 20
) -> list[Campaign]:
    """Newest first; `after` is the id of the last one seen."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        rows = await store.page(tx, access.visible(campaigns, actor, "scm:campaign:list"), after=after, limit=limit)
        return [await _view(tx, row, now) for row in rows]


async def get_campaign(services: Services, actor: Actor, campaign_id: str) -> Campaign:
    async with services.db.moment() as tx:
        row = await _visible(tx, actor, "scm:campaign:get", campaign_id)
        return await _view(tx, row, services.clock.now())


async def list_items(
    services: Services,
    actor: Actor,
    campaign_id: str,
    *,
    state: ItemState | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[CampaignItem]:
    """In order of planning; of certificates the actor may see."""
    async with services.db.begin() as tx:
        await _visible(tx, actor, "scm:campaign:get", campaign_id)
        visible = access.visible(campaign_items, actor, "scm:cert:list")
        rows = await store.items(tx, visible, campaign_id, state=state, after=after, limit=limit)
    return [
        CampaignItem(
            row.id, row.certificate_id, row.name, row.ca, row.not_after, row.bound, ItemState(row.state),
            row.reason_code, row.reason, row.attempts, row.retry_at, row.application_id, row.ended_at,
        )
        for row in rows
    ]  # fmt: skip


async def pause(services: Services, actor: Actor, campaign_id: str) -> Campaign:
    """No further items go; those under way end."""
    return await _steer(services, actor, campaign_id, "paused", (CampaignState.RUNNING,), CampaignState.PAUSED)


async def resume(services: Services, actor: Actor, campaign_id: str) -> Campaign:
    return await _steer(services, actor, campaign_id, "resumed", (CampaignState.PAUSED,), CampaignState.RUNNING)


async def cancel(services: Services, actor: Actor, campaign_id: str) -> Campaign:
    """For good; what was replaced stays replaced, what is under way ends."""
    leaves = (CampaignState.PLANNING, CampaignState.RUNNING, CampaignState.PAUSED)
    return await _steer(services, actor, campaign_id, "cancelled", leaves, CampaignState.CANCELLED)


async def retry(services: Services, actor: Actor, campaign_id: str) -> Campaign:
    """Let the failed items wait for another turn, now and with all their attempts."""
    leaves = (CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.FINISHED)
    return await _steer(services, actor, campaign_id, "retried", leaves, CampaignState.RUNNING)


async def set_rate(services: Services, actor: Actor, campaign_id: str, per_hour: int) -> Campaign:
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:campaign:update", campaign_id, lock=True)
        rules.judge_campaign(row.name, per_hour, now + _PAUSE, now)
        await store.update(tx, campaign_id, per_hour=per_hour, tokens=_filled(row, now), filled_at=now)
        await audit.record(
            tx, services, actor, "scm:campaign:update", "campaign", campaign_id, project_id=row.project_id,
            before={"per_hour": row.per_hour}, after={"per_hour": per_hour},
        )  # fmt: skip
        if row.state == CampaignState.RUNNING:
            await services.jobs.start(tx, STEP, campaign_id)
        return await _view(tx, await store.campaign(tx, campaign_id), now)


async def _visible(tx: Tx, actor: Actor, action: str, campaign_id: str, *, lock: bool = False) -> store.Row:
    row = await store.campaign(tx, campaign_id, access.visible(campaigns, actor, "scm:campaign:get"), lock=lock)
    if row is None:
        raise not_found("campaign", campaign_id)
    access.require(actor, action, project_id=row.project_id, resource=f"campaign:{campaign_id}")
    return row


async def _steer(
    services: Services,
    actor: Actor,
    campaign_id: str,
    word: str,
    leaves: Sequence[CampaignState],
    enters: CampaignState,
) -> Campaign:
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:campaign:update", campaign_id, lock=True)
        over = enters is CampaignState.CANCELLED
        values: dict[str, Any] = {"ended_at": now if over else None}
        if not await store.move(tx, campaign_id, leaves, enters, **values):
            raise Refused(
                "campaign_state", f"A mass replacement that is {row.state} can't be {word}.",
                fix=f"That takes one that is {' or '.join(leaves)}.", extra={"state": row.state},
            )  # fmt: skip
        mine = _I.campaign_id == campaign_id
        if over:
            await store.settle(
                tx, [mine], ItemState.SKIPPED, leaves=[ItemState.WAITING], reason_code="cancelled",
                reason="The mass replacement was cancelled.", ended_at=now,
            )  # fmt: skip
        if word == "retried":
            await store.settle(
                tx, [mine], ItemState.WAITING, leaves=[ItemState.FAILED], attempts=0, retry_at=None, ended_at=None
            )
        if enters is CampaignState.RUNNING:
            await services.jobs.start(tx, STEP, campaign_id)
        await _tell(tx, services, actor, row, word)
        return await _view(tx, await store.campaign(tx, campaign_id), now)


async def _tell(
    tx: Tx, services: Services, actor: Actor, row: store.Row, word: str, *, action: str = "scm:campaign:update"
) -> None:
    counts = {state.value: getattr(row, state.value) for state in ItemState}
    await audit.record(
        tx, services, actor, action, "campaign", row.id, project_id=row.project_id,
        after={"name": row.name, "criteria": row.criteria, "deadline": row.deadline.isoformat(),
               "per_hour": row.per_hour, "to_ca": row.to_ca, "done": word, "counts": counts},
        reason=row.reason,
    )  # fmt: skip
    await services.events.publish(
        tx, f"renewal.campaign_{word}", account_id=row.account_id, object_id=row.id,
        payload={"name": row.name, "reason": row.reason, "counts": counts},
    )  # fmt: skip


async def _view(tx: Tx, row: store.Row, now: datetime) -> Campaign:
    estimate = None
    if row.state in (CampaignState.RUNNING, CampaignState.PAUSED):
        left = await store.left_by_ca(tx, row.id)
        estimate = await _estimate(tx, row.account_id, left, row.deadline, row.per_hour, now)
    return Campaign(
        row.id, row.project_id, row.name, row.reason, row.criteria, row.deadline, row.per_hour, row.priority,
        row.to_ca, CampaignState(row.state), {state.value: getattr(row, state.value) for state in ItemState},
        row.created_at, row.ended_at, row.started_by["name"], estimate,
    )  # fmt: skip


# --- the campaign's step ---------------------------------------------------------------------------------------------


async def campaign_step(services: Services, campaign_id: str) -> Next:
    """Plan the next page, or let the next items go, or find that all have ended."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await store.campaign(tx, campaign_id, lock=True)
        if row is None:
            return None
        if row.state == CampaignState.PLANNING:
            return await _plan_page(tx, services, row, now)
        if row.state != CampaignState.RUNNING:
            return None
        if row.waiting + row.going == 0:
            await store.move(tx, campaign_id, [CampaignState.RUNNING], CampaignState.FINISHED, ended_at=now)
            await _tell(tx, services, system_actor(row.account_id, "renewal"), row, "finished")
            return None
        return await _let_go(tx, services, row, now)


async def _plan_page(tx: Tx, services: Services, row: store.Row, now: datetime) -> Next:
    match = await _match(tx, services, row.account_id, Criteria.of(row.criteria))
    found = await certificates.standing(
        tx, _actor_of(row), "scm:cert:renew", match, now, after=row.planned_after, limit=_PAGE
    )
    serving = await services.port(Serving).serving(tx, [one.certificate_id for one in found])
    to = await _destination(tx, services, row.account_id, row.to_ca)
    rows = []
    for one in found:
        verdict = rules.replaceable(one, to)
        rows.append({
            "id": new_id("cmi", now), "campaign_id": row.id, "certificate_id": one.certificate_id,
            "account_id": one.account_id, "project_id": one.project_id, "name": one.name,
            "ca": to.ca if to is not None else one.ca,
            "version_id": one.version_id, "not_after": one.not_after, "bound": one.certificate_id in serving,
            "state": verdict.state.value, "reason_code": verdict.code, "reason": verdict.reason,
        })  # fmt: skip
    await store.add_items(tx, row.id, rows)
    if len(found) == _PAGE:
        await store.update(tx, row.id, planned_after=found[-1].certificate_id)
        return timedelta(0)
    await store.move(tx, row.id, [CampaignState.PLANNING], CampaignState.RUNNING, planned_at=now, filled_at=now)
    cas = {to.ca} if to is not None else {one.ca for one in found}
    await queue_store.wake(tx, {(row.account_id, ca): now for ca in cas}, now)
    return timedelta(0)


def _filled(row: store.Row, now: datetime) -> float:
    passed = max(now - row.filled_at, timedelta(0)) / _HOUR
    return float(min(rules.hourly_capacity(row.per_hour), row.tokens + passed * rules.hourly_inflow(row.per_hour)))


async def _let_go(tx: Tx, services: Services, row: store.Row, now: datetime) -> Next:
    """Items whose turn it is, as many as the campaign and their CAs have tokens for; a campaign is urgent to the CAs'
    buckets. Answers when to look again."""
    tokens = _filled(row, now)
    waiting = await store.waiting_by_ca(tx, row.id, now)
    if not waiting:
        retry_at = await store.next_retry(tx, row.id)
        return min(_LOOK_IN, max(retry_at - now, _PAUSE)) if retry_at else _LOOK_IN
    queues = {queue.ca: queue for queue in await queue_store.lock_queues(tx, row.account_id, list(waiting))}
    missing = {(row.account_id, ca): now for ca in waiting if ca not in queues}
    if missing:
        await queue_store.wake(tx, missing, now)
        return _PAUSE
    held = {ca: rules.filled(queue_store.bucket_of(queue), now) for ca, queue in queues.items()}
    room = {ca: rules.whole(tokens_there) for ca, tokens_there in held.items()}
    limit = min(rules.whole(tokens), _MOST_AT_ONCE)
    chosen = await store.choose(tx, row.id, Priority(row.priority), room, now, limit=limit) if limit else []
    if chosen:
        going = await store.settle(
            tx, [is_one_of(_I.id, [one.id for one in chosen])], ItemState.GOING, leaves=[ItemState.WAITING],
            intended_at=None, application_before=None, application_id=None,
        )  # fmt: skip
        for ca, count in Counter(one.ca for one in chosen).items():
            took = await queue_store.take(tx, queues[ca].id, count, held[ca], now)
            assert took, "no more were chosen than there are tokens, and the queue is locked"
        await store.update(tx, row.id, tokens=max(tokens - len(going), 0.0), filled_at=now)
        await services.jobs.start(tx, ITEM_STEP, *(one.id for one in going))
    if sum(waiting.values()) == len(chosen):
        return _LOOK_IN
    # The next token of the campaign, or of whichever CA was the narrower.
    own = _HOUR * (max(0.0, 1 - (tokens - len(chosen))) / rules.hourly_inflow(row.per_hour))
    cas = min(_next_token(queues[ca], held[ca], now) for ca in waiting)
    return max(own, cas if limit > len(chosen) else timedelta(0), _PAUSE)


def _next_token(queue: store.Row, held: float, now: datetime) -> timedelta:
    bucket: Bucket = queue_store.bucket_of(queue)
    return rules.until_token(bucket, held - int(held))


# --- an item's step --------------------------------------------------------------------------------------------------


async def replace_step(services: Services, item_id: str) -> Next:
    """Ask for the reissue of one item, once: the intention is written down first, with the newest application there was
    then, and the certificate tells a later run whether the reissue was asked for."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        item = await store.item(tx, item_id)
    if item is None or item.state != ItemState.GOING:
        return None
    actor = system_actor(item.account_id, "renewal")
    try:
        detail = await certificates.get_certificate(services, actor, item.certificate_id)
    except NotFound:
        await _end(services, [_I.id == item_id], ItemState.SKIPPED, "deleted", "The certificate was deleted.")
        return None
    newest = detail.application.id if detail.application is not None else None
    if item.intended_at is None:
        async with services.db.begin() as tx:
            if not await store.record_item(tx, item_id, "intended_at", intended_at=now, application_before=newest):
                return None
        return timedelta(0)
    current = next((version.id for version in detail.versions if version.superseded_at is None), None)
    facts = rules.ItemFacts(item.version_id, item.application_before, newest, current, detail.summary.state)
    match rules.next_move(facts):
        case Move.DONE:
            await _end(services, [_I.id == item_id], ItemState.REPLACED, "", "")
        case Move.ADOPT:
            return await _adopt(services, item, detail.application)
        case Move.LATER:
            return _LOOK_IN
        case Move.OVER:
            state = detail.summary.state
            await _end(services, [_I.id == item_id], ItemState.SKIPPED, state.value, f"The certificate is {state}.")
        case Move.REISSUE:
            return await _reissue(services, actor, item)
    return None


async def _reissue(services: Services, actor: Actor, item: store.Row) -> Next:
    try:
        application_id = await certificates.renew_version(services, actor, item.certificate_id, at_ca=item.to_ca)
    except (Refused, Invalid, InvalidFields) as refused:
        if refused.code == "state_changed":
            raise Again(timedelta(minutes=1), refused) from refused
        log.warning("replacement refused", certificate=item.certificate_id, code=refused.code)
        await _failed(services, [_I.id == item.id], refused.code, refused.message)
        return None
    async with services.db.begin() as tx:
        await store.record_item(tx, item.id, "application_id", application_id=application_id)
    return _UNDER_WAY


async def _adopt(services: Services, item: store.Row, application: certificates.ApplicationView | None) -> Next:
    """The reissue was asked for: by us, by a run that was killed before it could say so, or by somebody else; either
    way one is made. Events tell how it ends; this look is for one that was lost, or came before we knew it was ours."""
    assert application is not None
    async with services.db.begin() as tx:
        await store.record_item(tx, item.id, "application_id", application_id=application.id)
    if application.failed_at is not None or application.withdrawn_at is not None:
        failure = application.failure or {"code": "withdrawn", "message": "The reissue was withdrawn."}
        await _failed(services, [_I.id == item.id], str(failure["code"]), str(failure["message"]))
        return None
    return _UNDER_WAY


# --- how it ended ----------------------------------------------------------------------------------------------------


async def version_issued(services: Services, told: Sequence[Event]) -> None:
    """Listener: a certificate with a newer version is replaced, whoever asked for it."""
    versions = {str(event.payload["version_id"]) for event in told}
    mine = is_one_of(_I.certificate_id, sorted({event.object_id for event in told}))
    others = sa.not_(is_one_of(_I.version_id, sorted(versions)))
    await _end(services, [mine, others], ItemState.REPLACED, "", "")


async def attempt_over(services: Services, event: Event) -> None:
    """Listener: the reissue failed or was withdrawn."""
    failure = event.payload.get("failure") or {"code": "withdrawn", "message": "The reissue was withdrawn."}
    application_id = str(event.payload["application_id"])
    ours = sa.or_(
        _I.application_id == application_id,
        # Asked for by a run that hasn't said so yet.
        sa.and_(_I.application_id.is_(None), _I.intended_at.is_not(None),
                _I.application_before.is_distinct_from(application_id)),
    )  # fmt: skip
    where = [_I.certificate_id == event.object_id, ours]
    await _failed(services, where, str(failure.get("code", "")), str(failure.get("message", "")))


async def moved(services: Services, event: Event) -> None:
    """Listener: items are seen by whoever sees the certificate."""
    async with services.db.begin() as tx:
        await tx.execute(certificates.followed(campaign_items, _I.certificate_id, event.object_id))


async def _end(
    services: Services, where: Sequence[sa.ColumnElement[bool]], enters: ItemState, code: str, reason: str
) -> None:
    now = services.clock.now()
    async with services.db.begin() as tx:
        ended = await store.settle(
            tx, where, enters, leaves=_OPEN, reason_code=code, reason=reason[:500], ended_at=now, next_step_at=None
        )
        await _wake(tx, services, ended, campaigns.c.waiting + campaigns.c.going == 0)


async def _failed(services: Services, where: Sequence[sa.ColumnElement[bool]], code: str, reason: str) -> None:
    """Another attempt after a while, or none when there were enough."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        words: dict[str, Any] = {"reason_code": code, "reason": reason[:500], "next_step_at": None}
        failed = await store.settle(
            tx, where, ItemState.WAITING, leaves=[ItemState.GOING], attempts=_I.attempts + 1, intended_at=None,
            application_before=None, application_id=None, **words,
        )  # fmt: skip
        for row in failed:
            wait = rules.item_retry(row.attempts)
            here = [_I.id == row.id]
            if wait is None:
                await store.settle(tx, here, ItemState.FAILED, leaves=[ItemState.WAITING], ended_at=now)
            else:
                await tx.execute(sa.update(campaign_items).where(*here).values(retry_at=now + wait))
        await _wake(tx, services, failed, sa.true())


async def _wake(tx: Tx, services: Services, rows: Sequence[store.Row], when: sa.ColumnElement[bool]) -> None:
    """Have those of their campaigns look at once that run and for which this holds."""
    ids = sorted({row.campaign_id for row in rows})
    query = sa.select(campaigns.c.id).where(
        is_one_of(campaigns.c.id, ids), campaigns.c.state == CampaignState.RUNNING.value, when
    )
    await services.jobs.start(tx, STEP, *(await tx.scalars(query)).all())
