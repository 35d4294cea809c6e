"""All SQL of the certificates room. Transitions are guarded updates; zero rows is an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from cryptography.x509.oid import NameOID

from certwright.platform.db import Tx, is_one_of
from certwright.rooms.certificates.tables import applications, certificates, confirmations, versions
from certwright.rooms.certificates.words import DomainType, RevocationReason, State, VersionMaterial
from certwright.rooms.csrs import UsedBy
from certwright.x509.certificates import CertificateFacts, load

Row = Any
"""A SQLAlchemy row; its columns are the table's."""

_SHORT = timedelta(days=100)


async def insert_certificate(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(certificates).values(**values))


async def name_taken(tx: Tx, account_id: str, name: str, *, besides: str = "") -> bool:
    found = sa.select(certificates.c.id).where(
        certificates.c.account_id == account_id, certificates.c.name == name, certificates.c.id != besides
    )
    return bool(await tx.scalar(sa.select(found.exists())))


async def certificate(
    tx: Tx, certificate_id: str, where: sa.ColumnElement[bool] | None = None, *, lock: bool = False
) -> Row | None:
    select = sa.select(certificates).where(certificates.c.id == certificate_id)
    if where is not None:
        select = select.where(where)
    return (await tx.execute(select.with_for_update() if lock else select)).one_or_none()


async def move(
    tx: Tx, certificate_id: str, leaves: Sequence[State], enters: State, now: datetime, **values: Any
) -> bool:
    """Change the stage; False when the certificate was in none of the stages it should leave."""
    result = await tx.execute(
        sa.update(certificates)
        .where(certificates.c.id == certificate_id, certificates.c.stage.in_([stage.value for stage in leaves]))
        .values(stage=enters.value, updated_at=now, revision=certificates.c.revision + 1, **values)
    )
    return bool(result.rowcount)


async def update_certificate(tx: Tx, certificate_id: str, revision: int | None, now: datetime, **values: Any) -> bool:
    """Write plain fields; with a revision only if nobody wrote since it was read."""
    guard = sa.true() if revision is None else certificates.c.revision == revision
    result = await tx.execute(
        sa.update(certificates)
        .where(certificates.c.id == certificate_id, guard)
        .values(updated_at=now, revision=certificates.c.revision + 1, **values)
    )
    return bool(result.rowcount)


async def delete_certificate(tx: Tx, certificate_id: str, revision: int) -> bool:
    result = await tx.execute(
        sa.delete(certificates).where(certificates.c.id == certificate_id, certificates.c.revision == revision)
    )
    return bool(result.rowcount)


def state_is(state: State, now: datetime) -> sa.ColumnElement[bool]:
    """The SQL twin of rules.shown_state, for filters and counts."""
    c = certificates.c
    lapsing = c.stage.in_([State.ISSUED, State.HOSTED, State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION])
    over = sa.and_(lapsing, c.not_after.is_not(None), c.not_after <= now)
    if state is State.EXPIRED:
        return over
    return sa.and_(c.stage == state.value, sa.or_(c.not_after.is_(None), c.not_after > now, ~lapsing))


def expires_soon(now: datetime) -> sa.ColumnElement[bool]:
    """The SQL twin of rules.expires_soon."""
    c = certificates.c
    life, left = sa.extract("epoch", c.not_after - c.not_before), sa.extract("epoch", c.not_after - now)
    margin = sa.case((life >= _SHORT.total_seconds(), 30 * 86_400.0), else_=life * 0.33)
    return sa.and_(c.stage.in_([State.ISSUED, State.HOSTED]), left > 0, left <= margin)


_C = certificates.c
# In the order views.summary_of_columns unpacks them: a page is read more often than anything else.
SUMMARY_COLUMNS = (
    _C.id, _C.project_id, _C.name, _C.description, _C.tags, _C.stage, _C.ca, _C.uploaded, _C.primary_name, _C.names,
    _C.key_algorithm, _C.sha256, _C.serial, _C.not_before, _C.not_after, _C.auto_renew, _C.notify, _C.created_at,
    _C.updated_at, _C.revision,
)  # fmt: skip


