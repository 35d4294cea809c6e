"""The desk: specialists of the operator work the cases of every account, each step judged by `rules.why_not`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Refused, Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, accounts, audit
from certwright.rooms.organisations import cases, rules, store
from certwright.rooms.organisations.cases import Gathered
from certwright.rooms.organisations.ports import Occasion
from certwright.rooms.organisations.tables import organisation_cases
from certwright.rooms.organisations.words import (
    Applicant,
    Case,
    CaseFacts,
    CertificateType,
    Check,
    Item,
    Level,
    Operation,
    Outcome,
    State,
    Turn,
)

_OPERATIONS = tuple(
    operation
    for operation in Operation
    if operation not in (Operation.CHOOSE, Operation.SEND, Operation.CANCEL, Operation.EXPIRE)
)


async def list_cases(
    services: Services,
    actor: Actor,
    *,
    state: State | None = None,
    mine: bool = False,
    after: str | None = None,
    limit: int = 20,
) -> tuple[Case, ...]:
    """Cases of every account, oldest first: the queue is worked from its head. `after` is the id of the last one seen.

    Nothing for people of other accounts than the operator's.
    """
    async with services.db.begin() as tx:
        visible = await access.visible_to_operator(tx, organisation_cases, actor, "desk:case:list")
        rows = await store.cases_page(
            tx, visible, state=state, claimed_by=(actor.user_id or "nobody") if mine else None, after=after,
            limit=limit, oldest_first=True,
        )  # fmt: skip
        email = await email_of(tx, actor)
        return tuple(shown(services, case, actor, email) for case in await cases.gather(tx, rows))


async def get_case(services: Services, actor: Actor, case_id: str) -> Case:
    async with services.db.begin() as tx:
        return await _shown_anew(tx, services, actor, case_id)


async def claim(services: Services, actor: Actor, case_id: str) -> Case:
    """Take a case from the queue. Of two specialists one gets it; the other hears `case_claimed`."""
    now = services.clock.now()
    values = {"claimed_by": actor.user_id, "claimed_by_name": actor.name, "claimed_at": now, "worked_at": now}
    return await _step(services, actor, "desk:case:work", case_id, Operation.CLAIM, values, now)


async def release(services: Services, actor: Actor, case_id: str) -> Case:
    """Put a case back; a colleague's only when nobody worked on it for a day."""
    values = {"claimed_by": None, "claimed_by_name": None, "claimed_at": None, "worked_at": None}
    return await _step(services, actor, "desk:case:work", case_id, Operation.RELEASE, values, services.clock.now())


async def record_check(
    services: Services, actor: Actor, case_id: str, *, item: str, outcome: str, source: str, note: str = ""
) -> Case:
    """Note what was found: `source` names where it was looked up. A later check of the same item replaces an earlier
    one; none is lost. Raises Invalid, Refused."""
    wanted = rules.judge_word(Item, item, "item", "item to check")
    found = rules.judge_word(Outcome, outcome, "outcome", "outcome")
    where, words = rules.judge_text(source, "source", 300), rules.judge_note(note, "note", 4000, needed=False)
    now = services.clock.now()
    async with services.db.begin() as tx:
        case = await judged(tx, services, actor, "desk:case:work", case_id, Operation.CHECK, now)
        if wanted not in rules.REQUIRED[Level(case.row.level)]:
            raise Refused(
                "check_not_needed", f"{wanted.value} isn't checked for {case.row.level.upper()}.", field="item",
                fix=f"Check {', '.join(rules.REQUIRED[Level(case.row.level)])}.",
            )  # fmt: skip
        await store.insert_check(
            tx, id=new_id("ovk", now), case_id=case_id, item=wanted.value, outcome=found.value, source=where,
            note=words, by_user=actor.user_id, by_name=actor.name, at=now,
        )  # fmt: skip
        await apply(tx, case, {"worked_at": now})
        await audited(
            tx, services, actor, case.row, "desk:case:check", after={"item": wanted.value, "outcome": found.value}
        )
        return await _shown_anew(tx, services, actor, case_id)


async def ask(services: Services, actor: Actor, case_id: str, words: str) -> Case:
    """Ask the applicant for documents, in words they are mailed; it is their turn until they send some."""
    asked, now = rules.judge_note(words, "words", 2000), services.clock.now()
    async with services.db.begin() as tx:
        case = await judged(tx, services, actor, "desk:case:work", case_id, Operation.ASK, now)
        await apply(tx, case, cases.waiting(now) | {"asked": asked, "worked_at": now})
        row = await store.case(tx, case_id)
        await cases.mail(tx, services, row, Occasion.DOCUMENTS, words=asked.splitlines())
        await audited(tx, services, actor, case.row, "desk:case:ask")
        return await _shown_anew(tx, services, actor, case_id)


