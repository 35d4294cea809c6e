"""Answers about single certificates (OCSP, RFC 6960): signed by a responder the CA delegated to and renews by itself.

Answers are signed before anybody asks: the CA's step signs those that are missing, that have used a third of their life
or whose certificate was revoked, some thousands at a time. What it hasn't come to yet is signed for whoever asks first,
and kept; a question with a nonce, and one for a serial nobody issued, is answered for itself alone. The row of the
certificate says what its state is; an answer that says otherwise is not given, whoever wrote it when.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from certwright.kernel.ids import new_id
from certwright.platform.db import Tx, unnested
from certwright.platform.services import Services
from certwright.rooms.authorities import lists, store
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import (
    authorities,
    crl_shards,
    issued_certificates,
    ocsp_answers,
    ocsp_responders,
)
from certwright.x509 import ocsp
from certwright.x509.issue import (
    OCSP_SIGNER,
    IssuerFacts,
    Subject,
    approve,
    assemble,
    draft_certificate,
    new_serial,
    this_update,
    validity,
)
from certwright.x509.keys import KeyAlgorithm
from certwright.x509.ocsp import Answer, Failure, Question, Status

ANSWER_LIFE = timedelta(days=1)
# How old what a process knows of a CA may be: a revocation is told at most so much later.
_FRESH = timedelta(seconds=1)
# Of these a process keeps the newest; each has about a kilobyte.
_MOST_ANSWERS = 10_000
# Looked for together: what is missing costs a look at every certificate.
TOGETHER = 4_000
# Signed and written in one transaction: a quarter of a second's work, and some MB.
_WRITTEN_TOGETHER = 1_000
# What was issued since is looked for so often.
_LOOK_EVERY = timedelta(minutes=5)
# Clients name the issuer by SHA-1, all but a few; an answer for another digest is signed when it is asked for first.
_USUAL_HASH = "sha1"


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """`der` is the OCSPResponse; times are None for answers without a signature, which nobody may keep. It says itself
    that it is older than `signed_at`, for slow clocks.

    `revocations` is what the CA counted of them when this was found; -1 in an answer that this process doesn't keep.
    """

    der: bytes
    signed_at: datetime | None = None
    next_update: datetime | None = None
    revocations: int = -1

    @property
    def may_be_kept(self) -> bool:
        """Serials nobody issued aren't kept: whoever makes them up would push the others out."""
        return self.revocations >= 0

    def is_good(self, revocations: int, now: datetime) -> bool:
        """Until half of its life, as long as the CA hasn't revoked anything since."""
        if self.signed_at is None or self.next_update is None or self.revocations != revocations:
            return False
        return self.signed_at <= now < self.signed_at + (self.next_update - self.signed_at) / 2


@dataclass(slots=True)
class _Known:
    """What one process knows of one CA, looked up again after a second."""

    at: datetime
    revocations: int
    issuer: IssuerFacts
    responder: Any
    digests: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def is_fresh(self, now: datetime) -> bool:
        return self.at <= now < self.at + _FRESH

    def digests_by(self, hash_name: str) -> tuple[bytes, bytes]:
        found = self.digests.get(hash_name)
        if found is None:
            found = self.digests[hash_name] = ocsp.issuer_digests(self.issuer, hash_name)
        return found

    def is_about(self, question: Question) -> bool:
        return self.digests_by(question.hash_name) == (question.issuer_name_hash, question.issuer_key_hash)


