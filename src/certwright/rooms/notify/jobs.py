"""Sending what is in the outbox, reminding before expiry, and telling about alarms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from certwright.kernel.actor import system_actor
from certwright.kernel.problems import NotFound, Unavailable
from certwright.platform.db import Tx
from certwright.platform.events import Event
from certwright.platform.jobs import Again, Next
from certwright.platform.services import Services
from certwright.rooms import certificates
from certwright.rooms.notify import actions, applicants, letters, mailboxes, revocations, rules, store
from certwright.rooms.notify.ports import Channel
from certwright.rooms.notify.words import Letter, NotSentError

log = structlog.get_logger(__name__)

EXPIRY_STEP = "notify.expiry"
_FORGOTTEN_AT_ONCE = 1000

# A code, or the token of a link, isn't kept in clear once it was sent, or given up.
_SECRET_KINDS = frozenset(("recipient.verification", mailboxes.KIND, revocations.KIND)) | applicants.SECRET_KINDS


def _wiped(row: Any) -> dict[str, Any]:
    return {"text": "", "html": ""} if row.kind in _SECRET_KINDS else {}


async def send_step(services: Services, message_id: str) -> Next:
    """Hand one message over.

    Between "being handed over" and "sent" a crash leaves us in doubt. Then the message is sent again with the same
    Message-ID: a person who gets it twice sees one in a mail program that compares ids, and nobody gets none.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await store.claim_message(tx, message_id, now)
    if row is None:
        return None
    if row.in_doubt:
        log.warning("message may have been sent before", message_id=message_id, times=row.in_doubt)
    letter = Letter(
        row.id, row.to_address, row.to_name, row.subject, row.text, row.html, row.locale, row.created_at
    )  # fmt: skip
    try:
        if Channel not in services.ports:
            raise NotSentError(_not_configured(), permanent=False)
        receipt = await services.port(Channel).send(letter)
    except NotSentError as refusal:
        await _not_sent(services, row, refusal)
        return None
    async with services.db.begin() as tx:
        await store.end_attempt(
            tx, message_id, sent_at=services.clock.now(), reply=rules.one_line(receipt.reply), **_wiped(row)
        )
    return None


def _not_configured() -> Unavailable:
    return Unavailable(
        "smtp_not_configured", "No mail server is set, so that messages can't be sent.", field="CERTWRIGHT_SMTP_HOST",
        fix="Set smtp_host and, where the server wants them, smtp_username and smtp_password.",
    )  # fmt: skip


async def _not_sent(services: Services, row: Any, refusal: NotSentError) -> None:
    now = services.clock.now()
    pause = None if refusal.permanent else rules.retry_after(row.attempts, now - row.created_at)
    async with services.db.begin() as tx:
        if pause is None:
            await store.end_attempt(tx, row.id, failed_at=now, failure=refusal.problem.as_dict(), **_wiped(row))
        else:
            await store.end_attempt(tx, row.id)
    if pause is None:
        log.warning("message given up", message_id=row.id, code=refusal.problem.code, reason=refusal.problem.message)
        return
    raise Again(pause, refusal.problem)


async def forget(services: Services) -> None:
    """Chore: drop messages that ended longer ago than the setting says, some at a time."""
    before = services.clock.now() - timedelta(days=services.settings.messages_days)
    dropped = _FORGOTTEN_AT_ONCE
    while dropped == _FORGOTTEN_AT_ONCE:
        async with services.db.begin() as tx:
            dropped = await store.forget_messages(tx, before, _FORGOTTEN_AT_ONCE)


# Alarms


async def alarm_raised(services: Services, event: Event) -> None:
    await _alarm(services, event, "raised")


async def alarm_changed(services: Services, event: Event) -> None:
    """Told again only when it got worse than what was told; otherwise the console shows the change."""
    if event.payload.get("worse"):
        await _alarm(services, event, "changed")


async def alarm_cleared(services: Services, event: Event) -> None:
    await _alarm(services, event, "cleared")


async def _alarm(services: Services, event: Event, what: str) -> None:
    told, base_url = event.payload, services.settings.base_url
    async with services.db.begin() as tx:
        await actions.tell_everybody(
            tx, services, event.account_id, dedupe_key=f"alarm:{told['change_id']}", kind=f"alarm.{what}",
            object_id=str(told["alarm_id"]), make=lambda: letters.alarm_text(told, what, base_url),
        )  # fmt: skip


# Expiry


async def version_issued(services: Services, told: Sequence[Event]) -> None:
    """Remind about these versions from now on, and about the ones before them no more."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        fresh = await certificates.still_current(tx, told)
        await store.stop_reminding(tx, [version.certificate_id for version in fresh],
                                   but=[version.version_id for version in fresh])  # fmt: skip
        new = await store.insert_versions(
            tx,
            [
                {"id": v.version_id, "next_step_at": _first_look(v, now), "certificate_id": v.certificate_id,
                 "account_id": v.account_id, "project_id": v.project_id, "not_before": v.not_before,
                 "not_after": v.not_after}
                for v in fresh
            ],
        )  # fmt: skip
        await services.jobs.start(tx, EXPIRY_STEP, *(row.id for row in new if row.next_step_at is None))


def _first_look(version: certificates.NewVersion, now: datetime) -> datetime | None:
    """When a reminder may first be due. Mostly that is in weeks, and no step needs to run now; None: at once."""
    first = rules.plan(rules.steps_of(version.not_before, version.not_after), (), now)
    return now + first.wait if first.send is None and first.wait is not None else None


async def reminding_over(services: Services, event: Event) -> None:
    """Of a certificate that was revoked or deleted nobody wants to hear that it expires."""
    async with services.db.begin() as tx:
        await store.stop_reminding(tx, [event.object_id])


async def certificate_moved(services: Services, event: Event) -> None:
    async with services.db.begin() as tx:
        await store.follow_certificate(tx, event.object_id)


async def expiry_step(services: Services, version_id: str) -> Next:
    """Send the reminder that is due, in the transaction that says so, and wait for the next."""
    async with services.db.begin() as tx:
        row = await store.version(tx, version_id)
    if row is None:
        return None
    watcher = system_actor(row.account_id, "notify")
    try:
        certificate = await certificates.get_certificate(services, watcher, row.certificate_id)
    except NotFound:
        return None
    now = services.clock.now()
    steps = rules.steps_of(row.not_before, row.not_after)
    async with services.db.begin() as tx:
        plan = rules.plan(steps, await store.notices_of(tx, version_id), now)
        wanted = certificate.summary.notify
        for skipped in plan.skip:
            await store.insert_notice(tx, version_id, skipped.name, now, sent=False)
        if plan.send is not None and await store.insert_notice(tx, version_id, plan.send.name, now, sent=wanted):
            step = plan.send
            if wanted:
                await _remind(tx, services, row, certificate, step, now)
    return plan.wait


async def _remind(
    tx: Tx, services: Services, row: Any, certificate: certificates.Detail, step: Any, now: datetime
) -> None:
    facts = certificate.summary
    await actions.tell_everybody(
        tx, services, row.account_id, dedupe_key=f"expiry:{row.id}:{step.name}", kind="certificate.expiring",
        object_id=row.certificate_id,
        make=lambda: letters.expiry_text(
            step, certificate_id=facts.id, name=facts.name, names=facts.names, not_after=row.not_after, now=now,
            renews=certificate.renew_at is not None, base_url=services.settings.base_url,
        ),
    )  # fmt: skip
