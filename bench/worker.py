"""A worker of the product that remembers how long each step took. On SIGTERM it writes that to the file named:
`{"certificates.issue": [milliseconds, …], …}`.

    CERTWRIGHT_DATA_DIR=… python bench/worker.py FILE
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from certwright.entry import serve
from certwright.platform.config import load_settings
from certwright.platform.jobs import Jobs, Worker
from certwright.platform.services import Services
from certwright.platform.telemetry import configure_logging

Took = dict[str, list[float]]


@contextmanager
def timed(jobs: Jobs) -> Iterator[Took]:
    """Filled while steps run: from taking a row to giving it back."""
    took: Took = {}
    run_step = jobs.run_step

    async def run(services: Services, name: str, object_id: str) -> bool:
        begun = time.perf_counter()
        ran = await run_step(services, name, object_id)
        if ran:
            took.setdefault(name, []).append((time.perf_counter() - begun) * 1000)
        return ran

    jobs.run_step = run  # type: ignore[method-assign]  # this process only measures
    try:
        yield took
    finally:
        jobs.run_step = run_step  # type: ignore[method-assign]  # as it was


async def work() -> Took:
    settings = load_settings()
    configure_logging(format=settings.log_format, level=settings.log_level)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with serve.running_services(settings) as services:
        worker = Worker(services)
        with timed(services.jobs) as took:
            working = asyncio.create_task(worker.run())
            await stopping.wait()
            worker.stop()
            await asyncio.wait([working], timeout=10)
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
        return took


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        Path(sys.argv[1]).write_text(json.dumps(runner.run(work())))
