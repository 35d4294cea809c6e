"""A few processes of our own for work that would hold up everybody else's requests: reading what strangers upload, and
judging it.

A function and its arguments go there by pickle and its value comes back; both must be plain. A process that takes too
long is ended and replaced, one whose parent is gone ends by itself. They know no setting and no secret of ours: their
environment holds none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from collections.abc import Callable, Coroutine
from typing import Any, BinaryIO, ParamSpec, TypeVar

from certwright.kernel.problems import Problem, TooMany, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

_LENGTH = 8
# What one job may take: the largest inputs need 100 MB, the interpreter with pkilint as much again.
_MEMORY = 2 * 1024 * 1024 * 1024


class Processes:
    """At most `size` processes, started when they are first needed; one per Services, for one event loop.

    `seconds` is the longest a job may take, `waiting` how many may wait for a free process.
    """

    def __init__(self, size: int | None = None, *, seconds: float = 20.0, waiting: int = 64) -> None:
        self._size = size or min(os.cpu_count() or 1, 4)
        self._seconds = seconds
        self._waiting = waiting
        self._queued = 0
        self._free = asyncio.Semaphore(self._size)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """What `function`, found by its module and name, makes of these arguments; Problems it raises are raised here.

        Raises TooMany `workshop_busy` when too many wait, Unavailable `workshop_too_slow` for what takes too long, and
        RuntimeError for anything else that failed there.
        """
        return self._run(pickle.dumps((function, args, kwargs)))

    async def _run(self, job: bytes) -> Any:
        if self._queued >= self._waiting:
            raise TooMany(
                "workshop_busy", "Too many files are being looked at just now.", fix="Try again in a few seconds.",
                extra={"retry_after": 5},
            )  # fmt: skip
        self._queued += 1
        try:
            await self._free.acquire()
        finally:
            self._queued -= 1
        try:
            process = self._idle.pop() if self._idle else await self._start()
            done = False
            try:
                async with asyncio.timeout(self._seconds):
                    answer = await process.ask(job)
                done = True
            except TimeoutError:
                raise Unavailable(
                    "workshop_too_slow", "Looking at this file took too long and was given up.",
                    fix="Check that it holds just the certificate, its key and its chain.",
                ) from None  # fmt: skip
            except (asyncio.IncompleteReadError, OSError) as error:
                raise RuntimeError("a process of the pool ended in the middle of its work") from error
            finally:
                # Also where whoever asked has gone: its answer would be taken for the next one's.
                if done:
                    self._idle.append(process)
                else:
                    self._all.discard(process)
                    process.end()
        finally:
            self._free.release()
        kind, value = pickle.loads(answer)  # noqa: S301  # of our own process
        if kind == "value":
            return value
        if isinstance(value, Problem):
            raise value
        raise RuntimeError(f"work in a process of the pool failed:\n{value}")

    async def _start(self) -> _Process:
        process = await _Process.start()
        self._all.add(process)
        return process

    async def close(self) -> None:
        """End all of them; what they are at is lost."""
        for process in self._all:
            process.end()
        for process in self._all:
            await process.ended()
        self._all.clear()
        self._idle.clear()


class _Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._to, self._from = process.stdin, process.stdout

    @classmethod
    async def start(cls) -> _Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CERTWRIGHT_")}
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "certwright.platform.processes",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment,
            )
        )  # fmt: skip

    async def ask(self, job: bytes) -> bytes:
        self._to.write(len(job).to_bytes(_LENGTH, "big"))
        self._to.write(job)
        await self._to.drain()
        length = int.from_bytes(await self._from.readexactly(_LENGTH), "big")
        return await self._from.readexactly(length)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> None:
        await self._process.wait()


# --- in the process ---------------------------------------------------------------------------------------------------


def _serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    while len(head := jobs.read(_LENGTH)) == _LENGTH:
        answer = _answer(jobs.read(int.from_bytes(head, "big")))
        answers.write(len(answer).to_bytes(_LENGTH, "big"))
        answers.write(answer)
        answers.flush()


def _answer(job: bytes) -> bytes:
    import traceback

    try:
        function, args, kwargs = pickle.loads(job)  # noqa: S301  # from our own parent
        return pickle.dumps(("value", function(*args, **kwargs)))
    except Problem as problem:
        return pickle.dumps(("problem", problem))
    # Told to the parent, which raises: this loop must outlive any job.
    except Exception as error:  # noqa: BLE001
        # Without the exception's words, which may repeat what was uploaded.
        where = "".join(traceback.format_tb(error.__traceback__))
        return pickle.dumps(("failed", f"{where}{type(error).__name__}"))


def _main() -> None:
    import signal

    # Ctrl-C goes to the whole group; our parent ends us when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not get among the answers.
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
