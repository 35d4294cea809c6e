"""What counts as wrong with a served certificate, and what the alarm about it does next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.rooms.watch import rules
from certwright.rooms.watch.words import (
    DIFFERS,
    EXCEPTION,
    AlarmFact,
    Chain,
    Expectation,
    Link,
    Move,
    Observation,
    OpenAlarm,
    ServedChain,
    Severity,
)

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def chain(
    *,
    left: timedelta = 60 * DAY,
    life: timedelta = 200 * DAY,
    names: tuple[str, ...] = ("www.example.com",),
    state: Chain = Chain.COMPLETE,
    fingerprint: str = "aa",
) -> ServedChain:
    end = NOW + left
    return ServedChain(
        fingerprint=fingerprint, serial="1", subject="www.example.com", issuer="CN=ca", names=names,
        not_before=end - life, not_after=end, state=state, trusted=False, detail="why",
        links=(Link("CN=www", "CN=ca", fingerprint, end),),
    )  # fmt: skip


def seen(**changes: object) -> Observation:
    return Observation("192.0.2.7", NOW, chain=chain(**changes))  # type: ignore[arg-type]


def failed(problem: str, failures: int = 2, address: str = "192.0.2.7") -> Observation:
    return Observation(address, NOW, problem=problem, detail="so it went", failures=failures)


EXPECTED = Expectation("www.example.com")


@pytest.mark.parametrize(
    ("observation", "severity", "threshold", "reason"),
    [
        pytest.param(seen(left=30 * DAY - timedelta(seconds=1)), "minor", 1, "expires_soon", id="under 30 days"),
        pytest.param(seen(left=7 * DAY), "minor", 1, "expires_soon", id="7 days exactly"),
        pytest.param(seen(left=7 * DAY - timedelta(seconds=1)), "major", 1, "expires_soon", id="under 7 days"),
        pytest.param(seen(left=timedelta(0)), "major", 1, "expires_soon", id="its last second"),
        pytest.param(seen(left=timedelta(seconds=-1)), "critical", 2, "expired", id="expired a second ago"),
        pytest.param(
            seen(left=-DAY, names=("other.example",)), "critical", 2, "expired", id="expired counts before a wrong name"
        ),
        pytest.param(seen(left=300 * DAY), "critical", 3, "not_yet_valid", id="not valid yet"),
        pytest.param(seen(names=("other.example",)), "critical", 3, "wrong_name", id="wrong name"),
        pytest.param(seen(names=()), "critical", 3, "wrong_name", id="no name at all"),
        pytest.param(seen(state=Chain.INCOMPLETE), "critical", 3, "chain_incomplete", id="incomplete chain"),
        pytest.param(seen(state=Chain.BROKEN), "critical", 3, "chain_broken", id="broken chain"),
        pytest.param(failed("refused"), "critical", 3, "unreachable", id="connection refused"),
        pytest.param(failed("timeout"), "critical", 3, "unreachable", id="no answer"),
        pytest.param(failed("dns"), "critical", 3, "unreachable", id="no address"),
        pytest.param(failed("unreadable"), "critical", 3, "unreadable", id="unreadable"),
        pytest.param(failed("no_certificate"), "critical", 3, "no_certificate", id="nothing served"),
    ],
)
def test_what_is_wrong_is_alm_2001006(observation: Observation, severity: str, threshold: int, reason: str) -> None:
    (fact,) = rules.judge(observation, EXPECTED, NOW).facts
    assert (fact.kind, fact.severity, fact.threshold, fact.reason) == (EXCEPTION, severity, threshold, reason)
    assert fact.addresses == ("192.0.2.7",)


@pytest.mark.parametrize(
    "observation",
    [
        pytest.param(seen(left=30 * DAY), id="30 days exactly"),
        pytest.param(seen(names=("*.example.com",)), id="covered by a wildcard"),
        pytest.param(seen(state=Chain.UNKNOWN_ROOT), id="a root we don't know"),
    ],
)
def test_what_is_good_raises_nothing(observation: Observation) -> None:
    verdict = rules.judge(observation, EXPECTED, NOW)
    assert (verdict.facts, verdict.undecided) == ((), frozenset())


@pytest.mark.parametrize(
    ("life_days", "left_days", "severity"),
    [
        (90, 30, None),
        (90, 29.6, Severity.MINOR),
        (90, 13.4, Severity.MAJOR),
        (47, 15.6, None),
        (47, 15.4, Severity.MINOR),
        (47, 7.1, Severity.MINOR),
        (47, 7, Severity.MAJOR),
        (6, 2, None),
        (6, 1.9, Severity.MINOR),
        (6, 0.8, Severity.MAJOR),
        (100, 29.9, Severity.MINOR),
        (100, 30, None),
    ],
)
def test_thresholds_scale_to_lives_under_100_days(
    life_days: float, left_days: float, severity: Severity | None
) -> None:
    end = NOW + left_days * DAY
    assert rules.severity_of_time_left(end - life_days * DAY, end, NOW) is severity


def test_a_different_certificate_is_alm_2001010() -> None:
    verdict = rules.judge(seen(fingerprint="bb"), replace(EXPECTED, fingerprint="aa"), NOW)
    (fact,) = verdict.facts
    assert (fact.kind, fact.severity, fact.params["served"]) == (DIFFERS, "major", "bb")


def test_a_different_certificate_is_tolerated_until_a_rollout_settles() -> None:
    expected = Expectation("www.example.com", fingerprint="aa", settle_until=NOW + timedelta(minutes=1))
    assert rules.judge(seen(fingerprint="bb"), expected, NOW).undecided == {DIFFERS}
    later = rules.judge(seen(fingerprint="bb"), expected, NOW + timedelta(minutes=1))
    assert [fact.kind for fact in later.facts] == [DIFFERS]


def test_a_time_to_settle_from_a_clock_that_ran_ahead_does_not_silence_the_alarm() -> None:
    expected = Expectation("www.example.com", fingerprint="aa", settle_until=NOW + 365 * DAY)
    assert [fact.kind for fact in rules.judge(seen(fingerprint="bb"), expected, NOW).facts] == [DIFFERS]
    newest = replace(expected, settle_until=NOW + rules.LONGEST_SETTLING)
    assert rules.judge(seen(fingerprint="bb"), newest, NOW).undecided == {DIFFERS}


def test_one_failure_after_success_says_nothing_yet() -> None:
    expected = Expectation("www.example.com", confirm=2)
    verdict = rules.judge(failed("refused", failures=1), expected, NOW)
    assert (verdict.facts, verdict.undecided) == ((), {EXCEPTION, DIFFERS})
    assert rules.judge(failed("refused", failures=2), expected, NOW).facts


def test_an_address_not_permitted_says_nothing() -> None:
    assert rules.judge(failed("denied", failures=9), EXPECTED, NOW).facts == ()


def test_a_resolver_of_ours_that_is_away_says_nothing_about_any_endpoint() -> None:
    assert rules.judge(failed("resolver_away", failures=9), EXPECTED, NOW).facts == ()
    assert rules.judge(failed("dns", failures=9), EXPECTED, NOW).facts != ()


def test_the_worst_address_speaks_and_all_are_named() -> None:
    expiring, expired = seen(left=5 * DAY), replace(seen(left=-DAY), address="192.0.2.8")
    good = replace(seen(), address="192.0.2.9")
    pairs = [(each, rules.judge(each, EXPECTED, NOW)) for each in (expiring, expired, good)]
    good_verdict = pairs[2][1]
    named = tuple((observation, verdict) for observation, verdict in pairs)
    (fact,) = rules.combine(named).facts
    assert (fact.reason, good_verdict.facts) == ("expired", ())
    assert fact.addresses == ("192.0.2.7", "192.0.2.8")


def test_an_address_without_a_route_is_silent_beside_others() -> None:
    no_route, good = failed("no_route", address="2001:db8::7"), seen()
    both = [(each, rules.judge(each, EXPECTED, NOW)) for each in (no_route, good)]
    assert rules.combine(both).facts == ()
    alone = rules.combine(both[:1])
    assert [fact.reason for fact in alone.facts] == ["unreachable"]


def test_overdue_begins_a_fifth_of_the_way_from_due_to_expiry() -> None:
    due, end = NOW, NOW + 30 * DAY
    assert rules.renewal_overdue("ver_1", due, end, NOW + 6 * DAY - timedelta(seconds=1)) is None
    fact = rules.renewal_overdue("ver_1", due, end, NOW + 6 * DAY)
    assert fact is not None
    assert (fact.severity, fact.value) == ("major", 24.0)


@pytest.mark.parametrize(
    ("goes_at", "overdue"),
    [
        pytest.param(NOW, NOW + 6 * DAY, id="nothing holds it: after a fifth"),
        pytest.param(NOW + 2 * DAY, NOW + 6 * DAY, id="a window opens long before that"),
        pytest.param(NOW + 10 * DAY, NOW + 10 * DAY + timedelta(hours=1), id="frozen beyond it: an hour after"),
        pytest.param(NOW + 15 * DAY, NOW + 15 * DAY + timedelta(hours=1), id="its last safe moment: an hour after"),
    ],
)
def test_what_windows_and_freezes_hold_is_not_overdue(goes_at: datetime, overdue: datetime) -> None:
    due, end = NOW, NOW + 30 * DAY
    assert rules.renewal_overdue("ver_1", due, end, overdue - timedelta(seconds=1), goes_at) is None
    assert rules.renewal_overdue("ver_1", due, end, overdue, goes_at) is not None


def test_an_hour_is_too_long_for_what_ends_in_less() -> None:
    due, end = NOW, NOW + timedelta(hours=2)
    assert rules.overdue_at(due, end, NOW + timedelta(hours=1)) == NOW + timedelta(hours=1, minutes=12)


OPEN = OpenAlarm(Severity.MINOR, 1, "expires_soon", ("aa",))


def fact(**changes: object) -> AlarmFact:
    base = AlarmFact(EXCEPTION, Severity.MINOR, "expires_soon", threshold=1, identity=("aa",))
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("standing", "found", "undecided", "move"),
    [
        pytest.param(None, None, False, Move.KEEP, id="nothing to do"),
        pytest.param(None, fact(), False, Move.RAISE, id="raise"),
        pytest.param(OPEN, fact(), False, Move.KEEP, id="the same again"),
        pytest.param(OPEN, fact(value=3.0), False, Move.KEEP, id="another value is no change"),
        pytest.param(OPEN, fact(severity=Severity.MAJOR), False, Move.CHANGE, id="worse"),
        pytest.param(OPEN, fact(identity=("bb",)), False, Move.CHANGE, id="another certificate"),
        pytest.param(OPEN, None, False, Move.CLEAR, id="good again"),
        pytest.param(OPEN, None, True, Move.KEEP, id="can't tell"),
        pytest.param(None, None, True, Move.KEEP, id="can't tell and none open"),
    ],
)
def test_the_next_move_of_an_alarm(
    standing: OpenAlarm | None, found: AlarmFact | None, undecided: bool, move: Move
) -> None:
    assert rules.move(standing, found, undecided=undecided) is move


@given(
    st.lists(st.sampled_from(["good", "undecided", "minor", "major", "expired", "other"]), max_size=40),
)
def test_raises_and_clears_alternate_whatever_is_seen(sightings: list[str]) -> None:
    """No double raise, no clear without a raise, and a change only while one is open."""
    facts = {
        "minor": fact(),
        "major": fact(severity=Severity.MAJOR),
        "expired": fact(severity=Severity.CRITICAL, threshold=2, reason="expired"),
        "other": fact(identity=("bb",)),
    }
    standing: OpenAlarm | None = None
    moves = []
    for sighting in sightings:
        found = facts.get(sighting)
        move = rules.move(standing, found, undecided=sighting == "undecided")
        if found is not None and move in (Move.RAISE, Move.CHANGE):
            standing = OpenAlarm(found.severity, found.threshold, found.reason, found.identity)
        elif move is Move.CLEAR:
            standing = None
        moves.append(move)
        if found is not None:
            assert standing is not None, "what is wrong has an alarm"
        if sighting == "good":
            assert standing is None, "what is good has none"
    turns = [move for move in moves if move in (Move.RAISE, Move.CLEAR)]
    assert turns == [Move.RAISE, Move.CLEAR] * (len(turns) // 2) + [Move.RAISE] * (len(turns) % 2)
