"""All SQL of the validation room. Transitions name the state they leave; no rows is an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from certwright.platform.db import Tx, is_one_of
from certwright.rooms.validation.tables import challenges, dns_connections, evidence, foreseen, mailed_links
from certwright.rooms.validation.words import Method

Row = sa.Row[*tuple[Any, ...]]
_C = challenges.c
_D = dns_connections.c
_E = evidence.c
_M = mailed_links.c
_F = foreseen.c

_CHALLENGE = (
    _C.id, _C.account_id, _C.project_id, _C.subject_id, _C.position, _C.name, _C.domain, _C.method, _C.ca, _C.ca_kind,
    _C.value, _C.record_name, _C.record_type, _C.leads_to, _C.file_name, _C.connection_id, _C.created_at, _C.expires_at,
    _C.write_intended_at, _C.written_at, _C.released_at, _C.removed_at, _C.checks, _C.checked_at, _C.explanation,
    _C.validated_at, _C.cancelled_at, _C.evidence_id, _C.next_step_at,
)  # fmt: skip
_CONNECTION = (
    _D.id, _D.account_id, _D.project_id, _D.name, _D.kind, _D.zones, _D.settings, _D.revision, _D.created_at,
    _D.updated_at, _D.checked_at, _D.problem,
)  # fmt: skip
_EVIDENCE = (
    _E.id, _E.project_id, _E.domain, _E.scope, _E.method, _E.ca, _E.ca_kind, _E.subject_id, _E.validated_at, _E.seen,
)  # fmt: skip


# --- challenges --------------------------------------------------------------------------------------------------


async def insert_challenges(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        await tx.execute(sa.insert(challenges), list(rows))


async def challenge(tx: Tx, challenge_id: str) -> Row | None:
    return (await tx.execute(sa.select(*_CHALLENGE).where(_C.id == challenge_id))).one_or_none()


async def of_subject(tx: Tx, subject_id: str, seen_by: sa.ColumnElement[bool] | None = None) -> Sequence[Row]:
    """Every name of an application in its order, with the evidence's own facts: `seen_at`, `seen_method`, and
    `seen_where` if the record stood where a CNAME led."""
    shown = challenges.alias("shown")
    query = (
        sa.select(
            *_CHALLENGE,
            _E.validated_at.label("seen_at"),
            _E.method.label("seen_method"),
            shown.c.leads_to.label("seen_where"),
        )
        .outerjoin(evidence, _E.id == _C.evidence_id)
        .outerjoin(shown, shown.c.id == _E.challenge_id)
        .where(_C.subject_id == subject_id)
        .order_by(_C.position)
    )
    return (await tx.execute(query if seen_by is None else query.where(seen_by))).all()


async def lock_subject(tx: Tx, subject_id: str) -> None:
    """One writer at a time decides which name was the last to become valid."""
    await tx.execute(sa.select(_C.id).where(_C.subject_id == subject_id).order_by(_C.id).with_for_update())


async def route(tx: Tx, challenge_id: str, leads_to: str | None, connection_id: str | None) -> bool:
    """Where the record goes and who writes it; False when it is being written already, or not needed any more."""
    result = await tx.execute(
        sa.update(challenges)
        .where(
            _C.id == challenge_id, _C.write_intended_at.is_(None), _C.validated_at.is_(None),
            _C.cancelled_at.is_(None), _C.released_at.is_(None),
        )
        .values(leads_to=leads_to, connection_id=connection_id)
    )  # fmt: skip
    return bool(result.rowcount)


async def not_written(tx: Tx, challenge_id: str, **instead: str) -> None:
    """A CNAME was in the way, so that nothing was written: the record's place is looked for anew. `instead` are the
    record's new values where another does as well."""
    await tx.execute(
        sa.update(challenges)
        .where(_C.id == challenge_id, _C.written_at.is_(None))
        .values(write_intended_at=None, **instead)
    )


async def intend_write(tx: Tx, challenge_id: str, now: datetime) -> bool:
    return await _update_open(tx, challenge_id, write_intended_at=sa.func.coalesce(_C.write_intended_at, now))


async def written(tx: Tx, challenge_id: str, now: datetime) -> None:
    await tx.execute(sa.update(challenges).where(_C.id == challenge_id, _C.written_at.is_(None)).values(written_at=now))


async def removed(tx: Tx, challenge_id: str, now: datetime) -> None:
    await tx.execute(sa.update(challenges).where(_C.id == challenge_id, _C.removed_at.is_(None)).values(removed_at=now))


async def checked(tx: Tx, challenge_id: str, now: datetime, explanation: Mapping[str, Any]) -> bool:
    """Keep what a check said; False when the challenge isn't open any more."""
    return await _update_open(tx, challenge_id, checks=_C.checks + 1, checked_at=now, explanation=explanation)


async def validated(tx: Tx, challenge_id: str, evidence_id: str, now: datetime) -> bool:
    return await _update_open(tx, challenge_id, validated_at=now, evidence_id=evidence_id)


