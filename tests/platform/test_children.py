"""When a process that ended by itself is started again, and how."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog

from certwright.entry.children import Child, Forked, clean_environment, end, look_after
from certwright.entry.lifeline import handed, take
from certwright.kernel.problems import Unavailable
from certwright.platform.config import Settings

BOUND = 60.0  # seconds; only reached when something is broken


class Life:
    """A process that ended."""

    returncode = -9

    def poll(self) -> int:
        return self.returncode

    def kill(self) -> None: ...


class Started(Child):
    """Its starts are noted down; each process ends at once, or as told by `now`."""

    def start(self) -> None:
        if self.refused:
            self.refused -= 1
            raise OSError(11, "Resource temporarily unavailable")
        self.process, self.lifeline, self.started = Life(), os.open(os.devnull, os.O_WRONLY), self.clock()
        self.starts.append(self.clock())

    refused = 0
    starts: list[float]


@pytest.mark.parametrize(
    ("lives", "pauses"),
    [
        pytest.param([0.5], [0.0], id="one that ended once is started at once"),
        pytest.param([0.5] * 8, [0, 0.25, 0.5, 1, 2, 4, 5, 5], id="the more often it ends the later it is started"),
        pytest.param([0.5, 0.5, 0.5, 40.0, 0.5], [0, 0.25, 0.5, 0, 0.25], id="one that lived long begins anew"),
    ],
)
def test_pauses_before_a_start(lives: Sequence[float], pauses: Sequence[float]) -> None:
    now, told = [1000.0], []
    child = Started("web 2", [], b"", clock=lambda: now[0], when_ended=lambda: told.append(now[0]))
    child.starts = []
    child.start()
    found, ends = [], []
    for life in lives:
        now[0] += life
        ends.append(now[0])
        already = len(child.starts)
        while len(child.starts) == already:
            look_after([child])
            now[0] += 0.0 if len(child.starts) > already else 0.125
        found.append(child.starts[-1] - ends[-1])
    assert found == list(pauses)
    assert told == ends, "whoever counts on it is told once, when it ended"
    child.cut()


def test_it_is_said_loudly_when_one_ends_again_and_again() -> None:
    now = [1000.0]
    child = Started("web 2", [], b"", clock=lambda: now[0])
    child.starts = []
    child.start()
    with structlog.testing.capture_logs() as said:
        while len(child.starts) < 8:
            look_after([child])
            now[0] += 0.125
    assert [one["log_level"] for one in said] == ["warning"] * 6 + ["error"]
    assert said[-1] == {
        "event": "a process ends again and again", "log_level": "error", "process": "web 2", "code": -9,
        "next_start": 5.0,
    }  # fmt: skip
    child.cut()


def test_one_that_cannot_be_started_is_tried_again_later() -> None:
    now = [1000.0]
    child = Started("web 2", [], b"", clock=lambda: now[0])
    child.starts = []
    child.start()
    child.refused = 1
    with structlog.testing.capture_logs() as said:
        while len(child.starts) < 2:
            look_after([child])
            now[0] += 0.125
    assert child.starts[1] - child.starts[0] == 5.0
    assert said[-1]["event"] == "a process can't be started"
    child.cut()


def test_a_forked_process_is_waited_for_and_never_killed_by_an_id_that_is_somebody_elses() -> None:
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", "raise SystemExit(7)"])
    forked = Forked(pid)
    deadline = time.monotonic() + BOUND
    while forked.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert forked.returncode == 7
    forked.kill()  # its id is free: signalling it would raise, or hit another


def test_a_child_imports_nothing_from_where_it_happens_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others may write: a web process that was taken over, for the signing process to come."""
    (tmp_path / "typer.py").write_text("open('taken', 'w').close()\nraise SystemExit(1)\n")
    monkeypatch.chdir(tmp_path)
    child = Child("web 2", ["--help"], b"\n", environment=clean_environment())
    child.start()
    asyncio.run(end_by_itself(child))
    assert child.process is not None
    assert child.process.returncode == 0
    assert not (tmp_path / "taken").exists()


async def end_by_itself(child: Child) -> None:
    async with asyncio.timeout(BOUND):
        while not child.has_ended():
            await asyncio.sleep(0.01)
    await end([child], 0)


def test_one_whose_parent_ended_while_it_started_does_not_begin() -> None:
    """It holds the address that whoever starts the product anew wants to listen on."""
    settings = Settings(listen="127.0.0.1:1")
    theirs, ours = os.pipe()
    os.write(ours, handed(settings, [Path("/closed")]))
    assert take(theirs) == (settings, [Path("/closed")])
    os.write(ours, handed(settings, []))
    os.close(ours)
    with pytest.raises(Unavailable) as caught:
        take(theirs)
    assert caught.value.code == "parent_gone"
    os.close(theirs)


def test_settings_do_not_reach_a_child_through_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERTWRIGHT_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("TERM", "dumb")
    made = clean_environment()
    assert made["TERM"] == "dumb"
    assert "CERTWRIGHT_DATABASE_URL" not in made


def test_one_that_does_not_end_in_time_is_killed() -> None:
    pid = os.spawnv(
        os.P_NOWAIT, sys.executable, [sys.executable, "-c", "import time\nwhile True: time.sleep(60)"]
    )  # fmt: skip
    child = Child("web 2", [], b"", process=Forked(pid))
    asyncio.run(end([child], 0.05))
    assert child.process is not None
    assert child.process.returncode == -signal.SIGKILL
