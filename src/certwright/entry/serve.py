"""`certwright serve`: database, migrations, first-start objects, web and worker, until a signal says stop.

One process by default. `processes` adds web processes on the same socket; `role` runs web or worker alone on an
external or the same embedded database.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import structlog
import uvicorn

from certwright.entry import wiring
from certwright.entry.responder import ChallengeResponder
from certwright.entry.web_certificate import WebCertificate
from certwright.kernel.problems import Problem, Unavailable
from certwright.platform.config import Settings, host_and_port
from certwright.platform.jobs import Worker
from certwright.platform.migrations import migrate
from certwright.platform.postgres import EmbeddedPostgres
from certwright.platform.services import Services
from certwright.platform.telemetry import configure_logging
from certwright.rooms import accounts, authorities
from certwright.x509.certificates import to_pem

log = structlog.get_logger(__name__)

Role = Literal["all", "web", "worker"]

# How long requests may take to finish after a stop signal, in seconds.
_GRACE = 5
_LOOK_AT_DATABASE_EVERY = 5.0
# Request lines of vendor-compatible doors come up to this long (bytes).
_LONGEST_REQUEST_LINE = 64 * 1024


@asynccontextmanager
async def running_services(settings: Settings) -> AsyncIterator[Services]:
    """Services on a migrated database, the embedded one started and given back as needed."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    embedded: EmbeddedPostgres | None = None
    keeper: asyncio.Task[None] | None = None
    url = settings.database_url.get_secret_value() if settings.database_url else None
    if url is None:
        embedded = EmbeddedPostgres(settings.data_dir / "postgres")
        url = (await embedded.start()).url
        keeper = asyncio.create_task(_keep_alive(embedded))
    keyring = wiring.keyring_path(settings)
    had_keyring = keyring.exists()
    try:
        services = await wiring.build(settings, database_url=url)
        try:
            await migrate(services.db)
            if embedded is not None:
                await _take_over(services, embedded)
            if not had_keyring and await services.vault.anything_sealed(services.db):
                keyring.unlink()  # made just now; it opens nothing and must not look like the right one
                raise Unavailable(
                    "keyring_missing",
                    f"The keyring {keyring} is gone, and this database holds secrets sealed with its keys.",
                    fix="Put keyring.json back from the backup that belongs to this database.",
                )
            yield services
        finally:
            await wiring.aclose(services)
    finally:
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if embedded is not None:
            await embedded.stop()


async def _take_over(services: Services, embedded: EmbeddedPostgres) -> None:
    """Every worker on the embedded database counts as its user, by a kernel lock that dies with it. So when there is no
    other user, whoever held a lease is dead, and its work needn't wait until the lease runs out."""
    async with embedded.while_alone() as alone:
        ended = await services.jobs.take_over(services.db) if alone else 0
    if ended:
        log.info("took over from a worker that was killed", steps=ended)


async def _keep_alive(embedded: EmbeddedPostgres) -> None:
    """A database that was killed comes back by itself; what can't be mended is said and tried again."""
    while True:
        await asyncio.sleep(_LOOK_AT_DATABASE_EVERY)
        try:
            if await embedded.revive():
                log.warning("the embedded PostgreSQL had stopped and was started again")
        except Problem as problem:
            log.error("the embedded PostgreSQL does not start", code=problem.code, reason=problem.message)


async def first_start(services: Services) -> None:
    """What every installation has: an account with a project, a root and an issuing CA. Content to find them."""
    account = await accounts.ensure_account(services)
    async with services.db.begin() as tx:
        project_id = await accounts.store.default_project(tx, account.id)
    await authorities.ensure_builtin(services, account.id, project_id)
    await _write_root(services)


async def _write_root(services: Services) -> None:
    """Keep the roots' certificates beside the data, where the CLI of this machine looks for them."""
    async with services.db.begin() as tx:
        ders = await authorities.root_ders(tx)
    text = "".join(to_pem(der) for der in ders)
    path = services.settings.data_dir / "root.pem"
    if not path.exists() or path.read_text() != text:
        temporary = path.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(path)


def main(settings: Settings, *, role: Role = "all", processes: int = 1, socket_fd: int | None = None) -> None:
    """Run until SIGINT or SIGTERM. Raises Problem with what the installation needs before it can start."""
    configure_logging(format=settings.log_format, level=settings.log_level)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, role, processes, socket_fd))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows has none; the standard loop serves there
        return None
    return uvloop.new_event_loop