async def _update_open(tx: Tx, challenge_id: str, **values: Any) -> bool:
    result = await tx.execute(
        sa.update(challenges)
        .where(_C.id == challenge_id, _C.validated_at.is_(None), _C.cancelled_at.is_(None), _C.released_at.is_(None))
        .values(**values)
    )
    return bool(result.rowcount)


async def count_open(tx: Tx, subject_id: str) -> int:
    query = sa.select(sa.func.count()).where(
        _C.subject_id == subject_id, _C.validated_at.is_(None), _C.cancelled_at.is_(None)
    )
    return int(await tx.scalar(query) or 0)


async def cancel(tx: Tx, subject_id: str, now: datetime) -> None:
    await tx.execute(
        sa.update(challenges)
        .where(_C.subject_id == subject_id, _C.validated_at.is_(None), _C.cancelled_at.is_(None))
        .values(cancelled_at=now, next_step_at=None)
    )
    await release(tx, [subject_id], now)


async def move(tx: Tx, subject_ids: Sequence[str], project_id: str) -> None:
    for table in (challenges, mailed_links, foreseen):
        await tx.execute(sa.update(table).where(table.c.subject_id.in_(subject_ids)).values(project_id=project_id))


async def release(tx: Tx, subject_ids: Sequence[str], now: datetime) -> None:
    """Nothing published for these applications is needed any more; what we wrote ourselves is due for removal."""
    await tx.execute(
        sa.update(challenges)
        .where(is_one_of(_C.subject_id, subject_ids), _C.released_at.is_(None))
        .values(
            released_at=now,
            next_step_at=sa.case(
                (sa.and_(_C.write_intended_at.is_not(None), _C.removed_at.is_(None)), now), else_=_C.next_step_at
            ),
        )
    )


async def tls_alpn_answers(tx: Tx, now: datetime) -> dict[str, str]:
    """The newest value of each name that is still of use, by name."""
    query = (
        sa.select(_C.name, _C.value)
        .where(
            _C.method == Method.TLS_ALPN_01.value, _C.value.is_not(None), _C.cancelled_at.is_(None),
            _C.released_at.is_(None), _C.expires_at > now,
        )
        .order_by(_C.id)
    )  # fmt: skip
    return {row.name: row.value for row in await tx.execute(query)}


async def previous_values(tx: Tx, account_id: str, place: str, now: datetime) -> frozenset[str]:
    """Values that were asked for at this name and are of no use any more, the newest few."""
    over = sa.or_(
        _C.validated_at.is_not(None), _C.cancelled_at.is_not(None), _C.released_at.is_not(None), _C.expires_at <= now
    )
    query = (
        sa.select(_C.value)
        .where(_C.account_id == account_id, _C.record_name == place, _C.value.is_not(None), over)
        .order_by(_C.id.desc())
        .limit(20)
    )
    return frozenset((await tx.scalars(query)).all())


# --- mailed links ------------------------------------------------------------------------------------------------

_LINK = (
    _M.id, _M.account_id, _M.project_id, _M.subject_id, _M.domain, _M.address, _M.mailing, _M.sent_at, _M.expires_at,
    _M.used_at,
)  # fmt: skip


