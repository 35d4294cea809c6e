"""The dated rules, where records go, which methods are offered, and how long evidence lasts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError

from certwright.kernel.names import parse_dns_name
from certwright.kernel.problems import Invalid, Refused, Unavailable
from certwright.rooms.validation import rulepack, rules
from certwright.rooms.validation.rulepack import rule_pack
from certwright.rooms.validation.words import (
    Act,
    CaaFacts,
    CaaRecord,
    CaKind,
    ChallengeStatus,
    DnsRecord,
    FileToPublish,
    Issuer,
    Method,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PACK = rule_pack()


def midnight(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("day", "before", "after"),
    [
        ("2026-03-15", (398, 397), (200, 199)),
        ("2027-03-15", (200, 199), (100, 99)),
        ("2029-03-15", (100, 99), (47, 46)),
    ],
)
def test_validity_switches_at_midnight_utc(day: str, before: tuple[int, int], after: tuple[int, int]) -> None:
    just_before = rulepack.validity(PACK, midnight(day) - SECOND)
    at = rulepack.validity(PACK, midnight(day))
    assert (just_before.max_days, just_before.ask_days) == before
    assert (at.max_days, at.ask_days) == after


@pytest.mark.parametrize(
    ("day", "before", "after"), [("2026-03-15", 398, 200), ("2027-03-15", 200, 100), ("2029-03-15", 100, 10)]
)
def test_reuse_of_validations_switches_at_midnight_utc(day: str, before: int, after: int) -> None:
    assert rulepack.dcv_reuse(PACK, midnight(day) - SECOND) == timedelta(days=before)
    assert rulepack.dcv_reuse(PACK, midnight(day)) == timedelta(days=after)


def test_organisations_are_reused_for_398_days_since_march_2026() -> None:
    assert rulepack.organization_reuse(PACK, midnight("2026-03-15") - SECOND) == timedelta(days=825)
    assert rulepack.organization_reuse(PACK, midnight("2026-03-15")) == timedelta(days=398)


@pytest.mark.parametrize(
    ("validated", "until"),
    [
        ("2026-11-21", midnight("2027-03-15") - timedelta(microseconds=1)),
        ("2026-08-01", midnight("2026-08-01") + timedelta(days=200)),
        ("2027-01-01", midnight("2027-01-01") + timedelta(days=100)),
        ("2027-03-14", midnight("2027-03-14") + timedelta(days=100)),
        ("2029-03-14", midnight("2029-03-14") + timedelta(days=10)),
        ("2029-01-01", midnight("2029-03-15") - timedelta(microseconds=1)),
        ("2026-01-01", midnight("2026-01-01") + timedelta(days=200)),
    ],
)
def test_evidence_is_cut_off_by_the_limit_of_the_day_of_issue(validated: str, until: datetime) -> None:
    assert rules.evidence_until(Method.DNS, midnight(validated), CaKind.PUBLIC, PACK) == until


@given(
    st.timedeltas(timedelta(0), timedelta(days=2500)).map(lambda since: midnight("2024-01-01") + since),
    st.timedeltas(timedelta(0), timedelta(days=400)),
)
def test_evidence_is_good_exactly_while_it_is_young_enough_at_every_moment(at: datetime, age: timedelta) -> None:
    until = rules.evidence_until(Method.DNS, at, CaKind.PUBLIC, PACK)
    moment = at + age
    limits = [rulepack.dcv_reuse(PACK, at)]
    limits += [timedelta(days=s.max) for s in PACK.public_tls.dcv_reuse_days
               if at < midnight(s.from_.isoformat()) <= moment]  # fmt: skip
    if moment <= until:
        assert age <= rulepack.dcv_reuse(PACK, moment)
    if age > max(limits):
        assert moment > until


@pytest.mark.parametrize("public", [True, False])
def test_what_a_persistent_record_showed_is_good_for_ten_days_to_the_second(public: bool) -> None:
    at = midnight("2026-11-21")
    until = rulepack.dcv_usable_until(PACK, "dns-persist-01", at, public=public)
    assert until - SECOND < at + timedelta(days=10) < until + SECOND
    assert rulepack.dcv_usable_until(PACK, "dns-01", at, public=public) > until


def test_email_evidence_ends_with_the_method_for_public_cas_only() -> None:
    at = midnight("2028-02-01")
    end = midnight("2028-03-15")
    assert rules.evidence_until(Method.EMAIL, at, CaKind.PUBLIC, PACK) < end
    assert rules.evidence_until(Method.EMAIL, at, CaKind.PRIVATE, PACK) > end


@pytest.mark.parametrize(
    "text",
    [
        "public_tls: {}",
        "[]",
        "public_tls: {validity_days: []}",
    ],
)
def test_a_damaged_rule_file_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        rulepack.parse(text)


# --- placement ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "single", "place"),
    [
        ("www.example.com", True, "example.com"),
        ("www.example.com", False, "www.example.com"),
        ("shop.example.com", True, "shop.example.com"),
        ("example.com", True, "example.com"),
        ("*.example.com", True, "example.com"),
        ("*.example.com", False, "example.com"),
        ("*.www.example.com", True, "www.example.com"),
        ("www.com", True, "www.com"),
        ("www.co.uk", True, "www.co.uk"),
        ("www.example.co.uk", True, "example.co.uk"),
        ("www.internal", True, "www.internal"),
        ("www.app.internal", True, "app.internal"),
        ("wwwx.example.com", True, "wwwx.example.com"),
    ],
)
def test_the_record_goes_where_the_table_says(name: str, single: bool, place: str) -> None:
    assert rules.record_place(parse_dns_name(name), single=single) == place


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["a.example.com", "b.example.com"], ["a.example.com", "b.example.com"]),
        (["example.com", "www.example.com", "a.b.example.com"], ["example.com"] * 3),
        (["*.example.com", "a.example.com", "example.org"], ["example.com", "example.com", "example.org"]),
        (["*.a.example.com", "b.a.example.com", "example.net"], ["a.example.com", "a.example.com", "example.net"]),
        (["example.com", "notexample.com"], ["example.com", "notexample.com"]),
        (["www.example.com", "shop.example.com"], ["www.example.com", "shop.example.com"]),
        (["xn--bcher-kva.example.com", "a.xn--bcher-kva.example.com"], ["xn--bcher-kva.example.com"] * 2),
    ],
    ids=[
        "of several names each has its own record",
        "names below a domain that is shown anyway share its record",
        "names below a wildcard share the record of its domain",
        "the same below a wildcard further down",
        "a name that only ends alike has its own",
        "of several names a www name keeps its place",
        "internationalised names share likewise",
    ],
)
def test_records_of_several_names(names: list[str], places: list[str]) -> None:
    assert rules.record_places(names, single=False) == dict(zip(names, places, strict=True))


def test_a_single_www_name_is_shown_at_its_domain() -> None:
    assert rules.record_places(["www.example.com"], single=True) == {"www.example.com": "example.com"}


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("shop.example.com", "example.com"),
        ("*.a.example.co.uk", "example.co.uk"),
        ("example.com", "example.com"),
        ("www.app.internal", "app.internal"),
        ("db.app.internal", "db.app.internal"),
        ("*.corp", "corp"),
    ],
)
def test_mail_goes_to_the_registrable_domain_and_of_internal_names_to_the_name(name: str, domain: str) -> None:
    assert rules.mail_domain(name) == domain
    assert rules.validated_domain(name, Method.EMAIL, single=False) == domain
    assert rules.evidence_covers(domain, Method.EMAIL, name)
    assert rules.mailboxes(domain) == tuple(
        f"{box}@{domain}" for box in ("admin", "administrator", "webmaster", "hostmaster", "postmaster")
    )


def test_the_cname_that_does_as_well_holds_the_value_and_collides_with_no_other() -> None:
    values = [rules.fresh_value() for _ in range(50)]
    instead = [rules.cname_instead(DnsRecord("example.com", "TXT", value)) for value in values]
    assert len({record.name for record in instead}) == 50
    for value, record in zip(values, instead, strict=True):
        assert record.type == "CNAME"
        assert record.name.endswith(".example.com")
        assert record.value == value.removeprefix("certwright-validation=") + ".certwright.invalid"
        assert all(len(label) <= 63 for label in record.value.split("."))
        assert record.ttl == 300


def test_values_are_long_random_and_recognisable() -> None:
    values = {rules.fresh_value() for _ in range(200)}
    assert len(values) == 200
    assert all(v.startswith("certwright-validation=") and len(v.partition("=")[2]) * 5 >= 128 for v in values)


def test_the_file_name_does_not_give_the_value_away() -> None:
    value, name = rules.fresh_value(), rules.fresh_file_name()
    file = FileToPublish("www.example.com", name, value)
    assert file.url == f"http://www.example.com/.well-known/pki-validation/{name}"
    assert value.partition("=")[2] not in file.url


def test_an_ipv6_address_is_bracketed_in_the_url() -> None:
    assert FileToPublish("2001:db8::1", "a.txt", "v").url.startswith("http://[2001:db8::1]/")


def test_txt_values_are_shown_quoted_and_others_not() -> None:
    assert DnsRecord("a.test", "TXT", "v").quoted == '"v"'
    assert DnsRecord("a.test", "CNAME", "v.test").quoted == "v.test"


# --- methods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "method", "kind", "code"),
    [
        ("*.example.com", "file", CaKind.PRIVATE, "method_not_for_wildcard"),
        ("*.example.com", "file", CaKind.PUBLIC, "method_not_for_wildcard"),
        ("*.example.com", "http-01", CaKind.PUBLIC, "method_not_for_wildcard"),
        ("*.example.com", "tls-alpn-01", CaKind.PUBLIC, "method_not_for_wildcard"),
        ("10.0.0.1", "dns", CaKind.PRIVATE, "method_not_for_ip"),
        ("10.0.0.1", "email", CaKind.PRIVATE, "method_not_for_ip"),
        ("www.example.com", "tls-alpn-01", CaKind.PRIVATE, "method_unknown"),
        ("www.example.com", "phone", CaKind.PUBLIC, "method_unknown"),
    ],
)
def test_methods_that_can_not_prove_a_name_are_refused(name: str, method: str, kind: CaKind, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.require_method(name, method, kind, NOW, PACK)
    assert (caught.value.code, caught.value.field) == (code, "validation_method")
    assert caught.value.fix.startswith("Choose one of")


@pytest.mark.parametrize(
    ("name", "method", "kind"),
    [
        ("www.example.com", "dns", CaKind.PRIVATE),
        ("www.example.com", "file", CaKind.PRIVATE),
        ("*.example.com", "dns", CaKind.PRIVATE),
        ("10.0.0.1", "file", CaKind.PRIVATE),
        ("*.example.com", "dns-01", CaKind.PUBLIC),
        ("*.example.com", "email", CaKind.PUBLIC),
    ],
)
def test_methods_that_prove_a_name_are_taken(name: str, method: str, kind: CaKind) -> None:
    assert rules.require_method(name, method, kind, NOW, PACK) == method


def test_email_is_shown_with_its_end_and_refused_from_that_day() -> None:
    def email(at: datetime) -> object:
        return next(o for o in rules.offers("example.com", CaKind.PUBLIC, at, PACK) if o.method is Method.EMAIL)

    offer = email(NOW)
    assert (offer.allowed, offer.discouraged_since, offer.ends) == (True, "2026-03-15", "2028-03-15")  # type: ignore[attr-defined]
    assert email(midnight("2028-03-15") - SECOND).allowed  # type: ignore[attr-defined]
    ended = email(midnight("2028-03-15"))
    assert (ended.allowed, ended.code) == (False, "method_ended")  # type: ignore[attr-defined]


# --- evidence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "method", "name", "covered"),
    [
        ("example.com", Method.DNS, "example.com", True),
        ("example.com", Method.DNS, "www.example.com", True),
        ("example.com", Method.DNS, "*.example.com", True),
        ("example.com", Method.DNS, "*.a.example.com", True),
        ("a.example.com", Method.DNS, "example.com", False),
        ("a.example.com", Method.DNS, "*.example.com", False),
        ("example.com", Method.DNS, "notexample.com", False),
        ("example.com", Method.FILE, "example.com", True),
        ("example.com", Method.FILE, "www.example.com", False),
        ("example.com", Method.FILE, "*.example.com", False),
        ("10.0.0.1", Method.FILE, "10.0.0.1", True),
        ("0.0.1", Method.DNS, "10.0.0.1", False),
    ],
)
def test_evidence_speaks_for_what_its_method_shows(domain: str, method: Method, name: str, covered: bool) -> None:
    assert rules.evidence_covers(domain, method, name) is covered
    if covered:
        assert domain in rules.domains_that_would_cover(name)


def test_the_status_of_a_challenge_is_computed_from_its_facts() -> None:
    def status(validated: bool = False, cancelled: bool = False, now: datetime = NOW) -> ChallengeStatus:
        return rules.challenge_status(
            validated_at=NOW if validated else None, cancelled_at=NOW if cancelled else None,
            expires_at=NOW + SECOND, now=now,
        )  # fmt: skip

    assert status() is ChallengeStatus.PENDING
    assert status(now=NOW + SECOND) is ChallengeStatus.EXPIRED
    assert status(cancelled=True) is ChallengeStatus.CANCELLED
    assert status(validated=True, now=NOW + timedelta(days=9)) is ChallengeStatus.VALID


class ChallengeLife(RuleBasedStateMachine):
    """A challenge under every order of steps, crashes, cancel, issue and time: what was written is always removed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.facts: dict[str, datetime | None] = dict.fromkeys(
            ("write_intended_at", "written_at", "removed_at", "released_at", "cancelled_at", "validated_at")
        )
        self.in_zone = False

    def act(self) -> Act:
        return rules.next_act(automatic=True, expires_at=NOW + timedelta(days=30), now=self.now, **self.facts)

    @rule(crash=st.sampled_from(["no", "before", "after"]), found=st.booleans())
    def step(self, crash: str, found: bool) -> None:
        act = self.act()
        if act is Act.WRITE:
            self.facts["write_intended_at"] = self.facts["write_intended_at"] or self.now
            if crash != "before":
                self.in_zone = True
            if crash == "no":
                self.facts["written_at"] = self.now
        elif act is Act.CHECK and found and crash == "no":
            self.facts["validated_at"] = self.now
        elif act is Act.REMOVE:
            if crash != "before":
                self.in_zone = False
            if crash == "no":
                self.facts["removed_at"] = self.now

    @rule()
    def cancel(self) -> None:
        if self.facts["validated_at"] is None:
            self.facts["cancelled_at"] = self.facts["cancelled_at"] or self.now
        self.facts["released_at"] = self.facts["released_at"] or self.now

    @rule()
    def issue(self) -> None:
        if self.facts["validated_at"] is not None:
            self.facts["released_at"] = self.facts["released_at"] or self.now

    @rule(by=st.timedeltas(timedelta(0), timedelta(days=20)))
    def wait(self, by: timedelta) -> None:
        self.now += by

    @invariant()
    def a_record_in_the_zone_is_never_forgotten(self) -> None:
        if self.in_zone:
            assert self.act() is not Act.DONE

    @invariant()
    def a_record_that_proved_something_stays_until_it_is_released(self) -> None:
        useful = self.facts["validated_at"] and not self.facts["released_at"] and self.now < NOW + timedelta(days=30)
        if useful:
            assert self.in_zone
            assert self.act() is Act.HOLD

    def teardown(self) -> None:
        self.now = NOW + timedelta(days=31)
        for _ in range(3):
            self.step(crash="no", found=False)
        assert not self.in_zone
        assert self.act() is Act.DONE


