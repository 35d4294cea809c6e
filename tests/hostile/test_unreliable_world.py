"""What goes wrong around the product at the worst moment, and must not stay wrong."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from certwright.entry.web_certificate import WebCertificate
from certwright.kernel.problems import Problem, Unavailable
from certwright.platform import jobs
from certwright.platform.db import Database
from certwright.platform.events import events
from certwright.platform.jobs import Again, Worker
from certwright.platform.services import Services
from certwright.platform.vault import FileKeyKeeper
from certwright.rooms import authorities, certificates
from certwright.rooms.authorities.tables import authorities as cas
from certwright.rooms.certificates import RevocationReason, State
from certwright.rooms.keys.tables import private_keys
from certwright.rooms.renewal import jobs as renewal_jobs
from certwright.rooms.renewal.tables import renewal_queues, renewals
from tests.conftest import World

RENEW = "renewal.renew"


@pytest.fixture
def product(world: World) -> World:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return world


def _issued(world: World, **more: Any) -> str:
    made = world.run(certificates.issue_private(world.services, world.actor, names=["a.example"], **more))
    world.drain()
    return made.id


def _detail(world: World, certificate_id: str) -> certificates.Detail:
    return world.run(certificates.get_certificate(world.services, world.actor, certificate_id))


def _row(world: World, query: sa.Select[Any]) -> Any:
    async def read() -> Any:
        async with world.services.db.begin() as tx:
            return (await tx.execute(query)).one()

    return world.run(read())


def _plan(world: World, certificate_id: str) -> Any:
    return _row(world, sa.select(renewals).where(renewals.c.certificate_id == certificate_id))


def _let_through(world: World, certificate_id: str) -> Any:
    """The clock is put to when it is due; the plan, once its queue let it through."""
    world.clock.set(_plan(world, certificate_id).renew_at)
    queue = _row(world, sa.select(renewal_queues.c.id))
    world.run(world.services.jobs.run_step(world.services, "renewal.admit", queue.id))
    plan = _plan(world, certificate_id)
    assert plan.admitted_at is not None
    return plan


# --- renewal ---------------------------------------------------------------------------------------------------------


def test_a_renewal_that_somebody_withdrew_is_started_again(product: World) -> None:
    certificate_id = _issued(product)
    plan = _let_through(product, certificate_id)
    product.run(product.services.jobs.run_step(product.services, RENEW, plan.id))
    assert _detail(product, certificate_id).summary.state is State.VERIFYING_REISSUE
    product.run(certificates.withdraw(product.services, product.actor, certificate_id))
    for _ in range(4):
        product.drain()
        product.later(hours=12)
    assert [version.number for version in _detail(product, certificate_id).versions] == [2, 1]


def test_a_version_issued_while_the_renewing_step_still_runs_is_planned(
    product: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever releases a row must not undo what was planned for it meanwhile."""
    certificate_id = _issued(product)
    plan = _let_through(product, certificate_id)
    reissue = certificates.renew_version

    async def quick(services: Services, *args: Any, **kwargs: Any) -> str:
        application_id = await reissue(services, *args, **kwargs)
        await jobs.drain(services)
        return application_id

    monkeypatch.setattr(renewal_jobs.certificates, "renew_version", quick)
    product.run(product.services.jobs.run_step(product.services, RENEW, plan.id))
    assert [version.number for version in _detail(product, certificate_id).versions] == [2, 1]
    after = _plan(product, certificate_id)
    assert after.version_id != plan.version_id
    assert (after.admitted_at, after.started_at) == (None, None)


# --- an application its CA will never fulfil -------------------------------------------------------------------------


