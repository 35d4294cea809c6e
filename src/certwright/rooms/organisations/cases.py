"""A case from its beginning to the applicant's part in it: required by an application, chosen, watched, forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Refused, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, accounts, audit
from certwright.rooms.organisations import rules, store
from certwright.rooms.organisations.ports import Letter, Mail, Occasion, ReuseRules
from certwright.rooms.organisations.tables import organisation_cases, organisations
from certwright.rooms.organisations.words import (
    ENDED,
    REFUSED,
    VERIFIED,
    Applicant,
    CaseFacts,
    CaseState,
    CertificateType,
    Document,
    Level,
    Link,
    Operation,
    State,
    Turn,
    Vetting,
    Way,
)

# --- for the certificates room, in its transaction -------------------------------------------------------------------


async def require(
    tx: Tx,
    services: Services,
    *,
    account_id: str,
    project_id: str,
    subject_id: str,
    type: str,
    ca: str,
    organisation_id: str,
    applicant: Applicant,
    now: datetime,
    review_days: int = 0,
) -> CaseState:
    """Have an organisation verified for an application (`subject_id`), or find that it is: by the same CA, unchanged,
    to the same or a stronger level, and lately enough for a certificate issued now. Else the applicant is mailed.

    `type` is a word of `CertificateType`, `review_days` the working days the product promises (0: no product).
    Content to be called twice: the first call decides. Raises Invalid (type, applicant.*), NotFound, and Refused
    `organisation_not_verifiable`.
    """
    known = await store.case_of(tx, subject_id)
    if known is not None:
        return _state(services, known, now)
    wanted, who = rules.judge_type(type), rules.judge_applicant(applicant)
    row = await store.organisation(tx, organisation_id, organisations.c.account_id == account_id, keep=True)
    if row is None:
        raise not_found("organisation", organisation_id).at("organisation_id")
    facts = store.facts_of(row)
    if special := rules.why_not_verifiable(facts.kind):
        raise special
    reuse = services.port(ReuseRules).organization_reuse(now)
    source = await store.reusable(
        tx, account_id=account_id, organisation_id=organisation_id, ca=ca, facts_hash=row.facts_hash,
        levels=[level.value for level in rules.levels_that_serve(wanted.level)], since=now - reuse,
    )  # fmt: skip
    case_id = new_id("ovc", now)
    if source is not None:
        begun: dict[str, Any] = {"reused_from": source.id, "verified_at": now, "evidence_at": source.evidence_at}
    else:
        begun = waiting(now)
    fresh = await store.insert_case(
        tx, id=case_id, account_id=account_id, project_id=project_id, subject_id=subject_id,
        organisation_id=organisation_id, type=wanted.value, level=wanted.level.value, ca=ca, facts=asdict(facts),
        facts_hash=row.facts_hash, applicant_name=who.name, applicant_email=who.email, applicant_phone=who.phone,
        locale=who.locale, applied_by=who.user_id, created_at=now, review_days=review_days, **begun,
    )  # fmt: skip
    made = await store.case_of(tx, subject_id)
    if fresh:
        if source is None:
            await mail(tx, services, made, Occasion.CHOOSE, link=await new_link(tx, services, case_id, now))
        await audit.record(
            tx, services, system_actor(account_id, "organisations"), "scm:vetting:begin", "organisation-case", case_id,
            project_id=project_id,
            after={
                "subject": subject_id, "organisation": organisation_id, "type": wanted.value, "ca": ca,
                "reused_from": source.id if source else None,
            },
        )  # fmt: skip
    return _state(services, made, now)


async def state(tx: Tx, services: Services, subject_id: str, now: datetime) -> CaseState | None:
    """How the verification for an application stands at `now`; None when none was required."""
    row = await store.case_of(tx, subject_id)
    return None if row is None else _state(services, row, now)


async def cancel(tx: Tx, subject_id: str, now: datetime) -> bool:
    """Give up a verification that isn't over; False when there is none. Whoever withdraws the application audits it."""
    return await store.cancel_case(tx, subject_id, now)