class StatusAnswers:
    """The answers of one process; plugged into Services.ports by the entry."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[str, _Known] = {}
        self._looking: dict[str, asyncio.Task[_Known | None]] = {}
        self._answers: OrderedDict[tuple[str, str, int], StatusAnswer] = OrderedDict()

    async def answer(self, authority_id: str, question: Question) -> StatusAnswer:
        """For everybody. A CA that isn't here, has no responder, or isn't the one asked about, answers `unauthorized`
        (RFC 6960 section 2.3); a certificate it never issued is `unknown`."""
        now = self._services.clock.now()
        known = self._known.get(authority_id)
        if known is None or not known.is_fresh(now):
            known = await self._look_once(authority_id)
        if known is None or known.responder is None or not known.is_about(question):
            return StatusAnswer(ocsp.failure(Failure.UNAUTHORIZED))
        place = (authority_id, question.hash_name, question.serial)
        kept = self._answers.get(place) if question.nonce is None else None
        if kept is not None and kept.is_good(known.revocations, now):
            self._answers.move_to_end(place)
            return kept
        answer = await self._find(authority_id, known, question, now)
        if answer.may_be_kept:
            self._answers[place] = answer
            if len(self._answers) > _MOST_ANSWERS:
                self._answers.popitem(last=False)
        return answer

    def still_good(self, authority_id: str, answer: StatusAnswer) -> bool:
        """Whether an answer given before may be given again without asking anybody; for whoever keeps answers by the
        octets of the question. False also where this process doesn't know at the moment."""
        now = self._services.clock.now()
        known = self._known.get(authority_id)
        return known is not None and known.is_fresh(now) and answer.is_good(known.revocations, now)

    async def _look_once(self, authority_id: str) -> _Known | None:
        """One look at a time at each CA, however many ask."""
        looking = self._looking.get(authority_id)
        if looking is None:
            looking = self._looking[authority_id] = asyncio.create_task(self._look(authority_id))
            looking.add_done_callback(lambda _: self._looking.pop(authority_id, None))
        # Whoever asks may go away; the others still wait for it.
        return await asyncio.shield(looking)

    async def _look(self, authority_id: str) -> _Known | None:
        now = self._services.clock.now()
        a, s = authorities.c, crl_shards.c
        newest = _newest_responder(now, a.id).lateral("newest")
        counted = sa.select(sa.func.sum(s.revocations)).where(s.authority_id == a.id).scalar_subquery()
        query = (
            sa.select(authorities.c.sha256, a.certificate_der, counted.label("revocations"), *newest.c)
            .outerjoin(newest, sa.true())
            .where(a.id == authority_id, a.certificate_der.is_not(None), a.erased_at.is_(None))
        )
        async with self._services.db.read() as tx:
            row = (await tx.execute(query)).one_or_none()
        if row is None:
            self._known.pop(authority_id, None)
            return None
        before = self._known.get(authority_id)
        self._known[authority_id] = _Known(
            now, int(row.revocations or 0), store.issuer_of(row), row if row.ca_key_id is not None else None,
            before.digests if before is not None else {},
        )  # fmt: skip
        return self._known[authority_id]

    async def _find(self, authority_id: str, known: _Known, question: Question, now: datetime) -> StatusAnswer:
        """The answer of the table, or else a fresh one."""
        i, o = issued_certificates.c, ocsp_answers.c
        serial = f"{question.serial:x}"
        query = (
            sa.select(i.serial, i.revoked_at, i.revocation_reason, i.not_after, o.der, o.revoked_at.label("said"),
                      o.this_update, o.next_update)
            .outerjoin(
                ocsp_answers,
                sa.and_(o.authority_id == i.authority_id, o.serial == i.serial, o.hash_name == question.hash_name),
            )
            .where(i.authority_id == authority_id, i.serial == serial)
        )  # fmt: skip
        async with self._services.db.begin() as tx:
            row = (await tx.execute(query)).one_or_none()
            if row is not None and row.der is not None and question.nonce is None and row.said == row.revoked_at:
                found = StatusAnswer(row.der, row.this_update, row.next_update, known.revocations)
                if found.is_good(known.revocations, now):
                    return found
            signed = await _sign(tx, self._services, known.responder, question, row, now)
            if row is None or question.nonce is not None:
                return StatusAnswer(signed.der, signed.signed_at, signed.next_update)
            if row.not_after > now:
                await _keep(tx, authority_id, [_Signed(question.hash_name, row, signed)])
        return StatusAnswer(signed.der, signed.signed_at, signed.next_update, known.revocations)