TestChallengeLife = ChallengeLife.TestCase


def test_polling_slows_down_from_ten_seconds_to_ten_minutes() -> None:
    waits = [rules.poll_after(n).total_seconds() for n in range(8)]
    assert waits == [10, 30, 60, 120, 300, 600, 600, 600]


# --- CAA ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "wildcard", "code"),
    [
        (None, False, "caa_none"),
        ([(0, "iodef", "mailto:a@example.com")], False, "caa_permits"),
        ([(0, "issue", "ours.test")], False, "caa_permits"),
        ([(0, "issue", " OURS.test ; validationmethods=dns-01")], False, "caa_permits"),
        ([(0, "issue", "ours.test")], True, "caa_permits"),
        ([(0, "issue", "ours.test"), (0, "issuewild", ";")], True, "caa_forbids"),
        ([(0, "issue", ";"), (0, "issuewild", "ours.test")], True, "caa_permits"),
        ([(0, "issue", ";"), (0, "issuewild", "ours.test")], False, "caa_forbids"),
        ([(0, "issuewild", "other.test")], False, "caa_permits"),
        ([(0, "issue", "other.test")], False, "caa_forbids"),
        ([(0, "issue", "")], False, "caa_forbids"),
        ([(128, "tbs", "x"), (0, "issue", "ours.test")], False, "caa_unknown_critical"),
        ([(0, "tbs", "x"), (0, "issue", "ours.test")], False, "caa_permits"),
        ([(128, "issue", "ours.test")], False, "caa_permits"),
    ],
)
def test_caa_is_read_as_rfc_8659_says(records: list[tuple[int, str, str]] | None, wildcard: bool, code: str) -> None:
    facts = CaaFacts(
        "a.test", wildcard, None if records is None else "a.test",
        tuple(CaaRecord(*record) for record in records or ()),
    )  # fmt: skip
    verdict = rules.caa_verdict(facts, Issuer(("ours.test",)))
    assert (verdict.code, verdict.allowed) == (code, code in ("caa_none", "caa_permits"))


