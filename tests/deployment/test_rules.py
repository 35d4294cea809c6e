"""Decisions about deploying, without a server or a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, Refused
from certwright.rooms.deployment import rules
from certwright.rooms.deployment.words import (
    Address,
    Change,
    Expectation,
    Installed,
    KeyKind,
    Listener,
    Plan,
    Role,
    RolloutState,
    Site,
    Slot,
    Step,
    site_as_dict,
    site_from_dict,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GOOD = rules.VersionFacts(has_key=True, revoked=False, not_after=NOW + timedelta(seconds=1))


def slot(path: str = "/c/a.pem", kind: KeyKind | None = KeyKind.EC, names: tuple[str, ...] = ()) -> Slot:
    installed = Installed("ab" * 32, names, NOW, kind) if kind else None
    return Slot(path, path.replace(".pem", ".key"), None, installed)


def site(*slots: Slot, names: tuple[str, ...] = ("a.example",), key: str = "site-1") -> Site:
    return Site(key, names, (Listener("*", 443, tls=True),), slots or (slot(),), "/n.conf:1")


@pytest.mark.parametrize(
    ("new", "served", "missing"),
    [
        pytest.param(("a.example", "b.example"), ("a.example", "c.example"), ("c.example",), id="one name is lost"),
        pytest.param(("*.a.example",), ("x.a.example", "*.a.example"), (), id="a wildcard covers one label and itself"),
        pytest.param(("*.a.example",), ("a.example", "x.y.a.example"), ("a.example", "x.y.a.example"), id="no more"),
        pytest.param(("A.Example",), ("a.example",), (), id="case does not matter"),
        pytest.param((), (), (), id="nothing served, nothing missing"),
    ],
)
def test_names_served_now_that_the_new_certificate_does_not_cover(
    new: tuple[str, ...], served: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    assert rules.not_covered(new, served) == missing
    caution = rules.coverage_caution("a site", new, served)
    assert (caution.names if caution else ()) == missing


def test_served_names_are_those_of_the_site_and_of_its_certificate() -> None:
    there = slot(names=("a.example", "old.example"))
    found = site(there, names=("a.example", ".b.example", "_", "~^x", "www.*", "", "$hostname"))
    assert rules.served_names(found, there) == ("a.example", "b.example", "*.b.example", "old.example")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({}, None, id="valid to the last second"),
        pytest.param({"not_after": NOW}, "version_expired", id="expired"),
        pytest.param({"revoked": True}, "version_revoked", id="revoked"),
        pytest.param({"has_key": False}, "no_private_key", id="key not held"),
    ],
)
def test_a_version_that_must_not_be_deployed_says_why(change: dict[str, object], code: str | None) -> None:
    problem = rules.why_not_deploy(replace(GOOD, **change), NOW)  # type: ignore[arg-type]
    assert (problem.code if problem else None) == code


RSA, EC, UNREADABLE = slot("/c/r.pem", KeyKind.RSA), slot("/c/e.pem", KeyKind.EC), slot("/c/u.pem", None)


@pytest.mark.parametrize(
    ("slots", "kind", "expected"),
    [
        pytest.param((RSA,), KeyKind.EC, ("only", RSA), id="the only one whatever its type"),
        pytest.param((RSA, EC), KeyKind.EC, ("ec", EC), id="the one of the same type"),
        pytest.param((EC, RSA), KeyKind.RSA, ("rsa", RSA), id="in any order"),
        pytest.param((RSA, UNREADABLE), KeyKind.EC, ("ec", UNREADABLE), id="the unreadable one if no other fits"),
    ],
)
def test_a_certificate_replaces_the_one_of_its_key_type(
    slots: tuple[Slot, ...], kind: KeyKind, expected: tuple[str, Slot]
) -> None:
    assert rules.slot_for(site(*slots), kind) == expected


@pytest.mark.parametrize(
    ("found", "code"),
    [
        pytest.param(site(RSA, EC), "no_slot_for_key_type", id="none fits"),
        pytest.param(site(RSA, UNREADABLE, UNREADABLE), "no_slot_for_key_type", id="several might"),
        pytest.param(
            replace(site(), unmanaged_code="path_with_variable", unmanaged_reason="…"),
            "site_not_managed",
            id="unmanaged",
        ),
    ],
)
def test_a_site_without_a_place_for_the_certificate_is_refused(found: Site, code: str) -> None:
    with pytest.raises(Refused) as caught:
        rules.slot_for(found, KeyKind.EDWARDS)
    assert caught.value.code == code


def test_a_file_in_use_by_a_site_bound_to_another_certificate_is_named() -> None:
    assert rules.files_shared_with(EC, {"b": RSA}) is None
    assert rules.files_shared_with(EC, {"b": RSA, "c": EC}) == "c"


def test_a_site_whose_names_change_stays_the_same_site() -> None:
    known = {"id-1": site(), "id-2": site(slot("/c/b.pem"), key="site-2")}
    renamed = replace(site(), key="site-new", names=("a.example", "www.example"))
    added = site(slot("/c/c.pem"), key="site-3")
    matched = rules.match_sites(known, [renamed, site(slot("/c/b.pem"), key="site-2"), added])
    assert matched == {"site-new": "id-1", "site-2": "id-2"}


def test_sites_that_could_be_either_of_two_are_new_ones() -> None:
    known = {"id-1": site(key="x"), "id-2": site(key="y")}
    assert rules.match_sites(known, [site(key="z")]) == {}


def test_steps_follow_each_other_to_the_end() -> None:
    walked = [Step.PLAN]
    while (after := rules.following(walked[-1])) is not None:
        walked.append(after)
    assert walked == [Step.PLAN, Step.STAGE, Step.TEST, Step.ACTIVATE, Step.VERIFY, Step.KEEP]


@pytest.mark.parametrize(
    ("step", "failures", "expected"),
    [
        pytest.param(Step.PLAN, 0, (RolloutState.UNDONE, None), id="nothing was touched"),
        pytest.param(Step.STAGE, 0, (RolloutState.UNDOING, Step.UNDO), id="stage"),
        pytest.param(Step.VERIFY, 0, (RolloutState.UNDOING, Step.UNDO), id="verify"),
        pytest.param(Step.UNDO, 1, (RolloutState.UNDOING, Step.UNDO), id="undo is tried again"),
        pytest.param(Step.UNDO, 5, (RolloutState.FAILED, Step.UNDO), id="until it is somebody's to look at, too"),
    ],
)
def test_what_a_refused_step_leads_to(step: Step, failures: int, expected: tuple[RolloutState, Step | None]) -> None:
    assert rules.after_failure(step, failures) == expected


@pytest.mark.parametrize(
    ("state", "latest", "code"),
    [
        (RolloutState.DEPLOYED, True, None),
        (RolloutState.FAILED, True, None),
        (RolloutState.DEPLOYED, False, "rollout_not_latest"),
        (RolloutState.UNDONE, True, "rollout_undone_already"),
        (RolloutState.RUNNING, True, "rollout_under_way"),
        (RolloutState.UNDOING, True, "rollout_under_way"),
    ],
)
def test_when_a_rollout_may_be_undone_by_hand(state: RolloutState, latest: bool, code: str | None) -> None:
    problem = rules.why_not_undo(state, is_latest=latest, label="a site")
    assert (problem.code if problem else None) == code


def test_waiting_for_a_new_try_doubles_up_to_half_a_day() -> None:
    waits = [rules.retry_after(n) for n in (1, 2, 3, 6, 7, 500)]
    assert waits[:3] == [timedelta(minutes=15), timedelta(minutes=30), timedelta(hours=1)]
    assert waits[3:] == [timedelta(hours=8), timedelta(hours=12), timedelta(hours=12)]


@pytest.mark.parametrize("name", ["", "  ", "x" * 64, "a\nb", "a/b"], ids=["empty", "blank", "long", "line", "slash"])
def test_a_bad_target_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.judge_target_name(name)
    assert (caught.value.code, caught.value.field) == ("target_name_invalid", "name")


def test_a_bad_region_is_refused() -> None:
    assert rules.judge_region(" eu-west-1 ") == "eu-west-1"
    with pytest.raises(Invalid) as caught:
        rules.judge_region("a/b")
    assert (caught.value.code, caught.value.field) == ("region_invalid", "region")


NAMES = st.tuples(st.text(max_size=10))
LISTENERS = st.builds(
    Listener, st.text(max_size=5), st.integers(0, 65535), st.booleans(), st.booleans(), unix=st.booleans()
)
INSTALLED = st.builds(Installed, st.text(), NAMES, st.just(NOW), st.sampled_from([None, *KeyKind]))
SLOTS = st.builds(Slot, st.text(), st.text(), st.none() | st.text(), st.none() | INSTALLED, st.none() | st.text())
ADDRESSES = st.builds(Address, st.text(), st.integers(), st.none() | st.text(), st.booleans(), st.booleans())


@given(st.builds(Site, st.text(), NAMES, st.tuples(LISTENERS), st.tuples(SLOTS), st.text(), st.tuples(ADDRESSES)))
def test_a_site_survives_being_stored(found: Site) -> None:
    assert site_from_dict(site_as_dict(found)) == found


@given(
    st.builds(
        Plan,
        st.text(),
        st.tuples(
            st.builds(
                Change, st.text(), st.sampled_from(Role), st.text(), st.booleans(), st.none() | st.text(), st.booleans()
            )
        ),
        st.tuples(
            st.builds(
                Expectation, st.text(), ADDRESSES, st.sampled_from(KeyKind), st.text(), st.none() | st.text(), NAMES
            )
        ),
        NAMES,
    )
)
def test_a_plan_survives_being_stored(plan: Plan) -> None:
    assert Plan.from_dict(plan.as_dict()) == plan


@pytest.mark.parametrize(("tries", "minutes"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 10), (5000, 10)])
def test_a_failed_undo_is_tried_again_ever_more_slowly(tries: int, minutes: int) -> None:
    assert rules.undo_again_after(tries) == timedelta(minutes=minutes)
