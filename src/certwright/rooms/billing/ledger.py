"""The books: posting, balances, statements. All SQL of the ledger tables is here.

Accounts are opened and locked in one order, so that two transactions never wait for each other in a circle. What the
database itself refuses is in tables.GUARD_SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from certwright.kernel.ids import new_id
from certwright.kernel.money import Money
from certwright.kernel.problems import Refused
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.billing.tables import ledger_accounts, ledger_postings, ledger_transactions
from certwright.rooms.billing.words import AccountKind, Leg

_A, _T, _P = ledger_accounts.c, ledger_transactions.c, ledger_postings.c

AccountKey = tuple[AccountKind, str, str]
"""(kind, reference, currency): what an account of a tenant is found by."""


@dataclass(frozen=True, slots=True)
class Posting:
    kind: AccountKind
    reference: str
    amount: Money


@dataclass(frozen=True, slots=True)
class Transaction:
    """One entry of the books; its postings sum to zero."""

    id: str
    kind: str
    idempotency_key: str
    order_id: str | None
    memo: str
    at: datetime
    actor_id: str
    postings: tuple[Posting, ...]


def too_low(needed: Money, available: Money) -> Refused:
    return Refused(
        "balance_too_low", f"The balance of {available} is not enough for {needed}.",
        fix="Have the balance topped up, or pay by another method.",
        extra={"needed": needed.as_dict(), "available": available.as_dict()},
    )  # fmt: skip


def key_of(leg: Leg) -> AccountKey:
    return leg.kind, leg.reference, leg.amount.currency


async def lock(
    tx: Tx, services: Services, account_id: str, keys: Iterable[AccountKey]
) -> Mapping[AccountKey, tuple[str, Money]]:
    """(id, balance) of each account, locked until the transaction ends; those that don't exist are opened."""
    wanted = sorted(set(keys))
    found = await _locked(tx, account_id, wanted)
    if len(found) == len(wanted):
        return found
    # Not before it is needed: beside a row that is being changed even an insert of nothing waits, and everybody who
    # waits is woken by every payment.
    now = services.clock.now()
    await tx.execute(
        insert(ledger_accounts)
        .values([
            {
                "id": new_id("lac", now), "account_id": account_id, "kind": kind.value, "reference": reference,
                "currency": currency, "created_at": now,
            }
            for kind, reference, currency in wanted
        ])
        .on_conflict_do_nothing(index_elements=["account_id", "kind", "reference", "currency"])
    )  # fmt: skip
    return await _locked(tx, account_id, wanted)


async def _locked(tx: Tx, account_id: str, wanted: Sequence[AccountKey]) -> Mapping[AccountKey, tuple[str, Money]]:
    rows = await tx.execute(
        sa.select(_A.id, _A.kind, _A.reference, _A.currency, _A.balance)
        .where(
            _A.account_id == account_id,
            sa.tuple_(_A.kind, _A.reference, _A.currency).in_([(k.value, r, c) for k, r, c in wanted]),
        )
        # The order `wanted` has, whatever the database's locale.
        .order_by(_A.kind.collate("C"), _A.reference, _A.currency.collate("C"))
        .with_for_update()
    )
    return {
        (AccountKind(row.kind), row.reference, row.currency): (row.id, Money.of(row.balance, row.currency))
        for row in rows
    }


async def peek(tx: Tx, account_id: str, keys: Sequence[AccountKey]) -> Mapping[AccountKey, Money]:
    """Balances without a lock, of those accounts that exist; `lock` them before relying on it."""
    if not keys:
        return {}
    rows = await tx.execute(
        sa.select(_A.kind, _A.reference, _A.currency, _A.balance).where(
            _A.account_id == account_id,
            sa.tuple_(_A.kind, _A.reference, _A.currency).in_([(k.value, r, c) for k, r, c in keys]),
        )
    )
    return {
        (AccountKind(row.kind), row.reference, row.currency): Money.of(row.balance, row.currency) for row in rows
    }  # fmt: skip


