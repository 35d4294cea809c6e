"""Who runs the server alone, and how the desk as a whole keeps up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.platform.config import Settings
from certwright.rooms import organisations, watch
from certwright.rooms.audit.tables import audit_events
from certwright.rooms.organisations import Organisation, State
from certwright.rooms.organisations.tables import organisation_cases
from certwright.rooms.watch import jobs as watch_jobs
from certwright.rooms.watch.tables import alarms
from tests.conftest import World
from tests.organisations.desk import add, applicant, approve, check_all, choose, claim, in_tx, person, require, rows
from tests.organisations.test_room import code_of


@pytest.fixture
def settings(tmp_path: Path, worker_database: str) -> Settings:
    """Of a server whose operator lets applicants verify OV themselves."""
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        lone_desk=True,
    )  # fmt: skip


@pytest.fixture
def organisation(world: World) -> Organisation:
    return add(world)


@pytest.fixture
def cleo(world: World) -> Actor:
    return person(world, "cleo@one.example")


def test_who_runs_the_server_alone_may_verify_ov_where_the_operator_allows_it_and_it_is_audited(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation, who=applicant(cleo.user_id)).case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    revision = world.run(organisations.get_case(world.services, cleo, case_id)).revision
    early = organisations.approve(world.services, cleo, case_id, revision=revision)
    assert code_of(world, early) == "checks_missing"
    check_all(world, cleo, case_id)
    made = approve(world, cleo, case_id)
    assert (made.state, made.alone) == (State.VERIFIED, True)
    approvals = [row for row in rows(world, sa.select(audit_events)) if row.action == "desk:case:approve"]
    assert [row.after["own_application"] for row in approvals] == [True]


def test_a_colleague_who_applied_nowhere_is_not_noted_as_alone(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation).case_id
    choose(world, case_id)
    claim(world, cleo, case_id)
    check_all(world, cleo, case_id)
    assert approve(world, cleo, case_id).alone is False


@pytest.mark.parametrize(
    ("type", "ca", "theirs"),
    [("ev", "builtin", False), ("ev_pro", "builtin", False), ("ov", "ca_elsewhere", False), ("ov", "builtin", True)],
    ids=["ev", "ev pro", "another CA", "another account"],
)
def test_the_setting_opens_nothing_but_ov_of_the_own_ca_in_the_own_account(
    world: World, organisation: Organisation, cleo: Actor, type: str, ca: str, theirs: bool
) -> None:
    account = world.other_actor if theirs else None
    wanted = add(world, account) if theirs else organisation
    case_id = require(world, wanted, type=type, ca=ca, who=applicant(cleo.user_id), account=account).case_id
    world.run(organisations.choose(world.services, account or world.actor, case_id, "phone"))
    assert code_of(world, organisations.claim(world.services, cleo, case_id)) == "own_case"


def test_the_database_refuses_an_ev_approval_of_ones_own_whatever_the_setting(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation, type="ev", who=applicant(cleo.user_id)).case_id
    with pytest.raises(IntegrityError, match="ck_organisation_cases_alone"):
        _set(world, case_id, approved_by=cleo.user_id, alone=True)


def _set(world: World, case_id: str, **values: Any) -> None:
    async def go() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(sa.update(organisation_cases).where(organisation_cases.c.id == case_id).values(**values))

    world.run(go())


# --- the desk keeps up or doesn't -------------------------------------------------------------------------------------


def backlog(world: World) -> organisations.Backlog:
    return in_tx(world, organisations.backlog, world.clock.now())


def desk_alarms(world: World) -> list[tuple[str, bool]]:
    world.run(watch_jobs.look_at_desk(world.services))
    return [
        (watch.sentence(row.reason, row.params), row.cleared_at is None)
        for row in rows(world, sa.select(alarms)) if row.kind == "ALM-2001016"
    ]  # fmt: skip


def test_a_case_that_waits_longer_than_its_product_promises_raises_an_alarm_that_clears_itself(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    # The world's clock begins on a Sunday, 12:00.
    case_id = require(world, organisation, review_days=3).case_id
    world.later(days=2)
    assert (backlog(world).waiting, desk_alarms(world)) == (0, []), "it was the applicant's turn"
    choose(world, case_id)
    world.later(days=3, seconds=-1)
    assert desk_alarms(world) == []
    world.later(seconds=1)
    ((said, open_),) = desk_alarms(world)
    assert said == "1 of 1 cases at the organization desk are late; the first was due on 2026-03-06 12:00 UTC."
    assert open_
    assert desk_alarms(world) == [(said, True)], "looked at twice it is one alarm"
    assert world.run(organisations.get_case(world.services, cleo, case_id)).due_at == world.clock.now()
    claim(world, cleo, case_id)
    assert desk_alarms(world) == [(said, True)], "taking a case finishes nothing"
    world.run(organisations.ask(world.services, cleo, case_id, "A lease, please."))
    assert desk_alarms(world) == [(said, False)]


def test_a_late_case_that_is_decided_clears_the_alarm_too(
    world: World, organisation: Organisation, cleo: Actor
) -> None:
    case_id = require(world, organisation, review_days=1).case_id
    choose(world, case_id)
    world.later(days=9)
    assert [open_ for _, open_ in desk_alarms(world)] == [True]
    claim(world, cleo, case_id)
    check_all(world, cleo, case_id)
    approve(world, cleo, case_id)
    assert [open_ for _, open_ in desk_alarms(world)] == [False]
