"""Renewing CAs: the same name and key, a new certificate that ends later. A new key is a new CA."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Refused, Stale
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.authorities import hierarchy, lists, rules, store
from certwright.rooms.authorities.rules import CaOperation
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import issued_certificates
from certwright.rooms.authorities.words import Authority
from certwright.x509.certificates import facts_of
from certwright.x509.issue import IssuerFacts, Linted, approve, assemble, new_serial, validity
from certwright.x509.renewal import draft_renewal, renewal_profile


async def renew_authority(
    services: Services, actor: Actor, authority_id: str, *, days: int | None = None, revision: int | None = None
) -> Authority:
    """A certificate that ends later for a root, or for a CA below one of ours, which signs it. `days` counts from an
    hour before now (None: as long as the certificate before) and is cut off by the parent's end. One that has ended
    may be renewed. What was issued before goes on being good, with the old certificate above it or the new one.

    Needs `ccm:ca:update`, and `ccm:ca:create` on the parent. Raises Refused `ca_renew_refused`, `ca_renewed_outside`,
    `ca_not_active` for a parent that isn't, `ca_renewal_gains_nothing`, Invalid `ca_days_out_of_range`, `lint_failed`,
    Stale.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        await store.visible_row(tx, actor, "ccm:ca:update", authority_id)
        below = await store.hold_below(tx, authority_id)
        ca = await store.visible_row(tx, actor, "ccm:ca:update", authority_id, lock=True)
        if revision is not None and revision != ca.revision:
            raise Stale("stale", "Somebody changed this CA meanwhile.", fix="Load it again and repeat the change.")
        hierarchy.refuse(CaOperation.RENEW, ca, now)
        parent, above = None, None
        if ca.parent_id is not None:
            parent = await store.visible_row(tx, actor, "ccm:ca:create", ca.parent_id, lock=True)
            hierarchy.refuse(CaOperation.ISSUE, parent, now)
            above = await store.binding_issuer(tx, services, parent)
        elif ca.kind != "root":
            raise Refused(
                "ca_renewed_outside", f"The CA above {ca.name!r} isn't here, so it can't be renewed here alone.",
                fix="Have its parent sign it anew with the same key, and install what comes back.",
            )  # fmt: skip
        serial = new_serial()
        linted = _drafted(services, ca, parent, above, days, serial)
        der = assemble(linted, await services.port(Signer).sign(tx, (parent or ca).ca_key_id, linted))
        facts = facts_of(der)
        row = await hierarchy.replace_certificate(tx, services, ca, below, facts, {})
        if parent is not None:
            await _name_former(tx, ca)
            await hierarchy.record_issued(tx, services, parent, row, serial, reference=f"{ca.id}:{serial:x}")
        await hierarchy.record_renewal(tx, services, actor, ca, facts)
        return await hierarchy.seen(tx, services, authority_id)


def _drafted(
    services: Services, ca: Any, parent: Any, above: IssuerFacts | None, days: int | None, serial: int
) -> Linted:
    now, before = services.clock.now(), store.issuer_of(ca)
    seconds = rules.judge_renewed_days(days, before)
    profile = renewal_profile(before, root=parent is None, seconds=seconds)
    start, end = validity(profile, above, at=now)
    rules.judge_gain(ca.name, before, end, None if parent is None else parent.name, above)
    where = lists.Pointers() if parent is None else lists.pointers(services, parent, serial)
    draft = draft_renewal(
        before, profile=profile, issuer=above, serial=serial, not_before=start, not_after=end,
        hash_name=(parent or ca).hash_name, **where,
    )  # fmt: skip
    return approve(draft, at=now)


async def _name_former(tx: Tx, ca: Any) -> None:
    """A CA that was brought along may be in its parent's books as a CA elsewhere: from now on as this one."""
    i = issued_certificates.c
    await tx.execute(
        sa.update(issued_certificates)
        .where(i.authority_id == ca.parent_id, i.serial == ca.serial, i.reference != ca.id)
        .values(reference=f"{ca.id}:{ca.serial}")
    )
