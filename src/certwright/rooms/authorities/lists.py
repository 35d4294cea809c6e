"""Revoking, and the lists that tell of it (RFC 5280 section 5): one or several for each CA, made anew at once on a
revocation and long before they run out."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, TypedDict, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from certwright.kernel.actor import system_actor
from certwright.kernel.problems import not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import audit
from certwright.rooms.authorities import storage, store
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import authorities, crl_shards, crls, issued_certificates, ocsp_answers
from certwright.rooms.authorities.words import CA_STEP, Crl, CrlHead
from certwright.x509 import crl as crl_format
from certwright.x509.issue import BACKDATE, this_update

# Entries read at once; lists with more of them are drafted beside the loop.
_MANY = 5_000
# Lists kept for readers with a cached number; older ones are dropped when a new one is made.
_CRLS_KEPT = 3
_NOTHING_SEEN = -1


def shard_of(ca: Any, serial: int) -> int:
    """Which list of the CA would name this serial; serials are random, so the lists grow alike."""
    return serial % int(ca.crl_shards)


class Pointers(TypedDict, total=False):
    """As `draft_certificate` takes them."""

    crl_urls: tuple[str, ...]
    aia_url: str | None
    ocsp_url: str | None


def pointers(services: Services, ca: Any, serial: int) -> Pointers:
    """Where what this CA issues says that its issuer and its state are found."""
    return Pointers(
        crl_urls=store.named_crl_urls(services, ca, shard_of(ca, serial)) if ca.crl_enabled else (),
        aia_url=store.certificate_url(services, ca.id),
        ocsp_url=store.ocsp_url(services, ca.id) if ca.ocsp_enabled else None,
    )


async def begin(tx: Tx, services: Services, ca: Any, *, after: int = 0) -> None:
    """The lists of a CA that has just got its certificate; the first of them will have the number `after` + 1."""
    await tx.execute(
        postgresql.insert(crl_shards)
        .values([{"authority_id": ca.id, "shard": shard, "number": after} for shard in range(ca.crl_shards)])
        .on_conflict_do_update(index_elements=["authority_id", "shard"], set_={"number": after})
    )
    await services.jobs.start(tx, CA_STEP, ca.id)


async def widen(tx: Tx, services: Services, authority_id: str, shards: int) -> None:
    """At least so many lists; those that are there stay, because certificates point at them."""
    added = await tx.execute(
        postgresql.insert(crl_shards)
        .values([{"authority_id": authority_id, "shard": shard} for shard in range(shards)])
        .on_conflict_do_nothing()
    )
    if added.rowcount:
        # The first one may have been the only one and say so: as if it had seen nothing, it is made anew at once.
        c = crls.c
        await tx.execute(
            sa.update(crls).where(c.authority_id == authority_id, c.shard == 0).values(revocations=_NOTHING_SEEN)
        )
    await services.jobs.start(tx, CA_STEP, authority_id)


async def follow_address(services: Services) -> None:
    """Each list among several says where it is found, and programs compare that with what certificates say: those that
    don't know the present address, because `status_url` was set since, are made anew now and not when they are due.
    For each start; content to find nothing to do."""
    a, s, c = authorities.c, crl_shards.c, crls.c
    here = sa.func.concat(
        services.settings.status_base_url, "/crl/", s.authority_id,
        sa.case((s.shard > 0, sa.func.concat("-", s.shard)), else_=""), ".crl",
    )  # fmt: skip
    doesnt_say_so = sa.func.position(sa.func.convert_to(here, "UTF8").op("IN")(c.der)) == 0
    async with services.db.begin() as tx:
        # First, so that large lists of other CAs aren't read.
        in_parts = (await tx.scalars(sa.select(s.authority_id).where(s.shard > 0).distinct())).all()
        moved = await tx.execute(
            sa.update(crls)
            .where(
                c.authority_id.in_(in_parts), c.authority_id == s.authority_id, c.shard == s.shard,
                c.number == s.number, a.id == s.authority_id, a.erased_at.is_(None),
                a.not_after > services.clock.now(), doesnt_say_so,
            )
            .values(revocations=_NOTHING_SEEN)
            .returning(c.authority_id)
        )  # fmt: skip
        for authority_id in sorted(set(moved.scalars())):
            await services.jobs.start(tx, CA_STEP, authority_id)


# --- revoking -------------------------------------------------------------------------------------------------------


async def revoke(services: Services, account_id: str, serial: str, reason: str) -> None:
    """Revoke one certificate and have its list published at once; content to find it revoked. Raises NotFound."""
    i = issued_certificates.c
    async with services.db.begin() as tx:
        authority_id = await tx.scalar(sa.select(i.authority_id).where(i.account_id == account_id, i.serial == serial))
        if authority_id is None:
            raise not_found("issued certificate", serial)
        await mark_revoked(tx, services, authority_id, serial, reason)


async def mark_revoked(tx: Tx, services: Services, authority_id: str, serial: str, reason: str) -> bool:
    """In the caller's transaction; False where it was revoked before."""
    i, s = issued_certificates.c, crl_shards.c
    await store.hold(tx, authority_id)
    shard = await tx.scalar(
        sa.update(issued_certificates)
        .where(i.authority_id == authority_id, i.serial == serial, i.revoked_at.is_(None))
        .values(revoked_at=services.clock.now(), revocation_reason=reason)
        .returning(i.shard)
    )
    if shard is None:
        return False
    await tx.execute(
        sa.update(crl_shards)
        .where(s.authority_id == authority_id, s.shard == shard)
        .values(revocations=s.revocations + 1)
    )
    # The step that makes the list signs its answer anew, too.
    o = ocsp_answers.c
    await tx.execute(
        sa.update(ocsp_answers)
        .where(o.authority_id == authority_id, o.serial == serial)
        .values(renew_at=services.clock.now())
    )
    await services.jobs.start(tx, CA_STEP, authority_id)
    return True


