"""Balances, topping up, settling invoices, coupons and vouchers, and how the account orders."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.money import Money
from certwright.kernel.problems import Invalid, Refused, Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.billing import ledger, lookup, store, views
from certwright.rooms.billing.tables import coupons
from certwright.rooms.billing.words import AccountKind, CouponKind, Leg, Policy, Review

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/#-]{0,99}")
_CODE = re.compile(r"[A-Z0-9][A-Z0-9-]{3,63}")
_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_MOST_USES = 1_000_000


@dataclass(frozen=True, slots=True)
class Balance:
    """What can be spent and what is owed, in one currency. Neither is ever negative, unless more was refunded to the
    invoice account than is owed: then `owed` is."""

    available: Money
    owed: Money


# --- balance --------------------------------------------------------------------------------------------------------


async def get_balances(services: Services, actor: Actor) -> list[Balance]:
    """By currency; empty for an account that never paid anything in."""
    access.require(actor, "bss:balance:get")
    async with services.db.read() as tx:
        found = await ledger.balances(tx, actor.account_id, (AccountKind.BALANCE, AccountKind.PAYABLE))
    sums = {(posting.kind, posting.amount.currency): posting.amount for posting in found}
    currencies = sorted({posting.amount.currency for posting in found})
    return [
        Balance(
            sums.get((AccountKind.BALANCE, currency), Money.zero(currency)),
            -sums.get((AccountKind.PAYABLE, currency), Money.zero(currency)),
        )
        for currency in currencies
    ]


async def top_up(
    services: Services, actor: Actor, amount: Money, *, reference: str, memo: str = ""
) -> ledger.Transaction:
    """Record money paid in. `reference` (of the bank transfer, say) is used once: the same again books nothing and
    answers with what was booked; with another amount it is refused."""
    access.require(actor, "bss:balance:top_up")
    legs = [Leg(AccountKind.BALANCE, amount), Leg(AccountKind.PAID_IN, -amount)]
    return await _book(services, actor, "top_up", "bss:balance:top_up", reference, amount, legs, memo)


async def settle_invoice(
    services: Services, actor: Actor, amount: Money, *, reference: str, memo: str = ""
) -> ledger.Transaction:
    """Record that what is owed on invoice was paid, in whole or in part. Raises Refused `more_than_owed`."""
    access.require(actor, "bss:invoice:settle")
    legs = [Leg(AccountKind.PAYABLE, amount), Leg(AccountKind.PAID_IN, -amount)]
    return await _book(services, actor, "settlement", "bss:invoice:settle", reference, amount, legs, memo)


async def _book(
    services: Services,
    actor: Actor,
    kind: str,
    action: str,
    reference: str,
    amount: Money,
    legs: Sequence[Leg],
    memo: str,
) -> ledger.Transaction:
    _positive(amount)
    if not _REFERENCE.fullmatch(reference):
        raise Invalid(
            "reference_invalid", "The reference must have 1 to 100 letters, digits, spaces or . _ : / # -.",
            field="reference", fix="Use the number of the bank transfer or of the receipt.",
        )  # fmt: skip
    if len(memo) > 200 or not memo.isprintable():
        raise Invalid(
            "memo_invalid", "The note must have at most 200 printable characters.", field="memo", fix="Shorten it."
        )
    key = f"{kind}:{reference}"
    async with services.db.begin() as tx:
        made = await ledger.post(
            tx, services, account_id=actor.account_id, key=key, kind=kind, legs=legs, actor_id=actor.id, memo=memo
        )
        if made is not None:
            if kind == "settlement":
                await _not_more_than_owed(tx, actor.account_id, amount.currency)
            await audit.record(
                tx, services, actor, action, "ledger", made,
                after={"amount": str(amount), "reference": reference, "memo": memo},
            )  # fmt: skip
            await services.events.publish(
                tx, "billing.balance_changed", account_id=actor.account_id, object_id=made,
                payload={"kind": kind, "amount": amount.as_dict()},
            )  # fmt: skip
        found = await ledger.by_key(tx, actor.account_id, key)
    assert found is not None
    if made is None and amount not in [posting.amount for posting in found.postings]:
        raise Refused(
            "reference_used", f"The reference {reference!r} was used for another amount.", field="reference",
            fix="Look at the transaction; use another reference for another payment.",
            extra={"transaction_id": found.id},
        )  # fmt: skip
    return found


async def _not_more_than_owed(tx: Tx, account_id: str, currency: str) -> None:
    # The account is locked by the posting just made.
    after = await ledger.peek(tx, account_id, [(AccountKind.PAYABLE, "", currency)])
    if after[AccountKind.PAYABLE, "", currency].minor > 0:
        raise Refused(
            "more_than_owed", "That is more than is owed on invoice.", field="amount", fix="Settle what is owed."
        )


def _positive(amount: Money) -> None:
    if amount.minor <= 0:
        raise Invalid(
            "amount_not_positive", "The amount must be more than zero.", field="amount", fix="Enter an amount."
        )


async def list_transactions(
    services: Services, actor: Actor, *, order_id: str | None = None, before: str | None = None, limit: int = 20
) -> list[ledger.Transaction]:
    """The account's books, newest first."""
    access.require(actor, "bss:transaction:list")
    async with services.db.begin() as tx:
        return await ledger.transactions(tx, actor.account_id, order_id=order_id, before=before, limit=limit)


