"""Fixtures every test may use: `world` is the wired product on a database of its own, with a clock moved by hand."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import importlib.util
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx2
import hypothesis
import pytest
import typer
import typer.testing
import uvloop
from fastapi import FastAPI

from certwright.connectors import payment
from certwright.entry import wiring
from certwright.entry.app import create_app
from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.clock import SetClock
from certwright.platform import jobs, resolver
from certwright.platform.config import Settings
from certwright.platform.db import Database
from certwright.platform.migrations import migrate
from certwright.platform.processes import Processes
from certwright.platform.services import Services
from certwright.rooms import access, accounts
from tests.servers import postgres
from tests.servers.no_names import no_names
from tests.servers.processes import Here

T = TypeVar("T")

# New examples, and so many times as many where a test doesn't say how many. Without it everybody gets the same: what
# chance finds must not stop the change that happens to be there (see "Chance" in README.md).
CHANCE = int(os.environ.get("CERTWRIGHT_CHANCE") or 0)
# Speed lives in benchmarks; a test that fails because the machine was busy says nothing.
hypothesis.settings.register_profile(
    "ours", deadline=None, derandomize=not CHANCE, max_examples=100 * max(1, CHANCE), print_blob=True
)
hypothesis.settings.load_profile("ours")

# httpx2 asks at each request whether trio runs; where there is none, Python would look for it in every directory.
if importlib.util.find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # how Python notes that there is none

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

_CLEAN = """
DO $$
DECLARE t text; filled boolean;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR t IN SELECT quote_ident(tablename) FROM pg_tables
             WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', t) INTO filled;
        IF filled THEN EXECUTE format('DELETE FROM %s', t); END IF;
    END LOOP;
END $$
"""


def _is_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ


def _run_dir(factory: pytest.TempPathFactory) -> Path:
    base = factory.getbasetemp()
    return base.parent if _is_worker() else base


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector needn't look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not _is_worker():
        factory: pytest.TempPathFactory = session.config._tmp_path_factory
        if factory._basetemp is not None:
            postgres.stop(factory.getbasetemp())


@pytest.fixture(scope="session", autouse=True)
def command_trees() -> Iterator[None]:
    """Made once: typer reads the signatures of two hundred commands whenever one of them is called."""
    made = cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", made)
        patch.setattr(typer.testing, "_get_command", made)
        yield


@pytest.fixture(scope="session", autouse=True)
def names_of_nobody() -> Iterator[None]:
    """Where no DNS server is configured, none of this machine's is asked, but one to which no name exists."""
    with no_names() as endpoint, pytest.MonkeyPatch.context() as patch:
        host, _, port = endpoint.partition(":")
        patch.setattr(resolver, "system_servers", lambda: (resolver.Nameserver(host, int(port)),))
        yield


