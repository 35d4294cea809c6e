"""Random walks through ordering on a real database, against a model that only counts.

After every step balances and the order that was touched are what the model says, and at the end of every walk the books
are right: nothing made, nothing lost, nothing delivered unpaid, nothing refunded twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import hypothesis
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck
from hypothesis import strategies as st

from certwright.kernel.problems import Problem
from certwright.platform.db import Database
from certwright.rooms import billing
from certwright.rooms.billing import OrderStatus, PayWith, Review, jobs
from certwright.rooms.billing.ports import Declined
from certwright.rooms.billing.tables import ledger_accounts

from .conftest import PRODUCT, Shop, eur
from .test_pure_walks import WALKS

PRICE, LIMIT, UNPAID = 100, 400, timedelta(days=20)
REAL_WALKS = max(10, WALKS // 30)


class Crash(Exception):
    """The process died here."""


@dataclass
class Ordered:
    quantity: int
    pay_by: datetime
    state: OrderStatus = OrderStatus.PENDING_PAYMENT
    method: str = ""
    by_method: int = 0
    paid_at: datetime | None = None


class Walk:
    """One tenant and what should be true of it. Each step takes two numbers, of which it makes what it needs."""

    count = 0

    def __init__(self, shop: Shop) -> None:
        Walk.count += 1
        self.shop, world = shop, shop.world
        self.account, shop.actor, _ = world.run(world.add_account(f"walker{Walk.count}@walk.example"))
        world.run(billing.create_product(shop.services, shop.actor, PRODUCT))
        shop.provider.answers.clear()
        shop.policy(invoice_limits={"EUR": eur(LIMIT).amount}, unpaid_days=UNPAID.days)
        self.available = self.owed = self.spent = self.transfers = 0
        self.vouchers: dict[str, int] = {}
        self.orders: dict[str, Ordered] = {}
        self.did: Counter[str] = Counter()
        self.top_up(250, 0)

    @property
    def now(self) -> datetime:
        return self.shop.services.clock.now()

    def _at(self, a: int) -> str:
        """Often the newest: what is done to one thing in a row finds most."""
        return list(self.orders)[-1 if a % 2 else a % len(self.orders)]

    # --- money comes in ---

    def top_up(self, a: int, b: int) -> None:
        self.transfers += 1
        for _ in range(b % 3 + 1):
            self.shop.fund(eur(a + 1), f"transfer {self.transfers}")
        self.available += a + 1

    def make_voucher(self, a: int, b: int) -> None:
        code = f"GIFT-{len(self.vouchers)}"
        self.shop.voucher(str(a % 150 + 1), code)
        self.vouchers[code] = a % 150 + 1

    def settle(self, a: int, b: int) -> None:
        self.transfers += 1
        settling = billing.settle_invoice(
            self.shop.services, self.shop.actor, eur(a + 1), reference=f"s{self.transfers}"
        )
        if self._done(settling, possible=a + 1 <= self.owed):
            self.owed -= a + 1

    # --- orders ---

    def place(self, a: int, b: int) -> None:
        order_id = self.shop.place(asked={"quantity": a % 3 + 1}).summary.id
        self.orders[order_id] = Ordered(a % 3 + 1, self.now + UNPAID)

    def buy(self, a: int, b: int) -> None:
        quantity = a % 3 + 1
        asked = billing.Asked(PRODUCT["code"], quantity=quantity)
        made: list[str] = []

        async def buying() -> None:
            services, actor = self.shop.services, self.shop.actor
            made.append((await billing.place_order(services, actor, asked, agree=True, pay=PayWith())).summary.id)

        if self._done(buying(), possible=self.available >= quantity * PRICE):
            self.orders[made[0]] = Ordered(quantity, self.now + UNPAID)
            self._paid(made[0], "balance", [])

    def pay(self, a: int, b: int) -> None:
        """By several at once: one of them may succeed."""
        if not self.orders:
            return
        order_id, method = self._at(a), ("balance", "balance", "invoice")[b % 3]
        order = self.orders[order_id]
        codes = [code for code in list(self.vouchers)[-2:] if self.vouchers[code]] if b // 3 % 2 else []
        pay = PayWith(method, tuple(codes))
        price = order.quantity * PRICE
        rest = price - min(price, sum(self.vouchers[code] for code in codes))
        enough = self.available >= rest if method == "balance" else not rest or self.owed + rest <= LIMIT
        payable = self._waits(order) and enough
        paying = [billing.pay_order(self.shop.services, self.shop.actor, order_id, pay) for _ in range(b // 6 % 3 + 1)]
        codes_met = self._together(paying)
        assert codes_met.count(None) == int(payable), (codes_met, order)
        if payable:
            self._paid(order_id, method, codes)

    def _waits(self, order: Ordered) -> bool:
        return order.state is OrderStatus.PENDING_PAYMENT and self.now < order.pay_by

    def _paid(self, order_id: str, method: str, codes: list[str]) -> None:
        order = self.orders[order_id]
        rest = order.quantity * PRICE
        self.spent += rest
        for code in codes:
            part = min(self.vouchers[code], rest)
            self.vouchers[code] -= part
            rest -= part
        order.state, order.method, order.by_method, order.paid_at = OrderStatus.PAID, method, rest, self.now
        if method == "balance":
            self.available -= rest
        elif method == "invoice":
            self.owed += rest
        self.did[f"paid by {method}"] += 1

    def pay_by_card(self, a: int, b: int) -> None:
        """The provider's answer gets lost now and then, or it declines."""
        if not self.orders:
            return
        order_id, declined, lost = self._at(a), b % 4 == 0, b // 4 % 2
        order = self.orders[order_id]
        self.shop.provider.answers = [*["lost"] * lost, *([Declined("no")] if declined and not lost else [])]
        paying = billing.pay_order(self.shop.services, self.shop.actor, order_id, PayWith("card"))
        if not self._done(paying, possible=self._waits(order)):
            return
        for _ in range(lost + 1):
            self.shop.world.drain()
            self.shop.world.later(seconds=61)
        if declined and not lost:
            self.did["declined"] += 1
        else:
            self._paid(order_id, "card", [])
            order.paid_at = self.now - timedelta(seconds=61)

    def cancel(self, a: int, b: int) -> None:
        if self.orders:
            order = self.orders[self._at(a)]
            cancelling = billing.cancel_order(self.shop.services, self.shop.actor, self._at(a))
            if self._done(cancelling, possible=order.state is OrderStatus.PENDING_PAYMENT):
                order.state = OrderStatus.CANCELLED

    def wait(self, a: int, b: int) -> None:
        """Up to the last moments of the seven days, or until what was not paid lapses."""
        self.shop.world.later(days=(1, 7, 20)[a % 3])
        for order_id, order in self.orders.items():
            self.shop.world.run(jobs.lapse_step(self.shop.services, order_id))
            if order.state is OrderStatus.PENDING_PAYMENT and self.now >= order.pay_by:
                order.state = OrderStatus.LAPSED
                self.did["lapsed"] += 1

    # --- going back ---

    def unsubscribe(self, a: int, b: int) -> None:
        if not self.orders:
            return
        order_id = self._at(a)
        order, automatic = self.orders[order_id], b % 2 == 0
        self.shop.policy(review=Review.AUTOMATIC if automatic else Review.MANUAL)
        asking = [
            billing.unsubscribe(self.shop.services, self.shop.actor, order_id, acknowledge=True)
            for _ in range(b // 2 % 2 + 1)
        ]
        in_time = order.paid_at is not None and self.now - order.paid_at < timedelta(days=7)
        possible = order.state is OrderStatus.PAID and in_time
        assert self._together(asking).count(None) == int(possible), order
        if possible:
            order.state = OrderStatus.REFUND_REVIEW
            if automatic:
                self._refunded(order)

    def review(self, a: int, b: int) -> None:
        waiting = self.shop.world.run(
            billing.list_unsubscriptions(self.shop.services, self.shop.actor, state="review", limit=100)
        )
        if not waiting:
            return
        asked = waiting[a % len(waiting)]
        order = self.orders[asked.order_id]
        approve = billing.approve(self.shop.services, self.shop.actor, asked.id)
        deciding = [approve] if b % 3 else [billing.reject(self.shop.services, self.shop.actor, asked.id, "used")]
        if not b % 3:
            approve.close()
        assert self._together(deciding) == [None]
        if b % 3:
            self._refunded(order)
        else:
            order.state = OrderStatus.REFUND_REJECTED
        again = self._together([billing.approve(self.shop.services, self.shop.actor, asked.id)])
        assert again == ["refund_decided"]

    def _refunded(self, order: Ordered) -> None:
        if order.method == "card":
            self.shop.provider.answers = []
            self.shop.world.drain()
        self.spent -= order.by_method
        if order.method == "balance":
            self.available += order.by_method
        elif order.method == "invoice":
            self.owed -= order.by_method
        order.state = OrderStatus.REFUNDED
        self.did["given back"] += 1

    # --- crashes ---

    def crash(self, a: int, b: int) -> None:
        """The process dies just before it commits a payment or a refund: nothing of it is there."""
        self.top_up(PRICE, 0)
        if b % 2:
            self.place(0, 0)
        else:
            self.buy(0, 0)
        order_id = list(self.orders)[-1]
        self.shop.policy(review=Review.AUTOMATIC)
        work = (
            billing.pay_order(self.shop.services, self.shop.actor, order_id, PayWith("balance"))
            if b % 2 else billing.unsubscribe(self.shop.services, self.shop.actor, order_id, acknowledge=True)
        )  # fmt: skip
        with dying(), pytest.raises(Crash):
            self.shop.world.run(work)
        self.did["crashed"] += 1

    # --- together ---

    def _done(self, work: Any, *, possible: bool) -> bool:
        (code,) = self._together([work])
        assert (code is None) == possible, code
        return possible

    def _together(self, works: list[Any]) -> list[str | None]:
        async def attempt(work: Any) -> str | None:
            try:
                await work
            except Problem as problem:
                return problem.code
            return None

        async def run() -> list[str | None]:
            return list(await asyncio.gather(*(attempt(work) for work in works)))

        return self.shop.world.run(run())

    def balances_are_right(self) -> None:
        a = ledger_accounts.c
        query = sa.select(a.kind, sa.func.sum(a.balance).label("sum")).where(a.account_id == self.account.id)
        found = {row.kind: row.sum for row in self.shop.rows(query.group_by(a.kind))}
        expected = {
            "balance": self.available, "payable": -self.owed, "purchases": self.spent,
            "voucher": sum(self.vouchers.values()),
        }  # fmt: skip
        assert {kind: found.get(kind, 0) for kind in expected} == expected

    def everything_is_right(self) -> None:
        self.shop.books_are_right()
        for order_id, expected in self.orders.items():
            order = self.shop.order(order_id)
            assert order.summary.status is expected.state, order_id
            there = expected.state in (OrderStatus.PAID, OrderStatus.REFUND_REVIEW, OrderStatus.REFUND_REJECTED)
            assert len(order.certificates) == (expected.quantity if there else 0)
        by_card = [order for order in self.orders.values() if order.method == "card"]
        kept = sum(o.by_method for o in by_card if o.state is not OrderStatus.REFUNDED)
        taken, given = ((sum(m.minor for m in done.values())) for done in (self.charged(), self.refunded()))
        assert taken - given == eur(kept).minor

    def charged(self) -> dict[str, Any]:
        return self.shop.provider.charged

    def refunded(self) -> dict[str, Any]:
        return self.shop.provider.refunded


@contextmanager
def dying() -> Iterator[None]:
    begin = Database.begin

    def begun(db: Database) -> Any:
        return _Dying(begin(db))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "begin", begun)
        yield


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