# --- publishing -----------------------------------------------------------------------------------------------------


async def publish(tx: Tx, services: Services, ca: Any) -> timedelta:
    """Makes the lists that haven't seen every revocation or have used a third of their life; the caller holds the CA's
    row. Answers when to look again."""
    now = services.clock.now()
    s = crl_shards.c
    newest = sa.and_(crls.c.authority_id == s.authority_id, crls.c.shard == s.shard, crls.c.number == s.number)
    query = (
        sa.select(s.shard, s.number, s.revocations, crls.c.revocations.label("seen"), crls.c.this_update,
                  crls.c.next_update)
        .outerjoin(crls, newest)
        .where(s.authority_id == ca.id)
        .order_by(s.shard)
    )  # fmt: skip
    soonest = timedelta(days=ca.crl_days) / 3
    made: list[int] = []
    for shard in (await tx.execute(query)).all():
        if shard.seen is not None and shard.seen >= shard.revocations:
            due = shard.this_update + (shard.next_update - shard.this_update) / 3
            if shard.this_update <= now < due:
                soonest = min(soonest, due - now)
                continue
        made.append(await _make(tx, services, ca, shard, now))
    if made:
        await storage.begin(tx, services, ca.id)
        await audit.record(
            tx, services, system_actor(ca.account_id, "authorities"), "ccm:crl:publish", "authority", ca.id,
            project_id=ca.project_id,
            after={
                "number": made[0], "lists": len(made), "next_update": _life(ca, now)[1].isoformat(),
            },
        )  # fmt: skip
    return soonest


def _life(ca: Any, now: datetime) -> tuple[datetime, datetime]:
    """What a list made now says of its times. Those of revocations it says as they are: an entry may be younger than
    the list calls itself, and is honoured."""
    says_it_is_of = this_update(now, ca.not_before)
    return says_it_is_of, says_it_is_of + timedelta(days=ca.crl_days)