# --- coupons and vouchers -------------------------------------------------------------------------------------------


async def create_coupon(
    services: Services,
    actor: Actor,
    *,
    kind: CouponKind,
    code: str | None = None,
    percent: Decimal | None = None,
    amount: Money | None = None,
    products: Sequence[str] = (),
    max_uses: int | None = None,
    valid_from: datetime | None = None,
    valid_until: datetime | None = None,
) -> views.CouponView:
    """A coupon (percent or amount off the price) or a voucher (an amount that pays). Without `code` one is made up."""
    access.require(actor, "bss:coupon:create")
    wanted = _judge_coupon(kind, code, percent, amount, max_uses, valid_from, valid_until)
    now = services.clock.now()
    coupon_id = new_id("cpn", now)
    async with services.db.begin() as tx:
        made = await store.insert_coupon(
            tx, id=coupon_id, account_id=actor.account_id, kind=kind.value, code=wanted, percent=percent,
            amount=amount.amount if amount is not None else None,
            currency=amount.currency if amount is not None else None, products=sorted(set(products)),
            max_uses=max_uses, valid_from=valid_from, valid_until=valid_until, created_at=now,
        )  # fmt: skip
        if not made:
            raise Refused(
                "coupon_exists", f"There is a code {wanted!r} already.", field="code", fix="Choose another code."
            )
        # Whoever knows a voucher's code can spend it: books and audit show how it begins.
        shown = f"{wanted[:4]}…" if kind is CouponKind.VOUCHER else wanted
        if kind is CouponKind.VOUCHER and amount is not None:
            await ledger.post(
                tx, services, account_id=actor.account_id, key=f"voucher:{coupon_id}", kind="voucher",
                legs=[Leg(AccountKind.VOUCHER, amount, coupon_id), Leg(AccountKind.GRANTED, -amount)],
                actor_id=actor.id, memo=shown,
            )  # fmt: skip
        await audit.record(
            tx, services, actor, "bss:coupon:create", "coupon", coupon_id,
            after={"kind": kind.value, "code": shown, "percent": str(percent) if percent is not None else None,
                   "amount": str(amount) if amount is not None else None, "products": list(products)},
        )  # fmt: skip
        row = await store.coupon(tx, coupon_id, coupons.c.account_id == actor.account_id)
        return views.coupon(row, amount if kind is CouponKind.VOUCHER else None)


def _judge_coupon(
    kind: CouponKind,
    code: str | None,
    percent: Decimal | None,
    amount: Money | None,
    max_uses: int | None,
    valid_from: datetime | None,
    valid_until: datetime | None,
) -> str:
    if kind is CouponKind.VOUCHER and (amount is None or percent is not None or max_uses is not None):
        raise Invalid(
            "voucher_needs_amount", "A voucher holds an amount; it has no percentage and no number of uses.",
            field="amount", fix="Give an amount, or make a coupon.",
        )  # fmt: skip
    if (percent is None) == (amount is None):
        raise Invalid(
            "coupon_value", "A coupon takes off either a percentage or an amount.", field="percent", fix="Give one."
        )
    if percent is not None and (
        not 0 < percent <= 100 or percent != percent.quantize(Decimal("0.01"))
    ):  # fmt: skip
        raise Invalid(
            "percent_invalid", "The percentage must be more than 0, at most 100, with two decimal places.",
            field="percent", fix="Write it as 12.5.",
        )  # fmt: skip
    if amount is not None:
        _positive(amount)
    if max_uses is not None and not 1 <= max_uses <= _MOST_USES:
        raise Invalid("uses_invalid", f"A coupon is used 1 to {_MOST_USES} times.", field="max_uses", fix="Correct it.")
    if valid_from is not None and valid_until is not None and valid_until <= valid_from:
        raise Invalid(
            "validity_invalid", "It would end before it begins.", field="valid_until", fix="Choose a later end."
        )
    wanted = lookup.normal_code(code) if code is not None else _made_up()
    if not _CODE.fullmatch(wanted):
        raise Invalid(
            "code_invalid", "A code has 4 to 64 letters, digits and hyphens.", field="code",
            fix="Choose such a code, or leave it out to have one made up.",
        )  # fmt: skip
    return wanted


