"""The step of a case: remind the applicant while it is their turn, and end it when they are silent for too long."""

from __future__ import annotations

from certwright.kernel.actor import system_actor
from certwright.platform.jobs import Next
from certwright.platform.services import Services
from certwright.rooms import audit
from certwright.rooms.organisations import cases, rules, store
from certwright.rooms.organisations.ports import Occasion
from certwright.rooms.organisations.words import Operation, State

CASE_STEP = "organisations.case"


async def case_step(services: Services, case_id: str) -> Next:
    """Content to find nothing to do: the applicant answered, or the case is over."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await store.case(tx, case_id, lock=True)
        if row is None:
            return None
        facts = cases.bare_facts(row)
        state = rules.state_of(facts)
        if state not in (State.AWAITING_CHOICE, State.AWAITING_DOCUMENTS) or row.waiting_since is None:
            return None
        ours = system_actor(row.account_id, "organisations")
        if rules.why_not(Operation.EXPIRE, facts, None, now) is None:
            reasons = [rules.silent()]
            await store.move_case(
                tx, case_id, state, refused_at=now, reasons=reasons, waiting_since=None, next_step_at=None
            )
            await audit.record(
                tx, services, ours, "scm:vetting:expire", "organisation-case", case_id, project_id=row.project_id,
                reason=reasons[0],
            )  # fmt: skip
            await cases.tell_refused(tx, services, row, reasons)
            return None
        due, pause = rules.next_look(row.waiting_since, now)
        if due > row.reminders and await store.note_reminder(tx, case_id, due):
            link = await cases.new_link(tx, services, case_id, now) if state is State.AWAITING_CHOICE else None
            words = row.asked.splitlines() if row.asked else ()
            await cases.mail(tx, services, row, Occasion.REMINDER, words=words, link=link, number=due)
        return pause
