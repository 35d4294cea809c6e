"""Renewal of thousands at once, by two workers, against the built-in CA; and how long each kind of step takes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import service

from certwright.platform.jobs import Worker
from certwright.rooms import certificates, renewal

WORKERS = 2
_SEED_PATIENCE = 120.0
_AT_ONCE = 128
_OTHERS_PATIENCE = 60.0
_STEPS_DUE = """
    SELECT EXISTS (SELECT FROM events WHERE delivered_at IS NULL)
        OR EXISTS (SELECT FROM renewals WHERE admitted_at IS NOT NULL AND started_at IS NULL)
        OR EXISTS (SELECT FROM applications WHERE issued_at IS NULL AND failed_at IS NULL AND withdrawn_at IS NULL)
"""
_OTHERS_DUE = """
    SELECT EXISTS (SELECT FROM campaigns WHERE ended_at IS NULL)
        OR EXISTS (SELECT FROM versions WHERE revoke_asked_at IS NOT NULL AND revoked_at IS NULL)
"""


@dataclass(frozen=True)
class Drained:
    """`renewed` of `due` in `seconds`; CPU in seconds, memory in MB."""

    due: int
    renewed: int
    seconds: float
    worker_cpu: float
    database_cpu: float
    memory: float
    transactions: int
    wal_mb: float
    steps: Mapping[str, list[float]]


def drain(home: Path, count: int, patience: float) -> Drained:
    return service.run(_drain(home, count, patience))


async def _drain(home: Path, count: int, patience: float) -> Drained:
    async with service.product(home / "drain") as product:
        await _seed(product, count)
        # The limit is there to spare CAs; this is about what the machine can do.
        await renewal.set_limit(product.services, product.actor, "builtin", per_minute=100_000, reserve_percent=0)
        workers = [service.Worker(product.environ, home / f"steps-{number}.json") for number in range(WORKERS)]
        steps: dict[str, list[float]] = {}
        try:
            return await _measured(product, workers, count, patience, steps)
        finally:
            for worker in workers:
                for name, took in worker.stop().items():
                    steps.setdefault(name, []).extend(took)


async def _seed(product: service.Product, count: int) -> None:
    """Certificates of the built-in CA with keys of their own, and their plans, by the product itself."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            await certificates.issue_private(product.services, product.actor, names=[f"h{number}.drain.example"])

    await asyncio.gather(*(one(number) for number in range(count)))
    await _deliver(product)


async def _deliver(product: service.Product) -> None:
    worker = Worker(product.services)
    working = asyncio.create_task(worker.run())

    async def planned() -> bool:
        return not await product.scalar("SELECT EXISTS (SELECT FROM events WHERE delivered_at IS NULL)")

    try:
        if not await service.until(planned, _SEED_PATIENCE):
            raise TimeoutError("the renewals were not all planned")
    finally:
        worker.stop()
        await asyncio.wait([working], timeout=10)


async def _measured(
    product: service.Product,
    workers: list[service.Worker],
    count: int,
    patience: float,
    steps: dict[str, list[float]],
) -> Drained:
    await asyncio.sleep(4)  # both have started and have nothing to do
    processes = [worker.process for worker in workers]
    before = await _load(product)
    cpu = service.cpu_of(*processes), service.cpu_of_database(product.postmaster)
    memory = service.pss(*processes)
    begun = time.perf_counter()
    await product.write("UPDATE renewals SET renew_at = now(), fraction_at = now()")
    await product.write("UPDATE renewal_queues SET next_step_at = now()")
    renewed, seen = 0, time.perf_counter()
    while time.perf_counter() - begun < patience and all(worker.alive for worker in workers):
        renewed = int(await product.scalar("SELECT count(*) FROM versions WHERE number = 2"))
        if renewed >= count and not await product.scalar(_STEPS_DUE):
            break
        if time.perf_counter() - seen > 2:
            memory, seen = max(memory, service.pss(*processes)), time.perf_counter()
        await asyncio.sleep(0.25)
    seconds = time.perf_counter() - begun
    memory = max(memory, service.pss(*processes))
    after_cpu = service.cpu_of(*processes), service.cpu_of_database(product.postmaster)
    await asyncio.sleep(1.5)  # PostgreSQL's own counts come a second late
    after = await _load(product)
    if renewed >= count:
        await _others(product)
    return Drained(
        count, renewed, seconds, after_cpu[0] - cpu[0], after_cpu[1] - cpu[1], memory, after[0] - before[0],
        (after[1] - before[1]) / 2**20, steps,
    )  # fmt: skip


async def _others(product: service.Product) -> None:
    """A hundred of other jobs, for their steps: replaced by a mass replacement, revoked."""
    services, actor = product.services, product.actor
    by = datetime.now(UTC) + timedelta(days=1)
    await renewal.campaigns.start(
        services, actor, renewal.Criteria(names="h12*.drain.example"), name="bench",
        reason=renewal.CampaignReason.DRILL, deadline=by, per_hour=100_000,
    )  # fmt: skip
    ids = await product.column("SELECT id FROM certificates WHERE primary_name LIKE 'h13%'")
    for certificate_id in ids:
        await certificates.revoke(services, actor, certificate_id, certificates.RevocationReason.SUPERSEDED)

    async def over() -> bool:
        return not await product.scalar(_OTHERS_DUE)

    await service.until(over, _OTHERS_PATIENCE)


async def _load(product: service.Product) -> tuple[int, int]:
    """(transactions, bytes of WAL) since the database was made."""
    transactions = await product.scalar(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(transactions), int(await product.scalar("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))


def quantiles(took: list[float]) -> tuple[float, float]:
    """(p50, p99)"""
    ranked = sorted(took)
    return statistics.median(ranked), ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
