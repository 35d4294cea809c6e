"""Unsubscribing: what happens to order, certificates and money; nothing else may happen meanwhile."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import Invalid, NotFound, Refused
from certwright.rooms import billing, certificates
from certwright.rooms.billing import OrderStatus, PayWith
from certwright.rooms.billing.ports import Declined, Waiting
from certwright.rooms.billing.tables import ledger_transactions, unsubscriptions
from certwright.rooms.certificates import Applicant, Application, Operation, State
from certwright.rooms.certificates.tables import certificates as certificate_table
from certwright.rooms.certificates.tables import versions
from certwright.rooms.keys.tables import private_keys

from .conftest import Shop, eur

APPLICANT = Applicant("Ada Lovelace", "ada@example.com", "+44 20 7946 0000")


def application(name: str = "a.house.localhost") -> Application:
    return Application(names=(name,), validation_method="file", applicant=APPLICANT, consent=True)


def test_an_approved_unsubscription_gives_the_money_back_and_takes_the_certificates(shop: Shop) -> None:
    shop.fund()
    bought = shop.buy(quantity=2)
    asked = shop.unsubscribe(bought.summary.id, reason="not needed")
    assert (asked.state, asked.amount, asked.method) == ("review", eur(200), "balance")
    held = shop.order(bought.summary.id)
    assert held.summary.status is OrderStatus.REFUND_REVIEW
    assert [c["state"] for c in held.certificates] == ["refund_review"] * 2
    assert shop.available() == eur(800)

    done = shop.approve(asked.id)
    assert (done.state, done.decided_by_name) == ("refunded", shop.actor.name)
    after = shop.order(bought.summary.id)
    assert (after.summary.status, after.certificates) == (OrderStatus.REFUNDED, ())
    assert shop.available() == eur(1000)
    with pytest.raises(NotFound):
        shop.certificate(bought.certificates[0]["id"])
    kinds = shop.rows(sa.select(ledger_transactions.c.kind).where(ledger_transactions.c.order_id == bought.summary.id))
    assert sorted(row.kind for row in kinds) == ["payment", "refund"]
    assert [c["name"] for c in done.certificates] == [c["name"] for c in bought.certificates]
    shop.books_are_right()


def test_an_automatic_review_answers_at_once(shop: Shop) -> None:
    shop.fund()
    shop.automatic()
    asked = shop.unsubscribe(shop.buy().summary.id)
    assert (asked.state, asked.decided_by_name, asked.review) == ("refunded", "billing", "automatic")
    assert shop.available() == eur(1000)
    shop.books_are_right()


def test_a_rejected_unsubscription_leaves_everything_as_it_was_and_is_final(shop: Shop) -> None:
    shop.fund()
    bought = shop.buy()
    asked = shop.unsubscribe(bought.summary.id)
    with pytest.raises(Invalid) as invalid:
        shop.reject(asked.id, "  ")
    assert invalid.value.code == "note_missing"
    assert shop.reject(asked.id, "agreed otherwise").state == "rejected"
    order = shop.order(bought.summary.id)
    assert order.summary.status is OrderStatus.REFUND_REJECTED
    assert [c["state"] for c in order.certificates] == ["pending_application"]
    for trying in (
        lambda: shop.approve(asked.id), lambda: shop.reject(asked.id), lambda: shop.unsubscribe(bought.summary.id),
    ):  # fmt: skip
        with pytest.raises(Refused):
            trying()
    assert shop.available() == eur(900)
    shop.books_are_right()


@pytest.mark.parametrize("operation", list(Operation))
def test_no_operation_is_allowed_while_the_review_goes_on(shop: Shop, operation: Operation) -> None:
    shop.fund()
    bought = shop.buy()
    shop.unsubscribe(bought.summary.id)
    verdict = shop.certificate(bought.certificates[0]["id"]).allowed[operation]
    assert verdict is not None
    assert verdict.extra["state"] == "refund_review"
    certificate_id = bought.certificates[0]["id"]
    renaming = certificates.update_certificate(shop.services, shop.actor, certificate_id, revision=2, name="other")
    with pytest.raises(Refused):
        shop.world.run(renaming)


def test_the_deletion_must_be_acknowledged(shop: Shop) -> None:
    shop.fund()
    with pytest.raises(Invalid) as invalid:
        shop.unsubscribe(shop.buy().summary.id, acknowledge=False)
    assert (invalid.value.code, invalid.value.field) == ("deletion_not_acknowledged", "acknowledge")
    assert not shop.rows(sa.select(unsubscriptions.c.id))


@pytest.mark.parametrize(
    ("after", "code"),
    [
        (timedelta(days=7, seconds=-1), None),
        (timedelta(days=7), "refund_too_late"),
    ],
)
def test_seven_days_are_seven_times_24_hours(shop: Shop, after: timedelta, code: str | None) -> None:
    shop.fund()
    bought = shop.buy()
    shop.world.clock.move(after)
    if code is None:
        assert shop.unsubscribe(bought.summary.id).state == "review"
        return
    with pytest.raises(Refused) as refused:
        shop.unsubscribe(bought.summary.id)
    assert refused.value.code == code
    shown = shop.order(bought.summary.id).why_no_refund
    assert shown is not None
    assert shown["code"] == code


def test_a_review_may_end_after_the_seven_days(shop: Shop) -> None:
    shop.fund()
    asked = shop.unsubscribe(shop.buy().summary.id)
    shop.world.later(days=30)
    assert shop.approve(asked.id).state == "refunded"


def test_coupons_and_vouchers_are_not_refunded(shop: Shop) -> None:
    shop.fund()
    shop.automatic()
    coupon, voucher = shop.coupon(percent=Decimal(10)), shop.voucher("30")
    bought = shop.place(asked={"coupon": "LESS"}, pay=PayWith("balance", ("GIFT-1",)))
    assert (bought.summary.total, bought.payments[0].amount) == (eur(90), eur(60))
    asked = shop.unsubscribe(bought.summary.id)
    assert (asked.amount, shop.available()) == (eur(60), eur(1000))
    found = {c.id: c for c in shop.world.run(billing.list_coupons(shop.services, shop.actor))}
    assert found[voucher.id].left == eur(0)
    assert found[coupon.id].uses == 1
    shop.books_are_right()


def test_an_order_paid_by_voucher_alone_is_undone_and_nothing_is_paid_out(shop: Shop) -> None:
    shop.voucher("100")
    shop.automatic()
    bought = shop.place(pay=PayWith("balance", ("GIFT-1",)))
    asked = shop.unsubscribe(bought.summary.id)
    assert (asked.state, asked.amount, asked.method) == ("refunded", eur(0), "none")
    assert shop.order(bought.summary.id).certificates == ()
    shop.books_are_right()


def test_an_order_on_invoice_is_no_longer_owed(shop: Shop) -> None:
    shop.policy(invoice_limits={"EUR": Decimal(500)}, review=billing.Review.AUTOMATIC)
    bought = shop.place(pay=PayWith("invoice"))
    assert shop.owed() == eur(100)
    shop.unsubscribe(bought.summary.id)
    assert (shop.owed(), shop.available()) == (eur(0), eur(0))
    shop.books_are_right()


def test_a_free_order_is_not_unsubscribed_from(shop: Shop) -> None:
    with pytest.raises(Refused) as refused:
        shop.unsubscribe(shop.place("private-single").summary.id)
    assert refused.value.code == "order_free"


def test_the_provider_gives_back_what_it_took_once(shop: Shop) -> None:
    shop.automatic()
    bought = shop.place(pay=PayWith("card"))
    shop.world.drain()
    shop.provider.answers = [Waiting(timedelta(minutes=1)), "lost", Declined("closed"), None]
    asked = shop.unsubscribe(bought.summary.id)
    assert asked.state == "refunding"
    for _ in range(4):
        shop.world.drain()
        shop.world.later(days=1, seconds=1)
        shop.books_are_right()
    done = shop.world.run(billing.get_unsubscription(shop.services, shop.actor, asked.id))
    assert done.state == "refunded"
    assert list(shop.provider.refunded.values()) == [eur(100)]
    assert shop.order(bought.summary.id).certificates == ()


# --- with the certificate's own life --------------------------------------------------------------------------------


def test_a_withdrawn_application_can_be_given_back_an_open_one_can_t(shop: Shop) -> None:
    shop.fund()
    bought = shop.buy()
    certificate_id = bought.certificates[0]["id"]
    run, services, actor = shop.world.run, shop.services, shop.actor
    run(certificates.apply(services, actor, certificate_id, application()))
    with pytest.raises(Refused) as refused:
        shop.unsubscribe(bought.summary.id)
    assert refused.value.code == "refund_certificate_used"
    assert shop.certificate(certificate_id).summary.state is State.PENDING_DOMAIN_VALIDATION
    run(certificates.withdraw(services, actor, certificate_id))
    assert shop.unsubscribe(bought.summary.id).state == "review"


def _issue(shop: Shop, certificate_id: str) -> None:
    """Through the real CA; the proof of the name is taken as given."""
    shop.world.run(certificates.apply(shop.services, shop.actor, certificate_id, application()))

    async def prove(tx: Any) -> None:
        await tx.exec_driver_sql("UPDATE applications SET validated_at = submitted_at, next_step_at = submitted_at;")
        await tx.exec_driver_sql("UPDATE certificates SET stage = 'to_be_issued' WHERE stage LIKE 'pending_domain%'")

    shop.raw(prove)
    shop.world.drain()
    assert shop.certificate(certificate_id).summary.state is State.ISSUED


def test_coverage_begins_with_the_first_issue(shop: Shop) -> None:
    shop.fund()
    bought = shop.buy(years=2)
    shop.world.later(days=2)
    _issue(shop, bought.certificates[0]["id"])
    row = shop.rows(sa.select(certificate_table))[0]
    assert row.coverage_starts_at == shop.world.clock.now()
    assert row.coverage_ends_at == row.coverage_starts_at.replace(year=row.coverage_starts_at.year + 2)
    # A later version changes nothing.
    shop.world.later(days=61)
    shop.world.drain()
    assert shop.rows(sa.select(certificate_table.c.coverage_starts_at))[0][0] == row.coverage_starts_at


def test_days_are_inherited_for_the_name_they_were_ordered_for(shop: Shop) -> None:
    shop.fund()
    for name, days in (("a.house.localhost", 11), ("other.house.localhost", 0)):
        bought = shop.buy()
        certificate_id = bought.certificates[0]["id"]
        values = {"inherited_days": 11, "inherits_for_name": name}

        async def link(tx: Any, values: Any = values, certificate_id: str = certificate_id) -> None:
            await tx.execute(
                sa.update(certificate_table).where(certificate_table.c.id == certificate_id).values(**values)
            )

        shop.raw(link)
        _issue(shop, certificate_id)
        row = shop.rows(sa.select(certificate_table).where(certificate_table.c.id == certificate_id))[0]
        assert row.coverage_ends_at == billing.coverage_end(row.coverage_starts_at, 1, days)
        assert row.inherited_days == days


def test_an_issued_certificate_is_given_back_once_its_revocation_is_completed(shop: Shop) -> None:
    shop.fund()
    bought = shop.buy()
    certificate_id = bought.certificates[0]["id"]
    _issue(shop, certificate_id)
    with pytest.raises(Refused, match="not revoked"):
        shop.unsubscribe(bought.summary.id)
    run, services, actor = shop.world.run, shop.services, shop.actor
    run(certificates.revoke(services, actor, certificate_id, certificates.RevocationReason.SUPERSEDED))
    with pytest.raises(Refused, match="not revoked"):
        shop.unsubscribe(bought.summary.id)
    shop.world.drain()
    asked = shop.unsubscribe(bought.summary.id)
    assert shop.reject(asked.id).state == "rejected"
    assert shop.certificate(certificate_id).summary.state is State.REVOKED

    second = shop.buy()
    certificate_id = second.certificates[0]["id"]
    _issue(shop, certificate_id)
    run(certificates.revoke(services, actor, certificate_id, certificates.RevocationReason.SUPERSEDED))
    shop.world.drain()
    shop.approve(shop.unsubscribe(second.summary.id).id)
    assert not shop.rows(sa.select(versions.c.id).where(versions.c.certificate_id == certificate_id))
    erased = shop.rows(sa.select(private_keys.c.erased_at))
    assert sum(row.erased_at is not None for row in erased) == 1
    shop.books_are_right()


def test_a_bound_certificate_is_not_given_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fund()
    bought = shop.buy()

    class Bound:
        async def bound_to(self, tx: Any, certificate_id: str) -> tuple[str, ...]:
            return ("nginx: shop",)

    ports: Any = shop.services.ports
    monkeypatch.setitem(ports, certificates.Usage, Bound())
    with pytest.raises(Refused) as refused:
        shop.unsubscribe(bought.summary.id)
    assert refused.value.code == "certificate_bound"


def test_a_deleted_certificate_is_not_given_back(shop: Shop) -> None:
    shop.fund()
    bought = shop.buy()
    _issue(shop, bought.certificates[0]["id"])
    shop.world.run(certificates.delete_certificate(shop.services, shop.actor, bought.certificates[0]["id"]))
    with pytest.raises(Refused) as refused:
        shop.unsubscribe(bought.summary.id)
    assert refused.value.code == "refund_certificate_deleted"
