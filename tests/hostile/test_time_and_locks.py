"""Clocks that jump, rows locked in the other order, addresses that clients make up."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from certwright.entry import serve
from certwright.kernel.problems import Refused
from certwright.rooms import authorities, certificates, watch
from certwright.rooms.certificates import Applicant, Application
from certwright.rooms.certificates import jobs as issuing
from tests.conftest import World
from tests.servers.ports import free_port


def test_watching_goes_on_after_the_clock_was_a_year_ahead_for_a_while(world: World) -> None:
    """A machine that starts with a wrong clock must not be blind until that time has really come."""
    made = world.run(watch.create_endpoint(world.services, world.actor, host="127.0.0.1", port=free_port()))
    right = world.clock.now()
    world.clock.move(timedelta(days=365))
    assert world.run(watch.probe_due(world.services)) == 1
    world.clock.set(right + timedelta(seconds=2 * world.services.settings.probe_interval))
    assert world.run(watch.probe_due(world.services)) == 1
    row, _, _ = world.run(watch.get_endpoint(world.services, world.actor, made.id))
    assert row.last_probe_at == world.clock.now()


def test_withdrawing_while_the_last_domain_becomes_valid_is_no_internal_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both change the certificate and its application; whoever comes second must find one order of locks."""
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    application = Application(
        names=("shop.example.org",), applicant=Applicant("Ada", "ada@example.org", "+44 20 7946 0000"), consent=True
    )
    made = world.run(certificates.create_certificate(world.services, world.actor, application=application))
    assert made.application is not None
    record, state = issuing.store.record, issuing.validation.state
    withdrawing: list[asyncio.Task[Any]] = []

    async def valid(*_: Any) -> Any:
        return SimpleNamespace(all_valid=True, domains=())

    async def record_then_meet(tx: Any, application_id: str, missing: str, **values: Any) -> bool:
        written = await record(tx, application_id, missing, **values)
        if missing == "validated_at":
            monkeypatch.setattr(issuing.store, "record", record)
            monkeypatch.setattr(issuing.validation, "state", state)
            withdrawing.append(asyncio.create_task(certificates.withdraw(world.services, world.actor, made.id)))
            await asyncio.wait(withdrawing, timeout=0.3)
        return written

    monkeypatch.setattr(issuing.validation, "state", valid)
    monkeypatch.setattr(issuing.store, "record", record_then_meet)

    async def both() -> list[Any]:
        first = await asyncio.gather(issuing.issue_step(world.services, made.application.id), return_exceptions=True)
        return [*first, *await asyncio.gather(*withdrawing, return_exceptions=True)]

    outcomes = world.run(both())
    assert withdrawing
    assert not [one for one in outcomes if isinstance(one, DBAPIError)], outcomes
    assert all(not isinstance(one, Exception) or isinstance(one, Refused) for one in outcomes)


def test_a_client_cannot_make_up_the_address_it_comes_from(world: World) -> None:
    """The throttle of sign-in and the audit log go by the address: only proxies named by the operator may tell it."""
    config = serve._uvicorn_config(world.services, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert not config.proxy_headers or config.forwarded_allow_ips in ([], "", ())


def test_the_queues_own_log_does_not_grow_for_ever(world: World) -> None:
    """Every job leaves some lines there; nothing of ours reads them, and a full disk stops the database."""
    services = world.services
    long_ago = world.clock.now() - timedelta(days=400)

    async def chores() -> int:
        async with services.db.begin() as tx:
            await tx.exec_driver_sql(
                "INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority, created) "
                "VALUES (1, 'successful', 'events.deliver', 0, $1)",
                (long_ago,),
            )
        for chore in services.jobs.chores:
            await chore.run(services)
        async with services.db.begin() as tx:
            return int(await tx.scalar(sa.text("SELECT count(*) FROM pgqueuer_log")) or 0)

    assert world.run(chores()) == 0
