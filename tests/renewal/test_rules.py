"""When a version is renewed, how fast, and what a mass replacement does next: each case is a sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, InvalidFields
from certwright.rooms.certificates import RenewalWindow, Standing, State, renew_at
from certwright.rooms.renewal import rules
from certwright.rooms.renewal.rules import ItemFacts, Move, why_renew
from certwright.rooms.renewal.words import Bucket, Criteria, Freeze, ItemState, Window

DUE = datetime(2027, 1, 20, tzinfo=UTC)
END = DUE + timedelta(days=30)
SECOND = timedelta(seconds=1)
BERLIN = "Europe/Berlin"
EVERY_DAY = frozenset(range(7))
STANDING = Standing(
    certificate_id="cert_1", account_id="acc_1", project_id="prj_1", name="shop", primary_name="a.example",
    names=("a.example", "b.example"), state=State.ISSUED, ca="first", uploaded=False, has_key=True, auto_renew=True,
    key_algorithm="EC_P256", version_id="ver_1", issuer="CN=First", not_before=END - timedelta(days=90),
    not_after=END, issued_at=END - timedelta(days=90), bought=False, coverage_ends_at=None, application_id="app_1",
    validation_method="file", per_name_methods={},
)  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("state", "auto_renew", "now", "renew", "look_again"),
    [
        pytest.param(State.ISSUED, True, DUE, True, None, id="issued and due"),
        pytest.param(State.ISSUED, True, DUE - SECOND, False, SECOND, id="a second too early"),
        pytest.param(State.ISSUED, True, END - SECOND, True, None, id="a second before the end"),
        pytest.param(State.EXPIRED, True, END, False, None, id="over"),
        pytest.param(State.ISSUED, False, DUE, False, None, id="switched off"),
        pytest.param(State.REVOKED, True, DUE, False, None, id="revoked"),
        pytest.param(State.VERIFYING_REVOCATION, True, DUE, False, None, id="being revoked"),
        pytest.param(State.VERIFYING_REISSUE, True, DUE, False, timedelta(minutes=10), id="a reissue is under way"),
    ],
)
def test_a_version_is_renewed_only_when_issued_due_and_alive(
    state: State, auto_renew: bool, now: datetime, renew: bool, look_again: timedelta | None
) -> None:
    verdict = why_renew(auto_renew=auto_renew, state=state, renew_at=DUE, not_after=END, now=now)
    assert (verdict.renew, verdict.look_again) == (renew, look_again)
    assert verdict.reason


# --- the CA's window -------------------------------------------------------------------------------------------------


def window(start: timedelta, end: timedelta) -> RenewalWindow:
    return RenewalWindow(DUE + start, DUE + end, None, timedelta(hours=6))


@pytest.mark.parametrize(
    ("start", "end", "place", "due", "need_by"),
    [
        pytest.param(timedelta(0), timedelta(days=2), 0.0, timedelta(0), timedelta(days=2), id="at its beginning"),
        pytest.param(timedelta(0), timedelta(days=2), 0.5, timedelta(days=1), timedelta(days=2), id="in its middle"),
        pytest.param(-timedelta(days=4), -timedelta(days=2), 0.5, -timedelta(days=3), -timedelta(days=2),
                     id="moved to the past: overdue, and past its last safe moment"),
        pytest.param(timedelta(days=20), timedelta(days=28), 0.5, timedelta(days=15), timedelta(days=22.5),
                     id="later than is safe: not waited for"),
        pytest.param(timedelta(0), timedelta(days=28), 0.0, timedelta(0), timedelta(days=15),
                     id="a long window: half of what is left is the last safe moment"),
    ],
)  # fmt: skip
def test_a_moment_is_taken_in_the_cas_window(
    start: timedelta, end: timedelta, place: float, due: timedelta, need_by: timedelta
) -> None:
    found = rules.by_window(window(start, end), place, DUE, END, DUE - timedelta(days=60))
    assert (found.at - DUE, found.need_by - DUE) == (due, need_by)


def test_a_version_is_not_replaced_while_it_is_fresh_however_late_the_ca_calls_it() -> None:
    """Else a CA that is wrong about every new version would have it replaced without end."""
    past = window(-timedelta(days=4), -timedelta(days=2))
    assert rules.by_window(past, 0.5, DUE, END, DUE).at == DUE + timedelta(hours=6)
    assert rules.by_window(past, 0.5, DUE, DUE + timedelta(hours=20), DUE).at == DUE + timedelta(hours=2)


@given(place=st.floats(0, 1, exclude_max=True), start=st.integers(-9000, 9000), length=st.integers(1, 9000))
def test_the_moment_lies_in_the_window_unless_that_is_too_late(place: float, start: int, length: int) -> None:
    wished = window(timedelta(minutes=start), timedelta(minutes=start + length))
    found = rules.by_window(wished, place, DUE, END, DUE - timedelta(days=60))
    latest = rules.by_fraction(DUE, END).need_by
    assert found.at == latest or wished.start <= found.at <= wished.end
    assert found.at <= found.need_by < END


@given(life=st.timedeltas(timedelta(hours=1), timedelta(days=400)), version=st.text("0123456789abcdef", min_size=1))
def test_a_version_is_due_after_its_fraction_by_a_hundredth_of_its_life_and_twelve_hours_at_most(
    life: timedelta, version: str
) -> None:
    plain = renew_at(DUE, DUE + life)
    due = renew_at(DUE, DUE + life, version)
    assert plain <= due <= plain + min(life / 100, timedelta(hours=12))
    assert due == renew_at(DUE, DUE + life, version)


def test_versions_issued_together_are_not_due_together() -> None:
    life = timedelta(days=90)
    hours = {
        (renew_at(DUE, DUE + life, f"ver_{n}") - renew_at(DUE, DUE + life)) // timedelta(hours=1) for n in range(200)
    }
    assert hours == set(range(12))


# --- windows and freezes ---------------------------------------------------------------------------------------------


def nights(zone: str = BERLIN, days: frozenset[int] = EVERY_DAY) -> Window:
    return Window(days, time(22), time(4), zone, "nights")


@pytest.mark.parametrize(
    ("when", "is_open"),
    [
        pytest.param("2026-06-01T21:59:59+02:00", False, id="a second before it begins"),
        pytest.param("2026-06-01T22:00:00+02:00", True, id="as it begins"),
        pytest.param("2026-06-02T03:59:59+02:00", True, id="past midnight, a second before its end"),
        pytest.param("2026-06-02T04:00:00+02:00", False, id="at its end"),
    ],
)
def test_a_window_over_midnight_ends_the_next_morning(when: str, is_open: bool) -> None:
    assert rules.is_open(nights(), at(when)) is is_open


def test_a_night_belongs_to_the_day_it_begins_on() -> None:
    friday = nights(days=frozenset({4}))
    assert rules.is_open(friday, at("2026-06-06T03:00:00+02:00"))  # a Saturday morning
    assert not rules.is_open(friday, at("2026-06-05T03:00:00+02:00"))
    assert rules.next_opening(friday, at("2026-06-06T04:00:00+02:00")) == at("2026-06-12T22:00:00+02:00")


@pytest.mark.parametrize(
    ("from_time", "to_time", "after", "opens"),
    [
        pytest.param(time(2, 15), time(5), "2026-03-29T00:00:00+01:00", "2026-03-29T03:00:00+02:00",
                     id="its beginning is skipped: it opens at the moment the clocks skip to"),
        pytest.param(time(2, 0), time(2, 30), "2026-03-29T00:00:00+01:00", "2026-03-30T02:00:00+02:00",
                     id="skipped wholly: the next day's"),
        pytest.param(time(2, 30), time(2, 45), "2026-10-25T00:00:00+02:00", "2026-10-25T02:30:00+02:00",
                     id="shown twice: the first time"),
        pytest.param(time(2, 30), time(2, 45), "2026-10-25T02:45:00+02:00", "2026-10-25T02:30:00+01:00",
                     id="shown twice: the second time"),
        pytest.param(time(3), time(3), "2026-03-28T03:00:00+01:00", "2026-03-28T03:00:00+01:00",
                     id="from three to three is the whole day"),
    ],
)  # fmt: skip
def test_wall_clocks_decide_on_the_days_they_are_changed(
    from_time: time, to_time: time, after: str, opens: str
) -> None:
    assert rules.next_opening(Window(EVERY_DAY, from_time, to_time, BERLIN), at(after)) == at(opens)


CHRISTMAS = Freeze(at("2026-12-20T00:00:00Z"), at("2027-01-07T00:00:00Z"), "Christmas trade")


@pytest.mark.parametrize(
    ("now", "windows", "freezes", "need_by", "when", "forced", "code"),
    [
        pytest.param("2026-06-01T12:00:00Z", [], [], "2026-07-01T00:00:00Z", "2026-06-01T12:00:00Z", False, "allowed",
                     id="with no window and no freeze: now"),
        pytest.param("2026-06-01T12:00:00Z", [nights("UTC")], [], "2026-07-01T00:00:00Z", "2026-06-01T22:00:00Z",
                     False, "outside_window", id="outside the window: at its next opening"),
        pytest.param("2026-06-01T12:00:00Z", [nights("UTC")], [], "2026-06-01T18:00:00Z", "2026-06-01T18:00:00Z",
                     True, "last_safe_moment", id="the last safe moment comes before the window: then"),
        pytest.param("2026-12-24T23:00:00Z", [nights("UTC")], [CHRISTMAS], "2027-02-01T00:00:00Z",
                     "2027-01-07T00:00:00Z", False, "frozen", id="frozen: when the freeze ends, inside the window"),
        pytest.param("2026-12-24T23:00:00Z", [], [CHRISTMAS], "2026-12-24T22:00:00Z", "2026-12-24T23:00:00Z", True,
                     "last_safe_moment", id="past the last safe moment: now, in spite of the freeze"),
        pytest.param("2026-06-01T12:00:00Z", [nights("UTC"), Window(EVERY_DAY, time(13), time(14), "UTC")], [],
                     "2026-07-01T00:00:00Z", "2026-06-01T13:00:00Z", False, "outside_window",
                     id="of two windows the one that opens first"),
    ],
)  # fmt: skip
def test_a_renewal_waits_for_its_window_but_not_past_its_last_safe_moment(
    now: str, windows: list[Window], freezes: list[Freeze], need_by: str, when: str, forced: bool, code: str
) -> None:
    allowed = rules.when_allowed(at(now), windows, freezes, at(need_by))
    assert (allowed.at, allowed.forced, allowed.code) == (at(when), forced, code)


def test_going_in_spite_of_a_freeze_says_which() -> None:
    allowed = rules.when_allowed(at("2026-12-24T00:00:00Z"), [], [CHRISTMAS], at("2026-12-23T00:00:00Z"))
    assert "Christmas trade" in allowed.reason


START = datetime(2026, 1, 1)  # noqa: DTZ001  # its zone is added
ZONES = st.sampled_from(
    ["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]
)
CLOCKS = st.times(max_value=time(23, 59)).map(lambda wall: wall.replace(second=0, microsecond=0))
WINDOWS = st.lists(st.builds(Window, st.frozensets(st.integers(0, 6), min_size=1), CLOCKS, CLOCKS, ZONES), max_size=3)
MOMENTS = st.datetimes(START, START + timedelta(days=1095)).map(lambda moment: moment.replace(tzinfo=UTC))
FREEZES = st.lists(
    st.builds(
        lambda start, length: Freeze(start, start + length, "no"), MOMENTS,
        st.timedeltas(timedelta(minutes=1), timedelta(days=40)),
    ),
    max_size=3,
)  # fmt: skip


def wall_says(window: Window, moment: datetime) -> bool:
    """An oracle that walks minute marks: is there a day it begins on whose hours hold what the clock shows?"""
    local = moment.astimezone(ZoneInfo(window.zone)).replace(tzinfo=None)
    for day in (local.date(), local.date() - timedelta(days=1)):
        begins = datetime.combine(day, window.from_time)
        ends = datetime.combine(day, window.to_time)
        if ends <= begins:
            ends += timedelta(days=1)
        if day.weekday() in window.weekdays and begins <= local < ends:
            return True
    return False


@hypothesis.settings(max_examples=400)
@given(now=MOMENTS, windows=WINDOWS, freezes=FREEZES, wait=st.timedeltas(timedelta(0), timedelta(days=60)))
def test_no_renewal_runs_outside_a_window_or_in_a_freeze_unless_forced_nor_later_than_is_safe(
    now: datetime, windows: list[Window], freezes: list[Freeze], wait: timedelta
) -> None:
    need_by = now + wait
    allowed = rules.when_allowed(now, windows, freezes, need_by)
    assert now <= allowed.at <= need_by
    free = not any(freeze.from_at <= allowed.at < freeze.to_at for freeze in freezes)
    inside = not windows or any(wall_says(window, allowed.at) for window in windows)
    assert allowed.forced or (free and inside)
    if allowed.forced:
        assert allowed.at == need_by
        assert not rules.when_allowed(now, windows, freezes, need_by).at < need_by


@hypothesis.settings(max_examples=200)
@given(now=MOMENTS, windows=WINDOWS.filter(bool))
def test_no_opening_before_the_next_one_is_passed_over(now: datetime, windows: list[Window]) -> None:
    """Looked at every five minutes for two days; only where clocks were put back may an opening be missed."""
    (window, *_) = windows
    opening = rules.next_opening(window, now)
    assert wall_says(window, opening)
    zone = ZoneInfo(window.zone)
    for minutes in range(0, 2880, 5):
        moment = now + timedelta(minutes=minutes)
        if moment >= opening:
            break
        put_back = moment.astimezone(zone).utcoffset() < now.astimezone(zone).utcoffset()  # type: ignore[operator]
        assert put_back or not wall_says(window, moment)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(Window(frozenset(), time(1), time(2), "UTC", "n"), "weekdays", id="on no day"),
        pytest.param(Window(frozenset({7}), time(1), time(2), "UTC", "n"), "weekdays", id="on an eighth day"),
        pytest.param(Window(EVERY_DAY, time(1), time(2), "Mars/Olympus", "n"), "zone", id="in no known zone"),
        pytest.param(Window(EVERY_DAY, time(1), time(2), "../../etc/passwd", "n"), "zone", id="in a path"),
        pytest.param(Window(EVERY_DAY, time(1), time(2), "UTC", ""), "name", id="without a name"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(wrong: Window, field: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        rules.judge_window(wrong)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(Freeze(DUE, DUE, "x"), "to", id="of no length"),
        pytest.param(Freeze(DUE - timedelta(days=9), DUE - timedelta(days=8), "x"), "to", id="in the past"),
        pytest.param(Freeze(DUE, DUE + timedelta(days=400), "x"), "to", id="for longer than a year"),
        pytest.param(Freeze(DUE, END, " "), "reason", id="without a reason"),
    ],
)
def test_a_freeze_that_makes_no_sense_is_refused(wrong: Freeze, field: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        rules.judge_freeze(wrong, DUE)
    assert caught.value.field == field


# --- the bucket ------------------------------------------------------------------------------------------------------


@hypothesis.settings(max_examples=200)
@given(
    per_minute=st.integers(1, 5000),
    percent=st.integers(0, 90),
    asks=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 6000)), min_size=1, max_size=40),
)
def test_no_minute_sees_more_than_the_rate(per_minute: int, percent: int, asks: list[tuple[float, int]]) -> None:
    bucket = Bucket(per_minute, percent, 0.0, DUE)
    bucket = Bucket(per_minute, percent, rules.capacity(bucket), DUE)
    taken: list[tuple[datetime, int]] = []
    now = DUE
    for pause, wanted in asks:
        now += timedelta(seconds=pause)
        held = rules.filled(bucket, now)
        got = min(int(held), wanted)
        taken.append((now, got))
        bucket = Bucket(per_minute, percent, held - got, now)
    for moment, _ in taken:
        within = sum(got for when, got in taken if moment <= when < moment + timedelta(minutes=1))
        assert within <= per_minute


@given(per_minute=st.integers(1, 5000), percent=st.integers(0, 90))
def test_ordinary_renewals_always_get_on(per_minute: int, percent: int) -> None:
    bucket = Bucket(per_minute, percent, 0.0, DUE)
    assert rules.capacity(bucket) - rules.reserve(bucket) >= 1
    wait = rules.until_token(bucket, 0.0, keep=rules.reserve(bucket))
    assert rules.filled(bucket, DUE + wait) - rules.reserve(bucket) >= 1 - 1e-6


def test_a_clock_that_is_set_back_fills_nothing() -> None:
    bucket = Bucket(60, 20, 2.5, DUE)
    assert rules.filled(bucket, DUE - timedelta(hours=1)) == 2.5


# --- mass replacement ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "uploaded", "has_key", "code", "item"),
    [
        pytest.param(State.ISSUED, False, True, "replaceable", ItemState.WAITING, id="issued, its key held here"),
        pytest.param(State.VERIFYING_REISSUE, False, True, "busy", ItemState.WAITING, id="in an operation: later"),
        pytest.param(State.ISSUED, False, False, "uploaded_csr", ItemState.EXCLUDED, id="its CSR was uploaded"),
        pytest.param(State.HOSTED, True, True, "uploaded", ItemState.EXCLUDED, id="uploaded"),
        pytest.param(State.REVOKED, False, True, "revoked", ItemState.EXCLUDED, id="revoked"),
        pytest.param(State.EXPIRED, False, True, "expired", ItemState.EXCLUDED, id="expired"),
        pytest.param(State.REFUND_REVIEW, False, True, "refund_review", ItemState.EXCLUDED, id="being given back"),
    ],
)
def test_what_can_be_replaced_from_here(
    state: State, uploaded: bool, has_key: bool, code: str, item: ItemState
) -> None:
    verdict = rules.replaceable(replace(STANDING, state=state, uploaded=uploaded, has_key=has_key))
    assert (verdict.code, verdict.state) == (code, item)


@pytest.mark.parametrize(
    ("before", "newest", "current", "state", "move"),
    [
        pytest.param("app_1", "app_1", "ver_1", State.ISSUED, Move.REISSUE, id="nothing was asked for yet: ask"),
        pytest.param("app_1", "app_2", "ver_1", State.VERIFYING_REISSUE, Move.ADOPT, id="asked for before the kill"),
        pytest.param("app_1", "app_2", "ver_1", State.ISSUED, Move.ADOPT, id="asked for, and failed already"),
        pytest.param("app_1", "app_2", "ver_2", State.ISSUED, Move.DONE, id="asked for, and issued already"),
        pytest.param("app_1", "app_1", "ver_1", State.VERIFYING_REISSUE, Move.LATER, id="busy since before"),
        pytest.param("app_1", "app_1", "ver_1", State.REVOKED, Move.OVER, id="revoked meanwhile"),
        pytest.param(None, None, "ver_1", State.ISSUED, Move.REISSUE, id="that never had an application"),
    ],
)
def test_an_item_is_reissued_once_however_often_its_step_runs(
    before: str | None, newest: str | None, current: str, state: State, move: str
) -> None:
    assert rules.next_move(ItemFacts("ver_1", before, newest, current, state)) == move


def test_failed_items_wait_longer_each_time_and_end() -> None:
    waits = [rules.item_retry(attempt) for attempt in range(1, 8)]
    assert waits[:5] == [timedelta(minutes=minutes) for minutes in (5, 10, 20, 40, 80)]
    assert waits[5:] == [None, None]


@pytest.mark.parametrize(
    ("left", "per_hour", "hours", "in_time"),
    [
        pytest.param({"builtin": 600}, 100, 6, True, id="the campaign's own rate is the narrower"),
        pytest.param({"builtin": 600, "eca_1": 600}, 10_000, 10, True, id="one CA's rate is the narrower"),
        pytest.param({"builtin": 2500}, 100, 25, False, id="it would end after the deadline"),
        pytest.param({}, 100, 0, True, id="nothing is left"),
    ],
)
def test_the_end_is_estimated_by_the_narrowest_rate(
    left: dict[str, int], per_hour: int, hours: float, in_time: bool
) -> None:
    found = rules.estimate(
        now=DUE, deadline=DUE + timedelta(hours=24), per_hour=per_hour, left=left,
        per_minute={"builtin": 600, "eca_1": 1},
    )  # fmt: skip
    assert found.ends_at - DUE == timedelta(hours=hours)
    assert found.in_time is in_time
    assert found.needed_per_hour == -(-sum(left.values()) // 24)


def test_a_campaign_that_names_nothing_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        rules.judge_criteria(Criteria())
    assert caught.value.code == "campaign_matches_all"
    assert rules.judge_criteria(Criteria(names="*")).names == "*"


def test_criteria_are_read_back_as_they_were_kept() -> None:
    wanted = Criteria("builtin", "EC_P256", "Root", DUE, "*.example.com", "prj_1")
    assert Criteria.of(wanted.as_dict()) == wanted
    assert Criteria.of(Criteria(ca="builtin").as_dict()) == Criteria(ca="builtin")
