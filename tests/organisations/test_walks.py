"""Random walks of a case through the real room on a real database, compared with the pure rules and with a table of
where each operation leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from certwright.kernel.actor import Actor
from certwright.kernel.problems import Problem
from certwright.rooms import organisations
from certwright.rooms.organisations import Item, Level, Operation, State, cases, rules, store
from certwright.rooms.organisations.jobs import case_step
from certwright.rooms.organisations.tables import organisation_cases
from certwright.rooms.organisations.words import ENDED, CaseFacts
from tests.conftest import World
from tests.organisations.desk import PDF, add, applicant, check_all, in_tx, person, require, rows

PEOPLE = ("ada", "cleo", "dan", "eve")
"""ada applied."""

# (operation, what it is done with): who does it is drawn as well.
MOVES = (
    (Operation.CHOOSE, "phone"), (Operation.CHOOSE, "documents"), (Operation.SEND, ""), (Operation.CLAIM, ""),
    (Operation.RELEASE, ""), (Operation.CHECK, "passed"), (Operation.CHECK, "failed"),
    (Operation.CHECK, "everything"), (Operation.ATTACH, ""), (Operation.ASK, ""), (Operation.APPROVE, ""),
    (Operation.APPROVE, ""), (Operation.RETURN, ""), (Operation.REFUSE, ""), (Operation.CANCEL, ""),
    (Operation.EXPIRE, ""),
)  # fmt: skip
STEP = st.tuples(
    st.sampled_from(MOVES), st.sampled_from(PEOPLE), st.sampled_from(Item), st.sampled_from([0, 0, 0, 0, 25, 800])
)

FORWARD = "forward"
"""A step towards the good end: without it hardly a walk would reach the second pair of eyes."""


def leads_to(operation: Operation, with_: str, before: CaseFacts) -> State:
    """Where an operation that worked must have led; says nothing of whether it may."""
    state = rules.state_of(before)
    match operation:
        case Operation.CHOOSE:
            return State.AWAITING_DOCUMENTS if with_ == "documents" and not before.documents else State.QUEUED
        case Operation.SEND:
            if state is State.AWAITING_DOCUMENTS:
                return State.IN_REVIEW if before.claimed_by else State.QUEUED
            return state
        case Operation.CLAIM | Operation.RETURN:
            return State.IN_REVIEW
        case Operation.RELEASE:
            return State.AWAITING_DOCUMENTS if before.waiting_since else State.QUEUED
        case Operation.CHECK | Operation.ATTACH:
            return state
        case Operation.ASK:
            return State.AWAITING_DOCUMENTS
        case Operation.APPROVE:
            first_of_ev = state is State.IN_REVIEW and before.level is Level.EV
            return State.AWAITING_SECOND if first_of_ev else State.VERIFIED
        case Operation.REFUSE | Operation.EXPIRE:
            return State.REFUSED
        case Operation.CANCEL:
            return State.CANCELLED


class Walk:
    """One case, and everybody who may have a hand in it."""

    def __init__(self, world: World, type: str, number: int) -> None:
        self.world = world
        self.people = {name: person(world, f"{name}{number}@one.example", "desk:*", "scm:*") for name in PEOPLE}
        self.subject = f"app_{number}"
        who = applicant(self.people["ada"].user_id)
        self.case_id = require(world, add(world), self.subject, type, who=who).case_id

    def facts(self) -> CaseFacts:
        async def go() -> CaseFacts:
            async with self.world.services.db.begin() as tx:
                row = await store.case(tx, self.case_id)
                (case,) = await cases.gather(tx, [row])
                return case.facts

        return self.world.run(go())

    def revision(self) -> int:
        query = sa.select(organisation_cases.c.revision).where(organisation_cases.c.id == self.case_id)
        return int(rows(self.world, query)[0][0])

    def do(self, operation: Operation, with_: str, who: Actor, item: Item) -> None:
        """Raises Problem when it is refused."""
        services, case_id, run = self.world.services, self.case_id, self.world.run
        work: dict[Operation, Callable[[], Any]] = {
            Operation.CHOOSE: lambda: run(organisations.choose(services, who, case_id, with_)),
            Operation.SEND: lambda: run(
                organisations.send_document(services, who, case_id, name="a.pdf", content=PDF)
            ),
            Operation.CLAIM: lambda: run(organisations.claim(services, who, case_id)),
            Operation.RELEASE: lambda: run(organisations.release(services, who, case_id)),
            Operation.CHECK: lambda: run(
                organisations.record_check(services, who, case_id, item=item, outcome=with_, source="register")
            ),
            Operation.ATTACH: lambda: run(
                organisations.attach_document(services, who, case_id, name="b.pdf", content=PDF)
            ),
            Operation.ASK: lambda: run(organisations.ask(services, who, case_id, "Papers.")),
            Operation.APPROVE: lambda: run(
                organisations.approve(services, who, case_id, revision=self.revision())
            ),
            Operation.RETURN: lambda: run(organisations.give_back(services, who, case_id, "Again.")),
            Operation.REFUSE: lambda: run(organisations.refuse(services, who, case_id, ["No."])),
            Operation.CANCEL: lambda: in_tx(self.world, organisations.cancel, self.subject, self.world.clock.now()),
            Operation.EXPIRE: lambda: run(case_step(services, case_id)),
        }  # fmt: skip
        if with_ == "everything":
            check_all(self.world, who, case_id)
        else:
            work[operation]()

    def check_promises(self) -> None:
        facts = self.facts()
        state = rules.state_of(facts)
        said = [
            each.value
            for each in State
            if rows(self.world, sa.select(organisation_cases.c.id).where(
                organisation_cases.c.id == self.case_id, store.is_in(each)))
        ]  # fmt: skip
        assert said == [state.value], "SQL and the rules read the same state, and exactly one"
        assert (facts.waiting_since is not None) >= (state in (State.AWAITING_CHOICE, State.AWAITING_DOCUMENTS))
        (row,) = rows(self.world, sa.select(organisation_cases).where(organisation_cases.c.id == self.case_id))
        assert (row.next_step_at is not None) == (state in (State.AWAITING_CHOICE, State.AWAITING_DOCUMENTS))
        if state in (State.VERIFIED, State.AWAITING_SECOND):
            assert rules.missing(facts) == ()
            hands = {row.approved_by, row.seconded_by} - {None}
            assert not hands & facts.applicants
            if state is State.VERIFIED:
                assert len(hands) == (2 if facts.level is Level.EV else 1)
                assert row.seconded_by is None or row.seconded_by not in facts.checkers
        assert {line.state for line in rules.progress(facts)} <= {"done", "open", "later", "failed"}

    def forward(self) -> bool:
        """One step towards a good end by whoever may take it; False when there is nobody, or nothing left to do."""
        facts = self.facts()
        ada, desk = self.people["ada"], [self.people[name] for name in ("cleo", "dan", "eve")]
        able = [p for p in desk if p.user_id not in facts.applicants]
        match rules.state_of(facts):
            case State.AWAITING_CHOICE:
                self.do(Operation.CHOOSE, "phone", ada, Item.PHONE)
            case State.AWAITING_DOCUMENTS:
                self.do(Operation.SEND, "", ada, Item.PHONE)
            case State.QUEUED if able:
                # Whoever gathered evidence before goes on, so that somebody is left to be second.
                able.sort(key=lambda p: p.user_id not in facts.checkers)
                self.do(Operation.CLAIM, "", able[0], Item.PHONE)
            case State.IN_REVIEW if able:
                holder = next((p for p in able if p.user_id == facts.claimed_by), None)
                if holder is None:
                    # Who has it is on the applicant's side by now; a day later a colleague puts it back.
                    self.world.later(hours=25)
                    self.do(Operation.RELEASE, "", able[0], Item.PHONE)
                elif rules.missing(facts):
                    check_all(self.world, holder, self.case_id)
                else:
                    self.do(Operation.APPROVE, "", holder, Item.PHONE)
            case State.AWAITING_SECOND if seconds := [p for p in able if p.user_id not in facts.checkers]:
                self.do(Operation.APPROVE, "", seconds[0], Item.PHONE)
            case _:
                return False
        return True

    def finish(self) -> None:
        """From wherever the walk ended, people can bring the case to an end: nothing is stuck but for want of people,
        and then it can be withdrawn."""
        for _ in range(60):
            if not self.forward():
                break
        facts = self.facts()
        if rules.state_of(facts) in ENDED:
            return
        idle = [self.people[n].user_id for n in ("cleo", "dan", "eve")]
        assert all(user in facts.applicants | facts.checkers for user in idle), "somebody could have gone on"
        self.do(Operation.CANCEL, "", self.people["ada"], Item.PHONE)
        assert rules.state_of(self.facts()) is State.CANCELLED


@pytest.fixture
def walks(world: World) -> Callable[[str], Walk]:
    count = iter(range(10_000))
    return lambda kind: Walk(world, kind, next(count))


@hypothesis.settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(type=st.sampled_from(["ov", "ev", "ev"]), steps=st.lists(st.just(FORWARD) | STEP, min_size=8, max_size=22))
def test_no_walk_finds_a_step_the_rules_and_the_room_disagree_about(
    world: World, walks: Callable[[str], Walk], type: str, steps: list[Any]
) -> None:
    walk = walks(type)
    for step in steps:
        if step is FORWARD:
            walk.forward()
            walk.check_promises()
            continue
        (operation, with_), name, item, hours = step
        world.later(hours=hours)
        who = walk.people[name]
        before = walk.facts()
        # Documents sent for the applicant put the sender on that side; nobody here has the applicant's address.
        foreseen = rules.why_not(operation, before, who.user_id, world.clock.now())
        needless = operation is Operation.CHECK and with_ != "everything" and item not in rules.REQUIRED[before.level]
        code = None
        try:
            walk.do(operation, with_, who, item)
        except Problem as problem:
            code = problem.code
        after = walk.facts()
        if operation in (Operation.CANCEL, Operation.EXPIRE):
            # The product's own: what is not due changes nothing and is no error.
            assert code is None
            expected = leads_to(operation, with_, before) if foreseen is None else rules.state_of(before)
            assert rules.state_of(after) is expected
        elif foreseen is not None:
            assert code == foreseen.code
            assert after == before
        elif needless:
            assert code == "check_not_needed"
            assert after == before
        else:
            assert code is None
            assert rules.state_of(after) is leads_to(operation, with_, before)
        walk.check_promises()
    walk.finish()
    walk.check_promises()


def test_every_state_is_reached_on_a_straight_walk(world: World, walks: Callable[[str], Walk]) -> None:
    """So that the random walks can't miss one for want of a way there."""
    seen = set()
    walk = walks("ev")
    ada, cleo, dan = (walk.people[name] for name in ("ada", "cleo", "dan"))
    straight = [
        (Operation.CHOOSE, "documents", ada), (Operation.SEND, "", ada), (Operation.CLAIM, "", cleo),
        (Operation.CHECK, "everything", cleo), (Operation.APPROVE, "", cleo), (Operation.APPROVE, "", dan),
    ]  # fmt: skip
    seen.add(rules.state_of(walk.facts()))
    for operation, with_, who in straight:
        walk.do(operation, with_, who, Item.PHONE)
        seen.add(rules.state_of(walk.facts()))
    refused, cancelled = walks("ov"), walks("ov")
    refused.do(Operation.CHOOSE, "phone", refused.people["ada"], Item.PHONE)
    refused.do(Operation.CLAIM, "", refused.people["dan"], Item.PHONE)
    refused.do(Operation.REFUSE, "", refused.people["dan"], Item.PHONE)
    cancelled.do(Operation.CANCEL, "", cancelled.people["dan"], Item.PHONE)
    seen |= {rules.state_of(refused.facts()), rules.state_of(cancelled.facts())}
    assert seen == set(State)


