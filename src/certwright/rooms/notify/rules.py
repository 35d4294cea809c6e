"""When to remind, when to try again, what an address may look like. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from certwright.kernel.problems import Invalid
from certwright.rooms import accounts
from certwright.rooms.notify.words import NoticePlan, NoticeStep

_SHORT_LIFE = timedelta(days=100)
_STEPS_DAYS = (60, 30, 7, 3, 1, 0)
_STEPS_FRACTION_LEFT = (0.33, 0.15, 0.05, 0.0)

# RFC 5321 4.5.4.1 lets a sender give up after four to five days; an alarm older than that helps nobody.
GIVE_UP_AFTER = timedelta(days=4)
_FIRST_PAUSE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(hours=2)

CODE_TRIES = 5
CODE_LIFE = timedelta(days=1)


def steps_of(not_before: datetime, not_after: datetime) -> tuple[NoticeStep, ...]:
    """The reminders of a version's life, earliest first: by days, or by fractions of lives under 100 days."""
    life = not_after - not_before
    if life < _SHORT_LIFE:
        return tuple(
            NoticeStep(f"left-{round(part * 100)}%", not_after - life * part, first_of_short_life=at == 0)
            for at, part in enumerate(_STEPS_FRACTION_LEFT)
        )
    return tuple(NoticeStep(f"days-{days}", not_after - timedelta(days=days)) for days in _STEPS_DAYS)


def plan(steps: Sequence[NoticeStep], done: Collection[str], now: datetime) -> NoticePlan:
    """What to send now. Of several that are due at once only the latest goes out: after a stop or a jump of the clock
    one message says where things stand."""
    passed = [step for step in steps if step.at <= now]
    due = [step for step in passed if step.name not in done]
    # A reminder that was sent stands for all before it, even if the clock was set back and forth in between.
    if passed and passed[-1].name in done:
        due = []
    coming = [step.at for step in steps if step.at > now]
    return NoticePlan(
        send=due[-1] if due else None,
        skip=tuple(due[:-1]),
        wait=min(coming) - now if coming else None,
    )


def retry_after(attempts: int, age: timedelta) -> timedelta | None:
    """How long to wait after the nth failed attempt (from 1): 1, 2, 4 … 120 minutes; None when it is too old."""
    if age >= GIVE_UP_AFTER:
        return None
    doublings = min(max(attempts, 1) - 1, 10)
    return min(_FIRST_PAUSE * (1 << doublings), _LONGEST_PAUSE)


def email_address(text: str, *, field: str = "email") -> str:
    """A deliverable address with its domain in A-labels; raises Invalid `email_invalid`."""
    address = accounts.rules.deliverable_address(text)
    if address is None:
        raise Invalid(
            "email_invalid",
            f"{text.strip()[:80]!r} is not an e-mail address that messages can be sent to.",
            field=field,
            fix="Enter an address such as ann@example.com.",
        )
    return address


def display_name(text: str, *, field: str = "name") -> str:
    """A name for people: 1 to 100 characters, none of them a control character. Raises Invalid `name_invalid`."""
    name = " ".join(text.split())
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise Invalid(
            "name_invalid", "The name must have 1 to 100 visible characters.", field=field,
            fix="Enter the name of a person or a team.",
        )  # fmt: skip
    return name


def one_line(text: str, *, limit: int = 200) -> str:
    """Text fit for a header: no line break, no control character, not longer than `limit`."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
