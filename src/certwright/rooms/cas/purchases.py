"""Orders at CAs that sell certificates, for the connectors: each fact is written when it is known, the intention before
the CA hears of it, because what such a CA hears twice is bought twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from certwright.kernel.ids import new_id
from certwright.kernel.problems import not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.cas import store
from certwright.rooms.cas.tables import ca_purchases
from certwright.rooms.cas.words import Purchase

_P = ca_purchases.c
_ALL = tuple(_P[name] for name in Purchase.__dataclass_fields__)


def _purchase(row: Any) -> Purchase:
    return Purchase(**(row._asdict() | {"names": tuple(row.names), "failure": tuple(row.failure)}))


async def intend(
    services: Services,
    ca_id: str,
    *,
    reference: str,
    account_id: str,
    names: Sequence[str],
    method: str,
    csr_der: bytes,
    product: str,
    validation: str,
    years: int,
) -> Purchase:
    """The purchase of this reference, new if there is none."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        if await store.ca(tx, ca_id, keep=True) is None:
            raise not_found("CA", ca_id)
        await tx.execute(
            pg_insert(ca_purchases)
            .values(
                id=new_id("cap", now), ca_id=ca_id, account_id=account_id, reference=reference, names=list(names),
                method=method, csr_der=csr_der, product=product, validation=validation, years=years, created_at=now,
            )
            .on_conflict_do_nothing(index_elements=["reference"])
        )  # fmt: skip
        found = await _one(tx, _P.reference == reference, _P.account_id == account_id, _P.ca_id == ca_id)
    if found is None:
        raise not_found("order", reference)
    return found


async def purchase(services: Services, purchase_id: str, account_id: str) -> Purchase:
    async with services.db.begin() as tx:
        found = await _one(tx, _P.id == purchase_id, _P.account_id == account_id)
    if found is None:
        raise not_found("order", purchase_id)
    return found


async def of_leaf(services: Services, ca_id: str, leaf_sha256: str) -> Purchase | None:
    """The purchase this certificate came from, if it came from this CA."""
    async with services.db.begin() as tx:
        return await _one(tx, _P.ca_id == ca_id, _P.leaf_sha256 == leaf_sha256)


async def _one(tx: Tx, *where: sa.ColumnElement[bool]) -> Purchase | None:
    query = sa.select(*_ALL).where(*where).order_by(_P.id).limit(1)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _purchase(row)


async def _record(services: Services, purchase_id: str, *missing: str, **values: Any) -> Purchase:
    """Write facts that were missing until now; nothing is written if one of them was there or the purchase is over.
    Returns the purchase as it is then."""
    async with services.db.begin() as tx:
        await tx.execute(
            sa.update(ca_purchases)
            .where(_P.id == purchase_id, _P.failed_at.is_(None), *(_P[name].is_(None) for name in missing))
            .values(**values)
        )
        found = await _one(tx, _P.id == purchase_id)
    assert found is not None, "a purchase stays as long as its CA"
    return found


async def reissues(services: Services, mine: Purchase, order_number: str) -> Purchase:
    """It is to be a reissue inside an earlier order of the CA."""
    return await _record(services, mine.id, "reissue_of", "placing_at", reissue_of=order_number)


async def organisation(services: Services, mine: Purchase, number: str) -> Purchase:
    """The CA's number of the organisation."""
    return await _record(services, mine.id, "organisation_number", organisation_number=number)


async def placing(services: Services, mine: Purchase, now: datetime) -> Purchase:
    """From here on the CA may have heard of it."""
    return await _record(services, mine.id, "order_number", placing_at=now)


async def not_placed(services: Services, mine: Purchase) -> None:
    """The CA has certainly not taken it."""
    await _record(services, mine.id, "order_number", placing_at=None)


async def placed(services: Services, mine: Purchase, order_number: str, certificate_number: str | None) -> Purchase:
    return await _record(
        services, mine.id, "order_number", order_number=order_number, certificate_number=certificate_number
    )


async def certificate(services: Services, mine: Purchase, number: str) -> None:
    """The CA's number of the certificate itself."""
    await _record(services, mine.id, "certificate_number", certificate_number=number)


async def shown(services: Services, mine: Purchase, until: datetime) -> None:
    """A value to publish was given out."""
    await _record(services, mine.id, "go_at", shown_until=until)


async def go(services: Services, purchase_id: str) -> None:
    """Everything is published: the CA may look."""
    await _record(services, purchase_id, "go_at", go_at=services.clock.now())


async def looked(services: Services, mine: Purchase, said: str) -> None:
    """The CA was told to look at what is published, and said what it missed, if anything."""
    async with services.db.begin() as tx:
        await tx.execute(
            sa.update(ca_purchases)
            .where(_P.id == mine.id, _P.looks == mine.looks)
            .values(looks=mine.looks + 1, looked_at=services.clock.now(), said=said)
        )


async def issued(services: Services, mine: Purchase, leaf_sha256: str) -> None:
    await _record(services, mine.id, "leaf_sha256", leaf_sha256=leaf_sha256)


async def over(services: Services, mine: Purchase, reasons: Sequence[str], *, cancelled: bool = False) -> None:
    """Nothing comes of it any more; `cancelled`: because we wanted so."""
    now = services.clock.now()
    await _record(
        services, mine.id, "failed_at", failed_at=now, failure=list(reasons), cancelled_at=now if cancelled else None
    )
