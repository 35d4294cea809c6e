"""What the billing room asks of this one: certificates for a paid order, facts about them, and taking them back.

Everything runs in billing's transaction. Billing locks its order first, then we lock certificates: one order of locks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Refused, not_found
from certwright.platform.db import Tx, is_one_of
from certwright.platform.events import Event
from certwright.platform.services import Services
from certwright.rooms import access, audit, billing, keys
from certwright.rooms.certificates import rules, store
from certwright.rooms.certificates.actions import generated_name, may_order
from certwright.rooms.certificates.ports import AuthorityDirectory, Usage
from certwright.rooms.certificates.tables import certificates, versions
from certwright.rooms.certificates.words import Application, State

_C, _V = certificates.c, versions.c


class BoughtCertificates:
    """Implements billing's ports Fulfilment, Withdrawal and Predecessors."""

    async def offered(self, tx: Tx, services: Services, account_id: str, cas: Iterable[str]) -> Mapping[str, str]:
        directory = services.port(AuthorityDirectory)
        found = {ca: await directory.find(tx, account_id, ca) for ca in cas}
        return {ca: known[0] for ca, known in found.items() if known is not None}

    def require_use(self, services: Services, actor: Actor, ca: str, project_id: str) -> None:
        may_order(services, actor, ca, project_id)

    async def deliver(self, tx: Tx, services: Services, actor: Actor, delivery: billing.Delivery) -> tuple[str, ...]:
        now, product = services.clock.now(), delivery.product
        draft = Application(names=(delivery.primary_name,)).as_draft() if delivery.primary_name else None
        rows: list[dict[str, Any]] = []
        for line in range(delivery.quantity):
            name = generated_name()
            rows.append({
                "id": new_id("cert", now), "account_id": delivery.account_id, "project_id": delivery.project_id,
                "name": name, "ca": delivery.ca, "stage": State.PENDING_APPLICATION.value, "draft": draft,
                "search_text": store.search_text(name, (), ()), "order_id": delivery.order_id, "order_line": line,
                "product_id": product["code"], "brand": product["brand"], "certificate_type": product["type"],
                "domain_type": product["domain_type"], "domain_quota": delivery.names,
                "wildcard_quota": delivery.wildcards, "paid": delivery.paid, "product": dict(product),
                "coverage_years": delivery.years, "renews_certificate_id": delivery.renews_certificate_id,
                "inherited_days": delivery.inherited_days, "inherits_for_name": delivery.primary_name or None,
                "created_at": now, "updated_at": now,
            })  # fmt: skip
        await tx.execute(sa.insert(certificates), rows)
        await audit.record_many(
            tx, services,
            [
                audit.Entry(
                    actor, "scm:cert:buy", "certificate", row["id"], delivery.project_id, None,
                    {"name": row["name"], "ca": delivery.ca, "order": delivery.order_id, "product": product["code"],
                     "state": State.PENDING_APPLICATION.value},
                )
                for row in rows
            ],
        )  # fmt: skip
        return tuple(row["id"] for row in rows)

    async def bought(
        self, tx: Tx, services: Services, order_id: str, *, lock: bool
    ) -> tuple[billing.BoughtCertificate, ...]:
        rows, now = await _of_order(tx, order_id, lock=lock), services.clock.now()
        issued: dict[str, list[Any]] = {row.id: [] for row in rows}
        for version in await tx.execute(
            sa.select(_V.certificate_id, _V.superseded_at, _V.revoked_at, _V.not_after).where(
                _V.certificate_id.in_(list(issued))
            )
        ):
            issued[version.certificate_id].append(version)
        return tuple([await self._facts(tx, services, row, issued[row.id], now) for row in rows])

    async def _facts(
        self, tx: Tx, services: Services, row: Any, issued: Sequence[Any], now: datetime
    ) -> billing.BoughtCertificate:
        current = next((version for version in issued if version.superseded_at is None), None)
        return billing.BoughtCertificate(
            certificate_id=row.id,
            name=row.name,
            state=rules.shown_state(State(row.stage), row.not_after, now).value,
            pending_application=row.stage == State.PENDING_APPLICATION,
            ever_issued=bool(issued),
            revoked_at=current.revoked_at if current is not None else None,
            earlier_live=any(v.superseded_at and not v.revoked_at and v.not_after > now for v in issued),
            bound_to=await services.port(Usage).bound_to(tx, row.id),
        )

    async def predecessor(self, tx: Tx, actor: Actor, certificate_id: str) -> billing.Predecessor:
        row = await store.certificate(tx, certificate_id, access.visible(certificates, actor, "scm:cert:get"))
        if row is None:
            raise not_found("certificate", certificate_id).at("renews")
        access.require(actor, "scm:cert:renew", project_id=row.project_id, resource=f"certificate:{certificate_id}")
        return billing.Predecessor(
            certificate_id=row.id,
            issued=row.stage in (State.ISSUED, State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION),
            uploaded=row.uploaded,
            paid=bool(row.paid),
            ca=row.ca,
            type=row.certificate_type,
            domain_type=row.domain_type,
            names=row.domain_quota,
            wildcards=row.wildcard_quota,
            primary_name=row.primary_name,
            ends_at=row.coverage_ends_at or row.not_after,
        )

    # --- taking back ------------------------------------------------------------------------------------------------

    async def hold(self, tx: Tx, services: Services, actor: Actor, order_id: str) -> int:
        now, held = services.clock.now(), 0
        for row in await _of_order(tx, order_id, lock=True):
            leaves = (State.PENDING_APPLICATION, State.REVOKED)
            if await store.move(tx, row.id, leaves, State.REFUND_REVIEW, now, stage_before_review=row.stage):
                await _note(tx, services, actor, row, State.REFUND_REVIEW)
                held += 1
        return held

    async def release(self, tx: Tx, services: Services, actor: Actor, order_id: str) -> int:
        now, released = services.clock.now(), 0
        for row in await _of_order(tx, order_id, lock=True):
            if row.stage != State.REFUND_REVIEW:
                continue
            back = State(row.stage_before_review)
            await store.move(tx, row.id, (State.REFUND_REVIEW,), back, now, stage_before_review=None)
            await _note(tx, services, actor, row, back)
            released += 1
        return released

    async def remove(self, tx: Tx, services: Services, actor: Actor, order_id: str) -> int:
        removed = 0
        for row in await _of_order(tx, order_id, lock=True):
            if row.stage != State.REFUND_REVIEW:
                continue
            for key_id in await store.key_ids(tx, row.id):
                await keys.erase(tx, services, actor, key_id, f"certificate {row.id} given back")
            try:
                await store.delete_certificate(tx, row.id, row.revision)
            except IntegrityError as error:
                # Bound before it was held, in spite of our look: the foreign key keeps the promise.
                raise Refused(
                    "certificate_bound", f"The certificate {row.name} can't be deleted: it is bound to a listener.",
                    fix="Unbind it, or bind another certificate there first.",
                ) from error  # fmt: skip
            await services.events.publish(
                tx, "certificate.deleted", account_id=row.account_id, object_id=row.id, payload={}
            )
            await audit.record(
                tx, services, actor, "scm:cert:delete", "certificate", row.id, project_id=row.project_id,
                before={"name": row.name, "names": list(row.names), "state": row.stage, "sha256": row.sha256,
                        "serial": row.serial},
                reason=f"order {order_id} was unsubscribed from",
            )  # fmt: skip
            removed += 1
        return removed


