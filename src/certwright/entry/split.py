"""`certwright serve --split`: signing, worker and web as processes apart, of which only the first can open CA keys.

The parent prepares everything as the owner of the database, then starts the others and keeps them running. Each gets
its settings, and with them the password of its own database role, from the parent alone (see `entry.lifeline`). Web and
worker deny themselves the files of the CA keys and of the database (see `platform.confinement`) before they read
anything from anybody.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import SecretStr

from certwright.entry import checks, serve
from certwright.entry.children import LOOK_EVERY, Child, clean_environment, end, look_after
from certwright.entry.lifeline import handed, say, stop_event
from certwright.entry.signing import socket_path
from certwright.entry.turns import Shares
from certwright.entry.web_certificate import WebCertificate
from certwright.kernel.problems import Unavailable
from certwright.platform import confinement
from certwright.platform.config import Settings, config_file
from certwright.rooms import authorities

log = structlog.get_logger(__name__)

_STARTING: Final = 60.0
# After what a web process gives its requests.
_ENDING: Final = 10.0
_SYSTEM: Final = Path("/etc")


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
                    await end(children, _ENDING)
                    raise
            try:
                while not stopping.is_set():
                    look_after(children)
                    await _pause(stopping)
            finally:
                await end([worker, *web], _ENDING)
                await end([signer], _ENDING)
        finally:
            listener.close()
    say("stopped")


def _family(settings: Settings, on: serve.Ground, listener: socket.socket, processes: int, path: Path) -> list[Child]:
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
    environment = clean_environment()
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
    signer = Child("signer", ["--role", "signer"], handed(for_signer, []), environment=environment)
    worker = Child("worker", ["--role", "worker"], handed(for_app, closed), held, environment=app_environment)
    shares = Shares.made(processes)
    web = [
        serve.web_child(
            number, listener.fileno(), shares, handed(for_app, closed), environment=app_environment, held=held,
            leads=number == 0,
        )
        for number in range(processes)
    ]  # fmt: skip
    return [signer, worker, *web]


async def _until_ready(signer: Child, path: Path, stopping: asyncio.Event) -> None:
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
        async with asyncio.timeout(LOOK_EVERY):
            await stopping.wait()
    except TimeoutError:
        return
