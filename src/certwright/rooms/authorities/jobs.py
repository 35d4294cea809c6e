"""The step of a CA: its key goes at the end of the waiting, its lists stay fresh, its answers are signed ahead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import system_actor
from certwright.platform.db import Tx
from certwright.platform.jobs import Next
from certwright.platform.services import Services
from certwright.rooms import audit
from certwright.rooms.authorities import lists, status
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import authorities


async def step(services: Services, authority_id: str) -> Next:
    now = services.clock.now()
    a = authorities.c
    async with services.db.begin() as tx:
        ca = (
            await tx.execute(sa.select(authorities).where(a.id == authority_id).with_for_update(key_share=True))
        ).one_or_none()  # fmt: skip
        if ca is None or ca.erased_at is not None:
            return None
        if ca.delete_at is not None and ca.delete_at <= now:
            await _erase(tx, services, ca)
            return None
        await status.erase_ended_responders(tx, services, authority_id)
        waits: list[timedelta] = []
        lives = ca.certificate_der is not None and ca.not_after > now
        if lives:
            waits.append(await lists.publish(tx, services, ca))
        if lives and ca.ocsp_enabled:
            waits.append(await status.keep_responder(tx, services, ca))
        else:
            await status.forget_answers(tx, authority_id)
        if ca.delete_at is not None:
            waits.append(ca.delete_at - now)
    if lives and ca.ocsp_enabled:
        # In a transaction of its own, so that revoking needn't wait for thousands of signatures.
        waits.append(await status.sign_ahead(services, authority_id))
    return min(waits, default=None)


async def _erase(tx: Tx, services: Services, row: Any) -> None:
    """The key is crypto-erased; certificate, what was issued and the audit trail stay."""
    now = services.clock.now()
    await services.port(Signer).erase_key(tx, row.ca_key_id)
    await status.erase_responders(tx, services, row.id)
    a = authorities.c
    await tx.execute(
        sa.update(authorities)
        .where(a.id == row.id)
        .values(erased_at=now, next_step_at=None, revision=a.revision + 1)
    )  # fmt: skip
    await audit.record(
        tx, services, system_actor(row.account_id, "authorities"), "ccm:ca:delete", "authority", row.id,
        project_id=row.project_id, before={"state": "deleted"}, after={"key": "erased"},
    )  # fmt: skip
