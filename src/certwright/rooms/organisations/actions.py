"""What people do with organisations: add, look, change, delete; and what is asked before anybody applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Refused, Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.organisations import rules, store
from certwright.rooms.organisations.ports import ReuseRules
from certwright.rooms.organisations.tables import organisations
from certwright.rooms.organisations.words import Facts, Kind, Level, Organisation, Verification


async def list_organisations(
    services: Services, actor: Actor, *, after: str | None = None, limit: int = 20
) -> tuple[Organisation, ...]:
    """Newest first; `after` is the id of the last one seen."""
    visible = access.visible(organisations, actor, "scm:organisation:list")
    async with services.db.begin() as tx:
        return await _shown(tx, services, await store.organisations_page(tx, visible, after=after, limit=limit))


async def get_organisation(services: Services, actor: Actor, organisation_id: str) -> Organisation:
    async with services.db.begin() as tx:
        return await _one(tx, services, await _visible(tx, actor, "scm:organisation:get", organisation_id))


async def add_organisation(
    services: Services,
    actor: Actor,
    *,
    facts: Mapping[str, Any],
    contacts: Sequence[Mapping[str, Any]] = (),
    project_id: str | None = None,
) -> Organisation:
    """`facts` are texts by the names of `words.Facts`. Nothing is verified before somebody applies.

    Raises InvalidFields, and Refused `organisation_not_verifiable` for a kind that can never be.
    """
    wanted, people = rules.judge_facts(facts), rules.judge_contacts(contacts)
    if special := rules.why_not_verifiable(wanted.kind):
        raise special
    now = services.clock.now()
    organisation_id = new_id("org", now)
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "scm:organisation:create", project_id)
        await store.insert_organisation(
            tx, id=organisation_id, account_id=actor.account_id, project_id=project, **asdict(wanted),
            contacts=[asdict(person) for person in people], facts_hash=rules.hash_of(wanted), created_at=now,
            updated_at=now,
        )  # fmt: skip
        # Of what may have to be erased for good, the audit log holds nothing.
        await audit.record(
            tx, services, actor, "scm:organisation:create", "organisation", organisation_id, project_id=project,
            after={"kind": wanted.kind.value, "country": wanted.country, "contacts": len(people)},
        )  # fmt: skip
        row = await store.organisation(tx, organisation_id, organisations.c.account_id == actor.account_id)
        return await _one(tx, services, row)


async def update_organisation(
    services: Services,
    actor: Actor,
    organisation_id: str,
    *,
    revision: int,
    facts: Mapping[str, Any] | None = None,
    contacts: Sequence[Mapping[str, Any]] | None = None,
) -> Organisation:
    """Change the facts given, and replace the contacts when given. Other facts are not verified any more.

    Raises InvalidFields, Stale, and Refused `organisation_in_verification` for facts a specialist is looking at.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:organisation:update", organisation_id, lock=True)
        before = store.facts_of(row)
        wanted = rules.judge_facts(asdict(before) | dict(facts or {}))
        if special := rules.why_not_verifiable(wanted.kind):
            raise special
        if wanted != before and (await store.open_cases_of(tx, [organisation_id])):
            raise Refused(
                "organisation_in_verification", "The organization is being verified as it is.",
                fix="Wait until that is over, or withdraw the application.",
            )  # fmt: skip
        values: dict[str, Any] = asdict(wanted) | {"facts_hash": rules.hash_of(wanted), "updated_at": now}
        if contacts is not None:
            values["contacts"] = [asdict(person) for person in rules.judge_contacts(contacts)]
        if not await store.update_organisation(tx, organisation_id, revision, values):
            raise Stale(
                "changed_meanwhile", "The organization was changed by someone else since you read it.",
                fix="Read it again and repeat your change on what you find.",
            )  # fmt: skip
        changed = [name for name, value in asdict(wanted).items() if value != asdict(before)[name]]
        await audit.record(
            tx, services, actor, "scm:organisation:update", "organisation", organisation_id,
            project_id=row.project_id,
            after={"changed": changed + (["contacts"] if contacts is not None else [])},
        )  # fmt: skip
        return await _one(tx, services, await _visible(tx, actor, "scm:organisation:get", organisation_id))


async def delete_organisation(services: Services, actor: Actor, organisation_id: str) -> None:
    """Forget an organisation with its contacts. Cases that ended keep what was verified. Raises Refused
    `organisation_in_verification`."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:organisation:delete", organisation_id, lock=True)
        if await store.open_cases_of(tx, [organisation_id]):
            raise Refused(
                "organisation_in_verification", "An application of this organization is being verified.",
                fix="Withdraw the application first.",
            )  # fmt: skip
        await store.delete_organisation(tx, organisation_id)
        await audit.record(
            tx, services, actor, "scm:organisation:delete", "organisation", organisation_id, project_id=row.project_id
        )


# --- for the certificates room ---------------------------------------------------------------------------------------


async def organisation_for(tx: Tx, actor: Actor, organisation_id: str) -> Facts:
    """The facts of an organisation in whose name the actor may apply (`scm:organisation:use`); it is neither changed
    nor deleted before the transaction ends. Raises NotFound, Forbidden, Refused `organisation_not_verifiable`."""
    row = await _visible(tx, actor, "scm:organisation:use", organisation_id, keep=True)
    facts = store.facts_of(row)
    if special := rules.why_not_verifiable(facts.kind):
        raise special
    return facts


def why_not_verifiable(kind: str) -> Refused | None:
    """Ask before taking money for OV or EV: a sentence for organisations that can't be verified publicly, or None.

    Raises Invalid for a word that is no kind.
    """
    return rules.why_not_verifiable(rules.judge_word(Kind, kind, "kind", "kind of organization"))


# --- shown -----------------------------------------------------------------------------------------------------------


async def _visible(
    tx: Tx, actor: Actor, action: str, organisation_id: str, *, lock: bool = False, keep: bool = False
) -> store.Row:
    seen = access.visible(organisations, actor, "scm:organisation:get")
    row = await store.organisation(tx, organisation_id, seen, lock=lock, keep=keep)
    if row is None:
        raise not_found("organisation", organisation_id)
    access.require(actor, action, project_id=row.project_id, resource=f"organisation:{organisation_id}")
    return row


async def _one(tx: Tx, services: Services, row: store.Row) -> Organisation:
    return (await _shown(tx, services, [row]))[0]


async def _shown(tx: Tx, services: Services, rows: Sequence[store.Row]) -> tuple[Organisation, ...]:
    ids = [row.id for row in rows]
    now = services.clock.now()
    reuse = services.port(ReuseRules).organization_reuse(now)
    found: dict[str, list[Verification]] = {}
    for made in await store.verifications_of(tx, ids):
        if rules.is_fresh(made.evidence_at, now, reuse):
            found.setdefault(made.organisation_id, []).append(
                Verification(made.id, made.ca, Level(made.level), made.evidence_at, made.evidence_at + reuse)
            )
    waiting = await store.open_cases_of(tx, ids)
    return tuple(
        Organisation(
            row.id, row.project_id, store.facts_of(row), store.contacts_of(row), tuple(found.get(row.id, ())),
            waiting.get(row.id, 0), row.revision, row.created_at, row.updated_at,
        )
        for row in rows
    )  # fmt: skip