OURS = Issuer(("ours.test",), ("dns-01",), "https://ours.test/acct/1")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("ours.test", "caa_permits"),
        ("ours.test; accounturi=https://ours.test/acct/1", "caa_permits"),
        ("ours.test; accounturi=https://ours.test/acct/2", "caa_forbids_account"),
        ("ours.test; accounturi=", "caa_forbids_account"),
        ("ours.test; validationmethods=dns-01", "caa_permits"),
        ("ours.test; validationmethods=http-01,dns-01", "caa_permits"),
        ("ours.test; validationmethods=http-01", "caa_forbids_method"),
        ("ours.test; validationmethods=", "caa_forbids_method"),
        ("ours.test; accounturi=https://ours.test/acct/1; validationmethods=http-01", "caa_forbids_method"),
        ("ours.test; unknown=thing", "caa_permits"),
        ("ours.test; accounturi=https://a; accounturi=https://ours.test/acct/1", "caa_forbids"),
        ("ours.test; %%%", "caa_forbids"),
        ("ours test", "caa_forbids"),
        ("; accounturi=https://ours.test/acct/1", "caa_forbids"),
    ],
)
def test_parameters_of_rfc_8657_narrow_what_a_record_permits(value: str, code: str) -> None:
    verdict = rules.caa_verdict(CaaFacts("a.test", False, "a.test", (CaaRecord(0, "issue", value),)), OURS)
    assert (verdict.code, verdict.allowed) == (code, code == "caa_permits"), verdict.sentence
    if not verdict.allowed:
        assert verdict.add == ('a.test. CAA 0 issue "ours.test"',)
        assert verdict.found == (f'a.test. CAA 0 issue "{value}"',)


