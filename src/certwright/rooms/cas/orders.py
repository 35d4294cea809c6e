"""Orders at CAs, for the connectors: each fact is written when it is known, the intention before the CA hears of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from certwright.kernel.ids import new_id
from certwright.kernel.problems import not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.cas import rules, store
from certwright.rooms.cas.rules import Subject
from certwright.rooms.cas.words import CaOrder, Use


async def intend_order(
    services: Services,
    ca_id: str,
    *,
    reference: str,
    account_id: str,
    names: Sequence[str],
    methods: Mapping[str, str],
    csr_der: bytes,
    replaces: str | None,
) -> CaOrder:
    """The order of this reference, new if there is none; its place in the CA's limits is taken with it.

    Raises Unavailable `ca_quota_spent` while the CA would refuse.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        known = await store.order_of(tx, reference, account_id)
        if known is not None:
            return known
        ca = await store.ca(tx, ca_id, keep=True)
        if ca is None:
            raise not_found("CA", ca_id)
        await _take(tx, ca, rules.subjects_of_order(names, replaces=replaces is not None), (Use.ORDER,), now)
        await store.insert_order(
            tx, id=new_id("cao", now), ca_id=ca_id, account_id=account_id, reference=reference,
            names=list(names), methods=dict(methods), csr_der=csr_der, replaces=replaces, profile=ca.profile,
            created_at=now,
        )  # fmt: skip
        made = await store.order_of(tx, reference, account_id)
        assert made is not None
        return made


async def order(services: Services, order_id: str, account_id: str) -> CaOrder:
    async with services.db.begin() as tx:
        found = await store.order(tx, order_id, account_id)
    if found is None:
        raise not_found("order", order_id)
    return found


async def placed(services: Services, order_id: str, order_url: str) -> None:
    async with services.db.begin() as tx:
        await store.record_order(tx, order_id, "order_url", order_url=order_url)


async def go(services: Services, order_id: str) -> None:
    """Everything is published: the CA may validate and issue."""
    async with services.db.begin() as tx:
        await store.record_order(tx, order_id, "go_at", go_at=services.clock.now())


async def answered(services: Services, order: CaOrder) -> None:
    """The CA was told to look at what is published."""
    async with services.db.begin() as tx:
        await store.answered(tx, order.id, order.answers, services.clock.now())


async def intend_finalize(services: Services, order: CaOrder) -> None:
    """On record, and counted, before the CA is asked for the certificate. Raises Unavailable `ca_quota_spent`."""
    if order.finalize_intended_at is not None:
        return
    now = services.clock.now()
    async with services.db.begin() as tx:
        if await store.record_order(tx, order.id, "finalize_intended_at", finalize_intended_at=now):
            ca = await store.ca(tx, order.ca_id)
            assert ca is not None, "an order keeps its CA"
            subjects = rules.subjects_of_order(order.names, replaces=order.replaces is not None)
            counted = (Use.CERTIFICATE, Use.DUPLICATE)
            await _take(tx, ca, [s for s in subjects if s[0] in counted], counted, now)


async def failed(services: Services, order_id: str, reasons: Sequence[str], names: Sequence[str] = ()) -> None:
    """The order is over; `names` are those the CA couldn't validate, which count against its limits."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        if await store.record_order(tx, order_id, "failed_at", failed_at=now, failure=list(reasons)):
            await store.use_of_order(tx, order_id, [(Use.FAILURE, name) for name in names], now)


async def _take(tx: Tx, ca: store.Row, subjects: Sequence[Subject], counted: Sequence[Use], now: datetime) -> None:
    """Make sure there is room for all `subjects`, and count those of the kinds `counted`."""
    await store.lock_limits(tx, ca.id)
    limits = rules.limits_of(ca.limits)
    since = now - max(limit.period for limit in limits.values())
    used = await store.used(tx, ca.id, subjects, since)
    spent = rules.first_spent(subjects, used, limits, now)
    if spent is not None:
        raise rules.quota_spent(spent, ca.name, now)
    await store.use(tx, ca.id, [subject for subject in subjects if subject[0] in counted], now)
