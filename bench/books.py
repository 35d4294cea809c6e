"""Payments in the books: one transaction each, with an idempotency key of its own; and what PostgreSQL alone does."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import service

from certwright.kernel.money import Money
from certwright.rooms import billing
from certwright.rooms.billing import ledger
from certwright.rooms.billing.words import AccountKind, Leg

PRICE = Money.of("1.00", "EUR")
FUNDS = Money.of("1000000.00", "EUR")
PARALLEL = (1, 16)
_number = itertools.count()


@dataclass(frozen=True)
class Books:
    """Per number of clients: payments a second of each run, and commits of one row a second by the same connections
    without us."""

    payments: dict[int, list[float]]
    bare: dict[int, list[float]]


def books(home: Path, runs: int, seconds: float) -> Books:
    return service.run(_books(home, runs, seconds))


async def _books(home: Path, runs: int, seconds: float) -> Books:
    found = Books({clients: [] for clients in PARALLEL}, {clients: [] for clients in PARALLEL})
    async with service.product(home / "books", DATABASE_POOL="20") as product:
        await billing.top_up(product.services, product.actor, FUNDS, reference="bench")
        await product.write("CREATE UNLOGGED TABLE bench_flush (n bigint)")
        await product.write("ALTER TABLE bench_flush SET LOGGED")
        paid = 0
        for _ in range(runs):
            for clients in PARALLEL:
                made, rate = await _rate(product, clients, seconds, _pay)
                paid += made
                found.payments[clients].append(rate)
                found.bare[clients].append((await _rate(product, clients, seconds / 2, _one_row))[1])
        await _balances_are_right(product, paid)
    return found


async def _rate(product: service.Product, clients: int, seconds: float, act: object) -> tuple[int, float]:
    done, begun = 0, time.perf_counter()

    async def client() -> None:
        nonlocal done
        while time.perf_counter() - begun < seconds:
            await act(product)  # type: ignore[operator]  # one of the two below
            done += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return done, done / (time.perf_counter() - begun)


async def _pay(product: service.Product) -> None:
    legs = [Leg(AccountKind.BALANCE, -PRICE), Leg(AccountKind.PURCHASES, PRICE)]
    account = product.actor.account_id
    async with product.services.db.begin() as tx:
        made = await ledger.post(
            tx, product.services, account_id=account, key=f"bench:{next(_number)}", kind="payment", legs=legs,
            actor_id=product.actor.id,
        )  # fmt: skip
    assert made is not None, "each key is used once"


async def _one_row(product: service.Product) -> None:
    async with product.services.db.single() as tx:
        await tx.exec_driver_sql("INSERT INTO bench_flush VALUES (1)")


async def _balances_are_right(product: service.Product, paid: int) -> None:
    """Raises AssertionError: a rate at which money is lost is none."""
    held = [balance.available for balance in await billing.get_balances(product.services, product.actor)]
    assert held == [FUNDS - Money.of(paid, "EUR")], f"{held} is left after {paid} payments"
    assert not await product.scalar(
        "SELECT EXISTS (SELECT FROM ledger_postings GROUP BY transaction_id HAVING sum(amount) <> 0)"
    )
