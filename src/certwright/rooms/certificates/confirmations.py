"""No OV or EV version is revoked, at once or after a reissue, before its applicant agreed: by a link mailed to them.

The link holds 256 random bits, of which only a hash is kept, works once, and is good for 30 days. Opening it changes
nothing, because mail scanners open links; confirming is a POST of its own. A key known to others can't wait for mail
(BR 4.9.1.1), a CA that checks organisations asks by itself, and where the applicant's data was withdrawn there is
nobody to ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Refused, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, accounts, audit
from certwright.rooms.certificates import rules, store, views
from certwright.rooms.certificates.actions import REVOKE_STEP
from certwright.rooms.certificates.ports import Capabilities, Letter, Mail
from certwright.rooms.certificates.tables import certificates, confirmations

LINK_PATH = "/confirm-revocation?token="
# Looked at now and then, for the case that the link was followed while nobody could be told.
LOOK_AGAIN = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class MailedRevocation:
    """What a mailed link is about."""

    certificate_name: str
    names: tuple[str, ...]
    reason: str
    serial: str
    address: str
    expires_at: datetime


async def still_wanted(tx: Tx, services: Services, can: Capabilities, certificate: Any, version: Any) -> bool:
    """Whether the revocation of this version has yet to be confirmed; the first time, and when a link ran out
    unanswered, writes to the applicant."""
    now = services.clock.now()
    application = await store.application(tx, version.application_id) if version.application_id else None
    if application is None or not rules.needs_confirmation(
        certificate_type=application.certificate_type, reason=version.revocation_reason,
        asks_itself=can.checks_organisations, has_applicant=application.applicant is not None,
    ):  # fmt: skip
        return False
    # A step that outlived its lease runs beside the next one: one of them writes the letter.
    await store.certificate(tx, certificate.id, lock=True)
    c = confirmations.c
    known = (
        await tx.execute(
            sa.select(c.confirmed_at, c.expires_at).where(c.version_id == version.id).order_by(c.id.desc()).limit(1)
        )
    ).one_or_none()
    if known is not None and known.confirmed_at is not None:
        return False
    if known is None or known.expires_at <= now:
        await _write(tx, services, certificate, version, application.applicant, now)
    return True


async def mail_again(services: Services, actor: Actor, certificate_id: str) -> None:
    """Send the applicant a new link for every revocation that waits for one; the links before it are dead then.

    Raises NotFound, Forbidden, Refused `no_confirmation_awaited`, TooMany `mailing_too_soon`.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await store.certificate(
            tx, certificate_id, access.visible(certificates, actor, "scm:cert:get"), lock=True
        )  # fmt: skip
        if row is None:
            raise not_found("certificate", certificate_id)
        resource = f"certificate:{certificate_id}"
        access.require(actor, "scm:cert:revoke", project_id=row.project_id, resource=resource)
        known = views.confirmation_views(await store.confirmation_list(tx, certificate_id), now)
        waiting = {link.version_id: link for link in known if link.state in ("waiting", "ran_out")}
        done = {link.version_id for link in known if link.state == "confirmed"}
        open_versions = [
            version
            for version in await store.version_list(tx, certificate_id)
            if version.id in waiting and version.id not in done and version.revoked_at is None
        ]
        latest = max((waiting[version.id].mailed_at for version in open_versions), default=None)
        why_not = rules.why_not_mail_again(waits=bool(open_versions), mailed_at=latest, now=now)
        if why_not is not None:
            raise why_not
        for version in open_versions:
            application = await store.application(tx, version.application_id)
            if application is None or application.applicant is None:
                continue
            c = confirmations.c
            await tx.execute(
                sa.update(confirmations)
                .where(c.version_id == version.id, c.confirmed_at.is_(None), c.expires_at > now)
                .values(expires_at=now)
            )
            await _write(tx, services, row, version, application.applicant, now)
        await audit.record(
            tx, services, actor, "scm:cert:revoke", "certificate", certificate_id, project_id=row.project_id,
            after={"versions": [version.number for version in open_versions]}, reason="the link was mailed again",
        )  # fmt: skip


async def _write(
    tx: Tx, services: Services, certificate: Any, version: Any, applicant: dict[str, str], now: datetime
) -> None:
    secret, confirmation_id, until = accounts.new_secret(), new_id("cnf", now), now + rules.LINK_GOOD_FOR
    await tx.execute(
        sa.insert(confirmations).values(
            id=confirmation_id, account_id=version.account_id, project_id=version.project_id,
            certificate_id=certificate.id, version_id=version.id, address=applicant["email"],
            token_hash=accounts.hash_secret(secret), created_at=now, expires_at=until,
        )
    )  # fmt: skip
    letter = Letter(
        version.account_id, certificate.id, confirmation_id, applicant["email"], applicant["name"], certificate.name,
        tuple(version.names), version.serial, version.revocation_reason,
        services.settings.base_url + LINK_PATH + secret, until,
    )  # fmt: skip
    await services.port(Mail).write(tx, services, letter)


async def look_link(services: Services, secret: str) -> MailedRevocation:
    """What a link is about; changes nothing. Raises Invalid `mailed_link_unknown`, Refused `mailed_link_over`."""
    async with services.db.begin() as tx:
        return await _shown(tx, await _linked(tx, services, secret))


async def confirm(services: Services, secret: str) -> MailedRevocation:
    """The applicant agrees: the CA is told next. Raises as `look_link`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        link = await _linked(tx, services, secret)
        used = await tx.execute(
            sa.update(confirmations)
            .where(confirmations.c.id == link.id, confirmations.c.confirmed_at.is_(None))
            .values(confirmed_at=now)
        )
        if not used.rowcount:
            raise _over()
        await services.jobs.start(tx, REVOKE_STEP, link.version_id)
        await audit.record(
            tx, services, Actor("system", "mailbox", f"whoever reads {link.address}", link.account_id),
            "scm:cert:revoke", "certificate", link.certificate_id, project_id=link.project_id,
            after={"version": link.version_id}, reason="confirmed by the link mailed to the applicant",
        )  # fmt: skip
        return await _shown(tx, link)


async def _linked(tx: Tx, services: Services, secret: str) -> Any:
    query = sa.select(confirmations).where(confirmations.c.token_hash == accounts.hash_secret(secret))
    link = (await tx.execute(query)).one_or_none()
    if link is None:
        raise Invalid(
            "mailed_link_unknown", "The link is not one of ours, or not complete.",
            fix="Follow the link of the newest mail, to its last character.",
        )  # fmt: skip
    if link.confirmed_at is not None or link.expires_at <= services.clock.now():
        raise _over()
    return link


async def _shown(tx: Tx, link: Any) -> MailedRevocation:
    version = await store.version(tx, link.version_id)
    certificate = await store.certificate(tx, link.certificate_id)
    if version is None or certificate is None:
        raise _over()
    return MailedRevocation(
        certificate.name, tuple(version.names), version.revocation_reason or "", version.serial, link.address,
        link.expires_at,
    )  # fmt: skip


def _over() -> Refused:
    return Refused(
        "mailed_link_over", "The link was used before or is too old.",
        fix="Ask whoever applies for the certificate to have it sent again.",
    )  # fmt: skip