async def _serve(settings: Settings, role: Role, processes: int, socket_fd: int | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not stopping.is_set() and socket_fd is None:
            _say("stopping…")
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    async with running_services(settings) as services:
        await first_start(services)
        tasks: list[asyncio.Task[None]] = []
        worker = Worker(services) if role in ("all", "worker") else None
        server: _Server | None = None
        freshening: asyncio.Task[None] | None = None
        responder: ChallengeResponder | None = None
        children: list[subprocess.Popen[bytes]] = []
        try:
            # One process answers; the others of this machine have a socket to inherit.
            if settings.tls_alpn_listen is not None and role in ("all", "web") and socket_fd is None:
                responder = ChallengeResponder(services)
                await responder.start()
            if worker is not None:
                tasks.append(asyncio.create_task(worker.run(), name="worker"))
            if role in ("all", "web"):
                listener = _listener(settings, socket_fd)
                certificate = WebCertificate(services)
                await certificate.load()
                server = _Server(_uvicorn_config(services, certificate.context))
                tasks.append(asyncio.create_task(server.serve(sockets=[listener]), name="web"))
                freshening = asyncio.create_task(certificate.keep_fresh(), name="web certificate")
                children = [_web_child(listener) for _ in range(processes - 1)]
            if socket_fd is None:
                await _greet(services, role)
            waiting = asyncio.create_task(stopping.wait())
            done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {waiting}:
                task.result()  # a part that ended by itself takes the product down with its error
            waiting.cancel()
        finally:
            if freshening is not None:
                freshening.cancel()
            await _stop(server, worker, tasks, children)
            if responder is not None:
                await responder.stop()
    if socket_fd is None:
        _say("stopped")


def _say(text: str) -> None:
    """To the person at the terminal, if it is still there."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


async def _stop(
    server: _Server | None,
    worker: Worker | None,
    tasks: list[asyncio.Task[None]],
    children: list[subprocess.Popen[bytes]],
) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    if server is not None:
        server.should_exit = True
    if worker is not None:
        worker.stop()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_GRACE)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for child in children:
        try:
            await asyncio.to_thread(child.wait, _GRACE)
        except subprocess.TimeoutExpired:
            child.kill()


class _Server(uvicorn.Server):
    """Leaves signals to us: one stop must end web, worker and database in order."""

    # uvicorn gives this hook no type we could repeat.
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _uvicorn_config(services: Services, context: ssl.SSLContext) -> uvicorn.Config:
    from certwright.entry.app import create_app

    return uvicorn.Config(
        create_app(services),
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        # Uvicorn would believe whoever connects from this machine; entry.forwarded believes whom the operator named.
        proxy_headers=False,
        h11_max_incomplete_event_size=_LONGEST_REQUEST_LINE,
        timeout_graceful_shutdown=_GRACE,
        ssl_context_factory=lambda *_: context,
    )


def _listener(settings: Settings, socket_fd: int | None) -> socket.socket:
    if socket_fd is not None:
        return socket.socket(fileno=socket_fd)
    host, port = host_and_port(settings.listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Unavailable(
            "listen_failed",
            f"The address {settings.listen} can't be listened on: {error.strerror}.",
            field="CERTWRIGHT_LISTEN",
            fix="Stop what uses it, or set CERTWRIGHT_LISTEN to another HOST:PORT.",
        ) from error
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def _web_child(listener: socket.socket) -> subprocess.Popen[bytes]:
    """Another web process on the same socket; it ends when we do."""
    command = [sys.executable, "-m", "certwright", "serve", "--role", "web", "--socket-fd", str(listener.fileno())]
    return subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)


async def _greet(services: Services, role: Role) -> None:
    """What somebody at the terminal needs: where it is, and the first time how to get in."""
    if role == "worker":
        log.info("worker ready")
        return
    lines = [f"Certwright is ready at {services.settings.base_url}"]
    link = await accounts.fresh_setup_link(services)
    if link is not None:
        lines.append("Set up the first administrator (one-time link, good for 24 hours):")
        lines.append(f"  {setup_url(services.settings, link.secret)}")
        lines.append(f"Its certificate is signed by your own new root: {services.settings.data_dir / 'root.pem'}")
    # Straight to the terminal: a log line would keep the link, and this is for the person who started it.
    print("\n".join(lines), flush=True)


def setup_url(settings: Settings, secret: str) -> str:
    """The one-time link for the first administrator; its secret is stored only as a hash."""
    return f"{settings.base_url}/setup?token={secret}"
