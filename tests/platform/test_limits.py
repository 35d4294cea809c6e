"""How often an account may have this server look outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import TooMany
from certwright.platform.limits import Bucket, CheckLimit, Rate, take

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_burst_is_allowed_then_one_at_a_time_and_other_accounts_are_not_touched() -> None:
    limit = CheckLimit(Rate(burst=3, per_second=0.5))
    for _ in range(3):
        limit.take("a", NOW)
    with pytest.raises(TooMany) as caught:
        limit.take("a", NOW)
    assert (caught.value.code, caught.value.extra) == ("checks_throttled", {"retry_after": 2})
    limit.take("b", NOW)
    limit.take("a", NOW + timedelta(seconds=2))
    with pytest.raises(TooMany):
        limit.take("a", NOW + timedelta(seconds=3))


def test_a_clock_set_back_gives_nothing_and_locks_nobody_out() -> None:
    rate = Rate(burst=1, per_second=1)
    bucket, _ = take(None, rate, NOW)
    bucket, seconds = take(bucket, rate, NOW - timedelta(days=1))
    assert seconds == 1
    assert take(bucket, rate, NOW - timedelta(days=1) + timedelta(seconds=1))[1] == 0


@given(
    st.integers(1, 20), st.floats(0.05, 20), st.lists(st.floats(0, 30), min_size=1, max_size=60),
)  # fmt: skip
def test_no_stretch_of_time_gets_more_than_burst_and_rate_together(
    burst: int, per_second: float, pauses: list[float]
) -> None:
    rate, bucket, now = Rate(burst, per_second), None, NOW
    taken: list[datetime] = []
    for pause in pauses:
        now += timedelta(seconds=pause)
        bucket, seconds = take(bucket, rate, now)
        assert 0 <= bucket.tokens <= burst
        if seconds == 0:
            taken.append(now)
        else:
            # Whoever waits as long as told gets through.
            assert take(bucket, rate, now + timedelta(seconds=seconds))[1] == 0
    for start in range(len(taken)):
        for end in range(start, len(taken)):
            stretch = (taken[end] - taken[start]).total_seconds()
            assert end - start + 1 <= burst + stretch * per_second + 1e-6


def test_a_bucket_never_holds_more_than_a_burst() -> None:
    bucket, _ = take(Bucket(0, NOW), Rate(5, 1), NOW + timedelta(days=9))
    assert bucket.tokens == 4
