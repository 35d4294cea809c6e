"""Certificates for CAs whose keys are elsewhere, from their requests."""

from __future__ import annotations

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.authorities import hierarchy, leaves, lists, policies, rules, store
from certwright.rooms.authorities.rules import CaOperation
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import issued_certificates
from certwright.rooms.authorities.words import CaRequest, Leaf
from certwright.x509.certificates import facts_of
from certwright.x509.csr import read_csr_key
from certwright.x509.issue import assemble, new_serial


async def certify_authority(
    services: Services, actor: Actor, parent_id: str, request: CaRequest, csr: str, *, project_id: str | None = None
) -> Leaf:
    """A certificate of the kind "issuing" for the key of a request (PEM), by one of our CAs; of `request` its subject,
    life, path length and limits count. It is listed, exported and revoked as whatever its parent issued.

    Needs `ccm:ca:create`, and on the parent too. Raises what reading the request and `rules.judge_request` say, Refused
    `ca_not_active`, `ca_certificate_policed`, Invalid `lint_failed`.
    """
    access.require_somewhere(actor, "ccm:ca:create")
    public = read_csr_key(csr.encode("utf-8", "replace"))
    now = services.clock.now()
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "ccm:ca:create", project_id)
        parent = await store.visible_row(tx, actor, "ccm:ca:create", parent_id, lock=True)
        hierarchy.refuse(CaOperation.ISSUE, parent, now)
        await policies.require_unlimited(tx, parent, project)
        above = await store.binding_issuer(tx, services, parent)
        profile, _ = rules.judge_request(request, above)
        serial = new_serial()
        linted = hierarchy.drafted(services, parent, above, profile, request, public, serial)
        der = assemble(linted, await services.port(Signer).sign(tx, parent.ca_key_id, linted))
        facts = facts_of(der)
        row = (
            await tx.execute(
                sa.insert(issued_certificates)
                .values(
                    id=new_id("crt", now), authority_id=parent.id, account_id=parent.account_id, project_id=project,
                    reference=new_id("lrq", now), profile=profile.name, serial=facts.serial, names=[], der=der,
                    not_before=facts.not_before, not_after=facts.not_after, issued_at=now,
                    shard=lists.shard_of(parent, serial), internal=True,
                )
                .returning(issued_certificates)
            )
        ).one()  # fmt: skip
        await audit.record(
            tx, services, actor, "ccm:ca:create", "authority", parent.id, project_id=project,
            after={
                "certificate": row.id, "serial": facts.serial, "subject": facts.subject, "key": facts.key_algorithm,
                "sha256": facts.sha256, "spki_sha256": facts.spki_sha256, "not_after": facts.not_after.isoformat(),
            },
        )  # fmt: skip
    return leaves.shown(row)