async def page(
    tx: Tx, where: Sequence[sa.ColumnElement[bool]], *, order: sa.Column[Any], descending: bool, after: Any, limit: int
) -> list[Row]:
    """A page by keyset: rows strictly beyond `after` = (value of the order column, id)."""
    c = certificates.c
    query = sa.select(*SUMMARY_COLUMNS).where(*where)
    if order is c.id:
        if after is not None:
            query = query.where(c.id < after[1] if descending else c.id > after[1])
        query = query.order_by(c.id.desc() if descending else c.id)
    elif order.nullable and after is not None and after[0] is None:
        return await _without(tx, query, order, descending=descending, after=after[1], limit=limit)
    else:
        query = query.where(order.is_not(None))
        if after is not None:
            pair, mark = sa.tuple_(order, c.id), sa.tuple_(sa.literal(after[0], order.type), sa.literal(after[1]))
            query = query.where(pair < mark if descending else pair > mark)
        query = query.order_by(*((order.desc(), c.id.desc()) if descending else (order, c.id)))
    rows = list(await tx.execute(query.limit(limit)))
    if order.nullable and len(rows) < limit:
        rest = sa.select(*SUMMARY_COLUMNS).where(*where)
        rows += await _without(tx, rest, order, descending=descending, after=None, limit=limit - len(rows))
    return rows


async def _without(
    tx: Tx, query: sa.Select[Any], order: sa.Column[Any], *, descending: bool, after: str | None, limit: int
) -> list[Row]:
    """The end of a list: rows that have nothing in the order column, by id."""
    c = certificates.c
    if after is not None:
        query = query.where(c.id < after if descending else c.id > after)
    query = query.where(order.is_(None)).order_by(c.id.desc() if descending else c.id)
    return list(await tx.execute(query.limit(limit)))


async def counts(tx: Tx, where: sa.ColumnElement[bool], now: datetime) -> dict[str, int]:
    """How many in each shown state, and how many expire soon."""
    c = certificates.c
    over = state_is(State.EXPIRED, now)
    shown = sa.case((over, sa.literal(State.EXPIRED.value)), else_=c.stage).label("state")
    rows = await tx.execute(
        sa.select(shown, sa.func.count(), sa.func.count().filter(expires_soon(now))).where(where).group_by(shown)
    )
    result: dict[str, int] = {"expires_soon": 0}
    for state, number, soon in rows:
        result[state] = number
        result["expires_soon"] += soon
    return result


async def expiry_days(tx: Tx, where: sa.ColumnElement[bool], now: datetime, days: int) -> list[tuple[datetime, int]]:
    """How many usable certificates run out on each of the next `days` days (UTC)."""
    c = certificates.c
    day = sa.func.date_trunc("day", c.not_after, "UTC").label("day")
    rows = await tx.execute(
        sa.select(day, sa.func.count())
        .where(where, c.stage.in_([State.ISSUED, State.HOSTED, State.VERIFYING_REISSUE]))
        .where(c.not_after > now, c.not_after <= now + timedelta(days=days))
        .group_by(day)
        .order_by(day)
    )
    return [(row[0], row[1]) for row in rows]


# --- applications ---------------------------------------------------------------------------------------------------

OPEN = sa.and_(
    applications.c.issued_at.is_(None), applications.c.withdrawn_at.is_(None), applications.c.failed_at.is_(None)
)


async def insert_application(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(applications).values(**values))


async def application(tx: Tx, application_id: str) -> Row | None:
    return (await tx.execute(sa.select(applications).where(applications.c.id == application_id))).one_or_none()


async def open_application(tx: Tx, certificate_id: str) -> Row | None:
    query = sa.select(applications).where(applications.c.certificate_id == certificate_id, OPEN)
    return (await tx.execute(query)).one_or_none()


async def latest_application(tx: Tx, certificate_id: str) -> Row | None:
    query = (
        sa.select(applications).where(applications.c.certificate_id == certificate_id)
        .order_by(OPEN.desc(), applications.c.submitted_at.desc(), applications.c.id.desc()).limit(1)
    )  # fmt: skip
    return (await tx.execute(query)).one_or_none()


async def application_in_use(tx: Tx, certificate_id: str) -> Row | None:
    """The application behind the current version: what was asked for since and came to nothing does not count."""
    query = (
        sa.select(applications)
        .join(versions, versions.c.application_id == applications.c.id)
        .where(versions.c.certificate_id == certificate_id, versions.c.superseded_at.is_(None))
    )
    return (await tx.execute(query)).one_or_none()


