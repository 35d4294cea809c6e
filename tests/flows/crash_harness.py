"""Forks workers and lets them be killed at a chosen moment; driven by test_crash.py through lines of JSON.

Every command is carried out by a fresh child on the database and data directory it names, so a kill is a real SIGKILL
of a real process, and what follows is another process that knows only what was left behind. Forking saves each child
the second it takes to import the product. The product has no hook for this: `Database.begin` and the file calls of `os`
are wrapped here.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from certwright.entry import wiring
from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.clock import SetClock
from certwright.platform.config import Settings
from certwright.platform.db import Database, Tx
from certwright.platform.services import Services
from certwright.platform.telemetry import configure_logging
from certwright.rooms import accounts, audit, authorities, certificates, deployment
from tests.flows.stage import place

_ROUNDS = 2000
"""More steps than any flow has; a worker that needs them goes round in circles."""


class Killer:
    """Counts moments of one kind and ends the process at the chosen one; `in turn`, at the first one of any kind in a
    place of the product where no process before was ended (`met`), which it says with its last breath."""

    def __init__(self, when: str, at: int, met: Sequence[str] = (), pipe: int | None = None) -> None:
        self.when, self.at, self.seen = when, at, 0
        self.met, self.pipe = set(met), pipe

    def moment(self, kind: str) -> None:
        self.seen += 1
        if self.when == "in turn":
            where = f"{kind} {place()}"
            if where in self.met:
                return
            assert self.pipe is not None
            os.write(self.pipe, json.dumps({"place": where}).encode())
        elif self.when != kind or self.seen != self.at:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def watch_commits(db: Database, killer: Killer) -> None:
    """A moment just before, or just after, every commit of a transaction that wrote something, and around every
    statement that commits by itself."""
    begin, single, fetch = db.begin, db.single, db.fetch
    before, after = killer.when in ("before", "in turn"), killer.when in ("after", "in turn")

    @asynccontextmanager
    async def counted() -> AsyncIterator[Tx]:
        async with begin() as tx:
            yield tx
            wrote = await tx.scalar(sa.text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL"))
            if wrote and before:
                killer.moment("before")
        if wrote and after:
            killer.moment("after")

    @asynccontextmanager
    async def at_once() -> AsyncIterator[Tx]:
        if before:
            killer.moment("before")
        async with single() as tx:
            yield tx
        if after:
            killer.moment("after")

    async def fetched(sql: str, arguments: Sequence[Any]) -> Any:
        if before:
            killer.moment("before")
        found = await fetch(sql, arguments)
        if after:
            killer.moment("after")
        return found

    db.read, db.begin, db.single, db.fetch = single, counted, at_once, fetched  # type: ignore[method-assign]


def watch_files(killer: Killer) -> None:
    """A moment before and one after every call that changes which file has which name."""
    replace, unlink = os.replace, os.unlink

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> None:
            killer.moment("files")
            call(*args, **kwargs)
            killer.moment("files")

        return counted

    os.replace, os.unlink = around(replace), around(unlink)


async def carry_out(command: dict[str, Any], killer: Killer) -> dict[str, Any]:
    clock = SetClock(datetime.fromisoformat(command["now"]))
    settings = Settings(
        data_dir=Path(command["data_dir"]), database_url=command["url"], database_pool=6,
        public_url="https://cw.example", allowed_networks=("127.0.0.0/8", "::1/128"),
        validation_http_port=command["http_port"], step_lease=2.0,
    )  # fmt: skip
    services = await wiring.build(settings, clock=clock)
    try:
        if killer.when in ("before", "after", "in turn"):
            watch_commits(services.db, killer)
        if killer.when in ("files", "in turn"):
            watch_files(killer)
        result = await COMMANDS[command["do"]](services, clock, command)
    finally:
        await wiring.aclose(services)
    return {**result, "now": clock.now().isoformat(), "moments": killer.seen}


async def apply(services: Services, clock: SetClock, command: dict[str, Any]) -> dict[str, Any]:
    """A first account with its CA, and an application for `name` with file validation."""
    account = await accounts.ensure_account(services, "One")
    project_id = await accounts.default_project(services, account.id)
    await authorities.ensure_builtin(services, account.id, project_id)
    async with services.db.begin() as tx:
        user = await accounts.insert_user(
            tx, services, account.id, email="ann@one.example", name="Ann", password_hash=None
        )
    actor = _administrator(account.id, user.id)
    application = certificates.Application(
        names=(command["name"],), validation_method="file", consent=True,
        applicant=certificates.Applicant("Ann", "ann@one.example", "+49 30 1234567"),
    )  # fmt: skip
    detail = await certificates.create_certificate(services, actor, application=application, name="shop")
    assert detail.validation is not None
    todo = detail.validation.domains[0].instructions
    return {
        "account_id": account.id, "user_id": user.id, "certificate_id": detail.id, "path": todo["path"],
        "content": todo["content"],
    }  # fmt: skip


def _administrator(account_id: str, user_id: str) -> Actor:
    grant = Grant("Tenant Administrator", (Statement("Allow", ("*",)),))
    return Actor("user", user_id, "ann@one.example", account_id, (grant,), user_id)


async def deploy(services: Services, clock: SetClock, command: dict[str, Any]) -> dict[str, Any]:
    """Add the nginx and ask for the certificate to be deployed to its site."""
    actor = _administrator(command["account_id"], command["user_id"])
    target = await deployment.create_target(
        services, actor, name="nginx", kind="nginx", config={"nginx": command["nginx"], "config": command["config"]}
    )
    (site,) = await deployment.discover(services, actor, target.id)
    await deployment.deploy(services, actor, command["certificate_id"], [site.id])
    return {"target_id": target.id}


async def work(services: Services, clock: SetClock, command: dict[str, Any]) -> dict[str, Any]:
    """What a worker does within the next minutes: every row that falls due, in order, the clock moving from one to
    the next. Then seal the audit log and check it."""
    until = clock.now() + timedelta(seconds=command["seconds"])
    for _ in range(_ROUNDS):
        due = await _first_due(services, until)
        if due is None:
            break
        at, step, row_id = due
        clock.set(max(clock.now(), at))
        if not await services.jobs.run_step(services, step, row_id):
            # A killed worker's lease: wait for it to run out.
            clock.move(services.jobs.lease + timedelta(seconds=1))
    else:
        raise RuntimeError(f"after {_ROUNDS} steps there is still something due: {due}")
    await audit.seal(services)
    verdict = await audit.verify(services.db, now=clock.now())
    return {"audit": verdict.explanation if not verdict.ok else ""}


async def _first_due(services: Services, until: datetime) -> tuple[datetime, str, str] | None:
    parts = [
        sa.select(step.table.c.next_step_at.label("at"), sa.literal(step.name).label("step"), step.table.c.id)
        for step in services.jobs.steps.values()
    ]
    every = sa.union_all(*parts).subquery()
    async with services.db.begin() as tx:
        query = sa.select(every.c.at, every.c.step, every.c.id).where(every.c.at <= until).order_by(every.c.at).limit(1)
        row = (await tx.execute(query)).one_or_none()
    return (row.at, row.step, row.id) if row is not None else None


COMMANDS = {"apply": apply, "deploy": deploy, "work": work}


def in_child(command: dict[str, Any], pipe: int) -> None:
    killer = Killer(command.get("when", ""), command.get("at", 0), command.get("met", ()), pipe)
    try:
        answer = asyncio.run(carry_out(command, killer))
    except Exception:  # noqa: BLE001 - whatever it is, the test must see it
        answer = {"error": traceback.format_exc()}
    os.write(pipe, json.dumps(answer).encode())


def main() -> None:
    configure_logging(level="error")
    # Children share what was imported instead of copying it at their first collection.
    gc.freeze()
    for line in sys.stdin:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            in_child(json.loads(line), write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as answers:
            text = answers.read()
        _, status = os.waitpid(pid, 0)
        answer = json.loads(text) if text else {}
        answer["killed"] = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