def test_a_reissue_that_its_ca_refuses_can_be_given_up(product: World) -> None:
    certificate_id = _issued(product)

    async def disable() -> None:
        async with product.services.db.begin() as tx:
            await tx.execute(sa.update(cas).values(disabled_at=product.clock.now()))

    product.run(disable())
    product.run(certificates.reissue(product.services, product.actor, certificate_id))
    for _ in range(3):
        product.drain()
        product.later(hours=2)
    if _detail(product, certificate_id).summary.state is not State.ISSUED:
        product.run(certificates.withdraw(product.services, product.actor, certificate_id))
    assert _detail(product, certificate_id).summary.state is State.ISSUED


# --- the console's own certificate -----------------------------------------------------------------------------------


def _console_certificate(world: World) -> certificates.Summary:
    listed = certificates.list_certificates(world.services, world.actor, certificates.Filters(search="console-"))
    return next(one for one in world.run(listed) if one.name.startswith("console-"))


def test_the_server_starts_after_its_own_certificate_was_revoked(product: World) -> None:
    product.run(WebCertificate(product.services).load())
    mine = _console_certificate(product)
    product.run(certificates.revoke(product.services, product.actor, mine.id, RevocationReason.CESSATION_OF_OPERATION))
    product.drain()
    product.run(WebCertificate(product.services).load())


def test_the_server_starts_after_standing_still_until_its_own_certificate_ran_out(product: World) -> None:
    product.run(WebCertificate(product.services).load())
    product.later(days=120)
    product.run(WebCertificate(product.services).load())


def test_certificates_that_are_called_like_the_consoles_own_do_not_keep_the_server_from_starting(
    product: World,
) -> None:
    product.run(WebCertificate(product.services).load())
    mine = _console_certificate(product)
    for number in range(21):
        product.later(seconds=1)
        product.run(certificates.create_certificate(product.services, product.actor, name=f"{mine.name}-{number}"))
    product.run(WebCertificate(product.services).load())


