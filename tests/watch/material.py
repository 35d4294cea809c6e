"""Puts a certificate with a version into the database, as if it had been issued."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from certwright.kernel.ids import new_id
from certwright.rooms import deployment
from certwright.rooms.certificates.tables import certificates, versions
from tests.servers.tls import Issued


async def put_version(world: Any, issued: Issued, *, certificate_id: str | None = None, auto_renew: bool = True) -> str:
    """Make `issued` the current version of a (new) certificate and publish the event; returns the certificate's id."""
    services, now = world.services, world.clock.now()
    leaf = issued.certificate
    dates = {"not_before": leaf.not_valid_before_utc, "not_after": leaf.not_valid_after_utc}
    version_id = new_id("ver", now)
    async with services.db.begin() as tx:
        number = 1
        if certificate_id is None:
            certificate_id = new_id("cert", now)
            await tx.execute(
                sa.insert(certificates).values(
                    id=certificate_id, account_id=world.account.id, project_id=world.project_id, name=certificate_id,
                    ca="builtin", stage="issued", auto_renew=auto_renew, created_at=now, updated_at=now,
                )
            )  # fmt: skip
        else:
            await tx.execute(
                sa.update(versions)
                .where(versions.c.certificate_id == certificate_id, versions.c.superseded_at.is_(None))
                .values(superseded_at=now)
            )
            number += await tx.scalar(
                sa.select(sa.func.count()).select_from(versions).where(versions.c.certificate_id == certificate_id)
            )
        await tx.execute(
            sa.insert(versions).values(
                id=version_id, certificate_id=certificate_id, account_id=world.account.id, project_id=world.project_id,
                number=number, leaf_der=issued.der, chain_ders=[link.der for link in issued.chain[1:]],
                names=["www.example.test"], subject="CN=x", issuer="CN=y", serial=format(leaf.serial_number, "x"),
                sha256=issued.fingerprint, sha1="", spki_sha256="", key_algorithm="EC_P256", signature_algorithm="x",
                issued_at=now, **dates,
            )
        )  # fmt: skip
        await tx.execute(
            sa.update(certificates).where(certificates.c.id == certificate_id)
            .values(current_version_id=version_id, sha256=issued.fingerprint, names=["www.example.test"], **dates)
        )  # fmt: skip
        await services.events.publish(
            tx, "certificate.version_issued", account_id=world.account.id, object_id=certificate_id,
            payload={"version_id": version_id, "project_id": world.project_id, "sha256": issued.fingerprint}
            | {key: at.isoformat() for key, at in dates.items()},
        )  # fmt: skip
    return certificate_id


async def publish(world: Any, kind: str, object_id: str, **payload: Any) -> None:
    async with world.services.db.begin() as tx:
        await world.services.events.publish(
            tx,
            kind,
            account_id=world.account.id,
            object_id=object_id,
            payload={"project_id": world.project_id, **payload},
        )


def span(world: Any, *, left: float, life: float) -> dict[str, Any]:
    """Dates for `issue`: `left` of `life` days remain at the world's present time."""
    end = world.clock.now() + timedelta(days=left)
    return {"not_after": end, "not_before": end - timedelta(days=life)}


async def put_binding(
    world: Any, certificate_id: str, *, slot: str = "only", site_id: str | None = None, facts: Any = None
) -> str:
    """A binding of the certificate's current version, deployed on a site of a target of its own; returns its id."""
    services, now = world.services, world.clock.now()
    tenant = {"account_id": world.account.id, "project_id": world.project_id}
    async with services.db.begin() as tx:
        if site_id is None:
            target_id, site_id = new_id("tgt", now), new_id("site", now)
            await tx.execute(
                sa.insert(deployment.targets).values(
                    id=target_id, name=target_id, kind="nginx", config={}, server=target_id, created_at=now,
                    updated_at=now, **tenant,
                )
            )  # fmt: skip
            await tx.execute(
                sa.insert(deployment.sites).values(
                    id=site_id, target_id=target_id, key="k", label="www", names=["www.example.test"],
                    facts=facts or {},
                    first_seen_at=now, last_seen_at=now, **tenant,
                )
            )  # fmt: skip
        target_id = await tx.scalar(sa.select(deployment.sites.c.target_id).where(deployment.sites.c.id == site_id))
        binding_id = new_id("bind", now)
        version = sa.select(certificates.c.current_version_id).where(certificates.c.id == certificate_id)
        await tx.execute(
            sa.insert(deployment.bindings).values(
                id=binding_id, target_id=target_id, site_id=site_id, slot=slot, certificate_id=certificate_id,
                deployed_version_id=await tx.scalar(version), created_at=now, **tenant,
            )
        )  # fmt: skip
    return binding_id


async def site_of(world: Any, binding_id: str) -> str:
    b = deployment.bindings.c
    async with world.services.db.begin() as tx:
        return str(await tx.scalar(sa.select(b.site_id).where(b.id == binding_id)))


async def change_binding(world: Any, binding_id: str, **values: Any) -> None:
    """Without values, remove it."""
    table = deployment.bindings
    change: Any = sa.update(table).values(**values) if values else sa.delete(table)
    async with world.services.db.begin() as tx:
        await tx.execute(change.where(table.c.id == binding_id))


async def begin_rollout(world: Any, binding_id: str) -> None:
    """A rollout on the binding's target that has started and not finished."""
    now, b, r = world.clock.now(), deployment.bindings.c, deployment.rollouts
    async with world.services.db.begin() as tx:
        target_id = await tx.scalar(sa.select(b.target_id).where(b.id == binding_id))
        await tx.execute(
            sa.insert(r).values(
                id=new_id("roll", now), target_id=target_id, state="running", trigger="user", requested_by="x",
                next_step="verify", created_at=now, started_at=now, account_id=world.account.id,
                project_id=world.project_id,
            )
        )  # fmt: skip


async def finish_rollouts(world: Any) -> None:
    async with world.services.db.begin() as tx:
        await tx.execute(
            sa.update(deployment.rollouts).values(finished_at=world.clock.now(), next_step=None, state="deployed")
        )