async def forget_person(tx: Tx, services: Services, subject_id: str, now: datetime) -> None:
    """Privacy authorisation was withdrawn: erase the applicant's and the organisation's details of this application,
    its documents, what the desk noted, and the letters, for good. That it was verified, when and by whom stays; it is
    reused by no other application. Content to be called twice. Raises Refused `case_open`."""
    row = await store.case_of(tx, subject_id, lock=True)
    if row is None or row.forgotten_at is not None:
        return
    if _state(services, row, now).state not in ENDED:
        raise Refused(
            "case_open", "The organization is still being verified.", fix="Withdraw the application first.",
            extra={"case_id": row.id},
        )  # fmt: skip
    await store.forget_case(tx, row.id, now)
    await services.port(Mail).forget(tx, row.account_id, row.id)
    await audit.record(
        tx, services, system_actor(row.account_id, "organisations"), "scm:vetting:forget", "organisation-case", row.id,
        project_id=row.project_id,
    )  # fmt: skip


async def move(tx: Tx, subject_ids: Sequence[str], project_id: str) -> None:
    """Cases go to another project with their applications; the organisations stay where they are."""
    await store.set_project(tx, subject_ids, project_id)


def _state(services: Services, row: store.Row, now: datetime) -> CaseState:
    reuse = services.port(ReuseRules).organization_reuse(now)
    stands = rules.state_of(bare_facts(row))
    return CaseState(
        case_id=row.id, subject_id=row.subject_id, state=stands, turn=rules.turn_of(stands),
        usable=row.evidence_at is not None and rules.is_fresh(row.evidence_at, now, reuse),
        facts=store.case_facts_of(row), verified_at=row.verified_at, evidence_at=row.evidence_at,
        usable_until=row.evidence_at + reuse if row.evidence_at is not None else None, reasons=tuple(row.reasons),
    )  # fmt: skip


# --- gathering -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gathered:
    """A case with all a rule looks at."""

    row: store.Row
    facts: CaseFacts
    checks: tuple[store.Row, ...]
    documents: tuple[store.Row, ...]

    @property
    def state(self) -> State:
        return rules.state_of(self.facts)


def bare_facts(row: store.Row) -> CaseFacts:
    """Enough for `rules.state_of`."""
    return CaseFacts(
        level=Level(row.level), way=Way(row.way) if row.way else None, asked=row.asked is not None,
        waiting_since=row.waiting_since, claimed_by=row.claimed_by, worked_at=row.worked_at,
        approved_by=row.approved_by, verified_at=row.verified_at, refused_at=row.refused_at,
        cancelled_at=row.cancelled_at, reasons=tuple(row.reasons),
        applicants=frozenset(user for user in (row.applied_by, row.chosen_by) if user),
    )  # fmt: skip


async def gather(tx: Tx, rows: Sequence[store.Row]) -> list[Gathered]:
    ids = [row.id for row in rows]
    checks = await store.checks(tx, ids) if ids else []
    documents = await store.documents(tx, ids) if ids else []
    found = []
    for row in rows:
        own_checks = tuple(check for check in checks if check.case_id == row.id)
        own_documents = tuple(document for document in documents if document.case_id == row.id)
        bare = bare_facts(row)
        facts = CaseFacts(
            **{name: getattr(bare, name) for name in _BARE},
            outcomes=store.outcomes_of(own_checks),
            checkers=frozenset(check.by_user for check in own_checks),
            applicants=bare.applicants | {document.by_user for document in own_documents if document.from_applicant},
            documents=len(own_documents),
        )
        found.append(Gathered(row, facts, own_checks, own_documents))
    return found


_BARE = (
    "level", "way", "asked", "waiting_since", "claimed_by", "worked_at", "approved_by", "verified_at", "refused_at",
    "cancelled_at", "reasons",
)  # fmt: skip


def shown_document(row: store.Row) -> Document:
    return Document(
        row.id, row.name, row.media_type, row.size, row.sha256, row.from_applicant, row.by_name, row.at
    )  # fmt: skip


# --- the applicant's side --------------------------------------------------------------------------------------------