async def holds_personal_data(tx: Tx, certificate_id: str) -> bool:
    """Whether an application or the draft still says whom to ask."""
    a, c = applications.c, certificates.c
    asked = sa.select(a.id).where(a.certificate_id == certificate_id, a.applicant.is_not(None)).exists()
    typed = sa.select(c.id).where(
        c.id == certificate_id,
        sa.or_(c.draft["applicant"].astext.is_not(None), c.draft["technical_contact"].astext.is_not(None)),
    ).exists()  # fmt: skip
    return bool(await tx.scalar(sa.select(sa.or_(asked, typed))))


async def forget_person(tx: Tx, certificate_id: str, now: datetime) -> None:
    """Erase the applicant's and the organisation's details from every application and the draft."""
    await tx.execute(sa.delete(confirmations).where(confirmations.c.certificate_id == certificate_id))
    await tx.execute(
        sa.update(applications).where(applications.c.certificate_id == certificate_id)
        .values(applicant=sa.null(), technical_contact=sa.null(), organisation=sa.null(), organisation_id=None)
    )  # fmt: skip
    await update_certificate(tx, certificate_id, None, now, draft=sa.null())


async def application_ids(tx: Tx, certificate_id: str) -> list[str]:
    query = sa.select(applications.c.id).where(applications.c.certificate_id == certificate_id)
    return list((await tx.scalars(query)).all())


async def record(tx: Tx, application_id: str, missing: str, **values: Any) -> bool:
    """Write a fact of an open application that was missing until now; False if it was there or the attempt is over."""
    result = await tx.execute(
        sa.update(applications)
        .where(applications.c.id == application_id, applications.c[missing].is_(None), OPEN)
        .values(**values)
    )
    return bool(result.rowcount)


async def csr_uses(tx: Tx, csr_ids: Sequence[str]) -> dict[str, UsedBy]:
    """By kept CSR: certificates applied for with it, and open applications among them."""
    c = applications.c
    query = (
        sa.select(c.csr_id, sa.func.count(c.certificate_id.distinct()), sa.func.count().filter(OPEN))
        .where(is_one_of(c.csr_id, csr_ids))
        .group_by(c.csr_id)
    )
    return {csr_id: UsedBy(number, opened) for csr_id, number, opened in await tx.execute(query)}


async def under_way(tx: Tx, certificate_ids: Sequence[str]) -> dict[str, Row]:
    """How far the open applications of these certificates are, by certificate."""
    a = applications.c
    query = sa.select(a.certificate_id, a.validated_at, a.organisation_id, a.organisation_ok_at).where(
        is_one_of(a.certificate_id, certificate_ids), OPEN
    )
    return {row.certificate_id: row for row in await tx.execute(query)}


async def confirmation_list(tx: Tx, certificate_id: str) -> list[Row]:
    """The links mailed about revocations of a certificate's versions, newest first."""
    c = confirmations.c
    query = (
        sa.select(c.id, c.version_id, c.address, c.created_at, c.expires_at, c.confirmed_at, versions.c.number)
        .join(versions, versions.c.id == c.version_id)
        .where(c.certificate_id == certificate_id)
        .order_by(c.id.desc())
    )
    return list((await tx.execute(query)).all())


async def key_compromised(tx: Tx, certificate_id: str, key_id: str) -> bool:
    """Whether a version with this key was, or is being, revoked because somebody else may have it."""
    found = sa.select(versions.c.id).where(
        versions.c.certificate_id == certificate_id,
        versions.c.key_id == key_id,
        versions.c.revocation_reason == RevocationReason.KEY_COMPROMISE.value,
    )
    return bool(await tx.scalar(sa.select(found.exists())))


async def unpin(tx: Tx, certificate_id: str, key_id: str, key_algorithm: str) -> bool:
    """Have the open application make a key of its own instead of this one, unless it was ordered already."""
    result = await tx.execute(
        sa.update(applications)
        .where(
            applications.c.certificate_id == certificate_id, applications.c.key_id == key_id, OPEN,
            applications.c.order_intended_at.is_(None), applications.c.order_id.is_(None),
        )
        .values(csr_der=None, key_id=None, csr_id=None, key_pinned=False, key_algorithm=key_algorithm)
    )  # fmt: skip
    return bool(result.rowcount)