async def _make(tx: Tx, services: Services, ca: Any, shard: Any, now: datetime) -> int:
    number = int(shard.number) + 1
    says_it_is_of, next_update = _life(ca, now)
    # Only a list among several says which one it is (RFC 5280 section 5.2.5): it must not be taken for the whole.
    where, *former = store.crl_urls(services, ca.id, shard.shard) if await _several(tx, ca.id) else (None,)
    entries = await _entries(tx, ca.id, shard.shard, _ended_before(ca, shard, now))
    facts = (store.issuer_of(ca), number, says_it_is_of, next_update, entries, where, ca.hash_name, former)
    if len(entries) > _MANY:
        # A second for a hundred thousand, in which others have requests here.
        draft = await asyncio.to_thread(crl_format.draft_crl, *facts)
    else:
        draft = crl_format.draft_crl(*facts)
    der = crl_format.assemble(draft, await services.port(Signer).sign(tx, ca.ca_key_id, draft))
    await tx.execute(
        sa.insert(crls).values(
            authority_id=ca.id, shard=shard.shard, number=number, der=der, revocations=shard.revocations,
            this_update=now, next_update=next_update,
        )
    )  # fmt: skip
    s, c = crl_shards.c, crls.c
    await tx.execute(sa.update(crl_shards).where(s.authority_id == ca.id, s.shard == shard.shard).values(number=number))
    await tx.execute(
        sa.delete(crls).where(c.authority_id == ca.id, c.shard == shard.shard, c.number <= number - _CRLS_KEPT)
    )
    return number


async def _several(tx: Tx, authority_id: str) -> bool:
    return bool(
        await tx.scalar(sa.select(sa.exists().where(crl_shards.c.authority_id == authority_id, crl_shards.c.shard > 0)))
    )


def _ended_before(ca: Any, shard: Any, now: datetime) -> datetime:
    """Certificates that ended so long ago may be left out. Each has to be in a list made by the calendar after its end
    (RFC 5280 section 3.3), and in the life of a list two are; the one before this may have come late. Made by what the
    list says itself, which is up to an hour less."""
    a_life_ago = now - timedelta(days=ca.crl_days)
    before = a_life_ago if shard.this_update is None else min(a_life_ago, cast(datetime, shard.this_update))
    return before - BACKDATE


async def _entries(tx: Tx, authority_id: str, shard: int, since: datetime) -> list[crl_format.RevokedEntry]:
    """Revoked certificates that hadn't ended by `since`."""
    i = issued_certificates.c
    query = sa.select(i.serial, i.revoked_at, i.revocation_reason).where(
        i.authority_id == authority_id, i.shard == shard, i.revoked_at.is_not(None),
        i.not_after >= since,
    )  # fmt: skip
    found: list[crl_format.RevokedEntry] = []
    async with tx.stream(query) as rows:
        async for part in rows.partitions(_MANY):
            found += [crl_format.RevokedEntry(int(row[0], 16), row[1], row[2] or "unspecified") for row in part]
    return found


async def newest_crl(services: Services, authority_id: str, shard: int = 0) -> Crl:
    """For everybody: the newest list of a CA. Raises NotFound."""
    async with services.db.begin() as tx:
        return await newest(tx, authority_id, shard)


async def newest(tx: Tx, authority_id: str, shard: int = 0) -> Crl:
    c = crls.c
    query = sa.select(crls).where(c.authority_id == authority_id, c.shard == shard).order_by(c.number.desc()).limit(1)
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        raise not_found("CRL of CA", authority_id)
    return Crl(row.number, row.der, row.this_update, row.next_update)


async def newest_crl_head(services: Services, authority_id: str, shard: int = 0) -> CrlHead:
    """For everybody: which list is the newest. Raises NotFound."""
    c = crls.c
    query = sa.select(c.number, c.this_update, c.next_update).where(c.authority_id == authority_id, c.shard == shard)
    async with services.db.read() as tx:
        row = (await tx.execute(query.order_by(c.number.desc()).limit(1))).one_or_none()
    if row is None:
        raise not_found("CRL of CA", authority_id)
    return CrlHead(*row)
