"""All SQL of the organisations room. Transitions name the state they leave; no rows is an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from certwright.platform.db import Tx
from certwright.rooms.organisations.tables import (
    organisation_cases,
    organisation_checks,
    organisation_documents,
    organisation_links,
    organisations,
)
from certwright.rooms.organisations.words import Contact, Facts, Item, Kind, Outcome, State

Row = Any
_O = organisations.c
_C = organisation_cases.c
_K = organisation_checks.c
_D = organisation_documents.c
_L = organisation_links.c

_ORGANISATION = (
    _O.id, _O.account_id, _O.project_id, _O.kind, _O.legal_name, _O.registration_number, _O.jurisdiction_country,
    _O.jurisdiction_region, _O.street, _O.city, _O.province, _O.postal_code, _O.country, _O.phone, _O.phone_source,
    _O.contacts, _O.facts_hash, _O.revision, _O.created_at, _O.updated_at,
)  # fmt: skip
_CASE = (
    _C.id, _C.account_id, _C.project_id, _C.subject_id, _C.organisation_id, _C.type, _C.level, _C.ca, _C.facts,
    _C.facts_hash, _C.applicant_name, _C.applicant_email, _C.applicant_phone, _C.locale, _C.applied_by, _C.way,
    _C.chosen_by, _C.asked, _C.waiting_since, _C.reminders, _C.claimed_by, _C.claimed_by_name, _C.claimed_at,
    _C.worked_at, _C.approved_by, _C.approved_by_name, _C.approved_at, _C.seconded_by, _C.seconded_by_name,
    _C.returned, _C.reused_from, _C.verified_at, _C.evidence_at, _C.refused_at, _C.reasons, _C.cancelled_at,
    _C.forgotten_at, _C.revision, _C.created_at, _C.desk_since, _C.review_days, _C.alone,
)  # fmt: skip
_DOCUMENT = (
    _D.id, _D.case_id, _D.name, _D.media_type, _D.size, _D.sha256, _D.from_applicant, _D.by_user, _D.by_name, _D.at,
    _D.erased_at,
)  # fmt: skip

_IS_OPEN = sa.and_(_C.verified_at.is_(None), _C.refused_at.is_(None), _C.cancelled_at.is_(None))
_CHOSEN = sa.and_(_IS_OPEN, _C.way.is_not(None))
_AT_THE_DESK = sa.and_(_CHOSEN, _C.approved_by.is_(None), _C.waiting_since.is_(None))
_IS_IN: Mapping[State, sa.ColumnElement[bool]] = {
    State.VERIFIED: _C.verified_at.is_not(None),
    State.REFUSED: _C.refused_at.is_not(None),
    State.CANCELLED: _C.cancelled_at.is_not(None),
    State.AWAITING_CHOICE: sa.and_(_IS_OPEN, _C.way.is_(None)),
    State.AWAITING_SECOND: sa.and_(_CHOSEN, _C.approved_by.is_not(None)),
    State.AWAITING_DOCUMENTS: sa.and_(_CHOSEN, _C.approved_by.is_(None), _C.waiting_since.is_not(None)),
    State.IN_REVIEW: sa.and_(_AT_THE_DESK, _C.claimed_by.is_not(None)),
    State.QUEUED: sa.and_(_AT_THE_DESK, _C.claimed_by.is_(None)),
}


def is_in(state: State) -> sa.ColumnElement[bool]:
    """`rules.state_of` in SQL."""
    return _IS_IN[state]


# --- organisations ---------------------------------------------------------------------------------------------------


def facts_of(row: Row) -> Facts:
    return Facts(
        Kind(row.kind), row.legal_name, row.registration_number, row.jurisdiction_country, row.jurisdiction_region,
        row.street, row.city, row.province, row.postal_code, row.country, row.phone, row.phone_source,
    )  # fmt: skip


def contacts_of(row: Row) -> tuple[Contact, ...]:
    return tuple(Contact(**contact) for contact in row.contacts)


async def insert_organisation(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(organisations).values(**values))


async def organisation(
    tx: Tx, organisation_id: str, where: sa.ColumnElement[bool], *, lock: bool = False, keep: bool = False
) -> Row | None:
    """`lock` keeps others from changing it, `keep` from deleting or changing it, until the transaction ends."""
    query = sa.select(*_ORGANISATION).where(_O.id == organisation_id, where)
    if lock or keep:
        query = query.with_for_update(read=keep)
    return (await tx.execute(query)).one_or_none()


async def organisations_page(
    tx: Tx, visible: sa.ColumnElement[bool], *, after: str | None, limit: int
) -> Sequence[Row]:
    query = sa.select(*_ORGANISATION).where(visible).order_by(_O.id.desc()).limit(limit)
    return (await tx.execute(query if after is None else query.where(_O.id < after))).all()


async def update_organisation(tx: Tx, organisation_id: str, revision: int, values: Mapping[str, Any]) -> bool:
    """False when the revision has moved on."""
    result = await tx.execute(
        sa.update(organisations)
        .where(_O.id == organisation_id, _O.revision == revision)
        .values(**values, revision=_O.revision + 1)
    )
    return bool(result.rowcount)


async def delete_organisation(tx: Tx, organisation_id: str) -> None:
    await tx.execute(sa.delete(organisations).where(_O.id == organisation_id))


async def open_cases_of(tx: Tx, organisation_ids: Sequence[str]) -> Mapping[str, int]:
    query = (
        sa.select(_C.organisation_id, sa.func.count())
        .where(_C.organisation_id.in_(organisation_ids), _IS_OPEN)
        .group_by(_C.organisation_id)
    )
    return {organisation_id: int(count) for organisation_id, count in await tx.execute(query)}


async def verifications_of(tx: Tx, organisation_ids: Sequence[str]) -> Sequence[Row]:
    """Verifications of the facts these organisations have now, newest first."""
    query = (
        sa.select(_C.id, _C.organisation_id, _C.ca, _C.level, _C.evidence_at)
        .join(organisations, sa.and_(_O.id == _C.organisation_id, _O.facts_hash == _C.facts_hash))
        .where(_O.id.in_(organisation_ids), _C.verified_at.is_not(None), _C.reused_from.is_(None))
        .order_by(_C.evidence_at.desc(), _C.id.desc())
    )
    return (await tx.execute(query)).all()


# --- cases -----------------------------------------------------------------------------------------------------------


def case_facts_of(row: Row) -> Facts | None:
    return None if row.facts is None else Facts(**(row.facts | {"kind": Kind(row.facts["kind"])}))


async def insert_case(tx: Tx, **values: Any) -> bool:
    """False when the subject has one."""
    result = await tx.execute(
        pg_insert(organisation_cases).values(**values).on_conflict_do_nothing(index_elements=["subject_id"])
    )
    return bool(result.rowcount)


async def case(tx: Tx, case_id: str, where: sa.ColumnElement[bool] | None = None, *, lock: bool = False) -> Row | None:
    query = sa.select(*_CASE).where(_C.id == case_id)
    if where is not None:
        query = query.where(where)
    return (await tx.execute(query.with_for_update() if lock else query)).one_or_none()


async def case_of(tx: Tx, subject_id: str, *, lock: bool = False) -> Row | None:
    query = sa.select(*_CASE).where(_C.subject_id == subject_id)
    return (await tx.execute(query.with_for_update() if lock else query)).one_or_none()


async def desk_turns(tx: Tx) -> Sequence[Row]:
    """Of every case that waits for the desk, in whatever account: since when, and for what."""
    query = sa.select(_C.desk_since, _C.level, _C.review_days).where(
        _CHOSEN, _C.waiting_since.is_(None), _C.desk_since.is_not(None)
    )
    return (await tx.execute(query)).all()


async def cases_page(
    tx: Tx,
    visible: sa.ColumnElement[bool],
    *,
    state: State | None = None,
    subject_id: str | None = None,
    organisation_id: str | None = None,
    claimed_by: str | None = None,
    after: str | None,
    limit: int,
    oldest_first: bool = False,
) -> Sequence[Row]:
    query = sa.select(*_CASE).where(visible).limit(limit)
    if state is not None:
        query = query.where(is_in(state))
    if subject_id is not None:
        query = query.where(_C.subject_id == subject_id)
    if organisation_id is not None:
        query = query.where(_C.organisation_id == organisation_id)
    if claimed_by is not None:
        query = query.where(_C.claimed_by == claimed_by)
    if after is not None:
        query = query.where(_C.id > after if oldest_first else _C.id < after)
    return (await tx.execute(query.order_by(_C.id if oldest_first else _C.id.desc()))).all()


async def reusable(
    tx: Tx,
    *,
    account_id: str,
    organisation_id: str,
    ca: str,
    facts_hash: str,
    levels: Sequence[str],
    since: datetime,
) -> Row | None:
    """The newest verification of exactly these facts, kept as it is until the transaction ends."""
    query = (
        sa.select(_C.id, _C.evidence_at)
        .where(
            _C.account_id == account_id, _C.organisation_id == organisation_id, _C.ca == ca,
            _C.facts_hash == facts_hash, _C.level.in_(levels), _C.evidence_at >= since, _C.reused_from.is_(None),
            _C.forgotten_at.is_(None),
        )
        .order_by(_C.evidence_at.desc(), _C.id.desc())
        .limit(1)
        .with_for_update(read=True)
    )  # fmt: skip
    return (await tx.execute(query)).one_or_none()


async def move_case(tx: Tx, case_id: str, leaving: State, **values: Any) -> bool:
    """Change a case that is in the state `leaving`; False when it is not."""
    result = await tx.execute(
        sa.update(organisation_cases).where(_C.id == case_id, is_in(leaving)).values(**values, revision=_C.revision + 1)
    )
    return bool(result.rowcount)


async def note_reminder(tx: Tx, case_id: str, sent: int) -> bool:
    """False when so many were noted already."""
    result = await tx.execute(
        sa.update(organisation_cases).where(_C.id == case_id, _C.reminders < sent).values(reminders=sent)
    )
    return bool(result.rowcount)


async def cancel_case(tx: Tx, subject_id: str, now: datetime) -> bool:
    result = await tx.execute(
        sa.update(organisation_cases)
        .where(_C.subject_id == subject_id, _IS_OPEN)
        .values(cancelled_at=now, waiting_since=None, next_step_at=None, revision=_C.revision + 1)
    )
    return bool(result.rowcount)


async def set_project(tx: Tx, subject_ids: Sequence[str], project_id: str) -> None:
    await tx.execute(sa.update(organisation_cases).where(_C.subject_id.in_(subject_ids)).values(project_id=project_id))


async def forget_case(tx: Tx, case_id: str, now: datetime) -> None:
    """Erase what names people or the organisation; the contents of documents go with their keys."""
    await tx.execute(
        sa.update(organisation_cases)
        .where(_C.id == case_id)
        .values(
            facts=None, facts_hash=None, applicant_name=None, applicant_email=None, applicant_phone=None, asked=None,
            returned=None, reasons=[], forgotten_at=now, revision=_C.revision + 1,
        )
    )  # fmt: skip
    await tx.execute(sa.update(organisation_checks).where(_K.case_id == case_id).values(source="", note=""))
    await tx.execute(
        sa.update(organisation_documents)
        .where(_D.case_id == case_id, _D.erased_at.is_(None))
        .values(name="", sha256="", sealed_key=None, content=None, erased_at=now)
    )
    await tx.execute(sa.delete(organisation_links).where(_L.case_id == case_id))


# --- checks and documents --------------------------------------------------------------------------------------------


async def insert_check(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(organisation_checks).values(**values))


async def checks(tx: Tx, case_ids: Sequence[str]) -> Sequence[Row]:
    """Oldest first: the last of an item is the one that counts."""
    query = (
        sa.select(_K.id, _K.case_id, _K.item, _K.outcome, _K.source, _K.note, _K.by_user, _K.by_name, _K.at)
        .where(_K.case_id.in_(case_ids))
        .order_by(_K.case_id, _K.at, _K.id)
    )
    return (await tx.execute(query)).all()


def outcomes_of(rows: Sequence[Row]) -> dict[Item, Outcome]:
    return {Item(row.item): Outcome(row.outcome) for row in rows}


async def insert_document(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(organisation_documents).values(**values))


async def documents(tx: Tx, case_ids: Sequence[str]) -> Sequence[Row]:
    """Without contents, oldest first."""
    query = sa.select(*_DOCUMENT).where(_D.case_id.in_(case_ids)).order_by(_D.case_id, _D.at, _D.id)
    return (await tx.execute(query)).all()


async def document(tx: Tx, case_id: str, document_id: str) -> Row | None:
    """With its sealed content."""
    query = sa.select(*_DOCUMENT, _D.sealed_key, _D.content).where(_D.id == document_id, _D.case_id == case_id)
    return (await tx.execute(query)).one_or_none()


# --- links -----------------------------------------------------------------------------------------------------------


async def insert_link(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(organisation_links).values(**values))


async def link(tx: Tx, secret_hash: bytes) -> Row | None:
    query = sa.select(_L.case_id, _L.expires_at, _L.used_at).where(_L.secret_hash == secret_hash)
    return (await tx.execute(query)).one_or_none()


async def use_link(tx: Tx, secret_hash: bytes, now: datetime) -> bool:
    """False when it was used before or is over."""
    result = await tx.execute(
        sa.update(organisation_links)
        .where(_L.secret_hash == secret_hash, _L.used_at.is_(None), _L.expires_at > now)
        .values(used_at=now)
    )
    return bool(result.rowcount)