def _newest_responder(now: datetime, authority_id: Any) -> sa.Select[Any]:
    """What signing answers needs; of several the one that lives longest."""
    r = ocsp_responders.c
    return (
        sa.select(r.ca_key_id, r.certificate_der.label("responder_der"),
                  r.not_before.label("responder_begins"), r.not_after.label("responder_ends"))
        .where(r.authority_id == authority_id, r.not_before <= now, r.not_after > now)
        .order_by(r.not_after.desc())
        .limit(1)
    )  # fmt: skip


async def answer(services: Services, authority_id: str, question: Question) -> StatusAnswer:
    return await services.port(StatusAnswers).answer(authority_id, question)


# --- signing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fresh:
    """An answer just signed; times in whole seconds. `next_update` is as it says."""

    der: bytes
    signed_at: datetime
    next_update: datetime


async def _sign(tx: Tx, services: Services, responder: Any, question: Question, row: Any, now: datetime) -> _Fresh:
    """`row` is that of the certificate, None for a serial that was never issued."""
    signed_at, start = now.replace(microsecond=0), this_update(now, responder.responder_begins)
    # Nobody believes an answer when its responder has ended.
    end = max(min(start + ANSWER_LIFE, responder.responder_ends), signed_at + timedelta(seconds=1))
    if row is None:
        said = Answer(Status.UNKNOWN, start, end)
    elif row.revoked_at is None:
        said = Answer(Status.GOOD, start, end)
    else:
        said = Answer(Status.REVOKED, start, end, row.revoked_at, row.revocation_reason or "unspecified")
    draft = ocsp.draft_answer(question, said, responder.responder_der)
    signature = await services.port(Signer).sign(tx, responder.ca_key_id, draft)
    return _Fresh(ocsp.assemble(draft, signature), signed_at, end)


@dataclass(frozen=True, slots=True)
class _Signed:
    """`row` has the certificate's serial, revoked_at and not_after."""

    hash_name: str
    row: Any
    answer: _Fresh


async def _keep(tx: Tx, authority_id: str, answers: Sequence[_Signed]) -> None:
    """Writes them where nothing newer is; one that says good never replaces one that says revoked."""
    o, at = ocsp_answers.c, sa.DateTime(timezone=True)
    new = unnested(
        "new",
        serial=(sa.Text(), [one.row.serial for one in answers]),
        hash_name=(sa.Text(), [one.hash_name for one in answers]),
        der=(sa.LargeBinary(), [one.answer.der for one in answers]),
        revoked_at=(at, [one.row.revoked_at for one in answers]),
        this_update=(at, [one.answer.signed_at for one in answers]),
        next_update=(at, [one.answer.next_update for one in answers]),
        renew_at=(at, [_renew_at(one.answer) for one in answers]),
        not_after=(at, [one.row.not_after for one in answers]),
    )
    written = postgresql.insert(ocsp_answers).from_select(
        ["authority_id", *new.c.keys()], sa.select(sa.literal(authority_id), *new.c)
    )
    changed = ("der", "revoked_at", "this_update", "next_update", "renew_at")
    await tx.execute(
        written.on_conflict_do_update(
            index_elements=[o.authority_id, o.serial, o.hash_name],
            set_={name: written.excluded[name] for name in changed},
            where=sa.and_(
                o.this_update <= written.excluded.this_update,
                sa.or_(o.revoked_at.is_(None), written.excluded.revoked_at.is_not(None)),
            ),
        )
    )


def _renew_at(answer: _Fresh) -> datetime:
    return answer.signed_at + (answer.next_update - answer.signed_at) / 3