async def key_ids(tx: Tx, certificate_id: str) -> list[str]:
    """Every key any attempt or version of this certificate refers to."""
    found = await tx.scalars(
        sa.select(applications.c.key_id)
        .where(applications.c.certificate_id == certificate_id, applications.c.key_id.is_not(None))
        .union(
            sa.select(versions.c.key_id).where(
                versions.c.certificate_id == certificate_id, versions.c.key_id.is_not(None)
            )
        )
    )
    return list(found.all())


# --- versions -------------------------------------------------------------------------------------------------------


def version_values(
    leaf: CertificateFacts,
    chain_ders: Sequence[bytes],
    *,
    application_id: str | None,
    key_id: str | None,
    issued_at: datetime,
) -> dict[str, Any]:
    """The columns of a version that its leaf and chain tell."""
    return {
        "application_id": application_id, "key_id": key_id, "leaf_der": leaf.der, "chain_ders": list(chain_ders),
        "names": list(leaf.dns_names + leaf.ip_addresses), "subject": leaf.subject, "issuer": leaf.issuer,
        "serial": leaf.serial, "sha256": leaf.sha256, "sha1": leaf.sha1, "spki_sha256": leaf.spki_sha256,
        "key_algorithm": leaf.key_algorithm, "signature_algorithm": leaf.signature_algorithm,
        "not_before": leaf.not_before, "not_after": leaf.not_after, "issued_at": issued_at,
    }  # fmt: skip


async def insert_version(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(versions).values(**values))


async def supersede(tx: Tx, certificate_id: str, now: datetime) -> int:
    """Retire the current version; returns the number the next one gets."""
    await tx.execute(
        sa.update(versions)
        .where(versions.c.certificate_id == certificate_id, versions.c.superseded_at.is_(None))
        .values(superseded_at=now)
    )
    highest = await tx.scalar(
        sa.select(sa.func.max(versions.c.number)).where(versions.c.certificate_id == certificate_id)
    )
    return (highest or 0) + 1


async def version(tx: Tx, version_id: str) -> Row | None:
    return (await tx.execute(sa.select(versions).where(versions.c.id == version_id))).one_or_none()


async def version_list(tx: Tx, certificate_id: str) -> list[Row]:
    query = sa.select(versions).where(versions.c.certificate_id == certificate_id).order_by(versions.c.number.desc())
    return list((await tx.execute(query)).all())


async def renewed_by(tx: Tx, row: Row) -> list[str]:
    """The certificates that renewal orders made for this one, oldest first."""
    c = certificates.c
    query = sa.select(c.id).where(c.renews_certificate_id == row.id, c.account_id == row.account_id).order_by(c.id)
    return list(await tx.scalars(query))


async def company_before(tx: Tx, row: Row) -> str | None:
    """The company in the newest certificate of the one that this row renews; None for none, and once the row itself
    has been issued."""
    if row.renews_certificate_id is None or row.current_version_id is not None:
        return None
    v = versions.c
    query = (
        sa.select(v.leaf_der)
        .where(v.certificate_id == row.renews_certificate_id, v.account_id == row.account_id)
        .order_by(v.number.desc())
        .limit(1)
    )
    leaf = await tx.scalar(query)
    if leaf is None:
        return None
    names = load(leaf).subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else None


async def version_of_control(tx: Tx, control_id: str) -> Row | None:
    query = sa.select(versions).where(versions.c.control_id == control_id)
    return (await tx.execute(query)).one_or_none()


async def drop_control(tx: Tx, version_id: str, control_id: str) -> None:
    await tx.execute(
        sa.update(versions)
        .where(versions.c.id == version_id, versions.c.control_id == control_id)
        .values(control_id=None)
    )


async def control_ids(tx: Tx, certificate_id: str) -> list[str]:
    """Under which names are shown to have versions of this certificate revoked."""
    query = sa.select(versions.c.control_id).where(
        versions.c.certificate_id == certificate_id, versions.c.control_id.is_not(None)
    )
    return list((await tx.scalars(query)).all())


VERSION_FACTS = tuple(
    versions.c[name] for name in ("number", "issued_at", "not_after", "superseded_at", "revoke_asked_at", "revoked_at")
)


async def version_facts(tx: Tx, certificate_id: str) -> list[Row]:
    return list((await tx.execute(sa.select(*VERSION_FACTS).where(versions.c.certificate_id == certificate_id))).all())


async def update_version(tx: Tx, version_id: str, missing: str, **values: Any) -> bool:
    result = await tx.execute(
        sa.update(versions).where(versions.c.id == version_id, versions.c[missing].is_(None)).values(**values)
    )
    return bool(result.rowcount)