def _on_server(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")


async def _make_template(url: str) -> None:
    admin = await asyncpg.connect(url)
    try:
        await admin.execute("CREATE DATABASE template_certwright")
    finally:
        await admin.close()
    db = Database(_on_server(url, "template_certwright"))
    try:
        await migrate(db)
    finally:
        await db.close()


async def _make_database(url: str, name: str) -> None:
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE template_certwright STRATEGY FILE_COPY")
    finally:
        await admin.close()


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of the run's PostgreSQL as superuser; its template database `template_certwright` has the schema."""
    run_dir = _run_dir(tmp_path_factory)
    url = postgres.start_or_join(run_dir, os.getppid() if _is_worker() else os.getpid())
    with open(run_dir / "template.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = run_dir / "template.made"
        if not made.exists():
            asyncio.run(_make_template(url))
            made.touch()
    return url


@pytest.fixture(scope="session")
def worker_database(database_server: str) -> str:
    """URL of this worker's database, with the schema and without rows between tests."""
    name = "test_" + os.environ.get("PYTEST_XDIST_WORKER", "main")
    asyncio.run(_make_database(database_server, name))
    return _on_server(database_server, name)


@contextmanager
def database_for(server: str, purpose: str) -> Iterator[str]:
    """URL of a database with the schema that goes away afterwards, for what must not share this worker's."""
    name = f"{purpose}_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    asyncio.run(_make_database(server, name))
    try:
        yield _on_server(server, name)
    finally:

        async def drop() -> None:
            admin = await asyncpg.connect(server)
            try:
                await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            finally:
                await admin.close()

        asyncio.run(drop())


@pytest.fixture
def fresh_database(database_server: str) -> Iterator[str]:
    """URL of a database for this test alone, for tests that start processes or break things."""
    with database_for(database_server, "fresh") as url:
        yield url


class World:
    """The product without its doors. Two accounts: `actor` administers the first, `other_actor` the other."""

    def __init__(self, runner: asyncio.Runner, services: Services, clock: SetClock) -> None:
        self._runner = runner
        self._context = copy_context()
        self.services = services
        self.clock = clock
        clock.set(START - timedelta(seconds=1))
        self.account, self.actor, self.project_id = self.run(self._first_account("ann@one.example"))
        clock.set(START)
        self.other_account, self.other_actor, self.other_project_id = self.run(self.add_account("bob@two.example"))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the world's event loop, where its database connections live."""
        # Not by the runner: for its handler of Ctrl-C, Python's signal module writes out the task with all it answered.
        loop = self._runner.get_loop()
        return loop.run_until_complete(loop.create_task(work, context=self._context))

    def drain(self, until: datetime | None = None) -> None:
        """Run every due step in this process."""
        self.run(jobs.drain(self.services, until=until))

    def later(self, **by: float) -> datetime:
        """Move the clock: `world.later(days=3)`."""
        self.clock.move(timedelta(**by))
        return self.clock.now()

    def actor_with(self, *actions: str, project_id: str | None = None, resources: tuple[str, ...] = ("*",)) -> Actor:
        """A user of the first account who may do just this."""
        grant = Grant("test", (Statement("Allow", actions, resources),), project_id)
        return Actor("user", self.actor.id, "limited@one.example", self.account.id, (grant,), self.actor.user_id)

    async def _first_account(self, email: str) -> tuple[accounts.Account, Actor, str]:
        account = await accounts.ensure_account(self.services, "One")
        return await self._with_administrator(account, email)

    async def add_account(self, email: str) -> tuple[accounts.Account, Actor, str]:
        """A further tenant with an administrator: (account, actor, default project)."""
        async with self.services.db.begin() as tx:
            account = await accounts.create_account(tx, self.services, email.partition("@")[2])
        return await self._with_administrator(account, email)

    async def _with_administrator(self, account: accounts.Account, email: str) -> tuple[accounts.Account, Actor, str]:
        async with self.services.db.begin() as tx:
            user = await accounts.insert_user(
                tx, self.services, account.id, email=email, name=email.partition("@")[0], password_hash="none"
            )
            await access.people.make_administrator(tx, self.services, user)
            project_id = await accounts.store.default_project(tx, account.id)
        grant = Grant("Tenant Administrator", (Statement("Allow", ("*",)),))
        return account, Actor("user", user.id, email, account.id, (grant,), user.id), project_id


@pytest.fixture
def settings(tmp_path: Path, worker_database: str) -> Settings:
    """Settings of `world`; override this fixture in a test file to change some."""
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8", "::1/128"),
    )  # fmt: skip


@cache
def _kept_database(url: str, *, pool_size: int) -> Database:
    """Closing it closes its connections; what it knows of statements and server is worth more than a test takes."""
    return Database(url, pool_size=pool_size)


# What is installed doesn't change, but for the tests that install something.
_kept_entry_points = cache(entry_points)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    """The wired product on an empty database, two accounts in it, its clock at 2026-03-01 12:00 UTC."""
    clock = SetClock(START)
    # The loop the product runs on.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wiring, "Database", _kept_database)
            patch.setattr(payment, "entry_points", _kept_entry_points)
            services = runner.run(wiring.build(settings, clock=clock))
        services.ports[Processes] = Here()  # type: ignore[index]  # a plain dict, in the tests
        try:
            runner.run(_clean(services.db))
            yield World(runner, services, clock)
        finally:
            try:
                runner.run(wiring.aclose(services))
            except BaseException:
                # Its connections belong to this loop: one test's failure must not become everybody's.
                _kept_database.cache_clear()
                raise


class Api:
    """The API in-process, as a client sees it; `api.get("/api/v1/users").json()`."""

    def __init__(self, world: World, app: FastAPI, headers: dict[str, str]) -> None:
        self.world = world
        self.app = app
        self.headers = headers

    def request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        headers: dict[str, Any] = self.headers | kwargs.pop("headers", {})

        async def send() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.app, client=("192.0.2.7", 50000))
            async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as client:
                return await client.request(method, path, headers=headers, **kwargs)

        return self.world.run(send())

    def get(self, path: str, **kwargs: Any) -> httpx2.Response:
        return self.request("GET", path, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> httpx2.Response:
        return self.request("POST", path, json=json, **kwargs)

    def put(self, path: str, json: Any = None, **kwargs: Any) -> httpx2.Response:
        return self.request("PUT", path, json=json, **kwargs)

    def patch(self, path: str, json: Any = None, **kwargs: Any) -> httpx2.Response:
        return self.request("PATCH", path, json=json, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> httpx2.Response:
        return self.request("DELETE", path, **kwargs)

    def token(self, actor: Actor, policies: list[str] | None = None) -> str:
        """The text of a fresh API token of the actor's user."""
        made = access.people.create_token(self.world.services, actor, name="test", policies=policies)
        return self.world.run(made).text

    def as_actor(self, actor: Actor, policies: list[str] | None = None) -> Api:
        return Api(self.world, self.app, {"authorization": f"Bearer {self.token(actor, policies)}"})

    def anonymous(self) -> Api:
        return Api(self.world, self.app, {})


@pytest.fixture
def api(world: World) -> Api:
    """The API signed in as the administrator of the first account."""
    return Api(world, create_app(world.services), {}).as_actor(world.actor)


async def _clean(db: Database) -> None:
    async with db.begin() as tx:
        await tx.exec_driver_sql(_CLEAN)
