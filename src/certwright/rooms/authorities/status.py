"""Answers about single certificates (OCSP, RFC 6960): signed by a responder the CA delegated to and renews by itself.

An answer is signed when it is first asked for and given again to everybody who asks until the CA revokes something or
half its life is over; a question with a nonce gets a fresh one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa

from certwright.kernel.ids import new_id
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.authorities import lists, store
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import authorities, crl_shards, issued_certificates, ocsp_responders
from certwright.x509 import ocsp
from certwright.x509.issue import (
    OCSP_SIGNER,
    Subject,
    approve,
    assemble,
    draft_certificate,
    new_serial,
    validity,
)
from certwright.x509.keys import KeyAlgorithm
from certwright.x509.ocsp import Answer, Failure, Question, Status

ANSWER_LIFE = timedelta(days=1)
# How old what a process knows of a CA may be: a revocation is told at most so much later.
_FRESH = timedelta(seconds=1)
# 600 octets each.
_MOST_ANSWERS = 20_000


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """`der` is the OCSPResponse; times are None for answers without a signature, which nobody may keep."""

    der: bytes
    this_update: datetime | None = None
    next_update: datetime | None = None


@dataclass(slots=True)
class _Known:
    """What one process knows of one CA, looked up again after a second."""

    at: datetime
    revocations: int
    issuer: Any
    responder_key_id: str | None
    responder_der: bytes
    digests: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def is_about(self, question: Question) -> bool:
        found = self.digests.get(question.hash_name)
        if found is None:
            found = self.digests[question.hash_name] = ocsp.issuer_digests(self.issuer, question.hash_name)
        return found == (question.issuer_name_hash, question.issuer_key_hash)


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: StatusAnswer
    revocations: int
    since: datetime

    def is_good(self, revocations: int, now: datetime) -> bool:
        return self.revocations == revocations and self.since <= now < self.since + ANSWER_LIFE / 2


class StatusAnswers:
    """The answers of one process; plugged into Services.ports by the entry."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[str, _Known] = {}
        self._answers: OrderedDict[tuple[str, str, int], _Kept] = OrderedDict()

    async def answer(self, authority_id: str, question: Question) -> StatusAnswer:
        """For everybody. A CA that isn't here, has no responder, or isn't the one asked about, answers `unauthorized`
        (RFC 6960 section 2.3); a certificate it never issued is `unknown`."""
        now = self._services.clock.now()
        known = self._known.get(authority_id)
        if known is None or not known.at <= now < known.at + _FRESH:
            known = await self._look(authority_id, now)
        if known is None or known.responder_key_id is None or not known.is_about(question):
            return StatusAnswer(ocsp.failure(Failure.UNAUTHORIZED))
        place = (authority_id, question.hash_name, question.serial)
        kept = self._answers.get(place) if question.nonce is None else None
        if kept is not None and kept.is_good(known.revocations, now):
            self._answers.move_to_end(place)
            return kept.answer
        answer, is_ours = await self._sign(authority_id, known, question, now)
        # Serials nobody issued aren't kept: whoever makes them up would push the others out.
        if question.nonce is None and is_ours:
            self._answers[place] = _Kept(answer, known.revocations, now)
            if len(self._answers) > _MOST_ANSWERS:
                self._answers.popitem(last=False)
        return answer

    async def _look(self, authority_id: str, now: datetime) -> _Known | None:
        a, r, s = authorities.c, ocsp_responders.c, crl_shards.c
        newest = (
            sa.select(r.ca_key_id, r.certificate_der.label("responder_der"))
            .where(r.authority_id == a.id, r.not_before <= now, r.not_after > now)
            .order_by(r.not_after.desc())
            .limit(1)
            .lateral("newest")
        )
        counted = sa.select(sa.func.sum(s.revocations)).where(s.authority_id == a.id).scalar_subquery()
        query = (
            sa.select(authorities.c.sha256, a.certificate_der, counted.label("revocations"), newest.c.ca_key_id,
                      newest.c.responder_der)
            .outerjoin(newest, sa.true())
            .where(a.id == authority_id, a.certificate_der.is_not(None), a.erased_at.is_(None))
        )  # fmt: skip
        async with self._services.db.begin() as tx:
            row = (await tx.execute(query)).one_or_none()
        if row is None:
            self._known.pop(authority_id, None)
            return None
        before = self._known.get(authority_id)
        self._known[authority_id] = _Known(
            now, int(row.revocations or 0), store.issuer_of(row), row.ca_key_id, row.responder_der or b"",
            before.digests if before is not None else {},
        )  # fmt: skip
        return self._known[authority_id]

    async def _sign(
        self, authority_id: str, known: _Known, question: Question, now: datetime
    ) -> tuple[StatusAnswer, bool]:
        i = issued_certificates.c
        async with self._services.db.begin() as tx:
            row = (
                await tx.execute(
                    sa.select(i.revoked_at, i.revocation_reason).where(
                        i.authority_id == authority_id, i.serial == f"{question.serial:x}"
                    )
                )
            ).one_or_none()
            until = now + ANSWER_LIFE
            if row is None:
                said = Answer(Status.UNKNOWN, now, until)
            elif row.revoked_at is None:
                said = Answer(Status.GOOD, now, until)
            else:
                said = Answer(Status.REVOKED, now, until, row.revoked_at, row.revocation_reason or "unspecified")
            draft = ocsp.draft_answer(question, said, known.responder_der)
            assert known.responder_key_id is not None
            signature = await self._services.port(Signer).sign(tx, known.responder_key_id, draft)
        return StatusAnswer(ocsp.assemble(draft, signature), now.replace(microsecond=0), until), row is not None


