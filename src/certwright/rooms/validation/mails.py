"""Showing a domain by mail: a link to each of its five mailboxes, followed by whoever reads one of them.

A link holds 256 random bits, of which only a hash is kept here, works once, and ends with its challenge. Opening it
changes nothing, because mail scanners open links; confirming is a POST of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Refused, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, accounts, audit
from certwright.rooms.validation import ledger, rules, store
from certwright.rooms.validation.ports import Letter, Mail
from certwright.rooms.validation.tables import challenges
from certwright.rooms.validation.words import ChallengeStatus, MailedLink, Mailing, Method

LINK_PATH = "/confirm-domain?token="


async def write_all(tx: Tx, services: Services, subject_id: str, now: datetime) -> None:
    """Write to the mailboxes of every domain of an application that is to be shown by mail, for the first time."""
    rows = [row for row in await store.of_subject(tx, subject_id) if _waits(row, now)]
    for domain, group in groupby(sorted(rows, key=lambda row: row.domain), key=lambda row: row.domain):
        await _write(tx, services, list(group), domain, 1, now)


def _waits(row: store.Row, now: datetime) -> bool:
    status = rules.challenge_status(
        validated_at=row.validated_at, cancelled_at=row.cancelled_at, expires_at=row.expires_at, now=now
    )
    return row.method == Method.EMAIL and status is ChallengeStatus.PENDING


async def _write(
    tx: Tx, services: Services, rows: Sequence[store.Row], domain: str, mailing: int, now: datetime
) -> None:
    first = rows[0]
    account_name = await _account_name(tx, first.account_id)
    names = tuple(row.name for row in rows)
    until = min(row.expires_at for row in rows)
    links = []
    for address in rules.mailboxes(domain):
        secret = accounts.new_secret()
        link_id = new_id("vml", now)
        links.append({
            "id": link_id, "account_id": first.account_id, "project_id": first.project_id,
            "subject_id": first.subject_id, "domain": domain, "address": address, "mailing": mailing, "sent_at": now,
            "token_hash": accounts.hash_secret(secret), "expires_at": until,
        })  # fmt: skip
        letter = Letter(
            first.account_id, first.subject_id, link_id, address, account_name, domain, names,
            services.settings.base_url + LINK_PATH + secret, until,
        )  # fmt: skip
        await services.port(Mail).write(tx, services, letter)
    await store.insert_links(tx, links)


async def mailings_of(tx: Tx, subject_id: str) -> dict[str, Mailing]:
    """What was mailed for an application, by domain."""
    return mailings(await store.links_of(tx, [subject_id]))


def mailings(links: Sequence[store.Row]) -> dict[str, Mailing]:
    """From rows of `store.links_of` of one application."""
    found: dict[str, Mailing] = {}
    for link in links:
        found[link.domain] = Mailing(link.domain, rules.mailboxes(link.domain), link.sent_at, link.mailing)
    return found


async def resend(services: Services, actor: Actor, challenge_id: str) -> Mailing:
    """Write once more to the mailboxes of one pending name's domain; earlier links stay good.

    Raises NotFound, Refused `mailing_not_needed` or `mailings_spent`, TooMany `mailing_too_soon`.
    """
    now = services.clock.now()
    visible = access.visible(challenges, actor, "scm:validation:check")
    async with services.db.begin() as tx:
        row = await store.challenge(tx, challenge_id)
        rows = await store.of_subject(tx, row.subject_id, visible) if row is not None else ()
        if row is None or challenge_id not in [one.id for one in rows]:
            raise not_found("validation", challenge_id)
        await store.lock_subject(tx, row.subject_id)
        waiting = [one for one in await store.of_subject(tx, row.subject_id) if _waits(one, now)]
        same = [one for one in waiting if one.domain == row.domain]
        if challenge_id not in [one.id for one in same]:
            raise Refused(
                "mailing_not_needed", f"{row.name} doesn't wait for a mail to be confirmed.",
                fix="Look at what it waits for.",
            )  # fmt: skip
        before = (await mailings_of(tx, row.subject_id)).get(row.domain)
        if refusal := rules.why_not_mail(before, now):
            raise refusal
        number = before.mailings + 1 if before is not None else 1
        await _write(tx, services, same, row.domain, number, now)
        await audit.record(
            tx, services, actor, "scm:validation:mail", "validation", challenge_id, project_id=row.project_id,
            after={"domain": row.domain, "mailing": number},
        )  # fmt: skip
        return Mailing(row.domain, rules.mailboxes(row.domain), now, number)


async def look_link(services: Services, secret: str) -> MailedLink:
    """What a mailed link is about; changes nothing. Raises Invalid `mailed_link_unknown`, Refused `mailed_link_over` or
    `domain_not_waiting`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        link, rows = await _linked(tx, secret, now)
        account_name = await _account_name(tx, link.account_id)
    return _shown(link, rows, account_name)


async def confirm(services: Services, secret: str) -> MailedLink:
    """Whoever reads the mailbox agrees: every name of the application below the domain is shown. Raises as
    `look_link`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        link, _ = await _linked(tx, secret, now)
        # Of two people who confirm at once the second finds nothing waiting.
        await store.lock_subject(tx, link.subject_id)
        link, rows = await _linked(tx, secret, now)
        if not await store.use_link(tx, link.id, now):
            raise _over()
        actor = Actor("system", "mailbox", f"whoever reads {link.address}", link.account_id)
        seen = {
            "message": f"The link mailed to {link.address} was confirmed.", "domain": link.domain,
            "address": link.address, "mailed_at": link.sent_at.isoformat(), "mailing": link.mailing,
        }  # fmt: skip
        for row in rows:
            await ledger.keep(tx, services, actor, row, seen, now)
        account_name = await _account_name(tx, link.account_id)
    return _shown(link, rows, account_name)


def _shown(link: store.Row, rows: Sequence[store.Row], account_name: str) -> MailedLink:
    return MailedLink(account_name, link.domain, tuple(row.name for row in rows), link.address, link.expires_at)


async def _account_name(tx: Tx, account_id: str) -> str:
    account = await accounts.store.get_account(tx, account_id)
    assert account is not None, "rows of an account keep it"
    return account.name


async def _linked(tx: Tx, secret: str, now: datetime) -> tuple[store.Row, Sequence[store.Row]]:
    """The link and the names that wait for it."""
    link = await store.link(tx, accounts.hash_secret(secret))
    if link is None:
        raise Invalid(
            "mailed_link_unknown", "The link is not one of ours, or not complete.",
            fix="Follow the link of the newest mail, to its last character.",
        )  # fmt: skip
    if link.used_at is not None or link.expires_at <= now:
        raise _over()
    rows = [row for row in await store.of_subject(tx, link.subject_id) if _waits(row, now)]
    rows = [row for row in rows if row.domain == link.domain]
    if not rows:
        raise Refused(
            "domain_not_waiting", f"Control of {link.domain} was shown already, or isn't asked for any more.",
            fix="Nothing needs to be done.",
        )  # fmt: skip
    return link, rows


def _over() -> Refused:
    return Refused(
        "mailed_link_over", "The link was used before or is too old.",
        fix="Ask whoever applies for the certificate to have it sent again.",
    )  # fmt: skip
