"""What was bought, in the life of its certificate: links of renewals, the company, names over time, years at the CA."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import InvalidFields, Refused
from certwright.rooms import billing, certificates
from certwright.rooms.certificates import Operation, State, rules
from certwright.rooms.certificates.tables import certificates as table
from tests.organisations import desk

from .conftest import MULTI, PRODUCT, Shop
from .test_refunds import application

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OV = PRODUCT | {"code": "house-ov", "type": "ov"}


def _issue(shop: Shop, certificate_id: str) -> None:
    """What an application waits for is taken as given; the certificate is the real CA's."""

    async def prove(tx: Any) -> None:
        await tx.exec_driver_sql(
            "UPDATE applications SET validated_at = submitted_at, next_step_at = submitted_at, organisation_ok_at ="
            " CASE WHEN organisation_id IS NULL THEN NULL ELSE submitted_at END WHERE issued_at IS NULL"
        )
        await tx.exec_driver_sql(
            "UPDATE certificates SET stage = 'to_be_issued' WHERE stage IN"
            " ('pending_domain_validation', 'pending_organization_validation')"
        )

    shop.raw(prove)
    shop.world.drain()
    assert shop.certificate(certificate_id).summary.state is State.ISSUED


def _ends_in(shop: Shop, certificate_id: str, days: float) -> None:
    async def write(tx: Any) -> None:
        ends = shop.services.clock.now() + timedelta(days=days)
        await tx.execute(sa.update(table).where(table.c.id == certificate_id).values(coverage_ends_at=ends))

    shop.raw(write)


def _apply(shop: Shop, certificate_id: str, **changes: Any) -> None:
    wanted = replace(application(), **changes)
    shop.world.run(certificates.apply(shop.services, shop.actor, certificate_id, wanted))


def test_a_renewal_is_linked_both_ways_inherits_days_and_keeps_its_company(shop: Shop) -> None:
    shop.world.run(billing.create_product(shop.services, shop.actor, OV))
    shop.fund()
    company = desk.add(shop.world)
    other = desk.add(shop.world, legal_name="Anders AG", registration_number="HRB 1")
    same = desk.add(shop.world, legal_name="BEISPIEL  Maschinenbau GmbH", city="Potsdam", registration_number="HRB 2")
    old = shop.buy("house-ov").certificates[0]["id"]
    _apply(shop, old, organisation_id=company.id)
    _issue(shop, old)
    _ends_in(shop, old, 20.5)

    placed = shop.place("house-ov", renews=old, pay=billing.PayWith())
    new = placed.certificates[0]["id"]
    assert placed.inherited_days == 20
    before, after = (shop.certificate(one).coverage for one in (old, new))
    assert before is not None
    assert after is not None
    assert (before.renewed_by, before.renews_certificate_id) == ((new,), None)
    assert (after.renewed_by, after.renews_certificate_id) == ((), old)

    with pytest.raises(Refused) as refused:
        _apply(shop, new, organisation_id=other.id)
    assert (refused.value.code, refused.value.field) == ("renewal_company_fixed", "organisation_id")
    assert shop.certificate(new).summary.state is State.PENDING_APPLICATION
    _apply(shop, new, organisation_id=same.id)
    _issue(shop, new)
    covered = shop.certificate(new).coverage
    assert covered is not None
    assert covered.starts_at is not None
    assert covered.ends_at == billing.coverage_end(covered.starts_at, 1, 20)


@pytest.mark.parametrize(
    ("before", "now", "allowed"),
    [(None, "Any Ltd", True), ("Example Ltd", "Example Ltd", True), ("Example Ltd", "EXAMPLE   ltd", True),
     ("Example Ltd", "Example AG", False), ("Example Ltd", "", False)],
)  # fmt: skip
def test_a_renewal_keeps_its_company(before: str | None, now: str, allowed: bool) -> None:
    if allowed:
        rules.judge_company(before, now)
        return
    with pytest.raises(Refused, match="keeps its company"):
        rules.judge_company(before, now)


def test_the_quota_is_used_over_time_and_not_extended(shop: Shop) -> None:
    """Two names now, the third after the issue, and no fourth."""
    shop.fund()
    bought = shop.buy(MULTI["code"], names=3)
    certificate_id = bought.certificates[0]["id"]
    names = tuple(f"{letter}.house.localhost" for letter in "abcd")
    with pytest.raises(InvalidFields, match="4 names are given, and 3 were bought"):
        _apply(shop, certificate_id, names=names)
    _apply(shop, certificate_id, names=names[:2])
    _issue(shop, certificate_id)
    detail = shop.certificate(certificate_id)
    assert detail.allowed[Operation.ADD_DOMAINS] is None

    def add(*more: str) -> None:
        shop.world.run(certificates.add_domains(shop.services, shop.actor, certificate_id, names=more))

    with pytest.raises((InvalidFields, Refused)) as refused:
        add(*names[2:])
    assert "were bought" in str(refused.value) or "quota" in str(refused.value)
    add(names[2])
    assert shop.certificate(certificate_id).summary.state is State.VERIFYING_DOMAIN_ADDITION

    async def done(tx: Any) -> None:
        await tx.exec_driver_sql(
            "UPDATE applications SET validated_at = submitted_at, next_step_at = submitted_at WHERE issued_at IS NULL"
        )

    shop.raw(done)
    shop.world.drain()
    after = shop.certificate(certificate_id)
    assert set(after.summary.names) == set(names[:3])
    assert after.allowed[Operation.ADD_DOMAINS] is not None
    assert "quota" in after.allowed[Operation.ADD_DOMAINS].message


@pytest.mark.parametrize(
    ("sentence", "years", "days_left", "asked"),
    [
        ("nothing was bought, so the CA's own setting holds", None, None, None),
        ("before the first issue all of it is asked for", 3, None, 3),
        ("with a year and a day left, two are asked for", 3, 367, 2),
        ("with a leap year left, one is asked for", 3, 366, 1),
        ("inherited days don't make it more than was bought", 1, 395, 1),
        ("on the last day, one is asked for", 2, 0.5, 1),
    ],
)
def test_how_many_years_the_ca_is_asked_for(
    sentence: str, years: int | None, days_left: float | None, asked: int | None
) -> None:
    ends = None if days_left is None else NOW + timedelta(days=days_left)
    assert rules.years_left(years, ends, NOW) == asked, sentence
