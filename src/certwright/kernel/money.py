"""Money: an exact number of the currency's smallest unit, with its ISO 4217 currency.

Sums, differences and whole multiples are exact. The only operation that rounds is `share`, and it says how. Two
currencies never meet: that is a mistake in our code, so it raises `MixedCurrencies` and not a problem for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from enum import StrEnum
from functools import total_ordering

from certwright.kernel.problems import Invalid

# ISO 4217 active codes by the number of their decimal places; funds and metals are no money to pay with.
_CODES = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    2: "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP "
    "CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR "
    "IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN "
    "NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP "
    "STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD YER ZAR ZMW",
}
_DIGITS = {code: digits for digits, codes in _CODES.items() for code in codes.split()}

MOST_UNITS = 10**13
"""No amount is larger than this many whole units of its currency: what a numeric(18,4) column holds, with room."""

_AMOUNT = re.compile(r"-?[0-9]{1,14}(\.[0-9]{1,4})?")


class MixedCurrencies(ValueError):
    """Amounts of two currencies were added or compared."""


class Rounding(StrEnum):
    """What happens to a part of the smallest unit."""

    HALF_UP = "half_up"
    """To the nearest unit, halves away from zero: what invoices customarily do."""
    DOWN = "down"
    """Towards zero."""


def digits_of(currency: str) -> int:
    """Decimal places of a currency. Raises Invalid `currency_unknown`."""
    found = _DIGITS.get(currency)
    if found is None:
        raise Invalid(
            "currency_unknown", f"There is no currency {currency[:10]!r}.", field="currency",
            fix="Use an ISO 4217 code such as EUR.",
        )  # fmt: skip
    return found


@total_ordering
@dataclass(frozen=True, slots=True)
class Money:
    """`minor` counts the smallest unit: Money(1999, "EUR") is 19.99 euros."""

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if abs(self.minor) > MOST_UNITS * 10 ** digits_of(self.currency):
            raise Invalid(
                "amount_too_large", "The amount is larger than can be booked.", field="amount",
                fix="Divide it into several smaller ones.",
            )  # fmt: skip

    @classmethod
    def zero(cls, currency: str) -> Money:
        return cls(0, currency)

    @classmethod
    def of(cls, amount: str | Decimal | int, currency: str, *, field: str = "amount") -> Money:
        """An amount as people write it, `"19.99"`. Never rounds.

        Raises Invalid `amount_invalid` for what is no number, and for more decimal places than the currency has.
        """
        digits = digits_of(currency)
        text = format(amount, "f") if isinstance(amount, Decimal) else str(amount)
        whole, _, part = text.partition(".")
        part = part.rstrip("0") if isinstance(amount, Decimal) else part
        plain = f"{whole}.{part}" if part else whole
        if not _AMOUNT.fullmatch(plain):
            raise Invalid(
                "amount_invalid", f"{text[:40]!r} is not an amount.", field=field, fix="Write it as 19.99 or 1200."
            )
        if len(part) > digits:
            raise Invalid(
                "amount_too_fine", f"{currency} has {digits} decimal places, {text[:40]} has more.", field=field,
                fix="Round the amount.",
            )  # fmt: skip
        sign = -1 if whole.startswith("-") else 1
        return cls(sign * int(whole.lstrip("-") + part.ljust(digits, "0")), currency)

    @property
    def amount(self) -> Decimal:
        """The same as a decimal with all places of the currency: `Decimal("19.90")`."""
        return Decimal(self.text)

    @property
    def text(self) -> str:
        """`19.90`, `-0.05`, `1200`."""
        digits = digits_of(self.currency)
        number = str(abs(self.minor)).rjust(digits + 1, "0")
        shown = f"{number[:-digits]}.{number[-digits:]}" if digits else number
        return f"-{shown}" if self.minor < 0 else shown

    def as_dict(self) -> dict[str, str]:
        return {"amount": self.text, "currency": self.currency}

    def share(self, percent: Decimal, rounding: Rounding) -> Money:
        """So many percent of it, rounded to the smallest unit."""
        with localcontext() as context:
            # Far more than 18 digits times a percentage need: only the last step below rounds.
            context.prec = 60
            exact = self.minor * percent / 100
            if rounding is Rounding.HALF_UP:
                return Money(int(exact.to_integral_value(ROUND_HALF_UP)), self.currency)
            return Money(int(exact), self.currency)

    def split(self, parts: int) -> tuple[Money, ...]:
        """So many parts that differ by at most one smallest unit and sum up to it exactly, larger ones first."""
        if parts < 1:
            raise ValueError("an amount is split into one part at least")
        each, rest = divmod(abs(self.minor), parts)
        sign = -1 if self.minor < 0 else 1
        return tuple(Money(sign * (each + (1 if n < rest else 0)), self.currency) for n in range(parts))

    def _same(self, other: Money) -> int:
        if self.currency != other.currency:
            raise MixedCurrencies(f"{self.currency} and {other.currency}")
        return other.minor

    def __add__(self, other: Money) -> Money:
        return Money(self.minor + self._same(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor - self._same(other), self.currency)

    def __neg__(self) -> Money:
        return Money(-self.minor, self.currency)

    def __mul__(self, times: int) -> Money:
        if not isinstance(times, int) or isinstance(times, bool):
            raise TypeError("money is multiplied by whole numbers; a share of it is taken with `share`")
        return Money(self.minor * times, self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.minor < self._same(other)

    def __bool__(self) -> bool:
        return self.minor != 0

    def __str__(self) -> str:
        return f"{self.text} {self.currency}"


def total(amounts: Iterable[Money], currency: str) -> Money:
    """The sum, zero of `currency` for nothing."""
    result = Money.zero(currency)
    for amount in amounts:
        result = result + amount
    return result
