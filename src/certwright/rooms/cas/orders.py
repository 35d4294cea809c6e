"""Orders at CAs, for the connectors: each fact is written when it is known, the intention before the CA hears of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy.exc import IntegrityError

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
    csr_der: bytes | None,
    replaces: str | None,
) -> CaOrder:
    """The order of this reference, new if there is none; its place in the CA's limits is taken with it.

    Without `csr_der` it only serves to show the names. Raises Unavailable `ca_quota_spent` while the CA would refuse.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        known = await store.order_of(tx, reference, account_id)
        if known is not None:
            return known
        ca = await store.ca(tx, ca_id, keep=True)
        if ca is None:
            raise not_found("CA", ca_id)
        subjects = rules.subjects_of_order(names, replaces=replaces is not None, issues=csr_der is not None)
        await _take(tx, ca, subjects, (Use.ORDER,), now)
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


async def placing(services: Services, order: CaOrder) -> None:
    """The CA may hear of it from here on. If it may have before, this is one order more at the CA, and is counted.

    Raises Unavailable `ca_quota_spent`.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        if order.placing_at is not None and order.replaces is None:
            ca = await store.ca(tx, order.ca_id)
            assert ca is not None, "an order keeps its CA"
            await _take(tx, ca, ((Use.ORDER, ""),), (Use.ORDER,), now)
        await store.update_order(tx, order.id, placing_at=now)


async def not_placed(services: Services, order: CaOrder) -> None:
    """The CA answered, and took no order."""
    async with services.db.begin() as tx:
        await store.update_order(tx, order.id, placing_at=None)


async def replaces_nothing(services: Services, order: CaOrder) -> None:
    """Somebody else replaced that certificate first: this is an order like any other and needs room like one.

    Raises Unavailable `ca_quota_spent`.
    """
    async with services.db.begin() as tx:
        ca = await store.ca(tx, order.ca_id)
        assert ca is not None, "an order keeps its CA"
        if await store.update_order(tx, order.id, replaces=None, placing_at=None):
            subjects = rules.subjects_of_order(order.names, replaces=False)
            await _take(tx, ca, subjects, (Use.ORDER,), services.clock.now())


async def placed(services: Services, order: CaOrder, order_url: str) -> None:
    """Where the order is at the CA. Raises Unavailable `ca_order_shared` when another order of ours is there."""
    try:
        async with services.db.begin() as tx:
            await store.update_order(tx, order.id, order_url=order_url)
    except IntegrityError as taken:
        await not_placed(services, order)
        raise rules.order_shared() from taken


async def unknown_urls(services: Services, ca_id: str, urls: Sequence[str]) -> list[str]:
    """Those of these addresses at the CA that no order of ours has."""
    async with services.db.begin() as tx:
        known = await store.known_urls(tx, ca_id, urls)
    return [url for url in urls if url not in known]


async def names_under_way(services: Services, order: CaOrder) -> frozenset[str]:
    """Names that other orders at the same CA may still have to show."""
    since = services.clock.now() - rules.LONGEST_ORDER
    async with services.db.begin() as tx:
        return await store.names_under_way(tx, order.ca_id, order.id, since)


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
