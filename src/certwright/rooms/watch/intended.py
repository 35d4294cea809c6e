"""Which certificate is meant to be served where, read from the deployment room when it matters.

Events tell of a change soon; what they told may be old by the time a probe sees something else. So before an alarm
says "not the intended one", the binding itself is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from certwright.platform.db import Tx
from certwright.rooms import certificates, deployment


@dataclass(frozen=True, slots=True)
class Bound:
    """A binding as it is now. `fingerprint` is that of the version deployed there, None before the first rollout."""

    id: str
    site_id: str
    certificate_id: str
    fingerprint: str | None


async def bound(tx: Tx, *, binding_id: str | None = None, site_id: str | None = None) -> tuple[Bound, ...]:
    """The binding, or all bindings of a site: one with an RSA and an EC certificate has two."""
    b = deployment.bindings.c
    where = b.id == binding_id if binding_id is not None else b.site_id == site_id
    select = sa.select(b.id, b.site_id, b.certificate_id, b.deployed_version_id).where(where).order_by(b.id)
    found = []
    for row in (await tx.execute(select)).all():
        version = None
        if row.deployed_version_id is not None:
            version = await certificates.version_material(tx, row.deployed_version_id)
        found.append(Bound(row.id, row.site_id, row.certificate_id, version.sha256 if version else None))
    return tuple(found)


async def rollout_under_way(tx: Tx, site_id: str) -> bool:
    """Whether what the site serves is just being changed; a rollout that could not be undone changes nothing now."""
    r, s = deployment.rollouts.c, deployment.sites.c
    under_way = (
        sa.exists()
        .where(s.id == site_id, r.target_id == s.target_id, r.started_at.is_not(None))
        .where(r.finished_at.is_(None), r.state != deployment.RolloutState.FAILED.value)
    )
    return bool(await tx.scalar(sa.select(under_way)))
