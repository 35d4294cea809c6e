"""The product inside the measuring process, without its web part, on a database of its own; and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import uvloop

from certwright.entry import serve
from certwright.kernel.actor import Actor, system_actor
from certwright.platform.config import load_settings
from certwright.platform.services import Services
from certwright.platform.telemetry import configure_logging
from certwright.rooms import accounts

HERE = Path(__file__).parent
T = TypeVar("T")


@dataclass(frozen=True)
class Product:
    """`environ` makes another process use the same data."""

    services: Services
    actor: Actor
    project_id: str
    environ: Mapping[str, str]
    postmaster: int

    async def scalar(self, query: str) -> Any:
        async with self.services.db.read() as tx:
            return (await tx.exec_driver_sql(query)).scalar()

    async def column(self, query: str) -> list[str]:
        async with self.services.db.read() as tx:
            return list((await tx.exec_driver_sql(query)).scalars())

    async def rows(self, query: str, ids: Sequence[str]) -> Sequence[Any]:
        """`query` has one parameter: these ids."""
        async with self.services.db.read() as tx:
            return (await tx.exec_driver_sql(query, (list(ids),))).all()

    async def write(self, statement: str) -> None:
        async with self.services.db.begin() as tx:
            await tx.exec_driver_sql(statement)


@asynccontextmanager
async def product(data: Path, **settings: str) -> AsyncIterator[Product]:
    """Set up as at a first start, with an account that may do everything."""
    given = {"DATA_DIR": str(data), "ALLOWED_NETWORKS": "127.0.0.0/8", "LOG_LEVEL": "error", **settings}
    environ = {f"CERTWRIGHT_{key}": value for key, value in given.items()}
    configure_logging(format="json", level="error")
    async with serve.running_services(load_settings(environ)) as services:
        await serve.first_start(services)
        account = await accounts.ensure_account(services)
        async with services.db.begin() as tx:
            project_id = await accounts.store.default_project(tx, account.id)
        postmaster = int((data / "postgres/cluster/postmaster.pid").read_text().split()[0])
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CERTWRIGHT_")}
        yield Product(services, system_actor(account.id, "bench"), project_id, kept | environ, postmaster)


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


class Worker:
    """A worker in a process of its own."""

    def __init__(self, environ: Mapping[str, str], took: Path) -> None:
        self._took = took
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), str(took)], env=dict(environ), stdin=subprocess.DEVNULL
        )
        self.process = psutil.Process(self._process.pid)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> dict[str, list[float]]:
        """How long each step took, in milliseconds."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        found: dict[str, list[float]] = json.loads(self._took.read_text()) if self._took.exists() else {}
        return found


def cpu_of(*processes: psutil.Process) -> float:
    """Seconds of CPU these processes have used, those children included that they have waited for."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = process.cpu_times()
            total += spent.user + spent.system + spent.children_user + spent.children_system
    return total


def cpu_of_database(postmaster: int) -> float:
    process = psutil.Process(postmaster)
    return cpu_of(process, *process.children(recursive=True))


def pss(*processes: psutil.Process) -> float:
    """Megabytes, shared pages shared out."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += int(process.memory_full_info().pss)
    return total / 2**20


async def until(there: Callable[[], Awaitable[bool]], patience: float, *, every: float = 0.1) -> bool:
    """False when it didn't come true in time."""
    begun = time.perf_counter()
    while not await there():
        if time.perf_counter() - begun > patience:
            return False
        await asyncio.sleep(every)
    return True
