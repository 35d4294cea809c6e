"""The room on a real database: the flow of a case, reuse, privacy, four eyes, documents, links, races, reminders."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem, Refused, Stale, TooLarge, Unavailable
from certwright.platform.vault import FileKeyKeeper
from certwright.rooms import audit, organisations
from certwright.rooms.audit.tables import audit_events
from certwright.rooms.organisations import Item, Mail, Operation, Organisation, State
from certwright.rooms.organisations.tables import (
    organisation_cases,
    organisation_checks,
    organisation_documents,
    organisation_links,
)
from tests.conftest import START, World
from tests.organisations.desk import (
    FACTS,
    JPEG,
    PDF,
    PNG,
    add,
    applicant,
    approve,
    check,
    check_all,
    choose,
    claim,
    in_tx,
    letters,
    person,
    require,
    rows,
    state,
    token_in,
    verify,
)

BOUNDARY = datetime(2026, 3, 15, tzinfo=UTC)


@pytest.fixture
def organisation(world: World) -> Organisation:
    return add(world)


@pytest.fixture
def cleo(world: World) -> Actor:
    return person(world, "cleo@one.example")


@pytest.fixture
def dan(world: World) -> Actor:
    return person(world, "dan@one.example")


@pytest.fixture
def heard(world: World) -> list[tuple[str, dict[str, Any]]]:
    """Events of this room, as a listener above hears them."""
    told: list[tuple[str, dict[str, Any]]] = []

    async def listen(services: Any, event: Any) -> None:
        told.append((event.kind, dict(event.payload)))

    for kind in (organisations.VERIFIED, organisations.REFUSED):
        world.services.events.subscribe(kind, "test", listen)
    return told


def code_of(world: World, call: Any) -> str:
    with pytest.raises(Problem) as refused:
        world.run(call)
    return refused.value.code


# --- organisations ---------------------------------------------------------------------------------------------------


def test_an_organisation_is_kept_as_typed_and_found_by_its_account_alone(world: World) -> None:
    made = add(world)
    assert made.facts.legal_name == FACTS["legal_name"]
    assert [c.email for c in made.contacts] == ["max@beispiel.example"]
    assert world.run(organisations.list_organisations(world.services, world.other_actor)) == ()
    for call in (
        organisations.get_organisation(world.services, world.other_actor, made.id),
        organisations.update_organisation(world.services, world.other_actor, made.id, revision=1, facts={"city": "X"}),
        organisations.delete_organisation(world.services, world.other_actor, made.id),
    ):
        with pytest.raises(NotFound):
            world.run(call)
    with pytest.raises(NotFound):
        in_tx(world, organisations.organisation_for, world.other_actor, made.id)


@pytest.mark.parametrize(
    ("action", "call"),
    [
        ("scm:organisation:create", lambda w, o, a: organisations.add_organisation(w.services, a, facts=FACTS)),
        ("scm:organisation:update",
         lambda w, o, a: organisations.update_organisation(w.services, a, o.id, revision=1, facts={"city": "X"})),
        ("scm:organisation:delete", lambda w, o, a: organisations.delete_organisation(w.services, a, o.id)),
    ],
)  # fmt: skip
def test_without_the_action_nothing_is_changed(
    world: World, organisation: Organisation, action: str, call: Any
) -> None:
    weak = world.actor_with("scm:organisation:get", "scm:organisation:list")
    with pytest.raises(Forbidden) as refused:
        world.run(call(world, organisation, weak))
    assert refused.value.extra["action"] == action
    with pytest.raises(Forbidden):
        in_tx(world, organisations.organisation_for, weak, organisation.id)


def test_a_body_in_no_register_is_refused_before_anything_is_kept(world: World) -> None:
    with pytest.raises(Refused) as refused:
        add(world, kind="unlisted", registration_number="")
    assert refused.value.code == "organisation_not_verifiable"
    assert organisations.why_not_verifiable("unlisted") is not None
    assert organisations.why_not_verifiable("company") is None
    with pytest.raises(Invalid):
        organisations.why_not_verifiable("club")


def test_a_change_on_an_old_revision_is_refused(world: World, organisation: Organisation) -> None:
    change = organisations.update_organisation
    world.run(change(world.services, world.actor, organisation.id, revision=1, facts={"street": "Nebenweg 2"}))
    with pytest.raises(Stale):
        world.run(change(world.services, world.actor, organisation.id, revision=1, facts={"street": "Anderswo 3"}))


def test_facts_stay_while_they_are_verified_but_contacts_may_change(world: World, organisation: Organisation) -> None:
    require(world, organisation)
    change = organisations.update_organisation
    moved = change(world.services, world.actor, organisation.id, revision=1, facts={"city": "Potsdam"})
    assert code_of(world, moved) == "organisation_in_verification"
    gone = organisations.delete_organisation(world.services, world.actor, organisation.id)
    assert code_of(world, gone) == "organisation_in_verification"
    changed = world.run(change(world.services, world.actor, organisation.id, revision=1, contacts=[]))
    assert changed.contacts == ()
    in_tx(world, organisations.cancel, "app_1", world.clock.now())
    world.run(organisations.delete_organisation(world.services, world.actor, organisation.id))
    assert state(world).state is State.CANCELLED


# --- the flow --------------------------------------------------------------------------------------------------------


def test_an_ov_case_goes_from_mail_to_verified(
    world: World, organisation: Organisation, cleo: Actor, heard: list[Any]
) -> None:
    begun = require(world, organisation)
    assert (begun.state, begun.turn, begun.usable) == (State.AWAITING_CHOICE, "applicant", False)
    (letter,) = letters(world, begun.case_id)
    assert letter.to_address == "ada@beispiel.example"
    choose(world, begun.case_id)
    assert claim(world, cleo, begun.case_id).state is State.IN_REVIEW
    check_all(world, cleo, begun.case_id)
    world.later(days=2)
    done = approve(world, cleo, begun.case_id)
    assert (done.state, done.missing, done.allowed) == (State.VERIFIED, (), ())
    told = state(world)
    assert (told.usable, told.verified_at, told.evidence_at) == (True, START + timedelta(days=2), START)
    assert told.facts == organisation.facts
    world.drain()
    assert heard == [
        (organisations.VERIFIED, {"subject_id": "app_1", "case_id": begun.case_id, "organisation_id": organisation.id})
    ]
    assert [one.kind for one in letters(world, begun.case_id)] == ["organisation.choose", "organisation.verified"]


def test_an_ev_case_needs_a_second_person_who_gathered_nothing(
    world: World, organisation: Organisation, cleo: Actor, dan: Actor, heard: list[Any]
) -> None:
    case_id = require(world, organisation, type="ev").case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    check_all(world, cleo, case_id, but=Item.APPROVER_AUTHORITY)
    with pytest.raises(Refused) as refused:
        approve(world, cleo, case_id)
    assert refused.value.extra["missing"] == ["approver_authority"]
    check(world, cleo, case_id, "approver_authority")
    first = approve(world, cleo, case_id)
    assert (first.state, first.verified_at, first.allowed) == (State.AWAITING_SECOND, None, ())
    assert not state(world).usable
    with pytest.raises(Refused) as refused:
        approve(world, cleo, case_id)
    assert refused.value.code == "four_eyes"
    world.drain()
    assert heard == []
    done = approve(world, dan, case_id)
    assert (done.state, done.seconded_by_name) == (State.VERIFIED, "dan@one.example")
    world.drain()
    assert [kind for kind, _ in heard] == [organisations.VERIFIED]


def test_the_second_person_may_give_it_back_and_one_who_checked_can_t_be_second(
    world: World, organisation: Organisation, cleo: Actor, dan: Actor
) -> None:
    eve = person(world, "eve@one.example")
    case_id = require(world, organisation, type="ev_pro").case_id
    choose(world, case_id)
    claim(world, dan, case_id)
    check(world, dan, case_id, "existence")
    world.run(organisations.release(world.services, dan, case_id))
    claim(world, cleo, case_id)
    check_all(world, cleo, case_id)
    approve(world, cleo, case_id)
    with pytest.raises(Refused) as refused:
        approve(world, dan, case_id)
    assert refused.value.code == "four_eyes"
    back = world.run(organisations.give_back(world.services, eve, case_id, "Call the number of the directory."))
    assert (back.state, back.claimed_by, back.returned) == (
        State.IN_REVIEW, cleo.user_id, "Call the number of the directory.",
    )  # fmt: skip
    approve(world, cleo, case_id)
    assert approve(world, eve, case_id).state is State.VERIFIED


def test_a_refusal_is_told_with_its_reasons(
    world: World, organisation: Organisation, cleo: Actor, heard: list[Any]
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    check(world, cleo, case_id, "existence", "failed")
    world.run(organisations.refuse(world.services, cleo, case_id, ["The register knows no such company."]))
    assert state(world).reasons == ("The register knows no such company.",)
    world.drain()
    assert heard == [
        (organisations.REFUSED,
         {"subject_id": "app_1", "case_id": case_id, "reasons": ["The register knows no such company."]}),
    ]  # fmt: skip
    (letter,) = [letter for letter in letters(world, case_id) if letter.kind == "organisation.refused"]
    assert "The register knows no such company." in letter.text


def test_approval_is_of_what_was_read(world: World, organisation: Organisation, cleo: Actor) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    check_all(world, cleo, case_id)
    read = world.run(organisations.get_case(world.services, cleo, case_id)).revision
    world.run(organisations.send_document(world.services, world.actor, case_id, name="late.pdf", content=PDF))
    with pytest.raises(Stale):
        approve(world, cleo, case_id, read)
    assert approve(world, cleo, case_id, read + 1).state is State.VERIFIED


def test_a_check_that_the_level_doesn_t_need_is_refused(world: World, organisation: Organisation, cleo: Actor) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    with pytest.raises(Refused) as refused:
        check(world, cleo, case_id, "operational_existence")
    assert refused.value.code == "check_not_needed"


def test_documents_are_asked_for_sent_and_the_turn_goes_back(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id, "documents")
    seen = world.run(organisations.get_vetting(world.services, world.actor, case_id))
    assert (seen.state, seen.turn) == (State.AWAITING_DOCUMENTS, "applicant")
    assert seen.asked
    assert ("documents", "open") in [(line.item, line.state) for line in seen.progress]
    world.run(organisations.send_document(world.services, world.actor, case_id, name="Auszug.pdf", content=PDF))
    assert state(world).state is State.QUEUED
    claim(world, cleo, case_id)
    world.run(organisations.ask(world.services, cleo, case_id, "The second page, please."))
    assert state(world).state is State.AWAITING_DOCUMENTS
    assert any("The second page, please." in letter.text for letter in letters(world, case_id))
    world.run(organisations.send_document(world.services, world.actor, case_id, name="Seite 2.png", content=PNG))
    case = world.run(organisations.get_case(world.services, cleo, case_id))
    assert (case.state, case.claimed_by, len(case.documents)) == (State.IN_REVIEW, cleo.user_id, 2)


def test_what_the_applicant_sees_holds_nothing_of_the_desk(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    check(world, cleo, case_id, "existence")
    world.run(organisations.attach_document(world.services, cleo, case_id, name="register.jpg", content=JPEG))
    seen = world.run(organisations.get_vetting(world.services, world.actor, case_id))
    assert seen.documents == ()
    said = repr(seen)
    assert "Handelsregister" not in said
    assert "cleo" not in said
    (case,) = world.run(organisations.list_cases(world.services, cleo, state=State.IN_REVIEW, mine=True))
    assert [c.source for c in case.checks] == ["Handelsregister Berlin"]
    hidden = organisations.download_sent(world.services, world.actor, case_id, case.documents[0].id)
    with pytest.raises(NotFound):
        world.run(hidden)


# --- reuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then", "reused"),
    [("ov", "ov", True), ("ov", "ov_pro", True), ("ev", "ov", True), ("ov", "ev", False), ("ev_pro", "ev", True)],
)
def test_a_verification_serves_the_same_or_a_weaker_type(
    world: World, organisation: Organisation, cleo: Actor, dan: Actor, first: str, then: str, reused: bool
) -> None:
    source = require(world, organisation, type=first).case_id
    verify(world, source, cleo, dan if first.startswith("ev") else None)
    world.later(days=100)
    again = require(world, organisation, "app_2", then)
    assert again.usable is reused
    if reused:
        assert (again.state, again.evidence_at) == (State.VERIFIED, START)
        assert letters(world, again.case_id) == []
        assert world.run(organisations.get_vetting(world.services, world.actor, again.case_id)).reused_from == source


def test_another_ca_another_organisation_or_another_account_reuses_nothing(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    verify(world, require(world, organisation).case_id, cleo)
    twin = add(world)
    foreign = add(world, world.other_actor)
    assert not require(world, organisation, "app_2", ca="other").usable
    assert not require(world, twin, "app_3").usable
    assert not require(world, foreign, "app_4", account=world.other_actor).usable
    with pytest.raises(NotFound):
        require(world, organisation, "app_5", account=world.other_actor)
    assert require(world, organisation, "app_6").usable


def test_a_changed_organisation_is_unverified_and_changed_back_verified_again(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    verify(world, require(world, organisation).case_id, cleo)

    def change(revision: int, city: str) -> Organisation:
        facts = {"city": city}
        return world.run(
            organisations.update_organisation(
                world.services, world.actor, organisation.id, revision=revision, facts=facts
            )
        )

    assert change(1, "Potsdam").verifications == ()
    assert not require(world, organisation, "app_2").usable
    in_tx(world, organisations.cancel, "app_2", world.clock.now())
    assert len(change(2, "Berlin").verifications) == 1
    assert require(world, organisation, "app_3").usable


def test_reuse_ends_by_the_rule_of_the_day_of_issue(world: World, organisation: Organisation, cleo: Actor) -> None:
    world.clock.set(BOUNDARY - timedelta(days=600))
    verify(world, require(world, organisation).case_id, cleo)
    # 600 days are fewer than 825 until the last second before 2026-03-15, and more than 398 from then on.
    world.clock.set(BOUNDARY - timedelta(seconds=1))
    assert state(world).usable
    assert require(world, organisation, "app_2").usable
    world.clock.set(BOUNDARY)
    assert not state(world).usable
    assert not state(world, "app_2").usable
    assert require(world, organisation, "app_3").state is State.AWAITING_CHOICE


def test_reuse_counts_from_the_oldest_evidence(world: World, organisation: Organisation, cleo: Actor) -> None:
    world.clock.set(BOUNDARY)
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    check(world, cleo, case_id, "existence")
    world.later(days=20)
    check_all(world, cleo, case_id, but=Item.EXISTENCE)
    approve(world, cleo, case_id)
    world.clock.set(BOUNDARY + timedelta(days=398))
    assert require(world, organisation, "app_2").usable
    world.later(seconds=1)
    assert not require(world, organisation, "app_3").usable


def test_required_twice_is_one_case(world: World, organisation: Organisation) -> None:
    first = require(world, organisation)
    assert require(world, organisation).case_id == first.case_id
    assert len(letters(world, first.case_id)) == 1


@pytest.mark.parametrize(
    ("who", "field"),
    [
        ({"email": "nobody"}, "applicant.email"),
        ({"name": ""}, "applicant.name"),
        ({"phone": "1"}, "applicant.phone"),
    ],
)
def test_an_applicant_who_can_t_be_reached_is_refused(
    world: World, organisation: Organisation, who: dict[str, str], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        require(world, organisation, who=applicant(**who))
    assert refused.value.field == field


# --- the applicant doesn't judge, strangers don't see ----------------------------------------------------------------


def test_nobody_works_on_their_own_application(world: World, organisation: Organisation, cleo: Actor) -> None:
    case_id = require(world, organisation, who=applicant(cleo.user_id)).case_id
    choose(world, case_id)
    assert code_of(world, organisations.claim(world.services, cleo, case_id)) == "own_case"


def test_nor_on_one_with_their_address_nor_after_sending_its_documents(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation, who=applicant(email="Cleo@one.example")).case_id
    choose(world, case_id, "documents")
    assert code_of(world, organisations.ask(world.services, cleo, case_id, "x")) != "own_case"  # not her turn yet
    sender = person(world, "gus@one.example", "*")
    world.run(organisations.send_document(world.services, sender, case_id, name="a.pdf", content=PDF))
    for who in (cleo, sender):
        assert code_of(world, organisations.claim(world.services, who, case_id)) == "own_case"


def test_the_chooser_is_on_the_applicants_side(world: World, organisation: Organisation) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    assert code_of(world, organisations.claim(world.services, world.actor, case_id)) == "own_case"


def test_the_product_itself_verifies_nothing(world: World, organisation: Organisation) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    robot = system_actor(world.account.id, "renewal")
    assert code_of(world, organisations.claim(world.services, robot, case_id)) == "person_needed"


def test_the_desk_serves_every_account_and_only_the_operators_people_sit_at_it(world: World, cleo: Actor) -> None:
    foreign = add(world, world.other_actor)
    case_id = require(world, foreign, account=world.other_actor).case_id
    # An administrator of another account may everything there, and still sees no desk.
    assert world.run(organisations.list_cases(world.services, world.other_actor)) == ()
    world.run(organisations.choose(world.services, world.other_actor, case_id, "phone"))
    for call in (
        organisations.get_case(world.services, world.other_actor, case_id),
        organisations.claim(world.services, world.other_actor, case_id),
        organisations.approve(world.services, world.other_actor, case_id, revision=1),
        organisations.get_vetting(world.services, world.actor, case_id),
        organisations.choose(world.services, world.actor, case_id, "phone"),
        organisations.send_document(world.services, world.actor, case_id, name="a.pdf", content=PDF),
    ):
        with pytest.raises(NotFound):
            world.run(call)
    claim(world, cleo, case_id)
    check_all(world, cleo, case_id)
    assert approve(world, cleo, case_id).account_id == world.other_account.id
    tenant_log = [
        event.actor_name
        for event in rows(
            world, sa.select(audit_events).where(audit_events.c.account_id == world.other_account.id,
                                                 audit_events.c.action == "desk:case:approve")
        )
    ]  # fmt: skip
    assert tenant_log == ["organization desk"]


@pytest.mark.parametrize(
    ("held", "call"),
    [
        ("desk:case:get", lambda s, a, c: organisations.claim(s, a, c)),
        ("desk:case:get", lambda s, a, c: organisations.release(s, a, c)),
        ("desk:case:get",
         lambda s, a, c: organisations.record_check(s, a, c, item="phone", outcome="passed", source="x")),
        ("desk:case:get", lambda s, a, c: organisations.ask(s, a, c, "Papers.")),
        ("desk:case:get", lambda s, a, c: organisations.attach_document(s, a, c, name="a.pdf", content=PDF)),
        ("desk:case:work", lambda s, a, c: organisations.approve(s, a, c, revision=1)),
        ("desk:case:work", lambda s, a, c: organisations.refuse(s, a, c, ["No."])),
        ("desk:case:work", lambda s, a, c: organisations.give_back(s, a, c, "No.")),
        ("desk:case:decide", lambda s, a, c: organisations.download(s, a, c, "ovd_x")),
        ("scm:vetting:list", lambda s, a, c: organisations.choose(s, a, c, "phone")),
        ("scm:vetting:list", lambda s, a, c: organisations.send_document(s, a, c, name="a.pdf", content=PDF)),
        ("scm:vetting:list", lambda s, a, c: organisations.download_sent(s, a, c, "ovd_x")),
    ],
)  # fmt: skip
def test_without_the_action_the_door_stays_shut(world: World, organisation: Organisation, held: str, call: Any) -> None:
    case_id = require(world, organisation).case_id
    weak = person(world, "weak@one.example", held, "desk:case:get", "scm:vetting:get")
    with pytest.raises(Forbidden):
        world.run(call(world.services, weak, case_id))


def test_everything_about_certificates_is_nothing_at_the_desk(world: World, organisation: Organisation) -> None:
    case_id = require(world, organisation).case_id
    master = person(world, "scm@one.example", "scm:*", "ccm:*", "dns:*", "bss:*")
    assert world.run(organisations.list_cases(world.services, master)) == ()
    with pytest.raises(NotFound):
        world.run(organisations.get_case(world.services, master, case_id))


# --- races, and the database's own promises --------------------------------------------------------------------------


def test_of_two_specialists_one_gets_the_case(
    world: World, organisation: Organisation, cleo: Actor, dan: Actor
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)

    async def both() -> list[Any]:
        takers = (organisations.claim(world.services, who, case_id) for who in (cleo, dan))
        return await asyncio.gather(*takers, return_exceptions=True)

    answers = world.run(both())
    (lost,) = [answer for answer in answers if isinstance(answer, Problem)]
    assert lost.code == "case_claimed"
    (won,) = [answer for answer in answers if not isinstance(answer, Problem)]
    assert won.claimed_by == world.run(organisations.get_case(world.services, cleo, case_id)).claimed_by


def test_two_seconds_and_a_refusal_at_once_end_a_case_once(
    world: World, organisation: Organisation, cleo: Actor, dan: Actor, heard: list[Any]
) -> None:
    eve = person(world, "eve@one.example")
    case_id = require(world, organisation, type="ev").case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    check_all(world, cleo, case_id)
    read = approve(world, cleo, case_id).revision

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(
            organisations.approve(world.services, dan, case_id, revision=read),
            organisations.approve(world.services, eve, case_id, revision=read),
            organisations.refuse(world.services, eve, case_id, ["Not convincing."]),
            return_exceptions=True,
        )

    answers = world.run(all_at_once())
    assert sum(isinstance(answer, Refused) for answer in answers) == 2
    world.drain()
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"verified_at": START, "evidence_at": START}, "approved"),
        ({"verified_at": START, "evidence_at": START, "approved_by": "usr_1"}, "approved"),
        ({"approved_by": "usr_1", "seconded_by": "usr_1"}, "four_eyes"),
        ({"seconded_by": "usr_1"}, "four_eyes"),
        ({"approved_by": "usr_ada"}, "not_ones_own"),
        ({"approved_by": "usr_1", "seconded_by": "usr_ada"}, "not_ones_own"),
        ({"refused_at": START, "cancelled_at": START}, "one_end"),
        ({"level": "ov"}, "level"),
        ({"forgotten_at": START}, "forgotten"),
        ({"way": "fax"}, "way"),
    ],
)  # fmt: skip
def test_the_database_itself_refuses(
    world: World, organisation: Organisation, values: dict[str, Any], constraint: str
) -> None:
    require(world, organisation, type="ev", who=applicant("usr_ada"))
    with pytest.raises(IntegrityError, match=f"ck_organisation_cases_{constraint}"):
        rows(world, sa.update(organisation_cases).values(**values).returning(organisation_cases.c.id))


# --- withdrawal and privacy ------------------------------------------------------------------------------------------


def test_a_withdrawn_application_takes_its_case_along(world: World, organisation: Organisation, cleo: Actor) -> None:
    begun = require(world, organisation)
    choose(world, begun.case_id)
    claim(world, cleo, begun.case_id)
    assert in_tx(world, organisations.cancel, "app_1", world.clock.now())
    assert not in_tx(world, organisations.cancel, "app_1", world.clock.now())
    assert state(world).state is State.CANCELLED
    with pytest.raises(Refused) as refused:
        check(world, cleo, begun.case_id, "existence")
    assert refused.value.code == "case_state"


def test_privacy_withdrawal_erases_people_and_documents_for_good(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id, "documents")
    sent = world.run(
        organisations.send_document(world.services, world.actor, case_id, name="Ausweis Ada.pdf", content=PDF)
    )
    forget = organisations.forget_person
    with pytest.raises(Refused) as refused:
        in_tx(world, forget, world.services, "app_1", world.clock.now())
    assert refused.value.code == "case_open"
    claim(world, cleo, case_id)
    check_all(world, cleo, case_id)
    approve(world, cleo, case_id)
    in_tx(world, forget, world.services, "app_1", world.clock.now())
    in_tx(world, forget, world.services, "app_1", world.clock.now())
    kept = repr([
        rows(world, sa.select(table))
        for table in (organisation_cases, organisation_checks, organisation_documents, organisation_links)
    ])  # fmt: skip
    for word in ("Ada", "ada@beispiel", "Beispiel", "Ausweis", "Handelsregister", "765432"):
        assert word not in kept
    assert letters(world, case_id) == []
    logged = repr(rows(world, sa.select(audit_events.c.before, audit_events.c.after, audit_events.c.reason)))
    assert "ada@beispiel" not in logged
    assert "Ausweis" not in logged
    case = world.run(organisations.get_case(world.services, cleo, case_id))
    assert (case.state, case.facts, case.applicant, case.verified_at) == (State.VERIFIED, None, None, START)
    assert code_of(world, organisations.download(world.services, cleo, case_id, sent.id)) == "document_erased"
    assert state(world).usable
    assert not require(world, organisation, "app_2").usable
    assert world.run(organisations.get_vetting(world.services, world.actor, case_id)).legal_name is None


def test_a_case_follows_its_application_to_another_project(world: World, organisation: Organisation) -> None:
    case_id = require(world, organisation).case_id
    elsewhere = world.actor_with("scm:vetting:*", project_id=world.other_project_id)
    in_tx(world, organisations.move, ["app_1"], world.other_project_id)
    assert world.run(organisations.get_vetting(world.services, elsewhere, case_id)).project_id == world.other_project_id


# --- documents -------------------------------------------------------------------------------------------------------


def send(world: World, case_id: str, name: str = "a.pdf", content: bytes = PDF) -> organisations.Document:
    return world.run(organisations.send_document(world.services, world.actor, case_id, name=name, content=content))


def test_a_document_is_sealed_at_rest_and_comes_back_whole_and_audited(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    content = PDF + b"A SECRET LINE" * 1000
    sent = send(world, case_id, "Auszug 2026.pdf", content)
    (row,) = rows(world, sa.select(organisation_documents))
    assert b"SECRET" not in row.content
    assert len(row.sealed_key) < 300
    file = world.run(organisations.download(world.services, cleo, case_id, sent.id))
    assert (file.content, file.media_type, file.file_name) == (content, "application/pdf", f"{sent.id}.pdf")
    assert world.run(organisations.download_sent(world.services, world.actor, case_id, sent.id)).content == content
    downloads = rows(
        world, sa.select(audit_events.c.action, audit_events.c.actor_id).where(audit_events.c.action.like("%download"))
    )
    assert sorted(map(tuple, downloads)) == [
        ("desk:document:download", cleo.id), ("scm:vetting:download", world.actor.id),
    ]  # fmt: skip


def test_a_content_swapped_with_another_rows_doesn_t_open(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    one, other = send(world, case_id), send(world, case_id, "b.png", PNG)
    (stolen,) = rows(world, sa.select(organisation_documents).where(organisation_documents.c.id == other.id))
    swap = sa.update(organisation_documents).where(organisation_documents.c.id == one.id)
    rows(world, swap.values(content=stolen.content).returning(organisation_documents.c.id))
    with pytest.raises(Unavailable):
        world.run(organisations.download(world.services, cleo, case_id, one.id))
    rows(world, swap.values(sealed_key=stolen.sealed_key).returning(organisation_documents.c.id))
    with pytest.raises(Unavailable):
        world.run(organisations.download(world.services, cleo, case_id, one.id))


def test_rotation_of_the_key_reaches_documents(world: World, organisation: Organisation, cleo: Actor) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    sent = send(world, case_id)
    keeper = world.services.vault.keeper
    assert isinstance(keeper, FileKeyKeeper)
    active = keeper.rotate()
    assert world.run(world.services.vault.rewrap(world.services.db)) >= 1
    keeper.forget(active)
    assert world.run(organisations.download(world.services, cleo, case_id, sent.id)).content == PDF


def test_a_document_of_another_case_isn_t_there(world: World, organisation: Organisation, cleo: Actor) -> None:
    case_id = require(world, organisation).case_id
    other = require(world, organisation, "app_2", ca="other").case_id
    choose(world, case_id)
    sent = send(world, case_id)
    for call in (
        organisations.download(world.services, cleo, other, sent.id),
        organisations.download_sent(world.services, world.actor, other, sent.id),
        organisations.download_sent(world.services, world.other_actor, case_id, sent.id),
        organisations.download(world.services, world.other_actor, case_id, sent.id),
    ):
        with pytest.raises(NotFound):
            world.run(call)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.pdf", b"<script>", Invalid),
        ("a.pdf", PDF + b"\0" * 10 * 1024 * 1024, TooLarge),
        ("../a.pdf", PDF, Invalid),
        ("<b>.pdf", PDF, Invalid),
    ],
)
def test_a_bad_document_leaves_nothing_behind(
    world: World, organisation: Organisation, cleo: Actor, name: str, content: bytes, kind: type[Problem]
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    with pytest.raises(kind):
        send(world, case_id, name, content)
    claim(world, cleo, case_id)
    with pytest.raises(kind):
        world.run(organisations.attach_document(world.services, cleo, case_id, name=name, content=content))
    assert rows(world, sa.select(organisation_documents)) == []


# --- links -----------------------------------------------------------------------------------------------------------


def test_a_link_shows_without_changing_and_chooses_once(world: World, organisation: Organisation) -> None:
    begun = require(world, organisation)
    token = token_in(letters(world, begun.case_id)[0].text)
    assert token not in repr(rows(world, sa.select(organisation_links)))
    for _ in range(3):
        link = world.run(organisations.look_link(world.services, token))
    assert (link.legal_name, link.applicant_name) == (FACTS["legal_name"], "Ada Antrag")
    assert state(world).state is State.AWAITING_CHOICE
    world.run(organisations.choose_by_link(world.services, token, "official_mail"))
    assert state(world).state is State.QUEUED
    for call in (
        organisations.choose_by_link(world.services, token, "phone"),
        organisations.look_link(world.services, token),
    ):
        assert code_of(world, call) == "way_chosen"
    seen = world.run(organisations.get_vetting(world.services, world.actor, begun.case_id))
    assert seen.way == "official_mail"


def test_a_used_link_doesn_t_work_again_even_if_the_case_waits_for_a_choice(
    world: World, organisation: Organisation
) -> None:
    begun = require(world, organisation)
    token = token_in(letters(world, begun.case_id)[0].text)
    world.run(organisations.choose_by_link(world.services, token, "phone"))
    rows(world, sa.update(organisation_cases).values(way=None).returning(organisation_cases.c.id))
    assert code_of(world, organisations.choose_by_link(world.services, token, "phone")) == "link_over"


def test_forged_cut_and_expired_links_are_refused(world: World, organisation: Organisation) -> None:
    begun = require(world, organisation)
    token = token_in(letters(world, begun.case_id)[0].text)
    for forged in (token[:-1], token + "A", "", "x" * 43, "\ud800"):
        assert code_of(world, organisations.look_link(world.services, forged)) == "link_unknown"
        assert code_of(world, organisations.choose_by_link(world.services, forged, "phone")) == "link_unknown"
    assert code_of(world, organisations.choose_by_link(world.services, token, "fax")) == "word_unknown"
    world.later(days=30)
    assert code_of(world, organisations.choose_by_link(world.services, token, "phone")) == "link_over"
    assert state(world).state is State.AWAITING_CHOICE


def test_two_clicks_at_once_choose_once(world: World, organisation: Organisation) -> None:
    begun = require(world, organisation)
    token = token_in(letters(world, begun.case_id)[0].text)

    async def both() -> list[Any]:
        ways = ("phone", "official_mail")
        return await asyncio.gather(
            *(organisations.choose_by_link(world.services, token, way) for way in ways), return_exceptions=True
        )

    answers = world.run(both())
    assert [type(answer) for answer in answers].count(Refused) == 1
    chosen = rows(world, sa.select(audit_events.c.id).where(audit_events.c.action == "scm:vetting:choose"))
    assert len(chosen) == 1


# --- reminders and the end of patience -------------------------------------------------------------------------------


def test_a_silent_applicant_is_reminded_and_in_the_end_refused(
    world: World, organisation: Organisation, heard: list[Any]
) -> None:
    begun = require(world, organisation)
    tokens: list[str] = []
    for days, mails in ((2, 1), (3, 2), (6, 2), (7, 3), (14, 4), (25, 5), (29, 5)):
        world.clock.set(START + timedelta(days=days))
        world.drain()
        assert len(letters(world, begun.case_id)) == mails, days
        if days in (2, 25):
            tokens.append(token_in(letters(world, begun.case_id)[-1].text))
    # The first link and that of the last reminder work alike; one too old to be sent is kept no longer.
    for token in tokens:
        assert world.run(organisations.look_link(world.services, token)).case_id == begun.case_id
    world.clock.set(START + timedelta(days=30))
    world.drain()
    assert state(world).state is State.REFUSED
    assert "30 days" in state(world).reasons[0]
    assert [kind for kind, _ in heard] == [organisations.REFUSED]


def test_reminders_missed_while_nothing_ran_are_one(world: World, organisation: Organisation) -> None:
    begun = require(world, organisation)
    world.later(days=20)
    world.drain()
    assert len(letters(world, begun.case_id)) == 2


def test_a_slow_desk_ends_no_case(world: World, organisation: Organisation) -> None:
    begun = require(world, organisation)
    choose(world, begun.case_id)
    world.later(days=90)
    world.drain()
    assert state(world).state is State.QUEUED
    assert len(letters(world, begun.case_id)) == 1


def test_patience_begins_anew_with_each_request(world: World, organisation: Organisation, cleo: Actor) -> None:
    begun = require(world, organisation)
    world.later(days=29)
    world.drain()
    choose(world, begun.case_id)
    claim(world, cleo, begun.case_id)
    world.run(organisations.ask(world.services, cleo, begun.case_id, "The extract."))
    world.later(days=29)
    world.drain()
    assert state(world).state is State.AWAITING_DOCUMENTS
    world.later(days=1)
    world.drain()
    assert state(world).state is State.REFUSED


def test_a_claim_nobody_worked_on_can_be_released_by_a_colleague(
    world: World, organisation: Organisation, cleo: Actor, dan: Actor
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    assert code_of(world, organisations.release(world.services, dan, case_id)) == "case_not_yours"
    world.later(hours=24)
    assert world.run(organisations.release(world.services, dan, case_id)).state is State.QUEUED


# --- leftovers -------------------------------------------------------------------------------------------------------


def test_every_step_leaves_an_audit_event(world: World, organisation: Organisation, cleo: Actor, dan: Actor) -> None:
    case_id = require(world, organisation, type="ev").case_id
    verify(world, case_id, cleo, dan)
    page = world.run(_audit_of(world, case_id))
    assert {event.action for event in page} >= {
        "scm:vetting:begin", "scm:vetting:choose", "desk:case:claim", "desk:case:check", "desk:case:approve",
    }  # fmt: skip
    assert sum(event.action == "desk:case:approve" for event in page) == 2


async def _audit_of(world: World, case_id: str) -> Any:
    async with world.services.db.begin() as tx:
        query = sa.select(audit_events.c.action, audit_events.c.actor_id).where(audit_events.c.object_id == case_id)
        return (await tx.execute(query)).all()


def test_a_sent_link_isn_t_kept_in_clear(world: World, organisation: Organisation) -> None:
    from certwright.rooms.notify.applicants import SECRET_KINDS
    from certwright.rooms.notify.jobs import _SECRET_KINDS

    begun = require(world, organisation)
    (letter,) = letters(world, begun.case_id)
    assert letter.kind in SECRET_KINDS <= _SECRET_KINDS
    assert token_in(letter.text) not in letter.subject


def test_a_case_says_what_the_person_asking_may_do(
    world: World, organisation: Organisation, cleo: Actor, dan: Actor
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    look = organisations.get_case
    assert Operation.CHECK in world.run(look(world.services, cleo, case_id)).allowed
    assert world.run(look(world.services, dan, case_id)).allowed == ()
    token = replace(cleo, kind="token", id="tok_1", name="cleo@one.example via token t")
    assert Operation.CHECK in world.run(look(world.services, token, case_id)).allowed


def test_the_mail_port_is_plugged_in(world: World) -> None:
    assert Mail in world.services.ports
    assert audit.audit_events is audit_events