def test_one_record_that_permits_is_enough() -> None:
    narrow = CaaRecord(0, "issue", "ours.test; validationmethods=http-01")
    facts = CaaFacts("a.test", False, "a.test", (narrow, CaaRecord(0, "issue", "ours.test")))
    assert rules.caa_verdict(facts, OURS).allowed


def test_an_account_or_method_nobody_knows_narrows_nothing_yet() -> None:
    facts = CaaFacts("a.test", False, "a.test", (CaaRecord(0, "issue", "ours.test; accounturi=https://x/1"),))
    assert rules.caa_verdict(facts, Issuer(("ours.test",))).allowed


def test_before_ordering_a_no_ends_it_and_a_look_up_that_fails_waits() -> None:
    free = CaaFacts("a.test", False)
    forbids = CaaFacts("b.test", False, "b.test", (CaaRecord(0, "issue", ";"),))
    silent = CaaFacts("c.test", False, failure="no answer")

    def block(*facts: CaaFacts) -> object:
        return rules.caa_block([rules.caa_verdict(one, OURS) for one in facts])

    assert block(free) is None
    assert block() is None
    assert isinstance(block(free, silent), Unavailable)
    refused = block(free, silent, forbids)
    assert isinstance(refused, Refused)
    assert refused.code == "caa_forbids"
    assert refused.extra["add"] == ['b.test. CAA 0 issue "ours.test"']


@given(st.text(max_size=60))
def test_no_text_of_an_issue_record_breaks_the_reading_and_only_our_name_permits(text: str) -> None:
    facts = CaaFacts("a.test", False, "a.test", (CaaRecord(0, "issue", text),))
    verdict = rules.caa_verdict(facts, OURS)
    assert not verdict.allowed or text.strip(" \t").lower().startswith("ours.test")


@given(st.text(max_size=40))
def test_a_caa_record_that_can_not_be_read_never_permits(text: str) -> None:
    (record,) = rules.parse_caa([text])
    readable = record.tag != "unreadable"
    facts = CaaFacts("a.test", False, "a.test", (record,))
    assert readable or not rules.caa_verdict(facts, Issuer(("ours.test",))).allowed
