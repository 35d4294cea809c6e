"""When to remind and to try again, and what an address may look like."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid
from certwright.rooms.notify import rules

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def days_left(life_days: float) -> list[float]:
    end = START + life_days * DAY
    return [round((end - step.at) / DAY, 2) for step in rules.steps_of(START, end)]


@pytest.mark.parametrize(
    ("life", "expected"),
    [
        (199, [60, 30, 7, 3, 1, 0]),
        (100, [60, 30, 7, 3, 1, 0]),
        (99, [32.67, 14.85, 4.95, 0]),
        (47, [15.51, 7.05, 2.35, 0]),
        (6, [1.98, 0.9, 0.3, 0]),
    ],
)
def test_reminders_come_at_these_days_before_the_end(life: float, expected: list[float]) -> None:
    assert days_left(life) == expected


def test_only_the_first_of_a_short_life_speaks_of_renewal() -> None:
    short = rules.steps_of(START, START + 47 * DAY)
    long = rules.steps_of(START, START + 199 * DAY)
    assert [step.first_of_short_life for step in short] == [True, False, False, False]
    assert not any(step.first_of_short_life for step in long)


def test_of_several_reminders_due_at_once_the_latest_is_sent() -> None:
    end = START + 199 * DAY
    steps = rules.steps_of(START, end)
    plan = rules.plan(steps, {"days-60"}, end - 5 * DAY)
    assert plan.send is not None
    assert (plan.send.name, [step.name for step in plan.skip]) == ("days-7", ["days-30"])
    assert plan.wait == 2 * DAY


def test_after_the_last_reminder_there_is_nothing_to_wait_for() -> None:
    end = START + 199 * DAY
    names = {step.name for step in rules.steps_of(START, end)}
    plan = rules.plan(rules.steps_of(START, end), names, end + DAY)
    assert (plan.send, plan.skip, plan.wait) == (None, (), None)


@given(
    life=st.integers(1, 400),
    moments=st.lists(st.floats(-10, 410, allow_nan=False), max_size=30),
)
def test_however_the_clock_jumps_no_reminder_is_sent_twice_or_after_a_later_one(
    life: int, moments: list[float]
) -> None:
    end = START + life * DAY
    steps = rules.steps_of(START, end)
    order = [step.name for step in steps]
    done: set[str] = set()
    sent: list[str] = []
    for moment in moments:
        plan = rules.plan(steps, done, START + moment * DAY)
        done |= {step.name for step in plan.skip}
        if plan.send is not None:
            assert plan.send.name not in done
            done.add(plan.send.name)
            sent.append(plan.send.name)
    assert len(sent) == len(set(sent))
    assert [order.index(name) for name in sent] == sorted(order.index(name) for name in sent)


@pytest.mark.parametrize(("attempts", "minutes"), [(1, 1), (2, 2), (3, 4), (7, 64), (8, 120), (50, 120), (10_000, 120)])
def test_pauses_double_up_to_two_hours(attempts: int, minutes: int) -> None:
    assert rules.retry_after(attempts, timedelta(hours=1)) == timedelta(minutes=minutes)


def test_after_four_days_a_message_is_given_up() -> None:
    assert rules.retry_after(3, timedelta(days=4)) is None
    assert rules.retry_after(3, timedelta(days=4, seconds=-1)) is not None


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" ann@example.com ", "ann@example.com"),
        ("Ann.O'Hara+certs@Example.COM", "Ann.O'Hara+certs@example.com"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
    ],
)
def test_addresses_that_are_taken(typed: str, kept: str) -> None:
    assert rules.email_address(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "", "ann", "ann@", "@example.com", "ann@example", "a b@example.com", "ann@example.com\nBcc: all@example.com",
        "ann\r\n@example.com", '"ann"@example.com', "ann@[192.0.2.7]", "<ann@example.com>",
        "ann@example.com,bob@example.com",
        ".ann@example.com", "ann.@example.com", "a..b@example.com", "ann@*.example.com", "änn@example.com",
        "a" * 65 + "@example.com", "ann@" + "a." * 130 + "com",
    ],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_addresses_that_are_refused(typed: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.email_address(typed)
    assert (caught.value.code, caught.value.field) == ("email_invalid", "email")


@given(st.text(max_size=300))
def test_whatever_is_taken_as_an_address_is_nothing_but_an_address(text: str) -> None:
    try:
        address = rules.email_address(text)
    except Invalid:
        return
    assert address.isascii()
    assert address.isprintable()
    assert address.count("@") == 1
    assert not set(address) & set(' <>,;:"()[]\\')
    assert rules.email_address(address) == address


@given(st.text(max_size=400))
def test_one_line_is_one_line(text: str) -> None:
    line = rules.one_line(text)
    assert line.isprintable()
    assert len(line) <= 200