async def sign_ahead(services: Services, authority_id: str) -> timedelta:
    """Signs what is due and what is missing, `TOGETHER` at most; forgets what has ended. Answers when to look again:
    at once while there may be more."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        responder = (await tx.execute(_newest_responder(now, authority_id))).one_or_none()
        if responder is None:
            return _LOOK_EVERY
        o = ocsp_answers.c
        ended = sa.and_(o.authority_id == authority_id, o.renew_at <= now, o.not_after <= now)
        await tx.execute(sa.delete(ocsp_answers).where(ended))
        due = await _due(tx, authority_id, now)
        if not due:
            return _LOOK_EVERY
        ca = (await tx.execute(sa.select(authorities).where(authorities.c.id == authority_id))).one()
        issuer = store.issuer_of(ca)
        digests = {name: ocsp.issuer_digests(issuer, name) for name in {row.hash_name for row in due}}
    for start in range(0, len(due), _WRITTEN_TOGETHER):
        async with services.db.begin() as tx:
            signed: list[_Signed] = []
            for row in due[start : start + _WRITTEN_TOGETHER]:
                question = Question(row.hash_name, *digests[row.hash_name], int(row.serial, 16))
                signed.append(_Signed(row.hash_name, row, await _sign(tx, services, responder, question, row, now)))
                await asyncio.sleep(0)  # others have requests here, each of which waits for this a dozen times
            await _keep(tx, authority_id, signed)
    return timedelta(0) if len(due) >= TOGETHER else _LOOK_EVERY


async def _due(tx: Tx, authority_id: str, now: datetime) -> list[Any]:
    """Certificates and the digest of the question, those whose answer is out of date first."""
    i, o = issued_certificates.c, ocsp_answers.c
    facts = (i.serial, i.revoked_at, i.revocation_reason, i.not_after)
    out_of_date = (
        sa.select(*facts, o.hash_name)
        .join_from(ocsp_answers, issued_certificates, sa.and_(i.authority_id == o.authority_id, i.serial == o.serial))
        .where(o.authority_id == authority_id, o.renew_at <= now)
        .order_by(o.renew_at)
        .limit(TOGETHER)
    )
    due = list((await tx.execute(out_of_date)).all())
    if len(due) < TOGETHER:
        there = sa.exists().where(
            o.authority_id == i.authority_id, o.serial == i.serial, o.hash_name == _USUAL_HASH
        )  # fmt: skip
        missing = (
            sa.select(*facts, sa.literal(_USUAL_HASH).label("hash_name"))
            .where(i.authority_id == authority_id, i.not_after > now, ~there)
            .limit(TOGETHER - len(due))
        )
        due += (await tx.execute(missing)).all()
    return due


async def forget_answers(tx: Tx, authority_id: str) -> None:
    """Of a CA that has ended or answers no more."""
    await tx.execute(sa.delete(ocsp_answers).where(ocsp_answers.c.authority_id == authority_id))


# --- the responder's own certificate --------------------------------------------------------------------------------


async def keep_responder(tx: Tx, services: Services, ca: Any) -> timedelta:
    """A new key and certificate for the responder once the newest has lived half its life. Answers when to look
    again."""
    now = services.clock.now()
    r = ocsp_responders.c
    query = sa.select(r.not_before, r.not_after).where(r.authority_id == ca.id).order_by(r.not_after.desc()).limit(1)
    newest = (await tx.execute(query)).one_or_none()
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
            not_before=start, not_after=end, issued_at=now, shard=lists.shard_of(ca, serial), internal=True,
        )
    )  # fmt: skip
    return end


async def erase_responders(tx: Tx, services: Services, authority_id: str) -> None:
    """With the CA's key go those of its responders, and what they signed."""
    await forget_answers(tx, authority_id)
    await _erase_responders(tx, services, ocsp_responders.c.authority_id == authority_id)


async def erase_ended_responders(tx: Tx, services: Services, authority_id: str) -> None:
    """Keys of responders whose certificates have ended, whether the CA goes on answering or not."""
    r = ocsp_responders.c
    await _erase_responders(
        tx, services, sa.and_(r.authority_id == authority_id, r.not_after <= services.clock.now())
    )  # fmt: skip


async def _erase_responders(tx: Tx, services: Services, which: sa.ColumnElement[bool]) -> None:
    gone = await tx.execute(sa.delete(ocsp_responders).where(which).returning(ocsp_responders.c.ca_key_id))
    for key_id in gone.scalars():
        await services.port(Signer).erase_key(tx, key_id)
