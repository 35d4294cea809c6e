"""The engine switches by itself: the clock one second before and after every dated line of the shipped rules."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import yaml

from certwright.kernel.problems import Invalid
from certwright.rooms import validation
from certwright.rooms.renewal.readiness import step_at, steps_of
from certwright.rooms.validation import CaKind, Method
from certwright.rooms.validation.rulepack import (
    dcv_reuse,
    dcv_usable_until,
    lets_encrypt_classic,
    method_end,
    organization_reuse,
    rule_pack,
    shipped_text,
    validity,
)
from certwright.rooms.validation.rules import offers, require_method

PACK = rule_pack()
SECOND = timedelta(seconds=1)
RAW: dict[str, Any] = yaml.safe_load(shipped_text())
TLS, LE = RAW["public_tls"], RAW["letsencrypt"]


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def pairs(steps: list[dict[str, Any]]) -> list[Any]:
    """(the date, what held before it, what holds from it) for every boundary, the first one included."""
    return [
        pytest.param(steps[i]["from"], steps[max(i - 1, 0)], steps[i], id=str(steps[i]["from"]))
        for i in range(len(steps))
    ]


@pytest.mark.parametrize(("day", "before", "after"), pairs(TLS["validity_days"]))
def test_lives_change_at_midnight(day: date, before: dict[str, Any], after: dict[str, Any]) -> None:
    at = midnight(day)
    for moment, step in ((at - SECOND, before), (at, after), (at + SECOND, after)):
        found = validity(PACK, moment)
        assert (found.max_days, found.ask_days) == (step["max"], step["ask"])


@pytest.mark.parametrize(("day", "before", "after"), pairs(TLS["dcv_reuse_days"]))
def test_the_age_of_a_domain_validation_changes_at_midnight(
    day: date, before: dict[str, Any], after: dict[str, Any]
) -> None:
    at = midnight(day)
    for moment, step in ((at - SECOND, before), (at, after), (at + SECOND, after)):
        assert dcv_reuse(PACK, moment) == timedelta(days=step["max"])


@pytest.mark.parametrize(("day", "before", "after"), pairs(TLS["dcv_reuse_days"])[1:])
def test_evidence_older_than_the_new_age_ends_at_midnight_of_its_first_day(
    day: date, before: dict[str, Any], after: dict[str, Any]
) -> None:
    at = midnight(day)
    seen = at - timedelta(days=after["max"]) - SECOND
    until = dcv_usable_until(PACK, "dns", seen, public=True)
    assert at - SECOND < until < at
    younger = at - timedelta(days=after["max"]) + SECOND
    assert dcv_usable_until(PACK, "dns", younger, public=True) == younger + timedelta(days=after["max"])


@pytest.mark.parametrize(("day", "before", "after"), pairs(TLS["organization_reuse_days"]))
def test_the_age_of_an_organisations_verification_changes_at_midnight(
    day: date, before: dict[str, Any], after: dict[str, Any]
) -> None:
    at = midnight(day)
    for moment, step in ((at - SECOND, before), (at, after), (at + SECOND, after)):
        assert organization_reuse(PACK, moment) == timedelta(days=step["max"])


@pytest.mark.parametrize(("day", "before", "after"), pairs(LE["classic_days"]))
def test_lets_encrypts_classic_life_changes_at_midnight(
    day: date, before: dict[str, Any], after: dict[str, Any]
) -> None:
    at = midnight(day)
    for moment, step in ((at - SECOND, before), (at, after), (at + SECOND, after)):
        assert lets_encrypt_classic(PACK, moment) == (step["days"], step["authz_reuse_hours"])


@pytest.mark.parametrize(("method", "day"), [pytest.param(m, d, id=f"{m} {d}") for m, d in TLS["method_end"].items()])
def test_a_method_ends_at_midnight(method: str, day: date) -> None:
    at = midnight(day)
    assert method_end(PACK, method) == at
    for seen in (at - timedelta(days=20), at - SECOND):
        until = dcv_usable_until(PACK, method, seen, public=True)
        assert until < at
        assert until >= at - SECOND
    assert dcv_usable_until(PACK, method, at - SECOND, public=False) > at


@pytest.mark.parametrize(
    ("method", "day"), [pytest.param(m, d, id=f"{m} {d}") for m, d in TLS["method_discouraged"].items()]
)
def test_a_method_says_since_when_it_is_discouraged(method: str, day: date) -> None:
    if method not in set(Method):
        assert method == "phone"  # which the product doesn't do
        return
    offered = {offer.method.value: offer for offer in offers("www.example.com", CaKind.PUBLIC, midnight(day), PACK)}
    assert offered[method].discouraged_since == day.isoformat()


def test_mail_is_offered_and_taken_until_the_second_before_its_end() -> None:
    at = midnight(TLS["method_end"]["email"])
    for moment, there in ((at - SECOND, True), (at, False), (at + SECOND, False)):
        offered = {offer.method: offer for offer in offers("www.example.com", CaKind.PUBLIC, moment, PACK)}
        assert offered[Method.EMAIL].allowed is there
        if there:
            assert require_method("www.example.com", "email", CaKind.PUBLIC, moment, PACK) is Method.EMAIL
        else:
            with pytest.raises(Invalid) as caught:
                require_method("www.example.com", "email", CaKind.PUBLIC, moment, PACK)
            assert caught.value.code == "method_ended"


@pytest.mark.parametrize("day", sorted({s["from"] for key in ("validity_days", "dcv_reuse_days") for s in TLS[key]}))
def test_readiness_judges_by_the_limits_of_the_moment(day: date) -> None:
    at = midnight(day)
    for moment in (at - SECOND, at, at + SECOND):
        step = step_at(PACK, moment)
        assert step.life_days == validity(PACK, moment).ask_days
        assert step.reuse_days == dcv_reuse(PACK, moment).days
    assert (at in [step.begins for step in steps_of(PACK, at - SECOND)[1:]]) is True
    assert at not in [step.begins for step in steps_of(PACK, at + SECOND)[1:]]


def test_every_date_of_the_shipped_rules_is_pinned_here() -> None:
    """A date that is added to the file must be added here as well."""
    pinned = {
        "public_tls.validity_days", "public_tls.dcv_reuse_days", "public_tls.organization_reuse_days",
        "public_tls.short_lived_max_seconds", "public_tls.method_discouraged", "public_tls.method_end",
        "letsencrypt.classic_days",
        # Judged by the workshop, at the date of issue: tests/x509.
        "public_tls.server_auth_only_eku",
        # Kept for people who read the file; nothing in the product switches by them.
        "public_tls.caa_parameters_must",
    }  # fmt: skip

    def dated(value: Any) -> bool:
        if isinstance(value, dict):
            return any(dated(one) for one in value.values())
        if isinstance(value, list):
            return any(dated(one) for one in value)
        return isinstance(value, date)

    found = {f"{part}.{key}" for part in RAW if isinstance(RAW[part], dict) for key, value in RAW[part].items()
             if dated(value)}  # fmt: skip
    assert found == pinned
    assert validation.rule_pack() is PACK