# --- the database goes away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.CannotConnectNowError("the database system is in recovery mode"),
        asyncpg.TooManyConnectionsError("sorry, too many clients already"),
    ],
    ids=["recovering", "full"],
)
def test_a_database_that_refuses_connections_for_a_while_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise error

    async def ask() -> None:
        db = Database("postgresql://nobody@127.0.0.1:1/none")
        monkeypatch.setattr(asyncpg, "connect", refuse)
        try:
            async with db.begin():
                pass
        finally:
            await db.close()

    with pytest.raises(Unavailable):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.CannotConnectNowError("the database system is in recovery mode"),
        asyncpg.TooManyConnectionsError("sorry, too many clients already"),
    ],
    ids=["recovering", "full"],
)
def test_the_queue_waits_for_a_database_that_refuses_connections(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    worker = Worker(world.services)
    asked = []

    async def connect_raw() -> None:
        asked.append(1)
        if len(asked) == 2:
            worker.stop()
        raise error

    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(world.services.db, "connect_raw", connect_raw)
    monkeypatch.setattr(worker, "_pause", at_once)
    world.run(worker._queue())
    assert len(asked) == 2


def test_one_sweep_that_fails_does_not_end_the_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadlock is the database's way to say: once more."""
    worker = Worker(world.services)
    tried = []

    async def sweep(_: Database) -> int:
        tried.append(1)
        if len(tried) == 2:
            worker.stop()
        raise DBAPIError("UPDATE", None, asyncpg.DeadlockDetectedError("deadlock detected"))

    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(world.services.jobs, "sweep", sweep)
    monkeypatch.setattr(worker, "_pause", at_once)
    world.run(worker._sweeping())
    assert len(tried) == 2


# --- leases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["done", "again", "problem"])
def test_a_step_slower_than_its_lease_does_not_take_the_row_from_the_worker_that_has_it_now(
    world: World, ending: str
) -> None:
    services, clock = world.services, world.clock
    asyncio_lease = services.jobs.lease

    async def slow(services: Services, object_id: str) -> None:
        clock.move(asyncio_lease + timedelta(seconds=1))
        assert await services.jobs._claim(services.db, events, object_id)
        if ending == "again":
            raise Again(timedelta(seconds=5))
        if ending == "problem":
            raise Unavailable("away", "It is away.")

    services.jobs.register("test.slow", events, slow)

    async def insert() -> None:
        async with services.db.begin() as tx:
            await tx.execute(
                sa.insert(events).values(
                    id="evt_slow", kind="test", account_id="a", object_id="o", payload={}, at=clock.now(),
                    next_step_at=clock.now(),
                )
            )  # fmt: skip

    world.run(insert())
    world.run(services.jobs.run_step(services, "test.slow", "evt_slow"))
    row = _row(world, sa.select(events.c.step_lease_until).where(events.c.id == "evt_slow"))
    assert row.step_lease_until is not None, "the second worker's lease was taken away by the first"


# --- keys ------------------------------------------------------------------------------------------------------------


def _keeper(world: World) -> FileKeyKeeper:
    keeper = world.services.vault.keeper
    assert isinstance(keeper, FileKeyKeeper)
    return keeper


def test_a_row_that_is_locked_while_keys_are_rotated_is_put_under_the_new_key_too(product: World) -> None:
    """Otherwise `--forget-old` destroys the only key that opens it."""
    certificate_id = _issued(product)
    services = product.services
    query = sa.select(private_keys.c.id, private_keys.c.sealed)

    async def rotate() -> None:
        fresh = _keeper(product).rotate()
        async with services.db.begin() as tx:
            await tx.execute(query.with_for_update())
            rewrapping = asyncio.create_task(services.vault.rewrap(services.db))
            await asyncio.wait({rewrapping}, timeout=0.5)
        await rewrapping
        _keeper(product).forget(fresh)

    product.run(rotate())
    file = product.run(certificates.download(services, product.actor, certificate_id, "key"))
    assert b"PRIVATE KEY" in file.content


def test_a_damaged_secret_is_named_when_keys_are_rotated(product: World) -> None:
    _issued(product)
    services = product.services

    async def rotate() -> None:
        async with services.db.begin() as tx:
            row = (await tx.execute(sa.select(private_keys.c.id, private_keys.c.sealed))).one()
            damaged = bytearray(row.sealed)
            damaged[30] ^= 1
            await tx.execute(sa.update(private_keys).values(sealed=bytes(damaged)))
        _keeper(product).rotate()
        await services.vault.rewrap(services.db)

    with pytest.raises(Problem):
        product.run(rotate())


# --- inputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
@pytest.mark.parametrize("path", ["/api/v1/certificates?expires_before=", "/api/v1/audit-events?since="])
def test_a_moment_at_the_end_of_the_calendar_is_no_internal_error(api: Any, path: str, moment: str) -> None:
    answer = api.get(path + moment.replace("+", "%2B"))
    assert answer.status_code in (200, 422)


def test_a_made_up_cursor_at_the_end_of_the_calendar_is_no_internal_error(api: Any) -> None:
    import base64
    import json

    cursor = base64.urlsafe_b64encode(json.dumps(["expiry", "0001-01-01T00:00:00+14:00", "x"]).encode()).decode()
    answer = api.get("/api/v1/certificates?sort=expiry&cursor=" + cursor.rstrip("="))
    assert answer.status_code in (200, 422)


def test_an_address_that_a_user_may_have_can_be_written_to() -> None:
    """Administrators are told as long as there are no recipients; a letter that can't be made is retried for ever."""
    from certwright.connectors.channel.smtp import as_email
    from certwright.rooms.accounts.rules import normal_email
    from certwright.rooms.notify import Letter

    try:
        address = normal_email("jörg@exämple.com")
    except Problem:
        return  # refusing it when it is entered is fine, too
    written = datetime(2026, 3, 1, tzinfo=UTC)
    as_email(Letter("msg_1", address, "Jörg", "Hi", "t", "<p>", "en", written), sender="cw@example.com")