def test_the_sql_of_a_state_is_the_rules_for_every_combination_of_facts(
    world: World, walks: Callable[[str], Walk]
) -> None:
    walk = walks("ev")
    base = walk.facts()
    now = world.clock.now()
    ends: tuple[dict[str, Any], ...] = (
        {}, {"refused_at": now}, {"cancelled_at": now},
        {"verified_at": now, "evidence_at": now, "approved_by": "usr_1", "seconded_by": "usr_2"},
    )  # fmt: skip
    for way in (None, "phone"):
        for waiting in (None, now):
            for claimed in (None, "usr_1"):
                for approved in (None, "usr_1"):
                    for end in ends:
                        values = {
                            "way": way, "waiting_since": waiting, "claimed_by": claimed, "approved_by": approved,
                            "verified_at": None, "evidence_at": None, "refused_at": None, "cancelled_at": None,
                            "seconded_by": None,
                        } | end  # fmt: skip
                        change = sa.update(organisation_cases).where(organisation_cases.c.id == walk.case_id)
                        rows(world, change.values(**values).returning(organisation_cases.c.id))
                        found = walk.facts()
                        said = [
                            each
                            for each in State
                            if rows(world, sa.select(organisation_cases.c.id).where(store.is_in(each)))
                        ]
                        assert said == [rules.state_of(found)], values
    assert replace(base, way=None) == base
