"""The queue's own books are kept short."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from certwright.platform import queue_log
from tests.conftest import World


def test_old_lines_go_in_batches_and_new_ones_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_log, "_BATCH", 3)
    now = world.clock.now()

    async def work() -> tuple[list[datetime], list[datetime]]:
        async with world.services.db.begin() as tx:
            for number in range(7):
                for age in (timedelta(hours=1), queue_log.KEPT + timedelta(hours=1)):
                    at = now - age + timedelta(seconds=number)
                    await tx.exec_driver_sql(
                        "INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority, created) "
                        "VALUES (1, 'successful', 'x', 0, $1)",
                        (at,),
                    )
                    await tx.exec_driver_sql(
                        "INSERT INTO pgqueuer_statistics (count, status, entrypoint, priority, created) "
                        "VALUES (1, 'successful', 'x', 0, $1)",
                        (at,),
                    )
        await queue_log.forget_queue_log(world.services)
        async with world.services.db.begin() as tx:
            log = await tx.exec_driver_sql("SELECT created FROM pgqueuer_log ORDER BY created")
            statistics = await tx.exec_driver_sql("SELECT created FROM pgqueuer_statistics ORDER BY created")
            return list(log.scalars()), list(statistics.scalars())

    kept = [now - timedelta(hours=1) + timedelta(seconds=number) for number in range(7)]
    assert world.run(work()) == (kept, kept)