async def set_replaced_until(tx: Tx, version_id: str, until: datetime) -> None:
    """Put off the revocation of a reissued version that is still in use."""
    await tx.execute(
        sa.update(versions)
        .where(versions.c.id == version_id, versions.c.revoke_asked_at.is_(None))
        .values(revoke_replaced_at=until)
    )


async def material(
    tx: Tx, *, certificate_id: str | None = None, version_id: str | None = None
) -> VersionMaterial | None:
    """The current version of a certificate, or one version by id."""
    query = sa.select(versions, certificates.c.name).join(certificates, certificates.c.id == versions.c.certificate_id)
    if version_id is not None:
        query = query.where(versions.c.id == version_id)
    else:
        query = query.where(versions.c.certificate_id == certificate_id, versions.c.superseded_at.is_(None))
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    return VersionMaterial(
        version_id=row.id,
        certificate_id=row.certificate_id,
        account_id=row.account_id,
        project_id=row.project_id,
        name=row.name,
        number=row.number,
        leaf_der=row.leaf_der,
        chain_ders=tuple(row.chain_ders),
        names=tuple(row.names),
        key_id=row.key_id,
        sha256=row.sha256,
        not_before=row.not_before,
        not_after=row.not_after,
        revoked=row.revoked_at is not None,
    )


def search_text(
    name: str, names: Sequence[str], unicode_names: Sequence[str], sha256: str = "", serial: str = ""
) -> str:
    """What substring search looks at, in lower case; each word once."""
    return " ".join(dict.fromkeys(w.lower() for w in (name, *names, *unicode_names, sha256, serial) if w))


def filters(
    *,
    now: datetime,
    states: Sequence[State] = (),
    search: str | None = None,
    ca: str | None = None,
    project_id: str | None = None,
    tag: Mapping[str, str] | None = None,
    expires_after: datetime | None = None,
    expires_before: datetime | None = None,
    soon: bool | None = None,
    key_algorithm: str | None = None,
    sha256: str | None = None,
    serial: str | None = None,
    ids: Sequence[str] | None = None,
    certificate_type: str | None = None,
    domain_type: str | None = None,
) -> list[sa.ColumnElement[bool]]:
    c = certificates.c
    where: list[sa.ColumnElement[bool]] = []
    if states:
        where.append(sa.or_(*(state_is(state, now) for state in states)))
    if search:
        where.append(c.search_text.contains(search.lower(), autoescape=True))
    if ca:
        where.append(c.ca == ca)
    if project_id:
        where.append(c.project_id == project_id)
    if tag:
        where.append(c.tags.contains(dict(tag)))
    if expires_after is not None:
        where.append(c.not_after >= expires_after)
    if expires_before is not None:
        where.append(c.not_after <= expires_before)
    if soon is not None:
        where.append(expires_soon(now) if soon else ~sa.func.coalesce(expires_soon(now), False))
    if key_algorithm:
        where.append(c.key_algorithm == key_algorithm)
    if sha256:
        where.append(c.sha256 == sha256.replace(":", "").lower())
    if serial:
        # Others write it in whole octets; here it has no zero in front.
        where.append(c.serial == serial.replace(":", "").lower().lstrip("0"))
    if ids is not None:
        where.append(c.id.in_(ids))
    if certificate_type:
        where.append(_type_of_certificate() == certificate_type)
    if domain_type:
        where.append(_domain_type() == domain_type)
    return where


def _type_of_certificate() -> sa.ColumnElement[str]:
    """As it was bought, else as it was last applied for; NULL where nobody applied."""
    a = applications.c
    asked = (
        sa.select(a.certificate_type)
        .where(a.certificate_id == certificates.c.id)
        .order_by(a.submitted_at.desc(), a.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return sa.func.coalesce(certificates.c.certificate_type, asked)


def _domain_type() -> sa.ColumnElement[str]:
    """As it was bought, else what its names make it; NULL where it has none."""
    c = certificates.c
    natural = sa.case(
        (sa.func.cardinality(c.names) > 1, DomainType.MULTI.value),
        (c.primary_name.startswith("*."), DomainType.WILDCARD.value),
        (c.primary_name != "", DomainType.SINGLE.value),
    )
    return sa.func.coalesce(c.domain_type, natural)
