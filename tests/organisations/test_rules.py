"""The room's pure decisions, one sentence a test."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import InvalidFields, Problem, Refused
from certwright.rooms.organisations import (
    CertificateType,
    Facts,
    Item,
    Kind,
    Level,
    Operation,
    Outcome,
    State,
    Turn,
    Way,
    rules,
)
from certwright.rooms.organisations.words import ENDED, CaseFacts
from tests.organisations.desk import FACTS, JPEG, PDF, PNG, facts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def judged(**changes: str) -> Facts:
    return rules.judge_facts(facts(**changes))


# --- facts -----------------------------------------------------------------------------------------------------------


def test_good_facts_are_kept_in_one_spelling() -> None:
    found = judged(legal_name="  Beispiel   Maschinenbau\tGmbH ", country="de")
    assert (found.legal_name, found.country, found.phone) == ("Beispiel Maschinenbau GmbH", "DE", "+49301234567")


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        pytest.param({"legal_name": ""}, "text_empty", "legal_name", id="a name is needed"),
        pytest.param({"legal_name": " - . "}, "text_empty", "legal_name", id="a dash is no name"),
        pytest.param({"legal_name": "x" * 65}, "text_too_long", "legal_name", id="65 characters fit no certificate"),
        pytest.param({"legal_name": "Bei\u202espiel"}, "text_invisible", "legal_name", id="text can't turn around"),
        pytest.param({"legal_name": "Bei\x00spiel"}, "text_invisible", "legal_name", id="no NUL"),
        pytest.param({"legal_name": "Bei\u200bspiel"}, "text_invisible", "legal_name", id="no invisible space"),
        pytest.param({"registration_number": ""}, "registration_number_missing", "registration_number",
                     id="a company has a number"),
        pytest.param({"kind": "sole_trader", "registration_number": ""}, "registration_number_missing",
                     "registration_number", id="so has a sole trader"),
        pytest.param({"jurisdiction_country": "EU"}, "country_unknown", "jurisdiction.country",
                     id="the EU keeps no register"),
        pytest.param({"country": "Germany"}, "country_unknown", "address.country", id="a country is two letters"),
        pytest.param({"country": "UK"}, "country_unknown", "address.country", id="the United Kingdom is GB"),
        pytest.param({"street": ""}, "text_empty", "address.street", id="a street is needed"),
        pytest.param({"city": ""}, "text_empty", "address.city", id="a city is needed"),
        pytest.param({"postal_code": "1" * 41}, "text_too_long", "address.postal_code", id="a postal code is short"),
        pytest.param({"phone": "030 1234567"}, "phone_invalid", "phone.number", id="a number has its country's code"),
        pytest.param({"phone": "+4930"}, "phone_invalid", "phone.number", id="four digits reach nobody"),
        pytest.param({"phone": "+49301234567890123"}, "phone_invalid", "phone.number", id="E.164 ends at 15 digits"),
        pytest.param({"phone_source": ""}, "text_empty", "phone.source", id="a number was found somewhere"),
        pytest.param({"kind": "club"}, "word_unknown", "kind", id="a kind is one of ours"),
    ],
)  # fmt: skip
def test_a_wrong_fact_is_refused_by_name(changes: dict[str, str], code: str, field: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        judged(**changes)
    assert [(p.code, p.field) for p in refused.value.problems] == [(code, field)]


def test_every_wrong_fact_is_named_at_once() -> None:
    with pytest.raises(InvalidFields) as refused:
        judged(legal_name="", city="", phone="1", country="XX", kind="x")
    assert {p.field for p in refused.value.problems} == {
        "legal_name", "address.city", "phone.number", "address.country", "kind",
    }  # fmt: skip


def test_a_public_body_needs_no_number_and_a_persian_name_may_hold_its_joiner() -> None:
    assert judged(kind="public_body", registration_number="").registration_number == ""
    assert judged(legal_name="شرکت نمونه\u200cها").legal_name.count("\u200c") == 1


def test_the_list_of_countries_is_iso_3166() -> None:
    from babel import Locale

    named = {code for code in Locale("en").territories if len(code) == 2 and code.isalpha()}
    assert len(rules.COUNTRIES) == 249
    # Babel knows these besides: not assigned by ISO 3166-1, or for groups and tests.
    assert named - rules.COUNTRIES <= {"AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB",
                                       "XK", "ZZ"}  # fmt: skip
    assert named >= rules.COUNTRIES


@given(field=st.sampled_from(sorted(set(FACTS) - {"kind"})))
def test_any_other_fact_is_another_hash(field: str) -> None:
    one = judged()
    other = replace(one, **{field: asdict(one)[field] + "1"})
    assert rules.hash_of(one) != rules.hash_of(other)
    assert rules.hash_of(one) == rules.hash_of(judged())


def test_a_kind_in_no_register_is_told_before_paying_and_others_are_not() -> None:
    said = rules.why_not_verifiable(Kind.UNLISTED)
    assert said is not None
    assert said.code == "organisation_not_verifiable"
    assert said.fix
    assert [kind for kind in Kind if rules.why_not_verifiable(kind)] == [Kind.UNLISTED]
    assert set(rules.KINDS) == set(Kind)


# --- reuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "serve"),
    [(Level.OV, {Level.OV, Level.EV}), (Level.EV, {Level.EV})],
    ids=["EV serves OV", "OV does not serve EV"],
)
def test_a_stronger_verification_serves_a_weaker_need(wanted: Level, serve: set[Level]) -> None:
    assert set(rules.levels_that_serve(wanted)) == serve


def test_pro_types_are_checked_like_their_plain_ones() -> None:
    assert {t.value: t.level.value for t in CertificateType} == {"ov": "ov", "ov_pro": "ov", "ev": "ev", "ev_pro": "ev"}


def test_evidence_is_fresh_to_the_last_second_of_its_days() -> None:
    limit = timedelta(days=398)
    assert rules.is_fresh(NOW - limit, NOW, limit)
    assert not rules.is_fresh(NOW - limit - timedelta(seconds=1), NOW, limit)


# --- states, turns, who may ------------------------------------------------------------------------------------------

WAITING: dict[str, Any] = {"level": Level.OV, "waiting_since": NOW}
QUEUED: dict[str, Any] = {"level": Level.OV, "way": Way.PHONE}
MINE = QUEUED | {"claimed_by": "cleo", "worked_at": NOW}
PASSED = dict.fromkeys(Item, Outcome.PASSED)
SECOND = MINE | {"level": Level.EV, "approved_by": "cleo", "outcomes": PASSED, "checkers": frozenset({"cleo", "gus"})}


@pytest.mark.parametrize(
    ("given_facts", "state", "turn"),
    [
        pytest.param(WAITING, State.AWAITING_CHOICE, Turn.APPLICANT, id="first the applicant chooses"),
        pytest.param(QUEUED, State.QUEUED, Turn.DESK, id="then it is in the queue"),
        pytest.param(QUEUED | {"waiting_since": NOW}, State.AWAITING_DOCUMENTS, Turn.APPLICANT,
                     id="documents are the applicant's turn"),
        pytest.param(MINE, State.IN_REVIEW, Turn.DESK, id="a taken case is in review"),
        pytest.param(MINE | {"waiting_since": NOW}, State.AWAITING_DOCUMENTS, Turn.APPLICANT,
                     id="a taken case may wait for documents"),
        pytest.param(SECOND, State.AWAITING_SECOND, Turn.DESK, id="EV waits for a second person"),
        pytest.param(SECOND | {"verified_at": NOW}, State.VERIFIED, Turn.NOBODY, id="verified is the end"),
        pytest.param(MINE | {"refused_at": NOW}, State.REFUSED, Turn.NOBODY, id="refused is the end"),
        pytest.param(WAITING | {"cancelled_at": NOW}, State.CANCELLED, Turn.NOBODY, id="cancelled is the end"),
    ],
)  # fmt: skip
def test_state_and_turn_follow_from_the_facts(given_facts: dict[str, Any], state: State, turn: Turn) -> None:
    assert rules.state_of(CaseFacts(**given_facts)) is state
    assert rules.turn_of(state) is turn


DONE = MINE | {"outcomes": PASSED}


@pytest.mark.parametrize(
    ("operation", "given_facts", "who", "code"),
    [
        pytest.param(Operation.CHOOSE, WAITING, "ada", None, id="an applicant may choose"),
        pytest.param(Operation.CHOOSE, QUEUED, "ada", None, id="and change their mind while nobody took it"),
        pytest.param(Operation.CHOOSE, MINE, "ada", "case_state", id="but not under a specialist's hands"),
        pytest.param(Operation.CHOOSE, MINE | {"waiting_since": NOW}, "ada", "case_claimed",
                     id="nor while documents are awaited by one"),
        pytest.param(Operation.SEND, WAITING, "ada", "case_state", id="nothing is sent before a way is chosen"),
        pytest.param(Operation.SEND, QUEUED | {"documents": 30}, "ada", "too_many_documents", id="30 are enough"),
        pytest.param(Operation.CLAIM, QUEUED, "cleo", None, id="a queued case may be taken"),
        pytest.param(Operation.CLAIM, QUEUED | {"applicants": frozenset({"cleo"})}, "cleo", "own_case",
                     id="not by the applicant"),
        pytest.param(Operation.CLAIM, QUEUED, None, "person_needed", id="not by a program"),
        pytest.param(Operation.CLAIM, MINE, "dan", "case_claimed", id="not twice"),
        pytest.param(Operation.CLAIM, WAITING, "cleo", "case_state", id="not before the applicant chose"),
        pytest.param(Operation.RELEASE, MINE, "cleo", None, id="what one took one may give back"),
        pytest.param(Operation.RELEASE, MINE, "dan", "case_not_yours", id="a colleague may not"),
        pytest.param(Operation.RELEASE, MINE | {"worked_at": NOW - timedelta(hours=24)}, "dan", None,
                     id="unless nobody worked on it for a day"),
        pytest.param(Operation.RELEASE, MINE | {"worked_at": NOW - timedelta(hours=24, seconds=-1)}, "dan",
                     "case_not_yours", id="to the second"),
        pytest.param(Operation.CHECK, MINE, "dan", "case_not_yours", id="only who took it records checks"),
        pytest.param(Operation.CHECK, QUEUED, "cleo", "case_state", id="and only after taking it"),
        pytest.param(Operation.APPROVE, MINE, "cleo", "checks_missing", id="nothing is approved unchecked"),
        pytest.param(Operation.APPROVE, DONE, "cleo", None, id="what passed may be approved"),
        pytest.param(Operation.APPROVE, DONE | {"outcomes": PASSED | {Item.PHONE: Outcome.FAILED}}, "cleo",
                     "checks_missing", id="one failed check is enough"),
        pytest.param(Operation.APPROVE, DONE | {"applicants": frozenset({"cleo"})}, "cleo", "own_case",
                     id="nobody approves their own"),
        pytest.param(Operation.APPROVE, SECOND, "cleo", "four_eyes", id="the second is not the first"),
        pytest.param(Operation.APPROVE, SECOND, "gus", "four_eyes", id="nor one who gathered evidence"),
        pytest.param(Operation.APPROVE, SECOND | {"applicants": frozenset({"dan"})}, "dan", "own_case",
                     id="nor the applicant"),
        pytest.param(Operation.APPROVE, SECOND, "dan", None, id="but somebody else"),
        pytest.param(Operation.RETURN, SECOND, "dan", None, id="who may also give it back"),
        pytest.param(Operation.RETURN, SECOND, "cleo", "four_eyes", id="which the first may not"),
        pytest.param(Operation.REFUSE, SECOND, "dan", None, id="or refuse it"),
        pytest.param(Operation.REFUSE, QUEUED, "dan", "case_state", id="an untaken case can't be refused"),
        pytest.param(Operation.EXPIRE, WAITING | {"waiting_since": NOW - timedelta(days=30)}, None, None,
                     id="30 days of silence end it"),
        pytest.param(Operation.EXPIRE, WAITING | {"waiting_since": NOW - timedelta(days=30, seconds=-1)}, None,
                     "case_not_silent", id="not a second sooner"),
        pytest.param(Operation.EXPIRE, MINE, None, "case_state", id="the desk's slowness never does"),
    ],
)  # fmt: skip
def test_who_may_do_what(operation: Operation, given_facts: dict[str, Any], who: str | None, code: str | None) -> None:
    said = rules.why_not(operation, CaseFacts(**given_facts), who, NOW)
    assert (said.code if said else None) == code
    assert said is None or (said.message and said.fix)


@pytest.mark.parametrize("state", list(State))
def test_an_ended_case_allows_nothing_and_an_open_one_can_always_end(state: State) -> None:
    allowed = {operation for operation, states in rules.ALLOWED_IN.items() if state in states}
    assert bool(allowed) is (state not in ENDED)
    assert state in ENDED or Operation.CANCEL in allowed


def test_the_table_names_every_operation() -> None:
    assert set(rules.ALLOWED_IN) == set(Operation)


# --- progress --------------------------------------------------------------------------------------------------------


def lines(given_facts: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {line.item: (line.state, line.turn.value) for line in rules.progress(CaseFacts(**given_facts))}


@pytest.mark.parametrize(
    ("given_facts", "expected"),
    [
        pytest.param(WAITING, {"way": ("open", "applicant"), "existence": ("later", "desk"),
                               "approval": ("later", "desk")}, id="at first one chooses"),
        pytest.param(QUEUED, {"way": ("done", "nobody"), "existence": ("open", "desk")}, id="then the desk works"),
        pytest.param(QUEUED | {"asked": True, "waiting_since": NOW},
                     {"documents": ("open", "applicant"), "address": ("later", "desk")}, id="documents are awaited"),
        pytest.param(QUEUED | {"asked": True}, {"documents": ("done", "nobody"), "address": ("open", "desk")},
                     id="documents arrived"),
        pytest.param(MINE | {"outcomes": {Item.PHONE: Outcome.FAILED, Item.ADDRESS: Outcome.PASSED}},
                     {"phone": ("open", "desk"), "address": ("done", "nobody"), "approval": ("later", "desk")},
                     id="a failed check is looked into further"),
        pytest.param(DONE, {"approval": ("open", "desk")}, id="all passed: somebody decides"),
        pytest.param(SECOND, {"approval": ("done", "nobody"), "second_approval": ("open", "desk")},
                     id="EV: a second decides"),
        pytest.param(MINE | {"refused_at": NOW, "reasons": ("No such company.",)},
                     {"approval": ("failed", "nobody"), "existence": ("failed", "nobody")}, id="refused"),
    ],
)  # fmt: skip
def test_progress_says_what_is_missing_and_whose_turn_it_is(
    given_facts: dict[str, Any], expected: dict[str, tuple[str, str]]
) -> None:
    assert lines(given_facts).items() >= expected.items()


@given(
    facts_=st.builds(
        CaseFacts,
        level=st.sampled_from(Level),
        way=st.none() | st.sampled_from(Way),
        asked=st.booleans(),
        waiting_since=st.none() | st.just(NOW),
        claimed_by=st.none() | st.just("cleo"),
        approved_by=st.none() | st.just("cleo"),
        verified_at=st.none() | st.just(NOW),
        refused_at=st.none() | st.just(NOW),
        cancelled_at=st.none() | st.just(NOW),
        outcomes=st.dictionaries(st.sampled_from(Item), st.sampled_from(Outcome)),
    )
)
def test_somebody_always_has_the_turn_until_the_end(facts_: CaseFacts) -> None:
    # Approved means EV, and that everything passed; documents are awaited only when they were asked for.
    if facts_.approved_by is not None:
        facts_ = replace(facts_, level=Level.EV, outcomes=PASSED)
    facts_ = replace(facts_, asked=facts_.asked or (facts_.way is not None and facts_.waiting_since is not None))
    state, shown = rules.state_of(facts_), rules.progress(facts_)
    open_turns = {line.turn for line in shown if line.state == "open"}
    if state in ENDED:
        assert not open_turns
    elif rules.turn_of(state) is Turn.DESK:
        assert open_turns == {Turn.DESK}
    else:
        assert Turn.APPLICANT in open_turns
    assert all(line.sentence.endswith(".") for line in shown)


@pytest.mark.parametrize(
    ("since", "level", "days", "ends"),
    [
        ("2026-03-02T09:00", Level.OV, 3, "2026-03-05T09:00"),
        ("2026-03-05T09:00", Level.OV, 3, "2026-03-10T09:00"),
        ("2026-03-07T09:00", Level.OV, 1, "2026-03-09T09:00"),
        ("2026-03-02T09:00", Level.OV, 0, "2026-03-09T09:00"),
        ("2026-03-02T09:00", Level.EV, 0, "2026-03-16T09:00"),
    ],
    ids=["in one week", "over a weekend", "from a Saturday", "OV without a product", "EV without a product"],
)
def test_the_desk_has_the_working_days_of_the_product(since: str, level: Level, days: int, ends: str) -> None:
    at = datetime.fromisoformat(since + "+00:00")
    assert rules.review_ends(at, level, days) == datetime.fromisoformat(ends + "+00:00")


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("ca", ["builtin", "ca_x"])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("setting", [True, False])
def test_ov_of_the_own_ca_alone_may_be_verified_alone(level: Level, ca: str, own: bool, setting: bool) -> None:
    allowed = rules.may_be_alone(level, ca, own_account=own, setting=setting)
    assert allowed is (setting and own and ca == "builtin" and level is Level.OV)


def test_a_refusal_shows_its_reasons_to_the_applicant() -> None:
    shown = rules.progress(CaseFacts(**MINE, refused_at=NOW, reasons=("No such company.",)))
    assert shown[-1].sentence == "No such company."


# --- reminders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "due", "pause"),
    [(0, 0, 3), (2.5, 0, 0.5), (3, 1, 4), (7, 2, 7), (14, 3, 11), (25, 4, 5), (30, 4, 0), (40, 4, 0)],
)
def test_reminders_come_on_days_3_7_14_and_25_and_patience_ends_on_day_30(days: float, due: int, pause: float) -> None:
    assert rules.next_look(NOW - timedelta(days=days), NOW) == (due, timedelta(days=pause))


# --- documents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind"),
    [(PDF, "application/pdf"), (PNG, "image/png"), (JPEG, "image/jpeg")],
    ids=["PDF", "PNG", "JPEG"],
)
def test_a_type_is_recognised_by_content_whatever_the_name(content: bytes, kind: str) -> None:
    assert rules.judge_document("extract.exe", content) == ("extract.exe", kind)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        pytest.param("a.pdf", b"<html><script>", "document_type", id="HTML is not PDF by its name"),
        pytest.param("a.pdf", b"\n%PDF-1.7", "document_type", id="nothing may stand in front"),
        pytest.param("a.pdf", b"", "document_type", id="nothing is no document"),
        pytest.param("a.svg", b"<svg onload=x>", "document_type", id="no SVG"),
        pytest.param("a.zip", b"PK\x03\x04", "document_type", id="no archive"),
        pytest.param("a.pdf", PDF + b"\0" * (10 * 1024 * 1024 - len(PDF) + 1), "document_too_large",
                     id="a byte over 10 MB"),
        pytest.param("../../etc/passwd", PDF, "document_name", id="no path"),
        pytest.param("..\\x.pdf", PDF, "document_name", id="no path of another system"),
        pytest.param("/etc/x.pdf", PDF, "document_name", id="no absolute path"),
        pytest.param("<img src=x>.pdf", PDF, "document_name", id="no markup"),
        pytest.param('a".pdf', PDF, "document_name", id="no quotes"),
        pytest.param(".htaccess", PDF, "document_name", id="nothing hidden"),
        pytest.param("a\r\nSet-Cookie: x.pdf", PDF, "document_name", id="no header"),
        pytest.param("gpj.\u202efdp", PDF, "text_invisible", id="no reversed name"),
        pytest.param("", PDF, "text_empty", id="no empty name"),
        pytest.param("x" * 121, PDF, "text_too_long", id="no endless name"),
    ],
)  # fmt: skip
def test_a_bad_document_is_refused(name: str, content: bytes, code: str) -> None:
    with pytest.raises(Problem) as refused:
        rules.judge_document(name, content)
    assert refused.value.code == code


def test_ten_megabytes_are_taken() -> None:
    assert rules.judge_document("a.pdf", PDF + b"\0" * (10 * 1024 * 1024 - len(PDF)))[1] == "application/pdf"


@given(st.text(max_size=150))
def test_a_name_that_is_taken_is_never_a_path_markup_or_hidden(text: str) -> None:
    try:
        name = rules.judge_file_name(text)
    except Problem:
        return
    assert not set('/\\<>:"|?*\r\n\0') & set(name)
    assert not name.startswith(".")
    assert ".." not in name
    assert len(name) <= 120


@pytest.mark.parametrize("given_", [[], [""], ["x"] * 11, ["---"]], ids=["none", "empty", "eleven", "a dash"])
def test_a_refusal_needs_reasons_that_say_something(given_: list[str]) -> None:
    with pytest.raises(Problem):
        rules.judge_reasons(given_)


def test_a_refused_type_is_named() -> None:
    with pytest.raises(Problem) as refused:
        rules.judge_type("dv")
    assert (refused.value.code, refused.value.field) == ("word_unknown", "type")
    assert not isinstance(refused.value, Refused)
