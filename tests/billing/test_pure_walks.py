"""Random walks through the pure rules of ordering: a shop in memory that asks the same rules and books the same
postings as the real one, without a database, so that many more walks fit.

What the shop may do is decided by `rules`; what must hold is written down here from the specification alone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar

import hypothesis
from hypothesis import HealthCheck
from hypothesis import strategies as st

from certwright.kernel.money import Money
from certwright.kernel.problems import Problem
from certwright.rooms.billing import rules
from certwright.rooms.billing.words import NEVER_NEGATIVE, AccountKind, BoughtCertificate, Leg, OrderFacts, OrderStatus

from .conftest import eur
from .test_rules import NOW

WALKS = int(os.environ.get("CERTWRIGHT_WALKS", "400"))
"""How many walks; `CERTWRIGHT_WALKS=20000` for a long night."""
UNPAID = timedelta(days=20)
PRICES = (0, 40, 100, 333)
METHODS = ("balance", "balance", "invoice", "card")
WAITS = (timedelta(seconds=1), timedelta(days=1), timedelta(days=7) - timedelta(seconds=1), timedelta(days=7))

NOTHING = eur(0)

Account = tuple[AccountKind, str]


@dataclass(frozen=True)
class Bought:
    """An order with its certificates, as the tables would hold it."""

    facts: OrderFacts
    quantity: int
    certificates: tuple[BoughtCertificate, ...] = ()
    method: str = ""
    by_method: Money = NOTHING


class PureShop:
    """Each step takes two numbers, of which it makes what it needs."""

    def __init__(self) -> None:
        self.now: datetime = NOW
        self.books: Counter[Account] = Counter()
        self.posted: set[str] = set()
        self.orders: list[Bought] = []
        self.vouchers: list[str] = []
        self.limit = eur(500)
        self.did: Counter[str] = Counter()
        # Kept beside the books, by the specification's words.
        self.paid_in = self.granted = self.delivered = self.removed = 0
        self.top_up(399, 0)

    # --- the books: a key posts once ---

    def post(self, key: str, legs: list[Leg]) -> bool:
        if key in self.posted:
            return False
        assert sum(leg.amount.minor for leg in legs) == 0, legs
        self.posted.add(key)
        for leg in legs:
            self.books[leg.kind, leg.reference] += leg.amount.minor
        return True

    def left(self, kind: AccountKind, reference: str = "") -> Money:
        return Money(self.books[kind, reference], "EUR")

    def _at(self, a: int) -> int:
        """Often the newest order: what is done to one thing in a row finds most."""
        return len(self.orders) - 1 if a % 2 else a % len(self.orders)

    # --- money ---

    def top_up(self, a: int, b: int) -> None:
        key, amount = f"top_up:{len(self.posted)}", eur(a + 1)
        legs = [Leg(AccountKind.BALANCE, amount), Leg(AccountKind.PAID_IN, -amount)]
        assert self.post(key, legs)
        assert not self.post(key, legs), "sent again, it books nothing"
        self.paid_in += amount.minor

    def grant_voucher(self, a: int, b: int) -> None:
        voucher, amount = f"cpn_{len(self.vouchers)}", eur(a % 150 + 1)
        self.vouchers.append(voucher)
        legs = [Leg(AccountKind.VOUCHER, amount, voucher), Leg(AccountKind.GRANTED, -amount)]
        assert self.post(f"voucher:{voucher}", legs)
        self.granted += amount.minor

    def settle(self, a: int, b: int) -> None:
        owed = -self.left(AccountKind.PAYABLE)
        amount = min(eur(a + 1), owed)
        if amount.minor > 0:
            legs = [Leg(AccountKind.PAYABLE, amount), Leg(AccountKind.PAID_IN, -amount)]
            assert self.post(f"settlement:{len(self.posted)}", legs)
            self.paid_in += amount.minor

    def wait(self, a: int, b: int) -> None:
        self.now += WAITS[a % len(WAITS)]

    # --- orders ---

    def place(self, a: int, b: int) -> None:
        price, quantity = PRICES[a % len(PRICES)], b % 3 + 1
        self.orders.append(Bought(OrderFacts(eur(price), price == 0, self.now + UNPAID), quantity))
        if not price:
            self._deliver(len(self.orders) - 1, "none", eur(0))

    def buy(self, a: int, b: int) -> None:
        self.place(a % (len(PRICES) - 1) + 1, b)
        self._pay(len(self.orders) - 1, b)

    def buy_with_a_voucher(self, a: int, b: int) -> None:
        self.grant_voucher(a, b)
        self.place(b % (len(PRICES) - 1) + 1, b)
        self._pay(len(self.orders) - 1, 4)

    def pay(self, a: int, b: int) -> None:
        if self.orders:
            self._pay(self._at(a), b)

    def _pay(self, at: int, b: int) -> None:
        order, method = self.orders[at], METHODS[b % len(METHODS)]
        try:
            rules.judge_payable(order.facts, self.now)
        except Problem:
            assert not self._waits(order)
            return
        assert self._waits(order)
        vouchers = self.vouchers[-(b // 4 % 3) :] if b // 4 % 3 and method != "card" else []
        held = [(one, self.left(AccountKind.VOUCHER, one)) for one in vouchers]
        legs, rest = rules.payment_legs(order.facts.total, held, method)
        assert eur(0) <= rest <= order.facts.total
        if method == "balance" and self.left(AccountKind.BALANCE) < rest:
            return
        if method == "invoice" and rest - self.left(AccountKind.PAYABLE) > self.limit:
            return
        if b % 7 == 0:
            self.did["crashed"] += 1
            return  # one transaction: nothing of it is there
        assert self.post(f"payment:{at}", legs)
        assert not self.post(f"payment:{at}", legs), "tried again, it posts nothing"
        self._deliver(at, method if rest else "none", rest)

    def _waits(self, order: Bought) -> bool:
        facts = order.facts
        ended = facts.paid_at or facts.cancelled_at or facts.lapsed_at
        return not ended and self.now < facts.pay_by

    def _deliver(self, at: int, method: str, by_method: Money) -> None:
        order = self.orders[at]
        made = tuple(
            BoughtCertificate(f"cert_{at}_{n}", f"cert-{n}", "pending_application", True, False, None)
            for n in range(order.quantity)
        )
        self.delivered += len(made)
        self.did["delivered"] += 1
        self.orders[at] = replace(
            order, facts=replace(order.facts, paid_at=self.now), certificates=made, method=method, by_method=by_method
        )

    def cancel(self, a: int, b: int) -> None:
        if not self.orders:
            return
        at = self._at(a)
        order = self.orders[at]
        try:
            rules.judge_cancellable(order.facts)
        except Problem:
            assert order.facts.paid_at or order.facts.cancelled_at or order.facts.lapsed_at
            return
        self.orders[at] = replace(order, facts=replace(order.facts, cancelled_at=self.now))

    def lapse(self, a: int, b: int) -> None:
        for at, order in enumerate(self.orders):
            if rules.status(order.facts) is OrderStatus.PENDING_PAYMENT and self.now >= order.facts.pay_by:
                self.orders[at] = replace(order, facts=replace(order.facts, lapsed_at=self.now))

    # --- certificates ---

    MOVES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "apply": ("pending_application", "pending_domain_validation"),
        "withdraw": ("pending_domain_validation", "pending_application"),
        "issue": ("pending_domain_validation", "issued"),
        "revoke": ("issued", "revoked"),
        "apply again": ("revoked", "pending_domain_validation"),
    }

    def use(self, a: int, b: int) -> None:
        """Everything a certificate may go through; during the review nothing."""
        having = [at for at, order in enumerate(self.orders) if order.certificates]
        if not having:
            return
        at = having[-1 if a % 2 else a % len(having)]
        order = self.orders[at]
        if rules.status(order.facts) is OrderStatus.REFUND_REVIEW:
            return
        n = b % len(order.certificates)
        one = order.certificates[n]
        open_to_it = [move for move, (leaves, _) in self.MOVES.items() if leaves == one.state]
        move = [*open_to_it, *open_to_it, "delete"][b // 3 % (2 * len(open_to_it) + 1)]
        self.did[move] += 1
        if move == "delete":
            self.removed += 1
            left: tuple[BoughtCertificate, ...] = ()
        else:
            enters = self.MOVES[move][1]
            left = (
                replace(
                    one, state=enters, pending_application=enters == "pending_application",
                    ever_issued=one.ever_issued or enters == "issued",
                    revoked_at=self.now if move == "revoke" else None if move == "issue" else one.revoked_at,
                ),
            )  # fmt: skip
        self.orders[at] = replace(
            order, certificates=(*order.certificates[:n], *left, *order.certificates[n + 1 :])
        )  # fmt: skip

    def issue_and_revoke(self, a: int, b: int) -> None:
        """Every certificate of an order through its whole life, some time after it was paid."""
        if not self.orders:
            return
        at = self._at(a)
        order = self.orders[at]
        if rules.status(order.facts) is OrderStatus.PAID:
            self.wait(b, 0)
            revoked = tuple(
                replace(one, state="revoked", pending_application=False, ever_issued=True, revoked_at=self.now)
                for one in order.certificates
            )
            self.orders[at] = replace(order, certificates=revoked)

    # --- going back ---

    def unsubscribe(self, a: int, b: int) -> None:
        if not self.orders:
            return
        at = self._at(a)
        order = self.orders[at]
        refused = rules.why_no_refund(order.facts, order.quantity, order.certificates, self.now)
        assert (refused is None) == self._may_go_back(order), refused
        self.did[refused.code if refused else "asked back"] += 1
        if refused is None:
            self.orders[at] = replace(order, facts=replace(order.facts, refund_asked_at=self.now))

    def _may_go_back(self, order: Bought) -> bool:
        """The specification's sentence, in other words than the rule's."""
        facts = order.facts
        if not facts.paid_at or facts.refund_asked_at or not facts.total:
            return False
        in_time = (self.now - facts.paid_at).total_seconds() < 7 * 24 * 3600
        return in_time and len(order.certificates) == order.quantity and all(
            (not c.ever_issued and c.state == "pending_application")
            or (c.state == "revoked" and c.revoked_at is not None and c.revoked_at - facts.paid_at < timedelta(days=7))
            for c in order.certificates
        )  # fmt: skip

    def review(self, a: int, b: int) -> None:
        waiting = [n for n, o in enumerate(self.orders) if rules.status(o.facts) is OrderStatus.REFUND_REVIEW]
        if not waiting:
            return
        at = waiting[a % len(waiting)]
        order = self.orders[at]
        if b % 3 == 0:
            self.orders[at] = replace(order, facts=replace(order.facts, refund_rejected_at=self.now))
            return
        self.did["given back"] += 1
        legs = rules.refund_legs(order.method, order.by_method)
        assert bool(legs) == bool(order.by_method)
        if legs:
            assert self.post(f"refund:{at}", legs)
            assert not self.post(f"refund:{at}", legs), "decided twice, it posts once"
        self.removed += len(order.certificates)
        self.orders[at] = replace(order, facts=replace(order.facts, refunded_at=self.now), certificates=())

    # --- what holds ---

    def money_and_certificates_are_conserved(self) -> None:
        assert sum(self.books.values()) == 0
        assert all(amount >= 0 for (kind, _), amount in self.books.items() if kind in NEVER_NEGATIVE)
        assert -self.books[AccountKind.PAID_IN, ""] == self.paid_in
        assert -self.books[AccountKind.GRANTED, ""] == self.granted
        assert -self.books[AccountKind.PAYABLE, ""] <= self.limit.minor
        spent = sum(o.facts.total.minor for o in self.orders if o.facts.paid_at)
        returned = sum(o.by_method.minor for o in self.orders if o.facts.refunded_at)
        assert self.books[AccountKind.PURCHASES, ""] == spent - returned
        by_card = sum(o.by_method.minor for o in self.orders if o.method == "card" and not o.facts.refunded_at)
        assert -self.books[AccountKind.EXTERNAL, "card"] == by_card
        assert sum(len(o.certificates) for o in self.orders) == self.delivered - self.removed
        for order in self.orders:
            assert not order.certificates or (order.facts.paid_at and not order.facts.refunded_at)


STEPS = (
    "top_up", "grant_voucher", "settle", "wait", "wait", "place", "buy", "buy", "buy_with_a_voucher", "pay", "cancel",
    "lapse", "use", "use", "use", "issue_and_revoke", "unsubscribe", "unsubscribe", "unsubscribe", "review", "review",
)  # fmt: skip
NUMBER = st.integers(0, 400)


def test_no_walk_through_the_rules_makes_or_loses_money_or_certificates() -> None:
    met: Counter[str] = Counter()

    @hypothesis.settings(max_examples=WALKS, deadline=None, suppress_health_check=list(HealthCheck))
    @hypothesis.given(st.lists(st.tuples(st.sampled_from(STEPS), NUMBER, NUMBER), min_size=12, max_size=40))
    def walk(steps: list[tuple[str, int, int]]) -> None:
        shop = PureShop()
        for what, a, b in steps:
            getattr(shop, what)(a, b)
            shop.money_and_certificates_are_conserved()
        met.update(shop.did)

    walk()
    # A walk that never meets these proves little.
    for what in ("delivered", "crashed", "asked back", "given back", "refund_too_late", "refund_certificate_used",
                 "refund_certificate_deleted", "order_not_refundable"):  # fmt: skip
        assert met[what] >= WALKS // 100, met
