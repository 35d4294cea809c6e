"""Numbers in, bars out."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.entry.console.charts import expiry_bars, validity

TODAY = date(2026, 11, 21)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=90)


def test_every_certificate_is_counted_in_its_week() -> None:
    bars = expiry_bars(
        [(TODAY, 1), (TODAY + timedelta(days=6), 2), (TODAY + timedelta(days=7), 5), (TODAY + timedelta(days=400), 9)],
        TODAY,
        weeks=14,
    )
    assert [bar.count for bar in bars[:3]] == [3, 5, 0]
    assert sum(bar.count for bar in bars) == 8
    assert bars[1].first == TODAY + timedelta(days=7)
    assert bars[1].last == TODAY + timedelta(days=13)


def test_the_highest_week_fills_the_chart_and_a_low_one_is_still_seen() -> None:
    bars = expiry_bars([(TODAY, 1000), (TODAY + timedelta(days=8), 1)], TODAY)
    assert bars[0].height == 100
    assert bars[1].height == 4
    assert bars[2].height == 0


@given(st.lists(st.tuples(st.integers(-100, 400), st.integers(0, 10**6)), max_size=30))
def test_bars_stay_inside_the_chart(days: list[tuple[int, int]]) -> None:
    for bar in expiry_bars([(TODAY + timedelta(days=n), count) for n, count in days], TODAY):
        assert 0 <= bar.height <= 100
        assert bar.top == 100 - bar.height
        assert (bar.height > 0) == (bar.count > 0)


@pytest.mark.parametrize(
    ("now", "spent", "tone"),
    [
        (BEGIN - timedelta(days=1), 0, "ok"),
        (BEGIN, 0, "ok"),
        (BEGIN + timedelta(days=45), 50, "ok"),
        (END - timedelta(seconds=1), 100, "ok"),
        (END, 100, "bad"),
        (END + timedelta(days=300), 100, "bad"),
    ],
)
def test_the_validity_bar_shows_the_share_of_life_spent(now: datetime, spent: float, tone: str) -> None:
    life = validity(BEGIN, END, now, renew_at=BEGIN + timedelta(days=60), soon=False)
    assert life.spent == pytest.approx(spent, abs=0.01)
    assert life.renewal == pytest.approx(66.67, abs=0.01)
    assert life.tone == tone


def test_a_certificate_about_to_run_out_is_shown_in_warning_colour() -> None:
    assert validity(BEGIN, END, END - timedelta(days=9), renew_at=None, soon=True).tone == "warn"