async def approve(services: Services, actor: Actor, case_id: str, *, revision: int) -> Case:
    """Approve what was read at `revision`. For OV that is the end; for EV a second person who gathered none of the
    evidence approves as well. Raises Stale, Refused `checks_missing`, `four_eyes`, Forbidden `own_case`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        case = await judged(tx, services, actor, "desk:case:decide", case_id, Operation.APPROVE, now)
        if case.row.revision != revision:
            raise Stale(
                "changed_meanwhile", "The case was changed since you read it.",
                fix="Read it again and judge what you find.", extra={"revision": case.row.revision},
            )  # fmt: skip
        values: dict[str, Any] = {"worked_at": now}
        if case.state is State.AWAITING_SECOND:
            values |= {"seconded_by": actor.user_id, "seconded_by_name": actor.name}
        else:
            values |= {"approved_by": actor.user_id, "approved_by_name": actor.name, "approved_at": now}
        ends = case.state is State.AWAITING_SECOND or case.facts.level is Level.OV
        if ends:
            values |= {"verified_at": now, "evidence_at": _oldest_evidence(case)}
        told: dict[str, Any] = {"verified": ends, "second": case.state is State.AWAITING_SECOND}
        if actor.user_id in case.facts.applicants:
            values, told = values | {"alone": True}, told | {"own_application": True}
        await apply(tx, case, values)
        await audited(tx, services, actor, case.row, "desk:case:approve", after=told)
        if ends:
            await cases.tell_verified(tx, services, case.row)
        return await _shown_anew(tx, services, actor, case_id)


async def give_back(services: Services, actor: Actor, case_id: str, words: str) -> Case:
    """The second person doesn't approve yet: back to the first, with what is to be mended."""
    returned, now = rules.judge_note(words, "words", 2000), services.clock.now()
    values = {
        "approved_by": None, "approved_by_name": None, "approved_at": None, "worked_at": now, "returned": returned,
    }  # fmt: skip
    return await _step(services, actor, "desk:case:decide", case_id, Operation.RETURN, values, now)


async def refuse(services: Services, actor: Actor, case_id: str, reasons: Sequence[str]) -> Case:
    """End the case; the applicant reads the reasons. Raises Invalid, Refused, Forbidden."""
    said, now = rules.judge_reasons(reasons), services.clock.now()
    async with services.db.begin() as tx:
        case = await judged(tx, services, actor, "desk:case:decide", case_id, Operation.REFUSE, now)
        await apply(tx, case, cases.not_waiting(now) | {"refused_at": now, "reasons": said, "worked_at": now})
        await audited(tx, services, actor, case.row, "desk:case:refuse", after={"reasons": len(said)})
        await cases.tell_refused(tx, services, case.row, said)
        return await _shown_anew(tx, services, actor, case_id)


def _oldest_evidence(case: Gathered) -> datetime:
    """When the oldest of the checks that count was made."""
    newest: dict[str, datetime] = {check.item: check.at for check in case.checks}
    return min(newest[item.value] for item in rules.REQUIRED[case.facts.level])


# --- how the desk keeps up --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Backlog:
    """Cases that wait for the desk, how many of them for longer than their products promise, and since when the first
    of these should have been done."""

    waiting: int
    late: int
    due_at: datetime | None


async def backlog(tx: Tx, now: datetime) -> Backlog:
    """Of all accounts."""
    ends = [rules.review_ends(row.desk_since, Level(row.level), row.review_days) for row in await store.desk_turns(tx)]
    late = [end for end in ends if end <= now]
    return Backlog(len(ends), len(late), min(late, default=None))


def due_at(row: store.Row, state: State) -> datetime | None:
    if rules.turn_of(state) is not Turn.DESK or row.desk_since is None:
        return None
    return rules.review_ends(row.desk_since, Level(row.level), row.review_days)


# --- shared ----------------------------------------------------------------------------------------------------------


async def _step(
    services: Services,
    actor: Actor,
    action: str,
    case_id: str,
    operation: Operation,
    values: Mapping[str, Any],
    now: datetime,
) -> Case:
    async with services.db.begin() as tx:
        case = await judged(tx, services, actor, action, case_id, operation, now)
        await apply(tx, case, values)
        await audited(tx, services, actor, case.row, f"desk:case:{operation.value}")
        return await _shown_anew(tx, services, actor, case_id)