async def answer(services: Services, authority_id: str, question: Question) -> StatusAnswer:
    return await services.port(StatusAnswers).answer(authority_id, question)


# --- the responder's own certificate --------------------------------------------------------------------------------


async def keep_responder(tx: Tx, services: Services, ca: Any) -> timedelta:
    """A new key and certificate for the responder once the newest has lived half its life; those that have ended lose
    their keys. Answers when to look again."""
    now = services.clock.now()
    r = ocsp_responders.c
    rows = (
        await tx.execute(
            sa.select(r.id, r.ca_key_id, r.not_before, r.not_after).where(r.authority_id == ca.id).order_by(r.not_after)
        )
    ).all()
    for old in rows:
        if old.not_after <= now:
            await _forget(tx, services, old)
    newest = rows[-1] if rows else None
    if newest is not None and now < (half := newest.not_before + (newest.not_after - newest.not_before) / 2):
        return cast(timedelta, half - now)
    # The CA's own last days: its end cuts off the responder's, and another one would end no later.
    if newest is not None and newest.not_after >= ca.not_after:
        return cast(timedelta, ca.not_after - now)
    made = await _delegate(tx, services, ca, now)
    return (made - now) / 2


async def _delegate(tx: Tx, services: Services, ca: Any, now: datetime) -> datetime:
    signer = services.port(Signer)
    issuer = store.issuer_of(ca)
    key_id, public = await signer.create_key(tx, KeyAlgorithm.EC_P256)
    serial = new_serial()
    start, end = validity(OCSP_SIGNER, issuer, at=now)
    linted = approve(
        draft_certificate(
            profile=OCSP_SIGNER, subject=Subject(common_name=f"{ca.name[:50]} OCSP"), names=(), public_key=public,
            issuer=issuer, serial=serial, not_before=start, not_after=end, hash_name=ca.hash_name,
        ),
        at=now,
    )  # fmt: skip
    der = assemble(linted, await signer.sign(tx, ca.ca_key_id, linted))
    responder_id = new_id("ocr", now)
    await tx.execute(
        sa.insert(ocsp_responders).values(
            id=responder_id, authority_id=ca.id, ca_key_id=key_id, certificate_der=der, not_before=start,
            not_after=end,
        )
    )  # fmt: skip
    await tx.execute(
        sa.insert(issued_certificates).values(
            id=new_id("crt", now), authority_id=ca.id, account_id=ca.account_id, project_id=ca.project_id,
            reference=responder_id, profile=OCSP_SIGNER.name, serial=f"{serial:x}", names=[], der=der,
            not_before=start, not_after=end, issued_at=now, shard=lists.shard_of(ca, serial),
        )
    )  # fmt: skip
    return end


async def erase_responders(tx: Tx, services: Services, authority_id: str) -> None:
    """With the CA's key go those of its responders."""
    r = ocsp_responders.c
    for row in (await tx.execute(sa.select(r.id, r.ca_key_id).where(r.authority_id == authority_id))).all():
        await _forget(tx, services, row)


async def _forget(tx: Tx, services: Services, row: Any) -> None:
    await tx.execute(sa.delete(ocsp_responders).where(ocsp_responders.c.id == row.id))
    await services.port(Signer).erase_key(tx, row.ca_key_id)