async def insert_links(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    await tx.execute(sa.insert(mailed_links), list(rows))


async def links_of(tx: Tx, subject_ids: Sequence[str]) -> Sequence[Row]:
    query = sa.select(*_LINK).where(is_one_of(_M.subject_id, subject_ids)).order_by(_M.mailing, _M.id)
    return (await tx.execute(query)).all()


async def link(tx: Tx, token_hash: bytes) -> Row | None:
    return (await tx.execute(sa.select(*_LINK).where(_M.token_hash == token_hash))).one_or_none()


async def use_link(tx: Tx, link_id: str, now: datetime) -> bool:
    """False when it was used before."""
    used = await tx.execute(
        sa.update(mailed_links).where(_M.id == link_id, _M.used_at.is_(None)).values(used_at=now)
    )  # fmt: skip
    return bool(used.rowcount)


# --- renewals that will need evidence ------------------------------------------------------------------------------


async def projects_of(tx: Tx, subject_ids: Sequence[str]) -> dict[str, str]:
    """The project of each of these applications that has names to show."""
    query = sa.select(_C.subject_id, _C.project_id).where(is_one_of(_C.subject_id, subject_ids)).distinct()
    return {row.subject_id: row.project_id for row in await tx.execute(query)}


async def foresee(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """The newest version of a certificate is the one that will be renewed."""
    if not rows:
        return
    new = pg_insert(foreseen).values(list(rows))
    kept = ("project_id", "subject_id", "needed_at", "not_after", "next_step_at")
    await tx.execute(new.on_conflict_do_update(index_elements=["id"], set_={name: new.excluded[name] for name in kept}))


async def foreseen_of(tx: Tx, certificate_id: str, *, lock: bool = False) -> Row | None:
    query = sa.select(_F.id, _F.account_id, _F.project_id, _F.subject_id, _F.needed_at, _F.not_after, _F.told_at)
    query = query.where(_F.id == certificate_id)
    return (await tx.execute(query.with_for_update() if lock else query)).one_or_none()


async def told(tx: Tx, certificate_id: str, at: datetime | None) -> None:
    await tx.execute(sa.update(foreseen).where(_F.id == certificate_id).values(told_at=at))


async def forget_foreseen(tx: Tx, certificate_id: str) -> None:
    await tx.execute(sa.delete(foreseen).where(_F.id == certificate_id))


# --- evidence ----------------------------------------------------------------------------------------------------


async def insert_evidence(tx: Tx, **values: Any) -> None:
    await tx.execute(pg_insert(evidence).values(**values))


async def evidence_for(
    tx: Tx, account_id: str, project_id: str, ca: str, domains: Sequence[str], since: datetime
) -> Sequence[Row]:
    """Candidates for re-use, newest first."""
    query = (
        sa.select(_E.id, _E.domain, _E.method, _E.ca_kind, _E.validated_at)
        .where(
            _E.account_id == account_id, _E.project_id == project_id, _E.ca == ca,
            _E.domain.in_(domains), _E.validated_at >= since,
        )
        .order_by(_E.validated_at.desc(), _E.id.desc())
    )  # fmt: skip
    return (await tx.execute(query)).all()


async def list_evidence(
    tx: Tx, visible: sa.ColumnElement[bool], *, domain: str | None, after: str | None, limit: int
) -> Sequence[Row]:
    query = sa.select(*_EVIDENCE).where(visible).order_by(_E.id.desc()).limit(limit)
    if domain is not None:
        query = query.where(_E.domain == domain)
    if after is not None:
        query = query.where(_E.id < after)
    return (await tx.execute(query)).all()


# --- connections -------------------------------------------------------------------------------------------------


async def insert_connection(tx: Tx, **values: Any) -> bool:
    """False when the project has a connection of that name."""
    result = await tx.execute(
        pg_insert(dns_connections)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["account_id", "project_id", "name"])
    )
    return bool(result.rowcount)


async def connection(tx: Tx, connection_id: str, seen_by: sa.ColumnElement[bool] | None = None) -> Row | None:
    query = sa.select(*_CONNECTION).where(_D.id == connection_id)
    return (await tx.execute(query if seen_by is None else query.where(seen_by))).one_or_none()


async def connection_secret(tx: Tx, connection_id: str) -> bytes | None:
    secret: bytes | None = await tx.scalar(sa.select(_D.secret).where(_D.id == connection_id))
    return secret


async def list_connections(tx: Tx, visible: sa.ColumnElement[bool], *, after: str | None, limit: int) -> Sequence[Row]:
    query = sa.select(*_CONNECTION).where(visible).order_by(_D.id.desc()).limit(limit)
    return (await tx.execute(query if after is None else query.where(_D.id < after))).all()


async def connections_of_project(tx: Tx, account_id: str, project_id: str, zones: Sequence[str]) -> Sequence[Row]:
    """Connections that hold one of `zones`, oldest first."""
    query = (
        sa.select(_D.id, _D.zones)
        .where(_D.account_id == account_id, _D.project_id == project_id, _D.zones.overlap(list(zones)))
        .order_by(_D.id)
    )
    return (await tx.execute(query)).all()


async def connection_name_taken(tx: Tx, account_id: str, project_id: str, name: str, but: str) -> bool:
    query = sa.select(
        sa.exists().where(_D.account_id == account_id, _D.project_id == project_id, _D.name == name, _D.id != but)
    )
    return bool(await tx.scalar(query))


async def update_connection(tx: Tx, connection_id: str, revision: int, values: Mapping[str, Any]) -> bool:
    """False when the revision has moved on."""
    result = await tx.execute(
        sa.update(dns_connections)
        .where(_D.id == connection_id, _D.revision == revision)
        .values(**values, revision=_D.revision + 1)
    )
    return bool(result.rowcount)


async def connection_tested(tx: Tx, connection_id: str, now: datetime, problem: Mapping[str, Any] | None) -> None:
    await tx.execute(sa.update(dns_connections).where(_D.id == connection_id).values(checked_at=now, problem=problem))


async def connection_in_use(tx: Tx, connection_id: str, now: datetime) -> int:
    """How many names wait for this connection to validate them."""
    query = sa.select(sa.func.count()).where(
        _C.connection_id == connection_id, _C.validated_at.is_(None), _C.cancelled_at.is_(None),
        _C.released_at.is_(None), _C.expires_at > now,
    )  # fmt: skip
    return int(await tx.scalar(query) or 0)


async def records_out(tx: Tx, connection_id: str) -> Sequence[Row]:
    """Challenges whose record was, or may have been, written through this connection and not removed yet."""
    query = (
        sa.select(
            _C.id,
            sa.func.coalesce(_C.leads_to, _C.record_name).label("at"),
            _C.released_at,
            _C.cancelled_at,
            _C.expires_at,
        )
        .where(_C.connection_id == connection_id, _C.write_intended_at.is_not(None), _C.removed_at.is_(None))
        .order_by(sa.literal_column("at"), _C.id)
    )
    return (await tx.execute(query)).all()


async def delete_connection(tx: Tx, connection_id: str) -> None:
    await tx.execute(sa.delete(dns_connections).where(_D.id == connection_id))
