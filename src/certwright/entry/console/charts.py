"""Charts drawn on the server: numbers in, bars out. The templates make SVG of them, sized by the style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Bar:
    """One week of the expiry chart. `height` is 0–100; `first` and `last` are the days it covers, both inclusive."""

    first: date
    last: date
    count: int
    height: float
    tone: str

    @property
    def top(self) -> float:
        return 100 - self.height


def expiry_bars(per_day: Sequence[tuple[date, int]], today: date, *, weeks: int = 14) -> tuple[Bar, ...]:
    """Certificates that run out per week, beginning with the week of `today`.

    Weeks within a week from now are `gone`-coloured, within 30 days `soon`, later `calm`. A week with any
    certificate is never drawn lower than a visible stub.
    """
    counts = [0] * weeks
    for day, count in per_day:
        index = (day - today).days // 7
        if 0 <= index < weeks:
            counts[index] += count
    most = max([*counts, 1])
    bars = []
    for index, count in enumerate(counts):
        first = today + timedelta(days=7 * index)
        tone = "gone" if index == 0 else "soon" if 7 * index <= 30 else "calm"
        height = max(4.0, round(100 * count / most, 1)) if count else 0.0
        bars.append(Bar(first, first + timedelta(days=6), count, height, tone))
    return tuple(bars)


@dataclass(frozen=True, slots=True)
class Validity:
    """A certificate's life as shares of 100: how much is spent and where renewal falls (None: not renewed)."""

    spent: float
    renewal: float | None
    tone: str


def validity(
    not_before: datetime, not_after: datetime, now: datetime, *, renew_at: datetime | None, soon: bool
) -> Validity:
    """`tone` is bad once expired, warn while `soon`, else ok."""
    life = max((not_after - not_before).total_seconds(), 1.0)

    def share(at: datetime) -> float:
        return round(min(max((at - not_before).total_seconds() / life, 0.0), 1.0) * 100, 2)

    tone = "bad" if now >= not_after else "warn" if soon else "ok"
    return Validity(share(now), share(renew_at) if renew_at is not None else None, tone)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time as shares of 100 of a longer one."""

    start: float
    width: float
    begins: datetime
    ends: datetime


def segment(starts: datetime, ends: datetime, begins: datetime, until: datetime) -> Segment:
    """Where `begins` to `until` lies within `starts` to `ends`; what sticks out is cut off."""
    whole = max((ends - starts).total_seconds(), 1.0)

    def share(at: datetime) -> float:
        return min(max((at - starts).total_seconds() / whole, 0.0), 1.0) * 100

    return Segment(round(share(begins), 2), round(share(until) - share(begins), 2), begins, until)