async def list_vettings(
    services: Services,
    actor: Actor,
    *,
    state: State | None = None,
    subject_id: str | None = None,
    organisation_id: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> tuple[Vetting, ...]:
    """The account's own cases, newest first."""
    visible = access.visible(organisation_cases, actor, "scm:vetting:list")
    async with services.db.begin() as tx:
        rows = await store.cases_page(
            tx, visible, state=state, subject_id=subject_id, organisation_id=organisation_id, after=after, limit=limit
        )
        return tuple(vetting_of(case) for case in await gather(tx, rows))


async def get_vetting(services: Services, actor: Actor, case_id: str) -> Vetting:
    async with services.db.moment() as tx:
        return vetting_of(await own_case(tx, actor, "scm:vetting:get", case_id))


async def choose(services: Services, actor: Actor, case_id: str, way: str) -> Vetting:
    """Choose how to be verified while signed in; possible until a specialist has taken the case. Raises Invalid,
    Refused."""
    wanted, now = _way(way), services.clock.now()
    async with services.db.begin() as tx:
        case = await own_case(tx, actor, "scm:vetting:choose", case_id, lock=True)
        await _choose(tx, services, actor, case, wanted, now)
        return vetting_of(await own_case(tx, actor, "scm:vetting:get", case_id))


async def look_link(services: Services, secret: str) -> Link:
    """What a mailed link is about; changes nothing, so that mail scanners may follow it. Raises Invalid `link_unknown`,
    Refused `link_over`, `way_chosen`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        case, expires_at = await _linked(tx, secret, now)
    row = case.row
    return Link(row.id, row.facts["legal_name"], CertificateType(row.type), row.applicant_name, expires_at)


async def choose_by_link(services: Services, secret: str, way: str) -> None:
    """Choose with the token of a mailed link, which works once. Raises as `look_link`, and Invalid for the way."""
    wanted, now = _way(way), services.clock.now()
    async with services.db.begin() as tx:
        case, _ = await _linked(tx, secret, now, lock=True)
        if not await store.use_link(tx, accounts.hash_secret(secret), now):
            raise _link_over()
        actor = Actor("system", "applicant", "the applicant, by a mailed link", case.row.account_id)
        await _choose(tx, services, actor, case, wanted, now)


async def _linked(tx: Tx, secret: str, now: datetime, *, lock: bool = False) -> tuple[Gathered, datetime]:
    known = await store.link(tx, accounts.hash_secret(secret))
    row = None if known is None else await store.case(tx, known.case_id, lock=lock)
    if known is None or row is None:
        raise Invalid(
            "link_unknown", "The link is not one of ours, or not complete.", field="token",
            fix="Follow the link of the newest message, to its last character.",
        )  # fmt: skip
    (case,) = await gather(tx, [row])
    if case.state is not State.AWAITING_CHOICE:
        raise Refused(
            "way_chosen", "It was chosen already how the organization is verified, or that isn't needed any more.",
            fix="Look at the application to see how far it is.", extra={"state": case.state.value},
        )  # fmt: skip
    if known.used_at is not None or known.expires_at <= now:
        raise _link_over()
    return case, known.expires_at


def _link_over() -> Refused:
    return Refused(
        "link_over", "The link was used before or is too old.", field="token",
        fix="Sign in and choose there, or wait for the next reminder.",
    )  # fmt: skip


def _way(text: str) -> Way:
    return rules.judge_word(Way, text, "way", "way to be verified")


async def _choose(tx: Tx, services: Services, actor: Actor, case: Gathered, way: Way, now: datetime) -> None:
    if refusal := rules.why_not(Operation.CHOOSE, case.facts, actor.user_id, now):
        raise refusal
    asked = rules.asks_for(way, sum(document.from_applicant for document in case.documents))
    values: dict[str, Any] = waiting(now) if asked else not_waiting(now)
    values |= {"way": way.value, "chosen_by": actor.user_id, "asked": asked}
    if not await store.move_case(tx, case.row.id, case.state, **values):
        raise changed_meanwhile()
    if asked:
        fresh = await store.case(tx, case.row.id)
        await mail(tx, services, fresh, Occasion.DOCUMENTS, words=(asked,))
    await audit.record(
        tx, services, actor, "scm:vetting:choose", "organisation-case", case.row.id, project_id=case.row.project_id,
        before={"way": case.row.way}, after={"way": way.value},
    )  # fmt: skip


async def own_case(tx: Tx, actor: Actor, action: str, case_id: str, *, lock: bool = False) -> Gathered:
    row = await store.case(tx, case_id, access.visible(organisation_cases, actor, "scm:vetting:get"), lock=lock)
    if row is None:
        raise not_found("verification", case_id)
    access.require(actor, action, project_id=row.project_id, resource=f"organisation-case:{case_id}")
    (case,) = await gather(tx, [row])
    return case


def vetting_of(case: Gathered) -> Vetting:
    row, turn = case.row, rules.turn_of(case.state)
    facts = store.case_facts_of(row)
    return Vetting(
        id=row.id, project_id=row.project_id, subject_id=row.subject_id, organisation_id=row.organisation_id,
        legal_name=facts.legal_name if facts else None, type=CertificateType(row.type), ca=row.ca, state=case.state,
        turn=turn, way=case.facts.way, asked=row.asked if turn is Turn.APPLICANT else None,
        progress=rules.progress(case.facts),
        documents=tuple(shown_document(document) for document in case.documents if document.from_applicant),
        reasons=tuple(row.reasons), refused_unless_by=patience_ends(row), reused_from=row.reused_from,
        created_at=row.created_at, verified_at=row.verified_at,
    )  # fmt: skip


# --- shared with the desk and the steps ------------------------------------------------------------------------------


def waiting(now: datetime) -> dict[str, Any]:
    """It becomes the applicant's turn."""
    return {"waiting_since": now, "reminders": 0, "next_step_at": now + rules.REMINDERS[0], "desk_since": None}


def not_waiting(now: datetime) -> dict[str, Any]:
    """It becomes the desk's turn."""
    return {"waiting_since": None, "next_step_at": None, "desk_since": now}


def patience_ends(row: store.Row) -> datetime | None:
    open_ = row.verified_at is None and row.refused_at is None and row.cancelled_at is None
    return row.waiting_since + rules.PATIENCE if open_ and row.waiting_since is not None else None


def changed_meanwhile() -> Refused:
    return Refused(
        "case_changed", "Somebody else changed the case at the same moment.", fix="Look at it again, then go on."
    )


async def new_link(tx: Tx, services: Services, case_id: str, now: datetime) -> str:
    """The address of a page where the applicant chooses; only a hash of its secret is kept."""
    secret = accounts.new_secret()
    await store.insert_link(
        tx, secret_hash=accounts.hash_secret(secret), case_id=case_id, created_at=now, expires_at=now + rules.PATIENCE
    )
    return f"{services.settings.base_url}/organisation-verification?token={secret}"


async def mail(
    tx: Tx,
    services: Services,
    row: store.Row,
    occasion: Occasion,
    *,
    words: Sequence[str] = (),
    link: str | None = None,
    number: int = 0,
) -> None:
    """Write to the applicant, once for each occasion, revision of the case, and `number`."""
    if row.applicant_email is None:
        return
    await services.port(Mail).write(
        tx,
        services,
        Letter(
            row.account_id, row.id, f"organisation:{row.id}:{occasion.value}:{row.revision}:{number}", occasion,
            row.applicant_email, row.applicant_name, row.locale, row.facts["legal_name"], row.type, tuple(words), link,
            patience_ends(row),
        ),
    )  # fmt: skip


async def tell_verified(tx: Tx, services: Services, row: store.Row) -> None:
    await services.events.publish(
        tx, VERIFIED, account_id=row.account_id, object_id=row.subject_id,
        payload={"subject_id": row.subject_id, "case_id": row.id, "organisation_id": row.organisation_id},
    )  # fmt: skip
    await mail(tx, services, row, Occasion.VERIFIED)


async def tell_refused(tx: Tx, services: Services, row: store.Row, reasons: Sequence[str]) -> None:
    await services.events.publish(
        tx, REFUSED, account_id=row.account_id, object_id=row.subject_id,
        payload={"subject_id": row.subject_id, "case_id": row.id, "reasons": list(reasons)},
    )  # fmt: skip
    await mail(tx, services, row, Occasion.REFUSED, words=reasons)