STEPS = (
    "top_up", "make_voucher", "settle", "place", "place", "buy", "buy", "pay", "pay", "pay", "pay_by_card", "cancel",
    "wait", "unsubscribe", "unsubscribe", "unsubscribe", "review", "review", "crash",
)  # fmt: skip
NUMBER = st.integers(0, 400)
EACH = [
    ("buy", 0, 0), ("place", 0, 0), ("pay", 1, 2), ("unsubscribe", 1, 0), ("place", 0, 0), ("pay_by_card", 1, 5),
    ("crash", 0, 0), ("crash", 0, 1), ("make_voucher", 40, 0), ("place", 0, 0), ("pay", 1, 3), ("settle", 0, 0),
    ("unsubscribe", 1, 1), ("review", 0, 1), ("buy", 0, 0), ("unsubscribe", 1, 1), ("review", 0, 0), ("place", 0, 0),
    ("cancel", 1, 0), ("place", 0, 0), ("wait", 2, 0), ("top_up", 5, 1),
]  # fmt: skip
"""A walk with every step in it, so that the few walks of an ordinary run meet everything."""


def test_no_walk_makes_or_loses_money_or_certificates(shop: Shop) -> None:
    met: Counter[str] = Counter()

    @hypothesis.settings(max_examples=REAL_WALKS, deadline=None, suppress_health_check=list(HealthCheck))
    @hypothesis.given(st.lists(st.tuples(st.sampled_from(STEPS), NUMBER, NUMBER), min_size=10, max_size=25))
    @hypothesis.example(EACH)
    def walk(steps: list[tuple[str, int, int]]) -> None:
        shop.provider.charged.clear()
        shop.provider.refunded.clear()
        taken = Walk(shop)
        for what, a, b in steps:
            getattr(taken, what)(a, b)
            taken.balances_are_right()
        taken.everything_is_right()
        met.update(taken.did)

    walk()
    for what in ("paid by balance", "paid by invoice", "paid by card", "given back", "lapsed", "crashed"):
        assert met[what], met