async def post(
    tx: Tx,
    services: Services,
    *,
    account_id: str,
    key: str,
    kind: str,
    legs: Sequence[Leg],
    actor_id: str,
    order_id: str | None = None,
    memo: str = "",
) -> str | None:
    """Write one transaction of the books; None when this key was posted before, and then nothing is written.

    Legs sum to zero in each currency; the database refuses at commit what doesn't. Raises Refused `balance_too_low`.
    """
    now = services.clock.now()
    made = await tx.scalar(
        insert(ledger_transactions)
        .values(
            id=new_id("ltx", now), account_id=account_id, idempotency_key=key, kind=kind, order_id=order_id, memo=memo,
            at=now, actor_id=actor_id,
        )
        .on_conflict_do_nothing(index_elements=["account_id", "idempotency_key"])
        .returning(_T.id)
    )  # fmt: skip
    if made is None:
        return None
    sums: dict[AccountKey, Money] = {}
    for leg in legs:
        found = key_of(leg)
        sums[found] = sums[found] + leg.amount if found in sums else leg.amount
    accounts = await lock(tx, services, account_id, sums)
    for found, amount in sums.items():
        # Refuses what no balance can hold.
        accounts[found][1] + amount
    rows = [
        {
            "id": new_id("lpo", now), "account_id": account_id, "transaction_id": made,
            "ledger_account_id": accounts[found][0], "currency": amount.currency, "amount": amount.amount,
        }
        for found, amount in sums.items() if amount
    ]  # fmt: skip
    try:
        await tx.execute(sa.insert(ledger_postings), rows)
    except IntegrityError as error:
        # Callers look at the balance first, under lock; this is the database's own last word.
        if "never_negative" not in str(error.orig):
            raise
        short = next(found for found, amount in sums.items() if amount.minor < 0 and found[0] in _FLOORED)
        raise too_low(-sums[short], accounts[short][1]) from error
    return str(made)


_FLOORED = (AccountKind.BALANCE, AccountKind.VOUCHER)


async def by_key(tx: Tx, account_id: str, key: str) -> Transaction | None:
    query = sa.select(ledger_transactions).where(_T.account_id == account_id, _T.idempotency_key == key)
    found = await _with_postings(tx, (await tx.execute(query)).all())
    return found[0] if found else None


async def balances(tx: Tx, account_id: str, kinds: Sequence[AccountKind]) -> list[Posting]:
    """The balances of a tenant's accounts of these kinds."""
    rows = await tx.execute(
        sa.select(_A.kind, _A.reference, _A.balance, _A.currency)
        .where(_A.account_id == account_id, _A.kind.in_([kind.value for kind in kinds]))
        .order_by(_A.kind, _A.currency, _A.reference)
    )
    return [Posting(AccountKind(row.kind), row.reference, Money.of(row.balance, row.currency)) for row in rows]


async def transactions(
    tx: Tx, account_id: str, *, order_id: str | None = None, before: str | None = None, limit: int
) -> list[Transaction]:
    """Newest first, by keyset."""
    query = sa.select(ledger_transactions).where(_T.account_id == account_id)
    if order_id is not None:
        query = query.where(_T.order_id == order_id)
    if before is not None:
        query = query.where(_T.id < before)
    return await _with_postings(tx, (await tx.execute(query.order_by(_T.id.desc()).limit(limit))).all())


async def _with_postings(tx: Tx, rows: Sequence[Any]) -> list[Transaction]:
    if not rows:
        return []
    found: dict[str, list[Posting]] = {row.id: [] for row in rows}
    postings = await tx.execute(
        sa.select(_P.transaction_id, _A.kind, _A.reference, _P.amount, _P.currency)
        .join(ledger_accounts, _A.id == _P.ledger_account_id)
        .where(_P.transaction_id.in_(list(found)))
        .order_by(_P.amount.desc(), _P.id)
    )
    for p in postings:
        found[p.transaction_id].append(Posting(AccountKind(p.kind), p.reference, Money.of(p.amount, p.currency)))
    return [
        Transaction(
            row.id, row.kind, row.idempotency_key, row.order_id, row.memo, row.at, row.actor_id, tuple(found[row.id])
        )
        for row in rows
    ]
