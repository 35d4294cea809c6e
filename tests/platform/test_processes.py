"""Work in processes of our own: values and problems come back, what is stuck is ended, nothing of ours goes along."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from certwright.kernel.problems import Invalid, InvalidFields, NotFound, Problem
from certwright.platform.processes import Processes


def with_pool(story: Callable[[Processes], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        pool = Processes(1, **options)
        try:
            return await story(pool)
        finally:
            await pool.close()

    return asyncio.run(run())


def refuse() -> None:
    raise InvalidFields([Invalid("one", "First.", field="a", fix="Do."), NotFound("two", "Second.")])


def fail(secret: str) -> None:
    raise ValueError(secret)


def leave() -> None:
    os._exit(3)


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes import this very module."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.path.join(root, "src")]))


def test_values_problems_and_failures_come_back_and_one_process_serves_them_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CERTWRIGHT_DATABASE_URL", "postgresql://user:secret@db/x")

    async def story(pool: Processes) -> None:
        first = await pool.run(os.getpid)
        assert first != os.getpid()
        assert await pool.run(sum, [1, 2], start=4) == 7
        with pytest.raises(InvalidFields) as met:
            await pool.run(refuse)
        assert [p.as_dict() for p in met.value.problems] == [
            {"code": "one", "message": "First.", "field": "a", "fix": "Do."}, {"code": "two", "message": "Second."},
        ]  # fmt: skip
        with pytest.raises(RuntimeError, match="ValueError") as failed:
            await pool.run(fail, "hush-hush")
        assert "hush-hush" not in str(failed.value)
        assert await pool.run(os.getenv, "CERTWRIGHT_DATABASE_URL") is None
        assert await pool.run(os.getpid) == first

    with_pool(story)


def test_what_is_stuck_or_died_is_ended_and_replaced_and_others_are_answered() -> None:
    async def story(pool: Processes) -> None:
        first = await pool.run(os.getpid)
        # Only for this one: a process that is just starting may need longer.
        pool._seconds, usual = 0.2, pool._seconds
        with pytest.raises(Problem) as slow:
            await pool.run(time.sleep, 60)
        pool._seconds = usual
        assert slow.value.code == "workshop_too_slow"
        with pytest.raises(RuntimeError, match="ended"):
            await pool.run(leave)
        assert await pool.run(os.getpid) != first
        assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE

    with_pool(story)


def test_too_many_waiting_are_refused(tmp_path: Path) -> None:
    # Whoever reads it waits until somebody has written.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    async def story(pool: Processes) -> None:
        await pool.run(os.getpid)
        busy = [asyncio.create_task(pool.run(*work)) for work in ((Path.read_text, pipe), (os.getpid,))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await pool.run(os.getpid)
        assert (refused.value.code, refused.value.extra) == ("workshop_busy", {"retry_after": 5})
        await asyncio.to_thread(pipe.write_text, "go on")
        await asyncio.gather(*busy)
        assert await pool.run(os.getpid)

    with_pool(story, waiting=1)


def test_whoever_stops_waiting_gets_nobody_elses_answer() -> None:
    async def story(pool: Processes) -> None:
        first = await pool.run(os.getpid)
        gone = asyncio.create_task(pool.run(time.sleep, 60))
        while psutil.Process(first).status() != psutil.STATUS_SLEEPING or pool._idle:
            await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await pool.run(sum, [1, 2]) == 3

    with_pool(story)


def test_problems_survive_a_pickle() -> None:
    again = pickle.loads(pickle.dumps(NotFound("x", "Y.", fix="Z.", extra={"n": 1})))
    assert (type(again), again.code, again.message, again.fix, again.extra, str(again)) == (
        NotFound, "x", "Y.", "Z.", {"n": 1}, "Y.",
    )  # fmt: skip
