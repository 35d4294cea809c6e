"""The forking workers of tests/flows/crash_harness.py, with buyers' commands; driven by test_crash.py.

The provider outside keeps its memory in a file, as a provider's own database would outlive our crash.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from certwright.kernel.actor import Actor
from certwright.kernel.clock import SetClock
from certwright.kernel.money import Money
from certwright.platform.services import Services
from certwright.rooms import accounts, billing
from certwright.rooms.billing import Asked, OrderFilter, OrderStatus, PayWith, Review
from certwright.rooms.billing.ports import Charge, Charged
from tests.flows import crash_harness as base

PRODUCT: dict[str, Any] = {
    "code": "house", "name": "House", "brand": "House", "type": "ov", "domain_type": "single", "ca": "builtin",
    "public": False, "currency": "EUR", "prices": {"base": "100"},
}  # fmt: skip


class FileProvider:
    """Charges and refunds each reference once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return found

    def _book(self, key: str, amount: Money) -> None:
        booked = self.read() | {key: str(amount)}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(booked))
        os.rename(fresh, self._path)

    async def charge(self, charge: Charge) -> Charged:
        self._book(f"charge {charge.reference}", charge.amount)
        return Charged(f"ch_{charge.reference}")

    async def refund(self, charge: Charge, provider_reference: str) -> Charged:
        assert f"charge {provider_reference.removeprefix('ch_')}" in self.read()
        self._book(f"refund {charge.reference}", charge.amount)
        return Charged(f"re_{charge.reference}")


def _provider(services: Services) -> FileProvider:
    path = services.settings.data_dir / "provider.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileProvider(path)


def _plug(services: Services) -> None:
    ports: Any = services.ports
    ports[billing.PaymentProviders] = billing.PaymentProviders({"card": _provider(services)})


def _buyer(command: dict[str, Any]) -> Actor:
    return base._administrator(command["account_id"], command["user_id"])


async def prepare(services: Services, clock: SetClock, command: dict[str, Any]) -> dict[str, Any]:
    account = await accounts.ensure_account(services, "One")
    await accounts.default_project(services, account.id)
    async with services.db.begin() as tx:
        user = await accounts.insert_user(
            tx, services, account.id, email="ann@one.example", name="Ann", password_hash=None
        )
    actor = base._administrator(account.id, user.id)
    await billing.create_product(services, actor, PRODUCT)
    await billing.set_policy(services, actor, revision=0, review=Review.AUTOMATIC)
    await billing.top_up(services, actor, Money.of(1000, "EUR"), reference="first")
    voucher = billing.CouponKind.VOUCHER
    await billing.create_coupon(services, actor, kind=voucher, code="GIFT", amount=Money.of(30, "EUR"))
    return {"account_id": account.id, "user_id": user.id}


async def buy(services: Services, clock: SetClock, command: dict[str, Any]) -> dict[str, Any]:
    """What a careful buyer does, the first time and after every crash: look, and do what is still missing."""
    _plug(services)
    actor = _buyer(command)
    found = await billing.list_orders(services, actor, OrderFilter())
    order = found[0] if found else None
    if order is None:
        placed = await billing.place_order(services, actor, Asked("house", quantity=2), agree=True)
        order = placed.summary
    if order.status is OrderStatus.PENDING_PAYMENT:
        vouchers = ("GIFT",) if command["method"] == "balance" else ()
        await billing.pay_order(services, actor, order.id, PayWith(command["method"], vouchers))
    return {"order_id": order.id}


async def give_back(services: Services, clock: SetClock, command: dict[str, Any]) -> dict[str, Any]:
    _plug(services)
    actor = _buyer(command)
    (order,) = await billing.list_orders(services, actor, OrderFilter())
    if order.status is OrderStatus.PAID:
        await billing.unsubscribe(services, actor, order.id, acknowledge=True)
    return {}


async def top_up(services: Services, clock: SetClock, command: dict[str, Any]) -> dict[str, Any]:
    await billing.top_up(services, _buyer(command), Money.of(50, "EUR"), reference="second")
    return {}


async def work(services: Services, clock: SetClock, command: dict[str, Any]) -> dict[str, Any]:
    _plug(services)
    return await base.work(services, clock, command)


base.COMMANDS |= {"prepare": prepare, "buy": buy, "give_back": give_back, "top_up": top_up, "work": work}

if __name__ == "__main__":
    base.main()
