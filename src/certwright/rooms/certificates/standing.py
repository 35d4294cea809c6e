"""Facts about many certificates at once, for rooms above that judge whole inventories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.platform.db import Tx
from certwright.rooms import access
from certwright.rooms.certificates.rules import shown_state
from certwright.rooms.certificates.tables import applications, certificates, versions
from certwright.rooms.certificates.words import VOUCHED, State

_C, _V, _A = certificates.c, versions.c, applications.c


@dataclass(frozen=True, slots=True)
class Standing:
    """A certificate with a version, and how that version came about; `application_id` None: it was uploaded."""

    certificate_id: str
    account_id: str
    project_id: str
    name: str
    primary_name: str
    names: tuple[str, ...]
    state: State
    ca: str
    uploaded: bool
    has_key: bool
    auto_renew: bool
    key_algorithm: str
    version_id: str
    issuer: str
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    bought: bool
    coverage_ends_at: datetime | None
    application_id: str | None
    validation_method: str | None
    per_name_methods: Mapping[str, str]

    @property
    def vouched(self) -> bool:
        """Issued by a private CA whose user vouched for the names."""
        return self.validation_method == VOUCHED


@dataclass(frozen=True, slots=True)
class Match:
    """All that is given must hold. `issuer` is looked for inside the issuer's name; in `names` a `*` stands for any
    characters."""

    ca: str | None = None
    key_algorithm: str | None = None
    issuer: str | None = None
    issued_before: datetime | None = None
    names: str | None = None
    project_id: str | None = None


async def standing(
    tx: Tx, actor: Actor, action: str, match: Match, now: datetime, *, after: str | None = None, limit: int
) -> list[Standing]:
    """Certificates the actor may do `action` to, by id; `after` is the id of the last one seen."""
    query = (
        sa.select(
            _C.id, _C.account_id, _C.project_id, _C.name, _C.primary_name, _C.names, _C.stage, _C.ca, _C.uploaded,
            _C.key_id, _C.auto_renew, _V.key_algorithm, _V.id.label("version_id"), _V.issuer, _V.not_before,
            _V.not_after, _V.issued_at, _C.order_id, _C.coverage_ends_at, _V.application_id, _A.validation_method,
            _A.per_name_methods,
        )
        .join(versions, _V.id == _C.current_version_id)
        .outerjoin(applications, _A.id == _V.application_id)
        .where(access.visible(certificates, actor, action), *_where(match))
        .order_by(_C.id).limit(limit)
    )  # fmt: skip
    if after is not None:
        query = query.where(_C.id > after)
    return [
        Standing(
            row.id, row.account_id, row.project_id, row.name, row.primary_name, tuple(row.names),
            shown_state(State(row.stage), row.not_after, now), row.ca, row.uploaded, row.key_id is not None,
            row.auto_renew, row.key_algorithm, row.version_id, row.issuer, row.not_before, row.not_after,
            row.issued_at, row.order_id is not None, row.coverage_ends_at, row.application_id, row.validation_method,
            row.per_name_methods or {},
        )
        for row in await tx.execute(query)
    ]  # fmt: skip


def _where(match: Match) -> list[sa.ColumnElement[bool]]:
    where: list[sa.ColumnElement[bool]] = []
    if match.ca is not None:
        where.append(_C.ca == match.ca)
    if match.key_algorithm is not None:
        where.append(_V.key_algorithm == match.key_algorithm)
    if match.issuer is not None:
        where.append(_V.issuer.icontains(match.issuer, autoescape=True))
    if match.issued_before is not None:
        where.append(_V.issued_at < match.issued_before)
    if match.project_id is not None:
        where.append(_C.project_id == match.project_id)
    if match.names is not None:
        escaped = match.names.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        one = sa.func.unnest(_C.names).table_valued("name", name="one")
        found = sa.select(sa.literal(1)).select_from(one).where(one.c.name.like(escaped.replace("*", "%"), escape="\\"))
        where.append(found.correlate(certificates).exists())
    return where
