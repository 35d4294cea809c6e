"""`certwright serve --split`: signing, worker and web as processes apart, of which only the first can open CA keys.

The parent prepares everything as the owner of the database, then starts the others and keeps them running. Each gets
its settings, and with them the password of its own database role, from the parent alone (see `entry.lifeline`). Web and
worker deny themselves the files of the CA keys and of the database (see `platform.confinement`) before they read
anything from anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import SecretStr

from certwright.entry import checks, serve
from certwright.entry.lifeline import handed, say, stop_event
from certwright.entry.signing import socket_path
from certwright.entry.web_certificate import WebCertificate
from certwright.kernel.problems import Unavailable
from certwright.platform import confinement
from certwright.platform.config import PREFIX, Settings, config_file
from certwright.rooms import authorities

log = structlog.get_logger(__name__)

_LOOK_EVERY: Final = 0.2
# Seconds until a process that ended is started again: at once the first time, then ever later.
_LONGEST_PAUSE: Final = 5.0
_STEADY: Final = 30.0
_STARTING: Final = 60.0
# After what a web process gives its requests.
_ENDING: Final = 10.0
_SYSTEM: Final = Path("/etc")


@dataclass
class _Child:
    """A process that is started again whenever it ends by itself."""

    name: str
    arguments: list[str]
    said: bytes
    descriptors: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    lifeline: int | None = None
    started: float = 0.0
    pause: float = 0.0
    due: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        theirs, ours = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "certwright", "serve", *self.arguments, "--handed-fd", str(theirs)],
                pass_fds=[theirs, *self.descriptors], stdin=subprocess.DEVNULL, env=self.environment,
            )  # fmt: skip
            self.started = time.monotonic()
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.lifeline = ours
        # Less than a pipe holds, so that this doesn't wait for anybody; one that ended already is seen to have.
        with contextlib.suppress(BrokenPipeError):
            os.write(ours, self.said)

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def revive(self) -> None:
        """Once it has ended; after a pause where it doesn't live long."""
        assert self.process is not None
        now = time.monotonic()
        if self.lifeline is not None:
            os.close(self.lifeline)
            self.lifeline = None
            if now - self.started > _STEADY:
                self.pause = 0.0
            log.warning("a process ended and is started again", process=self.name, code=self.process.returncode)
            self.due = now + self.pause
            self.pause = min(max(2 * self.pause, 0.25), _LONGEST_PAUSE)
        if now >= self.due:
            try:
                self.start()
            except OSError as error:
                log.error("a process can't be started", process=self.name, reason=error.strerror)
                self.due = now + _LONGEST_PAUSE

    def cut(self) -> None:
        if self.lifeline is not None:
            os.close(self.lifeline)
            self.lifeline = None


async def supervise(settings: Settings, processes: int) -> None:
    """Run until SIGINT or SIGTERM. Raises as `serve.main` does, and Unavailable `signer_start_failed`."""
    confinement.hide_memory()
    stopping = stop_event(None)
    path = socket_path(settings)
    async with serve.ground(settings, apart=True) as on:
        listener = serve.listen(settings, None)
        try:
            async with serve.owners_services(settings, on) as services:
                await serve.first_start(services)
                # Those to come couldn't note it down.
                await WebCertificate(services).load()
                if not confinement.can_forbid():
                    log.warning(
                        "this system can't keep files from a process of the same user: web and worker could read the "
                        "keyring of the CA keys; run the signing process as a user of its own"
                    )
                signer, worker, *web = children = _family(settings, on, listener, processes, path)
                try:
                    for child in (signer, *web):
                        child.start()
                    await _until_ready(signer, path, stopping)
                    # Its first steps need a signature.
                    worker.start()
                    if not stopping.is_set():
                        await serve.greet(services, "all")
                except BaseException:  # a stop signal too: no child may outlive us
                    await _end(children)
                    raise
            try:
                while not stopping.is_set():
                    for child in children:
                        if child.has_ended():
                            child.revive()
                    await _pause(stopping)
            finally:
                await _end([worker, *web])
                await _end([signer])
        finally:
            listener.close()
    say("stopped")


def _family(settings: Settings, on: serve.Ground, listener: socket.socket, processes: int, path: Path) -> list[_Child]:
    """The signing process, the worker, and the web processes."""
    assert on.app_url is not None
    assert on.signer_url is not None
    nobody: dict[str, Any] = {"app_database_url": None, "signer_database_url": None, "signer_socket": path}
    for_signer = settings.model_copy(update=nobody | {"database_url": SecretStr(on.signer_url), "smtp_password": None})
    for_app = settings.model_copy(
        update=nobody | {"database_url": SecretStr(on.app_url), "hsm_pin": None, "hsm_pin_file": None}
    )
    temporary = settings.data_dir / "tmp"
    for private in (temporary, settings.data_dir / "deployments", settings.data_dir / "keys"):
        private.mkdir(mode=0o700, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    # Theirs: where the data lies below the usual place, nothing new can be made there any more.
    app_environment = environment | {"TMPDIR": str(temporary)}
    closed = [settings.data_dir / "signing", settings.data_dir / "postgres", checks.ca_keyring_path(settings)]
    closed += [file for file in (settings.hsm_pin_file, config_file(os.environ)) if file is not None]
    for place in closed:
        if _SYSTEM in place.resolve().parents:
            # Nothing that is put anew directly into /etc (resolv.conf) could be read any more.
            log.warning("web and worker aren't kept from this; put it below the data directory", file=str(place))
    closed = [place for place in closed if _SYSTEM not in place.resolve().parents]
    held = () if on.embedded is None else (on.embedded.users_lock,)
    signer = _Child("signer", ["--role", "signer"], handed(for_signer, []), environment=environment)
    worker = _Child("worker", ["--role", "worker"], handed(for_app, closed), held, environment=app_environment)
    web = [
        _Child(
            f"web {number + 1}",
            ["--role", "web", "--socket-fd", str(listener.fileno()), *(["--leads"] if number == 0 else [])],
            handed(for_app, closed), (listener.fileno(), *held), environment=app_environment,
        )
        for number in range(processes)
    ]  # fmt: skip
    return [signer, worker, *web]


async def _until_ready(signer: _Child, path: Path, stopping: asyncio.Event) -> None:
    deadline = time.monotonic() + _STARTING
    while not stopping.is_set() and not authorities.is_signer_there(path):
        if signer.has_ended() or time.monotonic() > deadline:
            raise Unavailable(
                "signer_start_failed", "The signing process didn't start.",
                fix="Its own message stands above; correct what it names, then start again.",
            )  # fmt: skip
        await asyncio.sleep(0.02)


async def _pause(stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_EVERY):
            await stopping.wait()
    except TimeoutError:
        return


async def _end(children: Sequence[_Child]) -> None:
    for child in children:
        child.cut()
    deadline = time.monotonic() + _ENDING
    running = [child.process for child in children if child.process is not None]
    while any(process.poll() is None for process in running):
        if time.monotonic() > deadline:
            for process in running:
                process.kill()
        await asyncio.sleep(0.02)