async def _of_order(tx: Tx, order_id: str, *, lock: bool) -> list[Any]:
    query = sa.select(certificates).where(_C.order_id == order_id).order_by(_C.order_line)
    return list(await tx.execute(query.with_for_update() if lock else query))


async def _note(tx: Tx, services: Services, actor: Actor, row: Any, enters: State) -> None:
    await audit.record(
        tx, services, actor, "scm:cert:unsubscribe", "certificate", row.id, project_id=row.project_id,
        before={"state": row.stage}, after={"state": enters.value},
    )  # fmt: skip


async def coverage_begins(services: Services, told: Sequence[Event]) -> None:
    """Listener of `certificate.version_issued`: the coverage of bought certificates counts from their first issue.

    The days a predecessor had left are added if the primary name is the one they were inherited for.
    """
    async with services.db.begin() as tx:
        ids = [event.object_id for event in told]
        fresh = sa.select(_C.id).where(is_one_of(_C.id, ids), _C.order_id.is_not(None), _C.coverage_starts_at.is_(None))
        for certificate_id in sorted(await tx.scalars(fresh)):
            await _begin_coverage(tx, certificate_id, services.clock.now())


async def _begin_coverage(tx: Tx, certificate_id: str, now: datetime) -> None:
    row = await store.certificate(tx, certificate_id, lock=True)
    if row is None or row.coverage_starts_at is not None:
        return
    starts = await tx.scalar(sa.select(sa.func.min(_V.issued_at)).where(_V.certificate_id == row.id))
    if starts is None:
        return
    days = row.inherited_days if row.primary_name == row.inherits_for_name else 0
    await store.update_certificate(
        tx, row.id, None, now, coverage_starts_at=starts, inherited_days=days,
        coverage_ends_at=billing.coverage_end(starts, row.coverage_years, days),
    )  # fmt: skip