async def judged(
    tx: Tx, services: Services, actor: Actor, action: str, case_id: str, operation: Operation, now: datetime
) -> Gathered:
    """The case, locked, if this person may do this to it now. Raises NotFound, Forbidden, Refused."""
    case = await desk_case(tx, actor, action, case_id, lock=True)
    facts = with_person(services, case, actor, await email_of(tx, actor))
    if refusal := rules.why_not(operation, facts, actor.user_id, now):
        raise refusal
    return replace(case, facts=facts)


async def desk_case(tx: Tx, actor: Actor, action: str, case_id: str, *, lock: bool = False) -> Gathered:
    visible = await access.visible_to_operator(tx, organisation_cases, actor, "desk:case:get")
    row = await store.case(tx, case_id, visible, lock=lock)
    if row is None:
        raise not_found("case", case_id)
    access.require(actor, action, project_id=row.project_id, resource=f"organisation-case:{case_id}")
    (case,) = await cases.gather(tx, [row])
    return case


async def email_of(tx: Tx, actor: Actor) -> str | None:
    if actor.user_id is None:
        return None
    own = accounts.tables.users.c.account_id == actor.account_id
    user = await accounts.store.get_user(tx, own, actor.user_id)
    return user.email if user is not None else None


def with_person(services: Services, case: Gathered, actor: Actor, email: str | None) -> CaseFacts:
    """The facts, with the person among the applicants if that address is theirs, and whether it matters."""
    alone = rules.may_be_alone(
        case.facts.level, case.row.ca, own_account=case.row.account_id == actor.account_id,
        setting=services.settings.lone_desk,
    )  # fmt: skip
    facts = replace(case.facts, may_be_alone=alone)
    if actor.user_id is None or email is None or case.row.applicant_email != email:
        return facts
    return replace(facts, applicants=facts.applicants | {actor.user_id})


async def apply(tx: Tx, case: Gathered, values: Mapping[str, Any]) -> None:
    if not await store.move_case(tx, case.row.id, case.state, **values):
        raise cases.changed_meanwhile()


async def audited(
    tx: Tx,
    services: Services,
    actor: Actor,
    row: store.Row,
    action: str,
    *,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Audit what the desk did, in the operator's log and, without the person's name, in that of the account."""
    own = actor.account_id == row.account_id
    await audit.record(
        tx, services, actor, action, "organisation-case", row.id, project_id=row.project_id if own else None,
        after=after,
    )  # fmt: skip
    if not own:
        desk = Actor("system", "desk", "organization desk", row.account_id, request_id=actor.request_id)
        await audit.record(
            tx, services, desk, action, "organisation-case", row.id, project_id=row.project_id, after=after
        )


async def _shown_anew(tx: Tx, services: Services, actor: Actor, case_id: str) -> Case:
    case = await desk_case(tx, actor, "desk:case:get", case_id)
    return shown(services, case, actor, await email_of(tx, actor))


def shown(services: Services, case: Gathered, actor: Actor, email: str | None) -> Case:
    row, now = case.row, services.clock.now()
    facts = with_person(services, case, actor, email)
    applicant = None
    if row.applicant_email is not None:
        applicant = Applicant(
            row.applicant_name, row.applicant_email, row.applicant_phone, row.applied_by, row.locale
        )  # fmt: skip
    return Case(
        id=row.id, account_id=row.account_id, project_id=row.project_id, subject_id=row.subject_id,
        organisation_id=row.organisation_id, type=CertificateType(row.type), level=Level(row.level), ca=row.ca,
        state=case.state, turn=rules.turn_of(case.state), facts=store.case_facts_of(row), applicant=applicant,
        way=case.facts.way, asked=row.asked, required=rules.REQUIRED[case.facts.level],
        missing=rules.missing(case.facts),
        checks=tuple(
            Check(c.id, Item(c.item), Outcome(c.outcome), c.source, c.note, c.by_name, c.at) for c in case.checks
        ),
        documents=tuple(cases.shown_document(document) for document in case.documents),
        claimed_by=row.claimed_by, claimed_by_name=row.claimed_by_name, claimed_at=row.claimed_at,
        approved_by_name=row.approved_by_name, approved_at=row.approved_at, seconded_by_name=row.seconded_by_name,
        returned=row.returned, reasons=tuple(row.reasons), refused_unless_by=cases.patience_ends(row),
        reused_from=row.reused_from, forgotten_at=row.forgotten_at, created_at=row.created_at,
        verified_at=row.verified_at, evidence_at=row.evidence_at, refused_at=row.refused_at,
        cancelled_at=row.cancelled_at, alone=row.alone, due_at=due_at(row, case.state), revision=row.revision,
        allowed=tuple(o for o in _OPERATIONS if rules.why_not(o, facts, actor.user_id, now) is None),
    )  # fmt: skip
