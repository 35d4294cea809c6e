"""Hypothesis walks through ordering on a real database, against a model that only counts.

After every step the books are right: nothing made, nothing lost, nothing delivered unpaid, nothing refunded twice.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from certwright.kernel.problems import Problem
from certwright.platform.db import Database
from certwright.rooms import billing
from certwright.rooms.billing import OrderStatus, PayWith, Review
from certwright.rooms.billing.ports import Declined

from .conftest import PRODUCT, Shop, eur

PRICE = 100


class Crash(Exception):
    """The process died here."""


class Ordering(RuleBasedStateMachine):
    shop: Shop
    count = 0

    orders = Bundle("orders")
    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        shop = self.shop
        Ordering.count += 1
        # A tenant of its own for each walk, on the same database.
        world = shop.world
        self.account, shop.actor, _ = world.run(world.add_account(f"walker{Ordering.count}@walk.example"))
        world.run(billing.create_product(shop.services, shop.actor, PRODUCT))
        shop.provider.answers.clear()
        self.transfers = self.vouchers = 0
        self.available = 0
        self.left = 0
        self.state: dict[str, OrderStatus] = {}
        self.quantity: dict[str, int] = {}
        self.method: dict[str, int] = {}

    # --- money comes in ---

    @rule(amount=st.integers(1, 500), times=st.integers(1, 3))
    def top_up(self, amount: int, times: int) -> None:
        self.transfers += 1
        for _ in range(times):
            self.shop.fund(eur(amount), f"transfer {self.transfers}")
        self.available += amount

    @rule(amount=st.integers(1, 150))
    def make_voucher(self, amount: int) -> None:
        if self.left:
            return
        self.vouchers += 1
        self.voucher = f"GIFT-{self.vouchers}"
        self.shop.voucher(str(amount), self.voucher)
        self.left = amount

    # --- orders ---

    @rule(target=orders, quantity=st.integers(1, 3))
    def place(self, quantity: int) -> str:
        order_id = self.shop.place(asked={"quantity": quantity}).summary.id
        self.state[order_id], self.quantity[order_id] = OrderStatus.PENDING_PAYMENT, quantity
        return order_id

    @rule(target=orders, quantity=st.integers(1, 3))
    def buy(self, quantity: int) -> Any:
        if self.available < quantity * PRICE:
            with pytest.raises(Problem, match="not enough"):
                self.shop.buy(quantity=quantity)
            return multiple()
        order_id = self.shop.buy(quantity=quantity).summary.id
        self.quantity[order_id] = quantity
        self._paid(order_id, 0)
        return order_id

    @rule(order_id=orders, at_once=st.integers(1, 4), with_voucher=st.booleans())
    def pay(self, order_id: str, at_once: int, with_voucher: bool) -> None:
        """The same order, paid by several at once: one of them may succeed."""
        vouchers = (self.voucher,) if with_voucher and self.left else ()

        async def attempt() -> str | None:
            try:
                await billing.pay_order(
                    self.shop.services, self.shop.actor, order_id, PayWith("balance", vouchers)
                )  # fmt: skip
            except Problem as problem:
                return problem.code
            return None

        async def together() -> list[str | None]:
            return list(await asyncio.gather(*(attempt() for _ in range(at_once))))

        codes = self.shop.world.run(together())
        price = self.quantity[order_id] * PRICE
        part = min(self.left, price) if vouchers else 0
        payable = self.state[order_id] is OrderStatus.PENDING_PAYMENT and self.available >= price - part
        assert codes.count(None) == (1 if payable else 0), codes
        if payable:
            self._paid(order_id, part)

    def _paid(self, order_id: str, part: int) -> None:
        self.state[order_id] = OrderStatus.PAID
        self.method[order_id] = self.quantity[order_id] * PRICE - part
        self.available -= self.method[order_id]
        self.left -= part

    @rule(order_id=orders, declined=st.booleans(), lost=st.integers(0, 2))
    def pay_by_card(self, order_id: str, declined: bool, lost: int) -> None:
        self.shop.provider.answers = ["lost"] * lost + ([Declined("no")] if declined and not lost else [])
        payable = self.state[order_id] is OrderStatus.PENDING_PAYMENT
        try:
            self.shop.pay(order_id, "card")
        except Problem:
            assert not payable
            return
        assert payable
        for _ in range(lost + 1):
            self.shop.world.drain()
            self.shop.world.later(seconds=61)
        if not declined or lost:
            self.state[order_id] = OrderStatus.PAID
            self.method[order_id] = -1

    @rule(order_id=orders)
    def cancel(self, order_id: str) -> None:
        try:
            self.shop.cancel(order_id)
        except Problem:
            assert self.state[order_id] is not OrderStatus.PENDING_PAYMENT
            return
        assert self.state[order_id] is OrderStatus.PENDING_PAYMENT
        self.state[order_id] = OrderStatus.CANCELLED

    # --- crashes ---

    @rule(order_id=orders)
    def pay_and_crash_before_the_commit(self, order_id: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            begin = Database.begin

            def dying(db: Database) -> Any:
                return _Dying(begin(db))

            patch.setattr(Database, "begin", dying)
            with pytest.raises((Crash, Problem)):
                self.shop.pay(order_id)

    # --- going back ---

    @rule(target=asked, order_id=orders, automatic=st.booleans(), times=st.integers(1, 3))
    def unsubscribe(self, order_id: str, automatic: bool, times: int) -> Any:
        self.shop.policy(review=Review.AUTOMATIC if automatic else Review.MANUAL)

        async def together() -> list[Any]:
            asking = [
                billing.unsubscribe(self.shop.services, self.shop.actor, order_id, acknowledge=True)
                for _ in range(times)
            ]
            return list(await asyncio.gather(*asking, return_exceptions=True))

        answers = self.shop.world.run(together())
        assert all(isinstance(a, (billing.Unsubscription, Problem)) for a in answers), answers
        done = [a for a in answers if isinstance(a, billing.Unsubscription)]
        assert len(done) == (1 if self.state[order_id] is OrderStatus.PAID else 0)
        if not done:
            return multiple()
        self.state[order_id] = OrderStatus.REFUND_REVIEW
        if automatic:
            self._refunded(order_id)
            return multiple()
        return (order_id, done[0].id)

    def _refunded(self, order_id: str) -> None:
        if self.method[order_id] < 0:
            self.shop.provider.answers = []
            self.shop.world.drain()
        else:
            self.available += self.method[order_id]
        self.state[order_id] = OrderStatus.REFUNDED

    @rule(which=consumes(asked), approved=st.booleans(), again=st.booleans())
    def review(self, which: tuple[str, str], approved: bool, again: bool) -> None:
        order_id, unsubscription_id = which
        if approved:
            self.shop.approve(unsubscription_id)
            self._refunded(order_id)
        else:
            self.shop.reject(unsubscription_id)
            self.state[order_id] = OrderStatus.REFUND_REJECTED
        if again:
            with pytest.raises(Problem):
                self.shop.approve(unsubscription_id)

    # --- what holds ---

    @invariant()
    def everything_adds_up(self) -> None:
        shop = self.shop
        shop.books_are_right()
        assert shop.available() == eur(self.available)
        for order_id, expected in self.state.items():
            order = shop.order(order_id)
            assert order.summary.status is expected, order_id
            there = expected in (OrderStatus.PAID, OrderStatus.REFUND_REVIEW, OrderStatus.REFUND_REJECTED)
            assert len(order.certificates) == (self.quantity[order_id] if there else 0)
        taken = sum(money.minor for money in shop.provider.charged.values())
        given = sum(money.minor for money in shop.provider.refunded.values())
        assert taken >= given


class _Dying:
    """A transaction whose process dies just before it commits."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aenter__(self) -> Any:
        return await self._inner.__aenter__()

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> Any:
        if error is None:
            crash = Crash()
            await self._inner.__aexit__(Crash, crash, None)
            raise crash
        return await self._inner.__aexit__(kind, error, trace)


def test_no_walk_makes_or_loses_money_or_certificates(shop: Shop) -> None:
    Ordering.shop = shop
    hypothesis.stateful.run_state_machine_as_test(  # type: ignore[no-untyped-call]  # Hypothesis has no types for it
        Ordering,
        settings=hypothesis.settings(
            max_examples=25, stateful_step_count=18, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