def _made_up() -> str:
    """31^16 possibilities: nobody guesses a voucher."""
    text = "".join(secrets.choice(_ALPHABET) for _ in range(16))
    return "-".join(text[n : n + 4] for n in range(0, 16, 4))


async def list_coupons(
    services: Services, actor: Actor, *, kind: CouponKind | None = None, before: str | None = None, limit: int = 20
) -> list[views.CouponView]:
    where = [access.visible(coupons, actor, "bss:coupon:list")]
    if kind is not None:
        where.append(coupons.c.kind == kind.value)
    async with services.db.begin() as tx:
        rows = await store.coupon_page(tx, where, before, limit)
        keys = [(AccountKind.VOUCHER, row.id, row.currency) for row in rows if row.kind == CouponKind.VOUCHER]
        left = await ledger.peek(tx, actor.account_id, keys)
    return [views.coupon(row, left.get((AccountKind.VOUCHER, row.id, row.currency))) for row in rows]


async def get_coupon(services: Services, actor: Actor, coupon_id: str) -> views.CouponView:
    async with services.db.begin() as tx:
        return await _coupon(tx, actor, "bss:coupon:get", coupon_id)


async def _coupon(tx: Tx, actor: Actor, action: str, coupon_id: str) -> views.CouponView:
    row = await store.coupon(tx, coupon_id, access.visible(coupons, actor, action))
    if row is None:
        raise not_found("coupon", coupon_id)
    key = (AccountKind.VOUCHER, row.id, row.currency or "")
    return views.coupon(row, (await ledger.peek(tx, actor.account_id, [key])).get(key))


async def disable_coupon(services: Services, actor: Actor, coupon_id: str) -> views.CouponView:
    """Nobody can use it from now on; what a voucher still holds stays in the books."""
    async with services.db.begin() as tx:
        before = await _coupon(tx, actor, "bss:coupon:get", coupon_id)
        access.require(actor, "bss:coupon:disable", resource=f"coupon:{coupon_id}")
        if await store.disable_coupon(tx, coupon_id, services.clock.now()):
            await audit.record(
                tx, services, actor, "bss:coupon:disable", "coupon", coupon_id, before={"code": before.code}
            )
        return await _coupon(tx, actor, "bss:coupon:get", coupon_id)


# --- policy ---------------------------------------------------------------------------------------------------------


async def get_policy(services: Services, actor: Actor) -> Policy:
    """How the account orders: who reviews unsubscriptions, when unpaid orders lapse, how much may be owed."""
    access.require(actor, "bss:setting:get")
    async with services.db.read() as tx:
        return await store.policy(tx, actor.account_id)


async def set_policy(
    services: Services,
    actor: Actor,
    *,
    revision: int,
    review: Review | None = None,
    unpaid_days: int | None = None,
    invoice_limits: Mapping[str, Decimal] | None = None,
) -> Policy:
    """Change what is given. Raises Stale."""
    access.require(actor, "bss:setting:update")
    if unpaid_days is not None and not 1 <= unpaid_days <= 90:
        raise Invalid(
            "unpaid_days_invalid", "Unpaid orders lapse after 1 to 90 days.", field="unpaid_days", fix="Correct it."
        )
    for currency, limit in (invoice_limits or {}).items():
        Money.of(limit, currency, field="invoice_limits")
        if limit < 0:
            raise Invalid(
                "amount_not_positive", "The amount must be more than zero.", field="invoice_limits",
                fix="Leave the currency out to buy nothing on invoice in it.",
            )  # fmt: skip
    async with services.db.begin() as tx:
        old = await store.policy(tx, actor.account_id)
        wanted = Policy(
            review if review is not None else old.review,
            unpaid_days if unpaid_days is not None else old.unpaid_days,
            dict(invoice_limits) if invoice_limits is not None else old.invoice_limits,
            revision + 1,
        )
        if old.revision != revision or not await store.set_policy(
            tx, actor.account_id, wanted, revision, services.clock.now()
        ):
            raise Stale("changed_meanwhile", "The settings were changed since you read them.", fix="Read them again.")
        await audit.record(
            tx, services, actor, "bss:setting:update", "billing-policy", actor.account_id,
            before=_policy_json(old), after=_policy_json(wanted),
        )  # fmt: skip
    return wanted


def _policy_json(policy: Policy) -> dict[str, object]:
    return {
        "review": policy.review.value,
        "unpaid_days": policy.unpaid_days,
        "invoice_limits": {currency: str(limit) for currency, limit in (policy.invoice_limits or {}).items()},
    }
