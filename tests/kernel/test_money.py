"""Money is exact, never mixes currencies, and rounds only where it says so."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.money import MOST_UNITS, MixedCurrencies, Money, Rounding, digits_of, total
from certwright.kernel.problems import Invalid

CURRENCIES = st.sampled_from(["EUR", "JPY", "KWD"])
MINORS = st.integers(-(10**12), 10**12)


@st.composite
def moneys(draw: st.DrawFn, currency: str | None = None) -> Money:
    return Money(draw(MINORS), currency or draw(CURRENCIES))


@pytest.mark.parametrize(
    ("typed", "currency", "minor"),
    [
        ("19.99", "EUR", 1999),
        ("19.9", "EUR", 1990),
        ("1200", "JPY", 1200),
        ("0.001", "KWD", 1),
        ("-0.05", "EUR", -5),
        (Decimal("19.9900"), "EUR", 1999),
        (Decimal("1E+3"), "JPY", 1000),
        (7, "EUR", 700),
    ],
)
def test_an_amount_is_read_exactly(typed: str | Decimal | int, currency: str, minor: int) -> None:
    assert Money.of(typed, currency) == Money(minor, currency)


@pytest.mark.parametrize(
    ("typed", "currency", "code"),
    [
        ("19.999", "EUR", "amount_too_fine"),
        ("1.5", "JPY", "amount_too_fine"),
        (Decimal("0.0001"), "KWD", "amount_too_fine"),
        ("1e3", "EUR", "amount_invalid"),
        ("NaN", "EUR", "amount_invalid"),
        (Decimal("Infinity"), "EUR", "amount_invalid"),
        ("1,50", "EUR", "amount_invalid"),
        ("", "EUR", "amount_invalid"),
        ("--1", "EUR", "amount_invalid"),
        ("１２", "EUR", "amount_invalid"),
        ("1", "XXX", "currency_unknown"),
        ("1", "eur", "currency_unknown"),
        (str(MOST_UNITS + 1), "EUR", "amount_too_large"),
    ],
)
def test_what_is_no_amount_of_the_currency_is_refused(typed: str | Decimal, currency: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        Money.of(typed, currency)
    assert refused.value.code == code


@given(money=moneys())
def test_text_and_decimal_bring_the_same_money_back(money: Money) -> None:
    assert Money.of(money.text, money.currency) == money
    assert Money.of(money.amount, money.currency) == money
    assert Money.of(**money.as_dict()) == money


@given(data=st.data(), currency=CURRENCIES)
def test_sums_don_t_depend_on_order_and_differences_undo_them(data: st.DataObject, currency: str) -> None:
    a, b, c = (data.draw(moneys(currency)) for _ in range(3))
    assert total([a, b, c], currency) == total([c, a, b], currency)
    assert a + b - b == a
    assert a + -a == Money.zero(currency)
    assert (a < b) == (a.amount < b.amount)


@given(a=moneys("EUR"), b=moneys("JPY"))
def test_two_currencies_never_meet(a: Money, b: Money) -> None:
    for mixing in (lambda: a + b, lambda: a - b, lambda: a < b, lambda: total([a, b], "EUR")):
        with pytest.raises(MixedCurrencies):
            mixing()
    assert a != b


@given(money=moneys(), parts=st.integers(1, 60))
def test_a_split_loses_and_makes_nothing(money: Money, parts: int) -> None:
    found = money.split(parts)
    assert len(found) == parts
    assert total(found, money.currency) == money
    assert max(f.minor for f in found) - min(f.minor for f in found) <= 1


@given(money=moneys(), percent=st.decimals(0, 100, places=2))
def test_a_share_is_at_most_half_a_unit_off_and_down_is_towards_zero(money: Money, percent: Decimal) -> None:
    exact = Decimal(money.minor) * percent / 100
    assert abs(money.share(percent, Rounding.HALF_UP).minor - exact) <= Decimal("0.5")
    down = money.share(percent, Rounding.DOWN).minor
    assert abs(down) <= abs(exact) < abs(down) + 1


@pytest.mark.parametrize(
    ("minor", "percent", "rounding", "share"),
    [
        (5, "10", Rounding.HALF_UP, 1),
        (-5, "10", Rounding.HALF_UP, -1),
        (4, "10", Rounding.HALF_UP, 0),
        (5, "10", Rounding.DOWN, 0),
        (19, "10", Rounding.DOWN, 1),
        (MOST_UNITS * 100, "99.99", Rounding.HALF_UP, 999_900_000_000_000),
    ],
)
def test_rounding_is_what_it_says(minor: int, percent: str, rounding: Rounding, share: int) -> None:
    assert Money(minor, "EUR").share(Decimal(percent), rounding).minor == share


def test_money_is_multiplied_by_whole_numbers_only_and_not_beyond_what_can_be_booked() -> None:
    assert Money(3, "EUR") * 4 == Money(12, "EUR")
    for wrong in (1.5, True, Decimal(2)):
        with pytest.raises(TypeError):
            Money(3, "EUR") * wrong  # type: ignore[operator]
    with pytest.raises(Invalid) as refused:
        Money(MOST_UNITS * 100, "EUR") * 2
    assert refused.value.code == "amount_too_large"


@pytest.mark.parametrize(("currency", "digits"), [("EUR", 2), ("USD", 2), ("CNY", 2), ("JPY", 0), ("BHD", 3)])
def test_currencies_have_the_decimal_places_of_iso_4217(currency: str, digits: int) -> None:
    assert digits_of(currency) == digits
