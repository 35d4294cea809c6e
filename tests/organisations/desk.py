"""What the tests of this room share: an organisation, an application that needs it, specialists, and documents."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.rooms import accounts, organisations
from certwright.rooms.notify.tables import messages
from certwright.rooms.organisations import Applicant, Case, CaseState, Item, Organisation
from certwright.rooms.organisations.rules import REQUIRED
from tests.conftest import World

PDF = b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 20
JPEG = b"\xff\xd8\xff\xe0" + b"\x00" * 20

FACTS: dict[str, str] = {
    "kind": "company", "legal_name": "Beispiel Maschinenbau GmbH", "registration_number": "HRB 12345 B",
    "jurisdiction_country": "DE", "jurisdiction_region": "Berlin", "street": "Hauptstraße 1", "city": "Berlin",
    "province": "Berlin", "postal_code": "10115", "country": "DE", "phone": "+49 (30) 123-4567",
    "phone_source": "Das Örtliche",
}  # fmt: skip
CONTACT = {"name": "Max Muster", "email": "max@beispiel.example", "phone": "", "role": "IT"}


def facts(**changes: str) -> dict[str, str]:
    return FACTS | changes


def add(world: World, actor: Actor | None = None, **changes: str) -> Organisation:
    made = organisations.add_organisation(
        world.services, actor or world.actor, facts=facts(**changes), contacts=[CONTACT]
    )
    return world.run(made)


def applicant(user_id: str | None = None, **changes: Any) -> Applicant:
    given = {"name": "Ada Antrag", "email": "ada@beispiel.example", "phone": "+49 30 765432", "user_id": user_id}
    return Applicant(**(given | changes))


def require(
    world: World,
    organisation: Organisation,
    subject_id: str = "app_1",
    type: str = "ov",
    ca: str = "builtin",
    who: Applicant | None = None,
    account: Actor | None = None,
    now: datetime | None = None,
    review_days: int = 0,
) -> CaseState:
    tenant = account or world.actor

    async def go() -> CaseState:
        async with world.services.db.begin() as tx:
            return await organisations.require(
                tx, world.services, account_id=tenant.account_id, project_id=organisation.project_id,
                subject_id=subject_id, type=type, ca=ca, organisation_id=organisation.id,
                applicant=who or applicant(), now=now or world.clock.now(), review_days=review_days,
            )  # fmt: skip

    return world.run(go())


def state(world: World, subject_id: str = "app_1") -> CaseState:
    async def go() -> CaseState | None:
        async with world.services.db.begin() as tx:
            return await organisations.state(tx, world.services, subject_id, world.clock.now())

    found = world.run(go())
    assert found is not None
    return found


def in_tx(world: World, call: Any, *arguments: Any) -> Any:
    """`in_tx(world, organisations.cancel, "app_1", now)`: a door's function that takes the transaction first."""

    async def go() -> Any:
        async with world.services.db.begin() as tx:
            return await call(tx, *arguments)

    return world.run(go())


def person(world: World, email: str, *actions: str, account_id: str | None = None) -> Actor:
    """A user of the operator's account; a specialist unless `actions` say otherwise."""
    account = account_id or world.account.id

    async def go() -> str:
        async with world.services.db.begin() as tx:
            user = await accounts.insert_user(
                tx, world.services, account, email=email, name=email.partition("@")[0], password_hash="none"
            )
            return user.id

    user_id = world.run(go())
    grant = Grant("Validation Specialist", (Statement("Allow", actions or ("desk:*",)),))
    return Actor("user", user_id, email, account, (grant,), user_id)


def choose(world: World, case_id: str, way: str = "phone") -> None:
    world.run(organisations.choose(world.services, world.actor, case_id, way))


def claim(world: World, who: Actor, case_id: str) -> Case:
    return world.run(organisations.claim(world.services, who, case_id))


def check(world: World, who: Actor, case_id: str, item: str, outcome: str = "passed") -> Case:
    return world.run(
        organisations.record_check(
            world.services, who, case_id, item=item, outcome=outcome, source="Handelsregister Berlin", note="seen"
        )
    )


def check_all(world: World, who: Actor, case_id: str, but: Item | None = None) -> None:
    level = world.run(organisations.get_case(world.services, who, case_id)).level
    for item in REQUIRED[level]:
        if item is not but:
            check(world, who, case_id, item.value)


def approve(world: World, who: Actor, case_id: str, revision: int | None = None) -> Case:
    if revision is None:
        revision = world.run(organisations.get_case(world.services, who, case_id)).revision
    return world.run(organisations.approve(world.services, who, case_id, revision=revision))


def verify(world: World, case_id: str, first: Actor, second: Actor | None = None) -> Case:
    """From the choice to the end."""
    choose(world, case_id)
    claim(world, first, case_id)
    check_all(world, first, case_id)
    case = approve(world, first, case_id)
    return approve(world, second, case_id) if second is not None else case


def rows(world: World, query: Any) -> list[Any]:
    async def go() -> list[Any]:
        async with world.services.db.begin() as tx:
            return list((await tx.execute(query)).all())

    return world.run(go())


def letters(world: World, case_id: str) -> list[Any]:
    """What is in the outbox about a case, oldest first."""
    return rows(world, sa.select(messages).where(messages.c.object_id == case_id).order_by(messages.c.id))


def token_in(text: str) -> str:
    return text.partition("/organisation-verification?token=")[2].split()[0]
