"""Writing into the ledger: one entry per name that was shown, and word to others when it was the last."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import audit
from certwright.rooms.validation import rules, store
from certwright.rooms.validation.words import Method

DOMAINS_VALIDATED = "validation.domains_validated"


async def keep(
    tx: Tx, services: Services, actor: Actor, row: store.Row, seen: Mapping[str, Any], now: datetime
) -> None:
    """An open challenge passed; its application is locked by `store.lock_subject`."""
    evidence_id = new_id("evd", now)
    await store.insert_evidence(
        tx, id=evidence_id, account_id=row.account_id, project_id=row.project_id, domain=row.domain,
        scope=rules.evidence_scope(Method(row.method)), method=row.method, ca=row.ca, ca_kind=row.ca_kind,
        subject_id=row.subject_id, challenge_id=row.id, validated_at=now, seen=dict(seen),
    )  # fmt: skip
    await store.validated(tx, row.id, evidence_id, now)
    await audit.record(
        tx, services, actor, "scm:validation:validated", "evidence", evidence_id, project_id=row.project_id,
        after={"domain": row.domain, "name": row.name, "method": row.method, "ca": row.ca, "subject": row.subject_id},
    )  # fmt: skip
    if await store.count_open(tx, row.subject_id) == 0:
        await services.events.publish(
            tx, DOMAINS_VALIDATED, account_id=row.account_id, object_id=row.subject_id,
            payload={"subject_id": row.subject_id, "project_id": row.project_id},
        )  # fmt: skip
