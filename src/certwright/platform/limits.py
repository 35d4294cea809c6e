"""How often an account may have this server look at something outside, on demand.

Kept in the process and not in the database: what is protected is this process's sockets and the strangers it asks,
and a check must not cost a write. Several web processes allow as many times the rate, which does no harm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime

from certwright.kernel.problems import TooMany

_MOST_ACCOUNTS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, then `per_second`."""

    burst: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens left at a moment."""

    tokens: float
    at: datetime


CHECKS = Rate(burst=60, per_second=1.0)


def take(bucket: Bucket | None, rate: Rate, now: datetime) -> tuple[Bucket, int]:
    """The bucket after taking a token, and 0; or as it is, and the whole seconds until there is one.

    A clock set back fills nothing, and from then on counts from where it is.
    """
    tokens = float(rate.burst)
    if bucket is not None:
        passed = max((now - bucket.at).total_seconds(), 0.0)
        tokens = min(tokens, bucket.tokens + passed * rate.per_second)
    if tokens >= 1:
        return Bucket(tokens - 1, now), 0
    return Bucket(tokens, now), math.ceil((1 - tokens) / rate.per_second)


@dataclass
class CheckLimit:
    """The buckets of one process, by account; plugged into Services.ports by the entry."""

    rate: Rate = CHECKS
    buckets: dict[str, Bucket] = field(default_factory=dict)

    def take(self, account_id: str, now: datetime) -> None:
        """Raises TooMany `checks_throttled` with `retry_after` in seconds."""
        if len(self.buckets) >= _MOST_ACCOUNTS:
            self.buckets.clear()
        self.buckets[account_id], seconds = take(self.buckets.get(account_id), self.rate, now)
        if seconds:
            raise TooMany(
                "checks_throttled", f"Too many checks were asked for; the next one is possible in {seconds} s.",
                fix="Wait; what is pending is looked at without being asked, too.", extra={"retry_after": seconds},
            )  # fmt: skip
