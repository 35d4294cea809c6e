"""A shop: the wired product with paid products that its own CA fulfils, and money on the balance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.money import Money
from certwright.platform.db import Tx
from certwright.rooms import authorities, billing, certificates
from certwright.rooms.billing import Asked, OrderDetail, PayWith, Review
from certwright.rooms.billing.ports import Charge, Charged, Declined, Waiting
from certwright.rooms.billing.tables import ledger_accounts, ledger_postings, ledger_transactions, orders
from certwright.rooms.certificates.tables import certificates as certificate_table
from tests.conftest import World

PRODUCT: dict[str, Any] = {
    "code": "house-ov-single", "name": "House OV", "brand": "House", "type": "dv", "domain_type": "single",
    "ca": "builtin", "public": False, "currency": "EUR", "prices": {"base": "100"}, "years": {"1": "0", "2": "5"},
}  # fmt: skip
MULTI: dict[str, Any] = PRODUCT | {
    "code": "house-ov-multi", "name": "House OV multi", "domain_type": "multi", "included_names": 2,
    "max_names": 10, "wildcards": "allowed", "prices": {"base": "150", "additional_name": "40", "wildcard": "90"},
}  # fmt: skip
FUNDS = Money.of("1000", "EUR")


def eur(amount: str | int) -> Money:
    return Money.of(amount, "EUR")


@dataclass
class Provider:
    """A payment provider outside, with a memory: the same reference is charged once. `answers` come first."""

    charged: dict[str, Money] = field(default_factory=dict)
    refunded: dict[str, Money] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)
    calls: int = 0

    def _answer(self) -> Any:
        self.calls += 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def charge(self, charge: Charge) -> Charged | Waiting | Declined:
        answer = self._answer()
        if isinstance(answer, (Waiting, Declined)):
            return answer
        assert self.charged.setdefault(charge.reference, charge.amount) == charge.amount
        if answer == "lost":
            raise ConnectionResetError("the answer got lost")
        return Charged(f"ch_{charge.reference}")

    async def refund(self, charge: Charge, provider_reference: str) -> Charged | Waiting | Declined:
        answer = self._answer()
        if isinstance(answer, (Waiting, Declined)):
            return answer
        assert provider_reference.removeprefix("ch_") in self.charged
        assert self.refunded.setdefault(charge.reference, charge.amount) == charge.amount
        if answer == "lost":
            raise ConnectionResetError("the answer got lost")
        return Charged(f"re_{charge.reference}")


class Shop:
    """What the tests do, in one word each."""

    def __init__(self, world: World) -> None:
        self.world, self.services, self.actor = world, world.services, world.actor
        self.provider = Provider()
        ports: Any = world.services.ports
        ports[billing.PaymentProviders] = billing.PaymentProviders({"card": self.provider})
        for document in (PRODUCT, MULTI):
            world.run(billing.create_product(self.services, self.actor, document))

    def fund(self, amount: Money = FUNDS, reference: str = "transfer-1") -> None:
        self.world.run(billing.top_up(self.services, self.actor, amount, reference=reference))

    def policy(self, **changes: Any) -> None:
        found = self.world.run(billing.get_policy(self.services, self.actor))
        self.world.run(billing.set_policy(self.services, self.actor, revision=found.revision, **changes))

    def automatic(self) -> None:
        self.policy(review=Review.AUTOMATIC)

    def place(
        self, product: str = PRODUCT["code"], *, actor: Actor | None = None, pay: PayWith | None = None,
        asked: dict[str, Any] | None = None, **more: Any,
    ) -> OrderDetail:  # fmt: skip
        wanted = Asked(product, **(asked or {}))
        return self.world.run(
            billing.place_order(self.services, actor or self.actor, wanted, agree=True, pay=pay, **more)
        )

    def buy(self, product: str = PRODUCT["code"], **asked: Any) -> OrderDetail:
        return self.place(product, asked=asked, pay=PayWith())

    def pay(self, order_id: str, method: str = "balance", *vouchers: str) -> OrderDetail:
        return self.world.run(billing.pay_order(self.services, self.actor, order_id, PayWith(method, vouchers)))

    def order(self, order_id: str) -> OrderDetail:
        return self.world.run(billing.get_order(self.services, self.actor, order_id))

    def cancel(self, order_id: str) -> OrderDetail:
        return self.world.run(billing.cancel_order(self.services, self.actor, order_id))

    def unsubscribe(self, order_id: str, **more: Any) -> billing.Unsubscription:
        asking = billing.unsubscribe(self.services, self.actor, order_id, **({"acknowledge": True} | more))
        return self.world.run(asking)

    def approve(self, unsubscription_id: str) -> billing.Unsubscription:
        return self.world.run(billing.approve(self.services, self.actor, unsubscription_id))

    def reject(self, unsubscription_id: str, note: str = "used") -> billing.Unsubscription:
        return self.world.run(billing.reject(self.services, self.actor, unsubscription_id, note))

    def voucher(self, amount: str, code: str = "GIFT-1") -> billing.CouponView:
        making = billing.create_coupon(
            self.services, self.actor, kind=billing.CouponKind.VOUCHER, code=code, amount=eur(amount)
        )
        return self.world.run(making)

    def coupon(self, code: str = "LESS", **what: Any) -> billing.CouponView:
        making = billing.create_coupon(
            self.services, self.actor, kind=billing.CouponKind.COUPON, code=code, **what
        )  # fmt: skip
        return self.world.run(making)

    def available(self) -> Money:
        found = self.world.run(billing.get_balances(self.services, self.actor))
        return found[0].available if found else eur(0)

    def owed(self) -> Money:
        return self.world.run(billing.get_balances(self.services, self.actor))[0].owed

    def certificate(self, certificate_id: str) -> certificates.Detail:
        return self.world.run(certificates.get_certificate(self.services, self.actor, certificate_id))

    def rows(self, query: Any) -> Sequence[Any]:
        async def read() -> Sequence[Any]:
            async with self.services.db.begin() as tx:
                return (await tx.execute(query)).all()

        return self.world.run(read())

    def execute(self, statement: str) -> None:
        async def write() -> None:
            async with self.services.db.begin() as tx:
                await tx.exec_driver_sql(statement)

        self.world.run(write())

    def books_are_right(self) -> None:
        check_books(self.rows)

    def raw(self, work: Any) -> Any:
        """Run `work(tx)` in a transaction."""

        async def within() -> Any:
            async with self.services.db.begin() as tx:
                return await work(tx)

        return self.world.run(within())


def check_books(rows: Any) -> None:
    """What must hold after anything that ever happens: nothing made, nothing lost, nothing delivered unpaid."""
    t, p, a = ledger_transactions.c, ledger_postings.c, ledger_accounts.c
    unbalanced = sa.select(p.transaction_id).group_by(p.transaction_id, p.currency).having(sa.func.sum(p.amount) != 0)
    assert not rows(unbalanced)
    kept = (
        sa.select(a.id).outerjoin(ledger_postings, p.ledger_account_id == a.id).group_by(a.id, a.balance)
        .having(a.balance != sa.func.coalesce(sa.func.sum(p.amount), 0))
    )  # fmt: skip
    assert not rows(kept)
    assert not rows(sa.select(a.id).where(a.kind.in_(["balance", "voucher"]), a.balance < 0))
    posted = {(row.order_id, row.kind) for row in rows(sa.select(t.order_id, t.kind).where(t.order_id.is_not(None)))}
    assert len(posted) == len(rows(sa.select(t.id).where(t.order_id.is_not(None))))
    o, c = orders.c, certificate_table.c
    certificate_count = dict(
        tuple(row) for row in rows(sa.select(c.order_id, sa.func.count()).group_by(c.order_id)) if row[0] is not None
    )
    for order in rows(sa.select(orders)):
        paid, refunded = order.paid_at is not None, order.refunded_at is not None
        costs = order.total > 0
        assert ((order.id, "payment") in posted) == (paid and costs), order.id
        assert refunded or (order.id, "refund") not in posted, order.id
        assert certificate_count.get(order.id, 0) == (order.quantity if paid and not refunded else 0), order.id
    spent = rows(sa.select(sa.func.coalesce(sa.func.sum(a.balance), 0)).where(a.kind == "purchases"))[0][0]
    expected = rows(
        sa.select(
            sa.func.coalesce(sa.func.sum(o.total).filter(o.paid_at.is_not(None)), 0)
            - sa.func.coalesce(
                sa.select(sa.func.sum(_amounts.c.amount)).where(_amounts.c.refunded_at.is_not(None)).scalar_subquery(),
                0,
            )
        )
    )[0][0]
    assert spent == expected


_amounts = sa.table("unsubscriptions", sa.column("amount"), sa.column("refunded_at"))


async def in_transaction(services: Any, work: Any) -> Any:
    async with services.db.begin() as tx:
        return await work(tx)


@pytest.fixture
def shop(world: World) -> Shop:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return Shop(world)


__all__ = ["Tx"]
